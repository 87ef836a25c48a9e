"""What the benchmarks over a real socket share: frames, and the programs around them.

sender.c sends frames, floor.c or a feed handler reads them, consumer.c reads what the
handler published. Each is a process of its own. The first processor has the sender and
the consumer, the last one whoever reads the socket.
"""

import contextlib
import itertools
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

import msgspec
import numpy as np

from benchmarks import harness
from benchmarks.bench_faults import Told
from feedhandler import config, get_include, shm
from feedhandler.consumer import MarketData, attach
from feedhandler.errors import ConfigError, RingError
from feedhandler.records import QUOTE
from feedhandler.ring import Ring

BUILT = harness.ROOT / "build/benchmarks"
PROCESSORS = sorted(os.sched_getaffinity(0))
FIRST, LAST = PROCESSORS[0], PROCESSORS[-1]

MODES = ("block", "spin")
CODECS = ("msgspec", "scan")

START_S = 30.0
END_S = 10.0
# For what has just started to come to rest.
SETTLE_S = 0.05
# No program of a run lives longer, whatever happens to this one.
MOST_S = 120

WRONG = ("gaps", "resyncs", "duplicates", "malformed", "bad_values", "unrouted")

STAMP = np.dtype([("ns", "<i8"), ("instrument", "<i8"), ("sequence", "<i8")])
READ = np.dtype([("ns", "<i8"), ("recv_ns", "<i8"), *STAMP.descr[1:]])

FEED = """
url = "ws://127.0.0.1:{port}"
stall_after = 0
{codec}
[shm]
name = "{name}"
[loop]
mode = "{mode}"
cpu = {cpu}
"""
INSTRUMENT = """
[[instruments]]
symbol = "{symbol}"
depth = {depth}
channels = ["orderbook"]
"""

# ── frames ────────────────────────────────────────────────────────────────────────────


class Data(msgspec.Struct):
    symbol: str
    bids: list[msgspec.Raw]
    asks: list[msgspec.Raw]
    sequence: int


class BookMessage(msgspec.Struct):
    data: Data
    channel: str


decode = msgspec.json.Decoder(BookMessage).decode


class Material(NamedTuple):
    """The order-book messages of a recording, as they are, and what they are about.

    Of each message the number of its instrument, its sequence, how many levels it has
    and how many bytes.
    """

    name: str
    messages: list[bytes]
    channels: dict[str, str]
    instrument: np.ndarray
    sequence: np.ndarray
    levels: np.ndarray
    size: np.ndarray

    @property
    def keys(self) -> np.ndarray:
        """Return what tells a message from all others, as keys_of() records."""
        return keys_of(self.instrument, self.sequence)


def keys_of(instrument: np.ndarray, sequence: np.ndarray) -> np.ndarray:
    """Put instruments and the low 32 bits of sequences into one number each."""
    return instrument.astype(np.int64) << 32 | sequence.astype(np.int64) & 0xFFFFFFFF


def material(path: Path, count: int | None = None) -> Material:
    """Return the first *count* order-book messages of a recording."""
    messages = harness.book_frames(path)[:count]
    decoded = [decode(message) for message in messages]
    # The feed numbers its instruments as they are configured.
    channels = dict.fromkeys(message.data.symbol for message in decoded)
    channels |= {message.data.symbol: message.channel for message in decoded}
    numbers = {symbol: number for number, symbol in enumerate(channels)}
    return Material(
        path.name.removesuffix(".jsonl.gz"),
        messages,
        channels,
        np.array([numbers[m.data.symbol] for m in decoded], np.int64),
        np.array([m.data.sequence for m in decoded], np.int64),
        np.array([len(m.data.bids) + len(m.data.asks) for m in decoded], np.int64),
        np.array([len(message) for message in messages], np.int64),
    )


def again_and_again(recorded: Material) -> Iterator[list[bytes]]:
    """Yield the messages over and over, with the sequences continued; nothing else new.

    Each turn begins with the recorded snapshots, so that what a turn left in the books
    is not in the next one's way.
    """
    mark = b'"sequence":'
    pieces = []
    for message in recorded.messages:
        start = message.index(mark) + len(mark)
        end = start + len(message[start:]) - len(message[start:].lstrip(b"0123456789"))
        pieces.append((message[:start], message[end:]))
    sequences = recorded.sequence.tolist()
    # Of one instrument the recorded ones are all there, from 1 on.
    last = np.zeros(len(recorded.channels), np.int64)
    np.maximum.at(last, recorded.instrument, recorded.sequence)
    steps = last[recorded.instrument].tolist()
    for turn in itertools.count():
        yield [
            b"%b%d%b" % (head, sequence + turn * step, tail)
            for (head, tail), sequence, step in zip(
                pieces, sequences, steps, strict=True
            )
        ]


def framed(message: bytes) -> bytes:
    """Return a server's text frame."""
    size = len(message)
    if size < 126:
        return b"\x81" + bytes([size]) + message
    if size < 1 << 16:
        return b"\x81\x7e" + struct.pack(">H", size) + message
    return b"\x81\x7f" + struct.pack(">Q", size) + message


def write_frames(path: Path, turns: Iterable[list[bytes]], count: int) -> None:
    """Write the first *count* messages of *turns* as sender.c reads them."""
    starts, end = [np.zeros(1, np.uint64)], 0
    left = count
    with path.open("wb") as file:
        file.seek((2 + count) * 8)
        for turn in turns:
            frames = [framed(message) for message in turn[:left]]
            ends = end + np.cumsum([len(frame) for frame in frames], dtype=np.uint64)
            starts.append(ends.astype(np.uint64))
            end = int(ends[-1])
            file.write(b"".join(frames))
            left -= len(frames)
            if not left:
                break
        file.seek(0)
        file.write(np.uint64(count).tobytes() + np.concatenate(starts).tobytes())


# ── programs ──────────────────────────────────────────────────────────────────────────


def has_compiler() -> bool:
    return shutil.which("cc") is not None


def built(name: str) -> Path:
    """Build benchmarks/NAME.c if it changed; return the program."""
    source, program = harness.ROOT / f"benchmarks/{name}.c", BUILT / name
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        BUILT.mkdir(parents=True, exist_ok=True)
        fresh = program.with_suffix(f".{os.getpid()}")
        flags = ["-std=c11", "-O2", "-Wall", "-Wextra", f"-I{get_include()}"]
        subprocess.run(["cc", *flags, str(source), "-o", str(fresh)], check=True)
        fresh.rename(program)
    return program


class Program(Told):
    """A process that says lines, and is over when we are."""

    def __init__(self, *command: object) -> None:
        self.process = subprocess.Popen(
            [*map(str, command)],
            cwd=harness.ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )

    def finish(self, timeout_s: float = END_S) -> None:
        """Wait for its end; RuntimeError unless it says that all went well."""
        code = self.process.wait(timeout_s)
        if code:
            raise RuntimeError(f"{self.process.args[0]} ended with {code}")  # type: ignore[index]

    def end(self) -> None:
        """End it, if need be for good."""
        try:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
        super().end()


class Pace(NamedTuple):
    """How frames are sent: *burst* in one write, *gap_ns* from one to the next.

    No gap is flat out. The first *warm* frames go the same way and are not measured.
    """

    gap_ns: int
    burst: int = 1
    warm: int = 500

    def options(self) -> list[str]:
        gap = ["--gap-ns", str(self.gap_ns)] if self.gap_ns else ["--flat-out"]
        return [*gap, "--burst", str(self.burst), "--warm", str(self.warm)]


class Sender(Program):
    """sender.c, which waits for go(); *count* is how many frames, if not all."""

    def __init__(
        self, frames: Path, stamps: Path, pace: Pace, count: int | None = None
    ) -> None:
        some = [] if count is None else ["--count", count]
        super().__init__(
            built("sender"), "--go", "--cpu", FIRST, "--alarm", MOST_S,
            "--linger-ms", 20_000, *pace.options(), *some, frames, stamps,
        )  # fmt: skip
        self.stamps = stamps
        (self.port,) = self.hear("listening")

    def go(self) -> None:
        """Let it send, when its client has subscribed."""
        self.hear("begun")
        time.sleep(SETTLE_S)
        self.tell("go")

    def sent(self) -> tuple[int, int]:
        """Wait until it has sent all; return when its first and last writes were."""
        frames, _, first_ns, last_ns = self.hear("sent", MOST_S)
        if not frames:
            raise RuntimeError("the client left before it had all frames")
        return first_ns, last_ns


class Feed(NamedTuple):
    """A feed handler's configuration: what takes turns."""

    mode: str
    codec: str

    def __str__(self) -> str:
        return f"{self.mode} {self.codec}"

    def toml(self, port: int, name: str, channels: dict[str, str]) -> str:
        """Write the configuration; a codec that is the default is not in it."""
        top = FEED.format(
            port=port,
            name=name,
            mode=self.mode,
            cpu=LAST,
            codec="" if self.codec == CODECS[0] else f'codec = "{self.codec}"',
        )
        return top + "".join(
            INSTRUMENT.format(symbol=symbol, depth=channel.rsplit(":", 1)[1])
            for symbol, channel in channels.items()
        )

    def refusal(self) -> str | None:
        """Return why the product's configuration refuses it, if it does."""
        try:
            config.parse(self.toml(1, "refusal", {}))
        except ConfigError as error:
            return str(error).partition(";")[0].removeprefix("configuration: ")
        return None


class Handler(Program):
    """A feed handler on the last processor: by wire_handler.py if it is to stamp."""

    def __init__(
        self,
        folder: Path,
        feed: Feed,
        port: int,
        channels: dict[str, str],
        stamped: int = 0,
    ) -> None:
        self.name = f"wire-{os.getpid()}"
        path = folder / "feed.toml"
        path.write_text(feed.toml(port, self.name, channels))
        self.stamps = folder / "published"
        run = ["feedhandler", "--log-level", "error", "run", "--config", path]
        if stamped:
            run = ["benchmarks.wire_handler", path, self.stamps, stamped]
        super().__init__(sys.executable, "-m", *run)
        self.market = self._attached()
        if self.market.symbols() != list(channels):
            raise RuntimeError(f"symbols are {self.market.symbols()}")

    def _attached(self) -> MarketData:
        deadline = time.monotonic() + START_S
        while True:
            with contextlib.suppress(RingError):
                return attach(self.name)
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.end()
                raise RuntimeError("the feed handler did not start")
            time.sleep(0.005)

    def processor_s(self) -> tuple[float, float]:
        """Return the processor time that it had so far: user's and kernel's."""
        text = Path(f"/proc/{self.process.pid}/stat").read_text()
        user, kernel = text.rsplit(")", 1)[1].split()[11:13]
        tick = os.sysconf("SC_CLK_TCK")
        return int(user) / tick, int(kernel) / tick

    def stop(self) -> None:
        """End it as an operator does, and see that it says nothing against that."""
        self.market.close()
        self.process.send_signal(signal.SIGTERM)
        self.finish()

    def end(self) -> None:
        """End it in any case, and leave no segment behind."""
        super().end()
        for stream in ("quotes", "trades", "board", "counters"):
            with contextlib.suppress(RingError):
                shm.remove(self.name, stream)


class Consumer(Program):
    """consumer.c, attached to a feed's quotes."""

    def __init__(self, name: str, count: int, stamps: Path, nap_ns: int) -> None:
        super().__init__(
            built("consumer"), shm.DIRECTORY, name, count, stamps, FIRST, nap_ns, MOST_S
        )
        self.stamps = stamps
        self.hear("ready")

    def read(self) -> np.ndarray:
        """Wait until it has all; return what it noted."""
        self.finish(MOST_S)
        return np.fromfile(self.stamps, READ)


class Idle:
    """A ring that nobody writes, for a consumer beside the floor.

    So that the sender shares its processor with the same company in all runs.
    """

    def __init__(self) -> None:
        self.name = f"wire-idle-{os.getpid()}"
        size = Ring.size_for(QUOTE, 64)
        self._segment = shm.create(self.name, "quotes", size)
        self._ring = Ring(self._segment.buffer, QUOTE, 64, self._segment.origin)
        self._segment.publish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ring.release()
        self._segment.close()


def floor(
    port: int, mode: str, channels: dict[str, str], count: int, stamps: Path
) -> Program:
    """Start floor.c on the last processor."""
    channel = next(iter(channels.values()))
    return Program(
        built("floor"), port, channel, mode, count, stamps, LAST, MOST_S
    )  # fmt: skip


# ── what came of it ───────────────────────────────────────────────────────────────────


def matched(keys: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return the first record of each of *keys* in *found*; LookupError without one."""
    there, first = np.unique(
        keys_of(found["instrument"], found["sequence"]), return_index=True
    )
    places = np.minimum(np.searchsorted(there, keys), len(there) - 1)
    missing = int((there[places] != keys).sum()) if len(there) else len(keys)
    if missing:
        raise LookupError(f"{missing} of {len(keys)} messages were not published")
    return found[first[places]]


def none_lost(counters: dict[str, int], sent: int) -> None:
    """Raise AssertionError unless *sent* messages were applied, each in its turn."""
    wrong = sum(counters[name] for name in WRONG)
    if counters["updates"] + counters["snapshots"] != sent or wrong:
        raise AssertionError(f"of {sent} messages: {counters}")


@contextlib.contextmanager
def on_the_first_processor() -> Iterator[None]:
    """Keep this process away from whoever reads the socket."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {FIRST})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)

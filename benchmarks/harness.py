"""What the benchmarks share: the recordings, the shipping configuration, the loops."""

import gzip
import importlib.util
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

from feedhandler.audit import AuditLog
from feedhandler.codec import Codec, MsgspecCodec, ScanCodec
from feedhandler.segments import Segments
from feedhandler.session import Session
from feedhandler.sink import Sink, Tee
from feedhandler.throttle import Throttle

ROOT = Path(__file__).parent.parent
CAPACITY = 131_072
INSTRUMENTS = 1024
BOARD_LEVELS = 10
WINDOW_NS = 61_000_000_000

CODECS: dict[str, Callable[[], Codec]] = {"msgspec": MsgspecCodec, "scan": ScanCodec}

SETUP = """
from Cython.Build import cythonize
from setuptools import Extension, setup
setup(
    name="loops",
    ext_modules=cythonize(
        [Extension("loops", ["benchmarks/loops.pyx"], extra_compile_args=["-O3"])],
        build_dir="build/benchmarks",
    ),
    script_args=["-q", "build_ext", "--build-lib", "build/benchmarks"],
    packages=[],
)
"""


def loops() -> ModuleType:
    """Build benchmarks/loops.pyx if it changed, and import it."""
    subprocess.run([sys.executable, "-c", SETUP], cwd=ROOT, check=True, stdout=2)
    return built_loops()


def built_loops() -> ModuleType:
    """Import loops.pyx as another process has built it."""
    (path,) = (ROOT / "build/benchmarks").glob("loops.*.so")
    spec = importlib.util.spec_from_file_location("loops", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def recordings() -> dict[str, Path]:
    """Return the recordings at hand: the real ones, else the small one."""
    folder = Path(os.environ.get("FEEDHANDLER_RECORDINGS") or ROOT / "tests/data")
    return {
        path.name.removesuffix(".jsonl.gz"): path
        for path in sorted(folder.glob("*.jsonl.gz"))
    }


def frames(path: Path) -> list[bytes]:
    """Return the messages of a recording, one bytes object each."""
    with gzip.open(path) as lines:
        return [line.rstrip(b"\n") for line in lines]


def book_frames(path: Path) -> list[bytes]:
    """Return the order-book messages of a recording."""
    return [frame for frame in frames(path) if frame.startswith(b'{"type":"orderbook')]


def book_updates(path: Path) -> tuple[int, list[tuple[bytes, bytes]]]:
    """Return the depth of the first book, and its messages as packed levels."""
    first = json.loads(frames(path)[0])["channel"]
    packed = []
    for frame in book_frames(path):
        message = json.loads(frame)
        if message["channel"] == first:
            data = message["data"]
            packed.append((_pack(data["bids"]), _pack(data["asks"])))
    return int(first.rsplit(":", 1)[1]), packed


def _pack(levels: list[list[float]]) -> bytes:
    return b"".join(struct.pack("<dd", price, size) for price, size in levels)


def session(messages: list[bytes], audit: AuditLog | None = None) -> Session:
    """Return a Session as the product ships it, subscribed to what *messages* need."""
    return session_of(channels_in(messages), audit=audit)


def channels_in(messages: list[bytes]) -> list[str]:
    """Return the channels that *messages* are of, in the order of the first of each."""
    return list(dict.fromkeys(json.loads(message)["channel"] for message in messages))


def segments(name: str = "", directory: str = "/dev/shm") -> Segments:
    """Return what a feed has in shared memory; without a name, in private memory."""
    return Segments(
        name,
        capacity=CAPACITY,
        board_levels=BOARD_LEVELS,
        instruments=INSTRUMENTS,
        directory=directory,
    )


def session_of(
    channels: Iterable[str],
    codec: Codec | None = None,
    audit: AuditLog | None = None,
    into: Segments | None = None,
) -> Session:
    """Return a Session as the product ships it, subscribed to *channels*.

    Rings, board and counters are written as they are in shared memory, but over private
    memory: the same stores, and nobody reading. Or *into* what segments() returned.
    """
    made_in = into or segments()
    sink: Sink = made_in.publisher
    made = Session(
        codec or MsgspecCodec(),
        sink if audit is None else Tee(audit, sink, print),
        made_in.counters,
        Throttle(45, WINDOW_NS),
        Throttle(180, WINDOW_NS),
    )
    symbols: dict[str, int] = {}
    for channel in channels:
        symbol = channel.split(":")[1]
        if symbol not in symbols:
            symbols[symbol] = made_in.board.add(symbol)
        made.add(channel, symbols[symbol])
    made.opened(time.monotonic_ns())
    made.take_outbox()
    return made

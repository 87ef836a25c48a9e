"""Faults of the network and the venue: how soon a reader knows, and has prices again.

``python -m benchmarks.bench_faults [--rounds N] [--silent-rounds N] [--write]``: a
venue of fifty symbols, a fault proxy, a feed handler and a reader, on the loopback. The
reader spins in a process of its own: what it sees in shared memory, and when, counts.
"""

import argparse
import contextlib
import importlib.metadata
import os
import platform
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

import pytest

from benchmarks import pages
from benchmarks.harness import ROOT
from benchmarks.told import SYMBOLS
from feedhandler.consumer import attach
from feedhandler.errors import RingAbsent
from feedhandler.testing import After, RunningProxy

PAGE = ROOT / "benchmarks/reliability.md"

ROUNDS = 20
SILENT_ROUNDS = 5
RUN_ROUNDS = 5
START_S = 30.0
LONGEST_S = 120.0
# The next fault must find a connection that was useful: its attempts start over.
SETTLE_S = 2.0

PROCESSORS = sorted(os.sched_getaffinity(0))
FIRST, LAST = PROCESSORS[0], PROCESSORS[-1]

CUT_MS = 5.0
# Ten seconds of silence and ten for the pong, each seen at one of ten beats a second.
SILENT_MS = 20_200.0
# The first step of the backoff, with its jitter, and half a second.
LIVE_S = 1.2 + 0.5

FEED = """
url = "{url}"
[shm]
name = "{name}"
"""
INSTRUMENT = """
[[instruments]]
symbol = "{symbol}"
channels = ["orderbook"]
"""

# ── the processes ─────────────────────────────────────────────────────────────────────


class Told:
    """A process that says lines and, told a line, does something."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", *map(str, arguments)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )

    def tell(self, *words: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)).encode() + b"\n")

    def hear(self, word: str, timeout_s: float = START_S) -> list[int]:
        """Return the numbers of the next line, which begins with *word*."""
        out = self.process.stdout
        assert out is not None
        if not select.select([out], [], [], timeout_s)[0]:
            raise TimeoutError(f"nobody said {word!r} in {timeout_s} s")
        said, *numbers = out.readline().decode().split() or [""]
        if said != word:
            raise RuntimeError(f"{said!r} was said, not {word!r}")
        return [int(number) for number in numbers]

    def end(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class Scene:
    """A venue and one that waits to follow it, the proxy, the feed and the reader."""

    def __init__(self, stack: contextlib.ExitStack, folder: Path) -> None:
        self._stack = stack
        self.accepted_ns: list[int] = []
        self.venue = self._new_venue()
        self._next: Told | None = None
        self.venue.tell("listen", 0)
        _, self._port = self.venue.hear("listening")
        url = f"ws://127.0.0.1:{self._port}"
        # As soon as somebody is connected to the venue, and not to the proxy alone.
        note = (After(0), lambda _: self.accepted_ns.append(time.monotonic_ns()))
        self.proxy = stack.enter_context(RunningProxy(url, [note]))
        name = f"faults-{os.getpid()}"
        config = folder / "feed.toml"
        config.write_text(
            FEED.format(url=self.proxy.url, name=name)
            + "".join(INSTRUMENT.format(symbol=symbol) for symbol in SYMBOLS)
        )
        feed = Told("feedhandler", "--log-level", "error", "run", "--config", config)
        stack.enter_context(feed)
        wait_for(name)
        self.reader = stack.enter_context(Told("benchmarks.told", "reader", name))
        os.sched_setaffinity(self.reader.process.pid, {LAST})

    def _new_venue(self) -> Told:
        venue = self._stack.enter_context(Told("benchmarks.told", "venue"))
        venue.hear("ready")
        return venue

    def prepare_venue(self) -> None:
        """Have another venue ready to listen."""
        self._next = self._next or self._new_venue()

    def replace_venue(self) -> int:
        """Let the one that is ready listen on the port; return when it did."""
        assert self._next is not None
        self.venue, self._next = self._next, None
        self.venue.tell("listen", self._port)
        listening_ns, _ = self.venue.hear("listening")
        return listening_ns

    def last(self, kind: str) -> int:
        """Return when the proxy last did a fault."""
        return [entry.at_ns for entry in self.proxy.log if entry.kind == kind][-1]


def wait_for(name: str) -> None:
    """Wait until a feed has published its segments."""
    deadline = time.monotonic() + START_S
    while True:
        with contextlib.suppress(RingAbsent):
            attach(name).close()
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"no feed {name!r} in {START_S} s")
        time.sleep(0.01)


@contextlib.contextmanager
def staged() -> Iterator[Scene]:
    """Set up a scene on the first processor, all but the reader, who spins."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {FIRST})
    try:
        with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
            yield Scene(stack, Path(folder))
    finally:
        os.sched_setaffinity(0, before)


# ── the faults ────────────────────────────────────────────────────────────────────────


class Fault(NamedTuple):
    """What is done, and how it is undone; both return when, in ns.

    One that heals by itself is healed when it happens.
    """

    strike: Callable[[Scene], int]
    heal: Callable[[Scene], int] | None = None
    most_ms: float | None = None
    silent: bool = False


def reset(scene: Scene) -> int:
    scene.proxy.reset()
    return scene.last("reset")


def half_close(scene: Scene) -> int:
    scene.proxy.do(lambda proxy: proxy.down.half_close())
    return scene.last("half_close")


def blackhole(scene: Scene) -> int:
    at_ns = time.monotonic_ns()
    scene.proxy.blackhole()
    return at_ns


def heal(scene: Scene) -> int:
    at_ns = time.monotonic_ns()
    scene.proxy.heal()
    return at_ns


def send(number: signal.Signals) -> Callable[[Scene], int]:
    def act(scene: Scene) -> int:
        at_ns = time.monotonic_ns()
        scene.venue.process.send_signal(number)
        return at_ns

    return act


def restart(scene: Scene) -> int:
    scene.venue.tell("restart")
    (at_ns,) = scene.venue.hear("restarting")
    return at_ns


def restarted(scene: Scene) -> int:
    (at_ns,) = scene.venue.hear("restarted")
    return at_ns


FAULTS = {
    "RST": Fault(reset, most_ms=CUT_MS),
    "FIN without a close frame": Fault(half_close, most_ms=CUT_MS),
    "venue killed with SIGKILL": Fault(send(signal.SIGKILL), Scene.replace_venue),
    "venue restarts, code 4004": Fault(restart, restarted),
    "blackhole, both ways": Fault(blackhole, heal, SILENT_MS, silent=True),
    "venue stopped with SIGSTOP": Fault(
        send(signal.SIGSTOP), send(signal.SIGCONT), SILENT_MS, silent=True
    ),
}


class Round(NamedTuple):
    """What one fault came to.

    *first_ms* and *stale_ms* are from the fault until the first and the last of the
    books was seen STALE. From the end of the fault it was *waiting_s* until the next
    connection to the venue, and *live_s* until all books were seen LIVE.
    """

    first_ms: float
    stale_ms: float
    waiting_s: float
    live_s: float

    @property
    def joining_ms(self) -> float:
        """From the connection until all books were LIVE."""
        return 1000 * (self.live_s - self.waiting_s)


def play(scene: Scene, fault: Fault) -> Round:
    scene.prepare_venue()
    time.sleep(SETTLE_S)
    scene.reader.tell("watch")
    scene.reader.hear("ready")
    struck_ns = fault.strike(scene)
    first_ns, stale_ns = scene.reader.hear("stale", LONGEST_S)
    healed_ns = struck_ns if fault.heal is None else fault.heal(scene)
    (live_ns,) = scene.reader.hear("live", LONGEST_S)
    return Round(
        (first_ns - struck_ns) / 1e6,
        (stale_ns - struck_ns) / 1e6,
        (scene.accepted_ns[-1] - healed_ns) / 1e9,
        (live_ns - healed_ns) / 1e9,
    )


# ── the table ─────────────────────────────────────────────────────────────────────────

HEAD = (
    "| fault | n | all 50 STALE, ms: min | median | max "
    "| all 50 LIVE, s: p50 | p99 | of it waiting, s: median | connected to LIVE, ms: "
    "median | max |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def row(name: str, rounds: list[Round]) -> str:
    if not rounds:
        return f"| {name} | 0 | not measured | | | | | | | |"
    stale, live = [r.stale_ms for r in rounds], sorted(r.live_s for r in rounds)
    joining = [r.joining_ms for r in rounds]
    cells = [
        name,
        len(rounds),
        f"{min(stale):,.2f}",
        f"{statistics.median(stale):,.2f}",
        f"{max(stale):,.2f}",
        f"{statistics.median(live):.2f}",
        # Of fewer than a hundred, the worst of them.
        f"{live[len(live) * 99 // 100]:.2f}",
        f"{statistics.median(r.waiting_s for r in rounds):.2f}",
        f"{statistics.median(joining):.1f}",
        f"{max(joining):.1f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def missed(fault: Fault, rounds: list[Round]) -> list[str]:
    """Return the goals that were not met, in words."""
    found = []
    if not rounds:
        return found
    stale_ms = statistics.median(r.stale_ms for r in rounds)
    if fault.most_ms is not None and stale_ms > fault.most_ms:
        found.append(f"STALE after {stale_ms:,.1f} ms, not {fault.most_ms:,.0f}")
    live_s = max(r.live_s for r in rounds)
    if live_s > LIVE_S:
        found.append(f"LIVE after {live_s:.2f} s, not {LIVE_S}")
    return found


def load() -> str:
    """Say how busy the machine was in the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def machine(load_before: str) -> str:
    """Say where and of what the figures are; call it when they are taken."""
    names = Path("/proc/cpuinfo").read_text().split("model name\t: ", 1)[1:]
    model = names[0].splitlines()[0] if names else platform.machine()
    versions = " ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("picows", "uvloop")
    )
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return (
        f"{os.cpu_count()} processors, {model}; Linux {platform.release()}, Python "
        f"{platform.python_version()}, {versions}; commit {commit or 'unknown'}, "
        f"{time.strftime('%Y-%m-%d')}; load {load_before} before and {load()} after."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--silent-rounds", type=int, default=SILENT_ROUNDS)
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    options = parser.parse_args()
    rows, complaints, before = [], [], load()
    for name, fault in FAULTS.items():
        count = options.silent_rounds if fault.silent else options.rounds
        with staged() as scene:
            rounds = [play(scene, fault) for _ in range(count)]
        rows.append(row(name, rounds))
        complaints += [f"{name}: {text}" for text in missed(fault, rounds)]
        print(rows[-1], flush=True)
    table = "\n".join(["", HEAD, *rows, "", machine(before), ""])
    if options.write:
        pages.write(PAGE, "faults", table)
    print(table, *complaints, sep="\n")
    return bool(complaints)


# ── in the tests ──────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with staged() as made:
        yield made


@pytest.mark.parametrize("name", [name for name, f in FAULTS.items() if not f.silent])
def test_fault(name: str, scene: Scene, benchmark, report: list[str]):
    rounds = RUN_ROUNDS if benchmark.enabled else 1
    played = [play(scene, FAULTS[name]) for _ in range(rounds)]
    benchmark(lambda: None)
    stale, live = [r.stale_ms for r in played], [r.live_s for r in played]
    report.append(
        f"{name:26} STALE after {statistics.median(stale):6.2f} ms "
        f"({min(stale):.2f} to {max(stale):.2f}), LIVE after "
        f"{statistics.median(live):.2f} s ({min(live):.2f} to {max(live):.2f})"
    )
    if benchmark.enabled:
        assert missed(FAULTS[name], played) == []


if __name__ == "__main__":
    sys.exit(main())

"""Feeds as processes that follow a venue which only plays: connections, and memory.

The venue is on the first processor with whoever measures, the feed on the last.
"""

import contextlib
import ctypes
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.bench_faults import Told, wait_for
from benchmarks.harness import BOARD_LEVELS, INSTRUMENTS, ROOT
from benchmarks.wire import FIRST, LAST, on_the_first_processor
from feedhandler.board import Board
from feedhandler.consumer import MarketData, attach

DEPTH = 10
CONNECTIONS = (1, 2, 3, 4, 5)
MANY = 1_000_000
START_S = 30.0

FEED = """
url = "ws://127.0.0.1:{port}"
quiet_after = 0
{codec}
[shm]
name = "{name}"
[loop]
cpu = {cpu}
[limits]
connections = 100
subscriptions_per_connection = {room}
subscribe_per_minute = {many}
"""
INSTRUMENT = """
[[instruments]]
symbol = "S{number}"
depth = {depth}
channels = ["orderbook"]
"""


class Played(NamedTuple):
    """How long a feed took for what a venue played, of its processor and in all."""

    cpu_ns: float
    """Of one message; the control loop's beats are in it."""
    rate: float
    """Messages a second, from the first sent to the last that was published."""


class Load(NamedTuple):
    """What the venue plays: some messages at a rate, and more of them flat out."""

    rounds: int
    steady: int
    flat_out: int
    rate: int = 20_000
    symbols: int = 100


OVER_SOCKETS = Load(3, 40_000, 200_000)
SHORT = Load(1, 2_000, 2_000)


def processor_ns(pid: int) -> int:
    """Return the processor time of a process, to the nanosecond."""
    clock = ctypes.c_int()
    failed = ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock))
    if failed:
        raise ProcessLookupError(failed, os.strerror(failed))
    return time.clock_gettime_ns(clock.value)


class Scene:
    """A venue that plays, and feeds that follow it, one after the other."""

    def __init__(
        self, stack: contextlib.ExitStack, symbols: int, depth: int, count: int
    ) -> None:
        self.symbols, self.depth = symbols, depth
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(on_the_first_processor())
        self.venue = stack.enter_context(
            Told("benchmarks.replayed", FIRST, symbols, depth, count)
        )
        (self.port,) = self.venue.hear("listening", START_S)

    @contextlib.contextmanager
    def feed(
        self, codec: str, connections: int, symbols: int | None = None
    ) -> Iterator[tuple[Told, MarketData]]:
        """Run a feed until all of its books are LIVE; end it afterwards."""
        symbols = self.symbols if symbols is None else symbols
        name = f"scale-{os.getpid()}"
        config = self.folder / "feed.toml"
        config.write_text(
            FEED.format(
                port=self.port,
                # The default is left out.
                codec="" if codec == "msgspec" else f'codec = "{codec}"',
                name=name,
                cpu=LAST,
                room=math.ceil(symbols / connections),
                many=MANY,
            )
            + "".join(
                INSTRUMENT.format(number=number, depth=self.depth)
                for number in range(symbols)
            )
        )
        arguments = ("--log-level", "error", "run", "--config", config)
        with Told("feedhandler", *arguments) as feed:
            wait_for(name)
            with attach(name) as market:
                wait_until(market, "snapshots", symbols)
                assert market.counters()["connects"] == connections
                yield feed, market

    def play(self, feed: Told, market: MarketData, rate: int, count: int) -> Played:
        """Let the venue play to a new feed, and see what that took."""
        before_ns = processor_ns(feed.process.pid)
        self.venue.tell("play", rate, count)
        (began_ns,) = self.venue.hear("played", 120.0)
        wait_until(market, "updates", count)
        ended_ns = time.monotonic_ns()
        took_ns = processor_ns(feed.process.pid) - before_ns
        counters = market.counters()
        assert counters["gaps"] == counters["malformed"] == 0
        return Played(took_ns / count, count * 1e9 / (ended_ns - began_ns))


def wait_until(market: MarketData, counter: str, goal: int) -> None:
    deadline = time.monotonic() + START_S
    while market.counters()[counter] < goal:
        if time.monotonic() > deadline:
            found = market.counters()[counter]
            raise TimeoutError(f"{counter} are {found:,}, not {goal:,}")
        time.sleep(0.001)


class Connected(NamedTuple):
    """By the number of connections: a steady rate, and flat out."""

    steady: dict[int, list[Played]]
    flat_out: dict[int, list[Played]]


def by_connections(codec: str, what: Load) -> Connected:
    """Play the same to feeds that share it among one to five connections, in turn."""
    found = Connected({}, {})
    with contextlib.ExitStack() as stack:
        scene = Scene(stack, what.symbols, DEPTH, max(what.steady, what.flat_out))
        for _ in range(what.rounds):
            for connections in CONNECTIONS:
                for played, rate, count in (
                    (found.steady, what.rate, what.steady),
                    (found.flat_out, 0, what.flat_out),
                ):
                    # A feed of its own each time: the sequence begins anew.
                    with scene.feed(codec, connections) as (feed, market):
                        each = played.setdefault(connections, [])
                        each.append(scene.play(feed, market, rate, count))
    return found


# ── memory ────────────────────────────────────────────────────────────────────────────

MEMORY_SYMBOLS = 1_000
MEMORY_DEPTH = 100
MEMORY_COUNT = 100_000
MEMORY_CONNECTIONS = 20
FLAT_MESSAGES = 200_000
LONG_MESSAGES = 10_000_000


class Memory(NamedTuple):
    """What a feed of a thousand books keeps resident, in bytes."""

    each: float
    """Of one instrument, in the feed's own memory."""
    board: int
    """Of one instrument, on the board, which is shared, and there from the start."""
    beside_rings: int
    """All of the process but the two rings: code, interpreter, books, board."""
    one: int
    """The same of a feed with one instrument."""


def memory_of(codec: str, count: int = MEMORY_COUNT) -> Memory:
    """Compare feeds of one instrument and of a thousand, as they run."""
    found = []
    with contextlib.ExitStack() as stack:
        scene = Scene(stack, MEMORY_SYMBOLS, MEMORY_DEPTH, count)
        for symbols, connections in ((1, 1), (MEMORY_SYMBOLS, MEMORY_CONNECTIONS)):
            with scene.feed(codec, connections, symbols) as (feed, market):
                if symbols == MEMORY_SYMBOLS:
                    scene.play(feed, market, 0, count)
                found.append(beside_rings(feed.process.pid))
    one, many = found
    size = Board.size_for(2 * INSTRUMENTS, BOARD_LEVELS)
    entry = (size - Board.size_for(INSTRUMENTS, BOARD_LEVELS)) // INSTRUMENTS
    return Memory((many - one) / (MEMORY_SYMBOLS - 1), entry, many, one)


def beside_rings(pid: int) -> int:
    """Return what is resident of a process, but for its rings."""
    total = 0
    counts = True
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name = line.split()[0]
        if not name.endswith(":"):
            counts = not line.endswith((".quotes", ".trades"))
        elif name == "Rss:" and counts:
            total += int(line.split()[1]) << 10
    return total


def flatness(codec: str, messages: int) -> list[int]:
    """Return the bytes resident in a process after each tenth of *messages*."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fed", codec, str(messages)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return [int(line.split()[1]) for line in done.stdout.splitlines()]

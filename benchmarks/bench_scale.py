"""What a message costs, by instruments, depth, connections, readers; and memory.

``python -m benchmarks.bench_scale [--write] [--long]``. Method: benchmarks/README.md.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from benchmarks import harness, pages, updates
from benchmarks.bench_book import FULL, QUICK, Effort, Times, alternate
from benchmarks.bench_faults import load, machine
from benchmarks.connected import (
    CONNECTIONS,
    FIRST,
    FLAT_MESSAGES,
    LAST,
    LONG_MESSAGES,
    OVER_SOCKETS,
    SHORT,
    START_S,
    Connected,
    Load,
    Memory,
    Played,
    by_connections,
    flatness,
    memory_of,
)
from benchmarks.replayed import channels_of
from benchmarks.updates import Stream
from feedhandler.codec import Codec
from feedhandler.consumer import attach
from feedhandler.session import Session

PAGE = harness.ROOT / "benchmarks/README.md"
DATA = harness.ROOT / "build/benchmarks/scale.json"

DEPTH = 10
INSTRUMENTS = (1, 10, 100, 1_000)
DEPTHS = (10, 100, 1_000, 5_000)
WHERE = {"top": "at the top", "any": "at any level"}
READERS = (0, 1, 2)

SPAWN = multiprocessing.get_context("spawn")

# Under pytest; the figures are main()'s.
SOME = Effort(7, 20_000)

GOAL_DEPTH = 1.3
GOAL_EACH_BYTES = 8 << 10
GOAL_ALL_BYTES = 150 << 20
# What may come after a tenth of the messages: pages of the allocator, not of messages.
FLAT_BYTES = 1 << 20

CODECS = harness.CODECS
loops = harness.loops()

Timers = dict[str, Callable[[], int]]


class Fed:
    """A stream of whole messages, and the session or sessions that take it."""

    def __init__(
        self, stream: Stream, sessions: list[Session], channels: list[str]
    ) -> None:
        self.sessions = sessions
        self.channels = channels
        self.first = updates.first_frames(stream, channels)
        self.frames = updates.frames(stream, channels)
        books = stream.updates["book"].tolist()
        self.takers = [sessions[book % len(sessions)] for book in books]
        self.check(stream)

    def start(self) -> None:
        """Give every book its first snapshot again."""
        for number, frame in enumerate(self.first):
            loops.time_feed(self.sessions[number % len(self.sessions)], [frame])

    def time(self) -> int:
        """Return the ns of all updates, from the frame's bytes to ring and board."""
        self.start()
        if len(self.sessions) == 1:
            return loops.time_feed(self.sessions[0], self.frames)
        return loops.time_feeds(self.takers, self.frames)

    def check(self, stream: Stream) -> None:
        """Compare what the sessions make of the stream with what the oracle made."""
        self.time()
        for number, (bids, asks) in enumerate(stream.last):
            routes = self.sessions[number % len(self.sessions)].routes
            book = routes[self.channels[number]].book
            assert book.is_live
            assert book.bids() == bids
            assert book.asks() == asks


# ── instruments, depth and sessions: in process ───────────────────────────────────────


def by_instruments(effort: Effort, make: Callable[[], Codec]) -> Times:
    """Time updates of books drawn by lot, all of them in one session."""
    channels = channels_of(max(INSTRUMENTS), DEPTH)
    session = harness.session_of(channels, make())
    timers: Timers = {}
    for count in INSTRUMENTS:
        stream = updates.stream([DEPTH] * count, "mixed", effort.count)
        timers[str(count)] = Fed(stream, [session], channels[:count]).time
    return alternate(effort.rounds, effort.count, timers)


def by_depth(effort: Effort, make: Callable[[], Codec]) -> Times:
    """Time updates of one book of each depth, all of them in one session."""
    cases = [(where, depth) for where in WHERE for depth in DEPTHS]
    channels = [f"orderbook:S{n}:{depth}" for n, (_, depth) in enumerate(cases)]
    session = harness.session_of(channels, make())
    timers: Timers = {}
    for channel, (where, depth) in zip(channels, cases, strict=True):
        stream = updates.stream([depth], where, effort.count)
        timers[f"{where} {depth}"] = Fed(stream, [session], [channel]).time
    return alternate(effort.rounds, effort.count, timers)


def by_sessions(effort: Effort, make: Callable[[], Codec]) -> Times:
    """Time the same messages of a hundred books, held by one to five sessions."""
    channels = channels_of(100, DEPTH)
    stream = updates.stream([DEPTH] * len(channels), "mixed", effort.count)
    timers: Timers = {}
    for count in CONNECTIONS:
        into = harness.segments()
        sessions = [
            harness.session_of(channels[number::count], make(), into=into)
            for number in range(count)
        ]
        timers[str(count)] = Fed(stream, sessions, channels).time
    return alternate(effort.rounds, effort.count, timers)


# ── readers: in processes of their own ────────────────────────────────────────────────


def follow(name: str, folder: str, parent: Connection) -> None:
    """Read all quotes, spinning, until the parent says something; say how many."""
    os.sched_setaffinity(0, {FIRST})
    with attach(name, directory=folder) as market:
        quotes = market.quotes()
        parent.send("ready")
        while not parent.poll():
            loops.follow(quotes, 50_000_000)
        parent.send((quotes.received, quotes.lost))


class Readers:
    """Processes that read the quotes; those that are not wanted now stand still."""

    def __init__(
        self, stack: contextlib.ExitStack, name: str, folder: str, count: int
    ) -> None:
        self.processes: list[BaseProcess] = []
        self.pipes: list[Connection] = []
        for _ in range(count):
            ours, theirs = SPAWN.Pipe()
            process = SPAWN.Process(target=follow, args=(name, folder, theirs))
            process.start()
            stack.callback(process.kill)
            self.processes.append(process)
            self.pipes.append(ours)
        for pipe in self.pipes:
            assert pipe.poll(START_S), "a reader did not start"
            pipe.recv()

    def let_run(self, count: int) -> None:
        """Let the first *count* run, and nobody else."""
        for number, process in enumerate(self.processes):
            assert process.pid is not None
            go_on = number < count
            os.kill(process.pid, signal.SIGCONT if go_on else signal.SIGSTOP)
        time.sleep(0.005)

    def end(self) -> list[tuple[int, int]]:
        """End them; return how many quotes each received and lost."""
        self.let_run(len(self.processes))
        for pipe in self.pipes:
            pipe.send("end")
        told = []
        for process, pipe in zip(self.processes, self.pipes, strict=True):
            assert pipe.poll(START_S), "a reader did not end"
            told.append(pipe.recv())
            process.join(START_S)
        return told


class ReadersTimes(NamedTuple):
    """The writer's times by the number of readers, and what each reader got."""

    times: Times
    told: list[tuple[int, int]]


def by_readers(effort: Effort, make: Callable[[], Codec]) -> ReadersTimes:
    """Time the writer, on its own processor, while others read what it publishes."""
    channels = channels_of(1, DEPTH)
    stream = updates.stream([DEPTH], "mixed", effort.count)
    name = f"scale-{os.getpid()}"
    before = os.sched_getaffinity(0)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(dir="/dev/shm", prefix="bench-")
        )
        into = harness.segments(name, folder)
        stack.callback(into.close)
        fed = Fed(stream, [harness.session_of(channels, make(), into=into)], channels)
        into.publish()
        readers = Readers(stack, name, folder, max(READERS))
        stack.callback(os.sched_setaffinity, 0, before)
        os.sched_setaffinity(0, {LAST})

        def read_by(count: int) -> Callable[[], int]:
            def timer() -> int:
                readers.let_run(count)
                return fed.time()

            return timer

        timers = {str(count): read_by(count) for count in READERS}
        times = alternate(effort.rounds, effort.count, timers)
        return ReadersTimes(times, readers.end())


# ── the tables ────────────────────────────────────────────────────────────────────────


class Scaled(NamedTuple):
    """All that was measured of one codec."""

    instruments: Times
    depth: Times
    sessions: Times
    readers: ReadersTimes
    connections: Connected
    memory: Memory
    flat: list[int]
    flat_messages: int


def measure(codec: str, effort: Effort, what: Load, flat_messages: int) -> Scaled:
    make = CODECS[codec]
    return Scaled(
        by_instruments(effort, make),
        by_depth(effort, make),
        by_sessions(effort, make),
        by_readers(effort, make),
        by_connections(codec, what),
        memory_of(codec),
        flatness(codec, flat_messages),
        flat_messages,
    )


def cells(times: Times, keys: list[str]) -> list[str]:
    """Return the medians, each but the first with its ratio to that, round by round."""
    first = times[keys[0]]
    made = [f"{np.median(first):,.0f}"]
    for key in keys[1:]:
        ratio = np.median(times[key] / first)
        made.append(f"{np.median(times[key]):,.0f} ({ratio:.2f})")
    return made


def table(head: list[Any], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def scaling_table(
    what: str, found: dict[str, Times], keys: list[str], prefix: str = ""
) -> str:
    """Return a table of what one message costs, a row for each codec."""
    rows = [
        [codec, *cells(times, [prefix + key for key in keys])]
        for codec, times in found.items()
    ]
    return table([what, *(f"{int(key):,}" for key in keys)], rows)


def depth_table(found: dict[str, Times]) -> str:
    rows = [
        [f"{codec}, {name}", *cells(times, [f"{where} {depth}" for depth in DEPTHS])]
        for codec, times in found.items()
        for where, name in WHERE.items()
    ]
    return table(["ns, levels of a side", *(f"{depth:,}" for depth in DEPTHS)], rows)


def played_cells(played: dict[int, list[Played]], field: str, scale: float) -> list:
    made = []
    for each in played.values():
        values = [getattr(one, field) * scale for one in each]
        made.append(f"{statistics.median(values):,.2f}")
    return made


def connections_table(found: dict[str, Connected], rate: int) -> str:
    rows = []
    for codec, (steady, flat_out) in found.items():
        every = f"{codec}, {rate:,} a second, us of processor a message"
        rows.append([every, *played_cells(steady, "cpu_ns", 1e-3)])
        every = f"{codec}, flat out, us of processor a message"
        rows.append([every, *played_cells(flat_out, "cpu_ns", 1e-3)])
        every = f"{codec}, flat out, thousand messages a second"
        rows.append([every, *played_cells(flat_out, "rate", 1e-3)])
    return table(["connections", *CONNECTIONS], rows)


def memory_table(found: dict[str, Scaled]) -> str:
    rows = []
    for codec, scaled in found.items():
        memory, flat = scaled.memory, scaled.flat
        rows.append(
            [
                codec,
                f"{memory.each / 1024:.1f}",
                f"{memory.board / 1024:.1f}",
                f"{memory.one / 2**20:.0f}",
                f"{memory.beside_rings / 2**20:.0f}",
                f"{flat[0] / 2**20:.1f}",
                f"{flat[-1] / 2**20:.1f}",
            ]
        )
    (messages,) = {scaled.flat_messages for scaled in found.values()}
    head = [
        "resident",
        "KiB an instrument",
        "on the board",
        "MiB beside the rings, 1 instrument",
        "1,000",
        f"MiB, fed {messages // 10:,} messages",
        f"{messages:,}",
    ]
    return table(head, rows)


def tables(found: dict[str, Scaled], rate: int) -> list[str]:
    return [
        scaling_table(
            "ns, instruments",
            {codec: each.instruments for codec, each in found.items()},
            [str(count) for count in INSTRUMENTS],
        ),
        depth_table({codec: each.depth for codec, each in found.items()}),
        scaling_table(
            "ns, sessions in process",
            {codec: each.sessions for codec, each in found.items()},
            [str(count) for count in CONNECTIONS],
        ),
        connections_table({c: each.connections for c, each in found.items()}, rate),
        scaling_table(
            "ns of the writer, readers",
            {codec: each.readers.times for codec, each in found.items()},
            [str(count) for count in READERS],
        ),
        memory_table(found),
    ]


def missed(codec: str, found: Scaled) -> list[str]:
    """Return the goals that were not met, in words."""
    complaints = []
    deep, shallow = (found.depth[f"top {depth}"] for depth in (DEPTHS[-1], DEPTHS[0]))
    ratio = np.median(deep / shallow)
    if ratio > GOAL_DEPTH:
        complaints.append(f"{DEPTHS[-1]:,} levels cost {ratio:.2f} x, not {GOAL_DEPTH}")
    each = found.memory.each + found.memory.board
    if each > GOAL_EACH_BYTES:
        complaints.append(f"an instrument takes {each:,.0f} bytes, not 8 KiB")
    if found.memory.beside_rings > GOAL_ALL_BYTES:
        complaints.append(f"{found.memory.beside_rings:,} bytes in all, not 150 MiB")
    grown = found.flat[-1] - found.flat[0]
    if grown > FLAT_BYTES:
        complaints.append(f"{grown:,} bytes more after {found.flat_messages:,}")
    return [f"{codec}: {text}" for text in complaints]


# ── for plots.py ──────────────────────────────────────────────────────────────────────


def curve(times: Times, prefix: str = "") -> list[dict[str, float]]:
    """Return the points of a curve: x, and of y the median and the extremes, in ns."""
    return [
        {
            "x": int(name.removeprefix(prefix)),
            "median": float(np.median(each)),
            "min": float(each.min()),
            "max": float(each.max()),
        }
        for name, each in times.items()
        if name.startswith(prefix)
    ]


def played_curve(played: dict[int, list[Played]], field: str) -> list[dict[str, float]]:
    values = {
        str(count): np.array([getattr(one, field) for one in each])
        for count, each in played.items()
    }
    return curve(values)


def curves(found: Scaled) -> dict[str, list[dict[str, float]]]:
    """Return all curves by name; those of a ``rate`` are messages a second."""
    return {
        "instruments": curve(found.instruments),
        **{f"depth, {where}": curve(found.depth, f"{where} ") for where in WHERE},
        "sessions": curve(found.sessions),
        "readers": curve(found.readers.times),
        "connections, steady": played_curve(found.connections.steady, "cpu_ns"),
        "connections, flat out": played_curve(found.connections.flat_out, "cpu_ns"),
        "connections, rate": played_curve(found.connections.flat_out, "rate"),
    }


def save(found: dict[str, Scaled], told: str, path: Path = DATA) -> None:
    """Write all figures: {"machine": …, "codecs": {codec: {"curves", "memory"}}}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {
        "machine": told,
        "codecs": {
            codec: {
                "curves": curves(scaled),
                "memory": scaled.memory._asdict(),
                "flat": scaled.flat,
                "flat_messages": scaled.flat_messages,
                "readers": scaled.readers.told,
            }
            for codec, scaled in found.items()
        },
    }
    path.write_text(json.dumps(data, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    parser.add_argument(
        "--long", action="store_true", help=f"feed {LONG_MESSAGES:,} for the memory"
    )
    parser.add_argument("--rounds", type=int, default=FULL.rounds)
    options = parser.parse_args()
    effort = Effort(options.rounds, FULL.count)
    before = load()
    messages = LONG_MESSAGES if options.long else FLAT_MESSAGES
    found = {codec: measure(codec, effort, OVER_SOCKETS, messages) for codec in CODECS}
    told = machine(before)
    text = "\n\n".join([*tables(found, OVER_SOCKETS.rate), told])
    save(found, told)
    if options.write:
        pages.write(PAGE, "scale", text)
    complaints = [line for codec, each in found.items() for line in missed(codec, each)]
    print(text, *complaints, sep="\n")
    return bool(complaints)


# ── in the tests ──────────────────────────────────────────────────────────────────────

codecs = pytest.mark.parametrize("codec", CODECS)


@codecs
def test_many_instruments(codec: str, benchmark, report: list[str]):
    times = by_instruments(SOME if benchmark.enabled else QUICK, CODECS[codec])
    benchmark.pedantic(lambda: None, rounds=1)
    keys = [str(count) for count in INSTRUMENTS]
    report.append(scaling_table("ns, instruments", {codec: times}, keys))


@codecs
def test_deeper_books(codec: str, benchmark, report: list[str]):
    times = by_depth(SOME if benchmark.enabled else QUICK, CODECS[codec])
    benchmark.pedantic(lambda: None, rounds=1)
    report.append(depth_table({codec: times}))
    if benchmark.enabled:
        shallow, deep = (times[f"top {depth}"] for depth in (DEPTHS[0], DEPTHS[-1]))
        assert np.median(deep / shallow) < GOAL_DEPTH


@codecs
def test_more_sessions(codec: str, benchmark, report: list[str]):
    times = by_sessions(SOME if benchmark.enabled else QUICK, CODECS[codec])
    benchmark.pedantic(lambda: None, rounds=1)
    keys = [str(count) for count in CONNECTIONS]
    report.append(scaling_table("ns, sessions in process", {codec: times}, keys))


@codecs
def test_more_readers(codec: str, benchmark, report: list[str]):
    times, told = by_readers(SOME if benchmark.enabled else QUICK, CODECS[codec])
    benchmark.pedantic(lambda: None, rounds=1)
    keys = [str(count) for count in READERS]
    report.append(scaling_table("ns of the writer, readers", {codec: times}, keys))
    assert all(received > 0 for received, _ in told)


@codecs
def test_more_connections(codec: str, benchmark, report: list[str]):
    what = OVER_SOCKETS if benchmark.enabled else SHORT
    found = by_connections(codec, what._replace(rounds=1))
    benchmark.pedantic(lambda: None, rounds=1)
    report.append(connections_table({codec: found}, what.rate))


@codecs
def test_memory_is_flat(codec: str, benchmark, report: list[str]):
    flat = flatness(codec, FLAT_MESSAGES)
    benchmark.pedantic(lambda: None, rounds=1)
    told = f"{flat[0] >> 10:,} KiB after a tenth, {flat[-1] >> 10:,} KiB after all"
    report.append(f"{codec}, {FLAT_MESSAGES:,} messages: {told}")
    assert flat[-1] - flat[0] <= FLAT_BYTES


@codecs
@pytest.mark.stress
def test_memory_is_flat_over_ten_million_messages(codec: str, report: list[str]):
    flat = flatness(codec, LONG_MESSAGES)
    told = f"{flat[0] >> 10:,} KiB after a tenth, {flat[-1] >> 10:,} KiB after all"
    report.append(f"{codec}, {LONG_MESSAGES:,} messages: {told}")
    assert flat[-1] - flat[0] <= FLAT_BYTES


if __name__ == "__main__":
    sys.exit(main())

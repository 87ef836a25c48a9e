"""From the venue's write to the ring, and to a reader in another process.

``python -m benchmarks.bench_wire_to_ring [--write] [--pairs N] [--seconds S]``:
recorded frames from sender.c to ``feedhandler run``, in turn with the least that a C
program can do with the same socket. README.md has the method.
"""

import argparse
import contextlib
import functools
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from benchmarks import harness, pages, wire
from benchmarks.bench_faults import load, machine
from benchmarks.wire import Feed, Material, Pace
from feedhandler.counters import Histogram

PAGE = harness.ROOT / "benchmarks/README.md"

PAIRS = 9
BURST_PAIRS = 3
SECONDS = 0.6
SINGLE = Pace(200_000)
BURSTS = {
    10: Pace(2_000_000, burst=10, warm=500),
    1_000: Pace(20_000_000, burst=1_000, warm=2_000),
}
# 0: the consumer spins when nothing else wants its processor; else it naps so long.
NAP_NS = 0

# The class of messages that the goals are about, and the recordings to find them in.
FEW_LEVELS = (2, 4)
CLASS = "ETHUSDT.top10"
BUSY = "BTCUSDTP.bbo"

GOALS = {
    Feed("spin", "msgspec"): 1.5,
    Feed("spin", "scan"): 1.3,
    Feed("block", "msgspec"): 1.15,
    Feed("block", "scan"): 1.1,
}
FLOORS = {"block": "floor blocking", "spin": "floor spinning"}
PERCENTILES = (50, 99, 99.9)
# A floor whose median is above this, in us, did not have its processor to itself.
DISTURBED_US = {"floor blocking": 150, "floor spinning": 50}


class Job(NamedTuple):
    """Recorded messages in a file for the sender, and how they are sent."""

    recorded: Material
    frames: Path
    pace: Pace


class Times(NamedTuple):
    """What one run came to, in ns after the write, of each measured message.

    Of the floor *ring* alone: when its recv() returned.
    """

    ring: np.ndarray
    read: np.ndarray | None = None
    consumer: np.ndarray | None = None
    sampled: Histogram | None = None


# ── a run ─────────────────────────────────────────────────────────────────────────────


def written_ns(job: Job, stamps: Path) -> np.ndarray:
    """Return when each measured message was written: what is in one write, at once."""
    writes = np.fromfile(stamps, np.int64)
    measured = len(job.recorded.messages) - job.pace.warm
    return np.repeat(writes, job.pace.burst)[:measured]


def run_floor(job: Job, mode: str, folder: Path, nap_ns: int) -> Times:
    """Have floor.c read the frames; beside the sender is a consumer of nothing."""
    stamps = folder / "floor"
    count = len(job.recorded.messages)
    with contextlib.ExitStack() as stack:
        sender = stack.enter_context(wire.Sender(job.frames, folder / "sent", job.pace))
        idle = stack.enter_context(wire.Idle())
        stack.enter_context(wire.Consumer(idle.name, 1, folder / "idle", nap_ns))
        program = stack.enter_context(
            wire.floor(sender.port, mode, job.recorded.channels, count, stamps)
        )
        sender.go()
        sender.sent()
        program.finish()
        sender.finish()
    read = np.fromfile(stamps, np.int64)[job.pace.warm :]
    return Times(read - written_ns(job, sender.stamps))


def run_handler(job: Job, feed: Feed, folder: Path, nap_ns: int) -> Times:
    """Have a feed handler read the frames, and a consumer what it publishes."""
    count = len(job.recorded.messages)
    with contextlib.ExitStack() as stack:
        sender = stack.enter_context(wire.Sender(job.frames, folder / "sent", job.pace))
        handler = stack.enter_context(
            wire.Handler(folder, feed, sender.port, job.recorded.channels, count)
        )
        consumer = stack.enter_context(
            wire.Consumer(handler.name, count, folder / "read", nap_ns)
        )
        sender.go()
        sender.sent()
        noted = consumer.read()
        sampled = handler.market.histogram("frame_to_ring_ns")
        wire.none_lost(handler.market.counters(), count)
        handler.stop()
        sender.finish()
    keys = job.recorded.keys[job.pace.warm :]
    read = wire.matched(keys, noted)
    published = wire.matched(keys, np.fromfile(handler.stamps, wire.STAMP))
    sent_ns = written_ns(job, sender.stamps)
    return Times(
        published["ns"] - sent_ns,
        read["recv_ns"] - sent_ns,
        read["ns"] - sent_ns,
        sampled,
    )


class Pair(NamedTuple):
    """A floor and a feed handler, one right after the other."""

    floor: Times
    feed: Times


def run_pair(job: Job, feed: Feed, turn: int, nap_ns: int) -> Pair:
    """Run both; who comes first takes turns."""
    with tempfile.TemporaryDirectory(prefix="wire-") as name:
        folder = Path(name)
        if turn % 2:
            times = run_handler(job, feed, folder, nap_ns)
            return Pair(run_floor(job, feed.mode, folder, nap_ns), times)
        floor = run_floor(job, feed.mode, folder, nap_ns)
        return Pair(floor, run_handler(job, feed, folder, nap_ns))


@contextlib.contextmanager
def prepared(path: Path, pace: Pace, seconds: float) -> Iterator[Job]:
    """Prepare as many of a recording's messages as are sent in *seconds*."""
    writes = max(1, int(seconds * 1e9 / pace.gap_ns))
    recorded = wire.material(path, pace.warm + writes * pace.burst)
    with tempfile.TemporaryDirectory(prefix="wire-") as folder:
        frames = Path(folder) / "frames"
        wire.write_frames(frames, [recorded.messages], len(recorded.messages))
        yield Job(recorded, frames, pace)


def run_pairs(
    job: Job, feeds: list[Feed], pairs: int, nap_ns: int
) -> dict[Feed, list[Pair]]:
    """Run all *feeds* in turn, *pairs* times over."""
    found: dict[Feed, list[Pair]] = {feed: [] for feed in feeds}
    for turn in range(pairs):
        for feed in feeds:
            found[feed].append(run_pair(job, feed, turn, nap_ns))
            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found


# ── tables ────────────────────────────────────────────────────────────────────────────


def us(ns: float) -> str:
    """Write microseconds with three digits, or all that are before the point."""
    value = ns / 1000
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def p50s(pairs: list[Pair], chosen: np.ndarray) -> tuple[list[float], list[float]]:
    """Return the medians of each floor and of each handler beside it."""
    return (
        [float(np.median(pair.floor.ring[chosen])) for pair in pairs],
        [float(np.median(pair.feed.ring[chosen])) for pair in pairs],
    )


RATIO_HEAD = (
    "| messages | feed | floor p50, us | to the ring p50, us | ratio, median of pairs "
    "| least | most | goal |\n|---|---|---|---|---|---|---|---|"
)


def ratios_of(pairs: list[Pair], chosen: np.ndarray) -> list[float]:
    """Return by how much the handler's median is over that of the floor beside it."""
    floors, rings = p50s(pairs, chosen)
    return [ring / floor for floor, ring in zip(floors, rings, strict=True)]


def ratio_row(
    job: Job,
    what: str,
    feed: Feed,
    pairs: list[Pair],
    chosen: np.ndarray,
    goal: float | str = "",
) -> str:
    floors, rings = p50s(pairs, chosen)
    each = ratios_of(pairs, chosen)
    size = np.median(job.recorded.size[job.pace.warm :][chosen])
    cells = [
        f"{job.recorded.name}, {what}, {size:.0f} bytes: {chosen.sum()} x {len(pairs)}",
        feed,
        us(statistics.median(floors)),
        us(statistics.median(rings)),
        f"**{statistics.median(each):.2f}**",
        f"{min(each):.2f}",
        f"{max(each):.2f}",
        goal,
    ]
    return f"| {' | '.join(map(str, cells))} |"


def left_out_row(feed: Feed, why: str, cells: int) -> str:
    return f"| left out | {feed} | {why} {'| ' * (cells - 3)}|"


TIMES_HEAD = (
    "| messages | us from the write to | p50 | p99 | p99.9 | max |\n"
    "|---|---|---|---|---|---|"
)


def times_row(name: str, what: str, ns: np.ndarray) -> str:
    cells = [*np.percentile(ns, PERCENTILES), ns.max()]
    return f"| {name} | {what} | {' | '.join(map(us, cells))} |"


def pooled(found: dict[Feed, list[Pair]]) -> dict[str, np.ndarray]:
    """Return the times of all runs together, each under the name of its row."""
    rows: dict[str, list[np.ndarray]] = {}
    for feed, pairs in found.items():
        for pair in pairs:
            rows.setdefault(FLOORS[feed.mode], []).append(pair.floor.ring)
    for feed, pairs in found.items():
        for what in ("read", "ring", "consumer"):
            rows[f"{feed} {what}"] = [getattr(pair.feed, what) for pair in pairs]
    return {name: np.concatenate(parts) for name, parts in rows.items() if parts}


def times_rows(name: str, rows: dict[str, np.ndarray]) -> list[str]:
    return [times_row(name, what, ns) for what, ns in rows.items()]


def disturbed(name: str, rows: dict[str, np.ndarray]) -> list[str]:
    """Say which floors are no measure of anything, because others had the processor."""
    return [
        f"{name}: {what} had a median of {us(p50)} us: the machine was busy, and the "
        "ratios mean nothing"
        for what, most_us in DISTURBED_US.items()
        if what in rows and (p50 := float(np.median(rows[what]))) > 1000 * most_us
    ]


SAMPLED_HEAD = (
    "| messages | feed | us from the read to the ring, each message: p50 | p99 "
    "| by the product's `frame_to_ring_ns`: samples | p50 | p99 |\n"
    "|---|---|---|---|---|---|---|"
)


def sampled_row(name: str, feed: Feed, pairs: list[Pair]) -> str:
    """Compare our stamps with the product's own, of one message in 64, warm-up too."""
    each = np.concatenate([pair.feed.ring - pair.feed.read for pair in pairs])
    merged = functools.reduce(
        Histogram.merge, [pair.feed.sampled for pair in pairs if pair.feed.sampled]
    )
    ours = [us(ns) for ns in np.percentile(each, PERCENTILES[:2])]
    theirs = [us(merged.percentile(percent)) for percent in PERCENTILES[:2]]
    cells = [name, feed, *ours, merged.count, *theirs]
    return f"| {' | '.join(map(str, cells))} |"


BURST_HEAD = (
    "| in one write | feed | floor, us: median message | last of the burst "
    "| ring: median message | last | consumer: median message | last |\n"
    "|---|---|---|---|---|---|---|---|"
)


def burst_row(job: Job, feed: Feed, pairs: list[Pair]) -> str:
    """Return the medians over all messages and over the last one of each burst."""
    size, cells = job.pace.burst, []
    for parts in (
        [pair.floor.ring for pair in pairs],
        [pair.feed.ring for pair in pairs],
        [pair.feed.consumer for pair in pairs if pair.feed.consumer is not None],
    ):
        last = [ns[size - 1 :: size] for ns in parts]
        cells += [np.median(np.concatenate(parts)), np.median(np.concatenate(last))]
    return f"| {size:,} | {feed} | {' | '.join(map(us, cells))} |"


# ── all of it ─────────────────────────────────────────────────────────────────────────


class Asked(NamedTuple):
    """What to run, and what of it the configuration refuses, with its reason."""

    feeds: list[Feed]
    refused: dict[Feed, str]
    pairs: int
    burst_pairs: int
    seconds: float
    nap_ns: int


def asked(options: argparse.Namespace) -> Asked:
    wanted = [
        Feed(mode, codec)
        for mode in options.modes.split(",")
        for codec in options.codecs.split(",")
    ]
    refusals = {feed: feed.refusal() for feed in wanted}
    return Asked(
        [feed for feed, why in refusals.items() if why is None],
        {feed: why for feed, why in refusals.items() if why is not None},
        options.pairs,
        options.burst_pairs,
        options.seconds,
        options.nap_ns,
    )


def chosen_of(job: Job) -> np.ndarray:
    """Return which measured messages have as few levels as the goals are about."""
    levels = job.recorded.levels[job.pace.warm :]
    least, most = FEW_LEVELS
    return (levels >= least) & (levels <= most)


def singles(paths: list[Path], todo: Asked) -> tuple[str, list[str]]:
    """Measure one message at a time; return the tables, and the goals missed.

    The goals are about the first recording.
    """
    ratios, times, sampled, missed = [], [], [], []
    for place, path in enumerate(paths):
        with prepared(path, SINGLE, todo.seconds) as job:
            found = run_pairs(job, todo.feeds, todo.pairs, todo.nap_ns)
        name, few = job.recorded.name, chosen_of(job)
        rows = pooled(found)
        np.savez_compressed(archive(name if place else ""), **rows)
        times += times_rows(f"{name}, all", rows)
        missed += disturbed(name, rows)
        for feed, pairs in found.items():
            if not place and few.any():
                goal = GOALS[feed]
                ratios.append(ratio_row(job, "2 to 4 levels", feed, pairs, few, goal))
                if (ratio := statistics.median(ratios_of(pairs, few))) > goal:
                    missed.append(f"{feed}: {ratio:.2f} x the floor, not {goal}")
            ratios.append(ratio_row(job, "all", feed, pairs, np.ones_like(few)))
            sampled.append(sampled_row(name, feed, pairs))
    ratios += [left_out_row(feed, why, 8) for feed, why in todo.refused.items()]
    text = [RATIO_HEAD, *ratios, "", TIMES_HEAD, *times, "", SAMPLED_HEAD, *sampled]
    return "\n".join(text), missed


def bursts(path: Path, todo: Asked) -> str:
    """Measure bursts; return the table."""
    table, rows = [], {}
    for size, pace in BURSTS.items():
        with prepared(path, pace, todo.seconds) as job:
            if len(job.recorded.messages) < pace.warm + size:
                table.append(f"| {size:,} | the recording is too short | | | | | | |")
                continue
            found = run_pairs(job, todo.feeds, todo.burst_pairs, todo.nap_ns)
        rows |= {f"burst {size} {name}": ns for name, ns in pooled(found).items()}
        table += [burst_row(job, feed, pairs) for feed, pairs in found.items()]
    if rows:
        np.savez_compressed(archive("bursts"), **rows)
    return "\n".join([BURST_HEAD, *table])


def archive(part: str) -> Path:
    """Return where raw times go: "" those of the first recording, others by name."""
    wire.BUILT.mkdir(parents=True, exist_ok=True)
    return wire.BUILT / f"wire{'-' if part else ''}{part}.npz"


def chosen_recordings() -> tuple[list[Path], Path]:
    """Return the recordings for single messages, and the one for bursts."""
    paths = harness.recordings()
    if CLASS in paths and BUSY in paths:
        return [paths[CLASS], paths[BUSY]], paths[BUSY]
    small = next(iter(paths.values()))
    return [small], small


def measure(todo: Asked) -> tuple[str, list[str]]:
    """Measure all of it; return what goes into the page, and the goals missed."""
    before = load()
    paths, busy = chosen_recordings()
    with wire.on_the_first_processor():
        text, missed = singles(paths, todo)
        print(text, flush=True)
        in_bursts = bursts(busy, todo)
    print(f"\n{in_bursts}", flush=True)
    burst_text = f"In bursts, {busy.name.removesuffix('.jsonl.gz')}:"
    where = f"{todo.pairs} pairs, {todo.burst_pairs} in bursts. {machine(before)}"
    parts = [text, burst_text, in_bursts, where]
    if missed:
        parts.append("Missed: " + "; ".join(missed) + ".")
    return "\n\n".join(parts), missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--burst-pairs", type=int, default=BURST_PAIRS)
    parser.add_argument("--modes", default=",".join(wire.MODES))
    parser.add_argument("--codecs", default=",".join(wire.CODECS))
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each run")
    parser.add_argument("--nap-ns", type=int, default=NAP_NS, help="of the consumer")
    options = parser.parse_args()
    harness.loops()
    text, missed = measure(asked(options))
    if options.write:
        pages.write(PAGE, "wire", text)
    for complaint in missed:
        print("missed:", complaint)
    return bool(missed)


# ── in the tests ──────────────────────────────────────────────────────────────────────


def test_every_message_is_matched(tmp_path: Path, benchmark, report: list[str]):
    """Three hundred messages, to see that it runs; the figures are main()'s."""
    if not wire.has_compiler():
        pytest.skip("there is no cc to build the C programs with")
    harness.loops()
    pace = SINGLE._replace(warm=50)
    path = chosen_recordings()[0][0]
    feed = Feed("block", "msgspec")
    with wire.on_the_first_processor(), prepared(path, pace, 0.05) as job:
        pair = run_pair(job, feed, 0, NAP_NS)
    benchmark(lambda: None)
    report.append(times_row(job.recorded.name, "floor", pair.floor.ring))
    report.append(times_row(job.recorded.name, f"{feed} ring", pair.feed.ring))

    assert len(job.recorded.messages) == 300
    assert len(pair.floor.ring) == len(pair.feed.ring) == 250
    assert pair.floor.ring.min() > 0
    assert (pair.feed.read > 0).all()
    assert (pair.feed.ring > pair.feed.read).all()
    assert (pair.feed.consumer > pair.feed.read).all()


if __name__ == "__main__":
    sys.exit(main())

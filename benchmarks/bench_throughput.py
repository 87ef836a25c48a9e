"""How many messages a second go through one socket to the ring, and what each costs.

``python -m benchmarks.bench_throughput [--write] [--rounds N] [--seconds S]``:
sender.c sends recorded frames as fast as ``feedhandler run`` takes them. README.md has
the method.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from benchmarks import pages, wire
from benchmarks.bench_faults import load, machine
from benchmarks.bench_wire_to_ring import PAGE, chosen_recordings
from benchmarks.wire import Feed, Material, Pace

ROUNDS = 5
SECONDS = 2.5
TRIAL = 200_000
MOST = 6_000_000
LOOK_S = 0.005

FLAT_OUT = Pace(0, burst=1024, warm=0)


class Round(NamedTuple):
    """*count* messages: seconds by the records, by the clock, and of the processor.

    *records_s* is from the first write to the read that brought the last record,
    *wall_s* until somebody else saw in the counters that all were applied.
    """

    count: int
    records_s: float
    wall_s: float
    user_s: float
    kernel_s: float

    @property
    def rate(self) -> float:
        """Messages a second, by the records."""
        return self.count / self.records_s


class Job(NamedTuple):
    """Frames for the sender, with the channels they are of."""

    recorded: Material
    frames: Path
    count: int


@contextlib.contextmanager
def prepared(recorded: Material, count: int) -> Iterator[Job]:
    """Write *count* frames: the recording, and again, its sequences continued."""
    with tempfile.TemporaryDirectory(prefix="wire-") as folder:
        frames = Path(folder) / "frames"
        wire.write_frames(frames, wire.again_and_again(recorded), count)
        yield Job(recorded, frames, count)


def run_handler(job: Job, feed: Feed, count: int) -> Round:
    """Send *count* frames to a feed handler, flat out, and see that none is lost."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wire-")))
        sender = stack.enter_context(
            wire.Sender(job.frames, folder / "sent", FLAT_OUT, count)
        )
        handler = stack.enter_context(
            wire.Handler(folder, feed, sender.port, job.recorded.channels)
        )
        before = handler.processor_s()
        sender.go()
        done_ns = applied_ns(handler, count)
        after = handler.processor_s()
        first_ns, _ = sender.sent()
        wire.none_lost(handler.market.counters(), count)
        last_ns = last_read_ns(handler, job.recorded, count)
        handler.stop()
        sender.finish()
    user_s, kernel_s = np.subtract(after, before)
    return Round(
        count,
        (last_ns - first_ns) / 1e9,
        (done_ns - first_ns) / 1e9,
        float(user_s),
        float(kernel_s),
    )


def applied_ns(handler: wire.Handler, count: int) -> int:
    """Wait until *count* messages were applied; return when that was seen."""
    deadline = time.monotonic() + wire.MOST_S
    while time.monotonic() < deadline:
        counters = handler.market.counters()
        if counters["updates"] + counters["snapshots"] >= count:
            return time.monotonic_ns()
        if handler.process.poll() is not None:
            raise RuntimeError("the feed handler has ended")
        time.sleep(LOOK_S)
    raise TimeoutError(f"{counters} after {wire.MOST_S} s, of {count} messages")


def last_read_ns(handler: wire.Handler, recorded: Material, count: int) -> int:
    """Return when the last record was read, and see that it is the last message's."""
    with handler.market.quotes(start="oldest") as quotes:
        while (records := quotes.poll()).size:
            last = records[-1].copy()
    turns, place = divmod(count - 1, len(recorded.messages))
    instrument = recorded.instrument[place]
    all_of_it = recorded.sequence[recorded.instrument == instrument].max()
    sequence = int(recorded.sequence[place] + turns * all_of_it)
    if int(last["sequence"]) != sequence & 0xFFFFFFFF:
        raise AssertionError(f"the last record is {last['sequence']}, not {sequence}")
    return int(last["recv_ns"]) - handler.market.utc_offset_ns


def run_floor(job: Job, mode: str, count: int) -> float:
    """Return the messages a second of floor.c, which does nothing with them."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wire-")))
        sender = stack.enter_context(
            wire.Sender(job.frames, folder / "sent", FLAT_OUT, count)
        )
        stamps = folder / "floor"
        program = stack.enter_context(
            wire.floor(sender.port, mode, job.recorded.channels, count, stamps)
        )
        sender.go()
        first_ns, _ = sender.sent()
        program.finish()
        sender.finish()
        last_ns = int(np.fromfile(stamps, np.int64)[-1])
    return count * 1e9 / (last_ns - first_ns)


# ── the table ─────────────────────────────────────────────────────────────────────────

GOALS = {"msgspec": 600_000, "scan": 1_500_000}

HEAD = (
    "| feed | messages | messages/s, median | least | most | by the clock "
    "| processor, us a message | of it in the kernel | goal |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def row(feed: Feed, rounds: list[Round]) -> str:
    rates = [each.rate for each in rounds]
    wall = statistics.median(each.count / each.wall_s for each in rounds)
    spent = [each.user_s + each.kernel_s for each in rounds]
    cost = statistics.median(
        s * 1e6 / each.count for s, each in zip(spent, rounds, strict=True)
    )
    kernel = sum(each.kernel_s for each in rounds) / max(sum(spent), 1e-9)
    cells = [
        feed,
        f"{rounds[0].count:,} x {len(rounds)}",
        f"**{statistics.median(rates):,.0f}**",
        f"{min(rates):,.0f}",
        f"{max(rates):,.0f}",
        f"{wall:,.0f}",
        f"{cost:.2f}",
        f"{kernel:.0%}",
        f"{GOALS[feed.codec]:,}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def floor_row(mode: str, count: int, rates: list[float]) -> str:
    cells = [f"{statistics.median(rates):,.0f}", f"{min(rates):,.0f}"]
    return (
        f"| C floor, {mode}: read, nothing else | {count:,} x {len(rates)} "
        f"| {' | '.join(cells)} | {max(rates):,.0f} | | | | |"
    )


def measure(options: argparse.Namespace) -> tuple[str, list[str]]:
    """Measure all of it; return the table, and the goals missed."""
    before, feeds, rows = load(), [], []
    for mode in options.modes.split(","):
        for codec in options.codecs.split(","):
            feed = Feed(mode, codec)
            why = feed.refusal()
            if why is None:
                feeds.append(feed)
            else:
                rows.append(f"| {feed} | left out: {why} | | | | | | | |")
    recorded = wire.material(chosen_recordings()[1])
    with wire.on_the_first_processor():
        with prepared(recorded, TRIAL) as job:
            trials = {feed: run_handler(job, feed, TRIAL).rate for feed in feeds}
        counts = {
            feed: min(MOST, max(TRIAL, int(rate * options.seconds)))
            for feed, rate in trials.items()
        }
        rounds: dict[Feed, list[Round]] = {feed: [] for feed in feeds}
        floors: dict[str, list[float]] = {feed.mode: [] for feed in feeds}
        with prepared(recorded, max(counts.values(), default=TRIAL)) as job:
            for _ in range(options.rounds):
                for mode, rates in floors.items():
                    rates.append(run_floor(job, mode, job.count))
                for feed in feeds:
                    rounds[feed].append(run_handler(job, feed, counts[feed]))
                    print(".", end="", file=sys.stderr, flush=True)
            print(file=sys.stderr)
            rows = [
                *(row(feed, found) for feed, found in rounds.items()),
                *rows,
                *(floor_row(mode, job.count, rates) for mode, rates in floors.items()),
            ]
    missed = [
        f"{feed}: {found:,.0f} messages/s, not {GOALS[feed.codec]:,}"
        for feed, each in rounds.items()
        if (found := statistics.median(r.rate for r in each)) < GOALS[feed.codec]
    ]
    where = f"{recorded.name}, {options.rounds} rounds. {machine(before)}"
    if missed:
        where += f"\n\nMissed: {'; '.join(missed)}."
    return "\n".join([HEAD, *rows, "", where]), missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each run")
    parser.add_argument("--modes", default=",".join(wire.MODES))
    parser.add_argument("--codecs", default=",".join(wire.CODECS))
    options = parser.parse_args()
    text, missed = measure(options)
    if options.write:
        pages.write(PAGE, "throughput", text)
    print(text)
    for complaint in missed:
        print("missed:", complaint)
    return bool(missed)


# ── in the tests ──────────────────────────────────────────────────────────────────────


def test_nothing_is_lost_flat_out(benchmark, report: list[str]):
    """A recording and the beginning of its second turn; the figures are main()'s."""
    if not wire.has_compiler():
        pytest.skip("there is no cc to build the C programs with")
    recorded = wire.material(chosen_recordings()[1], 2_000)
    feed = Feed("block", "msgspec")
    with wire.on_the_first_processor(), prepared(recorded, 5_000) as job:
        found = run_handler(job, feed, 5_000)
    benchmark(lambda: None)
    report.append(row(feed, [found]))

    assert found.count == 5_000
    assert 0 < found.records_s <= found.wall_s


if __name__ == "__main__":
    sys.exit(main())

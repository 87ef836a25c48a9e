"""Frame to ring in process, by each codec, against the bare decode of the same frames.

``python -m benchmarks.bench_session [--write] [--rounds N]``, or ``python -m pytest
benchmarks -q``. Method: benchmarks/README.md.
"""

import argparse
import contextlib
import gc
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks import harness, pages
from benchmarks.bench_faults import load, machine
from feedhandler.session import Session

PAGE = harness.ROOT / "benchmarks/README.md"
ROUNDS = 21
RECORDINGS = harness.recordings()
# The most that frame to ring may be of the bare decode, where that is a goal.
GOALS = {
    ("msgspec", "BTCUSDTP.bbo"): 1.25,
    ("msgspec", "ETHUSDT.top10"): 1.25,
    ("msgspec", "BTCUSDT.full"): 1.8,
    ("scan", "BTCUSDTP.bbo"): 0.35,
    ("scan", "ETHUSDT.top10"): 0.35,
}
loops = harness.loops()


class Run(NamedTuple):
    """The ns a message of each round: the bare decode, and each codec to the ring."""

    name: str
    what: str
    decodes: list[float]
    feeds: dict[str, list[float]]
    scanned: float

    def ratios(self, codec: str) -> list[float]:
        pairs = zip(self.feeds[codec], self.decodes, strict=True)
        return [feed / decode for feed, decode in pairs]


@contextlib.contextmanager
def frozen() -> Iterator[None]:
    """Have the collector leave alone what there is already, as the program does."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def sessions_of(frames: list[bytes]) -> dict[str, Session]:
    channels = harness.channels_in(frames)
    return {
        name: harness.session_of(channels, make())
        for name, make in harness.CODECS.items()
    }


def measure(path: Path, only_books: bool, rounds: int) -> Run:
    """Feed a recording to a session of each codec, in turn with the bare decode."""
    frames = harness.book_frames(path) if only_books else harness.frames(path)
    sessions = sessions_of(frames)
    decoder = sessions["msgspec"].codec.decoder
    loops.time_decode(decoder, frames)
    for session in sessions.values():
        loops.time_feed(session, frames)
    decodes: list[float] = []
    feeds: dict[str, list[float]] = {name: [] for name in sessions}
    with frozen():
        for _ in range(rounds):
            decodes.append(loops.time_decode(decoder, frames) / len(frames))
            for name, session in sessions.items():
                feeds[name].append(loops.time_feed(session, frames) / len(frames))
    for session in sessions.values():
        assert all(book.is_live for book in session.books())
    scanned = sessions["scan"].codec.scanned / len(frames) / (rounds + 1)
    what = "books" if only_books else "all"
    return Run(path.name.removesuffix(".jsonl.gz"), what, decodes, feeds, scanned)


HEAD = (
    "| recording | messages | bare decode, ns | msgspec, ns | of the decode | goal "
    "| scan, ns | of the decode | goal | scanned |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def row(run: Run) -> str:
    cells = [run.name, run.what, f"{statistics.median(run.decodes):,.0f}"]
    for codec in harness.CODECS:
        ratios = run.ratios(codec)
        goal = GOALS.get((codec, run.name), "") if run.what == "books" else ""
        cells += [
            f"{statistics.median(run.feeds[codec]):,.0f}",
            f"**{statistics.median(ratios):.2f}** "
            f"({min(ratios):.2f} to {max(ratios):.2f})",
            str(goal),
        ]
    return f"| {' | '.join([*cells, f'{run.scanned:.0%}'])} |"


def missed(runs: list[Run]) -> list[str]:
    """Say which goals were missed, and by how much."""
    found = []
    for run in runs:
        for codec in harness.CODECS:
            goal = GOALS.get((codec, run.name))
            ratio = statistics.median(run.ratios(codec))
            if run.what == "books" and goal is not None and ratio > goal:
                found.append(f"missed: {run.name}, {codec}: {ratio:.2f}, not {goal}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    before = load()
    runs = [
        measure(path, only_books, options.rounds)
        for path in RECORDINGS.values()
        for only_books in (True, False)
    ]
    told = f"{options.rounds} rounds. {machine(before)}"
    misses = missed(runs)
    text = "\n".join([HEAD, *map(row, runs), "", told, "", *misses])
    print(text)
    if options.write:
        pages.write(PAGE, "session", text)
    return 1 if misses else 0


@pytest.mark.parametrize("only_books", [True, False], ids=["books", "all"])
@pytest.mark.parametrize("path", RECORDINGS.values(), ids=RECORDINGS)
def test_frame_to_ring(path: Path, only_books: bool, benchmark, report: list[str]):
    """Decode, sync, book, quote, ring, board and counters, beside the decode alone."""
    run = measure(path, only_books, ROUNDS if benchmark.enabled else 1)
    frames = harness.book_frames(path)
    session = sessions_of(frames)["scan"]
    for codec in harness.CODECS:
        benchmark.extra_info[codec] = statistics.median(run.ratios(codec))
    benchmark.pedantic(loops.time_feed, (session, frames), rounds=3)
    report.append(row(run))


if __name__ == "__main__":
    sys.exit(main())

"""The order book alone: the recorded updates, already decoded."""

import statistics
from pathlib import Path

import pytest

from benchmarks import harness
from feedhandler.book import OrderBook

ROUNDS = 21
RECORDINGS = harness.recordings()
loops = harness.loops()


@pytest.mark.parametrize("path", RECORDINGS.values(), ids=RECORDINGS)
def test_book_update(path: Path, benchmark, report: list[str]):
    """Every update of a recording's first book, as levels in C arrays."""
    depth, updates = harness.book_updates(path)
    levels = sum(len(bids) + len(asks) for bids, asks in updates) // 16
    times = []
    for _ in range(ROUNDS if benchmark.enabled else 1):
        times.append(loops.time_book(OrderBook(depth), updates))
    benchmark.pedantic(loops.time_book, (OrderBook(depth), updates), rounds=3)
    median = statistics.median(times)
    name = path.name.removesuffix(".jsonl.gz")
    report.append(
        f"{name:<16} book   update {median / len(updates):8.0f} ns   "
        f"a level {median / levels:6.1f} ns   "
        f"({levels / len(updates):.1f} levels an update, depth {depth})"
    )

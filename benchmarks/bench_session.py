"""Frame to ring in process, against the bare decode of the same frames.

Run by ``python -m pytest benchmarks -q``. Method: benchmarks/README.md.
"""

import gc
import statistics
from pathlib import Path

import pytest

from benchmarks import harness

ROUNDS = 21
RECORDINGS = harness.recordings()
loops = harness.loops()


@pytest.mark.parametrize("only_books", [True, False], ids=["books", "all"])
@pytest.mark.parametrize("path", RECORDINGS.values(), ids=RECORDINGS)
def test_frame_to_ring(path: Path, only_books: bool, benchmark, report: list[str]):
    """Decode, sync, book, quote, ring, board and counters, beside the decode alone."""
    frames = harness.book_frames(path) if only_books else harness.frames(path)
    session = harness.session(frames)
    decoder = session.codec.decoder
    decodes, feeds, ratios = [], [], []
    loops.time_decode(decoder, frames)
    loops.time_feed(session, frames)
    gc.collect()
    gc.freeze()
    for _ in range(ROUNDS if benchmark.enabled else 1):
        decode = loops.time_decode(decoder, frames)
        feed = loops.time_feed(session, frames)
        decodes.append(decode / len(frames))
        feeds.append(feed / len(frames))
        ratios.append(feed / decode)
    gc.unfreeze()
    benchmark.extra_info["ratio_to_decode"] = statistics.median(ratios)
    benchmark.pedantic(loops.time_feed, (session, frames), rounds=3)
    name = path.name.removesuffix(".jsonl.gz")
    report.append(
        f"{name:<16} {'books' if only_books else 'all':<6} "
        f"decode {statistics.median(decodes):8.0f} ns   "
        f"frame to ring {statistics.median(feeds):8.0f} ns   "
        f"ratio {statistics.median(ratios):5.2f} "
        f"(min {min(ratios):.2f}, max {max(ratios):.2f}, {len(ratios)} rounds)"
    )
    assert all(book.is_live for book in session.books())

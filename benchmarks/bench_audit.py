"""What the audit log costs: frame to ring with it and without, of the same frames."""

import gc
import statistics
from pathlib import Path

import pytest

from benchmarks import harness
from feedhandler.audit import AuditLog

ROUNDS = 21
RECORDINGS = harness.recordings()
loops = harness.loops()


@pytest.mark.parametrize("read", [1, 16], ids=["a_frame_a_read", "16_frames_a_read"])
@pytest.mark.parametrize("path", RECORDINGS.values(), ids=RECORDINGS)
def test_audit_log(path: Path, read: int, benchmark, report: list[str], tmp_path: Path):
    """The order-book messages; the log's lines are written at the end of each read."""
    frames = harness.book_frames(path)
    audit = AuditLog(tmp_path / "audit.log")
    plain, noted = harness.session(frames), harness.session(frames, audit)
    extra = []
    for session in (plain, noted):
        loops.time_reads(session, frames, read)
    gc.collect()
    gc.freeze()
    for _ in range(ROUNDS if benchmark.enabled else 1):
        off = loops.time_reads(plain, frames, read)
        on = loops.time_reads(noted, frames, read)
        extra.append((on - off) / len(frames))
    gc.unfreeze()
    benchmark.pedantic(loops.time_reads, (noted, frames, read), rounds=3)
    name = path.name.removesuffix(".jsonl.gz")
    report.append(
        f"{name:<16} {read:2d} a read   "
        f"audit log {statistics.median(extra):6.0f} ns a quote "
        f"(min {min(extra):.0f}, max {max(extra):.0f}, {len(extra)} rounds)"
    )
    assert audit.take_error() is None
    audit.close()

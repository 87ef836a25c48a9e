"""What a feed has in shared memory: who may read it, and what is left of it."""

import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from feedhandler import shm
from feedhandler.errors import RingBusy
from feedhandler.records import FILL, PRIVATE_STREAMS
from feedhandler.ring import Ring
from feedhandler.segments import Segments

MARKET = {"quotes", "trades", "board", "counters"}


def make(directory: Path, **more: Any) -> Segments:
    sizes = {"capacity": 64, "board_levels": 10, "instruments": 8}
    return Segments("md", **sizes | {"directory": str(directory)} | more)


def streams(directory: Path) -> dict[str, int]:
    """The published streams and their modes."""
    return {
        path.suffix[1:]: stat.S_IMODE(path.stat().st_mode)
        for path in directory.glob("fh-md.*")
        if path.suffix != ".lock"
    }


def test_a_feed_without_a_key_has_the_market_alone(tmp_path):
    segments = make(tmp_path)
    segments.publish()

    assert segments.private == []
    assert streams(tmp_path).keys() == MARKET
    segments.close()


@pytest.mark.req("SEC-18")
@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_nobody_else_reads_the_account_whoever_may_read_the_market(tmp_path, mode):
    segments = make(tmp_path, mode=mode, private=True)
    segments.publish()

    assert streams(tmp_path) == dict.fromkeys(MARKET, mode) | dict.fromkeys(
        PRIVATE_STREAMS, 0o600
    )
    segments.close()


def test_the_rings_of_the_account_have_their_own_size_and_wake_as_the_others(tmp_path):
    segments = make(tmp_path, private=True, private_capacity=128, wake=True)
    segments.publish()
    for ring, (stream, dtype) in zip(
        segments.private, PRIVATE_STREAMS.items(), strict=True
    ):
        ring.publish_record(bytes(dtype.itemsize))
        ring.flush()
        with shm.attach("md", stream, directory=tmp_path) as attached:
            assert attached.meta.capacity == 128
            assert attached.meta.record_size == dtype.itemsize
            assert (attached.live().head, attached.live().wake_seq) == (1, 1)
    segments.close()


def test_all_of_them_beat_and_end_together(tmp_path):
    segments = make(tmp_path, private=True)
    segments.publish()
    attached = [
        shm.attach("md", stream, directory=tmp_path)
        for stream in (*MARKET, *PRIVATE_STREAMS)
    ]
    segments.beat(12_345)
    beats = {one.live().heartbeat_mono_ns for one in attached}
    segments.close()

    assert beats == {12_345}
    assert {one.status() for one in attached} == {shm.Status.CLOSED}
    assert list(tmp_path.iterdir()) == []
    for one in attached:
        one.close()


def test_a_ring_that_another_has_leaves_none_of_ours_behind(tmp_path):
    size = Ring.size_for(FILL, 64)
    with shm.create("md", "fills", size, directory=tmp_path) as other:
        before = sorted(tmp_path.iterdir())
        with pytest.raises(RingBusy):
            make(tmp_path, private=True)
        assert sorted(tmp_path.iterdir()) == before
        assert not other.closed


def test_a_feed_without_a_key_removes_the_account_of_one_that_was_killed(tmp_path):
    killed, elsewhere = tmp_path / "killed", tmp_path / "shm"
    killed.mkdir()
    elsewhere.mkdir()
    former = make(killed, private=True)
    former.publish()
    for path in killed.glob("fh-md.*[a-z]"):
        shutil.copy(path, elsewhere)
    former.close()
    for lock in elsewhere.glob("*.lock"):
        lock.unlink()
    assert streams(elsewhere).keys() == MARKET | PRIVATE_STREAMS.keys()

    segments = make(elsewhere)
    segments.publish()

    assert streams(elsewhere).keys() == MARKET
    segments.close()

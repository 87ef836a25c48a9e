"""When the garbage collector runs."""

import gc
from collections.abc import Iterator

import pytest

from feedhandler.collector import MINUTE, SECOND, Collector


class Cycle:
    """Something that only the collector can free."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture
def collected() -> Iterator[list[int]]:
    """The generations that were collected."""
    found: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            found.append(info["generation"])

    gc.callbacks.append(note)
    yield found
    gc.callbacks.remove(note)


def test_it_collects_at_the_beat_and_never_by_itself(collected: list[int]):
    collector = Collector()
    try:
        collected.clear()
        kept = [Cycle() for _ in range(5_000)]
        assert collected == []
        for _ in range(MINUTE):
            collector.beat()
        assert collected.count(2) == 1
        assert collected.count(1) == MINUTE // SECOND - 1
        assert collected.count(0) == MINUTE - MINUTE // SECOND
        assert len(kept) == 5_000
    finally:
        collector.close()


@pytest.mark.parametrize("enabled", [True, False])
def test_afterwards_all_is_as_it_was(enabled: bool):
    if not enabled:
        gc.disable()
    try:
        collector = Collector()
        assert not gc.isenabled()
        assert gc.get_freeze_count() > 0
        collector.close()
        assert gc.isenabled() == enabled
        assert gc.get_freeze_count() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("first", [0, 1])
def test_of_several_the_last_one_leaves_it_to_python_again(first: int):
    both = [Collector(), Collector()]

    both.pop(first).close()
    assert not gc.isenabled()
    assert gc.get_freeze_count() > 0
    both.pop().close()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_what_somebody_else_has_frozen_stays_frozen():
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        collector = Collector()
        collector.close()
        assert gc.get_freeze_count() == frozen
        assert gc.isenabled()
    finally:
        gc.unfreeze()

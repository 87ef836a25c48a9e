"""Numbers in, a verdict out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedhandler.sync import Sync, Verdict

HOLD, SKIP, APPLY, RESYNC = Verdict.HOLD, Verdict.SKIP, Verdict.APPLY, Verdict.RESYNC


def at(sequence: int) -> Sync:
    sync = Sync()
    sync.on_snapshot(sequence)
    return sync


@pytest.mark.parametrize(
    ("numbers", "verdicts", "applied", "in_sync"),
    [
        pytest.param([11, 12, 13], [APPLY, APPLY, APPLY], 13, True, id="in order"),
        pytest.param([], [], 10, True, id="a snapshot alone"),
        pytest.param(
            [12], [RESYNC], 10, False, id="one lost", marks=pytest.mark.req("F-34")
        ),
        pytest.param(
            [1010], [RESYNC], 10, False, id="many lost", marks=pytest.mark.req("F-35")
        ),
        pytest.param(
            [12, 13, 14], [RESYNC, HOLD, HOLD], 10, False, id="one resync a gap",
            marks=pytest.mark.req("F-46"),
        ),
        pytest.param(
            [11, 11], [APPLY, SKIP], 11, True, id="a duplicate",
            marks=pytest.mark.req("F-36"),
        ),
        pytest.param(
            [10, 9], [SKIP, SKIP], 10, True, id="late after the resync",
            marks=pytest.mark.req("F-38"),
        ),
        pytest.param(
            [12, 11, 12], [RESYNC, APPLY, APPLY], 12, True, id="an adjacent swap",
            marks=pytest.mark.req("F-37"),
        ),
        pytest.param(
            [12, 14, 11, 12], [RESYNC, HOLD, APPLY, APPLY], 12, False,
            id="two gaps, one healed", marks=pytest.mark.req("F-37"),
        ),
        pytest.param(
            [1, 2, 3], [SKIP, SKIP, RESYNC], 10, False,
            id="counting anew without a snapshot", marks=pytest.mark.req("F-40"),
        ),
        pytest.param(
            [1, 2, 11], [SKIP, SKIP, APPLY], 11, True, id="an echo of two",
            marks=pytest.mark.req("F-36"),
        ),
        pytest.param(
            [4, 4, 4, 4], [SKIP, SKIP, SKIP, SKIP], 10, True, id="one echo, many times",
            marks=pytest.mark.req("F-36"),
        ),
        pytest.param(
            [1, 2, 3, 11], [SKIP, SKIP, RESYNC, HOLD], 10, False,
            id="nothing is trusted after a restart", marks=pytest.mark.req("F-40"),
        ),
    ],
)  # fmt: skip
@pytest.mark.req("OB-12", "OB-14")
def test_verdicts_after_a_snapshot_at_10(numbers, verdicts, applied, in_sync):
    sync = at(10)

    assert [sync.on_delta(number) for number in numbers] == verdicts
    assert sync.applied == applied
    assert sync.is_in_sync is in_sync


def test_everything_is_held_before_the_first_snapshot():
    sync = Sync()

    assert not sync.is_in_sync
    assert [sync.on_delta(number) for number in (0, 1, 7)] == [HOLD, HOLD, HOLD]
    assert sync.applied == -1
    assert not sync.is_in_sync


@pytest.mark.req("OB-15", "F-39")
def test_a_snapshot_starts_anew_even_at_a_lower_number():
    sync = at(1000)
    sync.on_snapshot(1)

    assert sync.is_in_sync
    assert sync.on_delta(2) is APPLY
    assert sync.on_delta(1001) is RESYNC


def test_the_numbers_may_begin_at_zero():
    sync = at(0)

    assert sync.is_in_sync
    assert sync.on_delta(0) is SKIP
    assert sync.on_delta(1) is APPLY


def test_a_loss_of_unknown_size_waits_for_a_snapshot():
    sync = at(10)

    assert sync.on_loss() is True
    assert sync.on_loss() is False
    assert not sync.is_in_sync
    assert sync.on_delta(11) is HOLD

    sync.on_snapshot(11)

    assert sync.is_in_sync


@pytest.mark.req("F-39")
def test_a_snapshot_ends_the_count_of_repeats():
    sync = at(10)
    sync.on_delta(1)
    sync.on_delta(2)
    sync.on_snapshot(10)

    assert sync.on_delta(3) is SKIP
    assert sync.is_in_sync


def test_the_largest_number_is_no_special_case():
    last = 2**53 - 1
    sync = at(last - 1)

    assert sync.on_delta(last) is APPLY
    assert sync.is_in_sync


@given(
    received=st.lists(st.integers(1, 30), unique=True).map(sorted),
    snapshot=st.integers(0, 30),
)
@pytest.mark.req("F-34", "F-35")
def test_nothing_is_applied_across_a_gap(received: list[int], snapshot: int):
    sync, applied = at(snapshot), []
    for number in received:
        if sync.on_delta(number) is APPLY:
            applied.append(number)

    assert applied == list(range(snapshot + 1, snapshot + 1 + len(applied)))
    missing = set(range(snapshot + 1, max([*received, snapshot]) + 1)) - set(received)
    assert not (sync.is_in_sync and missing)

"""The judge can fail: it blames each of many broken clients, and none that is sound."""

from typing import Any

import pytest

from tests.sim.broken import BROKEN
from tests.sim.life import Life
from tests.sim.record import Stream
from tests.sim.rules import Attempts, Window, Wish
from tests.sim.world import MS, SECOND

LIVES = 6


def failures_of(seed: int, kinds: list[str], **more: Any) -> list[str]:
    return Life(seed, kinds=kinds, **more).run().failures


@pytest.mark.parametrize("what", BROKEN)
def test_a_client_is_caught_that(what: str) -> None:
    host_type, kinds, invariant = BROKEN[what]
    for seed in range(LIVES):
        failures = failures_of(seed, kinds, host_type=host_type)
        if any(failure.startswith(invariant) for failure in failures):
            # It is the client that is wrong, and not its life.
            assert failures_of(seed, kinds) == []
            return
    pytest.fail(f"{LIVES} lives, and nobody was blamed for {invariant}")


# ── attempts ──────────────────────────────────────────────────────────────────────────


def seconds(wish: Wish | None) -> tuple[float, float] | None:
    if wish is None:
        return None
    return round(wish.least_ns / SECOND, 3), round(wish.most_ns / SECOND, 3)


@pytest.mark.req("RC-02", "RC-04", "A-33")
def test_ten_attempts_are_a_power_of_two_apart_and_there_is_no_eleventh() -> None:
    attempts = Attempts(private=False)

    wishes = [seconds(attempts.closed(0, 1006, True, False)) for _ in range(11)]

    assert wishes[:3] == [(0.8, 1.2), (1.6, 2.4), (3.2, 4.8)]
    assert wishes[9:] == [(409.6, 614.4), None]


@pytest.mark.req("A-34")
@pytest.mark.parametrize(
    ("private", "logged_in", "subscribed", "beat", "open_s", "begins_anew"),
    [
        (False, False, True, True, 1, True),
        (False, False, True, False, 30, True),
        (False, False, True, False, 29, False),
        (False, False, False, True, 60, False),
        (True, True, True, True, 1, True),
        (True, False, False, True, 60, False),
    ],
)
def test_attempts_begin_anew_after_a_useful_connection(
    private: bool,
    logged_in: bool,
    subscribed: bool,
    beat: bool,
    open_s: int,
    begins_anew: bool,
) -> None:
    attempts = Attempts(private)
    attempts.closed(0, 1006, True, False)
    attempts.opened(0)
    attempts.logged_in, attempts.subscribed = logged_in, subscribed
    if beat:
        attempts.heartbeat()

    wish = attempts.closed(open_s * SECOND, 1006, True, False)

    least_s = open_s + (0.8 if begins_anew else 1.6)
    assert wish is not None
    assert wish.least_ns / SECOND == pytest.approx(least_s)


@pytest.mark.req("I-19", "A-35", "A-36")
@pytest.mark.parametrize(
    ("code", "wishes"),
    [
        (1000, [(0.8, 1.2), (1.6, 2.4)]),
        (1001, [(0, 0.25), (0.8, 1.2)]),
        (1002, [(0.8, 1.2), None]),
        (1013, [(1.6, 2.4), (3.2, 4.8)]),
        (4000, [None]),
        (4001, [(60, 62), (60, 62)]),
        (4002, [None]),
        (4003, [(90, 92), None]),
        (4999, [(0.8, 1.2), (1.6, 2.4)]),
    ],
)
def test_a_code_says_what_may_follow(
    code: int, wishes: list[tuple[float, float] | None]
) -> None:
    attempts = Attempts(private=False)
    attempts.opened(0)

    assert [seconds(attempts.closed(0, code, True, False)) for _ in wishes] == wishes


@pytest.mark.req("A-03", "CC-04")
def test_a_policy_violation_ends_all_but_before_a_login_only_the_third_does() -> None:
    private, public = Attempts(private=True), Attempts(private=False)
    told = []
    for attempts in (private, private, private, public):
        attempts.opened(0)
        told.append(attempts.closed(0, 1008, True, False))

    assert [wish is None for wish in told] == [False, False, True, True]


@pytest.mark.req("A-29", "CC-08")
def test_a_refused_subscription_is_tried_once_without_what_was_named() -> None:
    attempts = Attempts(private=False)
    told = []
    for _ in range(2):
        attempts.opened(0)
        attempts.named = True
        told.append(attempts.closed(0, 4002, True, False))

    assert told == [Wish(800 * MS - 1, 1200 * MS + 1), None]


# ── windows and books ─────────────────────────────────────────────────────────────────


def test_a_window_holds_what_came_in_the_last_minute() -> None:
    window = Window()

    counts = [window.add(at_s * SECOND, units) for at_s, units in
              [(0, 1), (30, 2), (59, 1), (60, 1), (90, 1), (200, 3)]]  # fmt: skip

    assert counts == [1, 3, 4, 4, 3, 3]


def test_a_stream_stands_where_all_that_came_is_known() -> None:
    stream = Stream(0, True)
    stream.update(4, True)
    assert not stream.stands_at(4)

    stream.snapshot(5, True, 9)
    assert stream.stands_at(5)

    stream.update(7, True)
    assert not stream.stands_at(5)
    assert not stream.stands_at(7)

    stream.update(6, True)
    assert stream.stands_at(7)

    stream.lose()
    stream.update(8, True)
    assert not stream.stands_at(8)

    stream.snapshot(7, True, 9)
    assert stream.stands_at(8)


def test_what_was_told_wrongly_is_forgiven_with_a_true_snapshot_that_has_it() -> None:
    stream = Stream(0, True)
    stream.snapshot(5, True, 9)
    stream.update(7, False)
    assert stream.tainted

    stream.snapshot(6, True, 9)
    assert stream.tainted
    assert stream.stands_at(7)

    stream.snapshot(8, True, 9)
    assert not stream.tainted
    assert stream.stands_at(8)


def test_a_number_that_is_none_yet_is_not_waited_for() -> None:
    stream = Stream(0, True)
    stream.snapshot(5, True, 9)
    stream.update(1006, False)
    assert not stream.stands_at(5)

    stream.snapshot(6, True, 9)
    assert not stream.tainted
    assert stream.stands_at(6)

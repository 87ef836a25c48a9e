"""The client's limiter: never more than its limit in any window."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedhandler.throttle import Throttle


@pytest.mark.req("LM-09", "I-14")
@given(
    limit=st.integers(1, 6),
    window=st.integers(1, 50),
    asks=st.lists(st.tuples(st.integers(0, 20), st.integers(1, 3)), max_size=60),
)
def test_no_window_ever_holds_more_than_the_limit(limit, window, asks):
    throttle, now, sent = Throttle(limit, window), 0, []
    for wait, units in asks:
        now += wait
        if units <= limit and throttle.take(now, units):
            sent += [now] * units
    for start in sent:
        assert sum(start <= moment < start + window for moment in sent) <= limit


@given(st.integers(1, 6), st.integers(1, 50), st.lists(st.integers(0, 20), max_size=40))
def test_what_waits_as_long_as_it_is_told_may_go(limit, window, waits):
    throttle, now = Throttle(limit, window), 0
    for wait in waits:
        now += wait
        told = throttle.wait_ns(now)
        if told:
            assert not throttle.take(now)
            assert not throttle.take(now + told - 1)
            now += told
        assert throttle.take(now)


def test_more_units_than_the_limit_can_never_go():
    with pytest.raises(ValueError, match="more than the limit of 5"):
        Throttle(5, 10).wait_ns(0, 6)


@pytest.mark.req("LM-10")
def test_a_hold_lets_nothing_through_before_its_end():
    throttle = Throttle(5, 10)
    throttle.hold(100)
    throttle.hold(50)

    assert throttle.wait_ns(40) == 60
    assert not throttle.take(99)
    assert throttle.take(100)


def test_a_limit_that_is_none_is_refused():
    with pytest.raises(ValueError, match="not positive"):
        Throttle(0, 10)

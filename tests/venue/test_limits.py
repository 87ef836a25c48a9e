"""The venue's sliding-log limiter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedhandler.venue.limits import NS_PER_S, RateLimiter, SlidingLog, Verdict

MINUTE_NS = 60 * NS_PER_S


def test_the_quota_is_accepted_and_one_more_is_not():
    limiter = RateLimiter(3)

    verdicts = [limiter.admit(0).verdict for _ in range(4)]

    assert verdicts == [Verdict.ACCEPT] * 3 + [Verdict.REJECT]


@pytest.mark.req("LM-07")
def test_a_message_after_exactly_retry_after_is_accepted():
    limiter = RateLimiter(2)
    limiter.admit(1_500_000_000)
    limiter.admit(2_000_000_000)

    ruling = limiter.admit(10_000_000_001)

    assert ruling.retry_after_s == 52
    assert limiter.admit(10_000_000_001 + 52 * NS_PER_S).verdict is Verdict.ACCEPT


@pytest.mark.req("LM-07")
def test_retry_after_is_at_least_a_second():
    limiter = RateLimiter(1)
    limiter.admit(0)

    assert limiter.admit(MINUTE_NS - 1).retry_after_s == 1
    assert limiter.admit(MINUTE_NS).verdict is Verdict.ACCEPT


@pytest.mark.req("A-14", "I-15")
def test_a_minute_is_any_minute_and_not_one_of_a_clock():
    log = SlidingLog(2)

    assert [log.add(59 * NS_PER_S) for _ in range(2)] == [0, 0]
    assert log.add(61 * NS_PER_S) == 58 * NS_PER_S
    assert log.add(119 * NS_PER_S) == 0


@pytest.mark.req("A-14")
def test_a_cost_is_taken_whole_or_not_at_all():
    log = SlidingLog(10)
    assert log.add(0, 6) == 0

    assert log.add(5, 5) == MINUTE_NS - 5

    assert log.add(5, 4) == 0
    assert log.count(5) == 10


def test_a_cost_beyond_the_limit_never_fits():
    assert SlidingLog(10).add(0, 11) == MINUTE_NS


@pytest.mark.req("A-32")
def test_rejections_use_up_no_quota_but_patience():
    limiter = RateLimiter(2)
    limiter.admit(0)
    limiter.admit(0)

    assert limiter.admit(1).verdict is Verdict.REJECT
    assert limiter.admit(2).verdict is Verdict.CLOSE


# Long ones too, or hardly a list reaches from one minute into the next.
GAPS_NS = st.integers(0, 20_000_000_000) | st.integers(5, 20).map(lambda s: s * 10**9)


@pytest.mark.req("I-15", "LM-04")
@given(st.lists(GAPS_NS, min_size=10, max_size=60), st.integers(1, 8))
def test_no_window_ever_holds_more_than_the_limit(gaps_ns, limit):
    log, now_ns, accepted = SlidingLog(limit), 0, []
    for gap_ns in gaps_ns:
        now_ns += gap_ns
        wait_ns = log.add(now_ns)
        if wait_ns == 0:
            accepted.append(now_ns)
        else:
            assert 0 < wait_ns <= MINUTE_NS
    for start_ns in accepted:
        window = [t for t in accepted if start_ns <= t < start_ns + MINUTE_NS]
        assert len(window) <= limit

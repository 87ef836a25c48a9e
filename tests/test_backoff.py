"""The delays between two attempts."""

import pytest

from feedhandler.backoff import Backoff

SECOND = 1_000_000_000


@pytest.mark.req("RC-02", "RC-03", "RC-04")
def test_the_delays_are_the_references_and_there_are_ten_of_them():
    backoff = Backoff(jitter=0)

    delays = [backoff.next_ns() for _ in range(12)]

    assert delays[:10] == [2**n * SECOND for n in range(10)]
    assert delays[10:] == [None, None]


@pytest.mark.req("A-33", "I-20")
def test_the_jitter_stays_within_its_bounds_and_repeats_with_its_seed():
    one, two = Backoff(seed=7), Backoff(seed=7)

    delays = [one.next_ns() for _ in range(10)]

    assert delays == [two.next_ns() for _ in range(10)]
    for n, delay in enumerate(delays):
        assert 0.8 * 2**n * SECOND <= delay <= 1.2 * 2**n * SECOND
    assert delays != [2**n * SECOND for n in range(10)]


@pytest.mark.req("RC-05")
def test_a_useful_connection_starts_the_delays_over():
    backoff = Backoff(jitter=0)
    backoff.next_ns()
    backoff.next_ns()
    backoff.reset()

    assert backoff.next_ns() == SECOND
    assert backoff.next_ns(factor=2) == 4 * SECOND


@pytest.mark.parametrize("wrong", [{"base_ns": -1}, {"attempts": -1}, {"jitter": 1.0}])
def test_what_is_no_backoff_is_refused(wrong):
    with pytest.raises(ValueError, match="no backoff"):
        Backoff(**wrong)

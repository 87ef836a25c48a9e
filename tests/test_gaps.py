"""Which updates are lost: the positions are exact, and counted."""

from itertools import pairwise

from feedhandler.testing import FixedGap, Gaps, MultiGap, RandomGap
from tests.clients import Client

BOOK = "orderbook:AAPL:10"


def taken(gaps: Gaps, numbers: range, channel: str = BOOK) -> list[int]:
    stream = Client()
    return [number for number in numbers if gaps.take(stream, channel, number)]


def test_a_fixed_gap_is_where_it_was_asked_for():
    gaps = FixedGap(17, 3)

    assert taken(gaps, range(100)) == [17, 18, 19]
    assert (gaps.gaps, gaps.updates) == (1, 3)


def test_many_gaps_are_at_each_multiple_until_there_were_enough():
    gaps = MultiGap(radix=64, length=2, total=3)

    assert taken(gaps, range(65, 500)) == [128, 129, 192, 193, 256, 257]
    assert taken(gaps, range(0, 200), "another") == [0, 1, 64, 65, 128, 129]
    assert (gaps.gaps, gaps.updates) == (6, 12)


def test_a_seed_loses_the_same_updates_again_whatever_comes_between():
    first = taken(RandomGap(0.05, seed=7), range(2000))
    gaps = RandomGap(0.05, seed=7)
    taken(gaps, range(10), "another")
    runs = sum(b != a + 1 for a, b in pairwise([-9, *first]))
    before = gaps.gaps

    assert taken(gaps, range(2000)) == first
    assert gaps.gaps - before == runs
    assert 50 < len(first) < 160
    assert taken(RandomGap(0.05, seed=8), range(2000)) != first

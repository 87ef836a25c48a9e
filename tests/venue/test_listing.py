"""Ticks and lots as numbers and as text."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedhandler.venue.config import SymbolConfig
from feedhandler.venue.listing import Listing, Step

STEPS = st.sampled_from(["0.01", "0.05", "0.0001", "0.25", "1", "10", "2.50", "1e-8"])
COUNTS = st.integers(0, 10**12)


@pytest.mark.parametrize(
    ("step", "count", "number", "text", "plain"),
    [
        ("0.01", 15_005, 150.05, "150.05", "150.05"),
        ("0.01", 15_000, 150, "150.00", "150"),
        ("0.05", 3, 0.15, "0.15", "0.15"),
        ("0.10", 3, 0.3, "0.3", "0.3"),
        ("1", 100, 100, "100", "100"),
        ("10", 15, 150, "150", "150"),
        ("1e-8", 1, 1e-8, "0.00000001", "0.00000001"),
        ("0.001", 0, 0, "0.000", "0"),
    ],
)
def test_steps_read_as_numbers_and_as_text(step, count, number, text, plain):
    made = Step(step)

    assert made.number(count) == number
    assert type(made.number(count)) is type(number)
    assert (made.text(count), made.plain(count)) == (text, plain)


@pytest.mark.req("A-28")
@given(STEPS, COUNTS)
def test_a_number_is_correctly_rounded_and_counts_back(step, count):
    made = Step(step)
    exact = Fraction(step) * count

    assert made.number(count) == float(exact)
    assert made.count(made.number(count)) == count
    assert Decimal(made.text(count)) == Decimal(made.plain(count)) == exact


def test_a_close_off_the_ticks_is_the_nearest_one_and_never_none():
    closes = (150.004, 150.006, 0.001)
    listed = [Listing(SymbolConfig(name="AAPL", previous_close=c)) for c in closes]

    assert [one.previous_close_ticks for one in listed] == [15_000, 15_001, 1]

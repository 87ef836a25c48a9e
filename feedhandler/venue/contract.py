"""The terms of a symbol in integers: what a tick, a lot and a fee are in money.

Money is counted in units of 10**-decimals of its currency, as many decimals as make
ticks times lots exact for every symbol that is paid in it.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import NamedTuple

from feedhandler.venue.matching import Side

__all__ = [
    "FEE_RATE",
    "LEAST_DECIMALS",
    "Contract",
    "Number",
    "Terms",
    "count_decimals",
    "exact",
    "fraction",
    "part",
    "whole",
]

Number = Decimal | str | int

FEE_RATE = Decimal("0.00002")
LEAST_DECIMALS = 8


class Terms(NamedTuple):
    """How a symbol is counted and paid for: a pair with *base*, a share without."""

    symbol: str
    tick: Number
    lot: Number
    quote: str = "USD"
    base: str | None = None
    maker_fee: Number = FEE_RATE
    taker_fee: Number = FEE_RATE


class Contract:
    """One symbol; *decimals* are those of every currency, of count_decimals()."""

    def __init__(self, terms: Terms, decimals: Mapping[str, int]) -> None:
        refuse_terms(terms)
        self.symbol = terms.symbol
        self.quote = terms.quote
        self.base = terms.base
        self.lot = fraction(terms.lot)
        self.decimals = decimals[terms.quote]
        # What one tick times one lot, or one lot of the base currency, is in units.
        self.tick_lot = int(fraction(terms.tick) * self.lot * 10**self.decimals)
        self.base_lot = 0
        self._sold_decimals = places(terms.lot)
        self._sold_unit = int(self.lot * 10**self._sold_decimals)
        if terms.base is not None:
            self.base_lot = int(self.lot * 10 ** decimals[terms.base])
            self._sold_decimals, self._sold_unit = decimals[terms.base], 1
        self.maker_fee = fraction(terms.maker_fee)
        self.taker_fee = fraction(terms.taker_fee)
        self.dearer_fee = max(self.maker_fee, self.taker_fee)

    def asset(self, side: int) -> str:
        """Name what an order takes: the quote, the base, or the share itself."""
        if side == Side.BUY:
            return self.quote
        return self.symbol if self.base is None else self.base

    def exact(self, side: int, count: int) -> Decimal:
        """Return *count* units, or lots of a share, of what an order takes."""
        if side == Side.BUY:
            return exact(count, self.decimals)
        return exact(count * self._sold_unit, self._sold_decimals)


def refuse_terms(terms: Terms) -> None:
    """Raise ValueError for terms that nothing could be counted in."""
    for key, number in (("tick", terms.tick), ("lot", terms.lot)):
        if fraction(number) <= 0:
            raise ValueError(f"{key} of {terms.symbol} is {number}, not above 0")
    for key, rate in (("maker_fee", terms.maker_fee), ("taker_fee", terms.taker_fee)):
        if not 0 <= fraction(rate) < 1:
            raise ValueError(f"{key} of {terms.symbol} is {rate}, not in [0, 1)")
    if terms.base == terms.quote:
        raise ValueError(f"base of {terms.symbol} is {terms.base}, its quote")


def count_decimals(listed: Iterable[Terms]) -> dict[str, int]:
    """Return the decimals of each currency: the most that one of its symbols needs."""
    decimals: dict[str, int] = {}
    for terms in listed:
        lot = places(terms.lot)
        price = places(terms.tick) + lot
        decimals[terms.quote] = max(decimals.get(terms.quote, LEAST_DECIMALS), price)
        if terms.base is not None:
            decimals[terms.base] = max(decimals.get(terms.base, LEAST_DECIMALS), lot)
    return decimals


# ── exact numbers ─────────────────────────────────────────────────────────────────────


def decimal(number: Number) -> Decimal:
    """Return a finite decimal; ValueError for anything else."""
    try:
        parsed = Decimal(number)
    except InvalidOperation:
        raise ValueError(f"{number!r} is not a decimal") from None
    if not parsed.is_finite():
        raise ValueError(f"{number!r} is not finite")
    return parsed


def fraction(number: Number) -> Fraction:
    """Return a finite decimal as an exact fraction; ValueError for anything else."""
    return Fraction(decimal(number))


def part(units: int, rate: Fraction) -> int:
    """Return *rate* of *units*, rounded down: parts never exceed that of the whole."""
    return units * rate.numerator // rate.denominator


def whole(what: str, number: Fraction, step: Fraction) -> int:
    """Return how many steps *what* is; ValueError if not a whole number of them."""
    count = number / step
    if count.denominator != 1:
        raise ValueError(f"{what} is {float(number)}, not a multiple of {float(step)}")
    return count.numerator


def exact(units: int, decimals: int) -> Decimal:
    """Return units * 10**-decimals, without trailing zeros."""
    while decimals and units % 10 == 0:
        units, decimals = units // 10, decimals - 1
    return Decimal(f"{units}e-{decimals}")


def places(number: Number) -> int:
    """Return how many decimals a number has, without trailing zeros."""
    return len(f"{decimal(number):f}".partition(".")[2].rstrip("0"))

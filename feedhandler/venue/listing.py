"""One listed symbol: its name, and how its ticks and lots read as numbers."""

from decimal import Decimal
from fractions import Fraction

from feedhandler.venue.config import SymbolConfig

__all__ = ["Listing", "Step"]


class Step:
    """The size of a tick or a lot; counts times it are correctly rounded."""

    def __init__(self, decimal: str) -> None:
        self._numerator, self._denominator = Fraction(decimal).as_integer_ratio()
        self.size = self._numerator / self._denominator
        self._decimal = Decimal(decimal).normalize()
        exponent = self._decimal.as_tuple().exponent
        self._places = max(0, -exponent) if isinstance(exponent, int) else 0

    def number(self, count: int) -> float:
        """Return *count* steps as the number on the wire: an int where it is whole."""
        product = count * self._numerator
        if product % self._denominator == 0:
            return product // self._denominator
        return product / self._denominator

    def text(self, count: int) -> str:
        """Return *count* steps with all decimals of a step."""
        return f"{self._decimal * count:.{self._places}f}"

    def plain(self, count: int) -> str:
        """Return *count* steps without trailing zeros."""
        text = self.text(count)
        return text.rstrip("0").rstrip(".") if "." in text else text

    def count(self, number: float) -> int:
        """Return the count of steps nearest to *number*."""
        return round(Fraction(number) * self._denominator / self._numerator)


class Listing:
    """A symbol, its steps, and the close of the day before in ticks."""

    def __init__(self, config: SymbolConfig) -> None:
        self.name = config.name
        self.tick = Step(config.tick)
        self.lot = Step(config.lot)
        self.previous_close_ticks = max(1, self.tick.count(config.previous_close))

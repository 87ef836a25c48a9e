"""What one account has: money by currency, positions by symbol, all in integers."""

from collections import defaultdict

from feedhandler.protocol.messages import Balance, Position
from feedhandler.venue.contract import Contract
from feedhandler.venue.matching import Side

__all__ = ["Account", "Holding", "Pot"]


class Pot:
    """So much of one asset, of which open orders reserve a part."""

    __slots__ = ("reserved", "total")

    def __init__(self, total: int = 0) -> None:
        self.total = total
        self.reserved = 0

    @property
    def available(self) -> int:
        """What no order holds."""
        return self.total - self.reserved

    def balance(self, currency: str, decimals: int) -> Balance:
        """Write it as a balance, in correctly rounded numbers."""
        unit = 10**decimals
        return Balance(
            currency, self.available / unit, self.reserved / unit, self.total / unit
        )


class Holding(Pot):
    """A position in lots, below zero where short; *cost* has its sign, in units."""

    __slots__ = ("cost", "realised")

    def __init__(self, total: int = 0, cost: int = 0) -> None:
        super().__init__(total)
        self.cost = cost
        self.realised = 0

    def trade(self, lots: int, unit_cost: int) -> None:
        """Buy (*lots* > 0) or sell; across zero one position ends and another begins.

        What leaves takes its part of the cost, rounded; realised profit takes the rest,
        so that cost - realised is always exactly what was paid less what was received.
        """
        closing = 0
        if self.total * lots < 0:
            closing = max(lots, -self.total) if lots < 0 else min(lots, -self.total)
            removed = self.cost * abs(closing) // abs(self.total)
            self.cost -= removed
            self.realised -= closing * unit_cost + removed
        self.cost += (lots - closing) * unit_cost
        self.total += lots

    def position(self, contract: Contract, mark_ticks: int) -> Position:
        """Write it as a position marked at a price, in correctly rounded numbers."""
        unit, lot = 10**contract.decimals, contract.lot
        average = 0.0
        if self.total:
            size = abs(self.total) * lot.numerator * unit
            average = abs(self.cost) * lot.denominator / size
        worth = self.total * mark_ticks * contract.tick_lot
        return Position(
            contract.symbol,
            self.total * lot.numerator / lot.denominator,
            average,
            (worth - self.cost) / unit,
            self.realised / unit,
        )


class Account:
    """What one account has; one without limits reserves nothing and may owe."""

    def __init__(self, limited: bool, may_short: bool) -> None:
        self.limited = limited
        self.may_short = may_short
        self.balances: defaultdict[str, Pot] = defaultdict(Pot)
        self.holdings: defaultdict[str, Holding] = defaultdict(Holding)

    def pot(self, contract: Contract, side: int) -> Pot:
        """Return what an order takes from: an empty pot, not kept, if there is none."""
        if side == Side.BUY:
            return self.balances.get(contract.quote) or Pot()
        if contract.base is not None:
            return self.balances.get(contract.base) or Pot()
        return self.holdings.get(contract.symbol) or Pot()

"""The accounts of the venue: balances, positions, and what open orders hold of them.

Integers only, in the units of contract.py. Floats are made for the wire and never read.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from feedhandler.protocol.messages import AccountUpdateData
from feedhandler.venue.account import Account, Holding, Pot
from feedhandler.venue.contract import (
    LEAST_DECIMALS,
    Contract,
    Number,
    Terms,
    count_decimals,
    exact,
    fraction,
    part,
    whole,
)
from feedhandler.venue.matching import Side

__all__ = ["Amounts", "Fee", "InsufficientFunds", "Ledger", "Terms"]


class InsufficientFunds(Exception):
    """An order *needed* more of *asset*, a currency or a share, than was *available*.

    What an order holds already is in neither number.
    """

    def __init__(self, asset: str, available: Decimal, needed: Decimal) -> None:
        super().__init__(f"available {available:f} {asset}, needed {needed:f}")
        self.asset = asset
        self.available = available
        self.needed = needed


class Fee(NamedTuple):
    """The fee of one fill: exact in units, and as the number on the wire."""

    currency: str
    units: int
    amount: float


class Amounts(NamedTuple):
    """A balance in units of its currency: available + reserved = total."""

    available: int
    reserved: int
    total: int


class Hold:
    """What an open order may still trade, and what it reserves of its pot for that."""

    __slots__ = (
        "account", "contract", "cost", "lots", "pot", "price_ticks", "reserved", "side",
    )  # fmt: skip

    def __init__(self, account: Account, contract: Contract, side: int) -> None:
        self.account = account
        self.contract = contract
        self.side = side
        self.pot = account.pot(contract, side)
        self.lots = 0
        self.price_ticks: int | None = None
        self.cost: int | None = None
        self.reserved = 0

    def need(self, lots: int, price_ticks: int | None, cost: int | None) -> int:
        """Return what must be reserved for *lots* at these terms."""
        if lots == 0 or not self.account.limited:
            return 0
        if self.side == Side.SELL:
            if self.account.may_short:
                return 0
            return lots if self.contract.base is None else lots * self.contract.base_lot
        if price_ticks is not None:
            cost = price_ticks * lots
        notional = (cost or 0) * self.contract.tick_lot
        return notional + part(notional, self.contract.dearer_fee)

    def reserve(self, lots: int, price_ticks: int | None, cost: int | None) -> None:
        """Hold what these terms need, or raise InsufficientFunds and hold as before."""
        needed = self.need(lots, price_ticks, cost)
        more = needed - self.reserved
        if more > 0 and more > self.pot.available:
            raise InsufficientFunds(
                self.contract.asset(self.side),
                self.contract.exact(self.side, self.pot.available),
                self.contract.exact(self.side, more),
            )
        self.pot.reserved += more
        self.reserved = needed
        self.lots, self.price_ticks, self.cost = lots, price_ticks, cost

    def refuse_fill(self, ticks: int, lots: int) -> None:
        """Raise ValueError for a fill that the order cannot have had."""
        if not 1 <= lots <= self.lots:
            raise ValueError(f"lots is {lots}, not 1 to {self.lots}")
        if ticks < 1:
            raise ValueError(f"ticks is {ticks}, not at least 1")
        if self.side == Side.SELL:
            return
        if self.price_ticks is not None and ticks > self.price_ticks:
            raise ValueError(f"ticks is {ticks}, above the limit {self.price_ticks}")
        if self.cost is not None and ticks * lots > self.cost:
            raise ValueError(f"cost is {ticks * lots}, above the {self.cost} held")


class Ledger:
    """All accounts of the venue, and its fees.

    A buy holds money for its limit price, or a market buy for the cost that its caller
    found in the book, and for the dearer fee. A sell holds what it sells, unless
    shorting is allowed. A pair is held as a balance of its base currency; its position
    counts what was traded in that symbol, so that deposited coins sold make it short.

    An order id is any value; names that were never opened or listed raise KeyError.
    """

    def __init__(self, terms: Iterable[Terms], *, allow_short: bool = False) -> None:
        listed = list(terms)
        self._allow_short = allow_short
        self._decimals = count_decimals(listed)
        self._contracts = {
            term.symbol: Contract(term, self._decimals) for term in listed
        }
        if len(self._contracts) < len(listed):
            raise ValueError("terms name a symbol twice")
        self._accounts: dict[str, Account] = {}
        self._holds: dict[Hashable, Hold] = {}
        self._fees: defaultdict[str, int] = defaultdict(int)
        self._opening_units: defaultdict[str, int] = defaultdict(int)
        self._opening_lots: defaultdict[str, int] = defaultdict(int)
        self._opening_cost: defaultdict[str, int] = defaultdict(int)

    def open_account(
        self,
        account_id: str,
        balances: Mapping[str, Number],
        positions: Mapping[str, tuple[Number, Number]] | None = None,
        *,
        limited: bool = True,
    ) -> None:
        """Open an account: amounts by currency, (quantity, average price) by symbol.

        Without limits it trades what it does not have. ValueError for a number that is
        not whole in units or lots, or below zero where the account has limits.
        """
        if account_id in self._accounts:
            raise ValueError(f"account {account_id!r} is open already")
        account = Account(limited, self._allow_short)
        for currency, amount in balances.items():
            what = f"balance of {currency} of {account_id!r}"
            units = whole(what, fraction(amount), self._unit(currency))
            if limited and units < 0:
                raise ValueError(f"balance of {currency} is {amount}, below 0")
            account.balances[currency] = Pot(units)
        for symbol, (quantity, average) in (positions or {}).items():
            contract = self._contracts[symbol]
            what = f"position in {symbol} of {account_id!r}"
            lots = whole(what, fraction(quantity), contract.lot)
            if limited and lots < 0 and not self._allow_short:
                raise ValueError(f"position in {symbol} is {quantity}, below 0")
            paid = fraction(average) * lots * contract.lot
            cost = whole(f"cost of the {what}", paid, self._unit(contract.quote))
            account.holdings[symbol] = Holding(lots, cost)
        self._accounts[account_id] = account
        for currency, pot in account.balances.items():
            self._opening_units[currency] += pot.total
        for symbol, holding in account.holdings.items():
            self._opening_lots[symbol] += holding.total
            self._opening_cost[symbol] += holding.cost

    # ── orders ────────────────────────────────────────────────────────────────────

    def hold(
        self,
        order_id: Hashable,
        account_id: str,
        symbol: str,
        side: int,
        lots: int,
        *,
        price_ticks: int | None = None,
        cost: int | None = None,
    ) -> None:
        """Hold what an order needs, or raise InsufficientFunds and change nothing.

        A buy has a limit price, or a *cost*: the sum of ticks times lots that it will
        pay at most. A sell needs neither.
        """
        if order_id in self._holds:
            raise ValueError(f"order {order_id!r} has a hold already")
        refuse_order(side, lots, price_ticks, cost)
        hold = Hold(self._accounts[account_id], self._contracts[symbol], side)
        hold.reserve(lots, price_ticks, cost)
        self._holds[order_id] = hold

    def rehold(
        self,
        order_id: Hashable,
        lots: int,
        *,
        price_ticks: int | None = None,
        cost: int | None = None,
    ) -> None:
        """Hold for *lots* left at new terms, or raise and hold as before."""
        hold = self._holds[order_id]
        refuse_order(hold.side, lots, price_ticks, cost)
        hold.reserve(lots, price_ticks, cost)

    def release(self, order_id: Hashable, lots: int) -> None:
        """Give up canceled lots; a *cost* stays held until the last of them."""
        hold = self._holds[order_id]
        if not 1 <= lots <= hold.lots:
            raise ValueError(f"lots is {lots}, not 1 to {hold.lots}")
        self._shrink(order_id, hold, hold.lots - lots, hold.cost)

    def close(self, order_id: Hashable) -> None:
        """Give up all that an order holds; nothing if it traded or was closed."""
        hold = self._holds.get(order_id)
        if hold is not None:
            self._shrink(order_id, hold, 0, hold.cost)

    def fill(self, order_id: Hashable, ticks: int, lots: int, *, maker: bool) -> Fee:
        """Trade part of an order; its last lot closes it.

        The other side of the trade is another fill() or settle().
        """
        hold = self._holds[order_id]
        hold.refuse_fill(ticks, lots)
        fee = self._trade(
            hold.account, hold.contract, hold.side, ticks, lots, maker=maker
        )
        cost = None if hold.cost is None else hold.cost - ticks * lots
        self._shrink(order_id, hold, hold.lots - lots, cost)
        return fee

    def settle(
        self,
        account_id: str,
        symbol: str,
        side: int,
        ticks: int,
        lots: int,
        *,
        maker: bool,
    ) -> Fee:
        """Trade for an account without limits, whose orders need no hold."""
        account = self._accounts[account_id]
        if account.limited:
            raise ValueError(f"account {account_id!r} trades with holds only")
        if ticks < 1 or lots < 1:
            raise ValueError(f"ticks, lots are {ticks}, {lots}, not at least 1")
        return self._trade(
            account, self._contracts[symbol], side, ticks, lots, maker=maker
        )

    def _places(self, currency: str) -> int:
        return self._decimals.get(currency, LEAST_DECIMALS)

    def _unit(self, currency: str) -> Fraction:
        return Fraction(1, 10 ** self._places(currency))

    def _shrink(
        self, order_id: Hashable, hold: Hold, lots: int, cost: int | None
    ) -> None:
        hold.reserve(lots, hold.price_ticks, cost)
        if lots == 0:
            del self._holds[order_id]

    def _trade(
        self,
        account: Account,
        contract: Contract,
        side: int,
        ticks: int,
        lots: int,
        *,
        maker: bool,
    ) -> Fee:
        notional = ticks * lots * contract.tick_lot
        units = part(notional, contract.maker_fee if maker else contract.taker_fee)
        sign = 1 if side == Side.BUY else -1
        account.balances[contract.quote].total -= sign * notional + units
        if contract.base is not None:
            account.balances[contract.base].total += sign * lots * contract.base_lot
        account.holdings[contract.symbol].trade(sign * lots, ticks * contract.tick_lot)
        self._fees[contract.quote] += units
        return Fee(contract.quote, units, units / 10**contract.decimals)

    # ── what there is ─────────────────────────────────────────────────────────────

    def view(self, account_id: str, marks: Mapping[str, int]) -> AccountUpdateData:
        """Return an account for the wire; *marks* are last prices in ticks.

        A symbol is listed from its first trade on, also while nothing of it is held.
        """
        account = self._accounts[account_id]
        balances = [
            pot.balance(currency, self._places(currency))
            for currency, pot in account.balances.items()
        ]
        positions = [
            holding.position(self._contracts[symbol], marks[symbol])
            for symbol, holding in account.holdings.items()
        ]
        return AccountUpdateData(account_id, balances, positions)

    def amounts(self, account_id: str, currency: str) -> Amounts:
        """Return a balance in units; zeros if the account never had any."""
        pot = self._accounts[account_id].balances.get(currency) or Pot()
        return Amounts(pot.available, pot.reserved, pot.total)

    def available(self, account_id: str, currency: str) -> Decimal:
        """Return what no order holds, exactly."""
        units = self.amounts(account_id, currency).available
        return exact(units, self._places(currency))

    def fees(self, currency: str) -> int:
        """Return what the venue took, in units."""
        return self._fees.get(currency, 0)

    def conserved(self) -> list[str]:
        """Recompute all sums from the accounts and open orders; say which are wrong.

        Right between trades, not between the two sides of one.
        """
        return [*self._wrong_sums(), *self._wrong_holds()]

    def _wrong_sums(self) -> Iterator[str]:
        accounts = self._accounts.values()
        for currency in {*self._opening_units, *self._decimals}:
            pots = [a.balances[currency] for a in accounts if currency in a.balances]
            units = sum(pot.total for pot in pots) + self.fees(currency)
            if units != self._opening_units[currency]:
                yield f"{currency} is {units} units with fees, not what was opened"
        for symbol in self._contracts:
            held = [a.holdings[symbol] for a in accounts if symbol in a.holdings]
            lots = sum(holding.total for holding in held)
            if lots != self._opening_lots[symbol]:
                yield f"{symbol} is {lots} lots, not what was opened"
            paid = sum(holding.cost - holding.realised for holding in held)
            if paid != self._opening_cost[symbol]:
                yield f"{symbol} cost {paid} units less profits, not what was opened"
            if any(holding.cost and not holding.total for holding in held):
                yield f"{symbol} has a cost without a position"

    def _wrong_holds(self) -> Iterator[str]:
        needs: defaultdict[int, int] = defaultdict(int)
        for order_id, hold in self._holds.items():
            needed = hold.need(hold.lots, hold.price_ticks, hold.cost)
            needs[id(hold.pot)] += needed
            if hold.reserved != needed or hold.lots < 1:
                yield f"order {order_id!r} holds {hold.reserved}, not {needed}"
        for account_id, account in self._accounts.items():
            for asset, pot in (*account.balances.items(), *account.holdings.items()):
                if pot.reserved != needs[id(pot)]:
                    yield f"{account_id} reserves {pot.reserved} {asset}"
            for asset, pot in self._never_short(account):
                if pot.available < 0:
                    yield f"{account_id} has {pot.available} {asset} available"

    def _never_short(self, account: Account) -> Iterator[tuple[str, Pot]]:
        if not account.limited:
            return
        bases = {contract.base for contract in self._contracts.values()}
        for currency, pot in account.balances.items():
            if not (account.may_short and currency in bases):
                yield currency, pot
        for symbol, holding in account.holdings.items():
            if not account.may_short and self._contracts[symbol].base is None:
                yield symbol, holding


# ── what is refused ───────────────────────────────────────────────────────────────────


def refuse_order(
    side: int, lots: int, price_ticks: int | None, cost: int | None
) -> None:
    """Raise ValueError for an order that no hold could be computed for."""
    if lots < 1:
        raise ValueError(f"lots is {lots}, not at least 1")
    for key, number in (("price_ticks", price_ticks), ("cost", cost)):
        if number is not None and number < 1:
            raise ValueError(f"{key} is {number}, not at least 1")
    if side == Side.BUY and (price_ticks is None) == (cost is None):
        raise ValueError("a buy has a price_ticks or a cost, not both or neither")

"""The venue's own traders, few and simple: they keep a small book near one price."""

from random import Random

from feedhandler.venue.exchange import Exchange
from feedhandler.venue.flow import OWNER
from feedhandler.venue.matching import Side, TimeInForce

__all__ = ["House"]

LEVELS = 9
MOST_ORDERS = 40
SPACING = {"AAPL": 1, "BTC-USD": 40}
MIDDLE = {"AAPL": 15_000, "BTC-USD": 6_000_000}


class House:
    """Quotes, cancels and takes, one thing at a time."""

    def __init__(self, exchange: Exchange, random: Random, now_ns: int) -> None:
        self._exchange = exchange
        self._random = random
        self._resting: dict[str, list[int]] = {name: [] for name in exchange.engines}
        self._symbols = list(self._resting)
        for symbol in self._symbols:
            for distance in range(1, LEVELS + 1):
                for side in (Side.BUY, Side.SELL):
                    self._quote(symbol, side, distance, now_ns)

    def act(self, now_ns: int) -> None:
        """Do one thing; the exchange's take() has what follows from it."""
        random = self._random
        symbol = random.choice(self._symbols)
        chance = random.random()
        if chance < 0.1:
            self._take(symbol, random.choice((Side.BUY, Side.SELL)), now_ns)
        elif chance < 0.45 or len(self._resting[symbol]) > MOST_ORDERS:
            self._cancel(symbol, now_ns)
        else:
            side = random.choice((Side.BUY, Side.SELL))
            self._quote(symbol, side, random.randint(1, LEVELS), now_ns)

    def _quote(self, symbol: str, side: Side, distance: int, now_ns: int) -> None:
        """Rest an order so far from the middle, or behind the other side's best."""
        away = distance * SPACING[symbol]
        best = self._exchange.engines[symbol].price_at(1 - side, 0)
        if side == Side.BUY:
            price = MIDDLE[symbol] - away
            price = price if best is None else min(price, best - 1)
        else:
            price = MIDDLE[symbol] + away
            price = price if best is None else max(price, best + 1)
        report = self._exchange.submit(
            symbol, OWNER, side, self._random.randint(1, 500), price_ticks=price,
            time_in_force=TimeInForce.GTC, now_ns=now_ns,
        )  # fmt: skip
        self._resting[symbol].append(report.order_id)

    def _cancel(self, symbol: str, now_ns: int) -> None:
        """Take one of our orders out, unless it leaves too few."""
        resting, engine = self._resting[symbol], self._exchange.engines[symbol]
        while resting:
            place = self._random.randrange(len(resting))
            resting[place], resting[-1] = resting[-1], resting[place]
            order = engine.order(resting[-1])
            if order is not None and engine.depth(order[1]) <= LEVELS // 2:
                return
            order_id = resting.pop()
            if order is not None:
                self._exchange.cancel(symbol, order_id, now_ns=now_ns)
                return

    def _take(self, symbol: str, side: Side, now_ns: int) -> None:
        """Trade with the best of the other side, if it has enough behind it."""
        engine = self._exchange.engines[symbol]
        price = engine.price_at(1 - side, 0)
        if price is None or engine.depth(1 - side) <= LEVELS // 2:
            return
        self._exchange.submit(
            symbol, OWNER, side, self._random.randint(1, 400), price_ticks=price,
            time_in_force=TimeInForce.IOC, now_ns=now_ns,
        )  # fmt: skip

"""A venue in virtual time, without sockets: what accounts ask, what all are told."""

from itertools import chain

import msgspec

from feedhandler.protocol.codes import ErrorCode
from feedhandler.protocol.messages import (
    CancelOrderData,
    ModifyOrderData,
    Orderbook,
    OrderbookUpdate,
    OrderData,
    ServerMessage,
)
from feedhandler.venue.config import AccountConfig, TradersConfig, VenueConfig, build
from feedhandler.venue.exchange import Exchange
from feedhandler.venue.flow import OWNER
from feedhandler.venue.listing import Listing
from feedhandler.venue.matching import Side, TimeInForce
from feedhandler.venue.requests import Refusal

# Wednesday 2021-06-30, 00:00 UTC.
START = 1_625_011_200 * 1_000_000_000
MS, SECOND, MINUTE, HOUR = 1_000_000, 10**9, 60 * 10**9, 3600 * 10**9
DAY = 24 * HOUR
SIDES = {"buy": Side.BUY, "sell": Side.SELL}
OWN_KINDS = ("user_orders", "user_trades", "account_updates")

SYMBOLS = [
    {"name": "AAPL", "previous_close": 150},
    {"name": "BTC-USD", "lot": "0.0001", "previous_close": 60_000},
]

decode = msgspec.json.Decoder(ServerMessage).decode


def account(name, usd=100_000, **fields):
    """An account with some of everything."""
    return AccountConfig(
        id=name,
        api_key=f"key-{name}",
        secret="s",
        **{"balances": {"USD": usd, "BTC": 2}, "positions": {"AAPL": 1000}, **fields},
    )


def configure(accounts=("ann", "bob"), **fields) -> VenueConfig:
    made = [account(a) if isinstance(a, str) else a for a in accounts]
    fields = {"symbols": SYMBOLS, "traders": TradersConfig(enabled=False), **fields}
    return build(**msgspec.to_builtins({"accounts": made, **fields}))


class Venue:
    """An exchange whose clock moves when told; keeps what it pushes, by channel.

    With *heard*, every account listens to its own three channels from the start.
    """

    def __init__(self, *accounts, heard=True, now_ns=START, **fields):
        config = configure(accounts or ("ann", "bob"), **fields)
        self.now_ns = now_ns
        self.names = [who.id for who in config.accounts]
        self.listings = {symbol.name: Listing(symbol) for symbol in config.symbols}
        self.exchange = Exchange(config, now_ns, "epoch-1")
        self.desk, self.ledger = self.exchange.desk, self.exchange.ledger
        self.told = []
        self.exchange.take()
        if heard:
            for who in self.names:
                for kind in OWN_KINDS:
                    self.open(kind, who)

    # ── requests ──────────────────────────────────────────────────────────────────

    def submit(self, who, side, quantity, price=None, *, id=None, **fields):
        data = order(side, quantity, price, **fields)
        return self._keep(self.desk.submit(who, data, id, self.now_ns))

    def cancel(self, who, order_id=None, **fields):
        data = CancelOrderData(order_id, **fields)
        return self._keep(self.desk.cancel(who, data, self.now_ns))

    def modify(self, who, order_id=None, **fields):
        data = ModifyOrderData(order_id, **fields)
        return self._keep(self.desk.modify(who, data, self.now_ns))

    def batch(self, who, *operations):
        raw = [msgspec.Raw(msgspec.json.encode(one)) for one in operations]
        return self._keep(self.desk.batch(who, raw, self.now_ns))

    def house(self, side, lots, price=None, *, symbol="AAPL", tif=TimeInForce.GTC):
        """An order of the venue's own traders; returns its id in the engine."""
        ticks = None if price is None else self.ticks(price, symbol)
        report = self.exchange.submit(
            symbol, OWNER, SIDES[side], lots, price_ticks=ticks, time_in_force=tif,
            now_ns=self.now_ns,
        )  # fmt: skip
        return self._keep(report).order_id

    def trade(self, price, lots=1, symbol="AAPL"):
        """Let the house trade with itself: the last price is another one then."""
        self.house("sell", lots, price, symbol=symbol)
        self.house("buy", lots, price, symbol=symbol)

    # ── time and channels ─────────────────────────────────────────────────────────

    def wait(self, duration_ns):
        self.now_ns += duration_ns
        self.collect(self.exchange.advance(self.now_ns))

    def halt(self, symbol="AAPL"):
        self.exchange.halt(symbol, self.now_ns)
        self._keep(None)

    def resume(self, symbol="AAPL"):
        self.exchange.resume(symbol, self.now_ns)
        self._keep(None)

    def open(self, kind, who=None):
        name = kind if who is None else f"{kind}/{who}"
        return [decode(payload) for payload in self.exchange.open(name, self.now_ns)]

    def collect(self, pushes):
        for push in pushes:
            message = decode(push.payload)
            assert message.channel == push.channel.partition("/")[0]
            self.told.append((push.channel, message))

    def _keep(self, result):
        self.collect(self.exchange.take())
        return result

    # ── what there is ─────────────────────────────────────────────────────────────

    def on(self, channel, who=None):
        """The data of what was pushed on a channel."""
        name = channel if who is None else f"{channel}/{who}"
        return [message.data for known, message in self.told if known == name]

    def types_to(self, who):
        """The types of what an account was pushed, in order."""
        return [type(m).__name__ for name, m in self.told if name.endswith(f"/{who}")]

    def orders(self, who):
        """The last word on each order of an account."""
        return {update.order_id: update for update in self.on("user_orders", who)}

    def statuses(self, order_id):
        updates = chain.from_iterable(self.on("user_orders", who) for who in self.names)
        return [update.status for update in updates if update.order_id == order_id]

    def balance(self, who, currency="USD"):
        """Return (available, reserved, total) as numbers on the wire."""
        data = self.open("account_updates", who)[0].data
        (found,) = [b for b in data.balances if b.currency == currency]
        return found.available, found.reserved, found.total

    def position(self, who, symbol="AAPL"):
        data = self.open("account_updates", who)[0].data
        (found,) = [p for p in data.positions if p.symbol == symbol]
        return found

    def book(self, symbol="AAPL", depth=50):
        """Both sides as (price, quantity), best first."""
        data = self.open(f"orderbook:{symbol}:{depth}")[0].data
        return data.bids, data.asks

    def ticks(self, price, symbol="AAPL"):
        return self.listings[symbol].tick.count(price)


class Books:
    """Books as a client keeps them, from what was pushed alone."""

    def __init__(self, venue, names):
        self.books, self.sequences, self.seen = {}, {}, 0
        self.venue = venue
        for name in names:
            (snapshot,) = venue.open(name)
            assert isinstance(snapshot, Orderbook)
            self.books[name] = [dict(snapshot.data.bids), dict(snapshot.data.asks)]
            self.sequences[name] = snapshot.data.sequence

    def update(self):
        told, self.seen = self.venue.told[self.seen :], len(self.venue.told)
        for name, message in told:
            if not isinstance(message, OrderbookUpdate):
                continue
            assert message.data.sequence == self.sequences[name] + 1
            self.sequences[name] += 1
            levels = (message.data.bids, message.data.asks)
            for side, changes in zip(self.books[name], levels, strict=True):
                for price, quantity in changes:
                    side[price] = quantity
                    if quantity == 0:
                        del side[price]

    def wrong(self):
        """The channels whose book is not what the engine has."""
        self.update()
        return [name for name in self.books if self.kept(name) != self.engines(name)]

    def kept(self, name):
        bids, asks = self.books[name]
        return sorted(bids.items(), reverse=True), sorted(asks.items())

    def engines(self, name):
        _, symbol, depth = name.split(":")
        listing, engine = (
            self.venue.listings[symbol],
            self.venue.exchange.engines[symbol],
        )
        return tuple(
            [
                (listing.tick.number(ticks), listing.lot.number(lots))
                for ticks, lots in engine.top(side, int(depth))
            ]
            for side in (Side.BUY, Side.SELL)
        )


def order(side, quantity, price=None, *, symbol="AAPL", stop=None, tif=None, **fields):
    """The data of an order, its type told from the prices that it has."""
    kinds = {
        (False, False): "market",
        (True, False): "limit",
        (False, True): "stop",
        (True, True): "stop_limit",
    }
    fields.setdefault("type", kinds[price is not None, stop is not None])
    return OrderData(
        symbol=symbol, side=side, quantity=quantity, price=price, stop_price=stop,
        time_in_force=tif, **fields,
    )  # fmt: skip


def refused(call, *args, **fields) -> Refusal:
    """What a request is refused with, and nothing was changed by it."""
    try:
        call(*args, **fields)
    except Refusal as refusal:
        return refusal
    raise AssertionError("it was not refused")


def code_of(call, *args, **fields) -> ErrorCode:
    return refused(call, *args, **fields).code

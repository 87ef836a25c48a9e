"""A venue for order desks: a rival trades with them, and connections end at a point.

What becomes of an order is noted as the desk tells it, whether anybody hears of it.
"""

from random import Random
from typing import NamedTuple

from feedhandler.protocol.messages import (
    BatchResult,
    OrderData,
)
from feedhandler.venue.config import (
    AccountConfig,
    LimitsConfig,
    SymbolConfig,
    TradersConfig,
    VenueConfig,
)
from feedhandler.venue.exchange import Exchange
from feedhandler.venue.gateway import Close, Cut, Effect
from feedhandler.venue.order import Order
from feedhandler.venue.requests import Refusal
from tests.order_past import Past
from tests.sim.house import House
from tests.sim.network import FOREVER_NS, TEXT, Item, Link, Network
from tests.sim.venue_side import ACCOUNT, API_KEY, SECRET, Observer, Peer, Venue
from tests.sim.world import World

__all__ = [
    "ALL_LIMITS", "RIVAL", "OrderPeer", "OrderVenue", "Past", "Rival", "Strike",
    "price_of", "sever",
]  # fmt: skip

RIVAL = "acc-rival"
ALL_LIMITS = 100_000
MIDDLE = {"AAPL": 150.0, "BTC-USD": 60_000.0}
STEP = {"AAPL": 0.01, "BTC-USD": 1.0}
WALLS = (10, 11, 12, 13)
"""How many steps from the middle the rival's own orders rest."""


def price_of(symbol: str, steps: int) -> float:
    """Return the price that is so many steps above the middle."""
    return round(MIDDLE[symbol] + steps * STEP[symbol], 2)


def configure(orders_per_minute: int = 100) -> VenueConfig:
    """Describe a venue of two accounts that both have enough."""
    accounts = [
        AccountConfig(
            id=name, api_key=key, secret=SECRET,
            balances={"USD": 100_000_000, "BTC": 1_000},
            positions={"AAPL": 1_000_000},
        )
        for name, key in ((ACCOUNT, API_KEY), (RIVAL, "key-rival"))
    ]  # fmt: skip
    return VenueConfig(
        symbols=[
            SymbolConfig(name="AAPL", previous_close=150),
            SymbolConfig(name="BTC-USD", lot="0.0001", previous_close=60_000),
        ],
        traders=TradersConfig(enabled=False),
        accounts=accounts,
        limits=LimitsConfig(orders_per_minute=orders_per_minute),
    )


class Rival(House):
    """Another account: it rests orders away from the middle, and trades with ours."""

    def __init__(self, exchange: Exchange, random: Random, now_ns: int) -> None:
        self._exchange = exchange
        self._random = random
        self.resting = True
        for symbol in MIDDLE:
            for steps in WALLS:
                self._wall(symbol, steps, now_ns)
                self._wall(symbol, -steps, now_ns)

    def act(self, now_ns: int) -> None:
        """Do one thing, mostly to an order of ours."""
        if self.resting:
            return
        random = self._random
        if random.random() < 0.75:
            self.hit(None, now_ns)
        else:
            symbol = random.choice(list(MIDDLE))
            self._wall(symbol, random.choice((-1, 1)) * random.choice(WALLS), now_ns)

    def hit(self, client_id: str | None, now_ns: int) -> None:
        """Trade with an open order of ours, or a part of it; with any for None."""
        orders = [
            order
            for order in self._exchange.desk.open_orders(ACCOUNT)
            if client_id in (None, order.client_id)
        ]
        if not orders:
            return
        order = self._random.choice(orders)
        lots = self._random.randint(1, order.left)
        lots = order.left if self._random.random() < 0.3 else lots
        side = "sell" if order.side == 0 else "buy"
        if order.stop_ticks is not None and not order.triggered:
            self._trade_at(order, now_ns)
        elif order.price_ticks is not None:
            price = order.listing.tick.number(order.price_ticks)
            quantity = order.listing.lot.number(lots)
            self._submit(order.listing.name, side, quantity, price, "ioc", now_ns)

    def _trade_at(self, order: Order, now_ns: int) -> None:
        """Have the last price be what a stop waits for, if nobody is in between."""
        stop = order.listing.tick.number(order.stop_ticks or 0)
        lot = order.listing.lot.number(1)
        self._submit(order.listing.name, "sell", lot, stop, "gtc", now_ns)
        self._submit(order.listing.name, "buy", lot, stop, "ioc", now_ns)

    def _wall(self, symbol: str, steps: int, now_ns: int) -> None:
        side, quantity = ("sell" if steps > 0 else "buy"), 25.0
        price = price_of(symbol, steps)
        self._submit(symbol, side, quantity, price, "gtc", now_ns)

    def _submit(
        self, symbol: str, side: str, quantity: float, price: float, tif: str,
        now_ns: int,
    ) -> None:  # fmt: skip
        data = OrderData(
            symbol, side, "limit", quantity, price, time_in_force=tif  # type: ignore[arg-type]
        )  # fmt: skip
        try:
            self._exchange.desk.submit(RIVAL, data, None, now_ns)
        except Refusal:
            pass


class Strike(NamedTuple):
    """What happens to the next message of an order action, at the venue.

    *point* is b, c or d: before it is processed, before the answer is sent, and after;
    *i*: when as many operations of a batch were run. *how* the connection ends is one
    of rst, fin, close and silence; *until_ns* is for sever().
    """

    action: str
    point: str
    how: str
    until_ns: int
    operations: int = 0


class Interrupted(Exception):
    """The venue has lost the connection in the middle of a batch."""


class OrderPeer(Peer):
    """Ends where a Strike wants it; counts what it sends, to tell a replay's end."""

    def __init__(self, venue: "OrderVenue", link: Link) -> None:
        super().__init__(venue, link)
        self.venue = venue
        self.sent = 0
        self.told_at: int | None = None
        """How many messages came before the end of the first replay of orders."""
        self.replayed: set[str] = set()
        """The client order ids that were in it."""

    def send(self, payload: bytes) -> None:
        """Send a message."""
        if not self.closing:
            self.sent += 1
        super().send(payload)

    def _open(self, channel: str) -> None:
        super()._open(channel)
        if channel.startswith("user_orders/") and self.told_at is None:
            self.told_at = self.sent
            self.replayed = set(self.venue.past.by_client_id())

    def _take(self, kind: int, payload: bytes) -> list[Effect]:
        strike = self.venue.strike
        wanted = strike is not None and kind == TEXT
        if strike is None or not wanted or strike.action.encode() not in payload:
            return super()._take(kind, payload)
        self.venue.strike = None
        self.venue.struck = True
        return self._struck(strike, payload)

    def _struck(self, strike: Strike, payload: bytes) -> list[Effect]:
        world = self.venue.world
        world.note("fault", f"strikes {strike.point}", strike.how)
        if strike.point == "b":
            self.venue.observer.received(self, payload)
            return self._end(strike)
        if strike.point == "i":
            self.venue.interrupt_after(strike.operations)
        try:
            effects = super()._take(TEXT, payload)
        except Interrupted:
            return self._end(strike)
        finally:
            self.venue.interrupt_after(None)
        if strike.point in "ci":
            return self._end(strike)
        world.after(0, self._end, strike)
        return effects

    def _end(self, strike: Strike) -> list[Effect]:
        if strike.how == "fin":
            return [Cut()]
        if strike.how == "close":
            return [Close(4004, "server restarting")]
        sever(self.link, strike.how, strike.until_ns)
        if strike.how == "rst":
            self.leave()
        return []


def sever(link: Link, how: str, until_ns: int) -> None:
    """End a connection at once, or have it be silent.

    Silence takes what is told for good. What is asked comes then, when the kernel tries
    once more, unless the client has reset its end.
    """
    if how == "silence":
        link.down.hold(FOREVER_NS)
        link.up.hold(until_ns)
    else:
        link.cut()


class OrderVenue(Venue):
    """A venue whose desk can be looked into."""

    config = configure()
    peer_type = OrderPeer  # type: ignore[assignment]
    house_type = Rival

    def __init__(
        self, world: World, network: Network, observer: Observer, pause_ns: int
    ) -> None:
        self.strike: Strike | None = None
        self.struck = False
        self.pasts: list[Past] = []
        super().__init__(world, network, observer, pause_ns)

    def _begin(self) -> None:
        super()._begin()
        self.pasts.append(Past(self.exchange, ACCOUNT))
        self.rest(len(self.pasts) == 1)

    @property
    def past(self) -> Past:
        """What the desk told since it began."""
        return self.pasts[-1]

    def rest(self, resting: bool) -> None:
        """Have the rival trade, or not."""
        assert isinstance(self.house, Rival)
        self.house.resting = resting

    def hit(self, client_id: str | None) -> None:
        """Have the rival trade with an order of ours now."""
        if self.listening:
            assert isinstance(self.house, Rival)
            self.house.hit(client_id, self.now_ns)
            self.acted()

    def interrupt_after(self, operations: int | None) -> None:
        """Have the next batch be broken off when so many operations were run."""
        desk = self.exchange.desk
        vars(desk).pop("_operate", None)
        if operations is None:
            return
        operate, left = desk._operate, [operations]

        def count(*args: object) -> BatchResult:
            if not left[0]:
                raise Interrupted
            left[0] -= 1
            return operate(*args)  # type: ignore[arg-type]

        desk._operate = count  # type: ignore[method-assign, assignment]

    def deliver(self, pushes: list) -> None:  # type: ignore[type-arg]
        """Send each message to its subscribers, and count it."""
        if self.faults.active:
            pushes = self.faults.filter(pushes)
        for channel, payload, _ in pushes:
            for peer in self._subscribers.get(channel, {}):
                assert isinstance(peer, OrderPeer)
                peer.sent += 1
                peer.link.down.send(Item(TEXT, payload))


class RoomyVenue(OrderVenue):
    """A venue without a limit that a client of many orders would meet."""

    config = configure(ALL_LIMITS)

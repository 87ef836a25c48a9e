"""The venue without sockets: gateways around one exchange, as its server has them."""

from typing import Any, Protocol

from feedhandler.secret import Secret
from feedhandler.venue.access import Access, Key, Member
from feedhandler.venue.config import (
    AccountConfig,
    AlertConfig,
    SymbolConfig,
    TradersConfig,
    VenueConfig,
)
from feedhandler.venue.connection import BULKY, CLOSE_DEADLINE_S
from feedhandler.venue.exchange import Exchange
from feedhandler.venue.faults import FaultPlan
from feedhandler.venue.gateway import (
    Close,
    Cut,
    Drop,
    Effect,
    Evict,
    Gateway,
    Later,
    Open,
    Pong,
    Send,
    Services,
)
from feedhandler.venue.market import Push
from tests.sim.house import House
from tests.sim.network import (
    CLOSE,
    END,
    FINISHED,
    PING,
    PONG,
    TEXT,
    Item,
    Link,
    Network,
)
from tests.sim.truth import Truth
from tests.sim.world import SECOND, World

__all__ = ["API_KEY", "EPOCH_NS", "SECRET", "Observer", "Peer", "Venue", "configure"]

# Wednesday 2021-06-30, 12:00 UTC, when the monotonic clock of the life says 0.
EPOCH_NS = 1_625_054_400 * SECOND
API_KEY, SECRET, ACCOUNT = "key-sim", "secret-sim", "acc-sim"
ADDRESS = "10.0.0.1"
MOST_STEPS = 100
CLOSE_DEADLINE_NS = round(CLOSE_DEADLINE_S * SECOND)

SYMBOLS = [
    SymbolConfig(name="AAPL", previous_close=150),
    SymbolConfig(name="BTC-USD", lot="0.0001", previous_close=60_000),
]


def configure() -> VenueConfig:
    """Describe the venue: its traders are not those of the product's, but a House."""
    account = AccountConfig(
        id=ACCOUNT,
        api_key=API_KEY,
        secret=SECRET,
        balances={"USD": 10_000_000, "BTC": 100},
        positions={"AAPL": 100_000},
        alerts=[
            AlertConfig(
                id="a-1", name="up", condition="price_above", symbol="AAPL",
                threshold="150",
            )
        ],
        large_fill=1000,
    )  # fmt: skip
    traders = TradersConfig(enabled=False)
    return VenueConfig(symbols=SYMBOLS, traders=traders, accounts=[account])


CONFIG = configure()


class TrueExchange(Exchange):
    """An exchange that tells the truth about its books."""

    def __init__(self, config: VenueConfig, now_ns: int, epoch: str) -> None:
        super().__init__(config, now_ns, epoch)
        self.truth = Truth(self._listings, self.engines)
        for data in self._data.values():
            data.on_book = self.truth.note

    def open(self, name: str, now_ns: int) -> list[bytes]:
        """Produce a channel, and note what a book begins with."""
        payloads = super().open(name, now_ns)
        if name.startswith("orderbook:"):
            symbol = name.split(":")[1]
            self.truth.note(name, self._data[symbol]._books[name].sequence)
        return payloads


class Observer(Protocol):
    """Who sees what the venue does."""

    def received(self, peer: "Peer", payload: bytes) -> None:
        """See a message that arrived."""

    def answered(self, peer: "Peer", payload: bytes) -> None:
        """See a message of a gateway's own."""

    def closed(self, peer: "Peer", code: int) -> None:
        """See the venue close a connection."""

    def gone(self, peer: "Peer") -> None:
        """See the end of a connection."""

    def lied(self, payload: bytes) -> None:
        """Hear that a message is not true, though nothing in it shows that."""


class Peer:
    """The venue's end of one connection."""

    def __init__(self, venue: "Venue", link: Link) -> None:
        self.link = link
        self.truth = venue.exchange.truth
        self.closing = False
        self.gone = False
        self.gateway = Gateway(venue.services, link.endpoint, ADDRESS, venue.now_ns)
        self._venue = venue
        self._pending: dict[str, None] = {}
        link.up.end = self
        link.served = self
        self._arm()

    # ── what comes ────────────────────────────────────────────────────────────────

    def read(self, items: list[Item]) -> None:
        """Take what arrived."""
        for kind, payload, _ in items:
            if self.gone:
                return
            if kind == FINISHED:
                self.leave()
            elif kind == CLOSE:
                self._take_close()
            elif not self.closing:
                self._apply(self._take(kind, payload))

    def _take(self, kind: int, payload: bytes) -> list[Effect]:
        venue = self._venue
        if kind == PING:
            return self.gateway.ping(payload, venue.now_ns)
        if kind == PONG:
            return self.gateway.pong(venue.now_ns)
        venue.observer.received(self, payload)
        try:
            payload.decode()
        except UnicodeDecodeError:
            return [Close(1007, "text is not UTF-8")]
        return self.gateway.receive(payload, venue.now_ns)

    def _take_close(self) -> None:
        if not self.closing:
            self.close(1000, "")
        self.link.down.send(END)
        self.leave()

    # ── what goes ─────────────────────────────────────────────────────────────────

    def send(self, payload: bytes) -> None:
        """Send a message."""
        if not self.closing:
            self.link.down.send(Item(TEXT, payload))

    def close(self, code: int | None, reason: str) -> None:
        """Send a close frame, with no code if it is None; the client has 2 s."""
        if self.closing:
            return
        self.closing = True
        self._detach()
        self._venue.observer.closed(self, code or 1005)
        self.link.down.send(Item(CLOSE, reason.encode(), code))
        self._venue.world.after(CLOSE_DEADLINE_NS, self.abort)

    def abort(self) -> None:
        """Drop the connection with no close frame."""
        if self.gone:
            return
        self.closing = True
        self.link.down.send(END)
        self.leave()

    def leave(self) -> None:
        """Hear that the connection is no more."""
        if self.gone:
            return
        self.closing = self.gone = True
        self._detach()
        self.gateway.left()
        self._venue.left(self)

    def _detach(self) -> None:
        self._pending.clear()
        for channel in self.gateway.subscriptions:
            self._venue.detach(self, channel)

    def _apply(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(payload):
                    self._venue.observer.answered(self, payload)
                    self.send(payload)
                case Open(channel) if channel.startswith(BULKY):
                    self._pending[channel] = None
                case Open(channel):
                    self._open(channel)
                case Drop(channel):
                    self._pending.pop(channel, None)
                    self._venue.detach(self, channel)
                case Pong(payload):
                    self.link.down.send(Item(PONG, payload))
                case Close(code, reason):
                    self.close(code, reason)
                case Evict(members):
                    self._venue.evict(members)
                case Later(delay_ns, payload):
                    self._venue.world.after(delay_ns, self.send, payload)
                case Cut():
                    self.abort()
        while self._pending and not self.closing:
            channel = next(iter(self._pending))
            del self._pending[channel]
            self._open(channel)
        self._venue.acted()

    def _open(self, channel: str) -> None:
        for payload in self._venue.attach(self, channel):
            self.send(payload)

    # ── time ──────────────────────────────────────────────────────────────────────

    def _arm(self) -> None:
        due_ns = self.gateway.due_ns() - EPOCH_NS
        self._venue.world.at(max(due_ns, self._venue.world.now_ns), self._tick)

    def _tick(self) -> None:
        if not self.closing:
            self._apply(self.gateway.tick(self._venue.now_ns))
            self._arm()


class Venue:
    """The venue at its one address."""

    config = CONFIG
    peer_type = Peer
    house_type: type[House] = House

    def __init__(
        self, world: World, network: Network, observer: Observer, pause_ns: int
    ) -> None:
        self.world = world
        self.observer = observer
        self._random = world.random("house")
        self._pause_ns = pause_ns
        self.listening = True
        self.pumping = True
        self.faults = FaultPlan()
        self.peers: dict[Peer, None] = {}
        self._key = Key(API_KEY, Secret(SECRET), ACCOUNT)
        self._access = Access([self._key], self.config.limits)
        self._subscribers: dict[str, dict[Peer, None]] = {}
        self._planned_ns: int | None = None
        self._epochs = 0
        network.venue = self
        self._begin()
        self._trade_later()

    def _begin(self) -> None:
        self._epochs += 1
        self.listening = True
        epoch = f"epoch-{self._epochs}"
        self.exchange = TrueExchange(self.config, self.now_ns, epoch)
        self.house = self.house_type(self.exchange, self._random, self.now_ns)
        self.services = Services(self.config, self.exchange, self._access, self.faults)
        self.faults.attach(self.end_all, self.deliver, self.restart)
        self.plan()

    @property
    def now_ns(self) -> int:
        """The venue's time, ns since the epoch."""
        return self.world.now_ns + EPOCH_NS

    # ── connections ───────────────────────────────────────────────────────────────

    def accept(self, link: Link) -> None:
        """Begin to serve a connection."""
        self.peers[self.peer_type(self, link)] = None

    def left(self, peer: Peer) -> None:
        """Forget a connection that is gone."""
        self.peers.pop(peer, None)
        self.observer.gone(peer)

    def evict(self, members: list[Member]) -> None:
        """Close connections that were silent for too long."""
        for peer in list(self.peers):
            if peer.gateway in members:
                peer.close(1001, "heartbeat timeout")

    def end_all(self, code: int | None, reason: str) -> None:
        """Close every connection, or with no code drop it."""
        for peer in list(self.peers):
            if code is None:
                peer.abort()
            else:
                peer.close(code, reason)

    def restart(self, down_ns: int = SECOND, crash: bool = False) -> None:
        """Begin anew after a while: nothing is kept."""
        if not self.listening:
            return
        if crash:
            self.end_all(None, "")
        else:
            self.exchange.shut_down(self.now_ns, "The venue is shutting down.")
            self.deliver(self.exchange.take())
            self.end_all(4004, "server restarting")
        self.listening = False
        self.world.after(down_ns, self._begin_again)

    def _begin_again(self) -> None:
        self.end_all(None, "")
        self.faults.clear()
        self._begin()

    def occupy(self, member: Member) -> bool:
        """Have a stranger use the key; say whether there was room."""
        evicted = self._access.join(self._key, member, self.now_ns)
        self.evict(evicted or [])
        return evicted is not None

    def vacate(self, member: Member) -> None:
        """Have a stranger go."""
        self._access.leave(self._key, member)

    def exhaust(self, orders: int, authentications: int) -> None:
        """Have a stranger use up what the key may ask in this minute."""
        limiters: list[Any] = [(self._access.order_limiter(self._key), orders)]
        for limiter in self._access.authentication_limiters(API_KEY, "10.9.9.9"):
            limiters.append((limiter, authentications))
        for limiter, units in limiters:
            for _ in range(units):
                limiter.admit(self.now_ns)

    def revoke(self) -> None:
        """Have the key be none any more."""
        self._access._keys.clear()

    # ── channels ──────────────────────────────────────────────────────────────────

    def attach(self, peer: Peer, channel: str) -> list[bytes]:
        """Subscribe a connection; return what the channel begins with."""
        opening = self.exchange.open(channel, self.now_ns)
        spoiled = self.faults.opening(channel, opening)
        for payload in spoiled:
            if payload not in opening:
                self.observer.lied(payload)
        self._subscribers.setdefault(channel, {})[peer] = None
        self.plan()
        return spoiled

    def detach(self, peer: Peer, channel: str) -> None:
        """Send a connection nothing more on a channel."""
        subscribers = self._subscribers.get(channel)
        if subscribers is None or peer not in subscribers:
            return
        del subscribers[peer]
        if not subscribers:
            del self._subscribers[channel]
            self.exchange.release(channel)

    def books(self) -> list[str]:
        """Return the books that somebody is subscribed to."""
        return [name for name in self._subscribers if name.startswith("orderbook:")]

    def deliver(self, pushes: list[Push]) -> None:
        """Send each message to its subscribers."""
        if self.faults.active:
            pushes = self.faults.filter(pushes)
        for channel, payload, _ in pushes:
            subscribers = self._subscribers.get(channel)
            if subscribers:
                item = Item(TEXT, payload)
                for peer in subscribers:
                    peer.link.down.send(item)

    # ── the market ────────────────────────────────────────────────────────────────

    def acted(self) -> None:
        """Tell at once what a request brought about."""
        pushes = self.exchange.take()
        if pushes:
            self.deliver(pushes)
            self.plan()

    def burst(self, steps: int) -> None:
        """Let the traders do so much at once."""
        if self.listening:
            for _ in range(steps):
                self.house.act(self.now_ns)
            self.acted()

    def stir(self) -> None:
        """Let the traders act until every book that somebody has is another one."""
        truth = self.exchange.truth
        quiet = {name: truth.latest(name) for name in self.books()}
        for _ in range(MOST_STEPS):
            self.burst(4)
            if all(truth.latest(name) > at for name, at in quiet.items()):
                break

    def _trade_later(self) -> None:
        pause_ns = int(self._random.expovariate(1) * self._pause_ns)
        self.world.after(pause_ns, self._trade)

    def _trade(self) -> None:
        if self.pumping:
            self.burst(1)
            self._trade_later()

    def plan(self) -> None:
        """Have the market go on when it next has something to say."""
        due_ns = self.exchange.due_ns()
        if due_ns is None or not self.pumping:
            return
        due_ns = max(due_ns - EPOCH_NS, self.world.now_ns)
        if self._planned_ns is None or due_ns < self._planned_ns:
            self._planned_ns = due_ns
            self.world.at(due_ns, self._pump)

    def _pump(self) -> None:
        if self._planned_ns is None or self.world.now_ns < self._planned_ns:
            return
        self._planned_ns = None
        if self.listening and self.pumping:
            self.deliver(self.exchange.advance(self.now_ns))
            self.plan()

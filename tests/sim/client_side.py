"""The product's sessions without sockets: driven as its connection and listener do."""

from collections.abc import Callable
from typing import Any, Protocol

from feedhandler.codec import Codec, MsgspecCodec
from feedhandler.counters import Counters
from feedhandler.session import Session
from feedhandler.sink import PythonSink, QuoteEvent, TradeEvent
from feedhandler.throttle import Throttle
from feedhandler.tracker import COUNTERS, HISTOGRAMS, Action
from tests.sim.network import (
    CLOSE,
    END,
    FINISHED,
    PING,
    PONG,
    TEXT,
    UPGRADED,
    Item,
    Link,
    Network,
)
from tests.sim.world import MS, SECOND, World

__all__ = ["BEAT_NS", "Client", "Host", "Socket", "Watcher"]

BEAT_NS = 100 * MS
# Plain integers: a member of an IntEnum takes longer to look up than to compare.
WANTS_SEND, WANTS_CLOSE = int(Action.SEND), int(Action.CLOSE)
WANTS_REFUSE, WANTS_PING, RESYNC = (
    int(Action.REFUSE), int(Action.PING), int(Action.RESYNC)
)  # fmt: skip
CONNECT_TIMEOUT_NS = 5 * SECOND
CLOSE_TIMEOUT_NS = 2 * SECOND
WINDOW_NS = 61 * SECOND


class Watcher(Protocol):
    """Who sees what a client does. Each is told of a thing before it is done."""

    def connecting(self, host: "Host") -> None:
        """See a connection being made."""

    def opened(self, host: "Host") -> None:
        """See that it is open."""

    def sent(self, host: "Host", payload: bytes) -> None:
        """See a message go."""

    def pinged(self, host: "Host", payload: bytes) -> None:
        """See a ping control frame go."""

    def delivered(self, host: "Host", payload: bytes) -> None:
        """See a message come."""

    def digested(self, host: "Host") -> None:
        """Hear that the session has taken it."""

    def ponged(self, host: "Host", payload: bytes) -> None:
        """See a pong control frame come."""

    def quoted(self, host: "Host", event: QuoteEvent) -> None:
        """See a quote."""

    def traded(self, host: "Host", event: TradeEvent) -> None:
        """See a trade."""

    def stalled(self, host: "Host", slept_ns: int) -> None:
        """Hear that the client did not read for a while, and goes on now."""

    def ends(self, host: "Host") -> None:
        """Hear that there shall be no further connection."""

    def ended(self, host: "Host", code: int) -> None:
        """See the end of a connection, or of the attempt to make one."""

    def decided(self, host: "Host") -> None:
        """Hear that the session has decided what follows the end."""

    def wants(self, host: "Host", channel: str) -> None:
        """Hear of a channel that is wanted from now on."""

    def forgoes(self, host: "Host", channel: str) -> None:
        """Hear of one that is wanted no more."""

    def asked(self, host: "Host", request_id: str) -> None:
        """Hear of a request."""

    def took(self, host: "Host", events: list[Any], answers: list[Any]) -> None:
        """See what a session tells its host."""

    def handed(self, host: "Host", messages: list[Any]) -> None:
        """See the messages of private channels that it hands to its host."""


class Sink(PythonSink):
    """Hand quotes and trades on."""

    def __init__(self, host: "Host") -> None:
        self._host = host

    def quote(self, event: QuoteEvent) -> None:
        """Take a quote."""
        self._host.quoted(event)

    def trade(self, event: TradeEvent) -> None:
        """Take a trade."""
        self._host.watcher.traded(self._host, event)


class Socket:
    """One connection of a Host, as its listener: frames in, actions out."""

    def __init__(self, host: "Host", network: Network) -> None:
        self.host = host
        self.open = False
        self.closing = False
        self.closing_ns = 0
        self.gone = False
        self.code: int | None = None
        self.reason = ""
        self._inbox: list[Item] = []
        self.link: Link = network.connect(host.endpoint, self)

    # ── what comes ────────────────────────────────────────────────────────────────

    def read(self, items: list[Item]) -> None:
        """Take what arrived, unless the loop is stuck: then later, all at once."""
        if self.gone:
            return
        if self.host.stuck:
            self._inbox += items
            return
        host, session = self.host, self.host.session
        collect = 0
        for item in items:
            if self.gone:
                return
            actions = self._take(item)
            if actions:
                collect |= actions & RESYNC
                self.act(actions)
        if not self.gone:
            collect |= session.read_ended() & RESYNC
            if collect and not self.closing:
                self.act(session.collect(host.now_ns))
            host.take()

    def wake(self) -> None:
        """Take what arrived while the loop was stuck."""
        items, self._inbox = self._inbox, []
        self.read(items)

    def _take(self, item: Item) -> int:
        kind, payload, code = item
        host, session = self.host, self.host.session
        if kind == TEXT:
            if self.closing:
                return 0
            host.watcher.delivered(host, payload)
            actions = session.receive(payload, host.now_ns)
            host.watcher.digested(host)
            return actions
        if kind == UPGRADED:
            self.open = True
            host.watcher.opened(host)
            return session.opened(host.now_ns) | session.tick(host.now_ns)
        if kind == FINISHED:
            self.lose()
        elif kind == CLOSE:
            self._take_close(code, payload)
        elif kind == PONG and not self.closing:
            host.watcher.ponged(host, payload)
            session.pong(payload, host.now_ns)
        elif kind == PING and not self.closing and session.pinged(host.now_ns):
            self.link.up.send(Item(PONG, payload))
        return 0

    def _take_close(self, code: int | None, reason: bytes) -> None:
        if self.code is None:
            self.code, self.reason = code or 1006, reason.decode()
        if not self.closing:
            self._start_closing()
            self.link.up.send(Item(CLOSE, b"", code))
        self.link.up.send(END)
        self.lose()

    # ── what goes ─────────────────────────────────────────────────────────────────

    def act(self, actions: int) -> None:
        """Do what the session asks for."""
        host, session = self.host, self.host.session
        if actions & WANTS_REFUSE:
            self.close(1007, "text is not UTF-8")
        if actions & WANTS_SEND and not self.closing:
            for payload in session.take_outbox():
                host.send(payload)
        if actions & WANTS_PING and not self.closing:
            host.watcher.pinged(host, session.ping_payload)
            self.link.up.send(Item(PING, session.ping_payload))
        if actions & WANTS_CLOSE:
            self._abandon(session.close_reason)

    def watch_close(self, now_ns: int) -> None:
        """Let go of the connection if its close takes too long."""
        if now_ns - self.closing_ns >= CLOSE_TIMEOUT_NS:
            self.link.up.send(END)
            self.lose()

    def close(self, code: int, reason: str) -> None:
        """Send a close frame; the venue's answer or the deadline does the rest."""
        if self.closing:
            return
        self.code, self.reason = code, reason
        self._start_closing()
        self.link.up.send(Item(CLOSE, reason.encode(), code))

    def lose(self) -> None:
        """Hear that the connection is no more."""
        if self.gone:
            return
        self.gone = True
        self.host.lost(self, self.code or 1006, self.reason or "connection lost")

    def give_up(self) -> None:
        """Have nothing to do with it, even if it is made after all."""
        if self.host.stuck:
            self.host.later(self.give_up)
        elif not self.open and not self.gone:
            self.link.up.send(END)
            self.reason = "connecting took too long"
            self.lose()

    def _abandon(self, reason: str | None) -> None:
        if self.closing:
            return
        self.code, self.reason = 1006, reason or "given up"
        self._start_closing()
        self.link.up.send(Item(CLOSE, b"", 1001))
        self.link.up.send(END)
        self.lose()

    def _start_closing(self) -> None:
        self.closing = True
        self.closing_ns = self.host.now_ns
        self.host.session.closing(self.host.now_ns)
        self.host.session.read_ended()


class Host:
    """A session and the connections that it has, one after the other."""

    socket_type = Socket
    subscribes = 45
    others = 180

    def __init__(
        self,
        world: World,
        network: Network,
        watcher: Watcher,
        name: str,
        endpoint: str,
        codec: Codec | None = None,
        **options: Any,
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self.watcher = watcher
        self.stuck = False
        self.socket: Socket | None = None
        self.wanted: dict[str, None] = {}
        self.channels: list[str] = []
        """By instrument: none is used again for a channel that comes back."""
        self.sink = Sink(self)
        self._world = world
        self._network = network
        page = bytearray(Counters.size_for(len(COUNTERS), len(HISTOGRAMS)))
        self.session = Session(
            codec or MsgspecCodec(),
            self.sink,
            Counters(page, COUNTERS, HISTOGRAMS),
            Throttle(self.subscribes, WINDOW_NS),
            Throttle(self.others, WINDOW_NS),
            name=name,
            **options,
        )

    @property
    def now_ns(self) -> int:
        """The client's monotonic clock."""
        return self._world.now_ns

    @property
    def link(self) -> Link | None:
        """The connection there is, or that is being made."""
        return None if self.socket is None else self.socket.link

    def next(self) -> None:
        """Wait for as long as the session says, then connect."""
        wait_ns = self.session.wait_ns(self.now_ns)
        if wait_ns is not None:
            self._world.after(wait_ns, self._connect)

    def _connect(self) -> None:
        if self.socket is not None:
            return
        if self.stuck:
            self.later(self._connect)
            return
        if self.session.wait_ns(self.now_ns) != 0:
            self.next()
            return
        self.watcher.connecting(self)
        self.session.connecting(self.now_ns)
        self.socket = self.socket_type(self, self._network)
        self._world.after(CONNECT_TIMEOUT_NS, self.socket.give_up)

    def later(self, act: Callable[[], object]) -> None:
        """Call *act* when the loop may turn again."""
        self._world.after(BEAT_NS, act)

    def lost(self, socket: Socket, code: int, reason: str) -> None:
        """Hear that the connection is no more, and go on."""
        self.socket = None
        self.watcher.ended(self, code)
        self.session.closed(self.now_ns, code, reason)
        self.session.read_ended()
        self.watcher.decided(self)
        self.take()
        self.next()

    def send(self, payload: bytes) -> None:
        """Put a message on the wire."""
        if self.socket is not None:
            self.watcher.sent(self, payload)
            self.socket.link.up.send(Item(TEXT, payload))

    def take(self) -> None:
        """Take what the session has to tell."""
        session = self.session
        if session.messages:
            self.watcher.handed(self, session.take_messages())
        if session.events or session.answers:
            self.watcher.took(self, session.take_events(), session.take_answers())

    def quoted(self, event: QuoteEvent) -> None:
        """See a quote."""
        self.watcher.quoted(self, event)

    # ── what an embedder asks ─────────────────────────────────────────────────────

    def subscribe(self, channel: str) -> None:
        """Want a channel."""
        self.wanted[channel] = None
        self.watcher.wants(self, channel)
        self.session.add(channel, len(self.channels))
        self.channels.append(channel)
        self.flush()

    def unsubscribe(self, channel: str) -> None:
        """Want it no more."""
        del self.wanted[channel]
        self.session.remove(channel)
        self.watcher.forgoes(self, channel)
        self.flush()

    def ask(self, message: Any, units: int = 1, urgent: bool = False) -> str:
        """Ask the venue; raises what the session raises."""
        request_id: str = self.session.ask(message, self.now_ns, units, urgent)
        self.watcher.asked(self, request_id)
        assert self.socket is not None
        self.socket.act(WANTS_SEND)
        return request_id

    def end(self) -> None:
        """Want no connection any more."""
        self.watcher.ends(self)
        self.session.end(self.now_ns)
        if self.socket is not None and self.socket.open:
            self.socket.close(1000, "")
            self.take()

    def flush(self) -> None:
        """Send what was asked for just now."""
        socket = self.socket
        self.session.read_ended()
        if socket is not None and socket.open and not socket.closing:
            socket.act(self.session.collect(self.now_ns))
        self.take()


class Client:
    """All sessions of one process: they share a key, and a loop that may be stuck."""

    def __init__(self, world: World, hosts: list[Host]) -> None:
        self.hosts = hosts
        self._world = world
        self._stuck = 0
        self._stuck_ns = 0

    def start(self) -> None:
        """Begin to connect."""
        for host in self.hosts:
            host.next()
        self._world.after(BEAT_NS, self._beat)

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return any(host.socket and host.socket.open for host in self.hosts)

    def stall(self, duration_ns: int) -> None:
        """Have the loop be stuck for so long: no read, no beat."""
        self._stuck += 1
        if self._stuck == 1:
            self._stuck_ns = self._world.now_ns
        for host in self.hosts:
            host.stuck = True
        self._world.after(duration_ns, self._go_on)

    def _go_on(self) -> None:
        self._stuck -= 1
        if self._stuck:
            return
        slept_ns = self._world.now_ns - self._stuck_ns
        for host in self.hosts:
            host.stuck = False
            host.watcher.stalled(host, slept_ns)
        for host in self.hosts:
            if host.socket is not None:
                host.socket.wake()

    def _beat(self) -> None:
        self._world.after(BEAT_NS, self._beat)
        if not self._stuck:
            self.turn()

    def turn(self) -> None:
        """Let time pass for every session."""
        now_ns = self._world.now_ns
        for host in self.hosts:
            socket = host.socket
            if socket is None or not socket.open:
                continue
            if socket.closing:
                socket.watch_close(now_ns)
            elif actions := host.session.tick(now_ns):
                socket.act(actions)
            host.session.read_ended()
            if host.session.events:
                host.take()

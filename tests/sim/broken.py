"""Clients that are wrong in one way each: a judge who lets one pass is none."""

import re
from typing import Any

import msgspec

from feedhandler.errors import NotConnected, Throttled
from feedhandler.sink import QuoteEvent
from tests.sim.client_side import Host, Socket
from tests.sim.network import TEXT, UPGRADED, Item
from tests.sim.world import SECOND

__all__ = ["BROKEN"]

LIVE, STALE = 0x01, 0x02

decode, encode = msgspec.json.decode, msgspec.json.encode


class Forgetful(Host):
    """Leaves a channel out when it subscribes to several again."""

    def send(self, payload: bytes) -> None:
        message = decode(payload)
        if message["action"] == "subscribe" and len(message["data"]["channels"]) > 1:
            message["data"]["channels"].pop()
            payload = encode(message)
        super().send(payload)


class Hasty(Host):
    """Does not wait before it connects again."""

    def next(self) -> None:
        if self.session.wait_ns(self.now_ns) is not None:
            self.session.connecting(self.now_ns)
            self.watcher.connecting(self)
            self.socket = Socket(self, self._network)


class Trusting(Host):
    """Takes every quote for LIVE."""

    def quoted(self, event: QuoteEvent) -> None:
        super().quoted(event._replace(flags=event.flags & ~STALE | LIVE))


class Silent(Host):
    """Does not say that a book is STALE."""

    def quoted(self, event: QuoteEvent) -> None:
        if not event.flags & STALE:
            super().quoted(event)


class Repeating(Host):
    """Sends an order again, to be on the safe side."""

    def send(self, payload: bytes) -> None:
        super().send(payload)
        if b'"action":"submit_order"' in payload:
            super().send(payload.replace(b'"id":"', b'"id":"again-'))


class Eager(Host):
    """Subscribes at once, and authenticates then."""

    def send(self, payload: bytes) -> None:
        if b'"action":"authenticate"' in payload:
            channels = list(self.wanted) or ["user_orders"]
            early = {"action": "subscribe", "data": {"channels": channels}}
            super().send(encode(early))
        super().send(payload)


class Unlimited(Host):
    """Knows no limits."""

    subscribes = others = 1_000_000


class Mute(Host):
    """Answers no heartbeat."""

    def send(self, payload: bytes) -> None:
        if b'"action":"pong"' not in payload:
            super().send(payload)


class Careless(Host):
    """Takes every close for a lost connection."""

    def lost(self, socket: Socket, code: int, reason: str) -> None:
        self.socket = None
        self.watcher.ended(self, code)
        self.session.closed(self.now_ns, 1006, "")
        self.watcher.decided(self)
        self.take()
        self.next()


class Deaf(Host):
    """Loses what it is answered."""

    def take(self) -> None:
        self.session.take_answers()
        super().take()


class Lazy(Host):
    """Connects once."""

    def next(self) -> None:
        if not self.session.routes or self.session.reconnect.attempt == 0:
            super().next()


class Timeless(Host):
    """Counts no epochs."""

    def quoted(self, event: QuoteEvent) -> None:
        super().quoted(event._replace(epoch=1))


class Cheap(Host):
    """Counts a batch as one."""

    def ask(self, message: Any, units: int = 1, urgent: bool = False) -> str:
        return super().ask(message, 1, urgent)


class Rewriting(Socket):
    """Reads something else than what was sent."""

    def _take(self, item: Item) -> int:
        if item.kind != TEXT or self.closing:
            return super()._take(item)
        host = self.host
        host.watcher.delivered(host, item.payload)
        actions = host.session.receive(self.reads(item.payload), host.now_ns)
        host.watcher.digested(host)
        return actions

    def reads(self, payload: bytes) -> bytes:
        """Return what it takes a message for."""
        raise NotImplementedError


class Credulous(Rewriting):
    """Makes of every update the one that was due."""

    def reads(self, payload: bytes) -> bytes:
        if not payload.startswith(b'{"type":"orderbook_update"'):
            return payload
        message = decode(payload)
        route = self.host.session.routes.get(message["channel"])
        if route is not None and route.book is not None:
            message["data"]["sequence"] = route.book.sequence + 1
        return encode(message)


class Sloppy(Rewriting):
    """Does not look at the offers of an update."""

    def reads(self, payload: bytes) -> bytes:
        if not payload.startswith(b'{"type":"orderbook_update"'):
            return payload
        message = decode(payload)
        message["data"]["asks"] = []
        return encode(message)


class Gullible(Rewriting):
    """Takes half a success for one."""

    def reads(self, payload: bytes) -> bytes:
        if payload.startswith(b'{"type":"auth_response"') and b'"success"' in payload:
            return payload.replace(b'"error"', b'"success"')
        return payload


class Hurried(Rewriting):
    """Waits for a second, however long it is told to."""

    def reads(self, payload: bytes) -> bytes:
        return re.sub(rb'"retry_after":[0-9]+', b'"retry_after":1', payload)


class Impatient(Rewriting):
    """Asks for a snapshot again with every message, until it has one."""

    def reads(self, payload: bytes) -> bytes:
        session = self.host.session
        for route in session.routes.values():
            if route.book is not None and not route.book.is_live and route.confirmed:
                for _ in range(3):
                    session.again([route.channel])
                    session.want_snapshot(route.book)
                    self.act(session.collect(self.host.now_ns))
        return payload


class Flattering(Socket):
    """Takes a connection for useful as soon as it is open."""

    def _take(self, item: Item) -> int:
        if item.kind == UPGRADED:
            self.host.session.reconnect.reset()
        return super()._take(item)


class Sleepless(Socket):
    """Has its timers run while nobody reads, and takes what is old for news."""

    def wake(self) -> None:
        session, now_ns = self.host.session, self.host.now_ns
        for ago_ns in range(100 * SECOND, 0, -SECOND // 2):
            self.act(session.tick(now_ns - ago_ns))
        super().wake()


class Insistent(Host):
    """Asks for an order again when it does not know what became of the first."""

    def take(self) -> None:
        answers = self.session.take_answers()
        self.watcher.took(self, [], answers)
        for answer in answers:
            if answer.message is None and answer.id in self.asked_for:
                self._world.after(SECOND, self._again, self.asked_for[answer.id])
        super().take()

    def ask(self, message: Any, units: int = 1, urgent: bool = False) -> str:
        request_id = super().ask(message, units, urgent)
        self.asked_for[request_id] = message
        return request_id

    def __init__(self, *args: Any, **options: Any) -> None:
        self.asked_for: dict[str, Any] = {}
        super().__init__(*args, **options)

    def _again(self, message: Any) -> None:
        message.id = None
        try:
            self.ask(message)
        except (NotConnected, Throttled):
            pass


def on(socket: type[Socket]) -> type[Host]:
    """Return a client with such connections."""
    return type(socket.__name__, (Host,), {"socket_type": socket})


BROKEN: dict[str, tuple[type[Host], list[str], str]] = {
    "forgets a channel": (Forgetful, ["rst"], "I-13"),
    "does not wait": (Hasty, ["close_all", "rst"], "I-20"),
    "takes all for live": (Trusting, ["skip"], "I-03"),
    "hides what is stale": (Silent, ["rst"], "I-03"),
    "hides a gap": (Silent, ["skip"], "I-03"),
    "sends an order twice": (Repeating, ["lag"], "I-08"),
    "subscribes before it may": (Eager, ["rst"], "I-12"),
    "has no limits": (Unlimited, ["flood", "flood"], "I-14"),
    "answers no heartbeat": (Mute, ["lag"], "HB-03"),
    "knows no close code": (Careless, ["close"] * 8, "I-19"),
    "connects once": (Lazy, ["rst"] * 4, "I-22"),
    "counts no epochs": (Timeless, ["restart", "restart"], "I-04"),
    "counts a batch as one": (Cheap, ["flood"] * 3, "I-14"),
    "reads one side": (on(Sloppy), ["lag"], "I-01"),
    "is content with half a yes": (on(Gullible), ["login_both"] * 2, "I-12"),
    "comes back too soon": (on(Hurried), ["exhausted"] * 3, "LM-10"),
    "asks in a storm": (on(Impatient), ["lag"] * 3 + ["skip"] * 9, "F-46"),
    "takes old for new": (on(Sleepless), ["sleep"] * 4, "I-03"),
    "loses answers": (Deaf, ["lag"], "MF-11"),
    "counts for itself": (on(Credulous), ["skip", "skip"], "I-03"),
    "starts over when open": (on(Flattering), ["flap", "flap"], "I-20"),
    "asks again for an order": (Insistent, ["no_answer", "no_answer"], "I-08"),
}
"""By what is wrong: the client, faults that show it, and the invariant it breaks."""

"""The network between the clients and the venue: slow, in order, and faulty when told.

Messages, control frames and the ends of connections go through it as Items. What TCP
cannot do to a message, such as to lose or repeat it, stands for a venue that does.
"""

import re
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple, Protocol

from tests.sim.world import MS, SECOND, World

__all__ = [
    "CLOSE",
    "END",
    "FINISHED",
    "FOREVER_NS",
    "PING",
    "PONG",
    "TEXT",
    "UPGRADED",
    "Fault",
    "Item",
    "Link",
    "Network",
    "Pipe",
]

FOREVER_NS = 1 << 62
LATENCIES_NS = (50_000, 500_000, 5 * MS, 30 * MS, 100 * MS)
"""The least latency of a direction; jitter adds up to twice as much again."""

DIGIT = re.compile(rb"(?<=[0-9.])[0-9](?=[0-9]*[],.])")


# What goes through a pipe.
UPGRADED = 0  # the answer to the handshake: the connection is open
TEXT = 1
PING = 2
PONG = 3
CLOSE = 4
FINISHED = 5  # a FIN or a RST
SEQUENCE = re.compile(rb'(?<="sequence":)[0-9]+')
SYMBOL = re.compile(rb'(?<="symbol":")[A-Z-]+')


class Item(NamedTuple):
    """One thing on the wire; a close frame has a code, None where it has none."""

    kind: int
    payload: bytes = b""
    code: int | None = None


END = Item(FINISHED)


class End(Protocol):
    """One end of a connection."""

    def read(self, items: list[Item]) -> None:
        """Take what one read of the socket brings."""


class Fault:
    """What happens to the next messages of a direction, as far as they match."""

    def __init__(self, kind: str, count: int = 1, match: bytes = b"") -> None:
        self.kind = kind
        self.left = count
        self.match = match

    def meets(self, payload: bytes) -> bool:
        """Use the fault up once, if it is for this message."""
        if self.left and self.match in payload:
            self.left -= 1
            return True
        return False


Spoiled = Callable[["Pipe", Fault, bytes, list[bytes]], object]


class Pipe:
    """One direction of a connection: *up* is to the venue."""

    def __init__(
        self, world: World, random: Random, up: bool, spoiled: Spoiled
    ) -> None:
        self.up = up
        self.end: End | None = None
        self.faults: list[Fault] = []
        self.held_ns = 0
        self._world = world
        self._random = random
        self._spoiled = spoiled
        self.slow_down(random.choice(LATENCIES_NS))
        self._last_ns = 0
        self._queue: deque[tuple[int, Item]] = deque()
        self._kept: bytes | None = None

    @property
    def latency_ns(self) -> int:
        """How long the next item is on its way."""
        return int(self._latency_ns * (1 + 2 * self._random.random()))

    def slow_down(self, latency_ns: int) -> None:
        """Take so long from now on, and up to three times as long."""
        self._latency_ns = latency_ns

    def send(self, item: Item) -> None:
        """Put an item on its way, or what the faults make of it."""
        if (self.faults or self._kept is not None) and item.kind == TEXT:
            for payload in self._spoil(item.payload):
                self._put(Item(TEXT, payload))
        else:
            self._put(item)

    def hold(self, until_ns: int = FOREVER_NS) -> None:
        """Let nothing arrive before *until_ns*; what is on its way waits too."""
        self.held_ns = max(self.held_ns, until_ns)
        self._last_ns = max(self._last_ns, until_ns)
        if until_ns >= FOREVER_NS:
            self._queue.clear()
        elif self._queue:
            self._queue = deque((max(at, until_ns), item) for at, item in self._queue)
            self._world.at(until_ns, self._arrive)

    def cut(self) -> None:
        """Lose what is on its way, and let the end know."""
        self._queue.clear()
        self._kept = None
        self._last_ns = 0
        self._put(END)

    def heal(self) -> None:
        """Forget the faults; what was kept back by one comes now."""
        self.faults.clear()
        if self._kept is not None:
            kept, self._kept = self._kept, None
            self._put(Item(TEXT, kept))

    def _put(self, item: Item) -> None:
        if self._last_ns >= FOREVER_NS:
            return
        at_ns = self._last_ns = max(self._world.now_ns + self.latency_ns, self._last_ns)
        self._queue.append((at_ns, item))
        self._world.at(at_ns, self._arrive)

    def _arrive(self) -> None:
        queue, now_ns = self._queue, self._world.now_ns
        items = []
        while queue and queue[0][0] <= now_ns:
            items.append(queue.popleft()[1])
        if items and self.end is not None:
            self.end.read(items)

    # ── what becomes of a message ─────────────────────────────────────────────────

    def _spoil(self, payload: bytes) -> list[bytes]:
        kept, self._kept = self._kept, None
        after = [] if kept is None else [kept]
        for fault in self.faults:
            if fault.meets(payload):
                if not fault.left:
                    self.faults.remove(fault)
                became = self._act(fault, payload)
                self._spoiled(self, fault, payload, became)
                return became + after
        return [payload, *after]

    def _act(self, fault: Fault, payload: bytes) -> list[bytes]:
        match fault.kind:
            case "drop":
                return []
            case "duplicate":
                return [payload, payload]
            case "swap":
                self._kept = payload
                return []
            case "late":
                self.hold(self._world.now_ns + self._random.randrange(5, 15) * SECOND)
                return [payload]
            case "cut":
                self._world.after(0, self.cut)
                return []
            case "truncate":
                return [payload[: self._random.randrange(len(payload))]]
            case "corrupt":
                return [flip(payload, self._random.randrange(len(payload)))]
            case "alter":
                return [alter(payload, self._random)]
        return [rewrite(payload, fault.kind)]


def flip(payload: bytes, where: int) -> bytes:
    """Flip the highest bit of a byte: the text is not UTF-8 any more."""
    return payload[:where] + bytes((payload[where] ^ 0x80,)) + payload[where + 1 :]


def alter(payload: bytes, random: Random) -> bytes:
    """Make one digit of a number another one, which nothing in the text can show."""
    digits = list(DIGIT.finditer(payload))
    if not digits:
        return payload
    where = random.choice(digits).start()
    digit = (payload[where] - 48 + random.randrange(1, 10)) % 10 + 48
    return payload[:where] + bytes((digit,)) + payload[where + 1 :]


def rewrite(payload: bytes, kind: str) -> bytes:
    """Say something else: to a login what another venue might (A-01), or nonsense."""
    good, bad = b'"status":"success"', b'"status":"error"'
    inner, outer = b'"data":{' + good + b"}", b"}," + good
    match kind:
        case "login_top":  # the status at the top level alone
            return payload.replace(inner, b'"data":{}')
        case "login_data":  # in the data alone
            return payload.replace(outer, b"}")
        case "login_both":  # one of each: fails closed
            return payload.replace(outer, b"}," + bad)
        case "leap":  # a sequence that is far ahead, and then goes on as before
            return SEQUENCE.sub(lambda found: b"%d" % (int(found[0]) + 1000), payload)
        case "back":  # one that was there long ago
            return SEQUENCE.sub(
                lambda found: b"%d" % max(1, int(found[0]) - 5), payload
            )
        case "misroute":  # what is of another market
            return SYMBOL.sub(b"OTHER", payload)
    raise ValueError(f"no message can be spoiled by {kind!r}")


class Link:
    """One connection: a pipe each way."""

    def __init__(self, number: int, endpoint: str, up: Pipe, down: Pipe) -> None:
        self.number = number
        self.endpoint = endpoint
        self.up = up
        self.down = down
        self.served: Any = None

    @property
    def pipes(self) -> tuple[Pipe, Pipe]:
        """To the venue, and to the client."""
        return self.up, self.down

    def cut(self) -> None:
        """End it with a RST to both ends: what is on its way is lost."""
        self.up.cut()
        self.down.cut()

    def finish(self) -> None:
        """End it with a FIN to both ends, after what is on its way."""
        self.up.send(END)
        self.down.send(END)


class Venue(Protocol):
    """Who answers at the other end."""

    listening: bool

    def accept(self, link: Link) -> None:
        """Begin to serve a connection."""


class Network:
    """All connections, those to come, and what is wrong with the way to the venue."""

    def __init__(self, world: World, spoiled: Spoiled) -> None:
        self.venue: Venue | None = None
        self.refuses = False
        self.swallows = False
        self.flaps = False
        self.attempts = 0
        self._world = world
        self._random = world.random("network")
        self._spoiled = spoiled
        self._armed: dict[str, list[tuple[bool, Fault]]] = {}

    def arm(self, endpoint: str, up: bool, fault: Fault) -> None:
        """Have a fault meet the next connection to an endpoint."""
        self._armed.setdefault(endpoint, []).append((up, fault))

    def heal(self) -> None:
        """Have nothing wrong with the connections to come."""
        self.refuses = self.swallows = self.flaps = False
        self._armed.clear()

    def connect(self, endpoint: str, client: End) -> Link:
        """Begin a connection; the client reads that it is open, or its end."""
        self.attempts += 1
        up, down = (
            Pipe(self._world, self._random, up, self._spoiled) for up in (True, False)
        )
        link = Link(self.attempts, endpoint, up, down)
        down.end = client
        for is_up, fault in self._armed.pop(endpoint, ()):
            (up if is_up else down).faults.append(fault)
        if not self.swallows:
            self._world.after(up.latency_ns + down.latency_ns, self._answer, link)
        return link

    def _answer(self, link: Link) -> None:
        """Take the handshake of TCP, then that of WebSocket."""
        if self.refuses or self.venue is None or not self.venue.listening:
            link.down.send(END)
        else:
            self._world.after(link.up.latency_ns, self._upgrade, link)

    def _upgrade(self, link: Link) -> None:
        if self.venue is None or not self.venue.listening:
            link.down.send(END)
            return
        link.down.send(Item(UPGRADED))
        self.venue.accept(link)
        if self.flaps:
            self._world.after(self._random.randrange(500 * MS), link.cut)

"""A recorded market instead of the engine's: its lines, unchanged, in their own time.

The replay starts with the first subscriber. It keeps a plain book of every orderbook
channel, so that whoever subscribes later, or again, gets a snapshot at the sequence
that was sent last and then the rest of the file.
"""

from collections.abc import Iterator, Sequence

import msgspec

from feedhandler.protocol.channels import PRIVATE_KINDS, Channel
from feedhandler.protocol.messages import Level, Orderbook, OrderbookData
from feedhandler.venue.config import ReplayConfig
from feedhandler.venue.market import Push
from feedhandler.venue.notices import Notices
from feedhandler.venue.recording import (
    BOOK_TYPES,
    SNAPSHOT,
    Contents,
    Line,
    Recording,
    decode_book,
)

__all__ = ["RecordedBook", "Replay"]

# Lines at most for one advance(), so that heartbeats and requests get their turn.
BATCH = 512
NS_PER_MS = 1_000_000
# A book is brought up to date when it is asked for, or when this much has piled up.
PENDING_BYTES = 1 << 20


encode = msgspec.json.Encoder().encode


class RecordedBook:
    """The book of one channel, as those who listened from the start have it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.known = False
        self.sequence = 0
        self.timestamp = 0
        self._symbol = ""
        self._bids: dict[float, float] = {}
        self._asks: dict[float, float] = {}
        self._pending: list[bytes] = []
        self._pending_bytes = 0

    def take(self, line: bytes, snapshot: bool) -> None:
        """Note a message that is being sent; it is read when somebody asks."""
        if snapshot:
            self.known = True
            self._pending.clear()
            self._pending_bytes = 0
        self._pending.append(line)
        self._pending_bytes += len(line)
        if self._pending_bytes > PENDING_BYTES:
            self._settle()

    def snapshot(self) -> bytes:
        """Encode the book as a snapshot, best levels first, none cut."""
        self._settle()
        bids: list[Level] = sorted(self._bids.items(), reverse=True)
        asks: list[Level] = sorted(self._asks.items())
        data = OrderbookData(self._symbol, bids, asks, self.sequence)
        return encode(Orderbook(data, self.name, self.timestamp))

    def _settle(self) -> None:
        for line in self._pending:
            message = decode_book(line)
            if message.type == SNAPSHOT:
                self._bids.clear()
                self._asks.clear()
            apply(self._bids, message.data.bids)
            apply(self._asks, message.data.asks)
            self._symbol = message.data.symbol
            self.sequence = message.data.sequence
            self.timestamp = message.timestamp
        self._pending.clear()
        self._pending_bytes = 0


def apply(side: dict[float, float], levels: list[Level]) -> None:
    """Set the quantities of one side; 0 removes, also what is not there."""
    for price, quantity in levels:
        if quantity:
            side[price] = quantity
        else:
            side.pop(price, None)


class Replay:
    """The Market of a recording."""

    def __init__(self, config: ReplayConfig, contents: Contents | None = None) -> None:
        """Open a recording; without *contents* it is first read through."""
        self._recording = Recording(config.path)
        self._contents = contents or self._recording.scan()
        self._speed = config.speed
        self._loop = config.loop
        self._books: dict[str, RecordedBook] = {}
        for symbol, channels in self._contents.symbols.items():
            for channel in channels:
                if channel.kind == "orderbook":
                    name = f"orderbook:{symbol}:{channel.depth}"
                    self._books[name] = RecordedBook(name)
        self._opened: set[str] = set()
        self._lines: Iterator[tuple[int, bytes, Line]] | None = None
        self._next: tuple[int, bytes, Line] | None = None
        self._start_ns = 0
        self._first_ns = 0
        self.finished = False
        self.sent = 0
        self.desk = None
        self.notices = Notices("recording", 0)

    @property
    def patient(self) -> bool:
        """Whether it waits for slow subscribers: flat out it must."""
        return self._speed == "max"

    @property
    def symbols(self) -> list[str]:
        """The recorded symbols."""
        return sorted(self._contents.symbols)

    def refusal(self, channel: Channel, others: Sequence[Channel] = ()) -> str | None:
        """Say why a channel cannot be had; one that can may stay silent."""
        if channel.symbol not in self._contents.symbols:
            return f"symbol {channel.symbol!r} is not in the recording"
        if channel.kind != "orderbook":
            return None
        depths = self._contents.depths(channel.symbol)
        if channel.depth in depths:
            return None
        if not depths:
            return f"no book of {channel.symbol} is in the recording"
        recorded = " and ".join(str(depth) for depth in depths)
        return f"depth {channel.depth} is not recorded, depth {recorded} is"

    def open(self, name: str, now_ns: int) -> list[bytes]:
        """Start with the first subscriber; give a later one the book as it stands."""
        kind = name.partition("/")[0]
        if kind in PRIVATE_KINDS:
            return self.notices.opening(kind, now_ns // NS_PER_MS)
        self._opened.add(name)
        if self._lines is None:
            self._rewind(now_ns)
        book = self._books.get(name)
        if book is None or not book.known:
            return []
        return [book.snapshot()]

    def release(self, name: str) -> None:
        """Note that nobody listens; flat out, the replay waits for somebody."""
        self._opened.discard(name)

    def take(self) -> list[Push]:
        """Return nothing: nobody can do anything to a recording."""
        return []

    def advance(self, now_ns: int) -> list[Push]:
        """Return the lines due by *now_ns*, at most a batch of them."""
        pushes: list[Push] = []
        if self._speed == "max" and not self._opened:
            return pushes
        for _ in range(BATCH):
            if self._next is None or self._due_ns() > now_ns:
                break
            _, line, kind = self._next
            snapshot = kind.type == SNAPSHOT
            if kind.type in BOOK_TYPES:
                self._books[kind.channel].take(line, snapshot)
            pushes.append(Push(kind.channel, line, snapshot))
            self._step(now_ns)
        self.sent += len(pushes)
        return pushes

    def due_ns(self) -> int | None:
        """Return when the next line is due; None before the start and after the end."""
        if self._next is None or (self._speed == "max" and not self._opened):
            return None
        return self._due_ns()

    def _due_ns(self) -> int:
        if self._next is None or self._speed == "max":
            return 0
        return self._start_ns + int((self._next[0] - self._first_ns) / self._speed)

    def _rewind(self, now_ns: int) -> None:
        self._lines = self._recording.read()
        self._next = next(self._lines)
        self._start_ns, self._first_ns = now_ns, self._next[0]

    def _step(self, now_ns: int) -> None:
        if self._lines is None:
            return
        self._next = next(self._lines, None)
        if self._next is not None:
            return
        if self._loop:
            self._rewind(now_ns)
        else:
            self.finished = True

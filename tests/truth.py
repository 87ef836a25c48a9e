"""What a venue had, from its journal: a book for each sequence, and the trades.

Dicts and sorting, from the frames as they were sent; nothing of the product is
imported, so that nothing here can be wrong in the same way.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from decimal import Decimal
from struct import pack
from typing import Any, NamedTuple
from zlib import crc32

from tests.recordings import crc10

LEVELS = 10
MOST_DECIMALS = 8

Level = tuple[float, float]
Sides = tuple[dict[float, float], dict[float, float]]


class Book(NamedTuple):
    """The best ten levels of a book, best first, and their sum as in an audit log."""

    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    crc: int

    @property
    def is_crossed(self) -> bool:
        """Whether nobody could have such a book: crossed, or locked."""
        return bool(self.bids and self.asks) and self.bids[0][0] >= self.asks[0][0]


class ToldTrade(NamedTuple):
    """A trade as the venue told it."""

    trade_id: str
    price: float
    size: float

    @property
    def key(self) -> bytes:
        """The id's first 16 bytes, up to a NUL."""
        return self.trade_id.encode()[:16].partition(b"\0")[0]

    @property
    def facts(self) -> tuple[bytes, float, float]:
        return self.key, self.price, self.size


class Frame(NamedTuple):
    """A message of an order book, from line *line* of the journal."""

    line: int
    is_snapshot: bool
    sequence: int
    bids: list[Level]
    asks: list[Level]


class Telling:
    """What one connection was told on one channel, from subscribing to its end."""

    def __init__(self, line: int) -> None:
        self.first = self.last = line
        self.frames: list[Frame] = []
        self.trades: list[ToldTrade] = []


class Period:
    """A time in which somebody was always subscribed: each sequence is one book.

    Between two of them a book may change without a sequence, and the venue may begin
    anew. *lies* are snapshots that contradict the updates, as sequence and sum.
    """

    def __init__(self, frames: list[Frame], depth: int, spoiled: bool) -> None:
        self.books: dict[int, Book] = {}
        self.lies: set[tuple[int, int]] = set()
        self.wrong: list[str] = []
        self.start_line = min(frame.line for frame in frames)
        self.first = min(frame.sequence for frame in frames)
        self.last = max(frame.sequence for frame in frames)
        self._updates: dict[int, Frame] = {}
        self._snapshots: defaultdict[int, list[Sides]] = defaultdict(list)
        for frame in frames:
            self._sort(frame, depth)
        self._walk(depth, spoiled)

    def _sort(self, frame: Frame, depth: int) -> None:
        number = frame.sequence
        if frame.is_snapshot:
            sides = changed(({}, {}), frame, depth)
            if sides not in self._snapshots[number]:
                self._snapshots[number].append(sides)
            return
        known = self._updates.setdefault(number, frame)
        if (known.bids, known.asks) != (frame.bids, frame.asks):
            self.wrong.append(f"two updates have sequence {number}")

    def _walk(self, depth: int, spoiled: bool) -> None:
        """Go through the sequences, each book made of the one before or a snapshot."""
        held: Sides | None = None
        before = -1
        for number in sorted({*self._updates, *self._snapshots}):
            update = self._updates.get(number)
            if held is not None and update is not None and number == before + 1:
                held = changed(held, update, depth)
            else:
                held = None
            for sides in self._snapshots.get(number, ()):
                told = book_of(sides)
                if held is None and not (spoiled and told.is_crossed):
                    held = sides
                elif sides != held:
                    self.lies.add((number, told.crc))
                    self.wrong.append(f"a snapshot at {number} is not the book")
            before = number
            if held is not None:
                self.books[number] = book_of(held)


class Truth:
    """All that a journal tells; *wrong* is what the venue contradicts itself in.

    *spoiled*: snapshots were spoiled on purpose. One that is crossed is not believed.
    """

    def __init__(self, journal: Iterable[str], spoiled: bool = False) -> None:
        self.books: dict[str, list[Period]] = {}
        self.trades: dict[str, list[list[ToldTrade]]] = {}
        self.wrong: list[tuple[str, str]] = []
        self._open: dict[tuple[int, str], Telling] = {}
        self._tellings: defaultdict[str, list[Telling]] = defaultdict(list)
        self._sums: defaultdict[str, list[tuple[int, int, int]]] = defaultdict(list)
        for number, text in enumerate(journal, 1):
            self._read(number, text)
        for channel, tellings in self._tellings.items():
            if channel.startswith("orderbook:"):
                self._rebuild(channel, tellings, spoiled)
            else:
                self.trades[channel] = [telling.trades for telling in tellings]

    def _read(self, number: int, text: str) -> None:
        try:
            line = json.loads(text)
        except ValueError:
            # The venue was killed, or its disk is full.
            if text.endswith("\n"):
                self.wrong.append(("journal", f"line {number} is not JSON"))
            return
        kind = line["k"]
        if kind == "out":
            self._hear(number, line["c"], line["m"])
        elif kind == "in" and "m" in line:
            self._obey(number, line["c"], json.loads(line["m"]))
        elif kind in ("open", "close"):
            for key in [key for key in self._open if key[0] == line["c"]]:
                del self._open[key]
        elif kind == "book":
            self._sums[line["channel"]].append((number, line["sequence"], line["crc"]))

    def _obey(self, number: int, connection: int, request: dict[str, Any]) -> None:
        for channel in names_in(request):
            key = connection, channel
            if request["action"] == "unsubscribe":
                self._open.pop(key, None)
            elif request["action"] == "subscribe" and channel.startswith("trades:"):
                # Of a quiet market, nothing is told.
                self._telling(number, key)

    def _telling(self, number: int, key: tuple[int, str]) -> Telling:
        if key not in self._open:
            self._open[key] = Telling(number)
            self._tellings[key[1]].append(self._open[key])
        return self._open[key]

    def _hear(self, number: int, connection: int, message: dict[str, Any]) -> None:
        kind, channel = message["type"], message.get("channel")
        if kind not in ("orderbook", "orderbook_update", "trade") or channel is None:
            return
        telling = self._telling(number, (connection, channel))
        telling.last = number
        data = message["data"]
        if kind == "trade":
            telling.trades.append(
                ToldTrade(data["trade_id"], float(data["price"]), float(data["size"]))
            )
            return
        sides = [[(float(p), float(s)) for p, s in data[key]] for key in SIDES]
        telling.frames.append(
            Frame(number, kind == "orderbook", data["sequence"], *sides)
        )

    def _rebuild(self, channel: str, tellings: list[Telling], spoiled: bool) -> None:
        depth = int(channel.rsplit(":", 1)[1])
        periods = [Period(frames, depth, spoiled) for frames in together(tellings)]
        self.books[channel] = periods
        for period in periods:
            if not spoiled:
                self.wrong += [(channel, what) for what in period.wrong]
        self._compare_sums(channel, periods)

    def _compare_sums(self, channel: str, periods: list[Period]) -> None:
        """Compare with the sums of the venue's own books, whose ticks are unknown."""
        known = []
        starts = [*(period.start_line for period in periods), float("inf")]
        for line, number, crc in self._sums[channel]:
            # The sum is noted before the update is sent; a first book is a snapshot.
            place = sum(start <= line for start in starts) - 1
            book = periods[place].books.get(number) if place >= 0 else None
            if book is not None and number > periods[place].first:
                known.append((number, book, crc))
        prices = (p for _, book, _ in known for p, _ in book.bids + book.asks)
        least = max(map(decimals, prices), default=0)
        wrong = min(
            (
                [n for n, book, crc in known if text_crc(book, places) != crc]
                for places in attempts(known, least)
            ),
            key=len,
        )
        if wrong:
            more = f", and {len(wrong) - 1} more" if wrong[1:] else ""
            what = f"the book told at {wrong[0]} has another sum than the venue's own"
            self.wrong.append((channel, what + more))


SIDES = ("bids", "asks")


def names_in(request: dict[str, Any]) -> list[str]:
    data = request.get("data")
    names = data.get("channels") if isinstance(data, dict) else None
    return [n for n in names if isinstance(n, str)] if isinstance(names, list) else []


def together(tellings: list[Telling]) -> Iterator[list[Frame]]:
    """Put together what was told while some other telling went on."""
    frames: list[Frame] = []
    end = 0
    for telling in sorted(tellings, key=lambda telling: telling.first):
        if frames and telling.first > end:
            yield frames
            frames = []
        frames += telling.frames
        end = max(end, telling.last)
    if frames:
        yield frames


def changed(sides: Sides, frame: Frame, depth: int) -> Sides:
    """Return the book after a message: absolute quantities, 0 removes, depth levels."""
    bids, asks = dict(sides[0]), dict(sides[1])
    for side, levels, best_is_high in (
        (bids, frame.bids, True),
        (asks, frame.asks, False),
    ):
        for price, size in levels:
            if size:
                side[price] = size
            else:
                side.pop(price, None)
        for price in sorted(side, reverse=best_is_high)[depth:]:
            del side[price]
    return bids, asks


def book_of(sides: Sides) -> Book:
    bids = tuple(sorted(sides[0].items(), reverse=True)[:LEVELS])
    asks = tuple(sorted(sides[1].items())[:LEVELS])
    return Book(bids, asks, audit_crc(bids, asks))


def audit_crc(bids: tuple[Level, ...], asks: tuple[Level, ...]) -> int:
    """Return the sum of best levels as the audit log's documentation has it."""
    parts = [bytes((len(bids), len(asks)))]
    for rank in range(LEVELS):
        for side in (bids, asks):
            parts += [pack("<dd", *level) for level in side[rank : rank + 1]]
    return crc32(b"".join(parts))


def decimals(price: float) -> int:
    exponent = Decimal(repr(price)).normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def attempts(known: list[tuple[int, Book, int]], least: int) -> list[int]:
    """Return the decimals to try: the first that fits one book, or all."""
    places = range(least, MOST_DECIMALS + 1)
    for candidate in places:
        if any(text_crc(book, candidate) == crc for _, book, crc in known[:3]):
            return [candidate]
    return list(places)


def text_crc(book: Book, places: int) -> int:
    return crc10(list(book.bids), list(book.asks), f"{0:.{places}f}")

"""Decide from logs whether a feed told the truth: I-01 to I-04, I-06 and I-07.

``python -m tests.checker --journal venue.ndjson --audit audit.log`` exits with 1 where
it did not, with 2 where nothing was LIVE. It reads what the venue sent, what the feed
noted of what it published (``audit_log``), and what a consumer read; it imports nothing
of the product.

What is decided of each instrument's books, line by line of each life of a feed:

* I-01: a line that is not STALE has the sum of the venue's book at its sequence
* I-02: no line and no record is LIVE where the book is crossed or locked
* I-03: an epoch is trusted from its SNAPSHOT on and sequence by sequence; after a GAP
  only when something was applied; a lost update makes the book STALE until the next
  epoch begins
* I-04: (epoch, sequence) grows: the epoch with each SNAPSHOT, the sequence within an
  epoch by one. Lines that repeat a pair differ in flags alone, and are no SNAPSHOT: the
  trust or the market's state is another, the book is not
* I-06: what a consumer read, and was told that he lost, is all that was published
* I-07: the trades of an epoch are those that a connection was told, from the first on
"""

import argparse
import json
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Literal, NamedTuple

from tests.audit_log import (
    CROSSED,
    GAP,
    ID_CUT,
    LIVE,
    NO_ASK,
    NO_BID,
    SNAPSHOT,
    STALE,
    Life,
    Line,
    Log,
    TradeLine,
    read_audit,
)
from tests.truth import Book, Period, ToldTrade, Truth


class Violation(NamedTuple):
    """One thing that must not be; *invariant* may also be "log" or "venue"."""

    invariant: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.invariant} {self.where}: {self.what}"


class Loss(NamedTuple):
    """An update that the feed was not given; *late*: not when it was its turn.

    Trades have no sequence: with a loss in their channel, any may be missing.
    """

    channel: str
    sequence: int = 0
    late: bool = False


class Read(NamedTuple):
    """What a consumer read of a ring, and how many records he was told that he lost.

    *start* is the reader's position before; None for that of the first record.
    """

    stream: Literal["quotes", "trades"]
    records: Any
    lost: int = 0
    start: int | None = None


class Report(NamedTuple):
    """What was found, and how much was looked at: nothing is no proof."""

    violations: list[Violation]
    counts: Counter[str]


def check(journal: Iterable[str], audit: Iterable[str], **more: Any) -> list[Violation]:
    """Return what is wrong; see examine()."""
    return examine(journal, audit, **more).violations


def examine(
    journal: Iterable[str],
    audit: Iterable[str],
    *,
    reads: Sequence[Read] = (),
    losses: Iterable[Sequence[Any]] = (),
    events: Iterable[tuple[str, str, dict[str, Any]]] = (),
    quiescent: bool = False,
    spoiled: bool = False,
) -> Report:
    """Judge the lines, with their ends, of a venue's journal and of a feed's audit log.

    *losses* are Loss, or what makes one, in the order in which they happened; *events*
    are those of the feed; *reads* are of the log's last life. *quiescent*: at the end
    the feed had all that the venue sent, and consumers all that it published.
    *spoiled*: the venue was made to send false snapshots, which are not believed, and
    what is made of them is not judged.
    """
    lost = [Loss(*loss) for loss in losses]
    examination = Examination(Truth(journal, spoiled), read_audit(audit))
    examination.books(lost)
    examination.events(events)
    examination.trades({loss.channel for loss in lost}, quiescent)
    if quiescent:
        examination.rest()
    for read in reads:
        examination.read(read, quiescent)
    return Report(examination.found, examination.counts)


class Epoch:
    """The lines of one epoch of a book; *start* is the sequence of its snapshot."""

    def __init__(self, number: int, lines: list[Line]) -> None:
        self.number = number
        self.lines = lines
        self.trusted = [line for line in lines if line.is_trusted]
        self.start = next((n.sequence for n in lines if n.says(SNAPSHOT)), None)


class Examination:
    """What is found in a log, as one thing after the other is looked at."""

    def __init__(self, truth: Truth, log: Log) -> None:
        self.counts: Counter[str] = Counter()
        self.truth = truth
        self.lives = log.lives
        self.found = [Violation("venue", *wrong) for wrong in truth.wrong]
        self._noted: defaultdict[str, list[Line]] = defaultdict(list)
        self._known: dict[int, Book] = {}
        self._places: Counter[str] = Counter()
        self.say("log", "audit", None, *log.wrong)

    def say(self, invariant: str, channel: str, line: Any, *what: str) -> None:
        """Note the first of what is wrong, and how much more there is."""
        if what:
            where = f"{channel} line {line.number}" if line else channel
            more = f", and {len(what) - 1} more like it" if what[1:] else ""
            self.found.append(Violation(invariant, where, what[0] + more))

    # ── books ─────────────────────────────────────────────────────────────────────

    def books(self, losses: list[Loss]) -> None:
        for life in self.lives:
            for instrument, lines in life.books.items():
                channel = life.channel(instrument, "orderbook")
                if not channel:
                    what = f"instrument {instrument} has no order book"
                    self.say("log", "books", lines[0], what)
                    continue
                self.counts["lines"] += len(lines)
                self._noted[channel] += lines
                self._order(channel, lines)
                epochs = [
                    Epoch(number, list(group))
                    for number, group in groupby(lines, lambda line: line.epoch)
                ]
                for epoch in epochs:
                    self._compare(channel, epoch)
                mine = [loss for loss in losses if loss.channel == channel]
                self._losses(channel, epochs, mine)

    def _order(self, channel: str, lines: list[Line]) -> None:
        """Decide I-03 and I-04 as far as the lines can by themselves."""
        begun = doubted = last = None
        for line in lines:
            if line.says(SNAPSHOT):
                begun = line.epoch
            if last is not None:
                self._step(channel, last, line)
                if line.pair == last.pair and line.says(GAP):
                    doubted = line.pair
            for invariant, what in contradictions(line):
                self.say(invariant, channel, line, what)
            if line.is_trusted and line.epoch != begun:
                what = f"LIVE in epoch {line.epoch}, which no snapshot has begun"
                self.say("I-03", channel, line, what)
            elif line.is_trusted and line.pair == doubted:
                what = f"LIVE again at {line.sequence} with nothing applied since a GAP"
                self.say("I-03", channel, line, what)
            last = line

    def _step(self, channel: str, last: Line, line: Line) -> None:
        if line.epoch > last.epoch:
            return
        if line.pair < last.pair:
            self.say("I-04", channel, line, f"{line.pair} follows {last.pair}")
        elif line.says(SNAPSHOT):
            self.say("I-04", channel, line, f"a snapshot within epoch {line.epoch}")
        elif line.pair == last.pair and line.crc != last.crc:
            self.say("I-04", channel, line, f"two books are {line.pair}")
        elif line.sequence > last.sequence + 1:
            what = f"{last.sequence} is followed by {line.sequence} in one epoch"
            self.say("I-03" if line.is_trusted else "I-04", channel, line, what)

    def _compare(self, channel: str, epoch: Epoch) -> None:
        """Decide I-01 and I-02 for the lines of one epoch."""
        periods = self.truth.books.get(channel, [])[self._places[channel] :]
        first = epoch.lines[0]
        if any((first.sequence, first.crc) in period.lies for period in periods):
            self.counts["epochs of false snapshots"] += 1
            return
        if not epoch.trusted:
            return
        place = best_of(periods, epoch.trusted)
        self._places[channel] += place
        books = periods[place].books if periods else {}
        wrong = []
        for line in epoch.trusted:
            book = books.get(line.sequence)
            what = judged(line, book)
            self.counts["trusted lines"] += 1
            self.counts["live lines"] += line.says(LIVE)
            if what is not None or book is None:
                wrong.append((line, what or ""))
                continue
            self._known[line.number] = book
            if line.says(LIVE) and book.is_crossed:
                what = f"LIVE at {line.sequence}, where the venue's book is crossed"
                self.say("I-02", channel, line, what)
        if wrong:
            self.say("I-01", channel, wrong[0][0], *(what for _, what in wrong))

    def rest(self) -> None:
        """Decide the end of I-01: the last LIVE book is the venue's last."""
        life = self.lives[-1] if self.lives else Life()
        for instrument in list(life.names):
            channel = life.channel(instrument, "orderbook")
            if not channel:
                continue
            live = [line for line in life.books[instrument] if line.says(LIVE)]
            periods = self.truth.books.get(channel)
            if not live or not periods:
                self.say("I-01", channel, None, "at the end there is no LIVE book")
                continue
            last, end = live[-1], periods[-1].last
            book = periods[-1].books.get(end)
            if last.sequence != end or book is None or last.crc != book.crc:
                what = f"the last LIVE book is {last.sequence}, the venue's is {end}"
                self.say("I-01", channel, last, what)

    def _losses(self, channel: str, epochs: list[Epoch], losses: list[Loss]) -> None:
        """Decide I-03 for updates that are known to be lost, each in its epoch."""
        known = {loss.sequence for loss in losses}
        begun = [epoch for epoch in epochs if epoch.start is not None]
        place = 0
        for loss in losses:
            for at in range(place, len(begun)):
                following = begun[at + 1].start if at + 1 < len(begun) else None
                if is_within(loss.sequence, begun[at].start, following):
                    place = at
                    self.counts["losses"] += 1
                    # Nothing that came told of it before there was a snapshot again.
                    unseen = following is not None and known.issuperset(
                        range(loss.sequence, following + 1)
                    )
                    self._loss(channel, begun[at], loss, unseen)
                    break

    def _loss(self, channel: str, epoch: Epoch, loss: Loss, unseen: bool) -> None:
        lost, last = loss.sequence, epoch.lines[-1]
        if any(line.sequence == lost for line in epoch.lines):
            if not loss.late:
                what = f"update {lost} was lost, and was applied"
                self.say("I-03", channel, last, what)
        elif last.is_trusted and not unseen:
            what = f"update {lost} was lost, and epoch {epoch.number} ends LIVE"
            self.say("I-03", channel, last, what)

    def events(self, events: Iterable[tuple[str, str, dict[str, Any]]]) -> None:
        """Decide whether lines show what the feed told its host; after books()."""
        for kind, _, detail in events:
            if kind not in SHOWN or "channel" not in detail:
                continue
            self.counts["events"] += 1
            channel = detail["channel"]
            if not any(SHOWN[kind](line, detail) for line in self._noted[channel]):
                self.say("I-03", channel, None, f"no line shows {kind} {detail}")

    # ── trades ────────────────────────────────────────────────────────────────────

    def trades(self, lossy: set[str], quiescent: bool) -> None:
        """Decide I-07; of *lossy* channels, only what is there."""
        for life in self.lives:
            for instrument in {*life.names, *(line.instrument for line in life.trades)}:
                lines = [line for line in life.trades if line.instrument == instrument]
                channel = life.channel(instrument, "trades")
                if lines and not channel:
                    what = f"instrument {instrument} has no trades"
                    self.say("log", "trades", lines[0], what)
                elif channel:
                    ends = quiescent and life is self.lives[-1]
                    self._trades(channel, lines, ends, channel in lossy)

    def _trades(
        self, channel: str, lines: list[TradeLine], ends: bool, lossy: bool
    ) -> None:
        tellings = self.truth.trades.get(channel, [])
        epochs = [list(group) for _, group in groupby(lines, lambda n: n.flags >> 8)]
        self.counts["trades"] += len(lines)
        for group in epochs or [[]]:
            last = ends and group is (epochs or [group])[-1]
            differences = [
                compared(group, told, last and all(tellings[place:]), lossy)
                for place, told in enumerate(tellings, 1)
            ]
            none = ["the venue told of no trade"] if group else []
            wrong = min(differences, key=len, default=none)
            self.say("I-07", channel, group[0] if group else None, *wrong)

    # ── consumers ─────────────────────────────────────────────────────────────────

    def read(self, read: Read, quiescent: bool) -> None:
        """Decide I-06, and I-02 for what was read; after books()."""
        life = self.lives[-1] if self.lives else Life()
        noted: Sequence[Any] = life.quotes if read.stream == "quotes" else life.trades
        places = [int(place) for place in read.records["seq"]]
        start = read.start
        if start is None:
            start = places[0] - 1 if places else 0
        end = places[-1] if places else start
        back = [
            f"record {after} is read after record {before}"
            for before, after in zip([start, *places], places, strict=False)
            if after <= before
        ]
        self.say("I-06", read.stream, None, *back)
        if len(places) + read.lost != end - start:
            what = f"{len(places)} read and {read.lost} lost of {end - start} records"
            self.say("I-06", read.stream, None, what)
        if quiescent and life.is_whole and end != len(noted):
            what = f"read to record {end}, and {len(noted)} were published"
            self.say("I-06", read.stream, None, what)
        wrong: list[str] = []
        for record in dicts(read.records):
            self.counts["records"] += 1
            if record["seq"] <= len(noted):
                wrong += self._record(record, noted[record["seq"] - 1])
            elif life.is_whole:
                wrong.append(f"record {record['seq']} was never published")
        self.say("I-06", read.stream, None, *wrong)

    def _record(self, record: dict[str, Any], line: Any) -> Iterator[str]:
        """Compare a record with its line, and a quote with the book if it is known."""
        expected = {
            "recv_ns": line.recv_ns,
            "instrument": line.instrument,
            "flags": line.flags,
        }
        if isinstance(line, TradeLine):
            record["trade_id"] = record["trade_id"].partition(b"\0")[0]
            expected |= {"price": line.price, "size": line.size, "trade_id": line.key}
        else:
            expected["sequence"] = line.sequence & 0xFFFFFFFF
            expected |= top_of(self._known.get(line.number))
            if record["flags"] & LIVE and record["bid_price"] >= record["ask_price"]:
                what = f"record {record['seq']} is LIVE, and crossed or locked"
                self.say("I-02", "quotes", line, what)
        for name, value in expected.items():
            if not equal(record[name], value):
                found = f"record {record['seq']} has {name} {record[name]!r}"
                yield f"{found}, not {value!r}"


# ── decisions ─────────────────────────────────────────────────────────────────────────


def contradictions(line: Line) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the flags of a line alone."""
    if line.says(LIVE) and line.says(STALE):
        yield "I-03", "LIVE and STALE"
    if not (line.says(LIVE) or line.says(STALE) or line.says(CROSSED)):
        yield "I-03", "neither LIVE nor STALE nor CROSSED"
    if line.says(GAP) and not line.says(STALE):
        yield "I-03", "GAP and not STALE"
    if line.says(LIVE) and line.says(CROSSED):
        yield "I-02", "LIVE and CROSSED"
    if line.flags >> 8 != line.epoch & 0xFF:
        yield "I-04", f"epoch {line.epoch}, and the flags have {line.flags >> 8}"


def best_of(periods: list[Period], lines: list[Line]) -> int:
    """Return the place of the first period that all lines are of, or else the most."""
    best, most = 0, 0
    for place, period in enumerate(periods):
        good = sum(judged(n, period.books.get(n.sequence)) is None for n in lines)
        if good > most:
            best, most = place, good
        if good == len(lines):
            break
    return best


def judged(line: Line, book: Book | None) -> str | None:
    """Return what is wrong with a line that claims to be a book; None for nothing."""
    if book is None:
        return f"the venue told of no book at {line.sequence}"
    if line.crc != book.crc:
        return f"the book at {line.sequence} has sum {line.crc}, the venue's {book.crc}"
    if (line.says(NO_BID), line.says(NO_ASK)) != (not book.bids, not book.asks):
        return f"the flags at {line.sequence} are wrong about an empty side"
    if line.says(CROSSED) and not book.is_crossed:
        return f"CROSSED at {line.sequence}, where the venue's book is not"
    return None


def is_within(lost: int, start: int | None, following: int | None) -> bool:
    """Tell whether a loss is of the epoch of one snapshot, before the next one."""
    return (start is not None and start < lost) and (
        following is None or lost <= following
    )


# What line shows an event: a gap may be found in a book that is STALE already.
SHOWN = {
    "gap": lambda line, d: line.says(STALE) and line.sequence == d["expected"] - 1,
    "stale": lambda line, d: line.says(STALE) and line.sequence == d["sequence"],
    "live": lambda line, d: (
        line.says(LIVE) and line.pair == (d["epoch"], d["sequence"])
    ),
}


def compared(
    lines: list[TradeLine], told: list[ToldTrade], whole: bool, lossy: bool
) -> list[str]:
    """Return how an epoch's trades differ from the first that a connection was told.

    From all of them, where they are to be *whole*; *lossy*: some may be missing.
    """
    expected = [trade.facts for trade in told]
    if not whole:
        expected = expected[: len(lines)]
    if [line.facts for line in lines] == expected:
        return []
    wrong = []
    places = {trade.key: place for place, trade in enumerate(told)}
    seen: set[bytes] = set()
    latest = -1
    for line in lines:
        place = places.get(line.key)
        if place is None:
            wrong.append(f"trade {line.key!r} is not the venue's")
            continue
        if line.key in seen and not line.flags & ID_CUT:
            wrong.append(f"trade {line.key!r} is published twice in an epoch")
        elif place < latest:
            wrong.append(f"trade {line.key!r} is published out of order")
        elif line.facts != told[place].facts:
            wrong.append(f"trade {line.key!r} has another price or size")
        seen.add(line.key)
        latest = max(latest, place)
    due = told if whole else told[: latest + 1]
    if lossy:
        return wrong
    missing = [trade.key for trade in due if trade.key not in seen]
    wrong += [f"trade {key!r} is not published" for key in missing]
    # Ids that were cut may be the same.
    return wrong or ["the trades are not those that a connection was told"]


def top_of(book: Book | None) -> dict[str, float]:
    """Return what a quote of a book has; nothing if the book is not known."""
    if book is None:
        return {}
    found = {}
    for name, side in (("bid", book.bids), ("ask", book.asks)):
        found[f"{name}_price"], found[f"{name}_size"] = (*side, (math.nan, 0.0))[0]
    return found


def equal(a: Any, b: Any) -> bool:
    return bool(a == b or (a != a and b != b))


def dicts(records: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of a structured array."""
    names = records.dtype.names
    for row in records.tolist():
        yield dict(zip(names, row, strict=True))


# ── as a program ──────────────────────────────────────────────────────────────────────


def main(arguments: list[str] | None = None) -> int:
    """Print what is wrong and how much was looked at; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.checker")
    parser.add_argument("--journal", required=True, help="of the venue: its --log")
    parser.add_argument("--audit", required=True, help="the feed's audit_log")
    for stream in ("quotes", "trades"):
        parser.add_argument(f"--{stream}", help="what was read, by numpy.save()")
        parser.add_argument(f"--{stream}-lost", type=int, default=0)
    parser.add_argument("--losses", help="JSON: a list of [channel, sequence]")
    parser.add_argument("--quiescent", action="store_true", help="the end was quiet")
    parser.add_argument("--spoiled", action="store_true", help="so were snapshots")
    options = parser.parse_args(arguments)
    more: dict[str, Any] = {
        "quiescent": options.quiescent,
        "spoiled": options.spoiled,
        "reads": [*reads(options)],
    }
    if options.losses:
        with open(options.losses) as file:
            more["losses"] = json.load(file)
    with open(options.journal) as journal, open(options.audit) as audit:
        violations, counts = examine(journal, audit, **more)
    for violation in violations:
        print(violation)
    words = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    print(f"{len(violations)} violations in {words or 'nothing'}")
    if violations:
        return 1
    return 0 if counts["live lines"] else 2


def reads(options: argparse.Namespace) -> Iterator[Read]:
    import numpy as np

    if options.quotes:
        yield Read("quotes", np.load(options.quotes), options.quotes_lost)
    if options.trades:
        yield Read("trades", np.load(options.trades), options.trades_lost)


if __name__ == "__main__":
    sys.exit(main())

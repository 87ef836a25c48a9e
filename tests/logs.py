"""Logs of a venue and a feed, made by hand, in which the checker is shown faults.

The feed never gets update 102, gets 105 late, is cut off, and finds a venue that has
begun anew, at a sequence that the old one had too.
"""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from feedhandler.records import QUOTE, TRADE
from tests.audit_log import GAP, LIVE, NO_BID, SNAPSHOT, STALE
from tests.checker import Loss, Read, Report, Violation, examine
from tests.recordings import crc10
from tests.truth import audit_crc

BOOK, TRADES = "orderbook:AAPL:3", "trades:AAPL"

Levels = list[tuple[float, float]]
Sides = tuple[Levels, Levels]
Json = dict[str, Any]

FAR = (151.0, 8.0)
# What the venue has in its two lives: written out, so that no code is believed.
FIRST: dict[int, Sides] = {
    100: ([(150.0, 5.0), (149.5, 10.0)], [(150.5, 3.0), FAR]),
    101: ([(150.0, 7.0), (149.5, 10.0)], [(150.5, 3.0), FAR]),
    102: ([(150.0, 7.0), (149.5, 10.0)], [(150.25, 4.0), FAR]),
    103: ([(150.0, 7.0), (149.0, 2.0)], [(150.25, 4.0), FAR]),
    104: ([(150.0, 7.0), (149.0, 2.0)], [(150.25, 4.0), (150.75, 1.0), FAR]),
    105: ([(150.1, 1.0), (150.0, 7.0), (149.0, 2.0)], [(150.25, 4.0), FAR]),
    106: ([(150.1, 1.0), (150.0, 7.0), (149.0, 2.0)], [(150.25, 6.0), FAR]),
}
SECOND: dict[int, Sides] = {
    104: ([(10.0, 1.0)], [(11.0, 1.0)]),
    105: ([], [(11.0, 1.0)]),
    106: ([(9.0, 1.0)], [(11.0, 1.0)]),
}
UPDATES: dict[int, Sides] = {
    101: ([(150.0, 7.0)], []),
    102: ([], [(150.5, 0.0), (150.25, 4.0)]),
    103: ([(149.5, 0.0), (149.0, 2.0)], []),
    104: ([], [(150.75, 1.0)]),
    105: ([(150.1, 1.0)], [(150.75, 0.0)]),
    106: ([], [(150.25, 6.0)]),
}

# ── the venue's journal ───────────────────────────────────────────────────────────────


def noted(kind: str, connection: int, **more: Any) -> Json:
    return {"t": 1, "k": kind, "c": connection, **more}


def asked(connection: int, action: str, *channels: str) -> Json:
    text = json.dumps({"action": action, "data": {"channels": channels}})
    return noted("in", connection, m=text)


def told(connection: int, kind: str, sequence: int, sides: Sides) -> Json:
    data = {"symbol": "AAPL", "bids": sides[0], "asks": sides[1], "sequence": sequence}
    message = {"type": kind, "data": deepcopy(data), "channel": BOOK, "timestamp": 1}
    return noted("out", connection, m=message)


def told_trade(connection: int, trade_id: str) -> Json:
    data = {"symbol": "AAPL", "price": 150.0, "size": 2, "trade_id": trade_id}
    return noted(
        "out", connection, m={"type": "trade", "data": data, "channel": TRADES}
    )


def told_sum(sequence: int) -> Json:
    crc = crc10(*FIRST[sequence], "0.01")
    return {"t": 1, "k": "book", "channel": BOOK, "sequence": sequence, "crc": crc}


def journal() -> list[Json]:
    lines = [noted("open", 1), asked(1, "subscribe", BOOK, TRADES)]
    lines += [told(1, "orderbook", 100, FIRST[100]), told_trade(1, "t-1")]
    for sequence, update in UPDATES.items():
        lines += [told_sum(sequence), told(1, "orderbook_update", sequence, update)]
        if sequence == 103:
            lines += [told_trade(1, "t-2"), told(1, "orderbook", 103, FIRST[103])]
    lines += [told_trade(1, "t-3"), told_trade(1, "t-4"), noted("close", 1)]
    lines += [noted("open", 2), asked(2, "subscribe", BOOK, TRADES)]
    lines += [told(2, "orderbook", 104, SECOND[104]), told_trade(2, "t-1")]
    lines += [told(2, "orderbook_update", 105, ([(10.0, 0.0)], []))]
    lines += [told(2, "orderbook_update", 106, ([(9.0, 1.0)], []))]
    return [*lines, told_trade(2, "t-2"), noted("close", 2)]


# ── the feed's audit log ──────────────────────────────────────────────────────────────


@dataclass(eq=False)
class Quote:
    """A line Q or D; *flags* are without the epoch, *byte* is what of it is in them."""

    epoch: int
    sequence: int
    flags: int
    sides: Sides
    kind: str = "Q"

    def __post_init__(self) -> None:
        self.byte = self.epoch
        self.be(self.sides)

    def be(self, sides: Sides) -> None:
        """Have the sum of another book."""
        self.crc = audit_crc(*map(tuple, sides))

    def text(self, recv_ns: int) -> str:
        flags = self.flags | self.byte << 8
        words = (self.kind, recv_ns, 0, self.epoch, self.sequence, flags, self.crc)
        return " ".join(map(str, words))


@dataclass(eq=False)
class Trade:
    """A line T."""

    trade_id: str
    epoch: int
    flags: int = 1
    price: float = 150.0
    size: float = 2.0

    def text(self, recv_ns: int) -> str:
        flags = self.flags | self.epoch << 8
        return f"T {recv_ns} 0 {flags} {self.price!r} {self.size!r} {self.trade_id}"


Lines = list[str | Quote | Trade]
HEAD = ("H 1", f"I 0 {BOOK}", f"I 0 {TRADES}")


def audit() -> Lines:
    return [
        *HEAD,
        Quote(2, 100, LIVE | SNAPSHOT, FIRST[100]),
        Trade("t-1", 1),
        Quote(2, 101, LIVE, FIRST[101]),
        Quote(2, 101, STALE | GAP, FIRST[101]),
        Trade("t-2", 1),
        Quote(3, 103, LIVE | SNAPSHOT, FIRST[103]),
        Quote(3, 104, LIVE, FIRST[104], kind="D"),
        Quote(3, 104, STALE | GAP, FIRST[104]),
        Quote(3, 105, STALE | GAP, FIRST[105]),
        Quote(3, 106, LIVE, FIRST[106]),
        Trade("t-3", 1),
        Quote(3, 106, STALE, FIRST[106]),
        Quote(5, 104, LIVE | SNAPSHOT, SECOND[104]),
        Trade("t-1", 2),
        Quote(5, 105, LIVE | NO_BID, SECOND[105]),
        Quote(5, 106, LIVE, SECOND[106]),
        Trade("t-2", 2),
        Quote(5, 106, STALE, SECOND[106]),
    ]


@dataclass
class Logs:
    """All that the checker is given, which has no fault until one is put in.

    *end* is the audit log's last line; None for the right one, "" for none.
    """

    journal: list[Any] = field(default_factory=journal)
    audit: Lines = field(default_factory=audit)
    end: str | None = None
    losses: list[Loss] = field(
        default_factory=lambda: [Loss(BOOK, 102), Loss(BOOK, 105, late=True)]
    )
    events: list[Any] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    quiescent: bool = True
    spoiled: bool = False

    # ── lines, to be changed ──────────────────────────────────────────────────────

    def quotes(self, epoch: int, sequence: int | None = None) -> list[Quote]:
        """The lines of an epoch, or of a sequence of it."""
        return [
            line
            for line in self.audit
            if isinstance(line, Quote)
            and line.epoch == epoch
            and sequence in (None, line.sequence)
        ]

    def trade(self, trade_id: str, epoch: int = 1) -> Trade:
        return next(
            line
            for line in self.audit
            if isinstance(line, Trade)
            and (line.trade_id, line.epoch) == (trade_id, epoch)
        )

    def put(self, after: Any, line: Any) -> None:
        self.audit.insert(self.audit.index(after) + 1, line)

    def told(self, kind: str, sequence: int) -> Json:
        """The data of the first such message of the order book."""
        return next(
            line["m"]["data"]
            for line in self.journal
            if line["k"] == "out"
            and (line["m"]["type"], line["m"]["data"].get("sequence"))
            == (kind, sequence)
        )

    def told_trade(self, trade_id: str) -> Json:
        """The data of the first such trade."""
        return next(
            line["m"]["data"]
            for line in self.journal
            if line["k"] == "out" and line["m"]["data"].get("trade_id") == trade_id
        )

    # ── what they come to ─────────────────────────────────────────────────────────

    def journal_text(self) -> list[str]:
        return [
            line if isinstance(line, str) else f"{json.dumps(line)}\n"
            for line in self.journal
        ]

    def audit_text(self) -> list[str]:
        lines = [
            line if isinstance(line, str) else line.text(1_000_000 + number)
            for number, line in enumerate(self.audit)
        ]
        end = f"E {len(lines)}" if self.end is None else self.end
        return [f"{line}\n" for line in [*lines, end] if line]

    def examined(self) -> Report:
        return examine(
            self.journal_text(),
            self.audit_text(),
            reads=self.reads,
            losses=self.losses,
            events=self.events,
            quiescent=self.quiescent,
            spoiled=self.spoiled,
        )

    def checked(self) -> list[Violation]:
        return self.examined().violations


def changed(change: Callable[[Logs], object]) -> Logs:
    logs = Logs()
    change(logs)
    return logs


# ── a consumer's records ──────────────────────────────────────────────────────────────


def quotes_read(lost: int = 3) -> Read:
    """All that was published in the logs, but for the first, which were lost."""
    lines = [(n, line) for n, line in enumerate(audit()) if isinstance(line, Quote)]
    published = [(number, quote) for number, quote in lines if quote.kind == "Q"]
    records = np.zeros(len(published), QUOTE)
    records["seq"] = range(1, len(published) + 1)
    for record, (number, quote) in zip(records, published, strict=True):
        bids, asks = quote.sides
        record["recv_ns"] = 1_000_000 + number
        record["flags"] = quote.flags | quote.epoch << 8
        record["sequence"] = quote.sequence
        record["bid_price"], record["bid_size"] = bids[0] if bids else (np.nan, 0.0)
        record["ask_price"], record["ask_size"] = asks[0] if asks else (np.nan, 0.0)
    return Read("quotes", records[lost:], lost, 0)


def trades_read() -> Read:
    lines = [(n, line) for n, line in enumerate(audit()) if isinstance(line, Trade)]
    records = np.zeros(len(lines), TRADE)
    records["seq"] = range(1, len(lines) + 1)
    for record, (number, trade) in zip(records, lines, strict=True):
        record["recv_ns"] = 1_000_000 + number
        record["flags"] = trade.flags | trade.epoch << 8
        record["price"], record["size"] = trade.price, trade.size
        record["trade_id"] = trade.trade_id
    return Read("trades", records, 0, 0)

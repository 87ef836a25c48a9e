"""What a feed noted of what it published: the lines of its audit log, format 1.

The format is that of ext/audit.pyx; the flags' values are those of records.pxd.
"""

from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

LIVE, STALE, GAP, CROSSED, NO_BID, NO_ASK, SNAPSHOT = 1, 2, 4, 8, 16, 32, 64
ID_CUT = 4


class Line(NamedTuple):
    """A line Q or D: a book as it was noted."""

    number: int
    recv_ns: int
    instrument: int
    epoch: int
    sequence: int
    flags: int
    crc: int

    @property
    def pair(self) -> tuple[int, int]:
        return self.epoch, self.sequence

    @property
    def is_trusted(self) -> bool:
        """Whether it says that this is what the venue has, crossed though it may be."""
        return not self.flags & STALE

    def says(self, flag: int) -> bool:
        return bool(self.flags & flag)


class TradeLine(NamedTuple):
    """A line T; *key* is as much of the trade's id as a record has."""

    number: int
    recv_ns: int
    instrument: int
    flags: int
    price: float
    size: float
    key: bytes

    @property
    def facts(self) -> tuple[bytes, float, float]:
        return self.key, self.price, self.size


class Life:
    """What a feed noted from its start on; *is_whole* if its end is there."""

    def __init__(self) -> None:
        self.names: defaultdict[int, list[str]] = defaultdict(list)
        self.books: defaultdict[int, list[Line]] = defaultdict(list)
        self.quotes: list[Line] = []
        self.trades: list[TradeLine] = []
        self.lines = 0
        self.is_whole = False

    def channel(self, instrument: int, kind: str) -> str:
        """Return the instrument's channel of a kind; "" if none was named."""
        names = (n for n in self.names[instrument] if n.startswith(f"{kind}:"))
        return next(names, "")


class Log(NamedTuple):
    """The lives of a log, and what is *wrong* with lines of it."""

    lives: list[Life]
    wrong: list[str]


def read_audit(lines: Iterable[str]) -> Log:
    """Read lines with their ends; one that was not written to its end is left out."""
    log = Log([], [])
    for number, (text, following) in enumerate(pairwise([*lines, ""]), 1):
        torn = following.startswith("H ") if following else not text.endswith("\n")
        if text == "\n" or torn:
            continue
        try:
            take(log.lives, number, text[:-1].split(" "))
        except (ValueError, IndexError, TypeError) as error:
            log.wrong.append(f"line {number} {text[:-1]!r} cannot be: {error}")
    if not log.lives:
        log.wrong.append("no feed begins")
    return log


def take(lives: list[Life], number: int, fields: list[str]) -> None:
    """Take a line; ValueError, IndexError or TypeError for one that cannot be."""
    kind, *rest = fields
    if kind == "H":
        if rest != ["1"]:
            raise ValueError("the format is not 1")
        lives.append(Life())
    life = lives[-1]
    if life.is_whole:
        raise ValueError("the log had ended")
    if kind in ("Q", "D"):
        line = Line(number, *map(int, rest))
        life.books[line.instrument].append(line)
        if kind == "Q":
            life.quotes.append(line)
    elif kind == "T":
        recv_ns, instrument, flags, price, size, trade_id = rest
        life.trades.append(
            TradeLine(
                number,
                int(recv_ns),
                int(instrument),
                int(flags),
                float(price),
                float(size),
                unescaped(trade_id),
            )
        )
    elif kind == "I":
        instrument, name = rest
        life.names[int(instrument)].append(name)
    elif kind == "E":
        life.is_whole = True
        if int(rest[0]) != life.lines:
            raise ValueError(f"{life.lines} lines came before it")
    elif kind != "H":
        raise ValueError("its kind is unknown")
    life.lines += 1


def unescaped(text: str) -> bytes:
    first, *rest = text.split("%")
    return first.encode() + b"".join(
        bytes.fromhex(part[:2]) + part[2:].encode() for part in rest
    )

"""A recorded market on disk: X.jsonl, one message a line, and X.ts, its nanoseconds.

Both are read as a stream, plain or compressed (``.gz``), and never held whole.
"""

import gzip
import zlib
from collections.abc import Iterator
from itertools import islice, zip_longest
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from feedhandler.errors import ConfigError
from feedhandler.protocol.channels import Channel, parse_channel
from feedhandler.protocol.messages import OrderbookData

__all__ = [
    "BOOK_TYPES",
    "SNAPSHOT",
    "BookMessage",
    "Contents",
    "Line",
    "Recording",
    "decode_book",
]

LINES = ".jsonl"
TIMES = ".ts"
BATCH = 4096
# What reading a damaged or vanished file may raise.
UNREADABLE = (OSError, EOFError, zlib.error)
# What reading a line that is no message may raise.
MALFORMED = (ValueError, RecursionError, msgspec.MsgspecError)

SNAPSHOT = "orderbook"
UPDATE = "orderbook_update"
BOOK_TYPES = (SNAPSHOT, UPDATE)
KINDS = {
    SNAPSHOT: "orderbook",
    UPDATE: "orderbook",
    "trade": "trades",
    "ticker": "ticker",
    "candle": "candles",
}


class Line(msgspec.Struct, gc=False):
    """What a replay needs to know of a message; the rest stays bytes."""

    type: str
    channel: str


class BookMessage(msgspec.Struct, gc=False):
    """A snapshot or an update of a book, as recorded."""

    type: str
    data: OrderbookData
    timestamp: int = 0


class Contents(msgspec.Struct):
    """What is in a recording: the channels of each symbol, and its lines."""

    lines: int
    symbols: dict[str, set[Channel]]

    def depths(self, symbol: str) -> list[int]:
        """Return the recorded depths of a symbol's books."""
        return sorted(
            channel.depth
            for channel in self.symbols[symbol]
            if channel.kind == "orderbook"
        )


decode_line = msgspec.json.Decoder(Line).decode
decode_book = msgspec.json.Decoder(BookMessage).decode


class Recording:
    """The files of one recording, found from the path of its messages."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.times_path = times_beside(self.path)

    def read(self) -> Iterator[tuple[int, bytes, Line]]:
        """Yield (recv_ns, line, what it is) for every message, in file order.

        Raises ConfigError, naming the line, where the files are damaged.
        """
        number = 0
        path = self.path
        try:
            with open_stream(self.path) as lines, open_stream(self.times_path) as times:
                pairs = zip_longest(lines, times)
                while batch := list(islice(pairs, BATCH)):
                    for line, time_ns in batch:
                        number += 1
                        if line is None or time_ns is None:
                            raise ConfigError(
                                f"{self.path} and {self.times_path} differ in length "
                                f"after line {number - 1}"
                            )
                        path = self.times_path
                        recv_ns = int(time_ns)
                        path = self.path
                        yield recv_ns, line.rstrip(b"\r\n"), decode_line(line)
        except UNREADABLE as error:
            name = getattr(error, "filename", None) or self.path
            raise ConfigError(f"cannot read {name}: {reason(error)}") from error
        except MALFORMED as error:
            raise malformed(path, number, error) from error

    def scan(self) -> Contents:
        """Read it through once; ConfigError if that, or a replay, could not be done."""
        symbols: dict[str, set[Channel]] = {}
        kinds: dict[str, str] = {}
        number = 0
        for number, (_, text, line) in enumerate(self.read(), 1):
            try:
                if line.channel not in kinds:
                    channel = parse_channel(line.channel)
                    kinds[line.channel] = channel.kind
                    symbols.setdefault(channel.symbol, set()).add(channel)
                if KINDS.get(line.type) != kinds[line.channel]:
                    raise ValueError(f"type {line.type!r} on channel {line.channel!r}")
                if line.type in BOOK_TYPES:
                    decode_book(text)
            except MALFORMED as error:
                raise malformed(self.path, number, error) from error
        if not number:
            raise ConfigError(f"{self.path} is empty")
        return Contents(number, symbols)


def malformed(path: Path, number: int, error: Exception) -> ConfigError:
    """Make the error of a line that is not a message."""
    return ConfigError(f"{path} line {number} is malformed: {error}")


def times_beside(path: Path) -> Path:
    """Name the file of times that belongs to X.jsonl or X.jsonl.gz."""
    for ending in (f"{LINES}.gz", LINES):
        if path.name.endswith(ending):
            stem = path.name.removesuffix(ending)
            compressed = path.with_name(f"{stem}{TIMES}.gz")
            plain = path.with_name(f"{stem}{TIMES}")
            return plain if plain.exists() and not compressed.exists() else compressed
    raise ConfigError(f"recording {path} is not named *{LINES} or *{LINES}.gz")


def open_stream(path: Path) -> BinaryIO:
    """Open a plain or compressed file for reading line by line."""
    if path.name.endswith(".gz"):
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


def reason(error: BaseException) -> str:
    """Say in few words why a file could not be read."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

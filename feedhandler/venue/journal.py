"""What happened at the venue, as lines of JSON: for checkers that trust nobody.

Every line has `t`, the venue's time in ns, and `k`, its kind:

* `open`, `close`: a connection `c`, with its address and endpoint
* `in`, `out`: a frame's text `m` on connection `c`; authentications are not shown, and
  neither is what is no request
* `order`: an order of an account as it is now; `fill`: one side of a match
* `book`: the CRC-32 of the best ten levels after an update: of the text
  `bid:quantity:ask:quantity:bid:…`, prices with the decimals of the tick, quantities
  without trailing zeros
"""

import logging
from contextlib import suppress
from typing import IO, Any, get_args
from zlib import crc32

import msgspec

from feedhandler.protocol.messages import (
    ClientMessage,
    OrderUpdateData,
    UserTradeData,
)
from feedhandler.venue.listing import Listing

__all__ = ["LEVELS", "Journal", "book_crc"]

log = logging.getLogger("feedhandler.venue")

LEVELS = 10
HIDDEN = "***"
AUTHENTICATE = "authenticate"
# Anything else may be a misspelt authentication.
ACTIONS = {kind.__struct_config__.tag for kind in get_args(ClientMessage)}


class Head(msgspec.Struct):
    """The action of a message."""

    action: str


encode = msgspec.json.Encoder().encode
decode_head = msgspec.json.Decoder(Head).decode

Levels = list[tuple[int, int]]


class Journal:
    """A log of NDJSON; a full disk ends it, and not the venue."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file: IO[bytes] | None = file

    @classmethod
    def at(cls, path: str) -> "Journal":
        """Append to the file at *path*; OSError if it cannot be opened."""
        return cls(open(path, "ab"))

    def note(self, kind: str, now_ns: int, **fields: Any) -> None:
        """Write one line."""
        self._write(encode({"t": now_ns, "k": kind, **fields}))

    def inbound(self, connection: int, payload: bytes, now_ns: int) -> None:
        """Write a message of a client, if it is one that may be shown."""
        try:
            action = decode_head(payload).action
            text = payload.decode()
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            action = text = ""
        if action not in ACTIONS:
            self.note("in", now_ns, c=connection, malformed=len(payload))
            return
        if action == AUTHENTICATE:
            text = f'{{"action":"{AUTHENTICATE}","data":"{HIDDEN}"}}'
        self.note("in", now_ns, c=connection, m=text)

    def outbound(self, connection: int, payload: bytes, now_ns: int) -> None:
        """Write a message of ours."""
        self._write(b'{"t":%d,"k":"out","c":%d,"m":%b}' % (now_ns, connection, payload))

    def order(self, account: str, order: OrderUpdateData, now_ns: int) -> None:
        """Write an order as it is now."""
        self.note("order", now_ns, account=account, order=order)

    def fill(self, account: str, trade: UserTradeData, now_ns: int) -> None:
        """Write one side of a match, of an account."""
        self.note("fill", now_ns, account=account, trade=trade)

    def book(self, channel: str, sequence: int, crc: int, now_ns: int) -> None:
        """Write the state of a book after an update."""
        self.note("book", now_ns, channel=channel, sequence=sequence, crc=crc)

    def flush(self) -> None:
        """Bring what was written to the file."""
        self._guard(lambda file: file.flush())

    def close(self) -> None:
        """End it."""
        self._guard(lambda file: file.close())
        self._file = None

    def _write(self, line: bytes) -> None:
        self._guard(lambda file: file.write(line + b"\n"))

    def _guard(self, act: Any) -> None:
        if self._file is None:
            return
        try:
            act(self._file)
        except OSError as error:
            log.error("journal ends error=%s", error.strerror)
            file, self._file = self._file, None
            with suppress(OSError):
                file.close()


def book_crc(listing: Listing, bids: Levels, asks: Levels) -> int:
    """Return the CRC-32 of the best ten levels, best first, without missing ones."""
    parts = []
    for rank in range(LEVELS):
        for side in (bids, asks):
            if rank < len(side):
                ticks, lots = side[rank]
                parts.append(f"{listing.tick.text(ticks)}:{listing.lot.plain(lots)}")
    return crc32(":".join(parts).encode())

"""Make engine.jsonl.gz, engine.ts.gz and engine.truth.csv.gz beside this file.

The recording is what subscribers of the venue's own market would get, from a seed. The
truth beside it is worked out here from the text of the messages, by code that shares
nothing with the venue, and then compared with the engine.

    python tests/data/make_engine_recording.py

Columns of the truth: see COLUMNS. crc10 is the CRC-32 of the best ten levels as text,
``b0p:b0q:a0p:a0q:b1p:...``, a side with no such level being left out; crc_full, with
the snapshot and every 100th update of a symbol, is that of all bids, then all asks,
best first. Prices have two decimals, quantities no trailing zeros.
"""

import csv
import gzip
import io
import json
import zlib
from decimal import Decimal
from pathlib import Path

from feedhandler.venue.config import VenueConfig
from feedhandler.venue.exchange import Exchange
from feedhandler.venue.matching import Side

HERE = Path(__file__).parent
NAME = "engine"
CHANNELS = [
    "orderbook:AAPL:10",
    "trades:AAPL",
    "ticker:AAPL",
    "candles:AAPL:1m",
    "candles:AAPL:1d",
    "orderbook:ETH-USD:10",
    "trades:ETH-USD",
]
MESSAGES = 3000
# Four seconds before midnight UTC, so that candles and the day close.
START_NS = 1_625_097_596_000_000_000
STEP_NS = 5_000_000
COLUMNS = [
    "line", "kind", "sequence", "recv_ns", "src_id",
    "bid_px", "bid_qty", "ask_px", "ask_qty",
    "n_bids", "n_asks", "crc10", "crc_full", "symbol",
]  # fmt: skip


def record():
    """Return (recv_ns, payload, the engines' top ten after the step or None)."""
    exchange = Exchange(VenueConfig(), START_NS)
    lines = [
        (START_NS + number * 1000, payload)
        for number, name in enumerate(CHANNELS)
        for payload in exchange.open(name, START_NS)
    ]
    now_ns = START_NS
    tops = {}
    while len(lines) < MESSAGES:
        now_ns += STEP_NS
        for number, push in enumerate(exchange.advance(now_ns)):
            lines.append((now_ns + number * 1000, push.payload))
        tops[len(lines) - 1] = {
            symbol: [engine.top(side, 10) for side in (Side.BUY, Side.SELL)]
            for symbol, engine in exchange.engines.items()
        }
    return lines, tops


class TextBook:
    """One book as the text of its levels, sorted anew for every question."""

    def __init__(self):
        self.sides = {"bids": {}, "asks": {}}

    def take(self, kind, data):
        if kind == "orderbook":
            self.sides = {"bids": {}, "asks": {}}
        for name, side in self.sides.items():
            for price, quantity in data[name]:
                if Decimal(quantity) == 0:
                    side.pop(Decimal(price), None)
                else:
                    side[Decimal(price)] = quantity

    def levels(self, name):
        side = self.sides[name]
        ordered = sorted(side, reverse=name == "bids")
        return [(f"{price:.2f}", side[price]) for price in ordered]

    def crc10(self):
        bids, asks = self.levels("bids"), self.levels("asks")
        parts = []
        for rank in range(10):
            parts += [*bids[rank : rank + 1], *asks[rank : rank + 1]]
        return crc(parts)

    def crc_full(self):
        return crc(self.levels("bids") + self.levels("asks"))


def crc(levels):
    return zlib.crc32(":".join(":".join(level) for level in levels).encode())


def truth(lines, tops):
    """Yield a row for every book message; check it against the engine where known."""
    books = {}
    for number, (recv_ns, payload) in enumerate(lines):
        message = json.loads(payload, parse_float=str, parse_int=str)
        if message["type"].startswith("orderbook"):
            data = message["data"]
            book = books.setdefault(data["symbol"], TextBook())
            book.take(message["type"], data)
            yield row(number, recv_ns, message, book)
        for symbol, sides in tops.get(number, {}).items():
            if symbol in books:
                check(books[symbol], sides, 1000 if symbol == "ETH-USD" else 1)


def row(number, recv_ns, message, book):
    data = message["data"]
    bids, asks = book.levels("bids"), book.levels("asks")
    snapshot = message["type"] == "orderbook"
    full = snapshot or int(data["sequence"]) % 100 == 1
    return [
        number, "snapshot" if snapshot else "update", data["sequence"], recv_ns, "",
        *bids[0], *asks[0], len(bids), len(asks), book.crc10(),
        book.crc_full() if full else "", data["symbol"],
    ]  # fmt: skip


def check(book, sides, lots_in_one):
    for name, levels in zip(("bids", "asks"), sides, strict=True):
        told = [(Decimal(p), Decimal(q)) for p, q in book.levels(name)]
        meant = [(Decimal(p) / 100, Decimal(q) / lots_in_one) for p, q in levels]
        if told != meant:
            raise SystemExit(f"the messages say {told}, the engine {meant}")


def write(name, data):
    # No name and no time in the header: the same seed makes the same files.
    buffer = io.BytesIO()
    with gzip.GzipFile("", "wb", 9, buffer, mtime=0) as file:
        file.write(data)
    (HERE / name).write_bytes(buffer.getvalue())


def main():
    lines, tops = record()
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(truth(lines, tops))
    write(f"{NAME}.jsonl.gz", b"".join(payload + b"\n" for _, payload in lines))
    write(f"{NAME}.ts.gz", "".join(f"{recv_ns}\n" for recv_ns, _ in lines).encode())
    write(f"{NAME}.truth.csv.gz", table.getvalue().encode())


if __name__ == "__main__":
    main()

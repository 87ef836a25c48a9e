"""Recorded markets and the truth about them, for tests."""

import csv
import gzip
import json
import os
import zlib
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

SMALL = Path(__file__).parent / "data"
FOLDER = Path(os.environ.get("FEEDHANDLER_RECORDINGS") or SMALL)


class Recording:
    """One recorded market: its messages, channels and truth."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name.removesuffix(".jsonl.gz")

    def __repr__(self) -> str:
        return self.name

    def lines(self) -> list[bytes]:
        with gzip.open(self.path) as file:
            return [line.rstrip(b"\n") for line in file]

    def truth(self) -> list[dict[str, str]]:
        """What is true after every order-book message, in their order."""
        path = self.path.with_name(f"{self.name}.truth.csv.gz")
        with gzip.open(path, "rt", newline="") as file:
            return list(csv.DictReader(file))

    def channels(self) -> dict[str, list[str]]:
        """The channels of every symbol."""
        found: dict[str, dict[str, None]] = {}
        for line in self.lines():
            channel = json.loads(line)["channel"]
            found.setdefault(channel.split(":")[1], {})[channel] = None
        return {symbol: list(names) for symbol, names in found.items()}

    def instruments(self) -> list[dict[str, Any]]:
        """What to configure in order to get all of it."""
        tables = []
        for symbol, names in self.channels().items():
            table: dict[str, Any] = {"symbol": symbol, "channels": [], "intervals": []}
            for name in names:
                kind, _, *rest = name.split(":")
                if kind not in table["channels"]:
                    table["channels"].append(kind)
                if kind == "orderbook":
                    table["depth"] = int(rest[0])
                elif kind == "candles":
                    table["intervals"].append(rest[0])
            tables.append(table)
        return tables


def recordings() -> list[Recording]:
    return [Recording(path) for path in sorted(FOLDER.glob("*.jsonl.gz"))]


def price_text(price: float, like: str) -> str:
    """Write a price with the decimals of *like*."""
    return f"{price:.{len(like.partition('.')[2])}f}"


def size_text(size: float) -> str:
    """Write a quantity without trailing zeros."""
    text = format(Decimal(repr(size)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def crc(levels: Iterable[tuple[float, float]], like: str) -> int:
    text = ":".join(f"{price_text(p, like)}:{size_text(s)}" for p, s in levels)
    return zlib.crc32(text.encode())


def crc10(
    bids: list[tuple[float, float]], asks: list[tuple[float, float]], like: str
) -> int:
    """b0p:b0q:a0p:a0q:b1p:… over the top ten levels."""
    woven = []
    for rank in range(10):
        woven += bids[rank : rank + 1] + asks[rank : rank + 1]
    return crc(woven, like)

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer

from feedhandler.segment import Origin, SegmentReader, SegmentWriter

class EntryStatus(IntEnum):
    LISTED = 1
    REMOVED = 2

class Top(NamedTuple):
    symbol: str
    bid_price: float
    bid_size: float
    ask_price: float
    ask_size: float
    venue_ns: int
    recv_ns: int
    sequence: int
    session_epoch: int
    flags: int
    is_live: bool

class Depth(NamedTuple):
    bids: npt.NDArray[np.float64]
    asks: npt.NDArray[np.float64]
    top: Top

class LastTicker(NamedTuple):
    symbol: str
    venue_ns: int
    recv_ns: int
    last_price: float
    last_size: float
    bid: float
    ask: float
    volume: float
    daily_change: float
    daily_change_percent: float
    high: float
    low: float
    open: float

class LastCandle(NamedTuple):
    symbol: str
    interval: str
    start_ns: int
    end_ns: int
    recv_ns: int
    open: float
    high: float
    low: float
    close: float
    volume: float

class Board(SegmentWriter):
    def __init__(
        self,
        buffer: Buffer,
        max_instruments: int,
        levels: int = 10,
        origin: Origin = ...,
    ) -> None: ...
    @staticmethod
    def size_for(max_instruments: int, levels: int = 10) -> int: ...
    @property
    def levels(self) -> int: ...
    @property
    def capacity(self) -> int: ...
    def add(self, symbol: str) -> int: ...
    def remove(self, symbol: str) -> None: ...
    def symbols(self) -> list[str]: ...
    def write_quote(
        self,
        record: Buffer,
        sequence: int = 0,
        epoch: int = 0,
        *,
        bids: Sequence[tuple[float, float]] | None = None,
        asks: Sequence[tuple[float, float]] | None = None,
        bid_changed: int = 0,
        ask_changed: int = 0,
    ) -> None: ...
    def write_ticker(self, record: Buffer) -> None: ...
    def write_candle(self, instrument: int, interval: str, record: Buffer) -> None: ...

class BoardReader(SegmentReader):
    def __init__(self, buffer: Buffer) -> None: ...
    @property
    def levels(self) -> int: ...
    def rebind(self, buffer: Buffer) -> None: ...
    def symbols(self) -> list[str]: ...
    def find(self, symbol: str) -> int: ...
    def is_listed(self, symbol: str) -> bool: ...
    def top(self, symbol: str) -> Top: ...
    def depth(self, symbol: str) -> Depth: ...
    def ticker(self, symbol: str) -> LastTicker | None: ...
    def candle(self, symbol: str, interval: str) -> LastCandle | None: ...

def schema_of(capacity: int, levels: int) -> str: ...

from collections.abc import Callable
from typing import NamedTuple

class Sink: ...

class Tee(Sink):
    def __new__(
        cls, first: Sink, second: Sink, on_error: Callable[[Exception], object]
    ) -> Tee: ...

class QuoteEvent(NamedTuple):
    instrument: int
    flags: int
    sequence: int
    epoch: int
    venue_ns: int
    recv_ns: int
    bid_price: float
    bid_size: float
    ask_price: float
    ask_size: float

class TradeEvent(NamedTuple):
    instrument: int
    flags: int
    venue_ns: int
    recv_ns: int
    trade_id: str
    price: float
    size: float

class TickerEvent(NamedTuple):
    instrument: int
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

class CandleEvent(NamedTuple):
    instrument: int
    interval: str
    start_ns: int
    end_ns: int
    recv_ns: int
    open: float
    high: float
    low: float
    close: float
    volume: float

class PythonSink(Sink):
    def quote(self, event: QuoteEvent) -> None: ...
    def trade(self, event: TradeEvent) -> None: ...
    def ticker(self, event: TickerEvent) -> None: ...
    def candle(self, event: CandleEvent) -> None: ...

class Tap: ...

from enum import IntEnum, IntFlag
from typing import Any

import numpy as np

QUOTE: np.dtype[Any]
TRADE: np.dtype[Any]
TICKER: np.dtype[Any]
CANDLE: np.dtype[Any]
INTERVAL_NAMES: tuple[str, ...]

class Flags(IntFlag):
    LIVE = 0x01
    STALE = 0x02
    GAP = 0x04
    CROSSED = 0x08
    NO_BID = 0x10
    NO_ASK = 0x20
    SNAPSHOT = 0x40
    MARKET_CLOSED = 0x80

class TradeFlags(IntFlag):
    BUY = 0x01
    SELL = 0x02
    ID_CUT = 0x04

class Interval(IntEnum):
    M1 = 0
    M5 = 1
    M15 = 2
    H1 = 3
    H4 = 4
    D1 = 5
    W1 = 6

def flag_names(flags: int) -> list[str]: ...
def trade_flag_names(flags: int) -> list[str]: ...
def struct_layout() -> dict[str, dict[str, int]]: ...

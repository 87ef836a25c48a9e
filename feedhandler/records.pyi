from enum import IntEnum, IntFlag
from typing import Any

import numpy as np

QUOTE: np.dtype[Any]
TRADE: np.dtype[Any]
TICKER: np.dtype[Any]
CANDLE: np.dtype[Any]
ORDER_EVENT: np.dtype[Any]
FILL: np.dtype[Any]
ACCOUNT: np.dtype[Any]
NOTICE: np.dtype[Any]
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

class PrivateFlags(IntFlag):
    ORDER_ID_CUT = 0x01
    CLIENT_ID_CUT = 0x02
    OWN_ID_CUT = 0x04
    TEXT_CUT = 0x08
    REPLAYED = 0x10
    UNTRIGGERED = 0x20

class OrderSide(IntEnum):
    SIDE_UNKNOWN = 0
    SIDE_BUY = 1
    SIDE_SELL = 2

class OrderType(IntEnum):
    TYPE_UNKNOWN = 0
    MARKET = 1
    LIMIT = 2
    STOP = 3
    STOP_LIMIT = 4

class TimeInForce(IntEnum):
    TIF_UNKNOWN = 0
    GTC = 1
    IOC = 2
    FOK = 3
    DAY = 4

class OrderStatus(IntEnum):
    STATUS_UNKNOWN = 0
    ACCEPTED = 1
    PARTIALLY_FILLED = 2
    FILLED = 3
    CANCELED = 4
    EXPIRED = 5
    REJECTED = 6

class AccountKind(IntEnum):
    BALANCE = 1
    POSITION = 2

class NoticeKind(IntEnum):
    SYSTEM = 1
    USER = 2
    ALERT = 3

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

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
PRIVATE_STREAMS: dict[str, np.dtype[Any]]
COMMAND: np.dtype[Any]
INTERVAL_NAMES: tuple[str, ...]
NO_INSTRUMENT: int

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
    PENDING = 1
    ACCEPTED = 2
    PARTIALLY_FILLED = 3
    FILLED = 4
    CANCELED = 5
    EXPIRED = 6
    REJECTED = 7

class OrderOperation(IntEnum):
    OPERATION_NONE = 0
    OPERATION_SUBMIT = 1
    OPERATION_CANCEL = 2
    OPERATION_MODIFY = 3

class PendingFlags(IntFlag):
    SUBMIT_PENDING = 0x01
    CANCEL_PENDING = 0x02
    MODIFY_PENDING = 0x04
    SUBMIT_UNKNOWN = 0x08
    CANCEL_UNKNOWN = 0x10
    MODIFY_UNKNOWN = 0x20

class EventCause(IntEnum):
    CAUSE_UNKNOWN = 0
    CAUSE_SENT = 1
    CAUSE_ACK = 2
    CAUSE_UPDATE = 3
    CAUSE_FILL = 4
    CAUSE_REFUSED = 5
    CAUSE_LOST = 6
    CAUSE_ADOPTED = 7
    CAUSE_SETTLED = 8
    CAUSE_EXPIRED = 9
    CAUSE_GUARDED = 10
    CAUSE_THROTTLED = 11
    CAUSE_NOT_CONNECTED = 12

class EventReason(IntEnum):
    REASON_NONE = 0
    REASON_OTHER = 1
    REASON_AUTHENTICATION_REQUIRED = 2
    REASON_INVALID_CREDENTIALS = 3
    REASON_INVALID_PARAMETER = 4
    REASON_INVALID_ACTION = 5
    REASON_RATE_LIMIT_EXCEEDED = 6
    REASON_INSUFFICIENT_FUNDS = 7
    REASON_ORDER_NOT_FOUND = 8
    REASON_DUPLICATE_CLIENT_ORDER_ID = 9
    REASON_MARKET_CLOSED = 10
    REASON_INTERNAL_ERROR = 11

class AccountKind(IntEnum):
    BALANCE = 1
    POSITION = 2

class NoticeKind(IntEnum):
    SYSTEM = 1
    USER = 2
    ALERT = 3

class CommandKind(IntEnum):
    SUBMIT = 1
    MODIFY = 2
    CANCEL = 3
    CANCEL_ALL = 4
    RESOLVE = 5

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

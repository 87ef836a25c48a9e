"""What other processes hear of the account: orders, fills, balances and notices.

What the venue sends is hostile: texts are cut and flagged, times and numbers clamped,
words that the API does not list become 0, and nothing is raised.
"""

import math
import sys
from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

from feedhandler.order import Cause, Operation, Order, Status
from feedhandler.protocol.codes import ErrorCode
from feedhandler.protocol.messages import (
    Balance,
    CustomAlert,
    Position,
    SystemNotification,
    UserNotification,
    UserTradeData,
)
from feedhandler.records import (
    ACCOUNT,
    FILL,
    NO_INSTRUMENT,
    NOTICE,
    ORDER_EVENT,
    AccountKind,
    EventCause,
    EventReason,
    NoticeKind,
    OrderOperation,
    OrderSide,
    OrderStatus,
    OrderType,
    PendingFlags,
    PrivateFlags,
    TimeInForce,
)
from feedhandler.ring import Ring

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Moment", "PrivatePublisher"]

EPOCH_SHIFT = 8
INT64_MAX = (1 << 63) - 1
NS_PER_MS = 1_000_000
MOST_ROWS = 0xFFFF
MOST = sys.float_info.max
# The struct module's names of a dtype's formats, and what a field is without a value.
FORMATS = {"<u8": "Q", "<i8": "q", "<u2": "H", "|u1": "B", "<f8": "d"}
BLANKS: dict[str, object] = {"u": 0, "i": 0, "f": math.nan, "S": b""}

SIDES = {"buy": OrderSide.SIDE_BUY, "sell": OrderSide.SIDE_SELL}
TYPES = {
    "market": OrderType.MARKET,
    "limit": OrderType.LIMIT,
    "stop": OrderType.STOP,
    "stop_limit": OrderType.STOP_LIMIT,
}
TIMES_IN_FORCE = {
    "gtc": TimeInForce.GTC,
    "ioc": TimeInForce.IOC,
    "fok": TimeInForce.FOK,
    "day": TimeInForce.DAY,
}
STATUSES = {
    Status.UNKNOWN: OrderStatus.STATUS_UNKNOWN,
    Status.PENDING: OrderStatus.PENDING,
    Status.LIVE: OrderStatus.ACCEPTED,
    Status.PARTIALLY_FILLED: OrderStatus.PARTIALLY_FILLED,
    Status.FILLED: OrderStatus.FILLED,
    Status.CANCELED: OrderStatus.CANCELED,
    Status.EXPIRED: OrderStatus.EXPIRED,
    Status.REJECTED: OrderStatus.REJECTED,
}
CAUSES = {cause: EventCause[f"CAUSE_{cause.name}"] for cause in Cause}
# What the venue tells on its channels, and so may tell again.
TOLD = {Cause.UPDATE, Cause.FILL, Cause.ADOPTED}
UNSENT = {Cause.EXPIRED, Cause.GUARDED, Cause.THROTTLED, Cause.NOT_CONNECTED}
OPERATIONS = {
    operation: OrderOperation[f"OPERATION_{operation.name}"] for operation in Operation
}
PENDING = {
    (operation, word): sum(PendingFlags[f"{operation.name}_{bit}"] for bit in bits)
    for operation in Operation
    for word, bits in (("sent", ["PENDING"]), ("unknown", ["PENDING", "UNKNOWN"]))
}
REASONS = {code.value: EventReason[f"REASON_{code.name}"] for code in ErrorCode}
KINDS = {SystemNotification: NoticeKind.SYSTEM, UserNotification: NoticeKind.USER}


class Moment(NamedTuple):
    """When what is told now was received (UTC), and the epoch of its session."""

    recv_ns: int
    epoch: int


class PrivatePublisher:
    """Write what is told of an account to its rings: their only writer.

    A Hearer of an OrderFlow (trading.py). *instrument_of* gives a symbol's number in
    the directory, NO_INSTRUMENT for none; *moment* is asked at each event of the flow.
    """

    def __init__(
        self,
        orders: Ring,
        fills: Ring,
        account: Ring,
        notices: Ring,
        *,
        instrument_of: Callable[[str], int],
        moment: Callable[[], Moment],
    ) -> None:
        self._orders = _Writer(orders, ORDER_EVENT)
        self._fills = _Writer(fills, FILL)
        self._account = _Writer(account, ACCOUNT)
        self._notices = _Writer(notices, NOTICE)
        self._instrument_of = instrument_of
        self._moment = moment

    # ── what an order flow tells ──────────────────────────────────────────────────────

    def on_order(
        self,
        order: Order,
        cause: Cause,
        operation: Operation | None,
        code: str | None,
        time_ms: int,
        is_replay: bool,
    ) -> None:
        """Publish an order as it is now.

        One whose submit was not sent is REJECTED; other operations leave it as it was.
        One of ours that the venue tells of before it answers is not adopted.
        """
        if cause is Cause.ADOPTED and not order.is_foreign:
            cause = Cause.UPDATE
        texts = _Texts()
        is_waiting = order.triggered is False and not order.is_terminal
        texts.flags |= PrivateFlags.UNTRIGGERED if is_waiting else 0
        # Nor is one of that name that was sent before.
        is_unsent = (
            cause in UNSENT
            and operation is Operation.SUBMIT
            and order.status is Status.PENDING
            and not order.pending
        )
        reason = code or order.reason
        self._orders.publish(
            self._moment(),
            texts,
            is_replay and cause in TOLD,
            venue_ns=_ns(time_ms),
            created_ns=_ns(order.created_ms),
            updated_ns=_ns(order.updated_ms),
            instrument=self._instrument_of(order.symbol),
            side=SIDES.get(order.side, 0),
            type=TYPES.get(order.type, 0),
            status=OrderStatus.REJECTED if is_unsent else STATUSES[order.status],
            tif=TIMES_IN_FORCE.get(order.time_in_force or "", 0),
            order_id=texts.cut(order.order_id, 32, PrivateFlags.ORDER_ID_CUT),
            client_id=texts.cut(order.client_id, 32, PrivateFlags.CLIENT_ID_CUT),
            symbol=texts.cut(order.symbol, 32),
            quantity=_number(order.quantity),
            filled=_number(order.filled),
            remaining=_number(order.remaining),
            price=_number(order.price),
            stop_price=_number(order.stop_price),
            pending=sum(PENDING[pair] for pair in order.pending.items()),
            cause=CAUSES[cause],
            reason=REASONS.get(reason, EventReason.REASON_OTHER) if reason else 0,
            operation=OPERATIONS[operation] if operation is not None else 0,
        )

    def on_fill(
        self, data: UserTradeData, order: Order | None, is_replay: bool
    ) -> None:
        """Publish a fill; *order* is None while it is not known whose it is."""
        texts = _Texts()
        client_id = None if order is None else order.client_id
        self._fills.publish(
            self._moment(),
            texts,
            is_replay,
            venue_ns=_ns(data.trade_time),
            instrument=self._instrument_of(data.symbol),
            side=SIDES.get(data.side, 0),
            trade_id=texts.cut(data.trade_id, 32, PrivateFlags.OWN_ID_CUT),
            order_id=texts.cut(data.order_id, 32, PrivateFlags.ORDER_ID_CUT),
            client_id=texts.cut(client_id, 32, PrivateFlags.CLIENT_ID_CUT),
            symbol=texts.cut(data.symbol, 32),
            price=_number(data.price),
            quantity=_number(data.quantity),
            fee=_number(data.fee),
            fee_currency=texts.cut(data.fee_currency, 8),
        )

    def on_account(self, rows: list[Balance | Position], time_ms: int) -> None:
        """Publish the rows that an update changed, each with how many are to come."""
        moment = self._moment()
        for number, row in enumerate(rows, 1):
            texts = _Texts()
            self._account.publish(
                moment,
                texts,
                False,
                venue_ns=_ns(time_ms),
                rows_left=min(len(rows) - number, MOST_ROWS),
                **self._row(row, texts),
            )

    def _row(self, row: Balance | Position, texts: "_Texts") -> dict[str, Any]:
        if isinstance(row, Balance):
            return {
                "instrument": NO_INSTRUMENT,
                "kind": AccountKind.BALANCE,
                "name": texts.cut(row.currency, 32),
                "available": _number(row.available),
                "reserved": _number(row.reserved),
                "total": _number(row.total),
            }
        return {
            "instrument": self._instrument_of(row.symbol),
            "kind": AccountKind.POSITION,
            "name": texts.cut(row.symbol, 32),
            "quantity": _number(row.quantity),
            "average_price": _number(row.average_price),
            "unrealized_pnl": _number(row.unrealized_pnl),
            "realized_pnl": _number(row.realized_pnl),
        }

    # ── what the venue tells ──────────────────────────────────────────────────────────

    def notice(
        self,
        message: SystemNotification | UserNotification | CustomAlert,
        recv_ns: int,
        epoch: int = 0,
    ) -> None:
        """Publish a notification or an alert that was received then, in UTC."""
        texts = _Texts()
        if isinstance(message, CustomAlert):
            fields = self._alert(message, texts)
        else:
            fields = _notification(message, texts)
        self._notices.publish(
            Moment(recv_ns, epoch),
            texts,
            False,
            venue_ns=_ns(message.timestamp),
            **fields,
        )

    def _alert(self, message: CustomAlert, texts: "_Texts") -> dict[str, Any]:
        data = message.data
        return {
            "triggered_ns": _ns(data.triggered_at),
            "instrument": self._instrument_of(data.symbol),
            "kind": NoticeKind.ALERT,
            "threshold": _number(data.threshold),
            "current_value": _number(data.current_value),
            "id": texts.cut(data.alert_id, 32, PrivateFlags.OWN_ID_CUT),
            "symbol": texts.cut(data.symbol, 32),
            "condition": texts.cut(data.condition, 32),
            "title": texts.cut(data.name, 128),
        }

    def flush(self) -> None:
        """Wake readers that block, where something was published; once per batch."""
        for writer in (self._orders, self._fills, self._account, self._notices):
            writer.ring.flush()


class _Texts:
    """Cuts the texts of one record, and gathers the flags that say so."""

    def __init__(self) -> None:
        self.flags = 0

    def cut(self, text: object, size: int, flag: int = PrivateFlags.TEXT_CUT) -> bytes:
        """Return *text* as at most *size* bytes of UTF-8; flagged if it is not whole.

        To a reader in C a text ends at its first NUL: so it does for all. What is no
        text, such as None, is empty.
        """
        if not isinstance(text, str):
            return b""
        whole = text[:size].partition("\0")[0].encode(errors="replace")
        kept = whole[:size].decode(errors="ignore")
        if kept != text:
            self.flags |= flag
        return kept.encode()


class _Writer:
    """Packs the records of a ring, one after the other, into the same bytes."""

    def __init__(self, ring: Ring, dtype: "np.dtype[Any]") -> None:
        self.ring = ring
        self._blank = {name: BLANKS[dtype[name].kind] for name in dtype.names or ()}
        self._layout = Struct(_format(dtype))
        self._raw = bytearray(self._layout.size)

    def publish(
        self, moment: Moment, texts: _Texts, is_replay: bool, **fields: Any
    ) -> None:
        """Publish a record of *fields*; other texts are empty, other numbers NaN."""
        flags = texts.flags | (PrivateFlags.REPLAYED if is_replay else 0)
        fields["recv_ns"] = moment.recv_ns
        fields["flags"] = flags | (moment.epoch & 0xFF) << EPOCH_SHIFT
        values = self._blank | fields
        self._layout.pack_into(self._raw, 0, *values.values())
        self.ring.publish_record(self._raw)


def _format(dtype: "np.dtype[Any]") -> str:
    """Return *dtype* as the struct module writes it, its gaps as zeros."""
    assert dtype.fields is not None
    parts, end = ["<"], 0
    for field, offset, *_ in dtype.fields.values():
        parts.append(f"{offset - end}x")
        parts.append(FORMATS.get(field.str) or f"{field.itemsize}s")
        end = offset + field.itemsize
    parts.append(f"{dtype.itemsize - end}x")
    return "".join(parts)


def _notification(
    message: SystemNotification | UserNotification, texts: _Texts
) -> dict[str, Any]:
    data = message.data
    return {
        "instrument": NO_INSTRUMENT,
        "kind": KINDS[type(message)],
        "id": texts.cut(data.id, 32, PrivateFlags.OWN_ID_CUT),
        "level": texts.cut(data.level, 16),
        "title": texts.cut(data.title, 128),
        "link": texts.cut(data.link, 216),
        "message": texts.cut(data.message, 512),
    }


def _ns(time_ms: int) -> int:
    """Return a time of the venue's in nanoseconds; one that cannot be, clamped."""
    return min(max(time_ms, 0) * NS_PER_MS, INT64_MAX)


def _number(told: object) -> float:
    """Return a number, NaN for None or UNSET; clamped, so that it is never infinite."""
    if not isinstance(told, (int, float)):
        return math.nan
    # A NaN remains one: no comparison with it holds.
    return float(min(max(told, -MOST), MOST))

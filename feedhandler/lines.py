"""One line for a record, as text or as JSON, with nothing in it that moves a cursor."""

import json
import math
from collections.abc import Callable
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Any

from feedhandler.printable import printable
from feedhandler.records import (
    NO_INSTRUMENT,
    PRIVATE_STREAMS,
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
    flag_names,
    trade_flag_names,
)

if TYPE_CHECKING:
    import numpy as np

__all__ = ["as_json", "as_text"]

Fields = dict[str, Any]


def _words(kind: type[IntEnum], prefix: str = "") -> dict[int, str]:
    return {member.value: member.name.lower().removeprefix(prefix) for member in kind}


WORDS = {
    "side": _words(OrderSide, "side_"),
    "type": _words(OrderType, "type_"),
    "status": _words(OrderStatus, "status_"),
    "tif": _words(TimeInForce, "tif_"),
    "cause": _words(EventCause, "cause_"),
    "reason": _words(EventReason, "reason_"),
    "operation": _words(OrderOperation, "operation_"),
}
KINDS = {"account": _words(AccountKind), "notices": _words(NoticeKind)}


def as_json(stream: str, record: "np.void", symbols: list[str]) -> str:
    """Write a record of *stream* as an object; NaN becomes null."""
    return json.dumps(_fields(stream, record, symbols), separators=(",", ":"))


def as_text(stream: str, record: "np.void", symbols: list[str]) -> str:
    """Write a record of *stream* for people."""
    return TEXTS[stream](_fields(stream, record, symbols))


def _fields(stream: str, record: "np.void", symbols: list[str]) -> Fields:
    """Turn a record into plain values, its codes into words."""
    number = int(record["instrument"])
    fields: Fields = {} if number == NO_INSTRUMENT else {"symbol": symbols[number]}
    for name in record.dtype.names or ():
        value = record[name].item()
        if isinstance(value, float) and math.isnan(value):
            value = None
        elif isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        fields[name] = value
    flags = fields["flags"]
    fields["epoch"] = flags >> 8
    if stream not in PRIVATE_STREAMS:
        name_flags = flag_names if stream == "quotes" else trade_flag_names
        return fields | {"flags": name_flags(flags)}
    fields["flags"] = _names(PrivateFlags, flags)
    if number == NO_INSTRUMENT:
        fields["instrument"] = None
    if "pending" in fields:
        fields["pending"] = _names(PendingFlags, fields["pending"])
    words = WORDS | {"kind": KINDS[stream]} if stream in KINDS else WORDS
    for name in words.keys() & fields.keys():
        fields[name] = words[name].get(fields[name], "unknown")
    return fields


def _names(kind: type[IntFlag], flags: int) -> list[str]:
    return [flag.name for flag in kind if flags & flag and flag.name is not None]


def _quote(fields: Fields) -> str:
    sides = (
        f"{_number(fields['bid_size']):>12} @ {_number(fields['bid_price']):<12} "
        f"{_number(fields['ask_price']):>12} @ {_number(fields['ask_size']):<12}"
    )
    flags = "|".join(fields["flags"])
    return f"{fields['symbol']:<12} {fields['sequence']:>10} {sides} {flags}"


def _trade(fields: Fields) -> str:
    return (
        f"{fields['symbol']:<12} {printable(fields['trade_id']):<16} "
        f"{_number(fields['size']):>12} @ {_number(fields['price']):<12} "
        f"{'|'.join(fields['flags'])}"
    )


def _order(fields: Fields) -> str:
    return _line(
        f"{printable(fields['symbol']):<12} {fields['status']:<16}",
        f"{fields['cause']:<8} {fields['side']:<4} {fields['type']}",
        f"{_number(fields['quantity'])} @ {_number(fields['price'])}",
        f"filled={_number(fields['filled'])}",
        f"stop={_number(fields['stop_price'])}" if fields["stop_price"] else "",
        f"order={_id(fields['order_id'])} client={_id(fields['client_id'])}",
        f"answers={fields['operation']}" if fields["operation"] != "none" else "",
        f"reason={fields['reason']}" if fields["reason"] != "none" else "",
        "|".join(fields["pending"]),
        "|".join(fields["flags"]),
    )


def _fill(fields: Fields) -> str:
    return _line(
        f"{printable(fields['symbol']):<12} {_id(fields['trade_id']):<16}",
        f"{fields['side']:<4}",
        f"{_number(fields['quantity'])} @ {_number(fields['price'])}",
        f"fee={_number(fields['fee'])} {printable(fields['fee_currency'])}",
        f"order={_id(fields['order_id'])} client={_id(fields['client_id'])}",
        "|".join(fields["flags"]),
    )


def _account(fields: Fields) -> str:
    names = ["available", "reserved", "total"]
    if fields["kind"] != "balance":
        names = ["quantity", "average_price", "unrealized_pnl", "realized_pnl"]
    return _line(
        f"{printable(fields['name']):<12} {fields['kind']:<8}",
        *(f"{name}={_number(fields[name])}" for name in names),
        "|".join(fields["flags"]),
    )


def _notice(fields: Fields) -> str:
    texts = [printable(fields[name]) for name in ("title", "message", "link")]
    if fields["kind"] == "alert":
        texts += [
            printable(f"{fields['symbol']} {fields['condition']}"),
            f"{_number(fields['threshold'])} at {_number(fields['current_value'])}",
        ]
    level = printable(fields["level"])
    return _line(
        f"{fields['kind']:<6} {level:<8} {_id(fields['id'])}",
        *texts,
        "|".join(fields["flags"]),
    )


TEXTS: dict[str, Callable[[Fields], str]] = {
    "quotes": _quote,
    "trades": _trade,
    "orders": _order,
    "fills": _fill,
    "account": _account,
    "notices": _notice,
}


def _line(*parts: str) -> str:
    return " ".join(filter(None, parts))


def _id(text: str) -> str:
    return printable(text) or "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.10g}"

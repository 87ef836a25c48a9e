"""What a client asks, checked: a request's data into its Struct, or why it is refused.

Raises Refusal with the code and the message of the API's error, naming the field.
"""

import re
from typing import NamedTuple, TypeVar

import msgspec

from feedhandler.protocol.codes import ErrorCode
from feedhandler.protocol.messages import (
    BatchCancel,
    BatchModify,
    BatchSubmit,
    CancelOrderData,
    ModifyOrderData,
    OrderData,
)
from feedhandler.venue.listing import Listing
from feedhandler.venue.matching import Side, TimeInForce

__all__ = [
    "ECHO_CHARS",
    "LOTS_MAX",
    "TICKS_MAX",
    "Operation",
    "OrderTerms",
    "Refusal",
    "invalid",
    "order_terms",
    "read",
    "read_batch",
    "whole_lots",
    "whole_ticks",
]

# How much of what a client sent is told back to it in an error.
ECHO_CHARS = 64
LOTS_MAX = 1 << 40
TICKS_MAX = 1 << 52
OFF_GRID = 1e-6
EPSILON = 2.0**-51

SIDES = {"buy": Side.BUY, "sell": Side.SELL}
TIMES_IN_FORCE = {
    "gtc": TimeInForce.GTC,
    "ioc": TimeInForce.IOC,
    "fok": TimeInForce.FOK,
    "day": TimeInForce.DAY,
}

T = TypeVar("T")
Operation = BatchSubmit | BatchCancel | BatchModify
Order = OrderData | BatchSubmit

_CLIENT_ORDER_ID = re.compile(r"[\x21-\x7e]{1,64}", re.ASCII)
_WHERE = re.compile(r"(?P<what>.*?) - at `\$\.?(?P<key>.*)`", re.DOTALL)
_NAMED = re.compile(r"Object (?P<what>missing required|contains unknown) field `(.*)`")
_EXPECTED = re.compile(r"Expected `(?P<wanted>[a-z| ]+)`, got `.*`")
WORDS = {
    "float": "a number",
    "str": "a string",
    "int": "an integer",
    "object": "an object",
    "array": "a list",
}


CHOICES = {
    "side": "buy or sell",
    "type": "market, limit, stop or stop_limit",
    "time_in_force": "gtc, ioc, fok or day",
    "operation": "submit, cancel or modify",
}


class Refusal(Exception):
    """A request is answered with an error; *channels* are those at fault."""

    def __init__(
        self, code: ErrorCode, message: str, channels: list[str] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.channels = channels


def invalid(message: str, channels: list[str] | None = None) -> Refusal:
    """Refuse a request for one of its parameters."""
    return Refusal(
        ErrorCode.INVALID_PARAMETER, f"Invalid parameter: {message}", channels
    )


# ── structure ─────────────────────────────────────────────────────────────────────────


def read(
    decoder: "msgspec.json.Decoder[T]", raw: msgspec.Raw, whole: str = "data"
) -> T:
    """Decode a part of a request, *whole* by name; a missing one is empty."""
    try:
        return decoder.decode(bytes(raw) or b"{}")
    except msgspec.ValidationError as error:
        raise invalid(explain(str(error), whole)) from None
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise invalid(f"{whole} must be an object") from None


def explain(message: str, whole: str) -> str:
    """Turn msgspec's message into one about the field, without the values."""
    match = _WHERE.fullmatch(message)
    what, key = (match["what"], match["key"]) if match else (message, "")
    key = key[:ECHO_CHARS] or whole
    named = _NAMED.fullmatch(what)
    if named:
        state = "is required" if named["what"] == "missing required" else "is unknown"
        name = named[2][:ECHO_CHARS]
        return f"{name} {state}" if key == whole else f"{key}.{name} {state}"
    if what.startswith("Invalid enum value"):
        return f"{key} must be {CHOICES.get(key, 'one that exists')}"
    expected = _EXPECTED.fullmatch(what)
    if expected:
        wanted = expected["wanted"].split(" | ")[0]
        return f"{key} must be {WORDS.get(wanted, wanted)}"
    if what.startswith("Invalid value"):
        return f"{key} must be {CHOICES.get(key, 'one that exists')}"
    return f"{key} is malformed"


class Operations(msgspec.Struct):
    """The data of a batch, its operations still as they came."""

    operations: list[msgspec.Raw]


_batch = msgspec.json.Decoder(Operations)
_operation: "msgspec.json.Decoder[Operation]" = msgspec.json.Decoder(Operation)


def read_batch(raw: msgspec.Raw, most: int) -> list[msgspec.Raw]:
    """Return the operations of a batch, each to be read on its own."""
    operations = read(_batch, raw).operations
    if not 1 <= len(operations) <= most:
        raise invalid(f"operations are {len(operations)}, not 1 to {most}")
    return operations


def read_operation(raw: msgspec.Raw) -> Operation:
    """Return one operation of a batch."""
    return read(_operation, raw, "operation")


# ── meaning ───────────────────────────────────────────────────────────────────────────


class OrderTerms(NamedTuple):
    """A new order in the numbers of the engine."""

    side: Side
    time_in_force: TimeInForce
    lots: int
    price_ticks: int | None
    stop_ticks: int | None


def order_terms(data: Order, listing: Listing) -> OrderTerms:
    """Return the terms of an order that is well-formed in itself."""
    price = price_of("price", data.price, data.type in ("limit", "stop_limit"), data)
    stop = price_of("stop_price", data.stop_price, "stop" in data.type, data)
    return OrderTerms(
        SIDES[data.side],
        TIMES_IN_FORCE[data.time_in_force or "gtc"],
        whole_lots(data.quantity, listing),
        None if price is None else whole_ticks("price", price, listing),
        None if stop is None else whole_ticks("stop_price", stop, listing),
    )


def price_of(key: str, price: float | None, wanted: bool, data: Order) -> float | None:
    if wanted and price is None:
        raise invalid(f"{key} is required for a {data.type} order")
    if not wanted and price is not None:
        raise invalid(f"{key} is not allowed for a {data.type} order")
    return price


def whole_lots(quantity: float, listing: Listing) -> int:
    """Return a quantity in lots."""
    return whole("quantity", quantity, listing.lot.size, "lot", LOTS_MAX)


def whole_ticks(key: str, price: float, listing: Listing) -> int:
    """Return a price in ticks."""
    return whole(key, price, listing.tick.size, "tick", TICKS_MAX)


def whole(key: str, number: float, step: float, name: str, most: int) -> int:
    if not number > 0:
        raise invalid(f"{key} must be greater than 0")
    count = number / step
    if not count <= most:
        raise invalid(f"{key} is too large")
    nearest = round(count)
    # The quotient of two doubles is off by its last bits: of a large one, by more.
    if nearest < 1 or abs(count - nearest) >= max(OFF_GRID, count * EPSILON):
        raise invalid(f"{key} must be a multiple of the {name} size {step:.12g}")
    return nearest


def refuse_client_order_id(text: str | None) -> None:
    """Raise Refusal for an id of the client's that is out of its grammar."""
    if text is not None and not _CLIENT_ORDER_ID.fullmatch(text):
        raise invalid(
            "client_order_id must be 1 to 64 printable ASCII characters without spaces"
        )


def refuse_ids(data: CancelOrderData | ModifyOrderData) -> None:
    """Raise Refusal for a request that does not name one order."""
    if (data.order_id is None) == (data.client_order_id is None):
        raise invalid("one of order_id and client_order_id is required")

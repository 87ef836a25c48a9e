"""Error codes, close codes, and the action that each close code prescribes."""

from enum import Enum, StrEnum

__all__ = [
    "ABNORMAL",
    "CLOSE_ACTIONS",
    "UNTRUSTED",
    "CloseAction",
    "ErrorCode",
    "action_for",
    "is_wire_code",
]

ABNORMAL = 1006
"""The code, never sent, of a connection that ended without a close frame."""
UNTRUSTED = 1015
"""The code, never sent, of a venue whose certificate does not verify."""


class ErrorCode(StrEnum):
    """The codes of an error frame."""

    AUTHENTICATION_REQUIRED = "authentication_required"
    INVALID_CREDENTIALS = "invalid_credentials"
    INVALID_PARAMETER = "invalid_parameter"
    INVALID_ACTION = "invalid_action"
    RATE_LIMIT_EXCEEDED = "rate_limit_exceeded"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    ORDER_NOT_FOUND = "order_not_found"
    DUPLICATE_CLIENT_ORDER_ID = "duplicate_client_order_id"
    MARKET_CLOSED = "market_closed"
    INTERNAL_ERROR = "internal_error"


class CloseAction(Enum):
    """What a client does after a close."""

    RECONNECT = "reconnect at once, then back off"
    BACKOFF = "reconnect with backoff"
    BACKOFF_TWICE = "reconnect with twice the backoff"
    COOL_DOWN = "reconnect with backoff, when the limits have forgotten us"
    RETRY_ONCE = "one retry, then stop"
    RETRY_TWICE = "two retries, then stop"
    RESUBSCRIBE_ONCE = "one retry without the refused channels, then stop"
    WAIT = "wait out the zombie window, one retry, then stop"
    STOP = "stop: only a person can mend this"


CLOSE_ACTIONS = {
    1000: CloseAction.BACKOFF,
    1001: CloseAction.RECONNECT,
    1002: CloseAction.RETRY_ONCE,
    1003: CloseAction.RETRY_ONCE,
    1006: CloseAction.BACKOFF,
    1007: CloseAction.RETRY_ONCE,
    1008: CloseAction.STOP,
    1009: CloseAction.BACKOFF,
    1010: CloseAction.RETRY_ONCE,
    1011: CloseAction.BACKOFF,
    1012: CloseAction.BACKOFF,
    1013: CloseAction.BACKOFF_TWICE,
    1015: CloseAction.RETRY_ONCE,
    4000: CloseAction.STOP,
    4001: CloseAction.COOL_DOWN,
    4002: CloseAction.RESUBSCRIBE_ONCE,
    4003: CloseAction.WAIT,
    4004: CloseAction.BACKOFF,
}


def is_wire_code(code: int) -> bool:
    """Tell whether *code* may appear in a close frame (RFC 6455, 7.4)."""
    return (1000 <= code <= 1014 and code not in (1004, 1005, 1006)) or (
        3000 <= code <= 4999
    )


def action_for(code: int, reason: str = "", logged_in: bool = True) -> CloseAction:
    """Return the action for a close; unknown codes back off.

    *logged_in* is false before the authentication on an endpoint that wants one: there
    a 1008 may be the venue's word for one that took too long. A 4001 because we read
    too slowly is not mended by waiting for the limits to forget us.
    """
    if code == 1008 and not logged_in:
        return CloseAction.RETRY_TWICE
    if code == 4001 and "slow consumer" in reason:
        return CloseAction.BACKOFF
    return CLOSE_ACTIONS.get(code, CloseAction.BACKOFF)

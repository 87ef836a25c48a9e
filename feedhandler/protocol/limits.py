"""The numbers of the reference's limits; who enforces them is elsewhere."""

from enum import StrEnum

__all__ = [
    "ANSWER_TIMEOUT_S",
    "BATCH_OPERATIONS",
    "CONNECTIONS_PER_KEY",
    "HEARTBEAT_S",
    "HEARTBEAT_TIMEOUT_S",
    "PER_MINUTE",
    "SUBSCRIPTIONS_PER_CONNECTION",
    "RateClass",
    "retry_after_ns",
]


class RateClass(StrEnum):
    """The four classes of the rate limits, in the reference's words."""

    AUTHENTICATION = "authentication"
    SUBSCRIBE = "subscribe/unsubscribe"
    ORDER = "order operations"
    OTHER = "other messages"


PER_MINUTE = {
    RateClass.AUTHENTICATION: 10,
    RateClass.SUBSCRIBE: 50,
    RateClass.ORDER: 100,
    RateClass.OTHER: 200,
}

CONNECTIONS_PER_KEY = 5
SUBSCRIPTIONS_PER_CONNECTION = 50
BATCH_OPERATIONS = 50
HEARTBEAT_S = 30
HEARTBEAT_TIMEOUT_S = 90
ANSWER_TIMEOUT_S = 10

_MOST_RETRY_AFTER_S = 86_400
_RETRY_AFTER_S = 60


def retry_after_ns(retry_after: object) -> int:
    """Turn a venue's retry_after, in seconds, into nanoseconds to wait.

    The window where it says nothing; within a second and a day, whatever it says.
    """
    if not isinstance(retry_after, (int, float)):
        retry_after = _RETRY_AFTER_S
    return int(min(max(retry_after, 1), _MOST_RETRY_AFTER_S) * 1_000_000_000)

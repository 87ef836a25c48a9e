"""An exact count of what clients send, by class and by scope (A-14)."""

from typing import Any

from tests.sim.findings import Findings
from tests.sim.rules import Window
from tests.sim.world import SECOND

__all__ = ["LIMITS", "OF_KEY", "Limits", "class_of"]

LIMITS = {"authentication": 10, "subscribe": 50, "order": 100, "other": 200}
ORDERS = ("submit_order", "cancel_order", "modify_order", "batch_orders")
OF_KEY = ("authentication", "order")
"""These are counted for all connections of the key together."""

# The client's own window is a second longer than the venue's, and its limits are lower.
CLIENT_WINDOW_NS = 61 * SECOND
CLIENT_AUTHENTICATIONS = 9
QUIET_OTHERS = 170


def class_of(message: dict[str, Any]) -> tuple[str, int]:
    """Return the class of a client's message, and how many units it is."""
    action = message["action"]
    if action == "authenticate":
        return "authentication", 1
    if action in ("subscribe", "unsubscribe"):
        return "subscribe", 1
    if action == "batch_orders":
        return "order", len(message["data"]["operations"])
    return ("order" if action in ORDERS else "other"), 1


class Limits:
    """The windows of every scope, and until when the venue wants nothing more."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._windows: dict[Any, Window] = {}
        self._held_ns: dict[Any, int] = {}

    def _scope(self, rate_class: str, connection: Any) -> Any:
        return rate_class if rate_class in OF_KEY else (rate_class, connection)

    def count(
        self, message: dict[str, Any], connection: Any, who: str, now_ns: int
    ) -> None:
        """Count a message: not one too many (I-14), and none too early (LM-10)."""
        rate_class, units = class_of(message)
        scope = self._scope(rate_class, connection)
        count = self._windows.setdefault(scope, Window()).add(now_ns, units)
        if count > LIMITS[rate_class]:
            self._findings.fail("I-14", who, f"{count} of class {rate_class} in 60 s")
        if now_ns < self._held_ns.get(scope, 0):
            self._findings.fail(
                "LM-10", who, f"{rate_class} before retry_after is over"
            )

    def hold(self, action: str, connection: Any, until_ns: int) -> None:
        """Hear that the venue wants no more of a class for a while."""
        rate_class, _ = class_of({"action": action, "data": {"operations": ()}})
        scope = self._scope(rate_class, connection)
        self._held_ns[scope] = max(self._held_ns.get(scope, 0), until_ns)

    def must_pong(self, connection: Any, now_ns: int) -> bool:
        """Say whether nothing keeps a client from answering a heartbeat."""
        scope = self._scope("other", connection)
        window = self._windows.get(scope)
        if now_ns < self._held_ns.get(scope, 0):
            return False
        return window is None or window.within(now_ns, CLIENT_WINDOW_NS) < QUIET_OTHERS

    def may_log_in_ns(self, private: int, now_ns: int) -> int:
        """Return until when there is a reason not to authenticate (A-46).

        *private*: as many connections may have been about to, and are waited for.
        """
        held_ns = self._held_ns.get("authentication", 0)
        window = self._windows.get("authentication")
        lately = (
            0 if window is None else window.within(now_ns, CLIENT_WINDOW_NS + SECOND)
        )
        return now_ns if lately + private >= CLIENT_AUTHENTICATIONS else held_ns + 1

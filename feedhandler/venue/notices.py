"""Notifications: of the venue to everybody, to one account, and its alerts.

Late subscribers are told where things stand: the start of the venue, and every market
that is not open. *event*, *symbols* and *venue_epoch* are extensions.
"""

from typing import Literal

import msgspec

from feedhandler.protocol.messages import (
    Alert,
    CustomAlert,
    Notice,
    SystemNotification,
    UserNotification,
)
from feedhandler.venue.market import Push, private

__all__ = ["Event", "Notices"]

SYSTEM, USER, ALERTS = "system_notifications", "user_notifications", "custom_alerts"
Event = Literal["start", "open", "close", "halt", "shutdown"]
LEVELS: dict[Event, str] = {
    "start": "info",
    "open": "info",
    "close": "info",
    "halt": "warning",
    "shutdown": "warning",
}

encode = msgspec.json.Encoder().encode


class Notices:
    """The three notification channels of one venue."""

    def __init__(self, venue_epoch: str, now_ms: int) -> None:
        self._count = 0
        self._start = self._notice(
            LEVELS["start"],
            "Venue started",
            "The venue has started; orders of a former life are gone.",
            "start",
        )
        self._start.venue_epoch = venue_epoch
        self._standing: dict[str, Notice] = {}

    def system(
        self, event: Event, title: str, message: str, symbols: list[str], now_ms: int
    ) -> Push:
        """Tell everybody of an event."""
        notice = self._notice(LEVELS[event], title, message, event)
        if symbols:
            notice.symbols = symbols
            self._keep(event, symbols, notice)
        return Push(SYSTEM, encode(SystemNotification(notice, SYSTEM, now_ms)))

    def user(
        self, account: str, level: str, title: str, message: str, now_ms: int
    ) -> Push:
        """Tell one account."""
        notice = self._notice(level, title, message)
        payload = encode(UserNotification(notice, USER, now_ms))
        return Push(private(USER, account), payload)

    def alert(self, account: str, alert: Alert, now_ms: int) -> Push:
        """Tell one account that an alert of its own fired."""
        payload = encode(CustomAlert(alert, ALERTS, now_ms))
        return Push(private(ALERTS, account), payload)

    def opening(self, kind: str, now_ms: int) -> list[bytes]:
        """Return what a new subscriber of a channel is told first."""
        if kind != SYSTEM:
            return []
        standing = {notice.id: notice for notice in self._standing.values()}
        return [
            encode(SystemNotification(notice, SYSTEM, now_ms))
            for notice in (self._start, *standing.values())
        ]

    def _keep(self, event: Event, symbols: list[str], notice: Notice) -> None:
        """Remember the last word on each market that is not open."""
        for symbol in symbols:
            self._standing.pop(symbol, None)
            if event in ("close", "halt"):
                self._standing[symbol] = notice

    def _notice(
        self, level: str, title: str, message: str, event: str | None = None
    ) -> Notice:
        self._count += 1
        notice = Notice(f"n-{self._count}", level, title, message)
        if event is not None:
            notice.event = event
        return notice

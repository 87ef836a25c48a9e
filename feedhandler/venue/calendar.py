"""When the market is open: sessions by local clock, holidays and early closes.

A local time is the first moment at which the zone's clocks show it or later: a time
that they skip is the moment of the skip, of one that they show twice the first counts.
Times in and out are milliseconds since the epoch.
"""

import re
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

__all__ = ["WORKDAYS", "Calendar", "Session"]

WORKDAYS = (0, 1, 2, 3, 4)
"""Monday to Friday, as date.weekday() counts."""

DAY = timedelta(days=1)
DAY_MS = 86_400_000
MIDNIGHT = 24 * 60
CLOCK = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]|24:00", re.ASCII)
# Sessions repeat by the week, but for one that lies in skipped hours. Without a change
# for so long after the last special date there is none.
SETTLED = timedelta(days=22)


class Session(NamedTuple):
    """One day's trading; *close_ms* is the first moment after it."""

    open_ms: int
    close_ms: int


class Calendar:
    """The trading sessions of a venue; without opening times it never closes.

    A session is within one local date, from *opens* to *closes* ("24:00" is the end of
    the day). ValueError for what contradicts itself, or would never open.
    """

    def __init__(
        self,
        timezone: str = "UTC",
        *,
        opens: str | None = None,
        closes: str | None = None,
        weekdays: Collection[int] = WORKDAYS,
        holidays: Collection[date] = (),
        early_closes: Mapping[date, str] | None = None,
    ) -> None:
        self._zone = find_zone(timezone)
        self._holidays = frozenset(holidays)
        self._weekdays = frozenset(weekdays)
        self._early = {day: minutes(at) for day, at in (early_closes or {}).items()}
        self.continuous = opens is None and closes is None
        if self.continuous:
            if self._holidays or self._early:
                raise ValueError("holidays or early closes without opens and closes")
            return
        if opens is None or closes is None:
            raise ValueError("opens without closes, or closes without opens")
        self._opens, self._closes = minutes(opens), minutes(closes)
        self._refuse()
        self._settled = max((*self._holidays, *self._early), default=date.min) + SETTLED

    def _refuse(self) -> None:
        if not self._weekdays:
            raise ValueError("weekdays is empty: it would never open")
        if not self._weekdays <= set(range(7)):
            raise ValueError(f"weekdays is {sorted(self._weekdays)}, not from 0 to 6")
        if self._opens >= self._closes:
            raise ValueError("opens is not before closes")
        for day, at in self._early.items():
            if not self._trades_on(day):
                raise ValueError(f"early close on {day}, which is no trading day")
            if not self._opens < at < self._closes:
                raise ValueError(f"early close on {day} is not within the session")

    def is_open(self, now_ms: int) -> bool:
        """Tell whether the market is in a session."""
        return self.continuous or self._next(now_ms).open_ms <= now_ms

    def next_change_ms(self, now_ms: int) -> int | None:
        """Return when is_open() next becomes another; None for never."""
        if self.continuous:
            return None
        sessions = self._sessions(now_ms)
        session = next(sessions)
        if session.open_ms > now_ms:
            return session.open_ms
        # Sessions up to midnight and from midnight on are one to those who wait.
        settled_ms = self._moment(max(self._settled, self._day(now_ms) + SETTLED), 0)
        while session.open_ms <= settled_ms:
            following = next(sessions)
            if following.open_ms > session.close_ms:
                return session.close_ms
            session = following
        return None

    def day_end_ms(self, now_ms: int) -> int:
        """Return when a day order accepted now expires.

        That is the close of the session, of the next one where there is none now; the
        next midnight in UTC where the market never closes.
        """
        if self.continuous:
            return now_ms - now_ms % DAY_MS + DAY_MS
        return self._next(now_ms).close_ms

    # ── sessions ──────────────────────────────────────────────────────────────────

    def _next(self, now_ms: int) -> Session:
        return next(self._sessions(now_ms))

    def _sessions(self, now_ms: int) -> Iterator[Session]:
        """Yield the session of now, if it has one, and those to come."""
        # Every session of a date before has ended when clocks first show this one.
        day = self._day(now_ms)
        while True:
            if self._trades_on(day):
                session = self._session(day)
                if now_ms < session.close_ms and session.open_ms < session.close_ms:
                    yield session
            day += DAY

    def _session(self, day: date) -> Session:
        closes = self._early.get(day, self._closes)
        return Session(self._moment(day, self._opens), self._moment(day, closes))

    def _trades_on(self, day: date) -> bool:
        return day.weekday() in self._weekdays and day not in self._holidays

    def _day(self, now_ms: int) -> date:
        return datetime.fromtimestamp(now_ms // 1000, self._zone).date()

    def _moment(self, day: date, minute: int) -> int:
        """Return the first moment at which clocks show *minute* of *day* or later."""
        if minute == MIDNIGHT:
            day, minute = day + DAY, 0
        local = datetime.combine(day, time(*divmod(minute, 60)))
        return 1000 * first_moment_s(local, self._zone)


# ── clocks ────────────────────────────────────────────────────────────────────────────


def first_moment_s(local: datetime, zone: ZoneInfo) -> int:
    """Return the first second at which the clocks of *zone* show *local* or later."""
    moment_s = int(local.replace(tzinfo=zone).timestamp())
    if shown(moment_s, zone) == local:
        return moment_s
    # Skipped: with the offset of before it comes too late, with that of after too soon.
    early_s = int(local.replace(tzinfo=zone, fold=1).timestamp())
    seconds = range(early_s, moment_s)
    return early_s + bisect_left(seconds, True, key=lambda s: shown(s, zone) >= local)


def shown(moment_s: int, zone: ZoneInfo) -> datetime:
    """Return what the clocks of *zone* show."""
    return datetime.fromtimestamp(moment_s, zone).replace(tzinfo=None)


# ── what is refused ───────────────────────────────────────────────────────────────────


def find_zone(name: str) -> ZoneInfo:
    """Return a time zone by its name in the IANA database, such as Europe/London."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"timezone is {name!r}, which is not known here") from None


def minutes(text: str) -> int:
    """Return a time of day in minutes; "24:00" is the end of the day."""
    if not CLOCK.fullmatch(text):
        raise ValueError(f"time is {text!r}, not HH:MM")
    hours, _, rest = text.partition(":")
    return 60 * int(hours) + int(rest)

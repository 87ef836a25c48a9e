"""Trading sessions against known days, and against a clock read minute by minute."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedhandler.venue.calendar import Calendar

MINUTE = 60_000
HOUR = 60 * MINUTE
NEW_YORK = "America/New_York"
INDEPENDENCE = date(2025, 7, 4)
EVE = date(2025, 7, 3)


def utc(text):
    """Milliseconds of a moment written as 2025-07-03T13:00."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


def nyse(**fields):
    fields = {
        "opens": "09:30",
        "closes": "16:00",
        "holidays": [INDEPENDENCE],
        "early_closes": {EVE: "13:00"},
    } | fields
    return Calendar(NEW_YORK, **fields)


# ── continuous ────────────────────────────────────────────────────────────────────────


@pytest.mark.req("A-23", "A-24", "OR-11")
def test_without_opening_times_it_is_always_open_and_a_day_ends_at_midnight_utc():
    calendar = Calendar()
    noon = utc("2025-07-05T12:00")

    assert calendar.is_open(noon)
    assert calendar.next_change_ms(noon) is None
    assert calendar.day_end_ms(noon) == utc("2025-07-06T00:00")
    assert calendar.day_end_ms(utc("2025-07-06T00:00") - 1) == utc("2025-07-06T00:00")
    assert calendar.day_end_ms(utc("2025-07-06T00:00")) == utc("2025-07-07T00:00")


@pytest.mark.req("A-23")
def test_a_continuous_day_ends_at_midnight_utc_whatever_the_timezone():
    calendar = Calendar("Asia/Tokyo")

    assert calendar.day_end_ms(utc("2025-07-05T12:00")) == utc("2025-07-06T00:00")


# ── sessions ──────────────────────────────────────────────────────────────────────────


@pytest.mark.req("A-24")
def test_a_session_holds_its_first_moment_and_not_its_last():
    calendar = nyse()
    opens, closes = utc("2025-07-02T13:30"), utc("2025-07-02T20:00")

    assert not calendar.is_open(opens - 1)
    assert calendar.is_open(opens)
    assert calendar.is_open(closes - 1)
    assert not calendar.is_open(closes)


@pytest.mark.req("A-24")
def test_the_next_change_is_the_close_then_the_next_open():
    calendar = nyse()

    assert calendar.next_change_ms(utc("2025-07-02T13:30")) == utc("2025-07-02T20:00")
    assert calendar.next_change_ms(utc("2025-07-02T20:00")) == utc("2025-07-03T13:30")


@pytest.mark.req("A-24", "SN-01")
def test_the_market_closes_early_on_the_eve_as_in_the_notice_of_the_reference():
    calendar = nyse()
    early = utc("2025-07-03T17:00")

    assert calendar.is_open(early - 1)
    assert not calendar.is_open(early)
    assert calendar.day_end_ms(early - 1) == early


@pytest.mark.req("A-24")
def test_a_holiday_and_the_weekend_after_it_are_one_break():
    calendar = nyse()

    monday = utc("2025-07-07T13:30")
    for closed in ("2025-07-03T17:00", "2025-07-04T15:00", "2025-07-06T15:00"):
        assert not calendar.is_open(utc(closed))
        assert calendar.next_change_ms(utc(closed)) == monday


@pytest.mark.req("A-23", "OR-11")
def test_a_day_order_lives_to_the_close_of_this_session_or_of_the_next():
    calendar = nyse()

    assert calendar.day_end_ms(utc("2025-07-02T15:00")) == utc("2025-07-02T20:00")
    assert calendar.day_end_ms(utc("2025-07-02T20:00")) == utc("2025-07-03T17:00")
    assert calendar.day_end_ms(utc("2025-07-04T15:00")) == utc("2025-07-07T20:00")


@pytest.mark.req("A-24")
def test_years_of_holidays_are_looked_past():
    holidays = [EVE + timedelta(days=n) for n in range(5 * 365)]
    calendar = nyse(holidays=holidays, early_closes={})

    # The last one is Monday 2030-07-01.
    assert calendar.next_change_ms(utc("2025-07-02T20:00")) == utc("2030-07-02T13:30")


@pytest.mark.req("A-24")
def test_sessions_that_meet_at_midnight_are_one_until_the_weekend():
    calendar = Calendar(opens="00:00", closes="24:00")

    wednesday = utc("2025-07-02T12:00")
    assert calendar.next_change_ms(wednesday) == utc("2025-07-05T00:00")
    assert calendar.next_change_ms(utc("2025-07-05T00:00")) == utc("2025-07-07T00:00")
    assert calendar.day_end_ms(wednesday) == utc("2025-07-03T00:00")


@pytest.mark.req("A-24")
def test_sessions_that_meet_every_midnight_never_change_after_the_last_holiday():
    calendar = Calendar(
        opens="00:00", closes="24:00", weekdays=range(7), holidays=[INDEPENDENCE]
    )

    assert calendar.next_change_ms(utc("2024-01-01T00:00")) == utc("2025-07-04T00:00")
    assert calendar.next_change_ms(utc("2025-07-04T00:00")) == utc("2025-07-05T00:00")
    assert calendar.next_change_ms(utc("2025-07-05T00:00")) is None
    assert calendar.is_open(utc("2025-07-05T00:00"))


# ── clocks that change ────────────────────────────────────────────────────────────────


@pytest.mark.req("A-24")
@pytest.mark.parametrize(
    ("day", "opens", "closes"),
    [
        ("2025-03-07", "14:30", "21:00"),
        ("2025-03-10", "13:30", "20:00"),
        ("2025-10-31", "13:30", "20:00"),
        ("2025-11-03", "14:30", "21:00"),
    ],
)
def test_sessions_follow_the_local_clock_over_a_change(day, opens, closes):
    calendar = nyse()
    midnight = utc(f"{day}T00:00")

    assert calendar.next_change_ms(midnight + 4 * HOUR) == utc(f"{day}T{opens}")
    assert calendar.day_end_ms(midnight + 4 * HOUR) == utc(f"{day}T{closes}")


@pytest.mark.req("A-24")
@pytest.mark.parametrize(
    ("day", "hours", "opens", "closes"),
    [
        # 2025-03-09: 02:00 to 03:00 is skipped at 07:00 UTC.
        ("2025-03-09", ("01:00", "04:00"), "06:00", "08:00"),
        ("2025-03-09", ("02:30", "04:00"), "07:00", "08:00"),
        ("2025-03-09", ("01:00", "02:30"), "06:00", "07:00"),
        # 2025-11-02: 01:00 to 02:00 is shown twice, from 05:00 UTC.
        ("2025-11-02", ("00:30", "03:00"), "04:30", "08:00"),
        ("2025-11-02", ("01:30", "03:00"), "05:30", "08:00"),
        ("2025-11-02", ("00:30", "01:30"), "04:30", "05:30"),
        ("2025-11-02", ("01:15", "01:30"), "05:15", "05:30"),
    ],
)
def test_a_session_on_the_night_of_the_change(day, hours, opens, closes):
    calendar = Calendar(NEW_YORK, opens=hours[0], closes=hours[1], weekdays=[6])
    midnight = utc(f"{day}T00:00")

    assert calendar.next_change_ms(midnight) == utc(f"{day}T{opens}")
    assert calendar.next_change_ms(utc(f"{day}T{opens}")) == utc(f"{day}T{closes}")


@pytest.mark.req("A-24")
def test_a_session_within_skipped_hours_does_not_take_place():
    calendar = Calendar(NEW_YORK, opens="02:15", closes="02:45", weekdays=[6])

    saturday = utc("2025-03-08T12:00")
    assert calendar.next_change_ms(saturday) == utc("2025-03-16T06:15")
    assert not calendar.is_open(utc("2025-03-09T07:00"))
    assert calendar.day_end_ms(saturday) == utc("2025-03-16T06:45")


@pytest.mark.req("A-24")
def test_a_date_that_a_zone_skipped_had_no_session():
    calendar = Calendar("Pacific/Apia", opens="09:00", closes="17:00")

    # Thursday 2011-12-29 was followed by Saturday: the next session is on Monday.
    thursday_close = utc("2011-12-30T03:00")
    assert calendar.next_change_ms(thursday_close) == utc("2012-01-01T19:00")


def naive_minutes(zone, start_ms, days, hours_of):
    """Whether each minute is in a session, by reading a clock that a zone shows.

    A session begins and ends with the first minute that shows its time or later; a date
    that is never shown has none. *hours_of* gives the minutes of a date, or None.
    """
    shown = [
        datetime.fromtimestamp(start_ms // 1000 + 60 * n, ZoneInfo(zone))
        for n in range(days * 1_440)
    ]
    shown = [moment.replace(tzinfo=None) for moment in shown]
    is_open = [False] * len(shown)
    for day in {moment.date() for moment in shown}:
        if hours_of(day) is None:
            continue
        midnight = datetime(day.year, day.month, day.day)
        begin, end = (
            next((n for n, moment in enumerate(shown) if moment >= local), len(shown))
            for local in (midnight + timedelta(minutes=m) for m in hours_of(day))
        )
        is_open[begin:end] = [True] * (end - begin)
    return is_open


def clock_text(minutes):
    return f"{minutes // 60:02}:{minutes % 60:02}"


@st.composite
def sessions(draw):
    opens = draw(st.integers(0, 1_439))
    closes = draw(st.one_of(st.just(1_440), st.integers(opens + 1, 1_440)))
    weekdays = draw(st.sets(st.integers(0, 6), min_size=1))
    return opens, closes, weekdays


ZONES = {
    "UTC": "2025-03-07",
    NEW_YORK: "2025-03-07",
    "Europe/London": "2025-10-24",
    "Australia/Lord_Howe": "2025-04-04",  # half an hour
    "America/St_Johns": "2010-11-05",  # at one past midnight, back to 23:01
    "America/Sao_Paulo": "2018-11-02",  # midnight is skipped
    "America/Havana": "2024-11-01",  # back to midnight
    "Pacific/Apia": "2011-12-28",  # a date is skipped
}


@pytest.mark.req("A-24", "F-101")
@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(ZONES)), sessions(), st.data())
def test_it_is_open_when_a_clock_read_minute_by_minute_says_so(zone, session, data):
    opens, closes, weekdays = session
    # Two days before what is looked at, so that the first dates are whole.
    start_ms, days = utc(f"{ZONES[zone]}T00:00") - 48 * HOUR, 8
    first = datetime.fromtimestamp(start_ms // 1000, UTC).date()
    trading = [
        day
        for day in (first + timedelta(days=n) for n in range(days))
        if day.weekday() in weekdays
    ]
    holidays = data.draw(st.sets(st.sampled_from(trading), max_size=2))
    some = [day for day in trading if day not in holidays and closes - opens > 1]
    early = data.draw(
        st.dictionaries(
            st.sampled_from(some), st.integers(opens + 1, closes - 1), max_size=2
        )
        if some
        else st.just({})
    )
    calendar = Calendar(
        zone,
        opens=clock_text(opens),
        closes=clock_text(closes),
        weekdays=weekdays,
        holidays=holidays,
        early_closes={day: clock_text(at) for day, at in early.items()},
    )

    def hours_of(day):
        if day.weekday() not in weekdays or day in holidays:
            return None
        return opens, early.get(day, closes)

    is_open = naive_minutes(zone, start_ms, days, hours_of)

    looked_at = range(2 * 1_440, 6 * 1_440)
    for n in looked_at:
        if n % 7 == 0 or is_open[n] != is_open[n - 1]:
            assert calendar.is_open(start_ms + n * MINUTE) == is_open[n]
    now = data.draw(st.sampled_from(looked_at))
    now_ms = start_ms + now * MINUTE + data.draw(st.integers(0, MINUTE - 1))
    changes = [n for n in looked_at if n > now and is_open[n] != is_open[n - 1]]
    found = calendar.next_change_ms(now_ms)
    if changes:
        assert found == start_ms + changes[0] * MINUTE
    else:
        assert found is None or found > start_ms + looked_at[-1] * MINUTE


@pytest.mark.req("A-23")
@given(st.integers(0, 4 * 10**9), sessions())
@settings(max_examples=60, deadline=None)
def test_a_day_order_never_outlives_an_open_session(now_s, session):
    opens, closes, weekdays = session
    calendar = Calendar(
        NEW_YORK, opens=clock_text(opens), closes=clock_text(closes), weekdays=weekdays
    )
    now_ms = now_s * 1000

    end_ms = calendar.day_end_ms(now_ms)
    change_ms = calendar.next_change_ms(now_ms)

    assert end_ms > now_ms
    assert calendar.is_open(end_ms - 1)
    if calendar.is_open(now_ms):
        assert change_ms is None or end_ms <= change_ms
        assert end_ms - now_ms <= 25 * HOUR
    else:
        assert change_ms is not None
        assert now_ms < change_ms < end_ms
        assert calendar.is_open(change_ms)
        assert not calendar.is_open(change_ms - 1)


# ── what is refused ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"timezone": "America/Gotham"}, "'America/Gotham', which is not known"),
        ({"timezone": "../etc/passwd"}, "which is not known"),
        ({"opens": None}, "closes without opens"),
        ({"closes": None}, "opens without closes"),
        ({"opens": "9:30"}, "'9:30', not HH:MM"),
        ({"closes": "24:01"}, "'24:01', not HH:MM"),
        ({"closes": "16:00\n"}, "not HH:MM"),
        ({"opens": "16:00"}, "opens is not before closes"),
        ({"opens": "24:00", "closes": "24:00"}, "opens is not before closes"),
        ({"weekdays": []}, "it would never open"),
        ({"weekdays": [1, 7]}, r"\[1, 7\], not from 0 to 6"),
        ({"early_closes": {INDEPENDENCE: "13:00"}}, "2025-07-04, which is no trading"),
        ({"early_closes": {date(2025, 7, 5): "13:00"}}, "2025-07-05, which is no trad"),
        ({"early_closes": {EVE: "09:30"}}, "2025-07-03 is not within the session"),
        ({"early_closes": {EVE: "16:00"}}, "2025-07-03 is not within the session"),
    ],
)
def test_a_calendar_that_contradicts_itself_is_refused(fields, said):
    fields = {
        "timezone": NEW_YORK,
        "opens": "09:30",
        "closes": "16:00",
        "holidays": [INDEPENDENCE],
    } | fields

    with pytest.raises(ValueError, match=said):
        Calendar(**fields)


def test_a_market_that_never_closes_has_no_holidays():
    with pytest.raises(ValueError, match="holidays or early closes without"):
        Calendar(holidays=[INDEPENDENCE])

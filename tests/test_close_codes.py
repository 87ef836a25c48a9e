"""Every close code in every phase of a connection: what is prescribed is done."""

import itertools

import pytest

from feedhandler.authentication import ApiKey
from feedhandler.backoff import Backoff
from feedhandler.reconnect import Reconnect
from feedhandler.records import Flags
from feedhandler.secret import Secret
from feedhandler.session import State
from tests.feeds import AAPL, SECOND_NS, SOUND, Feed

PHASES = ("before authentication", "before the snapshot", "steady", "during a resync")
ATTEMPTS = 3

# The delays, in seconds, until the client gives up a venue that always closes alike.
BACKOFF = [1, 2, 4]
PRESCRIBED = {
    1000: BACKOFF,
    1001: [0, *BACKOFF],
    1002: [1],
    1003: [1],
    1005: BACKOFF,
    1006: BACKOFF,
    1007: [1],
    1008: [],
    1009: BACKOFF,
    1010: [1],
    1011: BACKOFF,
    1012: BACKOFF,
    1013: [2, 4, 8],
    3000: BACKOFF,
    4000: [],
    4001: [61, 61, 61],
    4002: [],
    4003: [90],
    4004: BACKOFF,
    4999: BACKOFF,
}
BEFORE_AUTHENTICATION = {1008: [1, 2]}


def begin() -> Feed:
    """A session of /ws/custom, which authenticates and has a book."""
    key = ApiKey("key-0001", Secret("s"))
    reconnect = Reconnect(Backoff(attempts=ATTEMPTS, jitter=0))
    return Feed(AAPL, "user_orders", opened=False, key=key, reconnect=reconnect)


def live_to(feed: Feed, phase: str) -> None:
    """Open the connection and bring it to *phase*."""
    feed.open()
    if phase == "before authentication":
        return
    feed.authenticated()
    feed.collect()
    feed.answer()
    if phase == "before the snapshot":
        return
    feed.snapshot(100, *SOUND)
    assert feed.flags & Flags.LIVE
    if phase == "during a resync":
        feed.update(102, [(150.0, 1.0)])
        feed.collect()


def test_the_table_is_of_twenty_codes_in_four_phases():
    assert len(PRESCRIBED) * len(PHASES) == 80


@pytest.mark.req("I-19", "F-21", "CC-11")
@pytest.mark.parametrize(("code", "phase"), list(itertools.product(PRESCRIBED, PHASES)))
def test_a_close_is_followed_by_what_is_prescribed(code: int, phase: str):
    feed, delays = begin(), []
    while (wait_ns := feed.session.wait_ns(feed.now_ns)) is not None:
        delays.append(wait_ns / SECOND_NS)
        feed.now_ns += wait_ns
        live_to(feed, phase)
        feed.quotes()
        feed.session.closed(feed.now_ns, code, "because")

        assert not feed.flags & Flags.LIVE
        assert not any(quote.flags & Flags.LIVE for quote in feed.quotes())
        assert feed.session.state in (State.CLOSED, State.FAILED)

    expected = PRESCRIBED[code]
    if phase == "before authentication":
        expected = BEFORE_AUTHENTICATION.get(code, expected)
    assert delays == [0, *expected]
    assert feed.session.state == State.FAILED
    assert feed.session.failed == f"closed with {code} because"


# ── 4002: which channels are to blame ─────────────────────────────────────────────────


def refused(feed: Feed, reason: str) -> int | None:
    live_to(feed, "steady")
    feed.session.closed(feed.now_ns, 4002, reason)
    wait_ns = feed.session.wait_ns(feed.now_ns)
    feed.now_ns += wait_ns or 0
    return wait_ns


@pytest.mark.req("CC-08", "A-29")
def test_after_4002_the_channels_it_names_are_left_out_of_the_one_retry():
    feed = begin()

    assert refused(feed, f"unknown channel {AAPL}") == SECOND_NS
    assert list(feed.session.routes) == ["user_orders"]

    feed.sent()
    feed.open()
    feed.authenticated()
    feed.collect()

    assert feed.asked()[-1] == ("subscribe", ["user_orders"])


@pytest.mark.req("CC-08", "A-29")
def test_a_channel_that_was_refused_before_the_close_counts_as_named():
    feed = begin()
    feed.open()
    feed.authenticated()
    feed.collect()
    feed.refuse("invalid_parameter", f"Invalid channel: {AAPL}")
    feed.session.closed(feed.now_ns, 4002, "too many invalid subscriptions")

    assert feed.session.wait_ns(feed.now_ns) == SECOND_NS


@pytest.mark.req("CC-08")
def test_4002_for_the_same_channels_again_is_the_end():
    feed = begin()

    assert refused(feed, "unknown channel orderbook:AAPL:1") is None
    assert feed.session.state == State.FAILED


# ── 1008 and 4000 are for a person ────────────────────────────────────────────────────


@pytest.mark.req("A-03", "CC-04")
def test_1008_before_authentication_is_retried_twice_however_often_it_waits():
    feed = begin()
    for delay in (0, 1, 2):
        assert feed.session.wait_ns(feed.now_ns) == delay * SECOND_NS
        feed.now_ns += delay * SECOND_NS
        feed.open()
        feed.session.closed(feed.now_ns, 1008, "policy")

    assert feed.session.state == State.FAILED

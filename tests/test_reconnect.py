"""What follows a close: the rules, and a session that lives by them in virtual time."""

import pytest

from feedhandler.backoff import Backoff
from feedhandler.protocol.codes import CLOSE_ACTIONS, CloseAction, action_for
from feedhandler.reconnect import RULES, Reconnect
from feedhandler.session import State
from tests.feeds import AAPL, SECOND_NS, SOUND, Feed

DELAYS_S = [2**n for n in range(10)]


def exact(attempts: int = 10) -> Reconnect:
    return Reconnect(Backoff(attempts=attempts, jitter=0))


def delays_s(reconnect: Reconnect, action: CloseAction, most: int = 20) -> list[float]:
    """The delays of a connection that always ends alike, until it gives up."""
    found = []
    for _ in range(most):
        delay_ns = reconnect.next_ns(action)
        if delay_ns is None:
            return found
        found.append(delay_ns / SECOND_NS)
    return found


# ── the rules ─────────────────────────────────────────────────────────────────────────


def test_every_action_has_a_rule_and_every_rule_is_used():
    used = set(CLOSE_ACTIONS.values()) | {action_for(1008, "", False)}

    assert set(RULES) == set(CloseAction) == used


@pytest.mark.req("I-20", "A-36")
@pytest.mark.parametrize(
    ("action", "seconds"),
    [
        (CloseAction.BACKOFF, DELAYS_S),
        (CloseAction.RECONNECT, [0, *DELAYS_S]),
        (CloseAction.BACKOFF_TWICE, [2 * s for s in DELAYS_S]),
        (CloseAction.COOL_DOWN, [61] * 6 + [64, 128, 256, 512]),
        (CloseAction.RETRY_ONCE, [1]),
        (CloseAction.RETRY_TWICE, [1, 2]),
        (CloseAction.RESUBSCRIBE_ONCE, [1]),
        (CloseAction.WAIT, [90]),
        (CloseAction.STOP, []),
    ],
)
def test_an_action_has_its_delays_and_its_end(action, seconds):
    assert delays_s(exact(), action) == seconds


@pytest.mark.req("CC-02", "A-35")
def test_at_once_is_within_a_quarter_of_a_second():
    found = [
        Reconnect(Backoff(seed=seed)).next_ns(CloseAction.RECONNECT)
        for seed in range(50)
    ]

    assert all(0 <= delay_ns < SECOND_NS // 4 for delay_ns in found)
    assert len(set(found)) > 40


def test_after_a_useful_connection_everything_starts_over():
    reconnect = exact()
    for action in (CloseAction.RETRY_ONCE, CloseAction.BACKOFF, CloseAction.WAIT):
        reconnect.next_ns(action)
    reconnect.reset()

    assert reconnect.attempt == 0
    assert delays_s(reconnect, CloseAction.RETRY_ONCE) == [1]


@pytest.mark.req("RC-01")
def test_retrying_forever_is_no_reason_to_retry_what_is_hopeless():
    reconnect = Reconnect(Backoff(attempts=2, jitter=0), retry_forever=True)

    assert delays_s(reconnect, CloseAction.BACKOFF, 6) == [1, 2, 1, 2, 1, 2]
    assert reconnect.next_ns(CloseAction.STOP) is None


@pytest.mark.req("CC-07", "SEC-16")
def test_a_slow_consumer_need_not_wait_for_the_limits_to_forget_it():
    assert action_for(4001) is CloseAction.COOL_DOWN
    assert action_for(4001, "slow consumer") is CloseAction.BACKOFF


# ── in virtual time ───────────────────────────────────────────────────────────────────


def attempt(feed: Feed) -> float | None:
    """Wait for the next attempt; return how long that was, None for ever."""
    wait_ns = feed.session.wait_ns(feed.now_ns)
    if wait_ns is None:
        return None
    if wait_ns:
        assert feed.session.wait_ns(feed.now_ns + wait_ns - 1) == 1
    feed.now_ns += wait_ns
    feed.session.connecting(feed.now_ns)
    return wait_ns / SECOND_NS


def attempts(feed: Feed) -> list[float]:
    """Fail to connect until the session gives up; return the delays."""
    found = []
    while (delay_s := attempt(feed)) is not None:
        found.append(delay_s)
        assert feed.session.state == State.CONNECTING
        feed.session.closed(feed.now_ns, reason="connection refused")
    return found


@pytest.mark.req("RC-03", "RC-04", "BP-02")
def test_a_venue_that_is_down_is_tried_after_1_2_4_up_to_512_seconds_and_no_more():
    feed = Feed(AAPL, opened=False, reconnect=exact())

    assert attempts(feed) == [0, *DELAYS_S]
    assert feed.session.state == State.FAILED
    assert feed.session.failed == "connection refused"
    (failed,) = feed.failures()
    assert failed.detail == {"reason": "connection refused"}


@pytest.mark.req("A-33", "RC-04")
@pytest.mark.parametrize("seed", range(20))
def test_with_jitter_every_delay_is_within_a_fifth(seed: int):
    backoff = Backoff(jitter=0.2, seed=seed)
    feed = Feed(AAPL, opened=False, reconnect=Reconnect(backoff))

    first, *found = attempts(feed)

    assert first == 0
    assert len(found) == 10
    for delay_s, whole_s in zip(found, DELAYS_S, strict=True):
        assert 0.8 * whole_s <= delay_s <= 1.2 * whole_s
    assert found != DELAYS_S


def flap(
    feed: Feed, live_s: float, heartbeat: bool = False, answer: bool = True
) -> None:
    """A connection that is made, lives for a while, and is lost."""
    feed.open()
    if answer:
        feed.answer()
        feed.snapshot(100, *SOUND)
    feed.tick(live_s)
    if heartbeat:
        feed.heartbeat()
    feed.close()


@pytest.mark.req("RC-05", "A-34", "F-19")
@pytest.mark.parametrize(
    ("life", "useful"),
    [
        pytest.param({"live_s": 0.0}, False, id="flapping"),
        pytest.param({"live_s": 29.9}, False, id="29.9 s"),
        pytest.param({"live_s": 30.0}, True, id="30 s"),
        pytest.param({"live_s": 5.0, "heartbeat": True}, True, id="a heartbeat"),
        pytest.param({"live_s": 0.5, "heartbeat": True}, False, id="one at once"),
        pytest.param({"live_s": 40, "answer": False}, False, id="not subscribed"),
    ],
)
def test_the_delays_start_over_after_a_useful_connection_only(life, useful: bool):
    feed = Feed(AAPL, opened=False, reconnect=exact())
    for _ in range(3):
        attempt(feed)
        feed.session.closed(feed.now_ns)
    attempt(feed)
    flap(feed, **life)

    assert attempt(feed) == (1 if useful else 8)


@pytest.mark.req("CN-07")
@pytest.mark.parametrize("state", ["connecting", "open", "closed"])
def test_a_session_that_was_ended_is_never_connected_again(state: str):
    feed = Feed(AAPL, opened=state == "open", reconnect=exact())
    if state == "closed":
        feed.session.closed(feed.now_ns)
    feed.session.end(feed.now_ns)
    feed.session.closed(feed.now_ns, 1000)

    assert feed.session.wait_ns(feed.now_ns) is None
    assert feed.session.state == State.CLOSED
    assert feed.session.failed is None


@pytest.mark.req("CN-07")
@pytest.mark.parametrize("code", [1000, 1006, 4000])
def test_nothing_follows_the_end_of_a_session_that_was_to_end(code: int):
    feed = Feed(AAPL, reconnect=exact())
    feed.session.end(feed.now_ns)
    feed.session.closed(feed.now_ns, code)

    assert [event.kind for event in feed.ends()] == ["closed"]
    assert feed.session.failed is None


@pytest.mark.req("RC-02", "RC-06")
def test_after_the_last_attempt_there_is_no_other():
    feed = Feed(AAPL, opened=False, reconnect=exact())
    attempts(feed)

    assert feed.session.wait_ns(feed.now_ns + 10**18) is None
    with pytest.raises(ValueError, match="FAILED cannot be connecting"):
        feed.session.connecting(feed.now_ns)


@pytest.mark.req("F-62", "CC-09", "A-08")
def test_one_connection_too_many_waits_until_the_dead_ones_are_gone():
    feed = Feed(AAPL, opened=False, reconnect=exact())
    attempt(feed)
    feed.open()
    feed.session.closed(feed.now_ns, 4003, "duplicate connection")

    assert attempt(feed) == 90
    flap(feed, live_s=30)
    assert attempt(feed) == 1


@pytest.mark.req("RC-12", "CN-02", "BP-20")
def test_every_end_and_what_follows_is_an_event():
    feed = Feed(AAPL, reconnect=exact(attempts=1), name="market-data-1")
    feed.events()
    feed.session.closed(feed.now_ns, 4004, "restarting")
    attempt(feed)
    feed.session.closed(feed.now_ns, 1006, "connection refused")

    told = [(e.kind, e.detail) for e in feed.ends()]
    who = {"connection": "market-data-1"}
    assert told == [
        ("closed", {**who, "code": 4004, "reason": "restarting"}),
        ("reconnect", {**who, "attempt": 1, "in_ms": 1000}),
        ("closed", {**who, "code": 1006, "reason": "connection refused"}),
        ("failed", {**who, "reason": "connection refused"}),
    ]

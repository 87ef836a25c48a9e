"""A session beside its books: who it is, whether the venue is there, what it asks."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from feedhandler.authentication import ApiKey
from feedhandler.backoff import Backoff
from feedhandler.errors import NotConnected, Throttled
from feedhandler.protocol.messages import (
    BatchCancel,
    BatchOrders,
    BatchOrdersData,
    BatchSubmit,
    CancelOrder,
    CancelOrderData,
    OrderData,
    Pong,
    SubmitOrder,
)
from feedhandler.reconnect import Reconnect
from feedhandler.records import Flags
from feedhandler.secret import Secret
from feedhandler.session import Disconnected, State
from feedhandler.tracker import Action
from tests.feeds import AAPL, SECOND_NS, SOUND, TIME_MS, Feed, live_feed
from tests.polite import Counter

ORDERS, TRADES = "user_orders", "user_trades"


def key() -> ApiKey:
    return ApiKey("key-0001", Secret("s3cret"))


def private(*channels: str, owner: ApiKey | None = None, **options: Any) -> Feed:
    """A session that has sent its authentication and waits."""
    options.setdefault("reconnect", Reconnect(Backoff(jitter=0)))
    channels = channels or (ORDERS,)
    return Feed(*channels, key=owner or key(), **options)


def trading(*channels: str, **options: Any) -> Feed:
    """A session that is authenticated and subscribed."""
    feed = private(*channels, **options)
    feed.authenticated()
    feed.collect()
    feed.answer()
    feed.sent()
    feed.events()
    feed.session.take_messages()
    return feed


def order(**fields: Any) -> SubmitOrder:
    return SubmitOrder(OrderData("AAPL", "buy", "limit", 1, 150.0, **fields))


# ── authentication ────────────────────────────────────────────────────────────────────


@pytest.mark.req("AU-09", "AU-13", "I-12")
def test_nothing_but_authenticate_is_sent_before_the_venue_said_yes():
    feed = private(ORDERS, TRADES)
    feed.heartbeat()
    feed.tick(2)

    assert [m["action"] for m in feed.sent()] == ["authenticate", "pong"]
    assert feed.session.state == State.OPEN

    feed.wire = []
    feed = private(ORDERS, TRADES)
    assert feed.authenticated() == Action.RESYNC
    assert feed.session.state == State.AUTHENTICATED
    assert feed.collect() == Action.SEND
    assert feed.asked() == [("subscribe", [ORDERS, TRADES])]


@pytest.mark.req("LC-03", "AU-13")
def test_market_data_is_never_authenticated():
    feed = Feed(AAPL)
    feed.answer()

    assert [m["action"] for m in feed.sent()] == ["subscribe"]
    assert "authenticated" not in [e.detail["to"] for e in feed.events("state")]


@pytest.mark.req("LC-03", "LC-04")
def test_a_session_that_gives_up_its_last_channel_is_authenticated_still():
    feed = trading()
    assert feed.session.state == State.SUBSCRIBED

    feed.session.remove(ORDERS)

    assert feed.session.state == State.AUTHENTICATED


@pytest.mark.req("AU-14", "BP-08")
def test_every_connection_authenticates_before_it_subscribes():
    feed = trading()
    for _ in range(3):
        feed.close()
        feed.pass_s(10)
        feed.open()
        assert [m["action"] for m in feed.sent()] == ["authenticate"]
        feed.session.receive(auth_response(feed), feed.now_ns)
        feed.collect()
        assert feed.asked() == [("subscribe", [ORDERS])]
        feed.sent()


def auth_response(feed: Feed) -> bytes:
    message = {"type": "auth_response", "status": "success", "timestamp": TIME_MS}
    return json.dumps(message).encode()


@pytest.mark.req("AU-11", "F-59", "BP-20")
def test_wrong_credentials_are_the_end():
    feed = private()
    actions = feed.authenticated(
        status="error",
        message="Invalid API key or signature",
        data={"status": "error", "code": "invalid_credentials"},
    )
    assert actions & Action.CLOSE

    feed.session.closed(feed.now_ns, 1006, feed.session.close_reason)

    assert feed.session.state == State.FAILED
    assert feed.session.failed == "authentication failed: Invalid API key or signature"


@pytest.mark.req("F-56", "A-02")
def test_a_refused_timestamp_is_sent_anew_on_the_same_connection():
    feed = private()
    (first,) = feed.wire
    wrong = {"status": "error", "code": "invalid_parameter"}
    feed.authenticated(status="error", data=wrong, timestamp=TIME_MS)
    feed.collect()
    again = feed.wire[-1]

    assert again["action"] == "authenticate"
    assert again["data"]["timestamp"] == TIME_MS
    assert again["data"]["signature"] != first["data"]["signature"]

    feed.authenticated()

    assert feed.session.state == State.AUTHENTICATED


@pytest.mark.req("F-60")
def test_an_authentication_without_an_answer_ends_the_connection_after_ten_seconds():
    feed = private()

    assert not feed.tick(9.9) & Action.CLOSE
    assert feed.tick(0.1) & Action.CLOSE

    feed.session.closed(feed.now_ns)

    assert feed.session.wait_ns(feed.now_ns) == SECOND_NS


@pytest.mark.req("F-33", "I-12")
def test_an_answer_that_says_yes_and_no_is_no():
    feed = private()
    feed.authenticated(status="success", data={"status": "error"})

    assert feed.session.state == State.OPEN
    for _ in range(19):
        assert not feed.tick(0.1) & Action.CLOSE
    assert feed.tick(0.1) & Action.CLOSE
    assert [m["action"] for m in feed.sent()] == ["authenticate"]


@pytest.mark.req("A-08", "CC-09", "F-62")
def test_a_login_that_is_refused_for_now_waits_for_the_close_that_says_why():
    feed = private()
    feed.authenticated(status="error", data={"status": "error", "code": "too_many"})
    feed.tick(0.1)
    feed.session.closed(feed.now_ns, 4003, "duplicate connection")

    assert feed.session.wait_ns(feed.now_ns) == 90 * SECOND_NS


@pytest.mark.req("F-33", "F-32")
def test_a_second_answer_and_one_to_nobody_change_nothing():
    feed = trading()
    feed.receive(auth_response(feed))
    quiet = Feed(AAPL)
    quiet.receive(auth_response(quiet))

    assert feed.session.state == State.SUBSCRIBED
    assert quiet.session.state == State.OPEN
    assert feed.counter("unrouted") == quiet.counter("unrouted") == 1


@pytest.mark.req("F-61", "A-46", "LM-03")
def test_a_venue_that_bounces_three_endpoints_is_not_asked_more_than_it_allows():
    owner, sent = key(), Counter()
    reconnects = [Reconnect(Backoff(jitter=0)) for _ in range(3)]
    feeds = [private(owner=owner, reconnect=r, opened=False) for r in reconnects]
    now_ns = feeds[0].now_ns
    end_ns = now_ns + 600 * SECOND_NS
    attempts = 0
    while now_ns < end_ns:
        for feed in feeds:
            feed.now_ns = now_ns
            if feed.session.wait_ns(now_ns) == 0:
                feed.open()
                attempts += 1
                for message in feed.sent():
                    sent.count(now_ns, message, "key", "connection")
                feed.session.closed(now_ns, 1011)
        now_ns += SECOND_NS // 10

    assert attempts >= 27
    assert 0 < sent.most()["authentication"] <= 9


# ── is the venue there ────────────────────────────────────────────────────────────────


@pytest.mark.req("HB-05", "F-54", "F-52")
def test_without_heartbeats_a_connection_is_alive_at_89_9_and_lost_at_90_seconds():
    feed = live_feed()
    for _ in range(899):
        assert not feed.tick(0.1) & Action.CLOSE
        feed.update(feed.book().sequence + 1)
    assert feed.book().is_live

    assert feed.tick(0.1) & Action.CLOSE
    assert not feed.book().is_live
    assert feed.session.close_reason == "no heartbeat for 90 s"
    assert feed.counter("missed_heartbeats") == 2


@pytest.mark.req("F-08", "A-11")
def test_after_ten_seconds_of_silence_the_venue_is_asked_and_after_ten_more_lost():
    feed = live_feed(pongs=False)
    feed.tick()
    for _ in range(98):
        feed.tick(0.1)
    assert feed.pings == 0

    feed.tick(0.1)
    assert feed.pings == 1

    for _ in range(98):
        assert not feed.tick(0.1) & Action.CLOSE
    assert feed.book().is_live
    assert feed.tick(0.1) & Action.CLOSE
    assert not feed.book().is_live
    assert feed.pings == 1


@pytest.mark.req("A-11")
@pytest.mark.parametrize("sign", ["pong", "ping", "message"])
def test_any_sign_of_life_is_one(sign: str):
    feed = live_feed(pongs=False)
    for tenth in range(3000):
        assert not feed.tick(0.1) & Action.CLOSE, tenth
        if tenth % 250 == 249:
            feed.heartbeat()
        if tenth % 150 == 75:
            if sign == "pong":
                feed.session.pong(b"unasked", feed.now_ns)
            elif sign == "ping":
                feed.session.pinged(feed.now_ns)
            else:
                feed.update(feed.book().sequence + 1)
    assert feed.book().is_live


@pytest.mark.req("HB-08", "BP-04")
def test_round_trips_are_measured_with_the_heartbeats():
    feed = live_feed(pongs=False)
    feed.heartbeat()
    assert feed.pings == 1
    feed.pass_s(0.025)
    feed.session.pong(b"another", feed.now_ns)
    assert feed.session.round_trip_ns == 0

    feed.session.pong(feed.session.ping_payload, feed.now_ns)

    assert feed.session.round_trip_ns == 25_000_000
    assert feed.counter("pings") == 1

    feed.heartbeat()
    assert feed.pings == 1, "a burst of heartbeats is no reason for a burst of pings"


@pytest.mark.req("F-57", "F-55")
def test_no_clock_but_the_argument_decides_anything():
    """The venue's clock steps back an hour, and ours is of no interest."""
    feed = live_feed()
    feed.update(101, [(150.0, 1.0)], timestamp=TIME_MS)
    feed.update(102, [(150.0, 2.0)], timestamp=TIME_MS - 3_600_000)
    feed.update(103, [(150.0, 3.0)], timestamp=0)

    assert feed.book().is_live
    stamps = [quote.venue_ns for quote in feed.quotes()]
    assert stamps == [TIME_MS * 10**6, (TIME_MS - 3_600_000) * 10**6, 0]
    assert not feed.tick(0.1) & Action.CLOSE


# ── a loop that stalled ───────────────────────────────────────────────────────────────


def stalled(**options: Any) -> Feed:
    """A live feed whose loop turns, and then does not for five seconds."""
    feed = live_feed(**options)
    feed.tick()
    feed.tick(0.1)
    feed.pass_s(5)
    return feed


@pytest.mark.req("F-58", "I-03")
@pytest.mark.parametrize("first", ["a message", "a tick"])
def test_what_waited_in_the_socket_is_stale_until_all_of_it_was_read(first: str):
    feed = stalled(pongs=False)
    if first == "a tick":
        feed.tick()
    feed.update(101, [(150.0, 1.0)])
    feed.update(102, [(150.0, 2.0)])

    assert all(
        q.flags & (Flags.LIVE | Flags.STALE) == Flags.STALE for q in feed.quotes()
    )
    assert feed.book().sequence == 102
    assert feed.session.is_late

    feed.tick(0.1)
    assert feed.pings == 1
    feed.update(103, [(150.0, 3.0)])
    assert not feed.book().is_live
    feed.session.pong(feed.session.ping_payload, feed.now_ns)

    assert feed.book().is_live
    assert feed.quotes()[-1].bid_size == 3.0
    assert [e.kind for e in feed.events("stall", "stale")] == ["stall", "stale"]
    feed._take(0)
    assert [e.kind for e in feed.events("live")] == ["live"]
    assert feed.counter("stalls") == 1
    assert feed.counter("resyncs") == 0


@pytest.mark.req("F-58")
def test_a_pong_to_a_ping_of_before_the_stall_proves_nothing():
    feed = live_feed(pongs=False)
    feed.heartbeat()
    before = feed.session.ping_payload
    feed.tick()
    feed.pass_s(5)
    feed.update(101)
    feed.session.pong(before, feed.now_ns)

    assert not feed.book().is_live

    feed.tick(0.1)
    feed.session.pong(feed.session.ping_payload, feed.now_ns)

    assert feed.book().is_live


@pytest.mark.req("F-58", "I-03")
def test_every_stall_needs_a_pong_of_its_own():
    feed = stalled()
    feed.tick()
    assert feed.book().is_live

    feed.pongs = False
    feed.pass_s(5)
    feed.tick()
    first = feed.session.ping_payload
    feed.tick(5)
    feed.session.pong(first, feed.now_ns)
    assert not feed.book().is_live, "there was another stall behind the first ping"

    feed.session.pong(feed.session.ping_payload, feed.now_ns)
    assert feed.book().is_live


@pytest.mark.req("F-58", "I-03")
def test_a_venue_that_answers_no_ping_is_left_after_a_stall():
    feed = stalled(pongs=False)
    feed.tick()
    for _ in range(98):
        feed.update(feed.book().sequence + 1)
        assert not feed.tick(0.1) & Action.CLOSE
    assert feed.tick(0.1) & Action.CLOSE


def test_a_gap_during_a_stall_is_a_gap_after_it():
    feed = stalled(pongs=False)
    feed.update(105)
    feed.tick(0.1)
    feed.session.pong(feed.session.ping_payload, feed.now_ns)

    assert feed.flags & Flags.GAP
    assert not feed.book().is_live

    feed.snapshot(105, *SOUND)

    assert feed.book().is_live


# ── private messages ──────────────────────────────────────────────────────────────────


def update(channel: str = ORDERS) -> dict[str, Any]:
    order_data = {
        "order_id": "o-1", "client_id": "c-1", "symbol": "AAPL", "side": "buy",
        "type": "limit", "quantity": 1, "filled_quantity": 0, "remaining_quantity": 1,
        "price": 150, "status": "accepted", "time_in_force": "gtc",
        "created_at": TIME_MS, "updated_at": TIME_MS,
    }  # fmt: skip
    return {"type": "order_update", "data": order_data, "channel": channel}


@pytest.mark.req("UO-01", "MF-13")
def test_a_message_of_a_private_channel_is_kept_for_the_host():
    feed = trading()

    assert feed.receive(update()) & Action.DELIVER
    (message,) = feed.session.take_messages()
    assert message.data.order_id == "o-1"
    assert feed.session.take_messages() == []


@pytest.mark.req("SB-05", "F-31")
def test_a_message_of_a_channel_that_is_not_held_is_dropped_and_counted():
    feed = trading()
    feed.receive(update("user_trades"))
    feed.session.remove(ORDERS)
    feed.receive(update())

    assert feed.session.take_messages() == []
    assert feed.counter("unrouted") == 2


@pytest.mark.req("I-17")
def test_a_host_that_takes_nothing_ends_the_connection_and_not_the_machine():
    feed = trading()
    text = json.dumps(update()).encode()
    for _ in range(65_536):
        assert not feed.session.receive(text, feed.now_ns) & Action.CLOSE
    assert feed.session.receive(text, feed.now_ns) & Action.CLOSE


# ── requests ──────────────────────────────────────────────────────────────────────────


def response(request_id: str) -> dict[str, Any]:
    data = {
        "status": "accepted", "order_id": "o-1", "client_id": request_id,
        "symbol": "AAPL", "side": "buy", "type": "limit", "quantity": 1, "price": 150,
        "time_in_force": "gtc",
    }  # fmt: skip
    return {"type": "order_response", "data": data, "timestamp": 1, "id": request_id}


@pytest.mark.req("MF-10", "MF-12")
def test_answers_find_their_requests_in_any_order_between_pushes():
    feed = trading()
    first, second = (feed.session.ask(order(), feed.now_ns) for _ in range(2))
    feed.receive(update())
    feed.receive(response(second))
    feed.receive(update())
    feed.receive(response(first))

    answers = feed.session.take_answers()
    assert [a.id for a in answers] == [second, first]
    assert all(a.message.data.status == "accepted" for a in answers)
    assert first != second


@pytest.mark.req("MF-12")
def test_a_million_ids_are_a_million():
    session = Feed().session

    assert len({session.new_id("submit") for _ in range(1_000_000)}) == 1_000_000


@pytest.mark.req("MF-14", "ER-01")
def test_an_error_is_the_answer_to_its_request():
    feed = trading()
    request_id = feed.session.ask(order(), feed.now_ns)
    feed.refuse(
        "insufficient_funds", "no", {"id": request_id, "action": "submit_order"}
    )

    (answer,) = feed.session.take_answers()
    assert answer.id == request_id
    assert answer.message.data.code == "insufficient_funds"


@pytest.mark.req("MF-11", "F-64")
def test_a_request_without_an_answer_is_unknown_after_ten_seconds():
    feed = trading()
    request_id = feed.session.ask(order(), feed.now_ns)
    feed.sent()
    feed.tick(9.9)
    assert feed.session.take_answers() == []

    feed.tick(0.1)

    assert feed.session.take_answers() == [(request_id, "submit_order", None)]
    assert feed.sent() == []
    assert feed.session.state == State.SUBSCRIBED

    feed.receive(response(request_id))

    (late,) = feed.session.take_answers()
    assert late.id == request_id
    assert late.message.data.order_id == "o-1"

    feed.receive(response(request_id))

    assert feed.session.take_answers() == []
    assert feed.counter("unrouted") == 1


@pytest.mark.req("F-64")
def test_an_error_that_comes_late_is_an_answer_too():
    feed = trading()
    feed.session.ask(order(), feed.now_ns)
    (request,) = feed.sent()
    feed.tick(10)
    feed.session.take_answers()
    feed.refuse("insufficient_funds", request=request)

    (late,) = feed.session.take_answers()
    assert late.message.data.code == "insufficient_funds"


@pytest.mark.req("A-19", "F-63")
def test_the_host_is_told_where_a_channel_begins_and_a_connection_ends():
    feed = private(ORDERS, TRADES)
    feed.authenticated()
    feed.pass_s(0.5)
    feed.collect()
    asked_ns = feed.now_ns
    feed.pass_s(0.5)
    feed.answer()
    feed.receive(update())
    feed.close()

    first, second, message, last = feed.session.take_messages()
    assert (first, second) == ((ORDERS, asked_ns), (TRADES, asked_ns))
    assert message.data.order_id == "o-1"
    assert isinstance(last, Disconnected)


@pytest.mark.req("A-19")
def test_a_channel_is_asked_for_again_to_be_told_what_there_is():
    feed = trading()

    assert feed.session.refresh(ORDERS, feed.now_ns)
    assert feed.asked() == [("unsubscribe", [ORDERS]), ("subscribe", [ORDERS])]
    assert not feed.session.refresh(TRADES, feed.now_ns)

    while feed.session.refresh(ORDERS, feed.now_ns):
        pass
    feed.pass_s(62)
    assert feed.session.refresh(ORDERS, feed.now_ns)


@pytest.mark.req("A-19", "I-08", "BP-19")
def test_what_was_asked_when_a_connection_ended_is_unknown_and_never_asked_again():
    feed = trading()
    request_id = feed.session.ask(order(), feed.now_ns)
    feed.sent()
    feed.close()

    assert feed.session.take_answers() == [(request_id, "submit_order", None)]

    feed.pass_s(5)
    feed.open()
    feed.authenticated()
    feed.collect()

    assert [m["action"] for m in feed.sent()] == ["authenticate", "subscribe"]


@pytest.mark.req("CN-06")
@pytest.mark.parametrize("state", ["connecting", "open", "closed"])
def test_a_request_without_a_connection_fails_at_once(state: str):
    feed = private(opened=state != "connecting", name="trading")
    if state == "closed":
        feed.close()

    with pytest.raises(NotConnected, match=f"trading is not connected: {state}"):
        feed.session.ask(order(), feed.now_ns)


@pytest.mark.req("LM-05", "LM-09", "BP-24")
def test_a_full_class_says_at_once_how_long_to_wait_and_keeps_some_for_cancels():
    feed = trading()
    for _ in range(80):
        feed.session.ask(order(), feed.now_ns)
    feed.pass_s(1)

    with pytest.raises(Throttled) as raised:
        feed.session.ask(order(), feed.now_ns)
    assert raised.value.wait_ns == 60 * SECOND_NS

    cancel = CancelOrderData(order_id="o-1")
    for _ in range(10):
        feed.session.ask(CancelOrder(cancel), feed.now_ns, urgent=True)
    with pytest.raises(Throttled):
        feed.session.ask(CancelOrder(cancel), feed.now_ns, urgent=True)
    assert len(feed.sent()) == 90


@pytest.mark.req("LM-05", "A-14", "BP-23")
def test_a_batch_counts_as_many_as_it_has():
    feed = trading()
    operations = [BatchSubmit("AAPL", "buy", "limit", 1, 150.0) for _ in range(41)]
    batch = BatchOrders(BatchOrdersData(operations))
    feed.session.ask(batch, feed.now_ns, units=41)

    with pytest.raises(Throttled):
        feed.session.ask(
            BatchOrders(BatchOrdersData(operations)), feed.now_ns, units=41
        )
    cancels = BatchOrders(BatchOrdersData([BatchCancel("o-1")] * 39))
    feed.session.ask(cancels, feed.now_ns, units=39)


@pytest.mark.req("LM-10", "ER-06")
def test_the_time_that_the_venue_says_holds_for_the_class_that_it_is_about():
    owner = key()
    feed, other = trading(owner=owner), trading(owner=owner)
    request_id = feed.session.ask(order(), feed.now_ns)
    asked = {"id": request_id, "action": "submit_order"}
    feed.refuse("rate_limit_exceeded", "slow down", asked, retry_after=7)

    for session in (feed.session, other.session):
        with pytest.raises(Throttled) as raised:
            session.ask(order(), feed.now_ns)
        assert raised.value.wait_ns == 7 * SECOND_NS
    feed.session.add(TRADES, 0)
    feed.collect()
    assert feed.asked() == [("subscribe", [TRADES])]


def test_an_order_needs_a_key():
    with pytest.raises(ValueError, match="submit_order on a session without a key"):
        Feed(AAPL).session.ask(order(), 0)


def test_an_id_that_is_under_way_is_not_used_again():
    feed = trading()
    message = order()
    message.id = "mine"
    feed.session.ask(message, feed.now_ns)

    with pytest.raises(ValueError, match="mine"):
        feed.session.ask(message, feed.now_ns)
    assert len(feed.sent()) == 1


# ── a polite client ───────────────────────────────────────────────────────────────────


def restless(make: Callable[..., Feed], **options: Any) -> Feed:
    """A feed that never gives up, and never waits for more than two seconds."""
    reconnect = Reconnect(Backoff(attempts=2, jitter=0), retry_forever=True)
    return make(reconnect=reconnect, **options)


@pytest.mark.req("LM-09", "I-14", "BP-24")
def test_a_client_that_is_flooded_for_five_minutes_passes_no_limit():
    """Every class at once, through three sessions of a key and one without."""
    owner, sent = key(), Counter()
    feeds = [
        *(
            restless(trading, owner=owner, name=n)
            for n in ("trading", "notes", "custom")
        ),
        restless(live_feed, name="market"),
    ]
    start_ns = max(feed.now_ns for feed in feeds)
    refused = asked = 0
    for step in range(3000):
        now_ns = start_ns + step * SECOND_NS // 10
        for number, feed in enumerate(feeds):
            feed.now_ns = now_ns
            if feed.session.state in (State.CLOSED, State.FAILED):
                if feed.session.wait_ns(now_ns) != 0:
                    continue
                feed.open()
            if any(m["action"] == "authenticate" for m in feed.wire):
                feed.authenticated()
                feed.collect()
            for _ in range(3):
                asked += 1
                message = order() if feed.session.key else Pong()
                try:
                    feed.session.ask(message, now_ns, urgent=step % 7 == 0)
                except (Throttled, NotConnected):
                    refused += 1
            feed.session.add(AAPL, 0)
            feed.collect()
            feed.session.remove(AAPL)
            feed.collect()
            feed.heartbeat()
            feed.tick()
            pings, feed.pings = feed.pings, 0
            for _ in range(pings):
                sent.ping(now_ns, feed.session.name)
            for message in feed.sent():
                owner_name = "key" if feed.session.key else feed.session.name
                sent.count(now_ns, message, owner_name, feed.session.name)
            feed.session.take_answers()
            if step % 150 == 10 * number:
                feed.session.closed(now_ns, 1011)

    assert asked > 20_000
    assert refused > asked // 2
    assert sent.violations() == {}
    # It was the client that held back, and it used what it may.
    assert sent.most() == {
        "authentication": 9, "subscribe": 45, "order": 90, "other": 180,
    }  # fmt: skip

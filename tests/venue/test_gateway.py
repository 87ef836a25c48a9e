"""One client's protocol, in virtual time."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedhandler.protocol.channels import MARKET_DATA
from feedhandler.venue.access import Access
from feedhandler.venue.config import TradersConfig, VenueConfig
from feedhandler.venue.exchange import Exchange
from feedhandler.venue.faults import FaultPlan
from feedhandler.venue.gateway import (
    Close,
    Drop,
    Gateway,
    Open,
    Pong,
    Send,
    Services,
)
from feedhandler.venue.limits import NS_PER_S

START = 1_625_097_600 * NS_PER_S
CONFIG = VenueConfig(traders=TradersConfig(enabled=False))


class Client:
    """Speaks to a gateway; its clock moves only when told."""

    def __init__(self, config=CONFIG, faults=None):
        self.now_ns = START
        market = Exchange(config, START)
        access = Access([], config.limits)
        services = Services(config, market, access, faults or FaultPlan())
        self.gateway = Gateway(services, MARKET_DATA, "127.0.0.1", START)

    def wait(self, seconds):
        self.now_ns += round(seconds * NS_PER_S)

    def raw(self, payload):
        return self.gateway.receive(payload, self.now_ns)

    def send(self, action, **fields):
        return self.raw(json.dumps({"action": action, **fields}).encode())

    def subscribe(self, *channels, **fields):
        return self.send("subscribe", data={"channels": list(channels)}, **fields)

    def unsubscribe(self, *channels, **fields):
        return self.send("unsubscribe", data={"channels": list(channels)}, **fields)

    def tick(self):
        return self.gateway.tick(self.now_ns)


def answer(effects):
    """The one message among the effects."""
    (message,) = [json.loads(e.payload) for e in effects if isinstance(e, Send)]
    return message


def error(effects):
    message = answer(effects)
    assert message["type"] == "error"
    return message["data"]


def closes(effects):
    return [(e.code, e.reason) for e in effects if isinstance(e, Close)]


# ── subscriptions ─────────────────────────────────────────────────────────────────────


@pytest.mark.req("SB-01", "SB-02", "MF-09")
def test_a_subscription_is_confirmed_and_then_opened():
    effects = Client().subscribe("trades:AAPL", "orderbook:AAPL:10", id="sub-1")

    assert answer(effects) == {
        "type": "subscription_response",
        "data": {"status": "success", "channels": ["trades:AAPL", "orderbook:AAPL:10"]},
        "timestamp": START // 1_000_000,
        "id": "sub-1",
    }
    assert isinstance(effects[0], Send)
    assert effects[1:] == [Open("trades:AAPL"), Open("orderbook:AAPL:10")]


@pytest.mark.req("A-06")
def test_a_channel_that_is_held_is_opened_again():
    client = Client()
    client.subscribe("orderbook:AAPL:10")

    effects = client.subscribe("orderbook:AAPL:10")

    assert effects[1:] == [Open("orderbook:AAPL:10")]
    assert client.gateway.subscriptions == ("orderbook:AAPL:10",)


@pytest.mark.req("SB-03", "SB-04", "SB-05")
def test_an_unsubscribed_channel_is_dropped_before_the_response():
    client = Client()
    client.subscribe("trades:AAPL", "ticker:AAPL")

    effects = client.unsubscribe("trades:AAPL", id="u")

    assert effects[0] == Drop("trades:AAPL")
    assert answer(effects)["data"] == {"status": "success", "channels": ["trades:AAPL"]}
    assert answer(effects)["id"] == "u"
    assert client.gateway.subscriptions == ("ticker:AAPL",)


@pytest.mark.req("A-12")
def test_unsubscribing_what_is_not_held_succeeds_and_does_nothing():
    effects = Client().unsubscribe("trades:AAPL", "what is this")

    assert [type(effect) for effect in effects] == [Send]
    assert answer(effects)["data"]["status"] == "success"


BAD_CHANNELS = [
    "fx:AAPL", "trades", "trades:", "trades:NOPE", "orderbook:AAPL:0",
    "orderbook:AAPL:-1", "orderbook:AAPL:1000000000", "orderbook:AAPL:ten",
    "orderbook:AAPL:010", "orderbook:AAPL", "orderbook:AAPL:5001", "candles:AAPL:2m",
    "candles:AAPL:1M", "trades:AAPL:", "trades:AAPL:1", "", "x" * 10_000,
    "trades:AAPL\u0000", "trades:../AAPL", "trades:aapl", "trades:A/B", 7, None, [],
]  # fmt: skip


@pytest.mark.req("SB-07", "A-29", "A-44")
@pytest.mark.parametrize("bad", BAD_CHANNELS, ids=lambda bad: repr(bad)[:30])
def test_one_bad_channel_refuses_the_whole_request(bad):
    client = Client()

    effects = client.subscribe("trades:AAPL", bad, id="s")

    data = error(effects)
    assert (data["code"], data["request_id"]) == ("invalid_parameter", "s")
    assert data["request_action"] == "subscribe"
    assert len(effects) == 1
    assert client.gateway.subscriptions == ()
    if isinstance(bad, str):
        assert data["channels"] == [bad[:64]]
        assert len(data["message"]) < 200


@pytest.mark.req("A-29")
def test_the_third_bad_subscribe_in_a_row_closes():
    client = Client()
    client.subscribe("nope")
    client.subscribe("nope")
    client.subscribe("trades:AAPL")
    client.subscribe("nope")
    assert closes(client.subscribe("nope")) == []

    effects = client.subscribe("nope")

    assert error(effects)["code"] == "invalid_parameter"
    assert closes(effects) == [(4002, "invalid subscription")]


@pytest.mark.req("LM-02", "SB-08", "A-29")
def test_the_51st_subscription_is_refused_and_the_set_unchanged():
    client = Client()
    client.subscribe(*(f"orderbook:AAPL:{depth}" for depth in range(1, 51)))

    data = error(client.subscribe("trades:AAPL"))

    assert data["code"] == "invalid_parameter"
    assert "the limit is 50 per connection" in data["message"]
    assert data["channels"] == ["trades:AAPL"]
    assert len(client.gateway.subscriptions) == 50
    assert answer(client.subscribe("orderbook:AAPL:7"))["data"]["status"] == "success"


@pytest.mark.req("SB-11", "A-13")
@pytest.mark.parametrize(
    ("channel", "endpoint"),
    [
        ("user_orders", "/ws/trading"),
        ("account_updates", "/ws/trading"),
        ("system_notifications", "/ws/notifications"),
        ("custom_alerts", "/ws/custom"),
    ],
)
def test_a_channel_of_another_endpoint_is_told_where_to_go(channel, endpoint):
    data = error(Client().subscribe(channel))

    assert data["code"] == "invalid_parameter"
    assert f"'{channel}' is served at {endpoint}" in data["message"]


def test_a_channel_named_twice_is_one_subscription():
    client = Client()

    effects = client.subscribe("trades:AAPL", "trades:AAPL")

    assert effects[1:] == [Open("trades:AAPL")]


# ── format ────────────────────────────────────────────────────────────────────────────


@pytest.mark.req("MF-01", "MF-02", "A-45")
@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"null", b"[]", b"7", b'"x"', b"{}", b'{"action":7}',
     b'{"action":null}',
     b'{"action":"pong"} x', b'{"action":"\xff"}', b"[" * 30_000, b'{"id":"a"}',
     b'{"a":' * 10_000 + b"1" + b"}" * 10_000, b'{"action":NaN}'],
    ids=lambda payload: repr(payload[:20]),
)  # fmt: skip
def test_what_is_no_request_is_answered_with_an_error_without_id(payload):
    message = answer(Client().raw(payload))

    assert message["data"]["code"] == "invalid_parameter"
    assert message["data"]["request_id"] is None
    assert message["data"]["request_action"] is None
    assert "id" not in message


@pytest.mark.req("A-30")
def test_the_third_malformed_message_within_a_minute_closes():
    client = Client()
    client.raw(b"{")
    client.wait(30)
    client.raw(b"{")
    client.wait(30)
    assert closes(client.raw(b"{")) == []

    client.wait(29.9)

    assert closes(client.raw(b"{")) == [(1008, "malformed messages")]


@pytest.mark.req("MF-03", "A-30")
@pytest.mark.parametrize(
    "data", [{}, {"data": {}}, {"data": None}, {"data": []}, {"data": "x"},
             {"data": {"channels": None}}, {"data": {"channels": "trades:AAPL"}}],
    ids=str,
)  # fmt: skip
def test_data_that_is_not_a_list_of_channels_is_an_invalid_parameter(data):
    reply = error(Client().send("subscribe", id="x", **data))

    assert reply["code"] == "invalid_parameter"
    assert reply["request_id"] == "x"
    assert reply["message"].startswith("Invalid parameter: ")


@pytest.mark.req("MF-04", "A-43")
@pytest.mark.parametrize(
    "bad", [7, "", "x" * 129, "a\u0000", "é", ["a"], True], ids=repr
)
def test_a_bad_id_is_an_invalid_parameter_and_not_echoed(bad):
    message = answer(Client().subscribe("trades:AAPL", id=bad))

    assert message["data"]["code"] == "invalid_parameter"
    assert message["data"]["request_id"] is None
    assert "id" not in message


@pytest.mark.req("A-43")
@pytest.mark.parametrize("good", ["a", "x" * 128, ' ~"\\', "sub-1625097600000"])
def test_an_id_is_echoed_as_it_came(good):
    client = Client()
    assert answer(client.subscribe("trades:AAPL", id=good))["id"] == good
    assert answer(client.subscribe("trades:AAPL", id=good))["id"] == good


@pytest.mark.req("MF-15")
def test_unknown_fields_are_ignored():
    effects = Client().send(
        "subscribe", data={"channels": ["trades:AAPL"], "more": 1}, extra={"deep": []}
    )

    assert answer(effects)["type"] == "subscription_response"


@pytest.mark.req("ER-01", "ER-05", "A-13")
@pytest.mark.parametrize(
    "action", ["foo", "", "submit_order", "cancel_order", "modify_order",
               "batch_orders", "x" * 5000],
    ids=lambda action: action[:20],
)  # fmt: skip
def test_an_action_that_is_not_served_is_invalid(action):
    message = answer(Client().send(action, data={}, id="o"))

    assert message["data"]["code"] == "invalid_action"
    assert message["data"]["request_id"] == message["id"] == "o"
    assert message["data"]["request_action"] == action[:64]
    assert len(message["data"]["message"]) < 200


@pytest.mark.req("A-01", "A-04")
def test_a_malformed_authentication_fails_in_both_forms_and_the_connection_stays():
    effects = Client().send("authenticate", data={"api_key": "k"}, id="auth-1")

    message = answer(effects)
    assert closes(effects) == []
    assert (message["type"], message["id"]) == ("auth_response", "auth-1")
    assert message["status"] == message["data"]["status"] == "error"
    assert message["message"] == message["data"]["message"]
    assert message["data"]["code"] == "invalid_parameter"


# ── heartbeats ────────────────────────────────────────────────────────────────────────


@pytest.mark.req("HB-01", "HB-02", "A-09")
def test_a_heartbeat_every_30_s_also_with_no_subscription():
    client = Client()
    beats = []
    for _ in range(95):
        client.wait(1)
        client.send("pong")
        beats += [
            (json.loads(effect.payload), client.now_ns - START)
            for effect in client.tick()
        ]

    assert [at for _, at in beats] == [30 * NS_PER_S, 60 * NS_PER_S, 90 * NS_PER_S]
    assert beats[0][0] == {
        "type": "heartbeat",
        "data": {"interval": 30_000},
        "timestamp": START // 1_000_000 + 30_000,
    }


@pytest.mark.req("HB-04")
@pytest.mark.parametrize(
    "data", [{}, {"data": {"timestamp": 1}}, {"data": []}], ids=str
)
def test_a_pong_draws_no_answer(data):
    assert Client().send("pong", **data) == []


@pytest.mark.req("A-10")
def test_a_client_that_is_silent_for_90_s_is_closed():
    client = Client()
    client.wait(89.999)
    assert closes(client.tick()) == []

    client.wait(0.001)

    assert client.tick() == [Close(1001, "heartbeat timeout")]


@pytest.mark.req("A-10")
@pytest.mark.parametrize(
    "life",
    [lambda c: c.send("pong"), lambda c: c.raw(b"{"),
     lambda c: c.gateway.ping(b"", c.now_ns), lambda c: c.gateway.pong(c.now_ns)],
    ids=["pong message", "garbage", "ping frame", "pong frame"],
)  # fmt: skip
def test_anything_inbound_proves_life(life):
    client = Client()
    client.wait(80)
    life(client)
    client.wait(80)

    assert closes(client.tick()) == []


@pytest.mark.req("HB-09")
def test_the_heartbeat_can_be_configured():
    client = Client(VenueConfig(heartbeat_s=0.5, heartbeat_timeout_s=2.0))

    assert client.gateway.due_ns() == START + NS_PER_S // 2
    client.wait(0.5)
    assert answer(client.tick())["data"] == {"interval": 500}


def test_a_late_tick_sends_one_heartbeat_and_keeps_the_beat():
    client = Client()
    client.wait(75)
    client.send("pong")

    assert len(client.tick()) == 1
    assert client.gateway.due_ns() == START + 90 * NS_PER_S


def test_heartbeats_can_be_stopped_by_a_fault_plan():
    faults = FaultPlan()
    client = Client(faults=faults)
    faults.heartbeats_stopped = True
    client.wait(30)
    assert client.tick() == []

    faults.heartbeats_stopped = False
    client.wait(30)

    assert answer(client.tick())["type"] == "heartbeat"


# ── limits ────────────────────────────────────────────────────────────────────────────


@pytest.mark.req("LM-04", "SB-09", "A-14")
def test_subscribe_and_unsubscribe_share_50_a_minute():
    client = Client()
    for _ in range(25):
        assert answer(client.subscribe("trades:AAPL"))["data"]["status"] == "success"
        assert answer(client.unsubscribe("trades:AAPL"))["data"]["status"] == "success"

    assert error(client.subscribe("trades:AAPL"))["code"] == "rate_limit_exceeded"
    assert error(client.unsubscribe("trades:AAPL"))["code"] == "rate_limit_exceeded"
    assert client.gateway.subscriptions == ()


@pytest.mark.req("LM-07", "LM-08", "ER-06")
def test_over_a_limit_the_error_names_it_and_when_it_ends():
    client = Client()
    for _ in range(50):
        client.unsubscribe("trades:AAPL")
    client.wait(17.5)

    data = error(client.subscribe("trades:AAPL", id="late"))

    assert data == {
        "code": "rate_limit_exceeded",
        "message": "Rate limit exceeded for subscribe/unsubscribe. "
        "Limit: 50 per minute",
        "request_id": "late",
        "request_action": "subscribe",
        "retry_after": 43,
    }
    client.wait(43)
    assert answer(client.subscribe("trades:AAPL"))["type"] == "subscription_response"


@pytest.mark.req("LM-06", "A-14")
def test_pongs_pings_and_garbage_share_200_a_minute_of_their_own():
    client = Client()
    for _ in range(198):
        assert client.send("pong") == []
    assert client.gateway.ping(b"p", client.now_ns) == [Pong(b"p")]
    client.send("foo")

    data = error(client.gateway.ping(b"p", client.now_ns))

    assert data["message"] == (
        "Rate limit exceeded for other messages. Limit: 200 per minute"
    )
    assert error(client.raw(b"{"))["code"] == "rate_limit_exceeded"
    assert answer(client.subscribe("trades:AAPL"))["type"] == "subscription_response"


@pytest.mark.req("A-32")
def test_as_many_rejections_again_close():
    client = Client()
    for _ in range(50 + 49):
        assert closes(client.subscribe("trades:AAPL")) == []

    effects = client.subscribe("trades:AAPL")

    assert error(effects)["code"] == "rate_limit_exceeded"
    assert closes(effects) == [(4001, "rate limited")]


@pytest.mark.req("LM-03", "A-32")
def test_the_11th_authentication_is_answered_and_closed():
    client = Client()
    for _ in range(10):
        assert closes(client.send("authenticate", data={})) == []

    effects = client.send("authenticate", data={}, id="a")

    assert error(effects)["code"] == "rate_limit_exceeded"
    assert closes(effects) == [(4001, "rate limited")]


# ── everything ────────────────────────────────────────────────────────────────────────


@pytest.mark.req("MF-06", "MF-08", "CN-04")
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.recursive(
                st.one_of(st.none(), st.booleans(), st.floats(), st.text(max_size=5)),
                lambda inner: st.one_of(
                    st.lists(inner, max_size=3),
                    st.dictionaries(
                        st.sampled_from(["action", "data", "id", "channels", "x"]),
                        inner,
                    ),
                ),
            ).map(lambda value: json.dumps(value).encode()),
            st.builds(
                lambda action, channels, id_: json.dumps(
                    {"action": action, "data": {"channels": channels}, "id": id_}
                ).encode(),
                st.sampled_from(["subscribe", "unsubscribe", "pong", "submit_order"]),
                st.lists(st.sampled_from(["trades:AAPL", "ticker:MSFT", "bad"])),
                st.one_of(st.none(), st.text(max_size=3)),
            ),
        ),
        max_size=12,
    )
)
def test_whatever_comes_is_answered_with_sound_messages(payloads):
    client = Client()
    for payload in payloads:
        effects = client.raw(payload)
        for effect in effects:
            if isinstance(effect, Send):
                message = json.loads(effect.payload)
                assert isinstance(message["type"], str)
                assert isinstance(message["data"], dict)
                assert message["timestamp"] == client.now_ns // 1_000_000
        if closes(effects):
            assert isinstance(effects[-1], Close)
            return
        client.wait(0.5)

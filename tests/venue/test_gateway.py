"""One client's protocol, in virtual time."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from feedhandler.protocol.channels import (
    CHANNELS_BY_ENDPOINT,
    CUSTOM,
    ENDPOINTS,
    MARKET_DATA,
    NOTIFICATIONS,
    TRADING,
    served_at,
)
from feedhandler.protocol.signature import sign
from feedhandler.secret import Secret
from feedhandler.venue.access import Access, Key
from feedhandler.venue.config import (
    AccountConfig,
    AlertConfig,
    LimitsConfig,
    SymbolConfig,
    TradersConfig,
    VenueConfig,
)
from feedhandler.venue.exchange import Exchange
from feedhandler.venue.faults import FaultPlan
from feedhandler.venue.gateway import (
    Close,
    Cut,
    Drop,
    Evict,
    Gateway,
    Later,
    Open,
    Pong,
    Send,
    Services,
)
from feedhandler.venue.limits import NS_PER_S

GOLDEN = Path(__file__).parent.parent / "golden"
NS_PER_MS = 1_000_000
START = 1_625_097_600 * NS_PER_S
PRIVATE = (TRADING, NOTIFICATIONS, CUSTOM)
ORDER_ACTIONS = ("submit_order", "cancel_order", "modify_order", "batch_orders")
CHANNELS = (
    "trades:AAPL", "orderbook:AAPL:10", "ticker:AAPL", "candles:AAPL:1m",
    "user_orders", "user_trades", "account_updates",
    "system_notifications", "user_notifications", "custom_alerts",
)  # fmt: skip


def account(name):
    return AccountConfig(
        id=f"acc-{name}",
        api_key=f"key-{name}",
        secret=f"secret of {name}",
        balances={"USD": 1_000_000},
        positions={"AAPL": 10_000},
        alerts=[
            AlertConfig(
                id=f"a-{name}", name="low", condition="price_below", symbol="AAPL",
                threshold="120",
            )
        ],
        large_fill=1,
    )  # fmt: skip


ALICE, BOB, CAROL = map(account, ("alice", "bob", "carol"))


def configured(**fields):
    return VenueConfig(
        traders=TradersConfig(enabled=False), accounts=[ALICE, BOB, CAROL], **fields
    )


CONFIG = configured()


class Venue:
    """What gateways share; its clock moves only when told."""

    def __init__(self, config=CONFIG, faults=None, now_ns=START):
        self.now_ns = now_ns
        self.faults = faults or FaultPlan()
        self.market = Exchange(config, now_ns)
        keys = [
            Key(one.api_key, Secret(one.secret.encode()), one.id)
            for one in config.accounts
        ]
        access = Access(keys, config.limits)
        self.services = Services(config, self.market, access, self.faults)
        self.last_ms = 0

    def wait(self, seconds):
        self.now_ns += round(seconds * NS_PER_S)

    def timestamp(self):
        """A millisecond that no authentication had."""
        self.last_ms = max(self.now_ns // NS_PER_MS, self.last_ms + 1)
        return self.last_ms

    def orders(self, account=ALICE):
        """The open orders of an account: their ids."""
        return [order.id for order in self.market.desk.open_orders(account.id)]

    def cash(self, account=ALICE):
        """What an account has available and reserved."""
        marks = dict.fromkeys(self.market.engines, 1)
        (usd,) = self.market.ledger.view(account.id, marks).balances
        return usd.available, usd.reserved

    def trader(self, account=ALICE, endpoint=TRADING, address="127.0.0.1"):
        """A client that is authenticated."""
        client = Client(venue=self, endpoint=endpoint, address=address)
        assert answer(client.authenticate(account))["status"] == "success"
        return client


class Client:
    """Speaks to a gateway, of a venue of its own if it is given none."""

    def __init__(
        self,
        config=CONFIG,
        faults=None,
        *,
        venue=None,
        endpoint=MARKET_DATA,
        address="127.0.0.1",
    ):
        self.venue = venue or Venue(config, faults)
        self.gateway = Gateway(
            self.venue.services, endpoint, address, self.venue.now_ns
        )

    @property
    def now_ns(self):
        return self.venue.now_ns

    def wait(self, seconds):
        self.venue.wait(seconds)

    def raw(self, payload):
        return self.gateway.receive(payload, self.now_ns)

    def send(self, action, **fields):
        return self.raw(json.dumps({"action": action, **fields}).encode())

    def authenticate(self, account=ALICE, timestamp=None, **fields):
        data = credentials(account, timestamp or self.venue.timestamp())
        return self.send("authenticate", data=data, **fields)

    def subscribe(self, *channels, **fields):
        return self.send("subscribe", data={"channels": list(channels)}, **fields)

    def unsubscribe(self, *channels, **fields):
        return self.send("unsubscribe", data={"channels": list(channels)}, **fields)

    def submit(self, **changes):
        return self.send("submit_order", data=order(**changes), id="order-1")

    def batch(self, *operations, **fields):
        return self.send("batch_orders", data={"operations": operations}, **fields)

    def follow(self, *channels):
        """Subscribe, and return what the channels begin with."""
        effects = self.subscribe(*channels)
        assert answer(effects)["data"]["status"] == "success"
        opened = [e.channel for e in effects if isinstance(e, Open)]
        market = self.venue.market
        return [
            json.loads(payload)
            for channel in opened
            for payload in market.open(channel, self.now_ns)
        ]

    def tick(self):
        return self.gateway.tick(self.now_ns)


MISSING = object()


def order(**changes):
    """The data of an order that is good but for the changes."""
    plain = {
        "symbol": "AAPL", "side": "buy", "type": "limit", "quantity": 10, "price": 100
    }  # fmt: skip
    return {
        key: value for key, value in {**plain, **changes}.items() if value != MISSING
    }


def credentials(account, timestamp):
    signature = sign(account.api_key, account.secret.encode(), timestamp)
    return {
        "api_key": account.api_key, "signature": signature, "timestamp": timestamp
    }  # fmt: skip


def golden(name):
    return json.loads((GOLDEN / "server" / f"{name}.json").read_text())


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


@pytest.mark.req("SB-08", "F-96")
def test_thousands_of_channels_are_refused_by_their_number_alone():
    client = Client()

    data = error(client.subscribe(*(f"no channel {n}" for n in range(10_800))))

    # Not one of them was looked at: each is bad.
    assert data["message"].startswith(
        "Invalid parameter: channels would make 10800 subscriptions, "
        "the limit is 50 per connection: "
    )
    assert len(data["channels"]) == 50
    assert client.gateway.subscriptions == ()


@pytest.mark.req("SB-08")
def test_a_book_is_produced_in_so_many_depths_and_one_that_is_open_stays_allowed():
    venue = Venue(configured(limits=LimitsConfig(depths_per_symbol=3)))
    first, second = Client(venue=venue), Client(venue=venue)
    first.follow("orderbook:AAPL:5", "orderbook:AAPL:10", "orderbook:AAPL:20")

    data = error(second.subscribe("trades:AAPL", "orderbook:AAPL:7"))
    assert data["code"] == "invalid_parameter"
    assert data["channels"] == ["orderbook:AAPL:7"]
    assert "'orderbook:AAPL:7': 3 other depths of AAPL are in use" in data["message"]
    second.follow("orderbook:AAPL:10", "orderbook:MSFT:7", "trades:AAPL")
    venue.market.release("orderbook:AAPL:20")
    second.follow("orderbook:AAPL:7")

    assert error(first.subscribe("orderbook:AAPL:20"))["code"] == "invalid_parameter"


@pytest.mark.req("SB-08")
def test_the_depths_of_one_request_are_counted_together():
    client = Client(configured(limits=LimitsConfig(depths_per_symbol=2)))

    data = error(client.subscribe(*(f"orderbook:AAPL:{n}" for n in (1, 2, 3, 4))))

    assert data["channels"] == ["orderbook:AAPL:3", "orderbook:AAPL:4"]
    client.follow("orderbook:AAPL:1", "orderbook:MSFT:5", "orderbook:AAPL:2")


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

    # A ping is answered whatever else is said of it.
    over = client.gateway.ping(b"p", client.now_ns)
    data = error(over)

    assert over[0] == Pong(b"p")
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


# ── endpoints ─────────────────────────────────────────────────────────────────────────


NEEDS_KEY = {
    "/ws/trading": "EP-02", "/ws/notifications": "EP-03", "/ws/custom": "EP-04"
}  # fmt: skip


def asked():
    """Every request that needs authentication, at every endpoint that does."""
    requests = [
        (action, {"channels": [channel]})
        for action in ("subscribe", "unsubscribe")
        for channel in CHANNELS
    ]
    return [
        pytest.param(
            endpoint, action, data, marks=pytest.mark.req(NEEDS_KEY[endpoint]),
            id=f"{endpoint} {action} {data.get('channels', '')}",
        )
        for endpoint in NEEDS_KEY
        for action, data in requests
        + [(action, order()) for action in ORDER_ACTIONS if endpoint == TRADING]
    ]  # fmt: skip


@pytest.mark.req("AU-12", "ER-02")
@pytest.mark.parametrize(("endpoint", "action", "data"), asked())
def test_nothing_private_is_done_before_authentication(endpoint, action, data):
    client = Client(endpoint=endpoint)

    effects = client.send(action, data=data, id="r")

    assert answer(effects) == {
        "type": "error",
        "data": {
            "code": "authentication_required",
            "message": "Authentication is required for this action",
            "request_id": "r",
            "request_action": action,
        },
        "timestamp": START // NS_PER_MS,
        "id": "r",
    }
    assert len(effects) == 1
    assert client.gateway.subscriptions == ()
    assert client.gateway.account == ""


@pytest.mark.req("AU-12", "A-29")
def test_subscribing_too_early_is_no_bad_subscribe():
    client = Client(endpoint=TRADING)

    for _ in range(10):
        assert closes(client.subscribe("user_orders")) == []


@pytest.mark.req("AU-01", "EP-02")
@pytest.mark.parametrize("endpoint", PRIVATE)
def test_a_connection_authenticates_and_then_subscribes(endpoint):
    client = Client(endpoint=endpoint)
    own = CHANNELS_BY_ENDPOINT[endpoint][-1]
    assert error(client.subscribe(own))["code"] == "authentication_required"

    assert answer(client.authenticate())["status"] == "success"

    assert client.gateway.account == "acc-alice"
    assert answer(client.subscribe(own))["data"]["status"] == "success"


def at(endpoint):
    """A client that may subscribe there."""
    if endpoint == MARKET_DATA:
        return Client()
    return Venue().trader(endpoint=endpoint)


@pytest.mark.req("A-13", "SB-10", "SB-11")
@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_channel_is_had_where_it_is_served_and_nowhere_else(endpoint, channel):
    client = at(endpoint)
    kind = channel.partition(":")[0]

    effects = client.subscribe(channel)

    if kind in CHANNELS_BY_ENDPOINT[endpoint]:
        own = "user_" in kind or kind in ("account_updates", "custom_alerts")
        source = f"{kind}/acc-alice" if own else channel
        assert answer(effects)["data"]["status"] == "success"
        assert effects[1:] == [Open(source)]
    else:
        data = error(effects)
        assert data["code"] == "invalid_parameter"
        assert data["message"] == (
            f"Invalid parameter: channel '{channel}' is served at {served_at(kind)}"
        )
        assert data["channels"] == [channel]
        assert client.gateway.subscriptions == ()


@pytest.mark.req("A-13", "SB-10")
def test_custom_serves_all_ten_channels_in_one_request():
    client = at(CUSTOM)

    effects = client.subscribe(*CHANNELS)

    assert answer(effects)["data"]["channels"] == list(CHANNELS)
    assert len([effect for effect in effects if isinstance(effect, Open)]) == 10


def test_a_private_channel_of_another_is_no_channel():
    for name in ("user_orders/acc-bob", "user_orders:acc-bob", "user_orders:AAPL"):
        assert error(at(TRADING).subscribe(name))["code"] == "invalid_parameter"


@pytest.mark.req("A-12", "SB-05")
def test_a_private_channel_is_dropped_by_its_own_name():
    client = at(TRADING)
    client.subscribe("user_orders", "user_trades")

    effects = client.unsubscribe("user_orders")

    assert effects[0] == Drop("user_orders/acc-alice")
    assert client.gateway.subscriptions == ("user_trades/acc-alice",)


@pytest.mark.req("ER-05", "A-13")
@pytest.mark.parametrize("action", ORDER_ACTIONS)
@pytest.mark.parametrize("endpoint", [MARKET_DATA, NOTIFICATIONS, CUSTOM])
def test_orders_are_taken_at_trading_only(endpoint, action):
    venue = Venue()
    client = venue.trader(endpoint=endpoint)

    data = error(client.send(action, data=order()))

    assert data["code"] == "invalid_action"
    assert data["message"] == (f"Invalid action: {action} is not served at {endpoint}")
    assert venue.orders() == []


@pytest.mark.req("SEC-23")
@pytest.mark.parametrize(
    "action", ["skip", "spoil_answer", "close_all", "restart", "halt", "heartbeat"]
)
def test_no_hook_is_an_action(action):
    assert error(at(TRADING).send(action, data={}))["code"] == "invalid_action"


# ── authentication ────────────────────────────────────────────────────────────────────


@pytest.mark.req("AU-05", "AU-06", "AU-08")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_success_is_told_in_both_places(endpoint):
    client = Client(endpoint=endpoint)

    effects = client.authenticate(id="auth-1625097600000")

    assert answer(effects) == {
        "type": "auth_response",
        "data": {"status": "success"},
        "status": "success",
        "timestamp": START // NS_PER_MS,
        "id": "auth-1625097600000",
    }
    assert len(effects) == 1


def test_an_authentication_without_id_is_answered_without():
    assert "id" not in answer(Client(endpoint=TRADING).authenticate())


BAD_CREDENTIALS = {
    "unknown key": {"api_key": "key-nobody"},
    "another's key": {"api_key": "key-bob"},
    "empty key": {"api_key": ""},
    "wrong signature": {"signature": "0" * 64},
    "truncated": {"signature": credentials(ALICE, START // NS_PER_MS)["signature"][1:]},
    "upper case": {
        "signature": credentials(ALICE, START // NS_PER_MS)["signature"].upper()
    },
    "not ASCII": {"signature": "é" * 64},
    "of another time": {"timestamp": START // NS_PER_MS - 1},
    "years ago": {"timestamp": 0},
    "after the end of time": {"timestamp": 10**30},
}


@pytest.mark.req("AU-10", "AU-11", "A-02")
@pytest.mark.parametrize("wrong", BAD_CREDENTIALS.values(), ids=BAD_CREDENTIALS.keys())
def test_a_bad_key_or_signature_is_answered_and_closed_with_4000(wrong):
    client = Client(endpoint=TRADING)
    data = credentials(ALICE, START // NS_PER_MS) | wrong

    effects = client.send("authenticate", data=data, id="a")

    assert answer(effects) == {
        "type": "auth_response",
        "data": {
            "status": "error",
            "message": "Invalid API key or signature",
            "code": "invalid_credentials",
        },
        "status": "error",
        "message": "Invalid API key or signature",
        "timestamp": START // NS_PER_MS,
        "id": "a",
    }
    assert effects[1:] == [Close(4000, "invalid_credentials")]
    assert client.gateway.account == ""


@pytest.mark.req("A-02", "A-05", "AU-07")
@pytest.mark.parametrize("skew_ms", [-5001, 1000, -3_600_000, 3_600_000])
def test_a_wrong_clock_keeps_the_connection_and_may_try_again(skew_ms):
    client = Client(endpoint=TRADING)
    now_ms = START // NS_PER_MS

    effects = client.authenticate(timestamp=now_ms + skew_ms)

    message = answer(effects)
    assert len(effects) == 1
    assert message["status"] == message["data"]["status"] == "error"
    assert message["data"]["code"] == "invalid_parameter"
    assert message["message"].startswith("Invalid parameter: timestamp is not within")
    assert answer(client.authenticate(timestamp=message["timestamp"]))["status"] == (
        "success"
    )


@pytest.mark.req("A-05", "SEC-07", "A-02")
def test_a_frame_that_was_captured_opens_nothing_but_another_endpoint():
    venue = Venue()
    frame = json.dumps(
        {"action": "authenticate", "data": credentials(ALICE, START // NS_PER_MS)}
    ).encode()
    owner, thief = (Client(venue=venue, endpoint=TRADING) for _ in range(2))
    owner.raw(frame)

    effects = thief.raw(frame)

    assert answer(effects)["data"]["code"] == "invalid_parameter"
    assert answer(effects)["message"].endswith("timestamp was used before")
    assert closes(effects) == []
    assert answer(owner.raw(frame))["status"] == "error"
    assert owner.gateway.account == "acc-alice"
    assert error(thief.subscribe("user_orders"))["code"] == "authentication_required"
    other = Client(venue=venue, endpoint=CUSTOM)
    assert answer(other.raw(frame))["status"] == "success"


BAD_FIELDS = [
    ("api_key", MISSING, "api_key is required"),
    ("signature", MISSING, "signature is required"),
    ("timestamp", MISSING, "timestamp is required"),
    ("api_key", 7, "api_key must be a string"),
    ("api_key", None, "api_key must be a string"),
    ("signature", ["a"], "signature must be a string"),
    ("signature", None, "signature must be a string"),
    ("timestamp", None, "timestamp must be an integer"),
    ("timestamp", True, "timestamp must be an integer"),
    ("timestamp", {}, "timestamp must be an integer"),
    ("timestamp", "1625097600000", "timestamp must be an integer"),
    ("timestamp", 1625097600000.0, "timestamp must be an integer"),
    ("timestamp", 1625097600000.5, "timestamp must be an integer"),
]


@pytest.mark.req("AU-02", "AU-03", "A-02")
@pytest.mark.parametrize(("key", "value", "words"), BAD_FIELDS)
def test_a_field_that_is_missing_or_of_another_type_is_named(key, value, words):
    client = Client(endpoint=TRADING)
    data = credentials(ALICE, START // NS_PER_MS) | {key: value}
    data = {name: part for name, part in data.items() if part is not MISSING}

    effects = client.send("authenticate", data=data)

    assert answer(effects)["data"] == {
        "status": "error",
        "message": f"Invalid parameter: {words}",
        "code": "invalid_parameter",
    }
    assert closes(effects) == []
    assert answer(client.authenticate())["status"] == "success"


@pytest.mark.req("AU-03")
def test_seconds_are_no_milliseconds():
    effects = Client(endpoint=TRADING).authenticate(timestamp=START // NS_PER_S)

    assert answer(effects)["data"]["code"] == "invalid_parameter"
    assert "timestamp" in answer(effects)["message"]
    assert closes(effects) == []


@pytest.mark.req("AU-02", "MF-03")
@pytest.mark.parametrize("fields", [{}, {"data": {}}, {"data": None}, {"data": []},
                                    {"data": "x"}, {"data": 7}], ids=str)  # fmt: skip
def test_an_authentication_without_data_is_answered_as_one(fields):
    effects = Client(endpoint=TRADING).send("authenticate", id="a", **fields)

    message = answer(effects)
    assert (message["type"], message["id"]) == ("auth_response", "a")
    assert message["data"]["code"] == "invalid_parameter"
    assert closes(effects) == []


@pytest.mark.req("A-04")
def test_the_same_key_may_authenticate_again():
    venue = Venue()
    client = venue.trader()
    client.subscribe("user_orders")

    assert answer(client.authenticate())["status"] == "success"

    assert client.gateway.subscriptions == ("user_orders/acc-alice",)
    assert venue.services.access.connections("key-alice") == 1


@pytest.mark.req("A-04", "A-01")
def test_another_key_is_an_invalid_action():
    venue = Venue()
    client = venue.trader(ALICE)

    effects = client.authenticate(BOB)

    assert answer(effects)["data"]["code"] == "invalid_action"
    assert closes(effects) == []
    assert client.gateway.account == "acc-alice"
    assert venue.services.access.connections("key-bob") == 0


@pytest.mark.req("A-04", "A-02")
def test_a_bad_signature_closes_also_after_success():
    venue = Venue()
    client = venue.trader()

    effects = client.send("authenticate", data=credentials(BOB, 1) | {"timestamp": 2})

    assert closes(effects) == [(4000, "invalid_credentials")]


@pytest.mark.req("A-03", "SEC-15")
@pytest.mark.parametrize("endpoint", PRIVATE)
def test_ten_seconds_without_authentication_are_the_end(endpoint):
    client = Client(endpoint=endpoint)
    assert client.gateway.due_ns() == START + 10 * NS_PER_S
    client.wait(9.9)
    client.send("pong")
    client.gateway.ping(b"", client.now_ns)
    client.send("authenticate", data={})
    client.wait(0.099_999_999)
    assert client.tick() == []

    client.wait(0.000_000_001)

    assert client.tick() == [Close(1001, "authentication timeout")]


@pytest.mark.req("A-03")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_there_is_no_deadline_after_success_or_where_none_is_needed(endpoint):
    client = Client(endpoint=endpoint)
    client.wait(9.999)
    if endpoint != MARKET_DATA:
        client.authenticate()

    client.wait(10)

    assert client.tick() == []
    assert client.gateway.due_ns() == START + 30 * NS_PER_S


@pytest.mark.req("A-04", "EP-01")
def test_market_data_takes_an_authentication_and_needs_none():
    client = Client()
    client.subscribe("trades:AAPL")

    assert answer(client.authenticate())["status"] == "success"

    assert client.gateway.subscriptions == ("trades:AAPL",)
    assert error(client.subscribe("user_orders"))["code"] == "invalid_parameter"


@pytest.mark.req("HB-01")
@pytest.mark.parametrize("endpoint", PRIVATE)
def test_heartbeats_do_not_wait_for_authentication(endpoint):
    client = Client(configured(heartbeat_s=4), endpoint=endpoint)

    client.wait(4)
    assert answer(client.tick())["type"] == "heartbeat"
    client.wait(4)
    assert answer(client.tick())["type"] == "heartbeat"


# ── connections of a key ──────────────────────────────────────────────────────────────


@pytest.mark.req("LM-01", "A-08")
def test_the_sixth_connection_of_a_key_is_refused_and_the_others_stay():
    venue = Venue()
    for endpoint in (TRADING, TRADING, NOTIFICATIONS, CUSTOM, MARKET_DATA):
        venue.trader(endpoint=endpoint)
    sixth = Client(venue=venue, endpoint=TRADING)

    effects = sixth.authenticate(id="a")

    message = answer(effects)
    assert (message["type"], message["status"]) == ("auth_response", "error")
    assert effects[1:] == [Close(4003, "duplicate connection")]
    assert sixth.gateway.account == ""
    sixth.gateway.left()
    assert venue.services.access.connections("key-alice") == 5
    assert venue.trader(BOB).gateway.account == "acc-bob"


@pytest.mark.req("LM-01")
def test_a_connection_that_left_frees_its_slot():
    venue = Venue()
    clients = [venue.trader() for _ in range(5)]

    clients[2].gateway.left()

    assert venue.trader().gateway.account == "acc-alice"
    assert closes(Client(venue=venue, endpoint=TRADING).authenticate()) == [
        (4003, "duplicate connection")
    ]


@pytest.mark.req("A-08")
def test_connections_without_authentication_count_for_no_key():
    venue = Venue()
    waiting = [Client(venue=venue, endpoint=TRADING) for _ in range(20)]

    for client in waiting[:5]:
        client.authenticate()

    assert venue.services.access.connections("key-alice") == 5


def with_one_silent(venue):
    """Five connections of Alice after a heartbeat that one of them did not answer."""
    clients = [venue.trader() for _ in range(5)]
    venue.wait(30)
    for client in clients:
        client.tick()
    for client in clients[1:]:
        client.send("pong")
    return clients


@pytest.mark.req("A-08", "LM-01")
def test_a_connection_whose_pong_is_overdue_makes_room():
    venue = Venue()
    silent, *_ = with_one_silent(venue)
    venue.wait(9.999)
    assert closes(Client(venue=venue, endpoint=TRADING).authenticate()) == [
        (4003, "duplicate connection")
    ]
    venue.wait(0.001)
    newest = Client(venue=venue, endpoint=TRADING)

    effects = newest.authenticate()

    assert effects[0] == Evict([silent.gateway])
    assert answer(effects)["status"] == "success"
    silent.gateway.left()
    assert venue.services.access.connections("key-alice") == 5


@pytest.mark.req("A-08")
def test_a_connection_that_answers_late_stays():
    venue = Venue()
    late, *_ = with_one_silent(venue)
    venue.wait(20)
    late.send("pong")

    assert closes(Client(venue=venue, endpoint=TRADING).authenticate()) == [
        (4003, "duplicate connection")
    ]


@pytest.mark.req("A-08")
@pytest.mark.parametrize("silent_s", [10, 29, 30, 31, 39, 40, 59])
def test_a_connection_stays_overdue_until_it_answers(silent_s):
    venue = Venue()
    silent, *others = with_one_silent(venue)
    for _ in range(silent_s):
        venue.wait(1)
        silent.tick()
        for client in others:
            client.tick()
            client.send("pong")

    effects = Client(venue=venue, endpoint=TRADING).authenticate()

    assert effects[0] == Evict([silent.gateway])


# ── limits of accounts ────────────────────────────────────────────────────────────────


def refused(effects):
    """The error of a message that was over a limit; None of one that was not."""
    sent = [
        json.loads(effect.payload) for effect in effects if isinstance(effect, Send)
    ]
    over = [m["data"] for m in sent if m["type"] == "error"]
    (data,) = [d for d in over if d["code"] == "rate_limit_exceeded"] or [None]
    return data


def cancel_nothing(client):
    return client.send("cancel_order", data={"order_id": "o-0"}, id="c")


RATE_CLASSES = {
    "subscribe": (50, lambda c: c.subscribe("user_orders", id="c")),
    "unsubscribe": (50, lambda c: c.unsubscribe("user_orders", id="c")),
    "submit_order": (100, lambda c: c.send("submit_order", data={}, id="c")),
    "cancel_order": (100, cancel_nothing),
    "modify_order": (100, lambda c: c.send("modify_order", data={}, id="c")),
    "batch_orders": (100, lambda c: c.batch({}, id="c")),
    "pong": (200, lambda c: c.send("pong", id="c")),
    "unheard_of": (200, lambda c: c.send("unheard_of", id="c")),
}
CLASS_NAMES = {
    50: "subscribe/unsubscribe", 100: "order operations", 200: "other messages"
}  # fmt: skip


@pytest.mark.req("LM-04", "LM-05", "LM-06")
@pytest.mark.parametrize("action", RATE_CLASSES)
def test_a_class_has_its_limit_in_any_minute_and_says_when_it_ends(action):
    limit, act = RATE_CLASSES[action]
    client = Venue().trader()
    for _ in range(limit):
        assert refused(act(client)) is None

    assert refused(act(client)) == {
        "code": "rate_limit_exceeded",
        "message": f"Rate limit exceeded for {CLASS_NAMES[limit]}. "
        f"Limit: {limit} per minute",
        "request_id": "c",
        "request_action": action,
        "retry_after": 60,
    }
    client.wait(59.999_999_999)
    assert refused(act(client))["retry_after"] == 1
    client.wait(0.000_000_001)
    assert [refused(act(client)) for _ in range(limit)] == [None] * limit
    assert refused(act(client))["retry_after"] == 60


@pytest.mark.req("LM-07")
@pytest.mark.parametrize("action", RATE_CLASSES)
def test_the_wait_is_as_long_as_it_has_to_be_and_no_longer(action):
    limit, act = RATE_CLASSES[action]
    client = Venue().trader()
    for _ in range(limit - 1):
        act(client)
        client.wait(0.01)
    client.wait(12.345)
    act(client)

    retry_after = refused(act(client))["retry_after"]

    client.wait(retry_after - 1)
    assert refused(act(client))["retry_after"] == 1
    client.wait(1)
    assert refused(act(client)) is None


@pytest.mark.req("LM-08", "ER-06", "LM-05")
def test_the_error_is_that_of_the_reference():
    venue = Venue(now_ns=START - 30 * NS_PER_S)
    client = venue.trader()
    for _ in range(100):
        client.submit()
    venue.wait(30)

    assert answer(client.submit()) == golden("error-2")
    assert len(venue.orders()) == 100


@pytest.mark.req("A-32")
@pytest.mark.parametrize("action", RATE_CLASSES)
def test_a_limit_of_rejections_within_a_minute_closes(action):
    limit, act = RATE_CLASSES[action]
    client = Venue().trader()
    for _ in range(limit + limit - 1):
        assert closes(act(client)) == []

    effects = act(client)

    assert refused(effects)["retry_after"] == 60
    assert closes(effects) == [(4001, "rate limited")]


@pytest.mark.req("A-32")
def test_rejections_are_forgotten_after_a_minute():
    client = Venue().trader()
    for _ in range(10):
        for _ in range(50 + 49):
            assert closes(client.unsubscribe()) == []
        client.wait(60)


@pytest.mark.req("A-14")
def test_the_classes_do_not_share():
    client = Venue().trader()
    for limit, act in (RATE_CLASSES["pong"], RATE_CLASSES["cancel_order"]):
        for _ in range(limit + 1):
            act(client)

    assert refused(client.unsubscribe()) is None
    assert answer(client.authenticate())["status"] == "success"
    assert refused(client.send("pong")) is not None


@pytest.mark.req("A-14", "LM-06")
def test_orders_that_nobody_may_give_are_other_messages():
    venue = Venue()
    stranger = Client(venue=venue, endpoint=TRADING)
    elsewhere = venue.trader(endpoint=CUSTOM)

    for client in (stranger, elsewhere):
        for _ in range(200):
            assert refused(client.submit()) is None
        assert "other messages" in refused(client.submit())["message"]
    trader = venue.trader()
    assert [refused(cancel_nothing(trader)) for _ in range(100)] == [None] * 100


@pytest.mark.req("LM-05", "A-14", "F-98")
def test_all_connections_of_a_key_share_its_order_limit():
    venue = Venue()
    first, second = venue.trader(), venue.trader(address="10.0.0.2")
    for _ in range(50):
        assert refused(first.submit()) is None
        assert refused(second.submit()) is None

    assert refused(first.submit())
    assert refused(second.submit())
    first.gateway.left()
    assert refused(venue.trader().submit())
    assert len(venue.orders()) == 100
    assert refused(venue.trader(BOB).submit()) is None


@pytest.mark.req("A-14", "LM-04", "LM-06")
def test_subscribes_and_others_are_counted_for_each_connection():
    venue = Venue()
    first, second = venue.trader(), venue.trader()
    for _ in range(201):
        first.send("pong")
    for _ in range(51):
        first.unsubscribe()

    assert refused(second.send("pong")) is None
    assert refused(second.unsubscribe()) is None


@pytest.mark.req("LM-05", "A-14")
def test_a_batch_costs_its_operations_and_runs_whole_or_not_at_all():
    venue = Venue()
    client = venue.trader()
    submit = order(operation="submit")
    client.batch(*[submit] * 50)
    venue.wait(20)
    client.batch(*[submit] * 20)

    data = refused(client.batch(*[submit] * 31, id="b"))

    assert (data["request_action"], data["retry_after"]) == ("batch_orders", 40)
    assert len(venue.orders()) == 70
    assert answer(client.batch(*[submit] * 30))["data"]["status"] == "success"
    assert refused(client.submit())["retry_after"] == 40
    venue.wait(40)
    assert refused(client.batch(*[submit] * 50)) is None
    assert refused(client.submit())["retry_after"] == 20


@pytest.mark.req("LM-05")
def test_a_batch_waits_until_all_of_it_fits():
    client = Venue().trader()
    for count in (40, 30, 30):
        client.batch(*[{}] * count)
        client.wait(10)

    assert refused(client.batch(*[{}] * 40))["retry_after"] == 30
    assert refused(client.batch(*[{}] * 41))["retry_after"] == 40


SMALL = configured(
    limits=LimitsConfig(subscribe_per_minute=3, orders_per_minute=5, other_per_minute=4)
)
KINDS = {
    "subscribe": (3, 1, lambda c: c.subscribe("user_orders")),
    "unsubscribe": (3, 1, lambda c: c.unsubscribe("user_orders")),
    "cancel": (5, 1, cancel_nothing),
    "batch of 2": (5, 2, lambda c: c.batch({}, {})),
    "batch of 4": (5, 4, lambda c: c.batch({}, {}, {}, {})),
    "pong": (4, 1, lambda c: c.send("pong")),
    "ping frame": (4, 1, lambda c: c.gateway.ping(b"", c.now_ns)),
    "nonsense": (4, 1, lambda c: c.send("nonsense")),
}


@pytest.mark.req("I-15", "LM-07", "F-98")
@given(
    st.lists(
        st.tuples(st.sampled_from(list(KINDS)), st.integers(0, 30_000), st.booleans()),
        max_size=40,
    )
)
def test_no_minute_has_more_than_the_limit_and_who_waits_is_heard(steps):
    client, accepted = Venue(SMALL).trader(), []
    for kind, gap_ms, waits in steps:
        client.wait(gap_ms / 1000)
        limit, cost, act = KINDS[kind]
        effects = act(client)
        if closes(effects):
            break
        if (over := refused(effects)) and waits:
            assert over["retry_after"] >= 1
            client.wait(over["retry_after"])
            over = refused(act(client))
            assert over is None
        if not over:
            accepted += [(client.now_ns, limit)] * cost

    for start_ns, limit in accepted:
        end_ns = start_ns + 60 * NS_PER_S
        same = [at for at, of in accepted if of == limit and start_ns <= at < end_ns]
        assert len(same) <= limit


@pytest.mark.req("LM-03", "AU-15", "F-97")
def test_ten_authentications_a_minute_of_an_address_over_all_connections():
    venue = Venue()
    for account in (ALICE, BOB) * 4:
        venue.trader(account)
    Client(venue=venue).send("authenticate", data={})
    Client(venue=venue).send("authenticate", data=credentials(ALICE, 1))
    venue.wait(12.5)
    client = Client(venue=venue, endpoint=TRADING)

    effects = client.authenticate(CAROL, id="a")

    assert answer(effects)["data"] == {
        "code": "rate_limit_exceeded",
        "message": "Rate limit exceeded for authentication. Limit: 10 per minute",
        "request_id": "a",
        "request_action": "authenticate",
        "retry_after": 48,
    }
    assert closes(effects) == [(4001, "rate limited")]
    assert venue.trader(CAROL, address="10.0.0.2").gateway.account == "acc-carol"
    venue.wait(48)
    assert venue.trader(CAROL).gateway.account == "acc-carol"


@pytest.mark.req("LM-03", "AU-15", "F-97")
def test_ten_authentications_a_minute_of_a_key_over_all_addresses():
    venue = Venue()
    for n in range(10):
        client = Client(venue=venue, endpoint=TRADING, address=f"10.0.0.{n}")
        client.send("authenticate", data=credentials(ALICE, 1) | {"timestamp": 2})
    client = Client(venue=venue, endpoint=TRADING)

    effects = client.authenticate()

    assert error(effects)["code"] == "rate_limit_exceeded"
    assert closes(effects) == [(4001, "rate limited")]
    assert venue.trader(BOB).gateway.account == "acc-bob"


@pytest.mark.req("A-32", "LM-03")
def test_an_authentication_that_is_over_one_limit_uses_up_no_other():
    venue = Venue()
    for n in range(10):
        Client(venue=venue, address=f"10.0.0.{n}").authenticate(ALICE)

    def attempt(account):
        return Client(venue=venue, address="10.0.0.99").authenticate(account)

    assert closes(attempt(ALICE)) == [(4001, "rate limited")]

    assert [refused(attempt(BOB)) for _ in range(10)] == [None] * 10
    assert closes(attempt(CAROL)) == [(4001, "rate limited")]


@pytest.mark.req("LM-07", "LM-03")
def test_an_authentication_over_both_limits_waits_for_the_longer():
    venue = Venue()
    for _ in range(10):
        Client(venue=venue, address="10.0.0.1").authenticate(BOB)
    venue.wait(20)
    for n in range(10):
        Client(venue=venue, address=f"10.0.1.{n}").authenticate(ALICE)
    venue.wait(1)

    def attempt():
        return Client(venue=venue, address="10.0.0.1").authenticate(ALICE)

    assert refused(attempt())["retry_after"] == 59
    venue.wait(59)
    assert refused(attempt()) is None


@pytest.mark.req("LM-03", "A-04")
def test_authenticating_again_counts():
    client = Venue().trader()
    for _ in range(9):
        assert answer(client.authenticate())["status"] == "success"

    assert closes(client.authenticate()) == [(4001, "rate limited")]


# ── what is asked of orders ───────────────────────────────────────────────────────────

ENOUGH = {"submit_order": order(), "cancel_order": {"order_id": "o-1"},
          "modify_order": {"order_id": "o-1", "price": 99},
          "batch_orders": {"operations": [order(operation="submit")]}}  # fmt: skip


@pytest.mark.req("OR-02", "OR-03", "AU-08")
def test_an_order_is_answered_as_in_the_reference():
    client = Venue().trader()

    response = answer(client.submit(quantity=100, price=150.00, time_in_force="gtc"))

    wanted = golden("order_response")
    wanted["data"]["order_id"] = response["data"]["order_id"]
    assert response == wanted


@pytest.mark.req("ER-01", "ER-04")
def test_a_price_of_nothing_is_refused_as_in_the_reference():
    assert answer(Venue().trader().submit(price=0)) == golden("error")


NO_NUMBER = {
    "text": ("100", "must be a number"),
    "true": (True, "must be a number"),
    "a list": ([100], "must be a number"),
    "an object": ({}, "must be a number"),
    "zero": (0, "must be greater than 0"),
    "minus zero": (-0.0, "must be greater than 0"),
    "negative": (-1, "must be greater than 0"),
    "far below": (-1e308, "must be greater than 0"),
    "denormal": (1e-320, "must be a multiple of the"),
    "tiny": (1e-9, "must be a multiple of the"),
    "off the grid": (100.001, "must be a multiple of the"),
    "just off the grid": (100.00001, "must be a multiple of the"),
    "huge": (1e308, "is too large"),
    "2^53 + 1": (2**53 + 1, "is too large"),
    "2^63": (2**63, "is too large"),
    "2^64 + 1": (2**64 + 1, "is too large"),
    "10^30": (10**30, "is too large"),
    "10^400": (10**400, "is malformed"),
}
CHOICES = {
    "side": "must be buy or sell",
    "type": "must be market, limit, stop or stop_limit",
    "time_in_force": "must be gtc, ioc, fok or day",
}
ID_RULE = "must be 1 to 64 printable ASCII characters without spaces"
STOP = {"type": "stop", "price": MISSING, "stop_price": 160}
STOP_LIMIT = {"type": "stop_limit", "stop_price": 160}
BAD_ORDERS = [
    *[({key: MISSING}, f"{key} is required")
      for key in ("symbol", "side", "type", "quantity")],
    ({"price": MISSING}, "price is required for a limit order"),
    ({"price": None}, "price is required for a limit order"),
    (STOP_LIMIT | {"price": MISSING}, "price is required for a stop_limit order"),
    ({"type": "market"}, "price is not allowed for a market order"),
    (STOP | {"price": 100}, "price is not allowed for a stop order"),
    (STOP | {"stop_price": MISSING}, "stop_price is required for a stop order"),
    ({"type": "stop_limit"}, "stop_price is required for a stop_limit order"),
    ({"stop_price": 160}, "stop_price is not allowed for a limit order"),
    ({"type": "market", "price": MISSING, "stop_price": 160},
     "stop_price is not allowed for a market order"),
    ({"quantity": None}, "quantity must be a number"),
    *[({key: value}, f"{key} {words}") for key, words in CHOICES.items()
      for value in ("", "BUY", " gtc", "x" * 1000)],
    *[({key: 7}, f"{key} must be a string")
      for key in ("symbol", "client_order_id", *CHOICES)],
    *[({"symbol": name}, "symbol is not listed")
      for name in ("", "NOPE", "aapl", "AAPL ", "x" * 1000)],
    *[({"client_order_id": text}, f"client_order_id {ID_RULE}")
      for text in ("", "a b", "é", "a\n", "x" * 65)],
    *[({key: 1}, f"{key} is unknown") for key in ("stop_pirce", "id", "Price")],
    *[({key: value}, f"{key} {words}") for key in ("price", "quantity")
      for value, words in NO_NUMBER.values()],
    *[(STOP | {"stop_price": value}, f"stop_price {words}")
      for value, words in NO_NUMBER.values()],
]  # fmt: skip


def said_of(change):
    shown = [f"{k}={'-' if v is MISSING else repr(v)[:20]}" for k, v in change.items()]
    return " ".join(shown)


@pytest.mark.req("OR-01", "ER-04", "F-100")
@pytest.mark.parametrize(
    ("changes", "words"), BAD_ORDERS, ids=[said_of(c) for c, _ in BAD_ORDERS]
)
def test_a_bad_order_is_refused_by_the_name_of_its_field(changes, words):
    venue = Venue()
    client = venue.trader()
    client.follow("user_orders", "account_updates")

    data = error(client.submit(**changes))
    results = answer(client.batch(order(operation="submit", **changes)))["data"]

    assert data["code"] == "invalid_parameter"
    assert data["message"].startswith(f"Invalid parameter: {words}")
    assert len(data["message"]) < 200
    assert (data["request_id"], data["request_action"]) == ("order-1", "submit_order")
    assert results == {
        "status": "error",
        "results": [
            {
                "operation": "submit",
                "status": "error",
                "code": "invalid_parameter",
                "message": data["message"],
            }
        ],
    }
    assert venue.orders() == venue.market.take() == []
    assert venue.cash() == (1_000_000, 0)


BAD_CHANGES = [
    ({}, "one of quantity, price and stop_price is required"),
    ({"order_id": MISSING, "price": 99}, "one of order_id and client_order_id"),
    ({"client_order_id": "x", "price": 99}, "one of order_id and client_order_id"),
    ({"order_id": 1, "price": 99}, "order_id must be a string"),
    ({"order_id": MISSING, "client_order_id": [], "price": 99},
     "client_order_id must be a string"),
    ({"stop_price": 160}, "stop_price is only for a stop that has not triggered"),
    ({"price": 99, "side": "sell"}, "side is unknown"),
    ({"pirce": 99}, "pirce is unknown"),
    *[({key: value}, f"{key} {words}") for key in ("price", "quantity")
      for value, words in NO_NUMBER.values()],
]  # fmt: skip


@pytest.mark.req("OR-15", "ER-04", "F-100")
@pytest.mark.parametrize(
    ("changes", "words"), BAD_CHANGES, ids=[said_of(c) for c, _ in BAD_CHANGES]
)
def test_a_bad_change_is_refused_and_changes_nothing(changes, words):
    venue = Venue()
    client = venue.trader()
    client.submit()
    reserved = venue.cash()
    change = {"order_id": "o-1", **changes}
    change = {key: value for key, value in change.items() if value is not MISSING}

    data = error(client.send("modify_order", data=change))

    assert data["code"] == "invalid_parameter"
    assert data["message"].startswith(f"Invalid parameter: {words}")
    (kept,) = venue.market.desk.open_orders("acc-alice")
    assert (kept.lots, kept.price_ticks) == (10, 10_000)
    assert venue.cash() == reserved


BAD_CANCELS = [
    ({}, "one of order_id and client_order_id is required"),
    ({"order_id": "o-1", "client_order_id": "x"}, "one of order_id and"),
    ({"order_id": None}, "one of order_id and"),
    ({"order_id": 1}, "order_id must be a string"),
    ({"client_order_id": True}, "client_order_id must be a string"),
    ({"order_id": "o-1", "symbol": "AAPL"}, "symbol is unknown"),
    ({"orderid": "o-1"}, "orderid is unknown"),
]


@pytest.mark.req("OR-13", "ER-04")
@pytest.mark.parametrize(("data", "words"), BAD_CANCELS, ids=str)
def test_a_bad_cancel_is_refused_and_cancels_nothing(data, words):
    venue = Venue()
    client = venue.trader()
    client.submit()

    refusal = error(client.send("cancel_order", data=data))

    assert refusal["code"] == "invalid_parameter"
    assert refusal["message"].startswith(f"Invalid parameter: {words}")
    assert venue.orders() == ["o-1"]


@pytest.mark.req("MF-03", "A-30")
@pytest.mark.parametrize("action", ORDER_ACTIONS)
@pytest.mark.parametrize(
    "fields", [{}, {"data": {}}, {"data": None}, {"data": []}, {"data": "x"},
               {"data": 7}], ids=str,
)  # fmt: skip
def test_an_order_action_without_data_is_an_invalid_parameter(action, fields):
    data = error(Venue().trader().send(action, id="x", **fields))

    assert data["code"] == "invalid_parameter"
    assert (data["request_id"], data["request_action"]) == ("x", action)


@pytest.mark.req("F-100", "A-28")
@given(st.lists(st.integers(1, 100_000_000), max_size=100))
def test_every_multiple_of_the_tick_is_a_price(prices_ticks):
    client = Venue().trader()

    for ticks in prices_ticks:
        response = answer(client.submit(price=ticks / 100, side="sell", quantity=1))
        assert response["data"]["price"] == ticks / 100


SMALL_LOT = SymbolConfig(name="BTC-USD", lot="0.00000001", previous_close=60_000.0)
FUNDED = AccountConfig(
    id="acc-alice",
    api_key="key-alice",
    secret="secret of alice",
    balances={"BTC": 10**10},
)


@pytest.mark.req("F-100", "A-28")
@given(st.lists(st.integers(1, 2**40 - 1), max_size=100))
@example([54_304_557_194])
def test_every_multiple_of_a_small_lot_is_a_quantity_and_nothing_between(quantities):
    config = VenueConfig(
        symbols=[SMALL_LOT],
        accounts=[FUNDED],
        traders=TradersConfig(enabled=False),
        limits=LimitsConfig(orders_per_minute=1000),
    )
    client = Venue(config).trader(FUNDED)

    for lots in quantities:
        sell = {"symbol": "BTC-USD", "side": "sell", "price": 100_000}
        response = answer(client.submit(quantity=lots / 10**8, **sell))
        assert response["data"]["quantity"] == lots / 10**8
        refused = error(client.submit(quantity=(lots + 0.5) / 10**8, **sell))
        assert "quantity must be a multiple of the lot" in refused["message"]


@pytest.mark.req("F-100", "I-10")
def test_a_price_times_a_quantity_beyond_64_bits_is_counted_exactly():
    venue = Venue(configured(allow_short=True))
    alice, bob = venue.trader(ALICE), venue.trader(BOB)
    most = {"quantity": 2**40, "price": 2**52 / 100}

    assert error(alice.submit(**most))["code"] == "insufficient_funds"
    assert answer(bob.submit(side="sell", **most))["data"]["status"] == "accepted"
    buy_all = {"type": "market", "price": MISSING, "quantity": 2**40}
    assert error(alice.submit(**buy_all))["code"] == "insufficient_funds"
    assert venue.cash(ALICE) == (1_000_000, 0)
    assert venue.market.ledger.conserved() == []


@pytest.mark.req("MF-15", "A-30")
@pytest.mark.parametrize("action", ORDER_ACTIONS)
def test_fields_around_the_order_may_be_unknown(action):
    client = Venue().trader()
    client.submit()

    message = answer(client.send(action, data=ENOUGH[action], more={"deep": [1]}))

    assert message["type"] in ("order_response", "batch_response")


@pytest.mark.req("A-43", "AU-08")
@pytest.mark.parametrize("action", [*ORDER_ACTIONS, "authenticate", "subscribe"])
@pytest.mark.parametrize("id_", ["a", "x" * 128, ' ~"\\/', None])
def test_an_id_comes_back_byte_for_byte_with_any_answer(action, id_):
    venue = Venue()
    client = venue.trader()
    client.submit()
    data = ENOUGH.get(action, {"channels": ["user_orders"]})
    if action == "authenticate":
        data = credentials(ALICE, venue.timestamp())

    assert answer(client.send(action, data=data, id=id_)).get("id") == id_
    refusal = answer(client.send(action, data={}, id=id_))
    assert refusal.get("id") == id_
    assert refusal["data"].get("request_id", id_) == id_


@pytest.mark.req("A-43")
def test_two_requests_in_flight_may_have_one_id():
    venue = Venue()
    client = venue.trader()

    answers = [answer(client.submit()) for _ in range(2)]

    assert [message["id"] for message in answers] == ["order-1"] * 2
    assert venue.orders() == ["o-1", "o-2"]


@pytest.mark.req("A-43")
@pytest.mark.parametrize("bad", [7, "", "x" * 129, "é", ["a"], {}, False], ids=repr)
@pytest.mark.parametrize("action", ORDER_ACTIONS)
def test_nothing_is_done_for_a_bad_id(action, bad):
    venue = Venue()
    client = venue.trader()
    client.submit()

    message = answer(client.send(action, data=ENOUGH[action], id=bad))

    assert message["data"]["code"] == "invalid_parameter"
    assert message["data"]["message"].startswith("Invalid parameter: id must be")
    assert "id" not in message
    (kept,) = venue.market.desk.open_orders("acc-alice")
    assert (kept.id, kept.price_ticks) == ("o-1", 10_000)


# ── batches ───────────────────────────────────────────────────────────────────────────

SUBMIT = order(operation="submit")
BAD_BATCHES = {
    "of none": ({"operations": []}, "operations are 0, not 1 to 50"),
    "of 51": ({"operations": [SUBMIT] * 51}, "operations are 51, not 1 to 50"),
    "of 10,000": ({"operations": [{}] * 10_000}, "operations are 10000, not 1 to 50"),
    "without operations": ({}, "operations is required"),
    "of an object": ({"operations": SUBMIT}, "operations must be a list"),
    "of null": ({"operations": None}, "operations must be a list"),
    "bare": ([SUBMIT], "data must be an object"),
}


@pytest.mark.req("F-99", "A-18")
@pytest.mark.parametrize(
    ("data", "words"), BAD_BATCHES.values(), ids=BAD_BATCHES.keys()
)
def test_a_bad_batch_runs_nothing_and_is_charged(data, words):
    venue = Venue()
    client = venue.trader()

    refusal = error(client.send("batch_orders", data=data, id="b"))

    assert refusal["code"] == "invalid_parameter"
    assert refusal["message"] == f"Invalid parameter: {words}"
    assert (refusal["request_id"], refusal["request_action"]) == ("b", "batch_orders")
    assert venue.orders() == venue.market.take() == []
    assert venue.cash() == (1_000_000, 0)
    for _ in range(99):
        cancel_nothing(client)
    assert refused(cancel_nothing(client))


NESTED = {
    "a batch in a batch": {"operation": "batch_orders", "operations": [SUBMIT]},
    "an action in a batch": {"action": "submit_order", "data": SUBMIT},
    "a list in a batch": [SUBMIT],
    "a batch called submit": SUBMIT | {"operations": [SUBMIT]},
    "nothing": {},
    "null": None,
    "a number": 7,
    "text": "submit",
    "an operation that is none": {"operation": "Submit"},
    "an operation that is no text": {"operation": ["submit"]},
}  # fmt: skip


@pytest.mark.req("F-99", "A-30", "A-18")
@pytest.mark.parametrize("operation", NESTED.values(), ids=NESTED.keys())
def test_what_is_no_operation_fails_alone_and_is_charged(operation):
    venue = Venue()
    client = venue.trader()

    data = answer(client.batch(operation, SUBMIT, operation))["data"]

    assert data["status"] == "partial"
    assert [result["status"] for result in data["results"]] == [
        "error", "accepted", "error"
    ]  # fmt: skip
    assert data["results"][0]["code"] == "invalid_parameter"
    assert venue.orders() == ["o-1"]
    for _ in range(97):
        cancel_nothing(client)
    assert refused(cancel_nothing(client))


@pytest.mark.req("F-99", "SEC-13")
def test_a_batch_as_deep_as_a_message_can_be_runs_nothing():
    venue = Venue()
    client = venue.trader()
    deep = b'{"action":"batch_orders","data":{"operations":[%b%b]}}'

    for n in (100, 1_000, 15_000):
        messages = client.raw(deep % (b"[" * n, b"]" * n))
        assert len(messages) == 1
        assert venue.orders() == []


# ── whose orders ──────────────────────────────────────────────────────────────────────


def strangers():
    """Every way to name an order in every request that can."""
    names = ({"order_id": "o-1"}, {"client_order_id": "mine"},
             {"client_order_id": "order-1"})  # fmt: skip
    for name in names:
        yield "cancel_order", name
        yield "modify_order", name | {"quantity": 5}
        yield "batch_orders", {"operations": [{"operation": "cancel"} | name]}
        yield (
            "batch_orders",
            {"operations": [{"operation": "modify", "price": 99} | name]},
        )


@pytest.mark.req("SEC-17", "ER-08")
@pytest.mark.parametrize(("action", "data"), list(strangers()), ids=str)
def test_the_order_of_another_is_not_found(action, data):
    venue, empty = Venue(), Venue()
    alice, bob = venue.trader(ALICE), venue.trader(BOB)
    alice.submit(client_order_id="mine")

    message = answer(bob.send(action, data=data, id="r"))

    assert message == answer(empty.trader(BOB).send(action, data=data, id="r"))
    code = message["data"].get("code") or message["data"]["results"][0]["code"]
    assert code == "order_not_found"
    (kept,) = venue.market.desk.open_orders("acc-alice")
    assert (kept.id, kept.lots, kept.price_ticks) == ("o-1", 10, 10_000)


@pytest.mark.req("SEC-17", "A-16")
def test_two_accounts_may_use_one_client_order_id():
    venue = Venue()
    alice, bob = venue.trader(ALICE), venue.trader(BOB)
    for client in (alice, bob):
        response = answer(client.submit(client_order_id="mine"))
        assert response["data"]["status"] == "accepted"

    bob.send("cancel_order", data={"client_order_id": "mine"})

    assert venue.orders(ALICE) == ["o-1"]
    assert venue.orders(BOB) == []


def heard(client, pushes):
    """What a client is sent of the market's messages: channel and message."""
    held = client.gateway.subscriptions
    return [json.loads(push.payload) for push in pushes if push.channel in held]


@pytest.mark.req("SEC-17", "UO-06", "CA-04")
def test_nothing_of_an_account_reaches_another():
    venue = Venue()
    feeds = {one.id: venue.trader(one, CUSTOM) for one in (ALICE, BOB, CAROL)}
    for feed in feeds.values():
        feed.follow(*CHANNELS)
    alice, bob = venue.trader(ALICE), venue.trader(BOB)
    venue.market.take()

    alice.submit(quantity=20)
    bob.submit(side="sell")
    pushes = venue.market.take()

    told = {name: heard(feed, pushes) for name, feed in feeds.items()}
    kinds = {name: {m["type"] for m in messages} for name, messages in told.items()}
    public = {"trade", "orderbook_update"}
    private = {"order_update", "user_trade", "account_update", "user_notification",
               "custom_alert"}  # fmt: skip
    assert kinds["acc-carol"] - {"ticker"} == public | {"custom_alert"}
    assert kinds["acc-alice"] >= public | private
    assert kinds["acc-bob"] >= public | private
    for name, messages in told.items():
        text = json.dumps(messages)
        own = {"acc-alice": "o-1", "acc-bob": "o-2"}.get(name)
        for foreign in {"acc-alice", "acc-bob", "o-1", "o-2"} - {name, own}:
            assert f'"{foreign}"' not in text
        alerts = {
            m["data"]["alert_id"] for m in messages if m["type"] == "custom_alert"
        }
        assert alerts == {name.replace("acc-", "a-")}


@pytest.mark.req("SEC-17", "UO-06", "A-19")
def test_a_subscription_begins_with_the_accounts_own_state():
    venue = Venue()
    alice, bob = venue.trader(ALICE), venue.trader(BOB)
    alice.submit(quantity=20)
    bob.submit(side="sell")
    private = [name for name in CHANNELS[4:] if name != "system_notifications"]

    begins = {
        one.id: venue.trader(one, CUSTOM).follow(*private)
        for one in (ALICE, BOB, CAROL)
    }

    def told(name, kind, key):
        return [m["data"][key] for m in begins[name] if m["type"] == kind]

    for kind in ("order_update", "user_trade"):
        assert told("acc-alice", kind, "order_id") == ["o-1"]
        assert told("acc-bob", kind, "order_id") == ["o-2"]
    assert told("acc-alice", "account_update", "account_id") == ["acc-alice"]
    assert [m["type"] for m in begins["acc-carol"]] == ["account_update"]


# ── faults ────────────────────────────────────────────────────────────────────────────

FAULTY = {
    "submit_order": order(client_order_id="f"),
    "cancel_order": {"client_order_id": "kept"},
    "modify_order": {"client_order_id": "kept", "quantity": 7},
    "batch_orders": {
        "operations": [
            order(operation="submit", client_order_id="f"),
            {"operation": "modify", "client_order_id": "kept", "quantity": 7},
        ]
    },
}
DONE = {
    "submit_order": {"kept": 10, "f": 10}, "cancel_order": {},
    "modify_order": {"kept": 7}, "batch_orders": {"kept": 7, "f": 10},
}  # fmt: skip


def spoiled(kind, action, processed):
    """Ask for a fault, act, and return the venue, the client and what it was sent."""
    venue = Venue()
    client = venue.trader()
    client.submit(client_order_id="kept")
    venue.faults.spoil_answer(action, kind, processed=processed, delay_s=2.5)
    return venue, client, client.send(action, data=FAULTY[action], id="f-1")


@pytest.mark.req("F-63", "F-71", "ER-11")
@pytest.mark.parametrize("processed", [False, True], ids=["lost", "done"])
@pytest.mark.parametrize("action", ORDER_ACTIONS)
@pytest.mark.parametrize("kind", ["drop", "delay", "error", "cut"])
def test_an_answer_is_spoiled_and_the_order_is_done_or_not(kind, action, processed):
    venue, client, effects = spoiled(kind, action, processed)

    orders = venue.market.desk.open_orders("acc-alice")
    done = DONE[action] if processed else {"kept": 10}
    assert {order.client_order_id: order.lots for order in orders} == done
    if kind == "drop":
        assert effects == []
    elif kind == "cut":
        assert effects == [Cut()]
    elif kind == "error":
        assert answer(effects) == {
            "type": "error",
            "data": {
                "code": "internal_error",
                "message": "An internal server error occurred",
                "request_id": "f-1",
                "request_action": action,
            },
            "timestamp": START // NS_PER_MS,
            "id": "f-1",
        }
    elif not processed:
        assert effects == []
    else:
        (late,) = effects
        assert isinstance(late, Later)
        assert late.delay_ns == 2_500_000_000
        message = json.loads(late.payload)
        assert message["type"] in ("order_response", "batch_response")
        assert message["id"] == "f-1"
    if kind != "cut":
        assert answer(client.submit())["type"] == "order_response"


@pytest.mark.req("F-63", "A-16", "ER-09")
@pytest.mark.parametrize("processed", [False, True])
def test_after_a_lost_answer_the_same_id_never_makes_a_second_order(processed):
    venue, client, _ = spoiled("drop", "submit_order", processed)

    again = answer(client.send("submit_order", data=FAULTY["submit_order"]))

    assert again["type"] == ("error" if processed else "order_response")
    if processed:
        assert again["data"]["code"] == "duplicate_client_order_id"
    assert venue.orders() == ["o-1", "o-2"]


@pytest.mark.req("F-63")
def test_a_refusal_is_delayed_like_any_answer():
    venue = Venue()
    client = venue.trader()
    venue.faults.spoil_answer("cancel_order", "delay", processed=True, delay_s=1)

    (late,) = cancel_nothing(client)

    assert late.delay_ns == NS_PER_S
    assert json.loads(late.payload)["data"]["code"] == "order_not_found"


@pytest.mark.req("F-63")
def test_a_fault_is_for_one_action_and_so_many_times():
    venue = Venue()
    client = venue.trader()
    venue.faults.spoil_answer("submit_order", "drop", processed=False, count=2)

    assert error(cancel_nothing(client))["code"] == "order_not_found"
    assert [client.submit() for _ in range(2)] == [[], []]
    assert answer(client.submit())["data"]["status"] == "accepted"


@pytest.mark.req("F-63", "SEC-17")
def test_a_fault_is_not_spent_on_who_may_not_give_orders():
    venue = Venue()
    trader = venue.trader()
    venue.faults.spoil_answer("submit_order", "drop", processed=False)

    for endpoint in ENDPOINTS:
        assert error(Client(venue=venue, endpoint=endpoint).submit())["code"] in (
            "authentication_required",
            "invalid_action",
        )
    for endpoint in (NOTIFICATIONS, CUSTOM):
        elsewhere = venue.trader(BOB, endpoint)
        assert error(elsewhere.submit())["code"] == "invalid_action"
    assert trader.submit() == []


@pytest.mark.req("F-63", "LM-05")
def test_a_lost_request_is_charged_and_a_rejected_one_is_not_lost():
    venue = Venue()
    client = venue.trader()
    venue.faults.spoil_answer("submit_order", "drop", processed=False, count=101)

    assert [client.submit() for _ in range(100)] == [[]] * 100
    assert refused(client.submit())
    venue.wait(60)
    assert client.submit() == []
    assert answer(client.submit())["data"]["status"] == "accepted"


# ── everything ────────────────────────────────────────────────────────────────────────


@pytest.mark.req("I-12", "SEC-17", "AU-12")
@given(
    st.sampled_from(PRIVATE),
    st.lists(
        st.one_of(
            st.tuples(
                st.sampled_from(["subscribe", "unsubscribe"]),
                st.lists(st.sampled_from(CHANNELS), max_size=3).map(
                    lambda names: {"channels": names}
                ),
            ),
            st.tuples(
                st.sampled_from([*ORDER_ACTIONS, "pong", "logout"]),
                st.sampled_from([*ENOUGH.values(), {}, None]),
            ),
            st.tuples(
                st.just("authenticate"),
                st.sampled_from([7, 2**64, START // NS_PER_MS + 5000, "now"]).map(
                    lambda at: credentials(ALICE, at)
                ),
            ),
        ),
        max_size=12,
    ),
)
def test_whoever_is_not_authenticated_is_told_nothing_private(endpoint, requests):
    venue = Venue()
    venue.trader().submit()
    client = Client(venue=venue, endpoint=endpoint)

    for action, data in requests:
        effects = client.send(action, data=data)
        for effect in effects:
            assert isinstance(effect, Send | Close)
            if isinstance(effect, Send):
                message = json.loads(effect.payload)
                assert message["type"] in ("error", "auth_response")
                assert message["data"].get("status") != "success"
        assert client.gateway.subscriptions == ()
        if closes(effects):
            break
    assert venue.orders() == ["o-1"]


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

"""The vocabulary: channels, codes, limits, signature."""

import pytest

from feedhandler.protocol import channels, codes, limits
from feedhandler.protocol.channels import Channel, format_channel, parse_channel
from feedhandler.protocol.codes import CloseAction
from feedhandler.protocol.signature import sign

GOOD = [
    ("trades:AAPL", Channel("trades", "AAPL")),
    ("orderbook:AAPL:10", Channel("orderbook", "AAPL", depth=10)),
    ("orderbook:BRK.B:5000", Channel("orderbook", "BRK.B", depth=5000)),
    ("ticker:BTC-USD", Channel("ticker", "BTC-USD")),
    ("candles:ETH_USD:1m", Channel("candles", "ETH_USD", interval="1m")),
    ("user_orders", Channel("user_orders")),
    ("user_trades", Channel("user_trades")),
    ("account_updates", Channel("account_updates")),
    ("system_notifications", Channel("system_notifications")),
    ("user_notifications", Channel("user_notifications")),
    ("custom_alerts", Channel("custom_alerts")),
]

BAD = [
    "", ":", "nonsense", "nonsense:AAPL", "trades", "trades:", "trades:aapl",
    "trades:AAPL:10", "trades:../AAPL", "trades:AA/PL", "trades:AA\0PL", "trades:ÄPFEL",
    "trades:.A", "trades:" + "A" * 33, "trades:AAPL ", " trades:AAPL", "TRADES:AAPL",
    "orderbook:AAPL", "orderbook:AAPL:0", "orderbook:AAPL:-1", "orderbook:AAPL:1e9",
    "orderbook:AAPL:ten", "orderbook:AAPL:010", "orderbook:AAPL:5001",
    "orderbook:AAPL:10:10", "orderbook:AAPL:١٠", "orderbook:AAPL:10\n",
    "candles:AAPL", "candles:AAPL:2m", "candles:AAPL:1M", "candles:AAPL:1H",
    "user_orders:AAPL", "A" * 10_000,
]  # fmt: skip


@pytest.mark.req("SB-10")
@pytest.mark.parametrize(("name", "channel"), GOOD)
def test_a_channel_name_is_taken_apart_and_put_together_again(name, channel):
    assert parse_channel(name) == channel
    assert format_channel(channel) == name


@pytest.mark.req("SB-07", "F-85")
@pytest.mark.parametrize("name", BAD, ids=lambda name: repr(name)[:24])
def test_a_name_outside_the_grammar_is_refused(name: str):
    with pytest.raises(ValueError, match="channel"):
        parse_channel(name)


@pytest.mark.req("CD-02", "CD-08")
def test_the_seven_intervals_have_their_lengths():
    minute = 60_000
    assert {
        "1m": minute,
        "5m": 5 * minute,
        "15m": 15 * minute,
        "1h": 60 * minute,
        "4h": 240 * minute,
        "1d": 1440 * minute,
        "1w": 10_080 * minute,
    } == channels.INTERVAL_MS


@pytest.mark.req("SB-11")
def test_each_kind_has_one_endpoint_besides_custom():
    assert channels.served_at("trades") == "/ws/market-data"
    assert channels.served_at("user_orders") == "/ws/trading"
    assert channels.served_at("user_notifications") == "/ws/notifications"
    assert channels.served_at("custom_alerts") == "/ws/custom"
    assert len(channels.CHANNELS_BY_ENDPOINT["/ws/custom"]) == 10
    with pytest.raises(ValueError, match="unknown"):
        channels.served_at("nonsense")


@pytest.mark.parametrize(
    ("code", "action"),
    [
        (1000, CloseAction.BACKOFF),
        (1001, CloseAction.RECONNECT),
        (1006, CloseAction.BACKOFF),
        (1008, CloseAction.STOP),
        (1011, CloseAction.BACKOFF),
        (1013, CloseAction.BACKOFF_TWICE),
        (4000, CloseAction.STOP),
        (4001, CloseAction.COOL_DOWN),
        (4002, CloseAction.RESUBSCRIBE_ONCE),
        (4003, CloseAction.WAIT),
        (4004, CloseAction.BACKOFF),
        (1002, CloseAction.RETRY_ONCE),
        (1009, CloseAction.BACKOFF),
        (4999, CloseAction.BACKOFF),
    ],
)
def test_a_close_code_prescribes_what_to_do(code: int, action: CloseAction):
    assert codes.action_for(code) is action


@pytest.mark.req("A-36", "F-22")
def test_some_codes_may_not_appear_on_the_wire():
    wire = {code for code in range(70_000) if codes.is_wire_code(code)}

    assert {1000, 1001, 1011, 3000, 4000, 4004, 4999} <= wire
    assert not wire & {0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65_535}


@pytest.mark.req("LM-03", "LM-04", "LM-05")
def test_the_limits_are_those_of_the_reference():
    assert [limits.PER_MINUTE[c] for c in limits.RateClass] == [10, 50, 100, 200]
    assert limits.CONNECTIONS_PER_KEY == 5
    assert limits.SUBSCRIPTIONS_PER_CONNECTION == 50
    assert (limits.HEARTBEAT_S, limits.HEARTBEAT_TIMEOUT_S) == (30, 90)


@pytest.mark.req("AU-04")
def test_the_signature_is_the_golden_one():
    signature = sign("your-api-key", b"your-api-secret", 1625097600000)

    assert signature == (
        "4602542f76c480046ced2584a734703f662b0bc32d99ac1d0e07585864b37530"
    )

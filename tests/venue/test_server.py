"""The venue over real sockets on the loopback."""

import asyncio
import io
import json
import os
import ssl
import struct
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from picows import WSHandshakeError, WSMsgType

from feedhandler.errors import ConfigError
from feedhandler.protocol.channels import (
    CUSTOM,
    ENDPOINTS,
    MARKET_DATA,
    NOTIFICATIONS,
    TRADING,
)
from feedhandler.venue import connection, server
from feedhandler.venue.config import (
    AccountConfig,
    AlertConfig,
    LimitsConfig,
    PositionConfig,
    ReplayConfig,
    SymbolConfig,
    TradersConfig,
    VenueConfig,
)
from feedhandler.venue.journal import Journal
from feedhandler.venue.limits import NS_PER_S
from feedhandler.venue.server import Venue
from tests.certificates import only_tls_1_1, self_signed
from tests.clients import authenticated, connected, eventually, log_in, serve

SMALL = Path(__file__).parent.parent / "data" / "engine.jsonl.gz"
CONFIG = VenueConfig(port=0)


@pytest.mark.req("EP-01", "OB-01", "OB-10")
def test_a_subscriber_gets_a_response_a_snapshot_and_updates_without_a_gap():
    async def scenario(venue):
        client = await connected(venue)
        client.subscribe("orderbook:AAPL:10", "trades:AAPL", "ticker:AAPL")
        await client.until(lambda: len(client.on("orderbook:AAPL:10")) > 30)

        book = client.on("orderbook:AAPL:10")
        assert json.loads(client.messages[0])["type"] == "subscription_response"
        assert book[0]["type"] == "orderbook"
        assert {m["type"] for m in book[1:]} == {"orderbook_update"}
        numbers = [m["data"]["sequence"] for m in book]
        assert numbers == list(range(numbers[0], numbers[0] + len(book)))
        stamps = [json.loads(m)["timestamp"] for m in client.messages]
        assert stamps == sorted(stamps)
        assert abs(stamps[-1] - venue.now_ns() // 1_000_000) < 1000

    serve(scenario, CONFIG)


@pytest.mark.req("A-07")
def test_two_subscribers_share_one_sequence():
    async def scenario(venue):
        clients = [await connected(venue) for _ in range(2)]
        for client in clients:
            client.subscribe("orderbook:AAPL:5")
        for client in clients:
            await client.until(lambda c=client: len(c.on("orderbook:AAPL:5")) > 20)

        first, second = (
            {m["data"]["sequence"]: m["data"] for m in c.on("orderbook:AAPL:5")[1:]}
            for c in clients
        )
        common = first.keys() & second.keys()
        assert len(common) > 5
        assert all(first[number] == second[number] for number in common)

    serve(scenario, CONFIG)


@pytest.mark.req("EP-06", "SEC-10")
@pytest.mark.parametrize(
    "path", ["/", "/ws", "/ws/trading/", "/ws/unknown", "/ws/../ws/trading"]
)
def test_other_paths_are_not_found(path):
    async def scenario(venue):
        with pytest.raises(WSHandshakeError) as caught:
            await connected(venue, path)
        assert caught.value.response.status == 404
        assert caught.value.raw_body == b"not found"

    serve(scenario, CONFIG)


@pytest.mark.req("SEC-08", "SEC-09")
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "["}, 403),
        ({"Origin": "http://["}, 403),
        ({"Host": "myhost:1234"}, None),
        ({"Host": "localhost:1234"}, None),
        ({"Host": "localhost:1234", "Origin": "http://localhost:1234"}, None),
    ],
)
def test_pages_of_other_hosts_are_refused(headers, status, caplog):
    async def scenario(venue):
        if status is None:
            await connected(venue, extra_headers=headers)
            return
        with pytest.raises(WSHandshakeError) as caught:
            await connected(venue, extra_headers=headers)
        assert caught.value.response.status == status

    serve(scenario, msgspec.structs.replace(CONFIG, allowed_hosts=["MyHost"]))
    assert [r for r in caplog.records if r.name == "feedhandler.venue"] == []


def violate_too_big(client):
    client.transport.send(WSMsgType.TEXT, b"x" * (64 * 1024 + 1))


def violate_too_big_in_fragments(client):
    client.transport.send(WSMsgType.TEXT, b"x" * 40_000, fin=False)
    client.transport.send(WSMsgType.CONTINUATION, b"x" * 40_000, fin=False)


def violate_too_many_fragments(client):
    client.transport.send(WSMsgType.TEXT, b"", fin=False)
    for _ in range(2000):
        client.transport.send(WSMsgType.CONTINUATION, b"", fin=False)


def violate_utf8(client):
    client.transport.send(WSMsgType.TEXT, b'{"action":"\xff"}')


def violate_reserved(client):
    client.transport.send(WSMsgType.TEXT, b"{}", rsv1=True)


def violate_orphan(client):
    client.transport.send(WSMsgType.CONTINUATION, b"{}")


def violate_order(client):
    client.transport.send(WSMsgType.TEXT, b"{", fin=False)
    client.transport.send(WSMsgType.TEXT, b"}")


@pytest.mark.req("A-30")
@pytest.mark.parametrize(
    ("violate", "code"),
    [
        pytest.param(violate_too_big, 1009, marks=pytest.mark.req("SEC-11")),
        pytest.param(
            violate_too_big_in_fragments, 1009, marks=pytest.mark.req("SEC-11")
        ),
        pytest.param(violate_too_many_fragments, 1008, marks=pytest.mark.req("SEC-11")),
        (violate_utf8, 1007),
        pytest.param(violate_reserved, 1002, marks=pytest.mark.req("A-47")),
        (violate_orphan, 1002),
        (violate_order, 1002),
    ],
)
def test_what_the_protocol_forbids_is_closed_with_its_code(violate, code):
    async def scenario(venue):
        client, other = await connected(venue), await connected(venue)
        violate(client)
        await client.until(lambda: client.disconnected)
        other.subscribe("trades:AAPL")
        await other.until(lambda: other.messages)

        assert client.close[0] == code

    serve(scenario, CONFIG)


@pytest.mark.req("A-31", "BP-21")
def test_fragments_and_binary_frames_are_requests_too():
    async def scenario(venue):
        client = await connected(venue, MARKET_DATA + "?frames=binary")
        request = b'{"action":"subscribe","data":{"channels":["trades:AAPL"]}}'
        client.transport.send(WSMsgType.BINARY, request[:10], fin=False)
        client.transport.send_ping(b"between")
        client.transport.send(WSMsgType.CONTINUATION, request[10:])
        await client.until(lambda: client.messages and client.pongs)

        assert json.loads(client.messages[0])["type"] == "subscription_response"
        assert client.kinds[0] == WSMsgType.BINARY
        assert client.pongs == [b"between"]

    serve(scenario, CONFIG)


@pytest.mark.req("F-28", "A-36")
@pytest.mark.parametrize(
    ("sent", "answered"), [(1000, 1000), (4321, 4321), (1006, 1002)]
)
def test_a_close_is_answered_and_nothing_is_read_after_it(sent, answered):
    async def scenario(venue):
        client = await connected(venue)
        sock = client.transport.underlying_transport.get_extra_info("socket")
        # By hand: picows would send nothing after its own close frame.
        mask = bytes(4)
        close = b"\x88\x82" + mask + struct.pack("!H", sent)
        garbage = b"\x81\x81" + mask + b"{"
        os.write(sock.fileno(), close + garbage)
        await client.until(lambda: client.disconnected)

        assert client.close[0] == answered
        assert client.messages == []

    serve(scenario, CONFIG)


@pytest.mark.req("CC-02")
def test_stopping_closes_everybody_with_1001():
    async def run():
        venue = Venue(CONFIG)
        await venue.start()
        client = await connected(venue)
        await venue.stop()
        await client.until(lambda: client.disconnected)

        assert client.close == (1001, "going away")
        assert venue.connections == 0
        await venue.stop()

    asyncio.run(run())


def test_a_port_in_use_is_an_os_error():
    async def scenario(venue):
        with pytest.raises(OSError, match="in use"):
            await Venue(msgspec.structs.replace(CONFIG, port=venue.port)).start()

    serve(scenario, CONFIG)


@pytest.mark.req("HB-01", "HB-09", "A-10")
def test_heartbeats_come_and_a_silent_client_is_closed():
    async def scenario(venue):
        client = await connected(venue)
        await client.until(lambda: client.disconnected)

        beats = [json.loads(message)["type"] for message in client.messages]
        assert beats
        assert set(beats) == {"heartbeat"}
        assert client.close == (1001, "heartbeat timeout")

    serve(scenario, VenueConfig(port=0, heartbeat_s=0.05, heartbeat_timeout_s=0.3))


@pytest.mark.req("SEC-16", "F-20")
def test_a_slow_consumer_of_a_live_market_is_closed_and_others_are_served():
    config = VenueConfig(
        port=0,
        symbols=[SymbolConfig(name="AAPL", previous_close=150.0)],
        traders=TradersConfig(rate=500.0),
        limits=LimitsConfig(outbound_bytes=64 * 1024),
    )

    async def scenario(venue):
        slow, quick = await connected(venue), await connected(venue)
        below = slow.transport.underlying_transport
        below.pause_reading()
        for client in (slow, quick):
            client.subscribe(*(f"orderbook:AAPL:{depth}" for depth in range(10, 40)))
        await quick.until(lambda: quick.messages)
        # The slow one is unsubscribed from everything when it is given up.
        await eventually(lambda: len(venue._subscribers["orderbook:AAPL:10"]) == 2)
        await eventually(lambda: len(venue._subscribers["orderbook:AAPL:10"]) == 1)
        below.resume_reading()
        await slow.until(lambda: slow.disconnected)

        assert slow.close == (4001, "slow consumer")
        assert quick.close is None

    serve(scenario, config)


@pytest.mark.req("SEC-14")
def test_an_address_may_hold_only_so_many_connections():
    async def scenario(venue):
        first = await connected(venue)
        second = await connected(venue)
        await second.until(lambda: second.disconnected)
        assert second.close[0] == 1013

        first.transport.disconnect()
        await eventually(lambda: not venue.connections)
        third = await connected(venue)
        third.subscribe("trades:AAPL")
        await third.until(lambda: third.messages)

    config = VenueConfig(port=0, limits=LimitsConfig(connections_per_address=1))
    serve(scenario, config)


@pytest.mark.req("F-102")
def test_an_exception_closes_one_connection_with_1011(monkeypatch):
    async def scenario(venue):
        broken, sound = await connected(venue), await connected(venue)
        refusal = venue.market.refusal

        def fail_for_one(channel, others):
            return fail() if channel.symbol == "MSFT" else refusal(channel, others)

        monkeypatch.setattr(venue.market, "refusal", fail_for_one)
        broken.subscribe("trades:MSFT")
        await broken.until(lambda: broken.disconnected)
        sound.subscribe("trades:AAPL")
        await sound.until(lambda: sound.messages)

        assert broken.close == (1011, "internal error")

    serve(scenario, CONFIG)


def fail(*_):
    raise RuntimeError("a fault of ours")


def server_side(venue, number):
    """The venue's connection of the client that came as the *number*th."""
    return next(one for one in venue._connections if one.number == number)


@pytest.mark.req("F-102")
def test_an_exception_of_a_tick_closes_its_connection_alone(monkeypatch):
    async def scenario(venue):
        broken, sound = await connected(venue), await connected(venue)
        monkeypatch.setattr(server_side(venue, 1).gateway, "tick", fail)
        await broken.gone()
        count = len(sound.told)
        await sound.until(lambda: len(sound.told) > count)

        assert broken.close == (1011, "internal error")
        assert sound.close is None

    serve(scenario, msgspec.structs.replace(QUIET, heartbeat_s=0.02))


@pytest.mark.req("F-102")
@pytest.mark.parametrize("waited", [False, True])
def test_an_exception_of_a_channel_closes_who_opens_it_alone(monkeypatch, waited):
    async def scenario(venue):
        broken, sound = await connected(venue), await connected(venue)
        if waited:
            server_side(venue, 1).pause()
            await broken.ask("subscribe", channels=["orderbook:AAPL:5"])
        with monkeypatch.context() as patch:
            patch.setattr(venue.market, "open", fail)
            if waited:
                server_side(venue, 1).resume()
            else:
                broken.subscribe("orderbook:AAPL:5")
            await broken.gone()
        await sound.ask("subscribe", channels=["orderbook:AAPL:5"])
        await sound.until(lambda: sound.on("orderbook:AAPL:5"))

        assert broken.close == (1011, "internal error")
        assert sound.close is None

    serve(scenario, QUIET)


@pytest.mark.req("F-102")
def test_a_market_that_fails_is_asked_again_after_a_second(monkeypatch):
    asked = []

    def fail_again(now_ns):
        asked.append(now_ns)
        fail()

    async def scenario(venue):
        client = await connected(venue)
        monkeypatch.setattr(venue.market, "advance", fail_again)
        assert await client.gone() == (1011, "internal error")
        # Whatever clients do meanwhile: they are answered, and it is left alone.
        for _ in range(3):
            client = await connected(venue)
            told = await client.ask("subscribe", channels=["ticker:AAPL"])
            assert told["data"]["status"] == "success"
        assert len(asked) == 1
        venue._epoch_ns += NS_PER_S
        venue.drained()
        assert await client.gone() == (1011, "internal error")

        assert len(asked) == 2

    serve(scenario, CONFIG)


@pytest.mark.parametrize("name", ["orderbook:AAPL:10", "trades:ETH-USD"])
def test_a_replay_arrives_byte_for_byte(name):
    import gzip

    with gzip.open(SMALL) as file:
        wanted = [
            line for line in file.read().splitlines()
            if f'"channel":"{name}"'.encode() in line
        ]  # fmt: skip

    async def scenario(venue):
        client = await connected(venue)
        client.subscribe(name)
        await client.until(lambda: len(client.messages) > len(wanted))

        assert client.messages[1:] == wanted

    replay = ReplayConfig(path=str(SMALL), speed="max")
    serve(scenario, VenueConfig(port=0, replay=replay))


def test_a_replay_waits_for_a_slow_subscriber_and_loses_nothing():
    replay = ReplayConfig(path=str(SMALL), speed="max", loop=True)

    async def scenario(venue):
        client = await connected(venue)
        below = client.transport.underlying_transport
        client.subscribe("orderbook:AAPL:10")
        await client.until(lambda: client.messages)
        below.pause_reading()
        await eventually(venue._congested)
        sent = venue.market.sent
        await asyncio.sleep(0.05)
        assert venue.market.sent == sent
        below.resume_reading()
        await client.until(lambda: venue.market.sent > sent)

        expected = None
        for message in client.on("orderbook:AAPL:10"):
            number = message["data"]["sequence"]
            if message["type"] == "orderbook_update":
                assert number == expected
            expected = number + 1
        assert client.close is None

    serve(scenario, VenueConfig(port=0, replay=replay))


@pytest.mark.req("SEC-23")
def test_a_fault_plan_loses_repeats_freezes_and_cuts():
    async def scenario(venue):
        client = await connected(venue)
        name = "orderbook:AAPL:10"
        client.subscribe(name)
        await client.until(lambda: len(client.on(name)) > 3)
        venue.faults.skip(name, 2)
        await client.until(lambda: gaps(client, name) == [3])
        venue.faults.repeat(name)
        await client.until(lambda: gaps(client, name) == [3, 0])
        venue.faults.freeze(name)
        client.subscribe(name)
        snapshots = [m for m in client.on(name) if m["type"] == "orderbook"]
        await client.until(lambda: client.on(name)[-1]["type"] == "orderbook")
        assert len(snapshots) == 1
        frozen = client.on(name)[-1]["data"]["sequence"]
        client.subscribe("ticker:AAPL")
        await client.until(lambda: len(client.on("ticker:AAPL")) > 2)
        assert client.on(name)[-1]["data"]["sequence"] == frozen
        venue.faults.close_all(4004, "restarting")
        await client.until(lambda: client.disconnected)

        assert client.close == (4004, "restarting")
        client = await connected(venue)
        venue.faults.abort_all()
        await client.until(lambda: client.disconnected)
        assert client.close is None

    serve(scenario, CONFIG)


def gaps(client, name):
    numbers = [message["data"]["sequence"] for message in client.on(name)]
    steps = [b - a for a, b in pairwise(numbers)]
    return [step for step in steps if step != 1]


# ── the four endpoints ────────────────────────────────────────────────────────────────

ACCOUNTS = [
    AccountConfig(
        id=f"acc-{name}",
        api_key=f"key-{name}",
        secret=f"secret of {name}",
        balances={"USD": 10_000_000},
        positions={"AAPL": PositionConfig(quantity=10_000)},
        alerts=[
            AlertConfig(
                id=f"alert-{name}",
                name="high",
                condition="price_above",
                symbol="AAPL",
                threshold="150",
            )
        ],
    )
    for name in ("ann", "bob")
]
QUIET = VenueConfig(
    port=0,
    traders=TradersConfig(enabled=False),
    accounts=ACCOUNTS,
    limits=LimitsConfig(orders_per_minute=100_000),
)
ANN, BOB = 0, 1


def order(side, price=150.0, quantity=10, **fields):
    kind = {"type": "market"} if price is None else {"type": "limit", "price": price}
    return {"symbol": "AAPL", "side": side, "quantity": quantity, **kind, **fields}


def kinds_of(client):
    return [message["type"] for message in client.told]


@pytest.mark.req("EP-07", "CA-01", "OV-06")
def test_one_client_uses_all_four_endpoints_at_once():
    async def scenario(venue):
        market = await connected(venue, MARKET_DATA)
        paths = [path for path in ENDPOINTS if path != MARKET_DATA]
        clients = [market] + [await authenticated(venue, path) for path in paths]
        wanted = ["trades:AAPL", "user_orders", "user_notifications", "custom_alerts"]
        answers = [
            await client.ask("subscribe", channels=[channel])
            for client, channel in zip(clients, wanted, strict=True)
        ]
        maker = await authenticated(venue, TRADING, BOB)
        await maker.ask("submit_order", **order("sell", 151.0))
        await clients[1].ask("submit_order", **order("buy", 151.0))
        await market.until(lambda: market.on("trades:AAPL"))
        await clients[1].until(lambda: len(clients[1].on("user_orders")) == 2)
        await clients[3].until(lambda: clients[3].on("custom_alerts"))

        assert [a["type"] for a in answers] == ["subscription_response"] * 4
        assert venue.connections == 5

    serve(scenario, QUIET)


@pytest.mark.req("EP-02", "EP-03", "EP-04")
@pytest.mark.parametrize("path", [p for p in ENDPOINTS if p != MARKET_DATA])
def test_a_private_endpoint_asks_for_authentication_first(path):
    async def scenario(venue):
        client = await connected(venue, path)
        refused = await client.ask("subscribe", channels=["user_orders"])

        assert refused["data"]["code"] == "authentication_required"
        assert client.close is None

    serve(scenario, QUIET)


@pytest.mark.req("OV-01")
def test_a_hundred_orders_are_answered_while_their_updates_stream():
    async def scenario(venue):
        client = await authenticated(venue, TRADING)
        await client.ask("subscribe", channels=["user_orders"])
        ids = [f"o{number}" for number in range(100)]
        for request_id in ids:
            client.send("submit_order", data=order("buy", 140.0), id=request_id)
        await client.until(lambda: len(client.on("user_orders")) == 100)

        answered = [m["id"] for m in client.told if m["type"] == "order_response"]
        assert answered == ids
        told = [m["data"]["client_id"] for m in client.on("user_orders")]
        assert told == ids
        # In one stream: the answer to the last comes after the first update.
        kinds = kinds_of(client)
        last = len(kinds) - kinds[::-1].index("order_response") - 1
        assert kinds.index("order_update") < last

    serve(scenario, QUIET)


@pytest.mark.req("OV-03", "OR-03")
def test_an_order_is_submitted_modified_and_canceled():
    async def scenario(venue):
        client = await authenticated(venue, TRADING)
        placed = await client.ask("submit_order", **order("buy", 140.0))
        order_id = placed["data"]["order_id"]
        changed = await client.ask("modify_order", order_id=order_id, price=141.0)
        canceled = await client.ask("cancel_order", order_id=order_id)

        assert (placed["data"]["status"], placed["data"]["price"]) == ("accepted", 140)
        assert changed["data"]["status"] == "modified"
        assert changed["data"]["price"] == 141.0
        assert canceled["data"]["status"] == "canceled"

    serve(scenario, QUIET)


@pytest.mark.req("OV-04", "OV-05", "A-41")
def test_a_fill_is_told_to_its_parties_without_asking():
    async def scenario(venue):
        ann = await authenticated(venue, TRADING, ANN)
        bob = await authenticated(venue, TRADING, BOB)
        channels = ["user_orders", "user_trades", "account_updates"]
        for client in (ann, bob):
            await client.ask("subscribe", channels=channels)
            await client.until(lambda c=client: c.on("account_updates"))
        await ann.ask("submit_order", **order("buy", 150.0, 10))
        await ann.until(lambda: len(ann.on("account_updates")) == 2)
        before = len(ann.told)
        await bob.ask("submit_order", **order("sell", 150.0, 4))
        await ann.until(lambda: len(ann.on("account_updates")) == 3)
        await bob.until(lambda: len(bob.on("account_updates")) == 2)

        news = ann.told[before:]
        assert kinds_of(ann)[before:] == [
            "user_trade",
            "order_update",
            "account_update",
        ]
        trade, update, account = (message["data"] for message in news)
        assert (trade["quantity"], trade["price"]) == (4, 150)
        assert update["status"] == "partially_filled"
        assert (update["filled_quantity"], update["remaining_quantity"]) == (4, 6)
        (usd,) = account["balances"]
        (aapl,) = account["positions"]
        fee = trade["fee"]
        assert fee == pytest.approx(600 * 0.00002)
        assert usd["total"] == pytest.approx(10_000_000 - 600 - fee)
        assert usd["reserved"] == pytest.approx(900 + 900 * 0.00002)
        assert aapl["quantity"] == 10_004
        # The taker is answered before anything else, A-41.
        after = kinds_of(bob)[kinds_of(bob).index("order_response") :]
        assert after == [
            "order_response", "order_update", "user_trade", "order_update",
            "account_update",
        ]  # fmt: skip
        assert venue.market.ledger.conserved() == []

    serve(scenario, QUIET)


@pytest.mark.req("OV-02", "TK-01", "CD-01")
def test_one_match_gives_every_kind_of_market_data():
    wanted = ["ticker:AAPL", "orderbook:AAPL:5", "trades:AAPL", "candles:AAPL:1m"]

    async def scenario(venue):
        market = await connected(venue)
        await market.ask("subscribe", channels=wanted)
        await market.until(lambda: len(market.told) == 3)
        ann = await authenticated(venue, TRADING, ANN)
        # A second before a minute's end, by the venue's clock.
        venue._epoch_ns += 59 * NS_PER_S - venue.now_ns() % (60 * NS_PER_S)
        await ann.ask("submit_order", **order("buy", 150.5))
        await ann.ask("submit_order", **order("sell", 150.5))
        await market.until(lambda: market.on("ticker:AAPL")[-1]["data"]["last_price"])
        await market.until(lambda: market.on("candles:AAPL:1m"))

        (trade,) = market.on("trades:AAPL")
        assert (trade["data"]["price"], trade["data"]["side"]) == (150.5, "sell")
        assert len(market.on("orderbook:AAPL:5")) == 3
        assert market.on("ticker:AAPL")[-1]["data"]["volume"] == 10
        assert market.on("candles:AAPL:1m")[0]["data"]["close"] == 150.5

    serve(scenario, QUIET)


@pytest.mark.req("A-39")
def test_a_ticker_that_was_held_back_comes_though_nothing_else_happens():
    async def scenario(venue):
        market = await connected(venue)
        ann = await authenticated(venue, TRADING, ANN)
        await market.ask("subscribe", channels=["ticker:AAPL"])
        await ann.ask("submit_order", **order("buy", 140.0))
        await market.until(lambda: len(market.on("ticker:AAPL")) == 2)

        assert [m["data"]["bid"] for m in market.on("ticker:AAPL")] == [None, 140.0]

    serve(scenario, QUIET)


@pytest.mark.req("A-24", "OV-07")
def test_a_halt_and_its_end_are_told_at_once():
    async def scenario(venue):
        client = await authenticated(venue, NOTIFICATIONS)
        await client.ask("subscribe", channels=["system_notifications"])
        await client.until(lambda: client.on("system_notifications"))
        # In ten seconds something else would have the venue look.
        async with asyncio.timeout(5):
            venue.halt("AAPL")
            await client.until(lambda: len(client.on("system_notifications")) == 2)
            venue.resume("AAPL")
            await client.until(lambda: len(client.on("system_notifications")) == 3)

        told = [message["data"] for message in client.on("system_notifications")]
        assert [data["event"] for data in told] == ["start", "halt", "open"]
        assert [data["symbols"] for data in told[1:]] == [["AAPL"]] * 2

    serve(scenario, QUIET)


@pytest.mark.req("SEC-17", "UO-06", "ER-08")
def test_nobody_is_told_of_the_orders_of_another_account():
    async def scenario(venue):
        ann = await authenticated(venue, CUSTOM, ANN)
        bob = await authenticated(venue, TRADING, BOB)
        names = ["user_orders", "user_trades", "account_updates", "trades:AAPL"]
        await ann.ask("subscribe", channels=names)
        placed = await bob.ask("submit_order", **order("buy", 150.0))
        await bob.ask("submit_order", **order("sell", 150.0))
        await ann.until(lambda: ann.on("trades:AAPL"))
        trader = await authenticated(venue, TRADING, ANN)
        stolen = await trader.ask("cancel_order", order_id=placed["data"]["order_id"])

        assert [m["data"]["account_id"] for m in ann.on("account_updates")] == [
            "acc-ann"
        ]
        assert ann.on("user_orders") == ann.on("user_trades") == []
        assert stolen["data"]["code"] == "order_not_found"

    serve(scenario, QUIET)


# ── slow clients ──────────────────────────────────────────────────────────────────────


def test_what_is_short_begins_at_once_also_for_a_client_that_is_slow():
    short = ["user_notifications", "custom_alerts", "account_updates", "trades:AAPL"]
    bulky = ["user_orders", "orderbook:AAPL:5"]
    (ann, bob) = ACCOUNTS
    ann = msgspec.structs.replace(ann, large_fill=1)

    async def scenario(venue):
        slow = await authenticated(venue, CUSTOM, ANN)
        quick = await authenticated(venue, TRADING, BOB)
        maker = await authenticated(venue, TRADING, ANN)
        server_side(venue, 1).pause()
        await slow.ask("subscribe", channels=[*short, *bulky])
        await maker.ask("submit_order", **order("buy", 151.0))
        await quick.ask("submit_order", **order("sell", 151.0))
        await slow.until(lambda: all(slow.on(channel) for channel in short))
        assert not any(slow.on(channel) for channel in bulky)
        server_side(venue, 1).resume()
        await slow.until(lambda: all(slow.on(channel) for channel in bulky))

        assert slow.on("user_notifications")[0]["data"]["title"] == "Large fill"

    serve(scenario, msgspec.structs.replace(QUIET, accounts=[ann, bob]))


def test_snapshots_of_a_client_that_keeps_up_are_not_counted_for_ever():
    async def scenario(venue):
        client = await connected(venue)
        for _ in range(40):
            await client.ask("subscribe", channels=["orderbook:AAPL:5"])
        await client.until(lambda: len(client.on("orderbook:AAPL:5")) == 40)

        backlog = server_side(venue, 1)._backlog
        assert len(backlog._snapshots) == 0
        # Nothing that is unread could be of a snapshot.
        assert backlog.beyond_snapshots(backlog.queued) == backlog.queued

    serve(scenario, QUIET)


# ── connections of a key ──────────────────────────────────────────────────────────────


@pytest.mark.req("LM-01", "CC-09")
def test_the_sixth_connection_of_a_key_is_closed_with_4003():
    async def scenario(venue):
        held = [await authenticated(venue, TRADING) for _ in range(5)]
        sixth = await connected(venue, TRADING)
        answer = await log_in(sixth, venue)
        await sixth.gone()
        assert answer["status"] == "error"
        assert sixth.close == (4003, "duplicate connection")
        assert not any(client.disconnected for client in held)

        # Others have keys of their own, and one that goes makes room.
        await authenticated(venue, TRADING, BOB)
        held[0].transport.disconnect()
        await eventually(lambda: venue._access.connections("key-ann") == 4)
        await authenticated(venue, TRADING)

    limits = LimitsConfig(authentication_per_minute=100)
    serve(scenario, msgspec.structs.replace(QUIET, limits=limits))


@pytest.mark.req("LM-01")
def test_a_connection_that_answers_no_heartbeat_makes_room_for_a_new_one():
    async def scenario(venue):
        zombie, *sound = [await authenticated(venue, TRADING) for _ in range(5)]
        for client in (zombie, *sound):
            await client.until(lambda c=client: "heartbeat" in kinds_of(c))
        # Ten seconds later, by the venue's clock.
        venue._epoch_ns += 10 * NS_PER_S
        for client in sound:
            client.send("pong", data={}, id="p")
            await client.ask("unsubscribe", channels=[])
        await authenticated(venue, TRADING)
        await zombie.gone()

        assert zombie.close == (1001, "heartbeat timeout")
        assert not any(client.disconnected for client in sound)

    limits = LimitsConfig(authentication_per_minute=100)
    config = msgspec.structs.replace(QUIET, heartbeat_s=0.2, limits=limits)
    serve(scenario, config)


@pytest.mark.req("SEC-16")
def test_a_slow_consumer_of_orders_is_closed_and_nothing_is_left_out_before():
    async def scenario(venue):
        slow = await authenticated(venue, TRADING)
        below = slow.transport.underlying_transport
        quick = await authenticated(venue, TRADING)
        await slow.ask("subscribe", channels=["user_orders"])
        below.pause_reading()
        orders = [{"operation": "submit", **order("buy", 140.0, 1)}] * 50
        key = "user_orders/acc-ann"
        # The slow one is unsubscribed when it is given up.
        while venue._subscribers.get(key):
            answer = await quick.ask("batch_orders", operations=orders)
            assert answer["data"]["status"] == "success"
        below.resume_reading()
        await slow.gone()

        assert slow.close == (4001, "slow consumer")
        told = [int(m["data"]["order_id"][2:]) for m in slow.on("user_orders")]
        assert told == list(range(1, len(told) + 1))
        assert len(told) > 1000
        assert quick.close is None

    limits = LimitsConfig(orders_per_minute=1_000_000, outbound_bytes=64 * 1024)
    serve(scenario, msgspec.structs.replace(QUIET, limits=limits))


# ── handshake and TLS ─────────────────────────────────────────────────────────────────


@pytest.mark.req("OV-09", "SEC-08")
def test_browsers_and_programs_are_served_alike():
    async def scenario(venue):
        program = await connected(venue)
        page = await connected(
            venue,
            extra_headers={
                "Origin": "https://desk.example",
                "Connection": "keep-alive, Upgrade",
                "User-Agent": "Mozilla/5.0",
            },
        )
        for client in (program, page):
            answer = await client.ask("subscribe", channels=["trades:AAPL"])
            assert answer["data"]["status"] == "success"

    allowed = ["https://desk.example"]
    serve(scenario, msgspec.structs.replace(QUIET, allowed_origins=allowed))


@pytest.fixture
def certificate(tmp_path):
    """A certificate for 127.0.0.1 and its key."""
    return tuple(map(Path, self_signed(tmp_path)))


@pytest.mark.req("EP-05", "SEC-02")
def test_the_venue_speaks_tls_1_2_or_later(certificate):
    cert, key = map(str, certificate)

    async def scenario(venue):
        trusting = ssl.create_default_context(cafile=cert)
        client = await authenticated(venue, TRADING, ssl_context=trusting)
        answer = await client.ask("subscribe", channels=["user_orders"])
        used = client.transport.underlying_transport.get_extra_info("ssl_object")
        with pytest.raises(ssl.SSLCertVerificationError):
            await connected(venue, TRADING)
        old = only_tls_1_1(ssl.create_default_context(cafile=cert))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await connected(venue, TRADING, ssl_context=old)

        assert venue.url.startswith("wss://127.0.0.1:")
        assert answer["data"]["status"] == "success"
        assert used.version() in ("TLSv1.2", "TLSv1.3")

    serve(scenario, msgspec.structs.replace(QUIET, tls_cert=cert, tls_key=key))


@pytest.mark.req("SEC-02")
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_key_that_others_can_read_is_refused(certificate, mode):
    cert, key = certificate
    key.chmod(mode)
    config = msgspec.structs.replace(QUIET, tls_cert=str(cert), tls_key=str(key))

    with pytest.raises(ConfigError, match=f"tls_key .* has mode 0o{mode:o}"):
        asyncio.run(Venue(config).start())


# ── the end, and another beginning ────────────────────────────────────────────────────


def epoch_of(client):
    return client.on("system_notifications")[0]["data"]["venue_epoch"]


@pytest.mark.req("A-49", "A-50", "OV-07")
def test_a_restart_is_announced_closes_with_4004_and_begins_a_new_epoch():
    async def scenario(venue):
        client = await authenticated(venue, NOTIFICATIONS)
        trader = await authenticated(venue, TRADING)
        await client.ask("subscribe", channels=["system_notifications"])
        await trader.ask("submit_order", **order("buy", 140.0))
        await client.until(lambda: client.on("system_notifications"))
        port = venue.port
        await venue.restart("maintenance")
        await client.gone()
        await trader.gone()
        again = await authenticated(venue, NOTIFICATIONS)
        await again.ask("subscribe", channels=["system_notifications"])
        await again.until(lambda: again.on("system_notifications"))
        trader = await authenticated(venue, TRADING)
        await trader.ask("subscribe", channels=["user_orders", "account_updates"])
        await trader.until(lambda: trader.on("account_updates"))

        said = client.on("system_notifications")[-1]["data"]
        assert (said["event"], said["level"]) == ("shutdown", "warning")
        assert "maintenance" in said["message"]
        assert client.close == (4004, "maintenance")
        assert venue.port == port
        assert epoch_of(again) != epoch_of(client)
        assert trader.on("user_orders") == []

    serve(scenario, QUIET)


UPGRADE = (
    b"GET /ws/market-data HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@pytest.mark.req("A-50")
def test_a_handshake_in_flight_does_not_join_a_venue_that_is_ending():
    async def scenario(venue):
        holding = await connected(venue)
        holding.transport.underlying_transport.pause_reading()
        reader, writer = await asyncio.open_connection("127.0.0.1", venue.port)
        writer.write(UPGRADE[:40])
        await writer.drain()
        restarting = asyncio.create_task(venue.restart())
        await eventually(lambda: venue._server is None)
        writer.write(UPGRADE[40:])
        answer = await reader.read()
        writer.close()
        await restarting

        assert answer.startswith(b"HTTP/1.1 503 ")
        assert venue.connections == 0

    serve(scenario, QUIET)


@pytest.mark.req("A-50")
def test_a_connection_that_does_not_end_is_cut_and_the_venue_stops(monkeypatch):
    # Its own deadline would be in time: here it is not.
    monkeypatch.setattr(connection, "CLOSE_DEADLINE_S", 3600)
    monkeypatch.setattr(server, "CLOSE_DEADLINE_S", 0.01)

    async def run():
        venue = Venue(QUIET)
        await venue.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", venue.port)
        writer.write(UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        await eventually(lambda: venue.connections)
        async with asyncio.timeout(5):
            await venue.stop()
        await eventually(lambda: not venue.connections)
        told = await reader.read()
        writer.close()

        assert told == b"\x88\x0c" + struct.pack("!H", 1001) + b"going away"

    asyncio.run(run())


def test_a_journal_has_the_beginning_and_the_end_of_a_connection():
    file = io.BytesIO()

    async def scenario(venue):
        client = await connected(venue, TRADING)
        client.transport.disconnect()
        await eventually(lambda: not venue.connections)
        await connected(venue)

    serve(scenario, QUIET, journal=Journal(file))
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    for line in lines:
        assert line.pop("t") > 0
    assert lines == [
        {"k": "open", "c": 1, "endpoint": TRADING, "address": "127.0.0.1"},
        {"k": "close", "c": 1},
        {"k": "open", "c": 2, "endpoint": MARKET_DATA, "address": "127.0.0.1"},
        {"k": "close", "c": 2},
    ]


@pytest.mark.req("OV-08")
def test_the_services_run_with_no_socket_and_no_event_loop():
    done = subprocess.run(
        [sys.executable, "-c", SERVICES],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stderr == ""
    assert done.stdout.split() == ["filled", "alert", "conserved"]


SERVICES = """
import socket
import sys

def refuse(*arguments, **options):
    raise AssertionError("a socket was made")

socket.socket.__init__ = refuse

from feedhandler.protocol.messages import OrderData
from feedhandler.venue.config import AccountConfig, AlertConfig, VenueConfig
from feedhandler.venue.exchange import Exchange

alert = AlertConfig(
    id="a", name="n", condition="price_above", symbol="AAPL", threshold="150"
)
account = AccountConfig(
    id="acc", api_key="k", secret="s", balances={"USD": 10000000}, alerts=[alert]
)
exchange = Exchange(VenueConfig(accounts=[account]), 0)
exchange.open("user_orders/acc", 0)
told = exchange.advance(1_000_000_000)
order = OrderData("AAPL", "buy", "market", 5000.0)
exchange.desk.submit("acc", order, "r", 1_000_000_000)
told = b"".join(push.payload for push in told + exchange.take())
if b'"status":"filled"' in told:
    print("filled")
if b'"type":"custom_alert"' in told:
    print("alert")
if exchange.ledger.conserved() == []:
    print("conserved")
assert "asyncio" not in sys.modules
assert "picows" not in sys.modules
"""

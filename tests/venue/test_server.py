"""The venue over real sockets on the loopback."""

import asyncio
import json
import os
import struct
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from picows import WSHandshakeError, WSMsgType

from feedhandler.protocol.channels import MARKET_DATA
from feedhandler.venue.config import (
    LimitsConfig,
    ReplayConfig,
    TradersConfig,
    VenueConfig,
)
from feedhandler.venue.server import Venue
from tests.clients import connected, eventually, serve

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
        ({"Host": "localhost:1234"}, None),
        ({"Host": "localhost:1234", "Origin": "http://localhost:1234"}, None),
    ],
)
def test_pages_of_other_hosts_are_refused(headers, status):
    async def scenario(venue):
        if status is None:
            await connected(venue, extra_headers=headers)
            return
        with pytest.raises(WSHandshakeError) as caught:
            await connected(venue, extra_headers=headers)
        assert caught.value.response.status == status

    serve(scenario, CONFIG)


def violate_too_big(client):
    client.transport.send(WSMsgType.TEXT, b"x" * (64 * 1024 + 1))


def violate_too_big_in_fragments(client):
    client.transport.send(WSMsgType.TEXT, b"x" * 40_000, fin=False)
    client.transport.send(WSMsgType.CONTINUATION, b"x" * 40_000, fin=False)


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
        traders=TradersConfig(rate=2000.0),
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


def test_an_exception_closes_one_connection_with_1011(monkeypatch):
    async def scenario(venue):
        broken, sound = await connected(venue), await connected(venue)
        refusal = venue.market.refusal

        def fail(channel):
            if channel.symbol == "MSFT":
                raise RuntimeError("a fault of ours")
            return refusal(channel)

        monkeypatch.setattr(venue.market, "refusal", fail)
        broken.subscribe("trades:MSFT")
        await broken.until(lambda: broken.disconnected)
        sound.subscribe("trades:AAPL")
        await sound.until(lambda: sound.messages)

        assert broken.close == (1011, "internal error")

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

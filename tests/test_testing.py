"""What we give to other people's tests: a venue on a thread, and a pytest plugin."""

import asyncio
import json
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from itertools import pairwise

import pytest
from picows import WSListener, WSMsgType, ws_connect

from feedhandler.protocol.channels import MARKET_DATA, TRADING
from feedhandler.protocol.signature import sign
from feedhandler.testing import RunningVenue
from feedhandler.venue import VenueConfig, build

DEADLINE_S = 10


class Client(WSListener):
    """Keeps messages and the close code."""

    def __init__(self) -> None:
        self.messages: list[dict] = []
        self.close = 0

    def on_ws_frame(self, transport, frame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            self.close = int(frame.get_close_code())
            transport.send_close(frame.get_close_code())
            transport.disconnect()
            return
        self.messages.append(json.loads(frame.get_payload_as_bytes()))


def talk(
    url: str,
    requests: list[dict],
    done: Callable[[Client], bool],
    act: Callable[[], object] = lambda: None,
) -> Client:
    """Send *requests*, then *act* on another thread, until *done*."""

    async def run() -> Client:
        transport, client = await ws_connect(Client, url)
        for request in requests:
            transport.send(WSMsgType.TEXT, json.dumps(request).encode())
        acting = asyncio.create_task(asyncio.to_thread(act))
        async with asyncio.timeout(DEADLINE_S):
            while not done(client):
                await asyncio.sleep(0.005)
        transport.disconnect()
        await acting
        return client

    return asyncio.run(run())


def subscribe(*channels: str) -> dict:
    return {"action": "subscribe", "data": {"channels": list(channels)}, "id": "s"}


def authenticate(credentials: tuple[str, str]) -> dict:
    key, secret = credentials
    now_ms = time.time_ns() // 1_000_000
    signature = sign(key, secret.encode(), now_ms)
    data = {"api_key": key, "signature": signature, "timestamp": now_ms}
    return {"action": "authenticate", "data": data, "id": "auth"}


def test_a_venue_on_a_thread_serves_and_ends():
    before = threading.active_count()
    with RunningVenue(build(port=0)) as venue:
        requests = [authenticate(venue.credentials), subscribe("user_orders")]
        client = talk(
            venue.url + TRADING, requests, lambda client: len(client.messages) > 1
        )
    venue.stop()

    assert [m["data"]["status"] for m in client.messages] == ["success", "success"]
    assert threading.active_count() == before


def test_faults_are_asked_for_from_the_test_s_own_thread():
    channel = "orderbook:AAPL:10"

    def sequences(client: Client) -> list[int]:
        found = [m for m in client.messages if m.get("channel") == channel]
        return [m["data"]["sequence"] for m in found]

    def has_gap(client: Client) -> bool:
        seen = sequences(client)
        return any(b != a + 1 for a, b in pairwise(seen))

    with RunningVenue(build(port=0)) as venue:
        client = talk(
            venue.url + MARKET_DATA,
            [subscribe(channel)],
            has_gap,
            lambda: venue.do(lambda v: v.faults.skip(channel, 3)),
        )
    steps = [b - a for a, b in pairwise(sequences(client))]

    assert steps.count(4) == 1
    assert set(steps) <= {1, 4}


@pytest.mark.req("A-50", "CC-10")
def test_a_restart_tells_everybody_and_keeps_the_port():
    with RunningVenue(build(port=0)) as venue:
        url = venue.url
        client = talk(
            url + MARKET_DATA,
            [subscribe("trades:AAPL")],
            lambda client: client.close != 0,
            venue.restart,
        )
        again = talk(
            venue.url + MARKET_DATA,
            [subscribe("trades:AAPL")],
            lambda client: len(client.messages) > 0,
        )

        assert client.close == 4004
        assert venue.url == url
        assert again.messages[0]["type"] == "subscription_response"


def test_a_venue_that_cannot_start_leaves_no_thread():
    before = threading.active_count()
    with RunningVenue(build(port=0)) as venue:
        port = int(venue.url.rpartition(":")[2])
        with pytest.raises(OSError, match="address already in use"):
            RunningVenue(VenueConfig(port=port))

    assert threading.active_count() == before


def test_a_scripted_fault_happens_by_itself():
    faults = [{"kind": "close", "after_s": 0.2, "code": 4001, "reason": "as asked"}]
    with RunningVenue(build(port=0, testing=True, faults=faults)) as venue:
        client = talk(venue.url + MARKET_DATA, [], lambda client: client.close != 0)

    assert client.close == 4001


THEIRS = """
    import feedhandler.venue
    import pytest

    @pytest.fixture
    def feedhandler_venue_config():
        return feedhandler.venue.build(port=0, heartbeat_s=0.5)

    def test_it_is_mine(feedhandler_venue):
        assert feedhandler_venue.url.startswith("ws://127.0.0.1:")
        assert feedhandler_venue.do(lambda venue: venue.config.heartbeat_s) == 0.5
        assert len(feedhandler_venue.credentials) == 2
"""


def test_anybody_s_tests_have_the_fixture(tmp_path):
    (tmp_path / "test_theirs.py").write_text(textwrap.dedent(THEIRS))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", tmp_path],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_plugin_costs_other_tests_no_import():
    script = """
        import sys
        import feedhandler.testing.plugin
        heavy = {"picows", "numpy", "msgspec", "feedhandler.venue.server"}
        print(sorted(heavy & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert done.stdout == "[]\n"

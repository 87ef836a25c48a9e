"""The two clients that the API reference prints, against the venue."""

import asyncio
import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from feedhandler.protocol.channels import MARKET_DATA, TRADING
from feedhandler.venue.config import VenueConfig, build
from feedhandler.venue.server import Venue
from tests.end_to_end.processes import START_S, STOP_S, until

HERE = Path(__file__).parent
PRINTED = HERE.parent / "reference"
KEY, SECRET = "demo-key", "demo-secret"
CHANNELS = ["trades:AAPL", "orderbook:AAPL:10"]
ORDER = {
    "symbol": "AAPL",
    "side": "buy",
    "type": "limit",
    "quantity": 100,
    "price": 150.00,
    "time_in_force": "gtc",
}

NODE = shutil.which("node")
NODE_ENVIRONMENT = dict(os.environ)
if "FEEDHANDLER_NODE_MODULES" in os.environ:
    NODE_ENVIRONMENT["NODE_PATH"] = os.environ["FEEDHANDLER_NODE_MODULES"]

LANGUAGES = ["javascript", "python"]


# ── the venue ─────────────────────────────────────────────────────────────────────────


def market_only(**fields: Any) -> VenueConfig:
    return build(port=0, **fields)


def with_account(**fields: Any) -> VenueConfig:
    """A venue with one account, that of KEY and SECRET."""
    account = {
        "id": "acc-1",
        "api_key": KEY,
        "secret": SECRET,
        "balances": {"USD": "1000000"},
        "positions": {"AAPL": "1000"},
    }
    return build(port=0, accounts=[account], **fields)


class Served:
    """A venue on a thread of its own, which can be restarted on its port."""

    def __init__(self, config: VenueConfig) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.venue = Venue(config)

    def start(self) -> None:
        self._run(self.venue.start())

    def stop(self) -> None:
        self._run(self.venue.stop())

    def restart(self) -> None:
        """End the venue and start another one in its place."""
        self.stop()
        config = msgspec.structs.replace(self.venue.config, port=self.venue.port)
        self.venue = Venue(config)
        self.start()

    def end(self) -> None:
        try:
            self.stop()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _run(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(START_S)


@contextlib.contextmanager
def served(config: VenueConfig) -> Iterator[Served]:
    venue = Served(config)
    try:
        venue.start()
        yield venue
    finally:
        venue.end()


# ── the clients ───────────────────────────────────────────────────────────────────────


def command(language: str) -> list[str]:
    """Return how a driver is run, or skip the test and say what is missing."""
    if language == "python":
        if importlib.util.find_spec("websocket") is None:
            pytest.skip("no websocket-client here")
        program = [sys.executable, str(HERE / "printed_client_driver.py")]
        return [*program, str(PRINTED / "printed_client.py")]
    node = node_with_ws()
    program = [node, str(HERE / "printed_client_driver.js")]
    return [*program, str(PRINTED / "printed_client.js")]


def node_with_ws() -> str:
    if NODE is None:
        pytest.skip("no node here")
    found = subprocess.run(
        [NODE, "-e", "require('ws')"],
        env=NODE_ENVIRONMENT,
        capture_output=True,
        check=False,
    )
    if found.returncode:
        pytest.skip("no ws for node: npm install ws, set FEEDHANDLER_NODE_MODULES")
    return NODE


class Client:
    """A printed client in a child process; *events* is what its driver told so far."""

    def __init__(self, language: str, url: str, secret: str, log: Path) -> None:
        self.events: list[dict[str, Any]] = []
        arguments = [*command(language), url, KEY, secret]
        self._log = log.open("w")
        self.process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=NODE_ENVIRONMENT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def send(self, method: str, *args: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"method": method, "args": args}) + "\n")
        self.process.stdin.flush()

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of the client and return what it returns."""
        start = len(self.events)
        self.send(method, *args)
        outcome = self.wait(
            method,
            lambda event: event.get("method") == method,
            start=start,
        )
        assert outcome["event"] == "returned", outcome
        return outcome["result"]

    def wait(
        self,
        what: str,
        condition: Callable[[dict[str, Any]], bool],
        *,
        start: int = 0,
    ) -> dict[str, Any]:
        """Return the first event from *start* on that meets the condition."""

        def probe() -> dict[str, Any] | None:
            assert self.process.poll() is None, "the client has died"
            return next(filter(condition, self.events[start:]), None)

        return until(probe, what)

    def wait_for(self, event: str, endpoint: str, nth: int = 1) -> int:
        """Wait until something happened *nth* times; return what came before."""

        def probe() -> int | None:
            assert self.process.poll() is None, "the client has died"
            found = [
                position
                for position, told in enumerate(self.events)
                if told["event"] == event and told["endpoint"] == endpoint
            ]
            return found[nth - 1] + 1 if len(found) >= nth else None

        return until(probe, f"{endpoint} to be {event}")

    def wait_for_message(self, kind: str, start: int = 0) -> dict[str, Any]:
        event = self.wait(
            kind,
            lambda told: told["event"] == "message" and told["message"]["type"] == kind,
            start=start,
        )
        return event["message"]

    def messages(self, *kinds: str) -> list[dict[str, Any]]:
        told = (
            event["message"] for event in self.events if event["event"] == "message"
        )
        return [message for message in told if message["type"] in kinds]

    def connect(self, endpoint: str) -> None:
        self.send("connect", endpoint)
        self.wait_for("connected", endpoint)

    def end(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self._reader.join()
            self.process.stdout.close()
            self._log.close()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Start printed clients, end them, and show what they said if the test failed."""
    with contextlib.ExitStack() as running:

        def start(language: str, url: str, secret: str = SECRET) -> Client:
            log = tmp_path / f"{language}.log"
            client = Client(language, url, secret, log)
            running.callback(lambda: print(log.read_text()[-2000:]))
            running.callback(client.end)
            return client

        yield start


# ── market data ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        (
            "printed_client.js",
            "8089b770035eabbaba8ef298bb193fe1088d702727156f13eb31aa8ceccf0f27",
        ),
        (
            "printed_client.py",
            "247ffbd423243e66dcec80c5d7d7796ba84557a5e7566feba723f8c74085bce6",
        ),
    ],
    ids=LANGUAGES,
)
def test_a_printed_client_is_as_it_was_printed(name, digest):
    assert hashlib.sha256((PRINTED / name).read_bytes()).hexdigest() == digest


@pytest.mark.req("EP-01", "SB-02", "OB-10")
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_printed_client_gets_trades_and_a_book_without_a_gap(run, language):
    with served(market_only()) as venue:
        client = run(language, venue.venue.url)
        client.connect(MARKET_DATA)
        response = client.call("subscribe", MARKET_DATA, CHANNELS)
        trade = client.wait_for_message("trade")
        until(lambda: len(client.messages("orderbook_update")) > 20, "updates")

    assert response["type"] == "subscription_response"
    assert response["data"] == {"status": "success", "channels": CHANNELS}
    assert response["id"].startswith("sub-")
    assert trade["data"]["symbol"] == "AAPL"
    book = client.messages("orderbook", "orderbook_update")
    assert book[0]["type"] == "orderbook"
    assert book[0]["data"]["bids"][0][0] < book[0]["data"]["asks"][0][0]
    numbers = [message["data"]["sequence"] for message in book]
    assert numbers == list(range(numbers[0], numbers[0] + len(book)))


@pytest.mark.req("HB-04", "A-10")
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_printed_client_lives_by_its_pongs(run, language):
    with served(market_only(heartbeat_s=0.2, heartbeat_timeout_s=2.0)) as venue:
        client = run(language, venue.venue.url)
        client.connect(MARKET_DATA)
        client.call("subscribe", MARKET_DATA, CHANNELS)
        first = client.wait_for_message("trade")["timestamp"]
        client.wait(
            "a trade after the time-out",
            lambda told: told.get("message", {}).get("timestamp", 0) > first + 3000,
        )

        assert venue.venue.connections == 1
        assert [told["event"] for told in client.events].count("connected") == 1


@pytest.mark.req("A-06")
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_printed_client_has_data_again_after_a_restart(run, language):
    with served(market_only()) as venue:
        client = run(language, venue.venue.url)
        client.connect(MARKET_DATA)
        client.call("subscribe", MARKET_DATA, CHANNELS)
        client.wait_for_message("orderbook")
        venue.restart()
        again = client.wait_for("connected", MARKET_DATA, nth=2)
        # The Python client subscribes before it is connected, and is none the wiser.
        if language == "python":
            client.call("subscribe", MARKET_DATA, CHANNELS)
        snapshot = client.wait_for_message("orderbook", again)
        trade = client.wait_for_message("trade", again)

    assert snapshot["channel"] == "orderbook:AAPL:10"
    assert trade["channel"] == "trades:AAPL"


# ── trading ───────────────────────────────────────────────────────────────────────────


def assert_accepted(response: dict[str, Any]) -> None:
    assert response["type"] == "order_response", response
    assert response["id"].startswith("order-")
    assert response["data"]["status"] == "accepted"
    assert response["data"]["client_id"] == response["id"]
    assert {key: response["data"][key] for key in ORDER} == ORDER


@pytest.mark.parametrize(
    "language",
    [
        pytest.param("javascript", marks=pytest.mark.req("EX-01")),
        pytest.param("python", marks=pytest.mark.req("EX-02")),
    ],
)
@pytest.mark.req("AU-08", "A-15")
def test_a_printed_client_is_authenticated_and_its_order_accepted(run, language):
    with served(with_account()) as venue:
        client = run(language, venue.venue.url)
        client.connect(TRADING)
        client.wait_for("authenticated", TRADING)
        response = client.call("subscribe", TRADING, ["user_orders", "user_trades"])
        order = client.call("submit_order", ORDER)
        update = client.wait_for_message("order_update")

    assert response["data"]["status"] == "success"
    assert_accepted(order)
    assert update["data"]["client_id"] == order["id"]
    assert "id" not in update


@pytest.mark.req("AU-07", "AU-10", "A-02")
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_printed_client_with_a_wrong_secret_is_told_so(run, language):
    with served(with_account()) as venue:
        client = run(language, venue.venue.url, "not-the-secret")
        client.connect(TRADING)
        position = client.wait_for("refused", TRADING)

    said = client.events[position - 1]["message"]
    assert said.startswith("Authentication failed: ")
    assert "undefined" not in said
    assert "None" not in said


@pytest.mark.req("A-05")
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_printed_client_trades_again_after_a_restart(run, language):
    with served(with_account()) as venue:
        client = run(language, venue.venue.url)
        client.connect(TRADING)
        client.wait_for("authenticated", TRADING)
        client.call("subscribe", TRADING, ["user_orders"])
        venue.restart()
        again = client.wait_for("authenticated", TRADING, nth=2)
        if language == "python":
            client.call("subscribe", TRADING, ["user_orders"])
        order = client.call("submit_order", ORDER)
        update = client.wait_for_message("order_update", again)

    assert_accepted(order)
    assert update["data"]["order_id"] == order["data"]["order_id"]


@pytest.mark.req("EX-01")
def test_the_printed_javascript_program_runs_as_it_is(tmp_path):
    node = node_with_ws()
    with served(with_account()) as venue:
        text = (PRINTED / "printed_client.js").read_text()
        for printed, ours in (
            ("wss://api.tradingplatform.example.com", venue.venue.url),
            ("your-api-key", KEY),
            ("your-api-secret", SECRET),
        ):
            assert text.count(printed) == 1
            text = text.replace(printed, ours)
        (tmp_path / "program.js").write_text(text)
        with (tmp_path / "output").open("w") as output:
            program = subprocess.Popen(
                [node, str(tmp_path / "program.js")],
                env=NODE_ENVIRONMENT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            said = until(
                lambda: said_with(tmp_path / "output", "Order Result:", "Trade:"),
                "the result of the order",
            )
            program.send_signal(signal.SIGINT)
            code = program.wait(STOP_S)
        finally:
            program.kill()
            program.wait()

    assert f"Authentication successful for {TRADING}" in said
    assert "status: 'accepted'" in said
    assert "Error" not in said
    assert code == 0


def said_with(output: Path, *wanted: str) -> str | None:
    said = output.read_text()
    return said if all(words in said for words in wanted) else None

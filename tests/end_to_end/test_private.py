"""Orders, fills, the account and notices: from the venue to a process that reads."""

import asyncio
import json
import re
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from feedhandler import FeedHandler
from feedhandler.config import FeedConfig, build
from feedhandler.consumer import attach
from feedhandler.errors import ConfigError, RingAbsent
from feedhandler.protocol.channels import TRADING
from feedhandler.protocol.messages import (
    AccountUpdate,
    Balance,
    OrderData,
    Position,
    ServerMessage,
)
from feedhandler.secret import Secret
from feedhandler.venue.config import (
    AccountConfig,
    AlertConfig,
    TradersConfig,
    VenueConfig,
)
from feedhandler.venue.server import Venue
from tests.clients import Client, authenticated
from tests.end_to_end.processes import left_behind, unique
from tests.loops import SECONDS, eventually, run

PAGE = Path(__file__).parents[2] / "docs" / "private.md"
NUMBERS = count()
BOB = 1
QUIET = VenueConfig(
    port=0,
    traders=TradersConfig(enabled=False),
    accounts=[
        AccountConfig(
            id=name,
            api_key=f"key-{name}",
            secret=f"secret-of-{name}",
            balances={"USD": "100000"},
            positions={"AAPL": 100},
            large_fill=1,
            alerts=[
                AlertConfig(
                    id=f"alert-{name}",
                    name="AAPL above 150",
                    condition="price_above",
                    symbol="AAPL",
                    threshold="150",
                )
            ],
        )
        for name in ("ann", "bob")
    ],
)
STREAMS = ("orders", "fills", "account", "notices")


READER = """
import sys
import feedhandler
from feedhandler.lines import as_json

with feedhandler.attach(sys.argv[1]) as market:
    for name in sys.argv[2:]:
        stream = getattr(market, name)(start="oldest")
        for record in stream.poll():
            print(as_json(name, record, market.symbols()))
        print("lost", stream.lost)
"""


class Scene:
    """A venue, Ann's feed, and Bob, who sells to her."""

    def __init__(
        self, venue: Venue, feed: FeedHandler, bob: Client, messages: list[Any]
    ) -> None:
        self.venue = venue
        self.feed = feed
        self.bob = bob
        self.messages = messages

    async def buy(self, quantity: float, price: float) -> None:
        """Have Ann buy from Bob, and hear of all of it."""
        await self.bob.ask("submit_order", **limit("sell", quantity, price))
        flow = self.feed.flow
        await eventually(lambda: flow.is_ready, "the orders to be known")
        order = OrderData("AAPL", "buy", "limit", quantity, price, client_order_id="c")
        sent = flow.submit(order, time.monotonic_ns())
        await self.feed.answer(sent)
        await eventually(lambda: sent.orders[0].is_terminal, "the fill")
        await eventually(
            lambda: flow.account.positions["AAPL"].quantity > 100, "it all"
        )

    def ledger(self) -> AccountUpdate:
        """The account as the venue has it."""
        assert self.venue.market is not None
        payload = self.venue.market.open("account_updates/ann", self.venue.now_ns())[0]
        message = msgspec.json.decode(payload, type=ServerMessage)
        assert isinstance(message, AccountUpdate)
        return message

    async def read(self, *streams: str) -> dict[str, list[dict[str, Any]]]:
        """What another process reads of the streams."""
        name = self.feed.config.shm.name
        reader = await asyncio.create_subprocess_exec(
            sys.executable, "-c", READER, name, *streams, stdout=PIPE
        )
        out, _ = await reader.communicate()
        assert reader.returncode == 0
        *parts, end = out.decode().split("lost 0\n")
        assert end == ""
        return {
            stream: [json.loads(line) for line in part.splitlines()]
            for stream, part in zip(streams, parts, strict=True)
        }


def limit(side: str, quantity: float, price: float) -> dict[str, Any]:
    kind = {"symbol": "AAPL", "side": side, "type": "limit"}
    return kind | {"quantity": quantity, "price": price}


async def tail(name: str, stream: str) -> str:
    """The first line that the command prints of a stream."""
    program = ("-m", "feedhandler", "tail", name, "--stream", stream)
    options = ("--start", "oldest", "--count", "1")
    running = await asyncio.create_subprocess_exec(
        sys.executable, *program, *options, stdout=PIPE
    )
    out, _ = await running.communicate()
    assert running.returncode == 0
    return out.decode()


def config(url: str, **more: Any) -> FeedConfig:
    values = {
        "url": url,
        "shm": {"name": f"{unique('private')}-{next(NUMBERS)}", "mode": 0o640},
        "credentials": {"api_key": "key-ann"},
        "instruments": [{"symbol": "AAPL"}],
    }
    return build(values | more)


def play(act: Callable[[Scene], Awaitable[None]], **more: Any) -> None:
    async def work() -> None:
        async with Venue(QUIET) as venue:
            bob = await authenticated(venue, TRADING, BOB)
            settings = config(venue.url, **more)
            messages: list[Any] = []
            async with FeedHandler(
                settings, on_message=messages.append, secret=Secret("secret-of-ann")
            ) as feed:
                await feed.live(SECONDS)
                await act(Scene(venue, feed, bob, messages))
            assert left_behind(settings.shm.name) == []
        await bob.gone()

    run(work)


@pytest.mark.req("AC-01", "AC-06", "I-10")
def test_the_account_that_another_process_reads_is_that_of_the_ledger():
    async def act(scene: Scene) -> None:
        before = scene.ledger().data
        await scene.buy(10, 151.0)
        read = await scene.read("account")
        rows = {(row["kind"], row["name"]): row for row in read["account"]}
        ledger = scene.ledger().data
        assert ledger != before
        assert len(rows) == len(ledger.balances) + len(ledger.positions) == 2
        for balance in ledger.balances:
            row = rows["balance", balance.currency]
            assert balance == Balance(
                row["name"], row["available"], row["reserved"], row["total"]
            )
        for position in ledger.positions:
            row = rows["position", position.symbol]
            assert position == Position(
                row["name"], row["quantity"], row["average_price"],
                row["unrealized_pnl"], row["realized_pnl"],
            )  # fmt: skip

    play(act)


@pytest.mark.req("UO-01", "UT-01", "A-41")
def test_another_process_reads_what_becomes_of_an_order():
    async def act(scene: Scene) -> None:
        await scene.buy(10, 151.0)
        read = await scene.read("orders", "fills")
        events = [row for row in read["orders"] if row["client_id"] == "c"]
        (fill,) = read["fills"]
        assert (events[0]["status"], events[0]["cause"]) == ("pending", "sent")
        assert events[0]["pending"] == ["SUBMIT_PENDING"]
        assert events[-1]["status"] == "filled"
        assert events[-1]["filled"] == fill["quantity"] == 10
        assert fill["order_id"] == events[-1]["order_id"] != ""
        assert (fill["price"], fill["client_id"], fill["symbol"]) == (151, "c", "AAPL")
        times = [row["recv_ns"] for row in events]
        assert times == sorted(times)
        assert abs(times[-1] - events[-1]["venue_ns"]) < 5_000_000_000
        assert {row["epoch"] for row in events} == {1}

    play(act)


@pytest.mark.req("SN-01", "UN-01", "CA-01")
def test_another_process_reads_notices_to_all_and_to_us_and_an_alert():
    async def act(scene: Scene) -> None:
        await scene.buy(10, 151.0)
        kinds = {"SystemNotification", "UserNotification", "CustomAlert"}
        await eventually(
            lambda: kinds <= {type(message).__name__ for message in scene.messages},
            "the notices",
        )
        by_kind = {row["kind"]: row for row in (await scene.read("notices"))["notices"]}
        assert by_kind["system"]["title"] == "Venue started"
        assert by_kind["user"]["level"] == "info"
        assert by_kind["user"]["instrument"] is None
        alert = by_kind["alert"]
        assert (alert["id"], alert["title"]) == ("alert-ann", "AAPL above 150")
        assert (alert["threshold"], alert["current_value"]) == (150, 151)
        assert (alert["symbol"], alert["instrument"]) == ("AAPL", 0)

    play(act)


@pytest.mark.req("I-09", "F-74", "A-19")
def test_what_was_before_us_is_told_again_and_flagged_and_what_follows_is_not():
    async def work() -> None:
        async with Venue(QUIET) as venue:
            ann = await authenticated(venue, TRADING)
            bob = await authenticated(venue, TRADING, BOB)
            for client, side in ((bob, "sell"), (ann, "buy")):
                await client.ask("submit_order", **limit(side, 5, 150.0))
            await ann.ask("submit_order", **limit("buy", 1, 1.0))
            settings = config(venue.url)
            async with FeedHandler(settings, secret=Secret("secret-of-ann")) as feed:
                await feed.live(SECONDS)
                scene = Scene(venue, feed, bob, [])
                await scene.buy(10, 151.0)
                read = await scene.read("orders", "fills")
        await asyncio.gather(ann.gone(), bob.gone())
        before = [row for row in read["orders"] if "REPLAYED" in row["flags"]]
        assert {row["cause"] for row in before} <= {"adopted", "fill"}
        assert {row["status"] for row in before} == {"filled", "accepted"}
        after = [row for row in read["orders"] if row["client_id"] == "c"]
        assert [row["flags"] for row in after] == [[]] * len(after)
        flags = {row["quantity"]: row["flags"] for row in read["fills"]}
        assert flags == {5: ["REPLAYED"], 10: []}

    run(work)


def test_each_stream_is_printed_line_by_line():
    async def act(scene: Scene) -> None:
        await scene.buy(10, 151.0)
        name = scene.feed.config.shm.name
        lines = [await tail(name, stream) for stream in STREAMS]
        assert lines[0].startswith("AAPL         pending          sent     buy  limit")
        assert " buy  10 @ 151 fee=0.0302 USD order=" in lines[1]
        assert lines[2].startswith("USD          balance  available=100000 reserved=0")
        assert lines[3].startswith("system info     n-")

    play(act)


def test_the_code_of_the_page_prints_our_orders():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    code = code.replace("orders()", 'orders(start="oldest")').replace("=60", "=0")

    async def act(scene: Scene) -> None:
        await scene.buy(10, 151.0)
        name = scene.feed.config.shm.name
        reader = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code.replace('"md"', repr(name)), stdout=PIPE
        )
        out, _ = await reader.communicate()
        lines = out.decode().splitlines()
        assert lines[0] == "b'AAPL' PENDING CAUSE_SENT "
        assert lines[-1].startswith("b'AAPL' FILLED CAUSE_")
        assert reader.returncode == 0

    play(act)


def test_a_process_that_blocks_is_woken_by_what_it_waits_for():
    async def act(scene: Scene) -> None:
        with attach(scene.feed.config.shm.name) as market:
            fills = market.fills()
            waiting = asyncio.create_task(
                asyncio.to_thread(fills.wait, SECONDS, "block")
            )
            await scene.buy(10, 151.0)
            assert await waiting
            assert fills.poll()["quantity"].tolist() == [10]

    name = f"{unique('private')}-wake"
    play(act, shm={"name": name, "wake": True})


@pytest.mark.req("SN-01", "EP-04")
def test_a_feed_that_hears_of_notices_alone_publishes_them_alone():
    async def act(scene: Scene) -> None:
        await eventually(lambda: scene.messages, "the start of the venue")
        read = await scene.read(*STREAMS)
        assert [row["title"] for row in read.pop("notices")] == ["Venue started"]
        assert set(map(len, read.values())) == {0}
        with pytest.raises(ConfigError, match="orders want"):
            assert scene.feed.flow

    play(act, account={"channels": ["system_notifications"]})


def test_a_feed_that_is_started_again_has_rings_of_its_new_life():
    async def act(scene: Scene) -> None:
        await scene.buy(10, 151.0)
        with attach(scene.feed.config.shm.name) as market:
            fills = market.fills(start="oldest")
            assert fills.poll()["quantity"].tolist() == [10]
            await scene.feed.stop()
            assert fills.status == "CLOSED"
            await scene.feed.start()
            await scene.feed.live(SECONDS)
            await eventually(lambda: len(fills.poll()), "the fill, told again")
            assert fills.resets == 1

    play(act)


def test_a_feed_without_a_key_has_no_private_streams():
    async def work() -> None:
        async with Venue(QUIET) as venue:
            settings = config(venue.url, credentials={})
            async with FeedHandler(settings) as feed:
                await feed.live(SECONDS)
                with attach(settings.shm.name) as market:
                    for stream in STREAMS:
                        with pytest.raises(RingAbsent, match=f"no stream {stream}"):
                            getattr(market, stream)()

    run(work)

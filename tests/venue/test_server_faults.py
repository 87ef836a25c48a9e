"""What a test asks the venue to do wrong, as a client on a real socket sees it."""

import asyncio
import json
from itertools import pairwise

import msgspec
import pytest

from feedhandler.protocol.channels import CUSTOM, TRADING
from feedhandler.venue.config import AccountConfig, TradersConfig, VenueConfig
from feedhandler.venue.faults import FaultPlan
from feedhandler.venue.server import Venue
from tests.clients import DEADLINE_S, authenticated, connected, eventually, serve

BEAT_NS = 20_000_000
BOOK = "orderbook:AAPL:10"
LIVELY = VenueConfig(port=0, traders=TradersConfig(rate=500.0))
ACCOUNT = AccountConfig(
    id="acc-ann", api_key="key-ann", secret="secret of ann", balances={"USD": 1_000_000}
)
QUIET = VenueConfig(port=0, traders=TradersConfig(enabled=False), accounts=[ACCOUNT])
BID = {"symbol": "AAPL", "side": "buy", "type": "limit", "price": 140, "quantity": 1}


def sequences(client, channel=BOOK):
    return [message["data"]["sequence"] for message in client.on(channel)]


def steps(client, channel=BOOK):
    """What is not one more than before."""
    return [b - a for a, b in pairwise(sequences(client, channel)) if b - a != 1]


async def reader(venue, *channels):
    client = await connected(venue)
    await client.ask("subscribe", channels=list(channels or (BOOK,)))
    await client.until(lambda: len(client.on(BOOK)) > 3)
    return client


# ── market data ───────────────────────────────────────────────────────────────────────


def test_skipped_updates_are_a_gap_of_their_number():
    async def scenario(venue):
        client = await reader(venue)
        venue.faults.skip(BOOK, 3)
        await client.until(lambda: steps(client))
        count = len(client.on(BOOK))
        await client.until(lambda: len(client.on(BOOK)) > count + 20)

        assert steps(client) == [4]

    serve(scenario, LIVELY)


def test_a_repeated_update_is_the_same_twice():
    async def scenario(venue):
        client = await reader(venue)
        venue.faults.repeat(BOOK, 2)
        await client.until(lambda: len(steps(client)) == 2)

        assert steps(client) == [0, 0]
        book = client.on(BOOK)
        again = [(a, b) for a, b in pairwise(book) if a["data"] == b["data"]]
        assert len(again) == 2

    serve(scenario, LIVELY)


def test_withheld_updates_come_late_and_in_their_order():
    async def scenario(venue):
        client = await reader(venue)
        venue.faults.withhold(BOOK, 2)
        await client.until(lambda: steps(client) == [3])
        assert not venue.faults.active
        venue.faults.release(BOOK)
        await client.until(lambda: len(steps(client)) == 3)
        count = len(client.on(BOOK))
        await client.until(lambda: len(client.on(BOOK)) > count + 20)

        numbers = sequences(client)
        assert sorted(numbers) == list(range(numbers[0], numbers[0] + len(numbers)))
        gap, back, on = steps(client)
        assert gap == 3
        assert back < 0 < on
        late = [b for a, b in pairwise(numbers) if b < max(numbers[: numbers.index(b)])]
        assert len(late) == 2
        assert late[1] == late[0] + 1

    serve(scenario, LIVELY)


def test_a_stale_snapshot_is_ten_updates_old_and_the_next_one_is_not():
    async def scenario(venue):
        client = await reader(venue)
        await client.until(lambda: len(client.on(BOOK)) > 15)
        venue.faults.spoil_snapshot(BOOK, "stale")
        await client.ask("subscribe", channels=[BOOK])
        await client.until(lambda: len(steps(client)) == 2)
        await client.ask("subscribe", channels=[BOOK])
        await client.until(lambda: len(snapshots(client)) == 3)

        assert steps(client)[:2] == [-10, 11]

    serve(scenario, LIVELY)


def test_a_crossed_snapshot_has_its_sides_exchanged():
    async def scenario(venue):
        venue.faults.spoil_snapshot(BOOK, "crossed")
        client = await reader(venue)
        await client.ask("subscribe", channels=[BOOK])
        await client.until(lambda: len(snapshots(client)) == 2)

        crossed, sound = (snapshot["data"] for snapshot in snapshots(client))
        assert crossed["bids"][0][0] > crossed["asks"][0][0]
        assert sound["bids"][0][0] < sound["asks"][0][0]

    serve(scenario, LIVELY)


def snapshots(client):
    return [message for message in client.on(BOOK) if message["type"] == "orderbook"]


def test_a_mute_channel_is_confirmed_and_then_silent_until_it_is_thawed():
    async def scenario(venue):
        venue.faults.mute(BOOK)
        client = await connected(venue)
        answer = await client.ask("subscribe", channels=[BOOK, "orderbook:AAPL:5"])
        await client.until(lambda: len(client.on("orderbook:AAPL:5")) > 10)
        assert answer["data"]["status"] == "success"
        assert client.on(BOOK) == []
        venue.faults.thaw(BOOK)
        await client.until(lambda: client.on(BOOK))

        assert client.on(BOOK)[0]["type"] == "orderbook_update"

    serve(scenario, LIVELY)


@pytest.mark.parametrize(
    ("channel", "kind"),
    [("trades:AAPL", "stale"), ("user_orders", "crossed"), (BOOK, "stail")],
)
def test_only_a_book_has_a_snapshot_to_spoil_and_in_two_ways(channel, kind):
    plan = FaultPlan()

    with pytest.raises(ValueError, match=f"'{channel}' can be '{kind}'"):
        plan.spoil_snapshot(channel, kind)
    assert has_no_fault(plan)


def test_a_private_channel_is_frozen_and_thawed_for_every_account():
    async def scenario(venue):
        clients = [await trader(venue, who) for who in range(2)]
        venue.faults.freeze("user_orders")
        for client in clients:
            client.send("submit_order", data=BID, id="frozen")
            await client.until(lambda c=client: c.answer("frozen"))
        venue.faults.thaw("user_orders")
        for client in clients:
            client.send("submit_order", data=BID, id="thawed")
            await client.until(lambda c=client: c.on("user_orders"))

        assert [orders_of(client) for client in clients] == [["thawed"]] * 2

    other = AccountConfig(
        id="acc-bob", api_key="key-bob", secret="of bob", balances={"USD": 1_000_000}
    )
    serve(scenario, msgspec.structs.replace(QUIET, accounts=[ACCOUNT, other]))


# ── answers ───────────────────────────────────────────────────────────────────────────


async def trader(venue, account=0):
    client = await authenticated(venue, TRADING, account)
    await client.ask("subscribe", channels=["user_orders"])
    return client


def orders_of(client):
    return [message["data"]["client_id"] for message in client.on("user_orders")]


@pytest.mark.parametrize(
    ("action", "kind"), [("submit_ordr", "drop"), ("submit_order", "gone")]
)
def test_a_misspelt_fault_of_an_answer_is_an_error(action, kind):
    plan = FaultPlan()

    with pytest.raises(ValueError, match=f"'{action}' can be '{kind}'"):
        plan.spoil_answer(action, kind, processed=True)
    assert has_no_fault(plan)


@pytest.mark.parametrize("processed", [True, False])
def test_a_dropped_answer_leaves_the_client_in_doubt(processed):
    async def scenario(venue):
        client = await trader(venue)
        venue.faults.spoil_answer("submit_order", "drop", processed=processed)
        client.send("submit_order", data=BID, id="lost")
        await client.ask("submit_order", **BID)
        await client.until(lambda: len(client.on("user_orders")) == 1 + processed)

        assert client.answer("lost") == []
        assert ("lost" in orders_of(client)) is processed
        assert len(venue.market.desk.open_orders("acc-ann")) == 1 + processed

    serve(scenario, QUIET)


def test_a_delayed_answer_comes_after_what_followed_from_it():
    async def scenario(venue):
        client = await trader(venue)
        venue.faults.spoil_answer("submit_order", "delay", processed=True, delay_s=0.05)
        client.send("submit_order", data=BID, id="late")
        await client.until(lambda: client.answer("late"))

        kinds = [message["type"] for message in client.told]
        assert kinds[-2:] == ["order_update", "order_response"]

    serve(scenario, QUIET)


@pytest.mark.req("ER-11")
@pytest.mark.parametrize("processed", [True, False])
def test_an_internal_error_says_nothing_of_what_was_done(processed):
    async def scenario(venue):
        client = await trader(venue)
        venue.faults.spoil_answer("submit_order", "error", processed=processed)
        answer = await client.ask("submit_order", **BID)

        assert answer["type"] == "error"
        assert answer["data"]["code"] == "internal_error"
        assert answer["data"]["request_action"] == "submit_order"
        assert len(venue.market.desk.open_orders("acc-ann")) == processed
        assert client.close is None

    serve(scenario, QUIET)


@pytest.mark.parametrize("processed", [True, False])
def test_a_connection_may_be_cut_instead_of_an_answer(processed):
    async def scenario(venue):
        client, other = await trader(venue), await trader(venue)
        venue.faults.spoil_answer("submit_order", "cut", processed=processed)
        client.send("submit_order", data=BID, id="cut")
        await client.gone()
        await other.ask("cancel_order", order_id="o-1")

        assert client.close is None
        assert client.answer("cut") == []
        assert orders_of(other) == ["cut", "cut"] * processed

    serve(scenario, QUIET)


# ── connections ───────────────────────────────────────────────────────────────────────


def test_heartbeats_stop_and_begin_again():
    async def scenario(venue):
        client = await connected(venue)
        await client.until(lambda: client.told)
        venue.faults.heartbeats_stopped = True
        count = len(client.told)
        connection = next(iter(venue._connections))
        due_ns = connection.gateway.due_ns()
        await eventually(lambda: connection.gateway.due_ns() > due_ns + 5 * BEAT_NS)
        assert len(client.told) == count
        venue.faults.heartbeats_stopped = False
        await client.until(lambda: len(client.told) > count)

        assert {message["type"] for message in client.told} == {"heartbeat"}

    serve(scenario, msgspec.structs.replace(QUIET, heartbeat_s=BEAT_NS / 1e9))


@pytest.mark.parametrize("code", [1001, 1011, 4000, 4003, 4004])
def test_everybody_is_closed_with_the_code_of_the_plan(code):
    async def scenario(venue):
        clients = [await connected(venue), await authenticated(venue, TRADING)]
        venue.faults.close_all(code, "as planned")
        for client in clients:
            assert await client.gone() == (code, "as planned")

    serve(scenario, QUIET)


def test_a_plan_restarts_the_venue_on_its_port():
    async def scenario(venue):
        client = await connected(venue)
        before = venue.market
        venue.faults.restart()
        assert await client.gone() == (4004, "server restarting")
        await venue._restarting
        again = await connected(venue)
        await again.ask("subscribe", channels=["trades:AAPL"])

        assert venue.market is not before

    serve(scenario, QUIET)


@pytest.mark.req("A-50")
def test_two_restarts_at_once_are_one(caplog):
    caplog.set_level("INFO", "feedhandler.venue")

    async def scenario(venue):
        client = await connected(venue)
        venue.faults.restart()
        venue.faults.restart()
        await client.gone()
        venue.faults.restart()
        await venue._restarting
        again = await connected(venue)
        told = await again.ask("subscribe", channels=["trades:AAPL"])

        assert told["data"]["status"] == "success"

    serve(scenario, QUIET)
    said = [record.message.partition(" url")[0] for record in caplog.records]
    assert said.count("venue listening") == 2
    assert {record.levelname for record in caplog.records} == {"INFO"}


@pytest.mark.req("A-50")
@pytest.mark.parametrize("begun", [False, True])
def test_a_venue_that_is_left_while_it_restarts_serves_nobody(begun):
    async def run():
        async with Venue(QUIET) as venue:
            client = await connected(venue)
            venue.faults.restart()
            if begun:
                # It may be over before eventually() looks again.
                async with asyncio.timeout(DEADLINE_S):
                    while venue._server is not None:
                        await asyncio.sleep(0)
        await venue._restarting
        await client.gone()

        with pytest.raises(ConnectionRefusedError):
            await connected(venue)
        await venue.restart()
        with pytest.raises(ConnectionRefusedError):
            await connected(venue)

    asyncio.run(run())


def test_a_restart_forgets_the_faults_to_come():
    async def scenario(venue):
        plan = venue.faults
        plan.heartbeats_stopped = True
        for act in (plan.skip, plan.repeat, plan.withhold, plan.freeze, plan.mute):
            act(BOOK)
        plan.spoil_snapshot(BOOK, "stale")
        plan.spoil_answer("submit_order", "drop", processed=False)
        assert not has_no_fault(plan)
        await venue.restart()

        assert has_no_fault(plan)
        client = await trader(venue)
        answered = await client.ask("submit_order", **BID)
        assert answered["data"]["status"] == "accepted"

    serve(scenario, QUIET)


# ── never from the wire ───────────────────────────────────────────────────────────────


def has_no_fault(plan):
    """All but how a plan reaches its venue is as it was."""
    fresh = {
        key: value for key, value in vars(FaultPlan()).items() if value is not None
    }
    return {key: vars(plan)[key] for key in fresh} == fresh


@pytest.mark.req("SEC-23", "ER-05")
@pytest.mark.parametrize("path", [TRADING, CUSTOM])
def test_no_action_reaches_a_fault(path):
    names = list(vars(FaultPlan()) | vars(FaultPlan))

    async def scenario(venue):
        client = await authenticated(venue, path)
        for name in names:
            answer = await client.ask(name, channel=BOOK, code=4004, kind="cut")
            assert answer["data"]["code"] == "invalid_action", name
        refused = await client.ask("subscribe", channels=[*names[:5], "faults"])

        assert refused["data"]["code"] == "invalid_parameter"
        assert has_no_fault(venue.faults)
        assert client.close is None
        assert "skip" in names
        assert "restart" in names

    serve(scenario, QUIET)


@pytest.mark.req("SEC-23")
def test_a_field_of_a_request_is_not_a_fault_either():
    async def scenario(venue):
        client = await authenticated(venue, TRADING)
        for name in ("fault", "faults", "delay_s", "processed", "spoil_answer"):
            refused = await client.ask("submit_order", **BID, **{name: "drop"})
            assert refused["data"]["code"] == "invalid_parameter"
        text = json.dumps({"action": "submit_order", "data": BID, "fault": "drop"})
        client.transport.send(type(client.kinds[0]).TEXT, text.encode())
        await client.until(lambda: client.told[-1]["type"] == "order_response")

        assert has_no_fault(venue.faults)

    serve(scenario, QUIET)

"""TradingClient against the reference venue: what a trading program does all day."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from feedhandler import FeedHandler, TradingClient
from feedhandler.config import Limits, Trading, build
from feedhandler.errors import (
    ConfigError,
    ConnectionFailed,
    DuplicateClientOrderId,
    GuardRefused,
    InsufficientFunds,
    InternalError,
    InvalidParameter,
    MarketClosed,
    NotConnected,
    OrderNotFound,
    OutcomeUnknown,
    RateLimitExceeded,
    RequestFailed,
    UnknownSymbol,
)
from feedhandler.order import Status
from feedhandler.protocol.messages import (
    BatchCancel,
    BatchModify,
    BatchSubmit,
    OrderData,
)
from feedhandler.secret import Secret
from feedhandler.testing import FaultProxy
from feedhandler.venue import Venue, VenueConfig
from feedhandler.venue.config import FaultConfig, LimitsConfig, with_demo_account
from tests.end_to_end.processes import left_behind, unique
from tests.loops import eventually, run

SECRET = "an-end-to-end-secret"


class Scene:
    """A venue with one account, a proxy in front of it, and a client of its own."""

    def __init__(self, venue: Venue, proxy: FaultProxy) -> None:
        self.venue = venue
        self.proxy = proxy

    def client(self, secret: str = SECRET, **options: Any) -> TradingClient:
        key = self.venue.credentials[0]
        return TradingClient.open(self.proxy.url, key, secret, **options)


def play(act: Callable[[Scene], Awaitable[None]], **venue: Any) -> None:
    async def work() -> None:
        config = with_demo_account(VenueConfig(port=0, **venue), SECRET)
        async with Venue(config) as place, FaultProxy(place.url) as proxy:
            await act(Scene(place, proxy))

    run(work)


def far(**fields: Any) -> OrderData:
    """A purchase so low that it rests."""
    data = {"symbol": "AAPL", "side": "buy", "type": "limit", "quantity": 5}
    return OrderData(**(data | {"price": 100.0} | fields))


@pytest.mark.req("OR-02", "OR-03", "BP-01")
def test_an_order_is_submitted_modified_and_canceled():
    async def act(scene: Scene) -> None:
        async with scene.client() as client:
            assert client.feed.health() == []
            await client.ready()
            assert [h.name for h in client.feed.health()] == ["trading"]

            accepted = await client.submit_order(far(client_order_id="mine-1"))
            assert (accepted.status, accepted.client_id) == ("accepted", "mine-1")
            (order,) = client.open_orders
            assert order.order_id == accepted.order_id

            modified = await client.modify_order(accepted.order_id, price=101.0)
            assert (modified.status, modified.price) == ("modified", 101.0)
            await eventually(lambda: order.price == 101.0, "the update")

            canceled = await client.cancel_order(client_order_id="mine-1")
            assert canceled.status == "canceled"
            assert client.open_orders == []
            assert order.status is Status.CANCELED

    play(act)


@pytest.mark.req("UT-01", "AC-06", "UO-01")
def test_a_trade_is_in_the_order_the_fills_and_the_account():
    async def act(scene: Scene) -> None:
        heard: list[Any] = []
        async with scene.client() as client:
            client.on_message("user_trade", heard.append)
            client.on_message("order_update", heard.append)
            await client.ready()
            account = client.orders.account
            await eventually(lambda: account.balances, "the account")
            before = account.balances["USD"].total
            answer = await client.submit_order(
                symbol="AAPL", side="buy", type="market", quantity=10
            )
            order = client.orders.find(answer.order_id, None)
            await eventually(
                lambda: order.is_terminal and order.average_price, "the fills"
            )
            assert (order.status, order.filled) == (Status.FILLED, 10)
            await eventually(
                lambda: account.balances["USD"].total < before, "the new balance"
            )
            trades = [m.data for m in heard if type(m).__name__ == "UserTrade"]
            assert sum(trade.quantity for trade in trades) == 10
            paid = sum(t.quantity * t.price + t.fee for t in trades)
            assert before - account.balances["USD"].total == pytest.approx(paid)

    play(act)


@pytest.mark.req("OR-16")
def test_a_batch_says_what_became_of_each_operation():
    async def act(scene: Scene) -> None:
        async with scene.client() as client:
            await client.ready()
            await client.submit_order(far(client_order_id="a"))
            answer = await client.batch_orders(
                [
                    BatchSubmit("AAPL", "buy", "limit", 1, 99.0, client_order_id="b"),
                    BatchModify(client_order_id="a", quantity=0.123),
                    BatchCancel(client_order_id="a"),
                ]
            )
            assert answer.status == "partial"
            assert [r.status for r in answer.results] == [
                "accepted", "error", "canceled",
            ]  # fmt: skip
            assert [order.client_id for order in client.open_orders] == ["b"]

    play(act)


@pytest.mark.req("ER-01", "ER-07", "ER-08")
def test_a_refusal_is_raised_as_what_it_is():
    async def act(scene: Scene) -> None:
        async with scene.client() as client:
            await client.ready()
            for error, order in (
                (InsufficientFunds, far(quantity=10_000_000)),
                (InvalidParameter, far(price=100.001)),
                (InvalidParameter, far(symbol="NONE")),
            ):
                with pytest.raises(error) as caught:
                    await client.submit_order(order)
                assert caught.value.request_id
                assert isinstance(caught.value, RequestFailed)
            with pytest.raises(OrderNotFound, match="order_not_found"):
                await client.cancel_order("no-such-order")
            scene.venue.halt("AAPL")
            with pytest.raises(MarketClosed):
                await client.submit_order(far())
            assert client.open_orders == []

    play(act)


@pytest.mark.req("ER-09", "A-16")
def test_an_id_of_an_earlier_process_is_refused_by_the_venue():
    async def act(scene: Scene) -> None:
        async with scene.client() as client:
            await client.ready()
            await client.submit_order(far(client_order_id="once"))
            await client.cancel_order(client_order_id="once")
        async with scene.client() as client:
            await client.ready()
            await eventually(
                lambda: client.orders.orders.by_client_id("once"), "the replay"
            )
            client.orders.orders._by_client_id.clear()
            with pytest.raises(DuplicateClientOrderId):
                await client.submit_order(far(client_order_id="once"))

    play(act)


@pytest.mark.req("ER-11", "F-71")
@pytest.mark.parametrize(("processed", "end"), [(True, "live"), (False, "rejected")])
def test_an_internal_error_is_an_unknown_outcome_that_is_settled(processed, end):
    async def act(scene: Scene) -> None:
        async with scene.client() as client:
            await client.ready()
            with pytest.raises(InternalError) as caught:
                await client.submit_order(far(client_order_id="what"))
            assert isinstance(caught.value, OutcomeUnknown)
            order = client.orders.find(None, "what")
            await eventually(lambda: order.status.value == end, "the truth", 20)
            assert client.orders.orders.unknown == 0

    fault = FaultConfig(kind="error_answer", action="submit_order", processed=processed)
    play(act, faults=(fault,), testing=True)


@pytest.mark.req("ER-06", "F-70")
def test_a_limit_that_only_the_venue_knows_is_raised_with_its_time():
    async def act(scene: Scene) -> None:
        async with scene.client() as client:
            await client.ready()
            await client.submit_order(far())
            with pytest.raises(RateLimitExceeded) as caught:
                await client.submit_order(far())
            assert caught.value.retry_after >= 1

    play(act, limits=LimitsConfig(orders_per_minute=1))


@pytest.mark.req("F-63", "I-08")
def test_an_order_that_was_cut_off_is_unknown_and_found_again():
    async def act(scene: Scene) -> None:
        soon = Limits(reconnect_base_s=0.02, reconnect_jitter=0.0)
        async with scene.client(limits=soon) as client:
            await client.ready()
            (connection,) = scene.proxy.connections
            connection.down.blackhole()
            waiting = asyncio.ensure_future(
                client.submit_order(far(client_order_id="cut"))
            )
            await asyncio.sleep(0.1)
            connection.reset()
            with pytest.raises(OutcomeUnknown, match="submit_order"):
                await waiting
            assert client.orders.find(None, "cut").status is Status.UNKNOWN
            with pytest.raises(NotConnected):
                await client.submit_order(far())
            await client.ready()
            assert client.orders.find(None, "cut").status is Status.LIVE
            await client.submit_order(far())
            assert len(client.open_orders) == 2

    play(act)


@pytest.mark.req("SEC-26", "SEC-27")
def test_guards_and_the_kill_switch_hold_for_whoever_asks():
    async def act(scene: Scene) -> None:
        async with scene.client(trading=Trading(max_quantity=5)) as client:
            await client.ready()
            with pytest.raises(GuardRefused, match="max_quantity"):
                await client.submit_order(far(quantity=6))
            for _ in range(3):
                await client.submit_order(far())
            client.kill()
            await eventually(lambda: not client.open_orders, "all to be canceled")
            with pytest.raises(GuardRefused, match="kill switch"):
                await client.submit_order(far())

    play(act)


@pytest.mark.req("SEC-26")
def test_the_end_of_a_feed_cancels_all_where_that_is_wanted():
    async def act(scene: Scene) -> None:
        async with scene.client(trading=Trading(cancel_on_exit=True)) as client:
            await client.ready()
            for _ in range(3):
                await client.submit_order(far())
        async with scene.client() as client:
            await client.ready()
            assert client.open_orders == []

    play(act)


@pytest.mark.req("F-74", "A-19")
def test_a_new_client_adopts_the_orders_of_the_last_one():
    async def act(scene: Scene) -> None:
        async with scene.client() as client:
            await client.ready()
            await client.submit_order(far(client_order_id="old"))
        async with scene.client() as client:
            await client.ready()
            (order,) = client.open_orders
            assert (order.client_id, order.status) == ("old", Status.LIVE)
            await client.cancel_order(client_order_id="old")
            assert client.open_orders == []

    play(act)


@pytest.mark.req("SB-01", "SB-02")
def test_channels_of_any_endpoint_are_subscribed_to_by_name():
    async def act(scene: Scene) -> None:
        heard: list[Any] = []
        async with scene.client() as client:
            client.on_message("system_notification", heard.append)
            await client.subscribe(["orderbook:AAPL:10", "system_notifications"])
            assert sorted(h.name for h in client.feed.health()) == [
                "market-data-1", "notifications",
            ]  # fmt: skip
            book = client.feed.book("AAPL")
            await eventually(lambda: book.is_live, "a live book")
            await eventually(lambda: heard, "the venue's start")
            await client.subscribe(["trades:AAPL"])
            await client.unsubscribe(["orderbook:AAPL:10", "trades:AAPL"])
            assert not book.is_live
            with pytest.raises(InvalidParameter, match="NONE"):
                await client.subscribe(["trades:NONE"])
            with pytest.raises(ValueError, match="unknown channel"):
                await client.subscribe(["nonsense"])

    play(act)


@pytest.mark.req("EX-03", "SB-06", "CN-05")
def test_every_endpoint_is_used_by_the_same_few_words():
    async def act(scene: Scene) -> None:
        heard: dict[str, list[Any]] = {}
        client = scene.client()
        for kind in ("orderbook", "trade", "ticker", "order_update"):
            client.on_message(kind, heard.setdefault(kind, []).append)
        await client.connect()
        await client.subscribe("orderbook:AAPL:10")
        await client.subscribe(["trades:AAPL", "ticker:AAPL"])
        await client.subscribe("custom_alerts")
        await client.subscribe(("user_notifications", "system_notifications"))
        await client.ready()
        assert sorted(h.name for h in client.feed.health()) == [
            "custom", "market-data-1", "notifications", "trading",
        ]  # fmt: skip
        answer = await client.submit_order(far())
        await client.cancel_order(answer.order_id)
        await eventually(lambda: all(heard.values()), "a message of each kind")
        assert heard["order_update"][0].data.order_id == answer.order_id
        assert client.feed.symbol_of(heard["trade"][0].instrument) == "AAPL"
        with pytest.raises(UnknownSymbol):
            client.feed.symbol_of(7)

        await client.unsubscribe("ticker:AAPL")
        await client.unsubscribe(["trades:AAPL", "orderbook:AAPL:10"])
        assert client.feed.confirmation("ticker:AAPL") is None
        await client.close()
        assert not client.feed.is_running

    play(act)


def test_a_type_that_never_comes_is_an_error():
    async def act(scene: Scene) -> None:
        client = scene.client()
        for kind in ("trades", "heartbeat", "order_response"):
            with pytest.raises(ValueError, match=f"no message of type '{kind}'"):
                client.on_message(kind, print)
        with pytest.raises(ValueError, match="'trade'"):
            TradingClient(client.feed).on_message("trade", print)

    play(act)


def test_a_borrowed_feed_keeps_its_connections_to_itself():
    async def act(scene: Scene) -> None:
        config = build(
            {
                "url": scene.proxy.url,
                "shm": {"name": unique("client")},
                "credentials": {"api_key": scene.venue.credentials[0]},
                "instruments": [{"symbol": "AAPL"}],
            }
        )
        async with FeedHandler(config, secret=Secret(SECRET)) as feed:
            client = TradingClient(feed)
            async with client:
                await client.ready()
                await client.submit_order(far())
                assert len(feed.health()) == 4
            assert feed.is_running
            assert len(feed.flow.orders.open) == 1
        assert left_behind(config.shm.name) == []

    play(act)


def test_a_client_that_is_not_connected_says_so():
    async def act(scene: Scene) -> None:
        client = scene.client()
        with pytest.raises(NotConnected, match="trading is not connected: closed"):
            await client.submit_order(far())
        async with client:
            with pytest.raises(ConfigError, match="user_orders"):
                await client.submit_order(far())
        async with scene.client("a-wrong-secret") as client:
            with pytest.raises(ConnectionFailed, match="authentication failed"):
                await client.ready()

    play(act)

"""A day of two accounts that trade with each other, over sockets, until its end."""

from datetime import UTC, datetime
from typing import Any

import pytest

from feedhandler.errors import ConnectionFailed
from feedhandler.protocol.channels import NOTIFICATIONS, TRADING
from feedhandler.protocol.codes import ErrorCode
from feedhandler.protocol.messages import (
    BatchCancel,
    BatchModify,
    BatchResponse,
    BatchSubmit,
    CancelOrderData,
    Error,
    OrderResponse,
    SubmitOrder,
)
from feedhandler.venue.config import (
    CalendarConfig,
    LimitsConfig,
    SymbolConfig,
    TradersConfig,
    VenueConfig,
)
from feedhandler.venue.exchange import Exchange
from feedhandler.venue.server import Venue
from tests.clients import connected
from tests.loops import eventually, run
from tests.traders import Trader, account, now_ns, terms

ORDERS_PER_MINUTE = 40
SECOND = 1_000_000_000
EVERY_DAY: Any = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def configure() -> VenueConfig:
    return VenueConfig(
        port=0,
        accounts=[account("ann"), account("bob")],
        symbols=[
            SymbolConfig(name="AAPL", previous_close=150),
            SymbolConfig(
                name="BTC-USD", lot="0.0001", previous_close=60_000,
                maker_fee="0.0001", taker_fee="0.0003",
            ),
        ],
        traders=TradersConfig(enabled=False),
        limits=LimitsConfig(orders_per_minute=ORDERS_PER_MINUTE),
        calendar=CalendarConfig(opens="09:30", closes="16:00", weekdays=EVERY_DAY),
    )  # fmt: skip


def set_clock(venue: Venue, hour: int, minute: int, second: int) -> None:
    """Have the venue's clock show that time, of today."""
    today = datetime.fromtimestamp(venue.now_ns() / 1e9, UTC)
    then = today.replace(hour=hour, minute=minute, second=second)
    venue._epoch_ns += round((then - today).total_seconds() * 1e9)
    # Its timers go by another clock.
    venue._due_ns = 0
    venue.acted()


class Day:
    """The venue and the two accounts, and the codes of the errors that were seen."""

    def __init__(self, venue: Venue, ann: Trader, bob: Trader) -> None:
        self.venue, self.ann, self.bob = venue, ann, bob
        self.codes: set[str] = set()

    def refused(self, answer: Any, code: ErrorCode) -> None:
        """See that a request was refused for a reason."""
        assert isinstance(answer, Error), answer
        assert answer.data.code == code
        self.codes.add(code)

    async def agree(self) -> None:
        """See that both know what the venue knows."""
        await self.ann.agrees()
        await self.bob.agrees()

    # ── its hours ─────────────────────────────────────────────────────────────────

    async def trade_at_once(self) -> None:
        """Market orders, and limit orders of every time in force."""
        ann, bob = self.ann, self.bob
        await ann.submit("sell", 100, 150.10, id="a-rest")
        await bob.submit("buy", 40, id="b-market")
        await bob.submit("buy", 80, 150.10, tif="ioc", id="b-ioc")
        await bob.submit("buy", 10, 150.00, tif="fok", id="b-none")
        await ann.submit("sell", 10, 150.00, tif="gtc", id="a-more")
        await bob.submit("buy", 10, 150.00, tif="fok", id="b-fok")
        await self.agree()

        assert ann.status("a-rest") == "filled"
        names = ("b-market", "b-ioc", "b-none", "b-fok")
        assert [bob.status(name) for name in names] == [
            "filled", "canceled", "canceled", "filled",
        ]  # fmt: skip
        assert bob.flow.find(None, "b-ioc").filled == 60

    async def trigger_stops(self) -> None:
        """A stop and a stop-limit, whose prices others reach."""
        ann, bob = self.ann, self.bob
        await ann.submit("sell", 20, stop=149.50, id="a-stop")
        await bob.submit("buy", 30, 149.40, id="b-low")
        await bob.submit("buy", 5, 149.50, id="b-reach")
        await bob.submit("buy", 10, 150.60, stop=150.50, id="b-stop-limit")
        await self.agree()
        assert ann.status("a-stop") == bob.status("b-stop-limit") == "live"
        assert not ann.flow.find(None, "a-stop").triggered

        await ann.submit("sell", 5, 149.50, tif="ioc", id="a-reach")
        await self.agree()
        assert ann.status("a-stop") == "filled"
        assert ann.flow.find(None, "a-stop").triggered
        assert bob.flow.find(None, "b-low").filled == 20

        await ann.submit("sell", 20, 150.50, id="a-high")
        await bob.submit("buy", 5, 150.50, tif="ioc", id="b-push")
        await self.agree()
        assert bob.status("b-stop-limit") == "filled"
        assert ann.flow.find(None, "a-high").remaining == 5

    async def change_orders(self) -> None:
        """Modifications that rest, trade and end an order, cancels, batches."""
        ann, bob = self.ann, self.bob
        await ann.modify("a-high", quantity=25, price=150.40)
        await bob.modify("b-low", price=150.40)
        await self.agree()
        assert bob.status("b-low") == "filled"
        assert ann.flow.find(None, "a-high").filled == 25

        await ann.submit("sell", 50, 150.90, id="a-whole")
        await bob.submit("buy", 10, 150.90, id="b-part")
        await ann.modify("a-whole", quantity=10)
        await self.agree()
        assert ann.status("a-whole") == "canceled"

        answer = await ann.batch(
            BatchSubmit("AAPL", "sell", "limit", 7, 151.00, client_order_id="a-1"),
            BatchSubmit("AAPL", "sell", "limit", 8, 151.10, client_order_id="a-2"),
            BatchSubmit("AAPL", "buy", "limit", 9, 148.00, client_order_id="a-3"),
        )
        assert isinstance(answer, BatchResponse)
        answer = await ann.batch(
            BatchCancel(client_order_id="a-1"),
            BatchModify(client_order_id="a-2", price=151.20, quantity=12),
            BatchSubmit("AAPL", "buy", "limit", 1, 149.995),
            BatchCancel(client_order_id="a-3"),
        )
        assert answer.data.status == "partial"
        assert [result.status for result in answer.data.results] == [
            "canceled", "modified", "error", "canceled",
        ]  # fmt: skip
        answer = await bob.batch(
            BatchSubmit("AAPL", "buy", "limit", 5, 151.20, client_order_id="b-1"),
            BatchCancel(client_order_id="b-low"),
        )
        assert [result.status for result in answer.data.results] == [
            "accepted", "error",
        ]  # fmt: skip
        await self.agree()
        assert bob.status("b-1") == "filled"

    async def trade_coins(self) -> None:
        """Parts of coins, at fees of many digits, and a trade with oneself."""
        ann, bob = self.ann, self.bob
        coins: dict[str, Any] = {"symbol": "BTC-USD"}
        await ann.submit("sell", 0.3333, 60_000.07, id="a-coins", **coins)
        await bob.submit("buy", 0.1111, 60_000.07, id="b-coins", **coins)
        await bob.submit("buy", 0.0007, id="b-dust", **coins)
        await ann.submit("buy", 0.1, 60_000.07, tif="ioc", id="a-self", **coins)
        await self.agree()
        assert ann.flow.find(None, "a-self").filled == 0.1
        assert ann.flow.find(None, "a-coins").remaining == 0.1215
        assert (await ann.cancel("a-coins")).data.status == "canceled"

    async def be_refused(self) -> None:
        """The errors of an open market, each by its cause."""
        ann, bob = self.ann, self.bob
        data = terms("sell", 1, 170.00, id="a-taken")
        await ann.submit("sell", 1, 170.00, id="a-taken")
        twice = await ann.ask(SubmitOrder(data))
        self.refused(twice, ErrorCode.DUPLICATE_CLIENT_ORDER_ID)
        answer = await bob.submit("buy", 1_000_000, 150.00)
        self.refused(answer, ErrorCode.INSUFFICIENT_FUNDS)
        answer = await bob.submit("buy", 1, 150.001)
        self.refused(answer, ErrorCode.INVALID_PARAMETER)
        sent = bob.flow.cancel(CancelOrderData(order_id="o-none"), now_ns())
        self.refused(await bob.answer(sent), ErrorCode.ORDER_NOT_FOUND)
        answer = await ann.ask(SubmitOrder(data), NOTIFICATIONS)
        self.refused(answer, ErrorCode.INVALID_ACTION)
        await self.agree()

    async def doubt(self) -> None:
        """An internal_error says nothing: the venue may have done what was asked."""
        self.venue.faults.spoil_answer("submit_order", "error", processed=True)
        answer = await self.ann.submit("sell", 2, 171.00, id="a-doubt")
        self.refused(answer, ErrorCode.INTERNAL_ERROR)
        await self.agree()
        assert self.ann.status("a-doubt") == "live"

    async def end(self) -> None:
        """The market closes: day orders expire, others rest, and cancels go on."""
        ann, bob = self.ann, self.bob
        await ann.submit("sell", 3, 160.00, tif="day", id="a-day")
        await bob.submit("buy", 3, 140.00, tif="day", id="b-day")
        await bob.submit("buy", 4, 141.00, tif="gtc", id="b-gtc")
        await self.agree()
        set_clock(self.venue, 16, 0, 0)
        await eventually(lambda: bob.status("b-day") == "expired", "the day's end")
        await eventually(lambda: ann.status("a-day") == "expired", "the day's end")
        assert bob.status("b-gtc") == "live"

        answer = await bob.submit("buy", 1, 140.00)
        self.refused(answer, ErrorCode.MARKET_CLOSED)
        answer = await ann.modify("a-taken", price=169.00)
        self.refused(answer, ErrorCode.MARKET_CLOSED)
        answer = await bob.cancel("b-gtc")
        assert isinstance(answer, OrderResponse)
        assert answer.data.status == "canceled"

    async def be_strangers(self) -> None:
        """The errors of those who are not known."""
        client = await connected(self.venue, TRADING)
        told = await client.ask("submit_order", symbol="AAPL")
        assert told["type"] == "error"
        assert told["data"]["code"] == ErrorCode.AUTHENTICATION_REQUIRED
        self.codes.add(told["data"]["code"])
        client.transport.disconnect()
        await client.gone()
        eve = Trader("eve", self.venue.url)
        async with eve.feed as feed:
            with pytest.raises(ConnectionFailed, match="authentication failed"):
                await feed.wait()
        self.codes.add(ErrorCode.INVALID_CREDENTIALS)

    async def ask_too_much(self) -> None:
        """One more than the venue takes in a minute, which our own limit would let."""
        for _ in range(ORDERS_PER_MINUTE + 1):
            answer = await self.bob.submit("buy", 1, 140.00)
            if answer.data.code == ErrorCode.RATE_LIMIT_EXCEEDED:
                break
        self.refused(answer, ErrorCode.RATE_LIMIT_EXCEEDED)
        assert answer.data.retry_after > 0
        await self.agree()


@pytest.mark.req("OR-01", "UO-06", "ER-01")
def test_a_day_of_two_accounts_ends_as_the_venues_ledger_has_it() -> None:
    async def work() -> None:
        async with Venue(configure()) as venue:
            set_clock(venue, 15, 59, 0)
            ann, bob = Trader("ann", venue.url), Trader("bob", venue.url)
            assert isinstance(venue.market, Exchange)
            ann.watch(venue.market)
            bob.watch(venue.market)
            async with ann.feed, bob.feed:
                await ann.ready()
                await bob.ready()
                day = Day(venue, ann, bob)
                await day.trade_at_once()
                await day.trigger_stops()
                await day.change_orders()
                await day.trade_coins()
                await day.be_refused()
                await day.doubt()
                await day.end()
                await day.be_strangers()
                await day.ask_too_much()
                assert day.codes == set(ErrorCode)
                for trader in (ann, bob):
                    assert trader.differences() == []
                    assert len(trader.fills) > 5

    run(work)

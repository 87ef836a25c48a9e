"""Accounts and traders do anything in any order: what must hold after every step."""

from collections import defaultdict

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from feedhandler.protocol.messages import (
    AccountUpdate,
    OrderUpdate,
    Trade,
    UserTrade,
)
from feedhandler.venue.config import CalendarConfig, TradersConfig
from feedhandler.venue.requests import Refusal
from tests.trading import DAY, HOUR, MINUTE, MS, SECOND, Books, Venue, account

NAMES = ("ann", "bob", "eve")
SYMBOLS = ("AAPL", "BTC-USD")
BOOKS = [f"orderbook:{symbol}:{depth}" for symbol in SYMBOLS for depth in (1, 5, 30)]
# What one tick times one lot is in the ledger's units of 1e-8 USD.
UNITS = {"AAPL": 10**6, "BTC-USD": 100}
BTC_LOT_UNITS = 10**4
REPLAY_MS = 15 * 60_000

OPEN = ("accepted", "partially_filled")
NEXT = {
    None: {"accepted"},
    "accepted": {*OPEN, "filled", "canceled", "expired", "rejected"},
    "partially_filled": {"partially_filled", "filled", "canceled", "expired"},
}

names = st.sampled_from(NAMES)
symbols = st.sampled_from(SYMBOLS)
sides = st.sampled_from(["buy", "sell"])
lots = st.integers(1, 400)
distances = st.integers(-40, 40)
times_in_force = st.sampled_from([None, "gtc", "gtc", "day", "ioc", "fok"])
numbers = st.integers(0, 30)
client_order_ids = st.none() | st.sampled_from(["x", "y", "z"])
durations = st.sampled_from([MS, 100 * MS, SECOND, MINUTE, 14 * MINUTE, HOUR, 7 * HOUR])


def price_at(symbol, distance):
    """A price so many of the traders' steps from where they began."""
    return (15_000 + distance) / 100 if symbol == "AAPL" else 60_000 + distance * 1.2


def size_of(symbol, count):
    return count if symbol == "AAPL" else count / 10_000


class Market(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        start_ns = Venue().now_ns + 10 * HOUR
        self.venue = Venue(
            *(account(name, usd=60_000) for name in NAMES),
            now_ns=start_ns,
            heard=True,
            calendar=CalendarConfig(opens="09:00", closes="17:00"),
            traders=TradersConfig(seed=5, rate=20),
        )
        for symbol in SYMBOLS:
            self.venue.open(f"trades:{symbol}")
        self.books = Books(self.venue, BOOKS)
        self.seen = 0
        self.orders = {}
        self.ended_ms = {}
        self.traded = defaultdict(float)
        self.public = {}
        self.accounts = {}

    # ── what may happen ───────────────────────────────────────────────────────────

    def ask(self, request, *args, **fields):
        """Ask for something that may be refused; a refusal changes nothing."""
        told = len(self.venue.told)
        try:
            request(*args, **fields)
        except Refusal:
            assert len(self.venue.told) == told

    def some_order(self, who, number):
        """An open order of the account, or now and then one that is not."""
        mine = [order.order_id for order in self.open_orders(who)]
        if number % 8 == 7 or not mine:
            mine = [order_id for _, order_id in self.orders] or ["o-0"]
        return mine[number % len(mine)]

    @rule(
        who=names, symbol=symbols, side=sides, count=lots, price=st.none() | distances,
        stop=st.none() | distances, tif=times_in_force, named=client_order_ids,
    )  # fmt: skip
    def submit(self, who, symbol, side, count, price, stop, tif, named):
        self.ask(
            self.venue.submit, who, side, size_of(symbol, count),
            None if price is None else price_at(symbol, price),
            stop=None if stop is None else price_at(symbol, stop),
            symbol=symbol, tif=tif, client_order_id=named,
        )  # fmt: skip

    @precondition(lambda self: self.orders)
    @rule(who=names, number=numbers)
    def cancel(self, who, number):
        self.ask(self.venue.cancel, who, self.some_order(who, number))

    @precondition(lambda self: self.orders)
    @rule(
        who=names, number=numbers, count=st.none() | lots,
        price=st.none() | distances, stop=st.none() | distances,
    )  # fmt: skip
    def modify(self, who, number, count, price, stop):
        order_id = self.some_order(who, number)
        order = self.orders.get((who, order_id))
        symbol = "AAPL" if order is None else order.symbol
        self.ask(
            self.venue.modify, who, order_id,
            quantity=None if count is None else size_of(symbol, count),
            price=None if price is None else price_at(symbol, price),
            stop_price=None if stop is None else price_at(symbol, stop),
        )  # fmt: skip

    @rule(who=names, side=sides, counts=st.lists(lots, max_size=4), number=numbers)
    def batch(self, who, side, counts, number):
        operations = [
            {
                "operation": "submit",
                "symbol": "AAPL",
                "side": side,
                "type": "limit",
                "quantity": count,
                "price": price_at("AAPL", place - 2),
            }
            for place, count in enumerate(counts)
        ]
        cancel = {"operation": "cancel", "order_id": self.some_order(who, number)}
        answer = self.venue.batch(who, *operations, cancel)

        assert len(answer.results) == len(operations) + 1

    @rule(symbol=symbols, side=sides, count=lots, price=st.none() | distances)
    def trade_of_the_house(self, symbol, side, count, price):
        if self.venue.exchange.is_open(symbol, self.venue.now_ns // MS):
            price = None if price is None else price_at(symbol, price)
            self.venue.house(side, count, price, symbol=symbol)

    @rule(symbol=symbols, side=sides)
    def sweep(self, symbol, side):
        """Move the last price by some levels, as it takes to set off stops."""
        if self.venue.exchange.is_open(symbol, self.venue.now_ns // MS):
            self.venue.house(side, 1500, symbol=symbol)

    @rule(symbol=symbols, halted=st.sampled_from([False, False, False, True]))
    def switch(self, symbol, halted):
        if halted:
            self.venue.halt(symbol)
        else:
            self.venue.resume(symbol)

    @rule(duration_ns=durations)
    def wait(self, duration_ns):
        self.venue.wait(duration_ns)

    @rule()
    def wait_for_the_next_session(self):
        self.venue.wait(DAY - self.venue.now_ns % DAY + 10 * HOUR)

    # ── what must hold ────────────────────────────────────────────────────────────

    @invariant()
    def all_is_well(self):
        self.every_message_follows_from_the_ones_before()
        self.the_trades_of_an_order_sum_to_what_it_has_filled()
        self.nothing_is_made_or_lost()
        self.what_is_reserved_is_what_open_orders_may_cost()
        self.the_last_account_update_is_true()
        self.a_replay_is_the_last_word_on_all_that_is_open_or_ended_lately()
        self.every_book_is_the_engines_and_not_crossed()
        self.the_desk_has_the_orders_that_the_engines_have()

    def every_message_follows_from_the_ones_before(self):
        told, self.seen = self.venue.told[self.seen :], len(self.venue.told)
        for name, message in told:
            who = name.partition("/")[2]
            if isinstance(message, Trade):
                assert message.data.trade_id not in self.public
                self.public[message.data.trade_id] = message.data
            elif isinstance(message, OrderUpdate):
                self.see_order(who, message.data)
            elif isinstance(message, UserTrade):
                self.see_trade(message.data)
            elif isinstance(message, AccountUpdate):
                assert message.data.account_id == who
                self.accounts[who] = message.data

    def see_order(self, who, update):
        known = self.orders.get((who, update.order_id))
        before = None if known is None else known.status
        assert update.status in NEXT[before]
        assert update.quantity == pytest.approx(
            update.filled_quantity + update.remaining_quantity
        )
        assert update.created_at <= update.updated_at <= self.venue.now_ns // MS
        if known is not None:
            assert known.created_at == update.created_at
            assert known.updated_at <= update.updated_at
            assert known.filled_quantity <= update.filled_quantity
        if update.status not in OPEN:
            self.ended_ms[who, update.order_id] = update.updated_at
        self.orders[who, update.order_id] = update

    def see_trade(self, trade):
        self.traded[trade.order_id] += trade.quantity
        public = self.public[trade.trade_id]
        assert (trade.price, trade.quantity) == (public.price, public.size)
        assert trade.symbol == public.symbol

    def the_trades_of_an_order_sum_to_what_it_has_filled(self):
        for (_, order_id), update in self.orders.items():
            traded = self.traded[order_id]
            assert traded == pytest.approx(update.filled_quantity)

    def nothing_is_made_or_lost(self):
        assert self.venue.ledger.conserved() == []

    def what_is_reserved_is_what_open_orders_may_cost(self):
        for who in NAMES:
            money = coins = 0
            for order in self.open_orders(who):
                listing = self.venue.listings[order.symbol]
                left = listing.lot.count(order.remaining_quantity)
                if order.side == "buy":
                    price = order.stop_price if order.price is None else order.price
                    cost = left * listing.tick.count(price) * UNITS[order.symbol]
                    money += cost + cost * 2 // 100_000
                elif order.symbol == "BTC-USD":
                    coins += left * BTC_LOT_UNITS
            for currency, held in (("USD", money), ("BTC", coins)):
                amounts = self.venue.ledger.amounts(who, currency)
                assert amounts.reserved == held
                assert amounts.available + held == amounts.total
                assert amounts.available >= 0

    def open_orders(self, who):
        return [
            order
            for (owner, _), order in self.orders.items()
            if owner == who and order.status in OPEN
        ]

    def the_last_account_update_is_true(self):
        for who, data in self.accounts.items():
            (now,) = self.venue.open("account_updates", who)
            assert data.balances == now.data.balances

    def a_replay_is_the_last_word_on_all_that_is_open_or_ended_lately(self):
        now_ms = self.venue.now_ns // MS
        for who in NAMES:
            wanted = [
                order
                for (owner, order_id), order in self.orders.items()
                if owner == who
                and self.ended_ms.get((who, order_id), now_ms) + REPLAY_MS > now_ms
            ]
            replayed = [m.data for m in self.venue.open("user_orders", who)]
            assert replayed == wanted

    def every_book_is_the_engines_and_not_crossed(self):
        assert self.books.wrong() == []
        for bids, asks in self.books.books.values():
            assert not bids or not asks or max(bids) < min(asks)

    def the_desk_has_the_orders_that_the_engines_have(self):
        for who in NAMES:
            at_desk = {order.id for order in self.venue.desk.open_orders(who)}
            assert at_desk == {order.order_id for order in self.open_orders(who)}


Market.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.req("I-09", "I-10", "I-11")
class TestMarket(Market.TestCase):
    pass

"""Orders against a venue that loses, delays, repeats and reorders whatever it can."""

import random
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from feedhandler.orders import Operation, Order, Orders, Status
from feedhandler.protocol.messages import (
    CancelOrderData,
    Error,
    ErrorData,
    ModifyOrderData,
    OrderData,
    OrderResponse,
    OrderResponseData,
    OrderUpdateData,
    UserTradeData,
)

MINUTE_MS = 60_000
REPLAY_MS = 15 * MINUTE_MS
OPEN = ("accepted", "partially_filled")
RESTARTED = "venue restarted"

ENDED = {Status.FILLED, Status.CANCELED, Status.EXPIRED, Status.REJECTED}
NEXT = {
    Status.PENDING: set(Status),
    Status.LIVE: set(Status) - {Status.PENDING},
    Status.PARTIALLY_FILLED: set(Status) - {Status.PENDING, Status.LIVE},
    Status.UNKNOWN: set(Status) - {Status.PENDING},
    **{status: {status} for status in ENDED},
}

lots = st.integers(1, 9)
numbers = st.integers(0, 60)


def size(count):
    """Tenths: numbers that do not add up in binary."""
    return count / 10


class Request(NamedTuple):
    id: str
    operation: Operation
    name: CancelOrderData
    data: object


class NaiveVenue:
    """Orders that fill when told to. What it says of them is put into *out*."""

    def __init__(self):
        self.orders: dict[str, OrderUpdateData] = {}
        self.trades: list[UserTradeData] = []
        self.out: list[object] = []
        self.now_ms = 0

    def open(self):
        return [order for order in self.orders.values() if order.status in OPEN]

    def take(self, request, spoilt=False):
        """Do a request; answer it, or with an internal error for all that it did."""
        answer = self.do(request)
        if spoilt:
            answer = ErrorData("internal_error")
        kind = Error if isinstance(answer, ErrorData) else OrderResponse
        self.out.append(kind(answer, self.now_ms, request.id))

    def do(self, request):
        if request.operation is Operation.SUBMIT:
            data = request.data
            if data.price > 9:
                return ErrorData("insufficient_funds")
            order = self.add(data.client_order_id, data.side, data.quantity, data.price)
            return self.response(order, "accepted")
        named = [o for o in self.open() if self.is_named(o, request.name)]
        if not named:
            return ErrorData("order_not_found")
        order = named[0]
        if request.operation is Operation.CANCEL:
            self.tell(order, "canceled")
            return self.response(order, "canceled")
        order.price = request.data.price
        order.quantity = max(request.data.quantity, order.filled_quantity)
        self.tell(order, order.status if self.left(order) else "canceled")
        return self.response(order, "modified")

    def is_named(self, order, name):
        if name.order_id is not None:
            return order.order_id == name.order_id
        return order.client_id == name.client_order_id

    def add(self, client_id, side, quantity, price):
        order = OrderUpdateData(
            f"o-{len(self.orders) + 1}", client_id, "AAPL", side, "limit", quantity, 0,
            quantity, price, "accepted", "gtc", self.now_ms, self.now_ms,
        )  # fmt: skip
        self.orders[order.order_id] = order
        self.tell(order, "accepted")
        return order

    def left(self, order):
        return size(round(order.quantity * 10) - round(order.filled_quantity * 10))

    def fill(self, order, count):
        count = min(count, round(self.left(order) * 10))
        filled = size(round(order.filled_quantity * 10) + count)
        order.filled_quantity = filled
        trade = UserTradeData(
            f"t-{len(self.trades) + 1}", order.order_id, "AAPL", order.side,
            order.price, size(count), 0.0, "USD", self.now_ms,
        )  # fmt: skip
        self.trades.append(trade)
        self.out.append(trade)
        self.tell(order, "partially_filled" if self.left(order) else "filled")

    def tell(self, order, status):
        order.status, order.updated_at = status, self.now_ms
        order.remaining_quantity = self.left(order)
        self.out.append(msgspec.structs.replace(order))

    def response(self, order, status):
        answer = OrderResponseData(
            status, order.order_id, order.client_id, "AAPL", order.side, "limit",
            order.quantity, order.price, "gtc",
        )  # fmt: skip
        if status != "accepted":
            answer.filled_quantity = order.filled_quantity
            answer.remaining_quantity = order.remaining_quantity
        return answer

    def replay(self):
        """What a subscription begins with."""
        since_ms = self.now_ms - REPLAY_MS
        return [
            msgspec.structs.replace(order)
            for order in self.orders.values()
            if order.status in OPEN or order.updated_at > since_ms
        ] + [trade for trade in self.trades if trade.trade_time > since_ms]


class Trading(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.venue, self.orders = NaiveVenue(), Orders()
        self.former: list[NaiveVenue] = []
        self.count = 0
        self.requests: list[Request] = []
        self.unanswered: list[Request] = []
        self.connected = False
        self.restarted = False
        self.mine: list[Order] = []
        self.seen: dict[Order, tuple] = {}
        self.connect(0)

    # ── the client ────────────────────────────────────────────────────────────────

    @property
    def now_ns(self):
        return self.venue.now_ms * 1_000_000

    def send(self, order, operation, data=None):
        self.count += 1
        request = Request(f"r-{self.count}", operation, order.cancellation(), data)
        self.orders.asked(order, operation, request.id, self.now_ns)
        self.requests.append(request)
        self.unanswered.append(request)
        self.pass_time()

    def pass_time(self, duration_ms=1):
        self.venue.now_ms += duration_ms

    def some(self, things, number):
        return things[number % len(things)] if things else None

    @precondition(lambda self: self.connected)
    @rule(count=lots, price=st.integers(1, 10), side=st.sampled_from(["buy", "sell"]))
    def submit(self, count, price, side):
        name = f"c-{len(self.mine)}"
        data = OrderData(
            "AAPL", side, "limit", size(count), price, client_order_id=name
        )
        order = self.orders.submitted(data, self.now_ns)
        self.mine.append(order)
        self.send(order, Operation.SUBMIT, data)

    @precondition(lambda self: self.connected and self.orders.open)
    @rule(number=numbers)
    def cancel(self, number):
        self.send(self.some(self.orders.open, number), Operation.CANCEL)

    @precondition(lambda self: self.connected and self.orders.open)
    @rule(number=numbers, count=lots, price=st.integers(1, 9))
    def modify(self, number, count, price):
        change = ModifyOrderData(quantity=size(count), price=price)
        order = self.some(self.orders.open, number)
        self.send(order, Operation.MODIFY, change)

    @precondition(lambda self: self.unanswered)
    @rule(number=numbers)
    def time_out(self, number):
        self.orders.answered(self.some(self.unanswered, number).id, None)

    @precondition(lambda self: self.connected)
    @rule()
    def probe(self):
        self.pass_time(5_000)
        for order in self.orders.to_probe(self.now_ns):
            assert order.is_unknown
            self.send(order, Operation.CANCEL)

    # ── the venue ─────────────────────────────────────────────────────────────────

    @precondition(lambda self: self.requests)
    @rule(spoilt=st.sampled_from([False, False, False, True]))
    def process(self, spoilt):
        self.venue.take(self.requests.pop(0), spoilt)
        self.pass_time()

    @precondition(lambda self: self.venue.open())
    @rule(number=numbers, count=lots)
    def fill(self, number, count):
        self.venue.fill(self.some(self.venue.open(), number), count)
        self.pass_time()

    @precondition(lambda self: self.venue.open())
    @rule(number=numbers)
    def expire(self, number):
        self.venue.tell(self.some(self.venue.open(), number), "expired")
        self.pass_time()

    @rule(count=lots, name=st.sampled_from([None, "theirs", "order-1"]))
    def somebody_else_submits(self, count, name):
        self.venue.add(name, "buy", size(count), 5)
        self.pass_time()

    # ── the line between them ─────────────────────────────────────────────────────

    @precondition(lambda self: self.connected and self.venue.out)
    @rule(number=numbers, times=st.sampled_from([1, 1, 2]), kept=st.booleans())
    def deliver(self, number, times, kept):
        """Deliver any message: next, twice, or now and once more later."""
        place = number % len(self.venue.out)
        message = self.venue.out[place] if kept else self.venue.out.pop(place)
        for _ in range(times):
            self.receive(message)

    def receive(self, message):
        if isinstance(message, OrderUpdateData):
            self.orders.updated(message)
        elif isinstance(message, UserTradeData):
            self.orders.filled(message)
        else:
            self.orders.answered(message.id, message)
            self.unanswered = [r for r in self.unanswered if r.id != message.id]
        self.look()

    @precondition(lambda self: self.connected)
    @rule(done=numbers)
    def cut(self, done):
        """Lose all messages, and the requests that the venue has not got yet."""
        for request in self.requests[: done % (len(self.requests) + 1)]:
            self.venue.take(request)
        self.requests.clear()
        self.unanswered.clear()
        self.venue.out.clear()
        self.connected = False
        self.orders.disconnected()

    @precondition(lambda self: not self.connected)
    @rule(away_ms=st.sampled_from([1, 1000, MINUTE_MS, 20 * MINUTE_MS]))
    def connect(self, away_ms):
        self.pass_time(away_ms)
        subscribed_ns = self.now_ns
        self.pass_time()
        self.venue.out = self.venue.replay()
        self.orders.begin(subscribed_ns, self.now_ns)
        self.connected = True
        if self.restarted:
            self.restarted = False
            self.orders.venue_restarted()

    @precondition(lambda self: self.connected and self.unanswered)
    @rule()
    def subscribe_again(self):
        """Ask for all orders on the same connection, which keeps its order."""
        subscribed_ns = self.now_ns
        self.pass_time()
        for request in self.requests:
            self.venue.take(request)
        self.requests.clear()
        for message in self.venue.out:
            self.receive(message)
        self.venue.out = self.venue.replay()
        self.orders.begin(subscribed_ns, self.now_ns)

    @precondition(lambda self: not self.connected and not self.restarted)
    @rule()
    def restart(self):
        """Begin with no orders, and with the ids of before."""
        self.former.append(self.venue)
        self.venue = NaiveVenue()
        self.venue.now_ms = self.former[-1].now_ms
        self.restarted = True

    # ── what must hold ────────────────────────────────────────────────────────────

    def look(self):
        """Compare every order that changed with what it was."""
        for order in self.orders.take_changes():
            status, filled, updated_ms = self.seen.get(order, (order.status, 0, 0))
            assert order.status in NEXT[status]
            assert order.filled >= filled
            assert order.updated_ms >= updated_ms
            assert round(order.filled + order.remaining, 9) == order.quantity
            assert order.remaining >= 0
            self.seen[order] = (order.status, order.filled, order.updated_ms)

    def taken(self, order):
        """What the venue, in any of its lives, has of an order of ours."""
        for venue in (self.venue, *self.former):
            for record in venue.orders.values():
                if record.client_id == order.client_id:
                    return record
        return None

    @invariant()
    def nothing_is_believed_that_is_not_so(self):
        self.look()
        for order in self.mine:
            record = self.taken(order)
            assert order.filled <= (record.filled_quantity if record else 0)
            if not order.is_terminal or order.reason == RESTARTED:
                continue
            if order.status is Status.REJECTED:
                assert record is None
            else:
                assert record.status == order.status.value

    def teardown(self):
        """Give them time, and a line that works: both have the same orders then."""
        if self.connected:
            self.cut(0)
        self.connect(1000)
        for _ in range(3):
            while self.requests:
                self.process(False)
            random.Random(self.count).shuffle(self.venue.out)
            while self.venue.out:
                self.receive(self.venue.out.pop())
            self.probe()
        for order in self.mine:
            self.is_settled(order)
        assert {o.order_id for o in self.venue.open()} == {
            o.order_id for o in self.orders.open if not o.is_unknown
        }
        super().teardown()

    def is_settled(self, order):
        record = self.taken(order)
        sent_ms = order.sent_ns // 1_000_000
        last_ms = sent_ms if record is None else record.updated_at
        if order.is_unknown:
            # Nobody can tell any more.
            assert self.venue.now_ms - min(sent_ms, last_ms) > REPLAY_MS - MINUTE_MS
        elif order.reason != RESTARTED and record is not None:
            assert not order.pending
            assert (order.price, order.filled) == (record.price, record.filled_quantity)
            assert order.quantity == record.quantity
            assert order.is_terminal == (record.status not in OPEN)


Trading.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.req("I-08", "I-09", "I-11")
class TestTrading(Trading.TestCase):
    pass

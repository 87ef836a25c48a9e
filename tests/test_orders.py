"""Our orders: messages in any order, answers lost, new connections and venues."""

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedhandler.orders import Operation, Orders, Status
from feedhandler.protocol.codes import ErrorCode
from feedhandler.protocol.messages import (
    BatchResponse,
    BatchResponseData,
    BatchResult,
    Error,
    ErrorData,
    OrderData,
    OrderResponse,
    OrderResponseData,
    OrderUpdateData,
    UserTradeData,
)
from tests.trading import Venue, order

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
SUBMIT, CANCEL, MODIFY = Operation.SUBMIT, Operation.CANCEL, Operation.MODIFY

ENDED = {Status.FILLED, Status.CANCELED, Status.EXPIRED, Status.REJECTED}
AFTER = {
    Status.PENDING: set(Status) - {Status.PENDING},
    Status.LIVE: set(Status) - {Status.PENDING, Status.LIVE},
    Status.PARTIALLY_FILLED: {Status.UNKNOWN, *ENDED},
    Status.UNKNOWN: set(Status) - {Status.PENDING, Status.UNKNOWN},
    **{status: set() for status in ENDED},
}


# ── messages ──────────────────────────────────────────────────────────────────────────


def data(client_id="c-1"):
    return OrderData("AAPL", "buy", "limit", 100, 150.0, client_order_id=client_id)


def update(status, at, filled=0, quantity=100, price=150.0, **fields):
    fields = {"order_id": "o-1", "client_id": "c-1", **fields}
    return OrderUpdateData(
        fields.pop("order_id"), fields.pop("client_id"), "AAPL", "buy", "limit",
        quantity, filled, quantity - filled, price, status, "gtc", 1000, at, **fields,
    )  # fmt: skip


def trade(trade_id, quantity, price=150.0, order_id="o-1"):
    return UserTradeData(
        trade_id, order_id, "AAPL", "buy", price, quantity, 0.0, "USD", 1000
    )


def response(status, at=1000, quantity=100, price=150.0, order_id="o-1", **fields):
    return OrderResponse(
        OrderResponseData(
            status, order_id, "c-1", "AAPL", "buy", "limit", quantity, price, "gtc",
            **fields,
        ),
        at,
    )  # fmt: skip


def error(code):
    return Error(ErrorData(code, "a message"), 1000)


def batch(*results):
    return BatchResponse(BatchResponseData("partial", list(results)), 1000)


# ── orders in some state ──────────────────────────────────────────────────────────────


def submit(orders, client_id="c-1", now_ns=0):
    made = orders.submitted(data(client_id), now_ns)
    orders.asked(made, SUBMIT, f"submit-{client_id}", now_ns)
    return made


def live(orders, client_id="c-1", order_id="o-1", now_ns=0):
    made = submit(orders, client_id, now_ns)
    orders.answered(f"submit-{client_id}", response("accepted", order_id=order_id))
    return made


def subscribe(orders, at=MINUTE):
    orders.disconnected()
    orders.begin(at, at + 1)


def unmentioned(orders, at=MINUTE):
    """Subscribe, be told nothing, and wait until that means something."""
    subscribe(orders, at)
    return orders.to_probe(at + 6 * SECOND)


def probe(orders, order, message, at=2 * MINUTE):
    orders.asked(order, CANCEL, "probe", at)
    orders.answered("probe", message)


# ── any order of messages ─────────────────────────────────────────────────────────────

ACK = ("submit-c-1", response("accepted"))
ACCEPTED = update("accepted", 1000)
HALF = [trade("t-1", 50), update("partially_filled", 1001, 50)]
NOT_FOUND = ("cancel", error("order_not_found"))


def modified(at, quantity, filled=50):
    answer = response(
        "modified", at, quantity, filled_quantity=filled,
        remaining_quantity=quantity - filled,
    )  # fmt: skip
    return ("modify", answer)


HISTORIES = {
    "accepted": ([ACK, ACCEPTED], Status.LIVE, 0, 100),
    "filled whole": (
        [ACK, ACCEPTED, trade("t-1", 100), update("filled", 1001, 100)],
        Status.FILLED, 100, 100,
    ),
    "filled at once": (
        [ACK, ACCEPTED, trade("t-1", 30), update("partially_filled", 1000, 30),
         trade("t-2", 70), update("filled", 1000, 100)],
        Status.FILLED, 100, 100,
    ),
    "filled in part": ([ACK, ACCEPTED, *HALF], Status.PARTIALLY_FILLED, 50, 100),
    "with himself": (
        [ACK, ACCEPTED, trade("t-1", 50), trade("t-1", 50, order_id="o-2"),
         update("partially_filled", 1001, 50)],
        Status.PARTIALLY_FILLED, 50, 100,
    ),
    "a cancel beats a fill": (
        [ACK, *HALF, ("cancel", response("canceled", 1002, filled_quantity=50)),
         update("canceled", 1002, 50)],
        Status.CANCELED, 50, 100,
    ),
    "a fill beats a cancel": (
        [ACK, ACCEPTED, trade("t-1", 100), update("filled", 1001, 100), NOT_FOUND],
        Status.FILLED, 100, 100,
    ),
    "modified after a fill": (
        [ACK, *HALF, modified(1002, 80), update("partially_filled", 1002, 50, 80)],
        Status.PARTIALLY_FILLED, 50, 80,
    ),
    "a fill after a modify": (
        [ACK, modified(1001, 180, 0), update("accepted", 1001, 0, 180),
         trade("t-1", 150), update("partially_filled", 1002, 150, 180)],
        Status.PARTIALLY_FILLED, 150, 180,
    ),
    "a fill beats a modify": (
        [ACK, trade("t-1", 100), update("filled", 1001, 100),
         ("modify", error("order_not_found"))],
        Status.FILLED, 100, 100,
    ),
    "modified below filled": (
        [ACK, *HALF, modified(1002, 50), update("canceled", 1002, 50, 50)],
        Status.CANCELED, 50, 50,
    ),
    "modified below filled, then canceled": (
        [ACK, *HALF, modified(1002, 50), update("canceled", 1002, 50, 50), NOT_FOUND],
        Status.CANCELED, 50, 50,
    ),
    "modified as soon as accepted": (
        [ACK, update("accepted", 1000, 0, 80)], Status.LIVE, 0, 80,
    ),
    "triggered": (
        [ACK, update("accepted", 1000, stop_price=151.0, triggered=False),
         update("accepted", 1001, stop_price=151.0, triggered=True),
         trade("t-1", 100),
         update("filled", 1001, 100, stop_price=151.0, triggered=True)],
        Status.FILLED, 100, 100,
    ),
    "expired": ([ACK, *HALF, update("expired", 1009, 50)], Status.EXPIRED, 50, 100),
}  # fmt: skip


class Watched:
    """An order that everything was asked of, and what must hold after every message."""

    def __init__(self):
        self.orders = Orders()
        self.order = submit(self.orders)
        for operation in (CANCEL, MODIFY):
            self.orders.asked(self.order, operation, operation.value, 0)
        self.before = self.look()

    def look(self):
        order = self.order
        return order.status, order.filled, order.updated_ms

    def take(self, message):
        if isinstance(message, OrderUpdateData):
            self.orders.updated(message)
        elif isinstance(message, UserTradeData):
            self.orders.filled(message)
        else:
            self.orders.answered(*message)
        now, before = self.look(), self.before
        assert now[0] is before[0] or now[0] in AFTER[before[0]]
        assert now[1:] >= (before[1], 0)
        assert now[2] >= before[2]
        assert self.order.filled + self.order.remaining == self.order.quantity
        self.before = now

    def take_all(self, messages):
        for message in messages:
            self.take(message)
        return self.order.snapshot()


def in_order(messages):
    """The state after a history as it happened, and nothing left to be waited for."""
    return Watched().take_all(messages)


@pytest.mark.parametrize("name", HISTORIES)
@pytest.mark.req("F-66", "F-67", "F-68")
def test_every_order_of_the_messages_ends_in_the_same_state(name):
    messages, status, filled, quantity = HISTORIES[name]
    wanted = in_order(messages)

    for shuffled in permutations(messages):
        watched = Watched()
        assert watched.take_all(shuffled) == wanted
        # Again, each of them: nothing is news.
        watched.orders.take_changes()
        assert watched.take_all(shuffled[::-1]) == wanted
        assert watched.orders.take_changes() == []
        assert (watched.order.status, watched.order.filled) == (status, filled)
        assert watched.order.quantity == quantity
        assert watched.orders.discarded == 0


@pytest.mark.req("F-65", "F-66", "I-11")
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_repetitions_anywhere_change_nothing(choice):
    messages, *_ = HISTORIES[choice.draw(st.sampled_from(sorted(HISTORIES)))]
    repeated = messages + choice.draw(st.lists(st.sampled_from(messages), max_size=8))

    assert Watched().take_all(choice.draw(st.permutations(repeated))) == in_order(
        messages
    )


@pytest.mark.req("A-41")
def test_the_fill_of_an_order_whose_id_is_not_known_yet_is_kept_for_it():
    orders = Orders()
    made = submit(orders)

    assert orders.filled(trade("t-1", 40))
    assert not orders.filled(trade("t-1", 40))
    assert made.filled == 0

    orders.answered("submit-c-1", response("accepted"))

    assert (made.status, made.filled) == (Status.PARTIALLY_FILLED, 40)
    assert not orders.filled(trade("t-1", 40))


def test_fills_alone_do_not_end_an_order():
    """A modification that we do not know of may have made it larger."""
    orders = Orders()
    made = live(orders)
    orders.filled(trade("t-1", 100))

    assert (made.status, made.remaining) == (Status.PARTIALLY_FILLED, 0)

    orders.updated(update("filled", 1001, 100))

    assert made.status is Status.FILLED


@pytest.mark.req("F-75", "I-09")
def test_fills_that_are_told_again_are_not_counted_twice():
    orders = Orders()
    made = live(orders)
    fills = [trade("t-1", 30), trade("t-2", 20)]
    news = [orders.filled(one) for one in fills]
    subscribe(orders)
    again = [orders.filled(one) for one in fills]

    assert made.filled == 50
    assert (news, again) == ([True, True], [False, False])


@pytest.mark.req("UT-03")
def test_a_trade_with_oneself_counts_for_both_orders():
    orders = Orders()
    one, other = live(orders), live(orders, "c-2", "o-2")

    assert orders.filled(trade("t-1", 10))
    assert orders.filled(trade("t-1", 10, order_id="o-2"))
    assert not orders.filled(trade("t-1", 10))
    assert (one.filled, other.filled) == (10, 10)


# ── answers ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "code", [*sorted(set(ErrorCode) - {ErrorCode.INTERNAL_ERROR}), "invalid_moon"]
)
@pytest.mark.req("F-70", "A-19")
def test_a_definite_error_rejects_an_order(code):
    orders = Orders()
    made = submit(orders)
    orders.answered("submit-c-1", error(code))

    assert (made.status, made.reason) == (Status.REJECTED, code)
    assert orders.open == []


@pytest.mark.parametrize("code", ["internal_error", "out_of_coffee", ""])
@pytest.mark.req("F-71", "ER-11", "ER-12")
def test_any_other_error_leaves_it_unknown(code):
    orders = Orders()
    made = submit(orders)
    orders.answered("submit-c-1", error(code))

    assert made.is_unknown
    assert orders.unknown == 1
    assert made.pending == {SUBMIT: "unknown"}


@pytest.mark.req("F-71")
def test_an_order_is_not_unknown_once_it_is_told_of_whatever_its_answer_was():
    orders = Orders()
    made = submit(orders)
    orders.answered("submit-c-1", error("internal_error"))
    orders.updated(update("accepted", 1000))

    assert (made.status, made.pending, made.created_ms) == (Status.LIVE, {}, 1000)


@pytest.mark.req("F-64")
def test_an_answer_after_its_time_settles_what_was_unknown():
    orders = Orders()
    made = submit(orders)
    orders.answered("submit-c-1", None)

    assert made.is_unknown

    orders.answered("submit-c-1", response("accepted"))

    assert (made.status, made.pending) == (Status.LIVE, {})

    orders.asked(made, CANCEL, "cancel", 0)
    orders.answered("cancel", None)

    assert (made.status, made.pending) == (Status.LIVE, {CANCEL: "unknown"})

    orders.answered("cancel", response("canceled"))

    assert (made.status, made.pending) == (Status.CANCELED, {})


@pytest.mark.req("F-64")
def test_a_refusal_after_its_time_settles_what_was_unknown():
    orders = Orders()
    made = submit(orders)
    orders.answered("submit-c-1", None)
    orders.answered("submit-c-1", error("insufficient_funds"))

    assert made.status is Status.REJECTED


@pytest.mark.req("F-65")
def test_the_same_answer_twice_changes_nothing():
    orders = Orders()
    made = live(orders)
    orders.take_changes()
    for message in (response("accepted"), error("insufficient_funds"), None):
        orders.answered("submit-c-1", message)

    assert made.status is Status.LIVE
    assert orders.take_changes() == []


@pytest.mark.parametrize("code", ["rate_limit_exceeded", "market_closed"])
@pytest.mark.parametrize("operation", [CANCEL, MODIFY])
def test_a_refused_change_leaves_the_order_as_it_was(operation, code):
    orders = Orders()
    made = live(orders)
    orders.asked(made, operation, "change", 0)

    assert made.pending == {operation: "sent"}

    orders.answered("change", error(code))

    assert (made.status, made.pending) == (Status.LIVE, {})


def test_what_is_not_found_is_unknown_until_its_end_is_told():
    orders = Orders()
    made = live(orders)
    orders.asked(made, CANCEL, "cancel", 0)
    orders.answered("cancel", error("order_not_found"))

    assert made.is_unknown
    assert "not found" in made.reason

    orders.updated(update("expired", 1001))

    assert (made.status, made.reason) == (Status.EXPIRED, None)


def test_what_is_not_found_and_then_modified_was_not_gone():
    orders = Orders()
    made = live(orders)
    for operation in (MODIFY, CANCEL):
        orders.asked(made, operation, operation.value, 0)
    orders.answered("cancel", error("order_not_found"))
    orders.answered("modify", response("modified", 1001, 80))

    assert (made.status, made.quantity) == (Status.LIVE, 80)


def test_an_order_that_is_not_answered_yet_may_not_be_found():
    orders = Orders()
    made = submit(orders)
    orders.asked(made, CANCEL, "cancel", 0)
    orders.answered("cancel", error("order_not_found"))

    assert made.status is Status.PENDING


def test_a_cancel_that_is_answered_with_anything_but_an_end_is_unknown():
    orders = Orders()
    made = live(orders)
    orders.asked(made, CANCEL, "cancel", 0)
    orders.answered("cancel", response("pending_cancel"))

    assert (made.status, made.pending) == (Status.LIVE, {CANCEL: "unknown"})


def test_an_answer_about_another_order_settles_nothing():
    orders = Orders()
    made = live(orders)
    orders.asked(made, CANCEL, "cancel", 0)
    orders.answered("cancel", response("canceled", order_id="o-2"))

    assert (made.status, made.pending) == (Status.LIVE, {CANCEL: "unknown"})
    assert orders.discarded == 1


def test_another_end_than_the_one_that_was_told_is_not_believed():
    orders = Orders()
    made = live(orders)
    orders.updated(update("filled", 1001, 100))
    orders.updated(update("canceled", 1002, 100))

    assert made.status is Status.FILLED
    assert orders.discarded == 1


def test_either_of_two_cancels_may_be_the_one_that_is_answered():
    orders = Orders()
    made = live(orders)
    orders.asked(made, CANCEL, "cancel-1", 0)
    orders.asked(made, CANCEL, "cancel-2", 0)

    assert made.pending == {CANCEL: "sent"}

    orders.answered("cancel-2", None)

    assert made.pending == {CANCEL: "unknown"}

    orders.answered("cancel-1", response("canceled"))

    assert (made.status, made.pending) == (Status.CANCELED, {})


# ── batches ───────────────────────────────────────────────────────────────────────────


def ask_batch(orders):
    """A submit, a cancel, a submit and a modify, sent together."""
    old, older = live(orders), live(orders, "c-2", "o-2")
    one = orders.submitted(data("c-3"), 0)
    two = orders.submitted(data("c-4"), 0)
    asked = [(one, SUBMIT), (old, CANCEL), (two, SUBMIT), (older, MODIFY)]
    for made, operation in asked:
        orders.asked(made, operation, "batch", 0)
    return one, old, two, older


@pytest.mark.req("OR-16")
def test_the_results_of_a_batch_belong_to_its_operations_in_their_order():
    orders = Orders()
    one, old, two, older = ask_batch(orders)
    orders.answered(
        "batch",
        batch(
            BatchResult("submit", "accepted", "o-3", "c-3"),
            BatchResult("cancel", "canceled", "o-1", "c-1"),
            BatchResult("submit", "error", code="insufficient_funds"),
            BatchResult("modify", "error", code="internal_error"),
        ),
    )

    assert (one.status, one.order_id) == (Status.LIVE, "o-3")
    assert old.status is Status.CANCELED
    assert (two.status, two.reason) == (Status.REJECTED, "insufficient_funds")
    assert (older.status, older.pending) == (Status.LIVE, {MODIFY: "unknown"})


@pytest.mark.req("F-69")
def test_every_operation_of_a_batch_without_an_answer_is_unknown():
    orders = Orders()
    one, old, two, older = ask_batch(orders)
    orders.answered("batch", None)

    assert one.is_unknown
    assert two.is_unknown
    assert (old.status, old.pending) == (Status.LIVE, {CANCEL: "unknown"})
    assert (older.status, older.pending) == (Status.LIVE, {MODIFY: "unknown"})


@pytest.mark.req("F-70")
def test_an_error_for_a_batch_is_one_for_each_operation():
    orders = Orders()
    one, old, two, older = ask_batch(orders)
    orders.answered("batch", error("rate_limit_exceeded"))

    assert {one.status, two.status} == {Status.REJECTED}
    assert {old.status, older.status} == {Status.LIVE}
    assert not old.pending
    assert not older.pending


def test_a_result_that_is_missing_or_of_another_operation_settles_nothing():
    orders = Orders()
    one, old, two, older = ask_batch(orders)
    orders.answered(
        "batch",
        batch(
            BatchResult("cancel", "canceled", "o-1", "c-1"),
            BatchResult("cancel", "canceled", "o-1", "c-1"),
        ),
    )

    assert one.is_unknown
    assert old.status is Status.CANCELED
    assert two.is_unknown
    assert older.pending == {MODIFY: "unknown"}


def test_the_answer_to_one_order_does_not_settle_a_batch():
    orders = Orders()
    one, *_ = ask_batch(orders)
    orders.answered("batch", response("accepted", order_id="o-3"))

    assert one.is_unknown


def test_an_order_that_has_ended_keeps_its_place_in_a_batch():
    orders = Orders()
    ended, made = live(orders), live(orders, "c-2", "o-2")
    orders.updated(update("expired", 1001))
    for one in (ended, made):
        orders.asked(one, CANCEL, "batch", 0)
    orders.answered(
        "batch",
        batch(
            BatchResult("cancel", "error", code="order_not_found"),
            BatchResult("cancel", "canceled", "o-2", "c-2"),
        ),
    )

    assert ended.status is Status.EXPIRED
    assert made.status is Status.CANCELED


# ── a new connection ──────────────────────────────────────────────────────────────────


@pytest.mark.req("A-19", "I-08")
def test_what_was_in_flight_when_the_connection_ended_is_unknown():
    orders = Orders()
    one, made = submit(orders), live(orders, "c-2", "o-2")
    orders.asked(made, CANCEL, "cancel", 0)
    orders.asked(made, MODIFY, "modify", 0)
    orders.disconnected()

    assert one.is_unknown
    assert made.status is Status.LIVE
    assert made.pending == {CANCEL: "unknown", MODIFY: "unknown"}


@pytest.mark.parametrize(
    ("told", "status"),
    [
        (update("accepted", 1000), Status.LIVE),
        (update("partially_filled", 1001, 50), Status.PARTIALLY_FILLED),
        (update("filled", 1001, 100), Status.FILLED),
        (update("canceled", 1001, 50), Status.CANCELED),
    ],
)
@pytest.mark.req("F-63", "F-72", "A-19")
def test_a_submit_is_settled_by_an_order_that_is_told_again(told, status):
    orders = Orders()
    made = submit(orders)
    subscribe(orders)
    orders.updated(told)

    assert (made.status, made.order_id, made.pending) == (status, "o-1", {})


@pytest.mark.req("F-63", "A-19")
def test_a_cancel_was_not_done_if_the_order_is_told_to_be_live():
    """On a dead connection nothing is done after the new one has subscribed."""
    orders = Orders()
    made = live(orders)
    orders.asked(made, CANCEL, "cancel", SECOND)
    subscribe(orders)

    assert made.pending == {CANCEL: "unknown"}

    orders.updated(update("accepted", 1000))

    assert (made.status, made.pending) == (Status.LIVE, {})


@pytest.mark.req("F-63", "A-19")
def test_a_cancel_was_done_if_the_order_is_told_to_be_canceled():
    orders = Orders()
    made = live(orders)
    orders.asked(made, CANCEL, "cancel", SECOND)
    subscribe(orders)
    orders.updated(update("canceled", 1001))

    assert (made.status, made.pending) == (Status.CANCELED, {})


@pytest.mark.parametrize(
    ("at", "quantity", "price"), [(1000, 100, 150), (1001, 80, 151)]
)
@pytest.mark.req("F-63", "A-19")
def test_a_modification_was_done_or_not_as_the_order_is_told(at, quantity, price):
    orders = Orders()
    made = live(orders)
    orders.asked(made, MODIFY, "modify", SECOND)
    subscribe(orders)
    orders.updated(update("accepted", at, 0, quantity, price))

    assert (made.quantity, made.price, made.pending) == (quantity, price, {})


def test_what_was_asked_after_the_subscription_is_not_settled_by_what_it_tells():
    orders = Orders()
    made = live(orders)
    orders.disconnected()
    orders.asked(made, CANCEL, "cancel", MINUTE + 1)
    orders.begin(MINUTE, MINUTE + 2)
    orders.updated(update("accepted", 1000))

    assert made.pending == {CANCEL: "sent"}


def test_an_update_on_the_old_connection_settles_no_request():
    orders = Orders()
    made = live(orders)
    orders.begin(0, 1)
    orders.asked(made, CANCEL, "cancel", SECOND)
    orders.answered("cancel", None)
    orders.updated(update("partially_filled", 1001, 50))

    assert made.pending == {CANCEL: "unknown"}


def test_what_was_not_answered_before_the_subscription_will_not_be():
    orders = Orders()
    made = live(orders)
    orders.asked(made, CANCEL, "cancel", SECOND)
    orders.begin(MINUTE, MINUTE + 1)

    assert made.pending == {CANCEL: "unknown"}


def test_an_order_that_is_not_told_again_is_unknown_though_it_was_accepted():
    orders = Orders()
    made = submit(orders)
    orders.begin(MINUTE, MINUTE + 1)
    orders.to_probe(MINUTE + 6 * SECOND)
    orders.answered("submit-c-1", response("accepted"))

    assert made.is_unknown

    probe(orders, made, error("order_not_found"))

    assert made.is_unknown


@pytest.mark.req("F-71")
def test_subscribing_again_on_the_same_connection_settles_what_had_no_answer():
    orders = Orders()
    made, lost = live(orders), submit(orders, "c-2")
    orders.asked(made, CANCEL, "cancel", SECOND)
    orders.answered("cancel", None)
    orders.answered("submit-c-2", error("internal_error"))
    orders.begin(MINUTE, MINUTE + 1)
    orders.updated(update("accepted", 1000))

    assert (made.status, made.pending) == (Status.LIVE, {})
    assert orders.to_probe(MINUTE + 6 * SECOND) == [lost]

    probe(orders, lost, error("order_not_found"))

    assert lost.status is Status.REJECTED


@pytest.mark.req("A-19", "I-08")
def test_an_order_that_is_not_told_again_is_unknown_in_five_seconds():
    orders = Orders()
    told, made, lost = live(orders), live(orders, "c-2", "o-2"), submit(orders, "c-3")
    subscribe(orders)
    orders.updated(update("accepted", 1000))

    assert orders.is_reconciling
    assert orders.to_probe(MINUTE + 4 * SECOND) == []
    assert (made.status, lost.status) == (Status.LIVE, Status.UNKNOWN)

    assert orders.to_probe(MINUTE + 6 * SECOND) == [made, lost]
    assert not orders.is_reconciling
    assert told.status is Status.LIVE
    assert made.is_unknown
    assert "not told again" in made.reason
    assert orders.unknown == 2


def test_an_order_that_is_told_after_all_is_not_unknown():
    orders = Orders()
    made = live(orders)
    unmentioned(orders)
    orders.updated(update("accepted", 1000))

    assert (made.status, made.reason) == (Status.LIVE, None)
    assert orders.to_probe(3 * MINUTE) == []


@pytest.mark.req("A-19", "F-63")
def test_an_order_that_can_be_canceled_was_live():
    orders = Orders()
    lost = submit(orders)
    (asked,) = unmentioned(orders)
    probe(orders, asked, response("canceled", 2000, filled_quantity=0))

    assert (lost.status, lost.order_id, lost.pending) == (Status.CANCELED, "o-1", {})


@pytest.mark.req("A-19", "F-63", "I-08")
def test_a_submit_that_is_neither_told_nor_found_never_arrived():
    orders = Orders()
    lost = submit(orders)
    unmentioned(orders)
    probe(orders, lost, error("order_not_found"))

    assert (lost.status, lost.reason) == (Status.REJECTED, "never arrived")


@pytest.mark.req("A-19", "I-08")
def test_it_may_have_arrived_and_ended_if_it_was_sent_before_what_is_told_again():
    orders = Orders()
    lost = submit(orders)
    unmentioned(orders, 15 * MINUTE)
    probe(orders, lost, error("order_not_found"), 16 * MINUTE)

    assert lost.is_unknown
    assert "not found" in lost.reason
    assert orders.to_probe(60 * MINUTE) == []


@pytest.mark.parametrize(
    ("symbol", "status"), [("AAPL", Status.UNKNOWN), ("MSFT", Status.REJECTED)]
)
@pytest.mark.req("A-19", "I-08")
def test_it_may_have_arrived_if_there_is_a_fill_that_is_nobodys(symbol, status):
    orders = Orders()
    lost = submit(orders)
    fill = trade("t-1", 10, order_id="o-9")
    fill.symbol = symbol
    unmentioned(orders)
    orders.filled(fill)
    probe(orders, lost, error("order_not_found"))

    assert lost.status is status


def test_nothing_never_arrived_at_a_venue_that_tells_nothing_again():
    orders = Orders(replay_ns=0)
    lost = submit(orders)
    unmentioned(orders)
    probe(orders, lost, error("order_not_found"))

    assert lost.is_unknown


def test_nothing_never_arrived_only_because_it_is_not_found():
    orders = Orders()
    lost = submit(orders)
    orders.answered("submit-c-1", None)
    probe(orders, lost, error("order_not_found"))

    assert lost.is_unknown


@pytest.mark.parametrize(
    ("traded", "status"),
    [(100, Status.FILLED), (60, Status.UNKNOWN), (0, Status.UNKNOWN)],
)
@pytest.mark.req("A-19", "I-09")
def test_an_order_that_was_live_and_is_gone_is_settled_by_its_fills_alone(
    traded, status
):
    orders = Orders()
    made = live(orders)
    if traded:
        orders.filled(trade("t-1", traded))
    unmentioned(orders)
    probe(orders, made, error("order_not_found"))

    assert made.status is status
    assert made.filled == traded


def test_an_order_is_probed_again_when_the_probe_had_no_outcome():
    orders = Orders()
    lost = submit(orders)
    unmentioned(orders)
    at = 2 * MINUTE
    orders.asked(lost, CANCEL, "probe-1", at)

    assert orders.to_probe(at + MINUTE) == []

    orders.answered("probe-1", None)

    assert orders.to_probe(at + SECOND) == []
    assert orders.to_probe(at + 6 * SECOND) == [lost]

    orders.asked(lost, CANCEL, "probe-2", at + 6 * SECOND)
    orders.answered("probe-2", error("rate_limit_exceeded"))

    assert orders.to_probe(at + 7 * SECOND) == [lost]


def test_nothing_is_probed_without_a_connection():
    orders = Orders()
    lost = submit(orders)
    unmentioned(orders)
    orders.disconnected()

    assert orders.to_probe(2 * MINUTE) == []

    assert unmentioned(orders, 3 * MINUTE) == [lost]


def test_an_order_that_shows_up_after_it_never_arrived_is_not_overlooked():
    orders = Orders()
    lost = submit(orders)
    unmentioned(orders)
    probe(orders, lost, error("order_not_found"))
    orders.updated(update("accepted", 5000))

    (found,) = orders.open
    assert found.is_foreign
    assert (found.client_id, found.status) == ("c-1", Status.LIVE)
    assert orders.by_client_id("c-1") is found
    assert lost.status is Status.REJECTED


@pytest.mark.req("SEC-26")
def test_a_person_may_settle_what_nobody_else_can():
    orders = Orders()
    lost = submit(orders)
    orders.answered("submit-c-1", None)
    orders.settle(lost, Status.CANCELED, "asked on the phone")

    assert (lost.status, lost.reason) == (Status.CANCELED, "asked on the phone")
    assert orders.unknown == 0


# ── adoption ──────────────────────────────────────────────────────────────────────────


@pytest.mark.req("F-74")
def test_orders_of_an_earlier_process_are_adopted():
    orders = Orders()
    orders.begin(0, 1)
    orders.filled(trade("t-1", 30))
    orders.updated(
        update("partially_filled", 1001, 30, client_id="old-7", client_order_id="old-7")
    )
    orders.updated(update("canceled", 1002, order_id="o-2", client_id=None))

    (adopted,) = orders.open
    assert orders.by_client_id("old-7") is orders.by_order_id("o-1") is adopted
    assert adopted.is_foreign
    assert (adopted.status, adopted.filled) == (Status.PARTIALLY_FILLED, 30)
    assert adopted.average_price == 150
    assert orders.by_order_id("o-2").status is Status.CANCELED
    assert len(orders.take_changes()) == 2


def test_strangers_may_share_a_name():
    orders = Orders()
    for order_id in ("o-1", "o-2"):
        orders.updated(update("accepted", 1000, order_id=order_id, client_id="order-1"))

    assert orders.by_client_id("order-1") is orders.by_order_id("o-1")

    orders.updated(update("canceled", 1001, order_id="o-1", client_id="order-1"))

    assert orders.by_order_id("o-1").status is Status.CANCELED
    assert orders.by_order_id("o-2").status is Status.LIVE


@pytest.mark.req("A-15")
def test_a_venue_may_call_an_order_by_the_id_of_its_request():
    orders = Orders()
    one, other = live(orders), submit(orders, "c-2")
    orders.updated(update("partially_filled", 1001, 50, client_id="submit-c-1"))
    orders.updated(
        update(
            "accepted", 1000, order_id="o-2", client_id="submit-c-2",
            client_order_id="c-2",
        )
    )  # fmt: skip

    assert orders.open == [one, other]
    assert (one.filled, other.order_id) == (50, "o-2")


def test_a_word_that_is_no_known_end_is_that_of_an_open_order():
    orders = Orders()
    orders.updated(update("suspended", 1000))

    assert orders.by_order_id("o-1").status is Status.LIVE


# ── a restart of the venue ────────────────────────────────────────────────────────────


@pytest.mark.req("A-49", "F-73")
def test_only_a_restart_that_was_told_cancels_what_is_open():
    orders = Orders()
    made, lost = live(orders), submit(orders, "c-2")
    unmentioned(orders)

    assert made.is_unknown

    orders.venue_restarted()

    assert [(o.status, o.reason) for o in (made, lost)] == [
        (Status.CANCELED, "venue restarted")
    ] * 2


@pytest.mark.req("A-49", "F-73")
def test_a_restart_spares_the_orders_of_the_new_life():
    orders = Orders()
    old = live(orders)
    subscribe(orders)
    orders.updated(update("accepted", 9000, order_id="o-2", client_id="theirs"))
    new = submit(orders, "c-3", MINUTE + 1)
    orders.venue_restarted()

    assert old.status is Status.CANCELED
    assert new.status is Status.PENDING
    assert orders.by_order_id("o-2").status is Status.LIVE


def test_a_restart_may_be_told_before_the_new_subscription():
    orders = Orders()
    made = live(orders)
    orders.disconnected()
    orders.venue_restarted()

    assert made.status is Status.CANCELED


@pytest.mark.parametrize("first", ["ack", "update"])
@pytest.mark.req("A-49")
def test_an_id_that_the_new_life_gives_anew_is_not_that_of_the_old_order(first):
    orders = Orders()
    old = live(orders)
    orders.filled(trade("t-1", 10))
    subscribe(orders)
    new = submit(orders, "c-2", MINUTE + 1)
    if first == "ack":
        orders.answered("submit-c-2", response("accepted"))
    orders.updated(update("accepted", 9000, client_id="c-2"))
    orders.filled(trade("t-1", 20))

    assert orders.by_order_id("o-1") is new
    assert (new.status, new.filled) == (Status.PARTIALLY_FILLED, 20)
    assert (old.order_id, old.filled) == (None, 10)


@pytest.mark.parametrize("renew", [subscribe, Orders.disconnected])
def test_the_ids_of_a_former_life_mean_nothing_after_a_restart(renew):
    orders = Orders()
    old = live(orders)
    orders.updated(update("filled", 1001, 100))
    orders.filled(trade("t-1", 5, order_id="o-2"))
    renew(orders)
    orders.venue_restarted()
    orders.filled(trade("t-9", 20))
    new = live(orders, "c-2", "o-2", now_ns=MINUTE)

    assert (old.status, old.filled) == (Status.FILLED, 100)
    assert orders.by_order_id("o-1") is None
    assert new.filled == 0


def test_a_stranger_whose_id_was_given_anew_cannot_be_probed():
    orders = Orders()
    orders.updated(update("accepted", 1000, client_id=None))
    (old,) = orders.open
    subscribe(orders)
    orders.updated(update("accepted", 9000, client_id="new"))

    assert orders.to_probe(MINUTE + 6 * SECOND) == []
    assert old.is_unknown


# ── bounds ────────────────────────────────────────────────────────────────────────────


def test_the_orders_that_ended_first_are_forgotten_first():
    orders = Orders(kept=2)
    made = [live(orders, f"c-{n}", f"o-{n}") for n in range(4)]
    for n in (2, 0, 1):
        orders.updated(
            update("filled", 1001, 100, order_id=f"o-{n}", client_id=f"c-{n}")
        )

    assert orders.by_order_id("o-2") is orders.by_client_id("c-2") is None
    assert [orders.by_order_id(f"o-{n}") for n in (0, 1, 3)] == [*made[:2], made[3]]
    assert made[2] not in orders.take_changes()


@pytest.mark.req("I-17")
def test_a_venue_cannot_make_us_remember_without_end(monkeypatch):
    monkeypatch.setattr("feedhandler.orders.EARLY_FILLS", 3)
    monkeypatch.setattr("feedhandler.orders.OPEN_ORDERS", 2)
    orders = Orders()
    for n in range(5):
        orders.filled(trade(f"t-{n}", 1, order_id="o-9"))
    for n in range(4):
        orders.updated(update("accepted", 1000, order_id=f"o-{n}", client_id=None))
    orders.updated(update("accepted", 1000, order_id="o" * 129))
    orders.filled(trade("t" * 129, 1))

    assert len(orders.open) == 2
    assert orders.discarded == 2 + 2 + 1 + 1


@pytest.mark.req("I-17")
def test_no_request_is_remembered_when_its_orders_have_ended():
    orders = Orders()
    for n in range(3):
        live(orders, f"c-{n}", f"o-{n}")
        orders.asked(orders.by_client_id(f"c-{n}"), CANCEL, f"r-{n}", 0)
        orders.answered(f"r-{n}", None)
        orders.updated(update("canceled", 1001, order_id=f"o-{n}", client_id=f"c-{n}"))
    orders.begin(MINUTE, MINUTE)

    assert orders._requests == {}

    submit(orders, "c-9")
    orders.disconnected()

    assert orders._requests == {}


def test_a_fill_of_nothing_is_none():
    orders = Orders()
    made = live(orders)

    assert not orders.filled(trade("t-1", 0))
    assert not orders.filled(trade("t-2", -5))
    assert made.filled == 0
    assert orders.discarded == 2


# ── what the caller does ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize("bad", [None, "", "a b", "x" * 65, "schön", "a\n"])
@pytest.mark.req("A-16")
def test_an_order_needs_an_id_of_ours(bad):
    with pytest.raises(ValueError, match="client_order_id"):
        Orders().submitted(data(bad), 0)


@pytest.mark.req("A-16")
def test_an_id_is_used_once():
    orders = Orders()
    submit(orders)
    orders.answered("submit-c-1", error("insufficient_funds"))

    with pytest.raises(ValueError, match="c-1 is in use"):
        orders.submitted(data(), 0)


def test_an_order_that_could_not_be_sent_is_rejected():
    orders = Orders()
    made = orders.submitted(data(), 0)
    orders.withdrawn(made)

    assert (made.status, made.reason) == (Status.REJECTED, "not sent")


def test_changes_are_told_once():
    orders = Orders()
    made = submit(orders)

    assert orders.take_changes() == [made]
    assert orders.take_changes() == []
    assert orders.updated(update("accepted", 1000))
    assert not orders.updated(update("accepted", 1000))
    assert orders.take_changes() == [made]


# ── the reference venue ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize("side", ["buy", "sell"])
@pytest.mark.parametrize("kind", ["market", "limit", "stop", "stop_limit"])
@pytest.mark.parametrize("tif", ["gtc", "ioc", "fok", "day"])
@pytest.mark.req("OR-12")
def test_every_side_type_and_time_in_force_passes_through(side, kind, tif):
    venue = Venue()
    venue.house("sell", 60, 151)
    venue.house("buy", 60, 149)
    venue.trade(150)
    asked = order(
        side, 100, {"limit": 151, "stop_limit": 151}.get(kind),
        stop={"stop": 150.5, "stop_limit": 150.5}.get(kind) if side == "buy" else
        {"stop": 149.5, "stop_limit": 149.5}.get(kind),
        tif=tif, client_order_id="c-1",
    )  # fmt: skip
    orders = Orders()
    made = orders.submitted(asked, 0)
    orders.asked(made, SUBMIT, "r-1", 0)
    answer = venue.desk.submit("ann", asked, "r-1", venue.now_ns)
    venue.collect(venue.exchange.take())
    orders.answered("r-1", OrderResponse(answer, venue.now_ns // 1_000_000))
    told = venue.on("user_orders", "ann")
    for message in venue.on("user_trades", "ann") + told[::-1]:
        (orders.updated if message in told else orders.filled)(message)

    last = told[-1]
    assert made.status.value == last.status.replace("accepted", "live")
    assert (made.side, made.type, made.time_in_force) == (side, kind, tif)
    assert (made.filled, made.remaining) == (
        last.filled_quantity, last.remaining_quantity,
    )  # fmt: skip
    assert (made.price, made.stop_price) == (asked.price, asked.stop_price)
    assert made.triggered is (False if "stop" in kind else None)

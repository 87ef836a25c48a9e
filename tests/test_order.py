"""One order: what it is after the venue has told this and that of it."""

import pytest

from feedhandler.order import Order, Status
from feedhandler.protocol.messages import (
    CancelOrderData,
    ModifyOrderData,
    OrderData,
    OrderUpdateData,
    UserTradeData,
)


def sent(quantity=1.0, price=150.0, **fields) -> Order:
    fields = {"type": "limit", **fields}
    data = OrderData(
        symbol="AAPL", side="buy", quantity=quantity, price=price, **fields
    )
    return Order(data, "c-1")


def told(at, filled=0.0, quantity=1.0, price=150.0, status="accepted", **fields):
    return OrderUpdateData(
        "o-1", "c-1", "AAPL", "buy", "limit", quantity, filled, quantity - filled,
        price, status, "gtc", 1000, at, **fields,
    )  # fmt: skip


def fill(trade_id, quantity, price=150.0):
    return UserTradeData(
        trade_id, "o-1", "AAPL", "buy", price, quantity, 0.0, "USD", 1000
    )


@pytest.mark.req("I-11")
def test_tenths_add_up():
    order = sent(0.3)
    order.fill(fill("t-1", 0.1))
    order.fill(fill("t-2", 0.1))

    assert (order.filled, order.remaining) == (0.2, 0.1)

    order.fill(fill("t-3", 0.1))

    assert (order.filled, order.remaining) == (0.3, 0)


def test_the_average_price_is_weighed_by_quantity():
    order = sent(3)

    assert order.average_price is None

    order.fill(fill("t-1", 1, 100))
    order.fill(fill("t-2", 2, 130))

    assert order.average_price == 120


def test_what_was_filled_is_what_knows_of_more_the_update_or_the_fills():
    order = sent(10)
    order.fill(fill("t-1", 3))
    order.merge(told(1001, filled=5, quantity=10), 1001)

    assert order.filled == 5

    order.fill(fill("t-2", 2))
    order.fill(fill("t-3", 1))

    assert order.filled == 6


@pytest.mark.req("I-11")
def test_no_more_than_the_quantity_is_filled_though_it_grew_unseen():
    order = sent(10)
    order.fill(fill("t-1", 15))

    assert (order.quantity, order.filled, order.remaining) == (15, 15, 0)

    order.merge(told(1002, filled=15, quantity=20), 1002)

    assert (order.quantity, order.filled, order.remaining) == (20, 15, 5)


def test_what_was_said_later_holds_whenever_it_comes():
    order = sent(10)
    order.merge(told(1002, quantity=8, price=151), 1002)
    order.merge(told(1001, quantity=9, price=149), 1001)

    assert (order.quantity, order.price, order.updated_ms) == (8, 151, 1002)


def test_of_two_things_said_in_one_millisecond_more_fills_are_later():
    order = sent(10)
    order.merge(told(1001, filled=4, quantity=8), 1001)
    order.merge(told(1001, filled=2, quantity=10), 1001)

    assert (order.quantity, order.filled) == (8, 4)


def test_of_two_things_that_were_said_at_once_the_last_to_come_is_later():
    order = sent(10)
    order.merge(told(1001, quantity=10), 1001)
    order.merge(told(1001, quantity=8), 1001)

    assert order.quantity == 8


def test_what_we_left_open_is_as_the_venue_told():
    order = sent(10)

    assert (order.time_in_force, order.created_ms) == (None, 0)

    order.merge(told(1001), 1001)

    assert order.time_in_force == "gtc"


def test_nothing_is_later_than_the_end():
    order = sent(10)
    order.merge(told(1001, filled=4, quantity=4, status="canceled"), 1001)
    order.merge(told(1001, filled=4, quantity=10), 1001)

    assert (order.quantity, order.remaining) == (4, 0)


def test_a_stop_that_has_triggered_remains_triggered():
    order = sent(type="stop_limit", stop_price=149.0)

    assert order.triggered is None

    order.merge(told(1002, triggered=True, stop_price=149.0), 1002)
    order.merge(told(1001, triggered=False, stop_price=149.0), 1001)

    assert order.triggered is True
    assert order.stop_price == 149


def test_a_stop_price_may_be_told_anew():
    order = sent(type="stop_limit", stop_price=149.0)
    order.merge(told(1001, stop_price=148.0), 1001)
    order.merge(told(1002), 1002)

    assert order.stop_price == 148


@pytest.mark.req("I-11")
def test_an_end_is_final():
    order = sent()
    order.end(Status.EXPIRED)
    order.end(Status.FILLED, "too late")

    assert (order.status, order.reason) == (Status.EXPIRED, None)
    assert order.is_terminal


def test_a_cancel_names_our_order_by_our_id_and_a_strangers_by_its_own():
    stranger = Order(told(1001), "order-1")
    stranger.order_id = "o-1"

    assert sent().cancellation() == CancelOrderData(client_order_id="c-1")
    assert stranger.cancellation() == CancelOrderData(order_id="o-1")


def test_a_guard_is_shown_what_a_modification_would_make_of_an_order():
    order = sent(10, type="stop_limit", stop_price=149.0)

    assert next(order.changed(ModifyOrderData(quantity=20))) == OrderData(
        "AAPL", "buy", "stop_limit", 20, 150.0, 149.0
    )
    (made,) = order.changed(ModifyOrderData(price=151.0, stop_price=148.0))
    assert made == OrderData("AAPL", "buy", "stop_limit", 10, 151.0, 148.0)


def test_it_shows_what_matters_of_it():
    assert repr(sent()) == "<Order c-1 None buy 1 AAPL pending filled=0>"

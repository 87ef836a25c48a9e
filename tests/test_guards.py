"""What our own limits let pass, and what they refuse."""

from math import inf, nan

import pytest

from feedhandler.errors import FeedError, GuardRefused
from feedhandler.guards import Guards, Top
from feedhandler.protocol.messages import OrderData

BOOK = Top(99.0, 101.0, True)
OLD = Top(99.0, 101.0, False)
EMPTY = Top(nan, nan, True)
ONLY_BIDS = Top(99.0, nan, True)
ONLY_ASKS = Top(nan, 101.0, True)


def order(side="buy", quantity=10.0, price=None, stop=None):
    kinds = {
        (False, False): "market", (True, False): "limit",
        (False, True): "stop", (True, True): "stop_limit",
    }  # fmt: skip
    return OrderData(
        "AAPL", side, kinds[price is not None, stop is not None], quantity, price, stop
    )


def refusal(guards, data, top=BOOK, unknown=0):
    """The rule that does not let an order pass, None if all do."""
    try:
        guards.check(data, top, unknown)
    except GuardRefused as refused:
        return refused.rule
    return None


@pytest.mark.req("SEC-27")
def test_a_guard_that_is_not_set_lets_everything_pass():
    guards = Guards()

    assert refusal(guards, order(quantity=1e12, price=1e9), None, 1000) is None
    assert refusal(guards, order(), OLD) is None


@pytest.mark.parametrize("quantity", [0.3, 0.1, 0.30000000000000004, 0.4])
@pytest.mark.req("SEC-27")
def test_no_order_is_larger_than_the_largest(quantity):
    guards = Guards(max_quantity=0.3)
    refused = "max_quantity" if quantity > 0.3 else None

    assert refusal(guards, order(quantity=quantity)) == refused


@pytest.mark.parametrize(
    ("data", "most"),
    [
        (order("buy", 3, 0.1), 0.3),  # 0.30000000000000004 in binary
        (order("buy", 10, 90), 900),
        (order("buy", 10), 1010),  # what is asked
        (order("buy", 10, stop=105), 1050),
        (order("buy", 10, 106, stop=105), 1060),
        (order("sell", 10, 105), 1050),
        (order("sell", 10, 1), 990),  # sold for what is bid
        (order("sell", 10), 990),
        (order("sell", 10, stop=95), 990),
    ],
)
@pytest.mark.req("SEC-27")
def test_no_order_is_worth_more_than_the_most(data, most):
    assert refusal(Guards(max_notional=most), data) is None
    assert refusal(Guards(max_notional=most - 0.001), data) == "max_notional"


@pytest.mark.parametrize(
    ("data", "top"),
    [
        (order("buy"), None),
        (order("sell"), EMPTY),
        (order("buy"), ONLY_BIDS),
        (order("sell"), ONLY_ASKS),
    ],
)
def test_what_nobody_knows_the_price_of_is_refused(data, top):
    assert refusal(Guards(max_notional=1e9), data, top) == "max_notional"


@pytest.mark.parametrize("top", [None, EMPTY])
def test_an_order_with_a_price_needs_no_book_to_be_reckoned(top):
    guards = Guards(max_notional=1000)

    assert refusal(guards, order("buy", 10, 100), top) is None
    assert refusal(guards, order("sell", 10, 100), top) is None
    assert refusal(guards, order("sell", 10, 101), top) == "max_notional"


@pytest.mark.parametrize(
    ("data", "passes"),
    [
        (order(price=90.0), True),
        (order(price=89.99), False),
        (order(price=110.0), True),
        (order(price=110.01), False),
        (order("sell", price=89.99), False),
        (order(price=100.0, stop=110.01), False),
        (order(stop=111.0), False),
        (order(price=111.0, stop=110.0), False),
        (order(stop=109.0), True),
        (order(), True),
    ],
)
@pytest.mark.parametrize("top", [BOOK, OLD])
@pytest.mark.req("SEC-27")
def test_a_price_is_within_the_collar(top, data, passes):
    rule = None if passes else "collar"

    assert refusal(Guards(collar=0.1), data, top) == rule


def test_a_collar_of_decimals_is_exact():
    guards = Guards(collar=0.1)
    top = Top(0.3, 0.3, True)

    assert refusal(guards, order(price=0.33), top) is None
    assert refusal(guards, order(price=0.27), top) is None
    assert refusal(guards, order(price=0.331), top) == "collar"


@pytest.mark.parametrize(
    ("top", "price", "rule"),
    [
        (ONLY_BIDS, 99.9, None),
        (ONLY_BIDS, 100.1, "collar"),
        (ONLY_ASKS, 101.9, None),
        (ONLY_ASKS, 99.9, "collar"),
        (EMPTY, 100.0, "collar"),
        (None, 100.0, "collar"),
    ],
)
@pytest.mark.req("SEC-27")
def test_the_collar_takes_what_the_book_has(top, price, rule):
    assert refusal(Guards(collar=0.01), order(price=price), top) == rule


@pytest.mark.parametrize(
    ("top", "rule"), [(BOOK, None), (OLD, "refuse_stale"), (None, "refuse_stale")]
)
@pytest.mark.req("SEC-26")
def test_nothing_is_sent_on_a_book_that_is_not_live(top, rule):
    assert refusal(Guards(refuse_stale=True), order(), top) == rule


@pytest.mark.parametrize(("unknown", "rule"), [(2, None), (3, "max_unknown")])
@pytest.mark.req("SEC-26")
def test_nothing_is_sent_while_too_many_orders_are_unknown(unknown, rule):
    assert refusal(Guards(max_unknown=2), order(), BOOK, unknown) == rule


@pytest.mark.req("SEC-26")
def test_the_kill_switch_refuses_everything_until_it_is_off():
    guards = Guards()
    guards.killed = True

    assert refusal(guards, order()) == "killed"

    guards.killed = False

    assert refusal(guards, order()) is None


@pytest.mark.parametrize("bad", [nan, inf, -inf])
@pytest.mark.parametrize("field", ["quantity", "price", "stop"])
def test_what_is_no_number_is_refused_without_any_limit(field, bad):
    assert refusal(Guards(), order(**{field: bad})) == "finite"


def test_a_refusal_has_its_numbers():
    with pytest.raises(GuardRefused) as refused:
        Guards(max_quantity=5).check(order(quantity=10), BOOK, 0)

    assert str(refused.value) == "max_quantity: too large: 10 > 5"
    assert (refused.value.value, refused.value.limit) == (10, 5)
    assert isinstance(refused.value, FeedError)

    with pytest.raises(
        GuardRefused, match=r"^collar: 120 is too far from 100: 0.2 > 0"
    ):
        Guards(collar=0.1).check(order(price=120), BOOK, 0)


@pytest.mark.parametrize(
    "limits",
    [
        {"max_quantity": -1},
        {"max_notional": nan},
        {"collar": inf},
        {"max_unknown": -1},
    ],
)
def test_a_limit_that_is_none_is_refused(limits):
    with pytest.raises(ValueError, match=next(iter(limits))):
        Guards(**limits)


@pytest.mark.req("SEC-27")
@pytest.mark.parametrize("kind", ["market", "stop"])
def test_a_price_that_binds_nobody_does_not_make_an_order_cheap(kind):
    guards = Guards(max_notional=1000)
    data = OrderData("AAPL", "buy", kind, 1000, 1.0)

    with pytest.raises(GuardRefused, match="worth"):
        guards.check(data, Top(99.0, 101.0, True), 0)

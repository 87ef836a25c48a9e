"""Orders of accounts at the desk, in virtual time."""

import msgspec
import pytest

from feedhandler.protocol.messages import OrderData
from feedhandler.venue.config import PositionConfig
from tests.trading import (
    DAY,
    HOUR,
    MINUTE,
    MS,
    OWN_KINDS,
    SECOND,
    START,
    Venue,
    account,
    code_of,
    refused,
)

NOW_MS = START // MS
builtins = msgspec.to_builtins
FEE = 0.00002


@pytest.fixture
def venue():
    """A market of 100 at 149.90 and 100 at 150.10, last traded at 150.00."""
    made = Venue()
    made.trade(150.00)
    made.house("buy", 100, 149.90)
    made.house("sell", 100, 150.10)
    return made


def quantities(update):
    return update.quantity, update.filled_quantity, update.remaining_quantity


# ── answers ───────────────────────────────────────────────────────────────────────────


@pytest.mark.req("OR-02", "OR-03", "A-15")
def test_an_accepted_order_is_answered_as_the_reference_shows():
    venue = Venue()

    answer = venue.submit("ann", "buy", 100, 150.00, tif="gtc", id="order-1")

    assert builtins(answer) == {
        "status": "accepted",
        "order_id": "o-1",
        "client_id": "order-1",
        "symbol": "AAPL",
        "side": "buy",
        "type": "limit",
        "quantity": 100,
        "price": 150.00,
        "time_in_force": "gtc",
    }


@pytest.mark.req("UO-01", "UO-02", "UO-05")
def test_an_order_update_is_as_the_reference_shows(venue):
    venue.submit("ann", "buy", 100, 150.00, id="order-1")
    venue.wait(30 * SECOND)
    venue.house("sell", 50, 150.00)

    assert builtins(venue.on("user_orders", "ann")[-1]) == {
        "order_id": "o-1",
        "client_id": "order-1",
        "symbol": "AAPL",
        "side": "buy",
        "type": "limit",
        "quantity": 100,
        "filled_quantity": 50,
        "remaining_quantity": 50,
        "price": 150.00,
        "status": "partially_filled",
        "time_in_force": "gtc",
        "created_at": NOW_MS,
        "updated_at": NOW_MS + 30_000,
    }


@pytest.mark.req("UT-01", "UT-02", "UT-04")
def test_a_user_trade_has_the_fee_of_the_reference(venue):
    venue.submit("ann", "buy", 100, 150.00)
    venue.wait(30 * SECOND)
    venue.house("sell", 50, 150.00)

    (trade,) = venue.on("user_trades", "ann")
    assert builtins(trade) == {
        "trade_id": "t-2",
        "order_id": "o-1",
        "symbol": "AAPL",
        "side": "buy",
        "price": 150.00,
        "quantity": 50,
        "fee": 0.15,
        "fee_currency": "USD",
        "trade_time": NOW_MS + 30_000,
    }


@pytest.mark.req("UT-04", "A-48")
@pytest.mark.parametrize(("side", "rate"), [("buy", 0.0001), ("sell", 0.0001)])
def test_a_taker_and_a_maker_pay_the_rates_of_the_symbol(side, rate):
    symbols = [
        {
            "name": "AAPL",
            "previous_close": 150,
            "maker_fee": "0.0001",
            "taker_fee": "0.002",
        }
    ]
    plain = {"balances": {"USD": 100_000}}
    venue = Venue(account("ann", **plain), account("bob", **plain), symbols=symbols)
    venue.submit("ann", side, 10, 150.00)
    venue.submit("bob", "sell" if side == "buy" else "buy", 10, 150.00)

    (made,), (took,) = (venue.on("user_trades", who) for who in ("ann", "bob"))
    assert made.fee == pytest.approx(1500 * rate)
    assert took.fee == pytest.approx(1500 * 0.002)
    assert venue.ledger.conserved() == []


@pytest.mark.req("A-18")
def test_a_cancel_and_a_change_are_answered_with_what_traded_and_what_is_left(venue):
    venue.submit("ann", "buy", 100, 150.00, client_order_id="mine")
    venue.house("sell", 30, 150.00)

    modified = venue.modify("ann", "o-1", quantity=80)
    canceled = venue.cancel("ann", "o-1")

    common = {
        "order_id": "o-1",
        "client_id": "mine",
        "client_order_id": "mine",
        "symbol": "AAPL",
        "side": "buy",
        "type": "limit",
        "quantity": 80,
        "price": 150.00,
        "time_in_force": "gtc",
        "filled_quantity": 30,
        "remaining_quantity": 50,
    }
    assert builtins(modified) == {"status": "modified", **common}
    assert builtins(canceled) == {"status": "canceled", **common}


@pytest.mark.req("A-42", "A-17")
def test_what_a_submit_leaves_out_is_gtc_and_a_stop_tells_its_price_and_state(venue):
    stop = venue.submit("ann", "buy", 10, stop=151.00)
    limit = venue.submit("ann", "sell", 10, 152.00)

    assert (limit.time_in_force, stop.time_in_force) == ("gtc", "gtc")
    assert (stop.price, stop.stop_price, stop.triggered) == (None, 151.00, False)
    assert limit.stop_price is limit.triggered is msgspec.UNSET
    assert venue.statuses("o-1") == ["accepted"]


@pytest.mark.req("OV-03", "OR-13", "OR-15")
def test_an_order_is_submitted_changed_and_canceled(venue):
    venue.submit("ann", "buy", 100, 149.00)
    venue.modify("ann", "o-1", price=149.50)
    venue.cancel("ann", "o-1")

    updates = venue.on("user_orders", "ann")
    assert [(u.price, u.status) for u in updates] == [
        (149.00, "accepted"),
        (149.50, "accepted"),
        (149.50, "canceled"),
    ]
    assert venue.book() == ([(149.90, 100)], [(150.10, 100)])


# ── every kind of order, side and time in force ───────────────────────────────────────

KINDS = [
    pytest.param("market", marks=pytest.mark.req("OR-04")),
    pytest.param("limit", marks=pytest.mark.req("OR-05")),
    pytest.param("stop", marks=pytest.mark.req("OR-06")),
    pytest.param("stop_limit", marks=pytest.mark.req("OR-07")),
]
TIMES_IN_FORCE = [
    pytest.param("gtc"),
    pytest.param("ioc", marks=pytest.mark.req("OR-09")),
    pytest.param("fok", marks=pytest.mark.req("OR-10")),
    pytest.param("day"),
]
# The price one level deep on the other side, and a stop on the way there.
LIMITS = {"buy": 150.10, "sell": 149.90}
STOPS = {"buy": 150.05, "sell": 149.95}


def outcome(kind, tif):
    """Status, filled and resting lots of 150 where 100 can be had."""
    if kind in ("market", "stop") or tif == "ioc":
        return "canceled", 100, 0
    if tif == "fok":
        return "canceled", 0, 0
    return "partially_filled", 100, 50


@pytest.mark.req("OR-12")
@pytest.mark.parametrize("tif", TIMES_IN_FORCE)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["buy", "sell"])
def test_an_order_of_each_kind_trades_rests_and_ends_as_it_should(
    venue, side, kind, tif
):
    price = LIMITS[side] if "limit" in kind else None
    stop = STOPS[side] if "stop" in kind else None
    venue.submit("ann", side, 150, price, stop=stop, tif=tif)
    if stop is not None:
        assert venue.statuses("o-1") == ["accepted"]
        assert venue.book() == ([(149.90, 100)], [(150.10, 100)])
        venue.trade(stop)

    status, filled, resting = outcome(kind, tif)
    update = venue.orders("ann")["o-1"]
    assert (update.status, update.time_in_force) == (status, tif)
    assert quantities(update) == (150, filled, 150 - filled)
    assert update.triggered is (msgspec.UNSET if stop is None else True)
    taken, untouched = venue.book()[:: -1 if side == "buy" else 1]
    rests = {(LIMITS[side], resting)} if resting else set()
    assert set(untouched) - {(LIMITS["sell" if side == "buy" else "buy"], 100)} == rests
    assert taken == ([] if filled else [(LIMITS[side], 100)])
    assert {t.price for t in venue.on("user_trades", "ann")} <= {LIMITS[side]}


@pytest.mark.req("OR-04", "A-42")
def test_a_market_order_takes_the_best_prices_first(venue):
    venue.house("sell", 100, 150.20)

    venue.submit("ann", "buy", 150)

    trades = venue.on("user_trades", "ann")
    assert [(t.price, t.quantity) for t in trades] == [(150.10, 100), (150.20, 50)]
    assert venue.statuses("o-1") == ["accepted", "partially_filled", "filled"]


@pytest.mark.req("OR-19", "OR-05")
def test_the_better_price_trades_first_and_then_the_older_order(venue):
    for who, price in (("ann", 150.00), ("bob", 150.00), ("bob", 150.05)):
        venue.submit(who, "buy", 10, price)

    venue.house("sell", 25, 150.00)

    orders = venue.orders("ann") | venue.orders("bob")
    filled = {order_id: orders[order_id].filled_quantity for order_id in orders}
    assert filled == {"o-3": 10, "o-1": 10, "o-2": 5}


# ── what is refused ───────────────────────────────────────────────────────────────────


@pytest.mark.req("ER-07", "A-22")
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("buy", 1000, 150.00), "available 100000 USD, needed 150003"),
        (("sell", 1001, 150.00), "available 1000 AAPL, needed 1001"),
        (("buy", 667), "available 100000 USD, needed 100118.702334"),
        (("sell", 1001), "available 1000 AAPL, needed 1001"),
    ],
)
def test_an_order_that_cannot_be_paid_is_refused_with_the_amounts(asked, message):
    venue = Venue()
    venue.house("sell", 1000, 150.1)
    venue.house("buy", 1000, 149.9)
    before = venue.balance("ann"), venue.book()

    refusal = refused(venue.submit, "ann", *asked)

    assert refusal.code == "insufficient_funds"
    assert refusal.message == f"Insufficient funds: {message}"
    assert (venue.balance("ann"), venue.book()) == before
    assert venue.on("user_orders", "ann") == []


@pytest.mark.req("ER-07", "A-22")
def test_what_open_orders_hold_is_not_available(venue):
    venue.submit("ann", "buy", 600, 100.00)
    venue.submit("ann", "sell", 900, 200.00)

    assert code_of(venue.submit, "ann", "buy", 600, 100.00) == "insufficient_funds"
    assert code_of(venue.submit, "ann", "sell", 101, 200.00) == "insufficient_funds"
    venue.cancel("ann", "o-1")
    venue.cancel("ann", "o-2")
    assert venue.submit("ann", "buy", 600, 100.00).status == "accepted"
    assert venue.submit("ann", "sell", 1000, 200.00).status == "accepted"


@pytest.mark.req("ER-07", "A-20")
def test_a_change_that_cannot_be_paid_changes_nothing(venue):
    venue.submit("ann", "buy", 600, 100.00)

    refusal = refused(venue.modify, "ann", "o-1", quantity=1000)

    assert refusal.code == "insufficient_funds"
    assert "available 39998.8 USD, needed 40000.8" in refusal.message
    assert venue.cancel("ann", "o-1").quantity == 600
    assert venue.balance("ann") == (100_000, 0, 100_000)


@pytest.mark.req("A-22")
@pytest.mark.parametrize("side", ["buy", "sell"])
def test_a_market_order_without_any_liquidity_is_refused(side):
    refusal = refused(Venue().submit, "ann", side, 1)

    assert refusal.code == "invalid_parameter"
    assert refusal.message == "Invalid parameter: no liquidity for a market order"


@pytest.mark.req("A-22")
def test_a_market_order_is_canceled_where_the_liquidity_ends(venue):
    venue.submit("ann", "buy", 150)

    assert quantities(venue.orders("ann")["o-1"]) == (150, 100, 50)
    assert venue.statuses("o-1") == ["accepted", "partially_filled", "canceled"]
    assert venue.balance("ann")[1] == 0


@pytest.mark.req("A-21", "ER-04")
@pytest.mark.parametrize(
    ("side", "stop", "taken"),
    [("buy", 150.00, False), ("buy", 149.99, False), ("buy", 150.01, True),
     ("sell", 150.00, False), ("sell", 150.01, False), ("sell", 149.99, True)],
)  # fmt: skip
def test_a_stop_that_was_reached_already_is_refused(venue, side, stop, taken):
    if taken:
        assert venue.submit("ann", side, 1, stop=stop).status == "accepted"
        return

    refusal = refused(venue.submit, "ann", side, 1, stop=stop)

    assert refusal.code == "invalid_parameter"
    assert refusal.message == "Invalid parameter: stop_price has been reached already"
    assert venue.on("user_orders", "ann") == []


NOT_FOUND = {
    "unknown": lambda venue: "o-999",
    "foreign": lambda venue: venue.submit("bob", "buy", 1, 1.00).order_id,
    "filled": lambda venue: venue.submit("ann", "buy", 1).order_id,
    "canceled": lambda venue: (
        venue.cancel("ann", venue.submit("ann", "buy", 1, 1.00).order_id).order_id
    ),
    "killed": lambda venue: venue.submit("ann", "buy", 1, 1.00, tif="ioc").order_id,
}


@pytest.mark.req("ER-08", "OR-13")
@pytest.mark.parametrize("case", NOT_FOUND)
def test_an_order_that_is_not_an_open_one_of_the_account_is_not_found(venue, case):
    order_id = NOT_FOUND[case](venue)
    told = len(venue.told)

    for request in (
        refused(venue.cancel, "ann", order_id),
        refused(venue.modify, "ann", order_id, quantity=1),
        refused(venue.modify, "ann", order_id, price=2.00),
    ):
        assert request.code == "order_not_found"
        assert request.message == "The order was not found"
    assert len(venue.told) == told


@pytest.mark.req("ER-08", "OR-14", "UO-06")
def test_a_client_order_id_names_an_order_of_its_own_account_only(venue):
    venue.submit("bob", "buy", 1, 1.00, client_order_id="mine")

    assert code_of(venue.cancel, "ann", client_order_id="mine") == "order_not_found"
    venue.submit("ann", "buy", 2, 1.00, client_order_id="mine")
    assert venue.cancel("ann", client_order_id="mine").order_id == "o-2"
    assert code_of(venue.cancel, "ann", client_order_id="mine") == "order_not_found"
    assert venue.cancel("bob", client_order_id="mine").order_id == "o-1"


ENDINGS = {
    "live": lambda venue: None,
    "canceled": lambda venue: venue.cancel("ann", client_order_id="x"),
    "filled": lambda venue: venue.house("sell", 1, 150.00),
    "modified away": lambda venue: venue.modify("ann", client_order_id="x", quantity=9),
}


@pytest.mark.req("ER-09", "A-16")
@pytest.mark.parametrize("case", ENDINGS)
def test_a_client_order_id_is_taken_by_live_and_by_ended_orders(venue, case):
    venue.submit("ann", "buy", 1, 150.00, client_order_id="x")
    ENDINGS[case](venue)
    for _ in range(25):
        venue.wait(HOUR)
        refusal = refused(venue.submit, "ann", "buy", 1, 1.00, client_order_id="x")
        assert refusal.code == "duplicate_client_order_id"
    assert refusal.message == "Client order ID x is already in use"
    assert venue.submit("bob", "buy", 1, 1.00, client_order_id="x").status == "accepted"
    assert venue.submit("ann", "buy", 1, 1.00, client_order_id="X").status == "accepted"


@pytest.mark.req("A-16")
def test_a_client_order_id_is_free_again_in_the_session_after_next(venue):
    venue.submit("ann", "buy", 1, 1.00, client_order_id="x")
    venue.wait(5 * DAY)
    assert (
        code_of(venue.submit, "ann", "buy", 1, 1.00, client_order_id="x")
        == "duplicate_client_order_id"
    )
    venue.cancel("ann", "o-1")

    venue.wait(2 * DAY)

    assert venue.submit("ann", "buy", 1, 1.00, client_order_id="x").order_id == "o-2"


@pytest.mark.req("A-16", "ER-09")
def test_an_id_whose_order_was_refused_is_not_taken(venue):
    assert (
        code_of(venue.submit, "ann", "buy", 10_000, 150.00, client_order_id="x")
        == "insufficient_funds"
    )

    assert venue.submit("ann", "buy", 1, 1.00, client_order_id="x").order_id == "o-1"


@pytest.mark.req("A-16")
@pytest.mark.parametrize(
    ("text", "fine"),
    [("x" * 64, True), ("!~", True), ("x" * 65, False), ("", False), ("a b", False),
     ("a\n", False), ("é", False), ("a\x7f", False)],
)  # fmt: skip
def test_a_client_order_id_is_printable_ascii_without_spaces(venue, text, fine):
    if fine:
        answer = venue.submit("ann", "buy", 1, 1.00, client_order_id=text)
        assert answer.client_id == text
    else:
        code = code_of(venue.submit, "ann", "buy", 1, 1.00, client_order_id=text)
        assert code == "invalid_parameter"


@pytest.mark.req("ER-10", "A-24")
def test_a_halted_market_takes_cancels_and_nothing_else(venue):
    venue.submit("ann", "buy", 10, 149.00)
    venue.submit("ann", "buy", 10, 149.00)
    venue.halt()

    for refusal in (
        refused(venue.submit, "ann", "buy", 1, 149.00),
        refused(venue.submit, "ann", "sell", 1),
        refused(venue.modify, "ann", "o-1", quantity=5),
    ):
        assert refusal.code == "market_closed"
        assert refusal.message == "The market for AAPL is currently closed"
    assert venue.submit("ann", "buy", 1, 1.00, symbol="BTC-USD").status == "accepted"
    assert venue.cancel("ann", "o-1").status == "canceled"
    venue.resume()
    assert venue.modify("ann", "o-2", quantity=5).status == "modified"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"symbol": "NOPE"}, "symbol is not listed"),
        ({"price": 0}, "price must be greater than 0"),
        ({"price": -1}, "price must be greater than 0"),
        ({"price": 150.005}, "price must be a multiple of the tick size 0.01"),
        ({"price": 1e-320}, "price must be a multiple of the tick size 0.01"),
        ({"price": 1e308}, "price is too large"),
        ({"price": None}, "price is required for a limit order"),
        ({"quantity": 0}, "quantity must be greater than 0"),
        ({"quantity": -5}, "quantity must be greater than 0"),
        ({"quantity": 0.5}, "quantity must be a multiple of the lot size 1"),
        ({"quantity": 2**53 + 1}, "quantity is too large"),
        ({"quantity": float("inf")}, "quantity is too large"),
        ({"quantity": float("nan")}, "quantity must be greater than 0"),
        ({"stop_price": 151.0}, "stop_price is not allowed for a limit order"),
        ({"type": "market"}, "price is not allowed for a market order"),
        ({"type": "stop", "price": None}, "stop_price is required for a stop order"),
        (
            {"type": "stop", "stop_price": 151.0},
            "price is not allowed for a stop order",
        ),
        ({"type": "stop_limit"}, "stop_price is required for a stop_limit order"),
        (
            {"type": "stop_limit", "price": None, "stop_price": 151.0},
            "price is required for a stop_limit order",
        ),
    ],
)
@pytest.mark.req("ER-04", "OR-01", "F-100")
def test_an_order_that_means_nothing_is_refused_by_the_name_of_its_field(
    venue, fields, message
):
    plain = {
        "symbol": "AAPL",
        "side": "buy",
        "type": "limit",
        "quantity": 1,
        "price": 1,
    }
    data = OrderData(**{**plain, **fields})

    refusal = refused(venue.desk.submit, "ann", data, None, START)

    assert refusal.code == "invalid_parameter"
    assert refusal.message == f"Invalid parameter: {message}"
    assert venue.ledger.conserved() == []
    assert venue.balance("ann") == (100_000, 0, 100_000)


@pytest.mark.req("A-28")
def test_a_price_that_only_binary_fractions_keep_off_its_tick_is_taken(venue):
    answer = venue.submit("ann", "sell", 1, 0.1 + 0.2 + 1000)

    assert answer.price == 1000.3


# ── the client's names for orders ─────────────────────────────────────────────────────


@pytest.mark.req("A-15")
@pytest.mark.parametrize(
    ("given", "request_id", "client_id"),
    [("mine", "r-1", "mine"), (None, "r-1", "r-1"), (None, None, None)],
)
def test_the_client_id_is_the_clients_order_id_else_that_of_the_request(
    venue, given, request_id, client_id
):
    answer = venue.submit("ann", "buy", 1, 1.00, client_order_id=given, id=request_id)

    update = venue.on("user_orders", "ann")[-1]
    assert answer.client_id == update.client_id == client_id
    assert answer.client_order_id == update.client_order_id
    assert answer.client_order_id == (msgspec.UNSET if given is None else given)


@pytest.mark.req("A-15", "OR-14", "A-16")
def test_an_order_can_be_canceled_by_the_id_of_its_request(venue):
    venue.submit("ann", "buy", 1, 1.00, id="r-1")
    venue.submit("ann", "buy", 2, 1.00, id="r-1")

    assert venue.cancel("ann", client_order_id="r-1").order_id == "o-2"


@pytest.mark.req("A-15", "OR-14")
@pytest.mark.parametrize("ended", [False, True])
def test_a_client_order_id_is_not_taken_over_by_the_id_of_a_request(venue, ended):
    venue.submit("ann", "buy", 1, 1.00, client_order_id="x")
    if ended:
        venue.cancel("ann", "o-1")
    venue.submit("ann", "buy", 2, 1.00, id="x")

    if ended:
        assert code_of(venue.cancel, "ann", client_order_id="x") == "order_not_found"
    else:
        assert venue.cancel("ann", client_order_id="x").order_id == "o-1"
    assert venue.cancel("ann", "o-2").status == "canceled"


# ── changes ───────────────────────────────────────────────────────────────────────────


@pytest.mark.req("A-20", "OR-15", "OR-19")
@pytest.mark.parametrize(
    ("change", "keeps"),
    [
        ({"quantity": 5}, True),
        ({"quantity": 10}, True),
        ({"price": 150.00}, True),
        ({"quantity": 5, "price": 150.00}, True),
        ({"quantity": 11}, False),
        ({"quantity": 5, "price": 150.01}, False),
    ],
)
def test_only_a_smaller_order_at_its_price_keeps_its_place(venue, change, keeps):
    venue.submit("ann", "buy", 10, 150.00)
    venue.submit("bob", "buy", 10, 150.00)

    venue.modify("ann", "o-1", **change)
    venue.modify("ann", "o-1", price=150.00)
    venue.house("sell", 1, 150.00)

    assert len(venue.on("user_trades", "ann" if keeps else "bob")) == 1


@pytest.mark.req("A-20", "OR-15")
def test_the_quantity_of_a_change_is_the_new_total(venue):
    venue.submit("ann", "buy", 100, 150.00)
    venue.house("sell", 40, 150.00)

    grown = venue.modify("ann", "o-1", quantity=120)
    shrunk = venue.modify("ann", "o-1", quantity=50)

    assert (grown.filled_quantity, grown.remaining_quantity) == (40, 80)
    assert (shrunk.filled_quantity, shrunk.remaining_quantity) == (40, 10)
    assert venue.book()[0][0] == (150.00, 10)
    assert venue.orders("ann")["o-1"].status == "partially_filled"


@pytest.mark.req("A-20", "F-68")
@pytest.mark.parametrize("quantity", [40, 39, 1])
def test_a_total_that_has_traded_already_cancels_the_rest(venue, quantity):
    venue.submit("ann", "buy", 100, 150.00)
    venue.house("sell", 40, 150.00)

    answer = venue.modify("ann", "o-1", quantity=quantity)

    assert answer.status == "modified"
    update = venue.orders("ann")["o-1"]
    assert (update.status, *quantities(update)) == ("canceled", 40, 40, 0)
    assert venue.balance("ann")[1] == 0
    assert code_of(venue.cancel, "ann", "o-1") == "order_not_found"


@pytest.mark.req("A-20", "A-41")
def test_a_changed_price_may_trade_at_once(venue):
    venue.submit("ann", "buy", 150, 150.00)

    answer = venue.modify("ann", "o-1", price=150.10)

    assert (answer.status, answer.filled_quantity) == ("modified", 0)
    assert venue.statuses("o-1") == ["accepted", "accepted", "partially_filled"]
    assert venue.book() == ([(150.10, 50), (149.90, 100)], [])


@pytest.mark.req("A-20", "OR-14")
def test_an_order_is_changed_by_its_client_order_id_and_keeps_its_id(venue):
    venue.submit("ann", "buy", 10, 149.00, client_order_id="x")

    answer = venue.modify("ann", client_order_id="x", price=149.10)

    assert (answer.order_id, answer.price, answer.client_id) == ("o-1", 149.10, "x")


@pytest.mark.req("A-20", "A-21")
def test_a_stop_price_may_change_until_it_triggers(venue):
    venue.submit("ann", "buy", 10, 150.50, stop=150.05, tif="gtc")

    assert venue.modify("ann", "o-1", stop_price=150.20).stop_price == 150.20
    assert venue.modify("ann", "o-1", price=150.02).price == 150.02
    refusal = refused(venue.modify, "ann", "o-1", stop_price=150.00)
    assert refusal.message == "Invalid parameter: stop_price has been reached already"
    venue.trade(150.05)
    assert venue.orders("ann")["o-1"].triggered is False
    venue.house("buy", 100, 150.10)
    venue.trade(150.20)
    assert venue.orders("ann")["o-1"].triggered is True
    refusal = refused(venue.modify, "ann", "o-1", stop_price=151.00)
    assert "only for a stop that has not triggered" in refusal.message


@pytest.mark.parametrize(
    ("asked", "change", "message"),
    [
        ({"price": 149.00}, {}, "one of quantity, price and stop_price is required"),
        ({"price": 149.00}, {"stop_price": 151.00}, "stop_price is only for a stop"),
        ({"stop": 151.00}, {"price": 151.00}, "price is not allowed for a stop order"),
        ({"price": 149.00}, {"quantity": 0}, "quantity must be greater than 0"),
        ({"price": 149.00}, {"quantity": 1.5}, "quantity must be a multiple"),
        ({"price": 149.00}, {"price": 1.001}, "price must be a multiple"),
    ],
)
@pytest.mark.req("A-20", "ER-04")
def test_a_change_that_means_nothing_is_refused(venue, asked, change, message):
    venue.submit("ann", "buy", 10, **asked)
    told = len(venue.told)

    refusal = refused(venue.modify, "ann", "o-1", **change)

    assert refusal.code == "invalid_parameter"
    assert refusal.message.startswith(f"Invalid parameter: {message}")
    assert len(venue.told) == told


@pytest.mark.req("OR-13", "A-20")
@pytest.mark.parametrize("ids", [{}, {"order_id": "o-1", "client_order_id": "x"}])
def test_a_request_names_its_order_by_one_id(venue, ids):
    venue.submit("ann", "buy", 10, 149.00, client_order_id="x")

    for refusal in (
        refused(venue.cancel, "ann", **ids),
        refused(venue.modify, "ann", quantity=1, **ids),
    ):
        assert refusal.code == "invalid_parameter"
        assert "one of order_id and client_order_id is required" in refusal.message
    assert venue.statuses("o-1") == ["accepted"]


# ── stops ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.req("OR-06", "A-21")
def test_a_trade_of_the_house_triggers_the_stops_that_it_reaches(venue):
    venue.submit("ann", "buy", 10, stop=150.05)
    venue.submit("bob", "sell", 10, stop=149.95)
    venue.submit("ann", "buy", 10, stop=150.06)

    venue.trade(150.05)

    states = [
        (u.order_id, u.status, u.triggered) for u in venue.on("user_orders", "ann")
    ]
    assert states == [
        ("o-1", "accepted", False),
        ("o-3", "accepted", False),
        ("o-1", "accepted", True),
        ("o-1", "filled", True),
        # The fill of the first, at 150.10, is a last price too.
        ("o-3", "accepted", True),
        ("o-3", "filled", True),
    ]
    assert venue.orders("bob")["o-2"].triggered is False


@pytest.mark.req("OR-07", "A-21")
def test_a_stop_limit_rests_at_its_limit_when_it_was_triggered(venue):
    venue.submit("ann", "sell", 10, 149.92, stop=149.95)

    venue.trade(149.95)

    assert venue.book()[1][0] == (149.92, 10)
    assert venue.statuses("o-1") == ["accepted", "accepted"]
    assert venue.modify("ann", "o-1", quantity=5).remaining_quantity == 5
    assert venue.cancel("ann", "o-1").triggered is True


@pytest.mark.req("A-21", "A-17", "ER-07")
def test_a_stop_that_can_no_longer_be_paid_when_triggered_is_rejected(venue):
    venue.house("sell", 700, 160.00)
    venue.house("buy", 100, 150.10)
    venue.submit("ann", "buy", 660, stop=150.50)
    assert venue.balance("ann")[1] == pytest.approx(660 * 150.50 * (1 + FEE))

    venue.trade(150.50)

    assert venue.statuses("o-1") == ["accepted", "rejected"]
    update = venue.orders("ann")["o-1"]
    assert (quantities(update), update.triggered) == ((660, 0, 660), True)
    assert venue.balance("ann") == (100_000, 0, 100_000)
    assert venue.on("user_trades", "ann") == []
    assert venue.ledger.conserved() == []


@pytest.mark.req("A-21", "A-22")
def test_a_triggered_stop_that_costs_more_than_its_stop_price_is_paid_if_it_can(venue):
    venue.house("sell", 600, 160.00)
    venue.house("buy", 100, 150.10)
    venue.submit("ann", "buy", 600, stop=150.50)

    venue.trade(150.50)

    update = venue.orders("ann")["o-1"]
    assert (update.status, update.filled_quantity) == ("filled", 600)
    spent = 600 * 160.00 * (1 + FEE)
    assert venue.balance("ann") == pytest.approx((100_000 - spent, 0, 100_000 - spent))


@pytest.mark.req("A-21")
def test_stops_can_be_canceled_and_hold_funds_until_then(venue):
    venue.submit("ann", "buy", 100, stop=151.00)
    venue.submit("ann", "sell", 1000, stop=149.00)
    assert code_of(venue.submit, "ann", "sell", 1, 150.00) == "insufficient_funds"

    venue.cancel("ann", "o-1")
    venue.cancel("ann", "o-2")
    venue.trade(151.00)

    assert venue.balance("ann") == (100_000, 0, 100_000)
    assert venue.statuses("o-1") == ["accepted", "canceled"]
    assert venue.on("user_trades", "ann") == []


@pytest.mark.req("A-22")
@pytest.mark.parametrize(
    ("rule", "statuses", "trades"),
    [
        ("allow", ["accepted", "filled"], 2),
        ("cancel_newest", ["accepted", "canceled"], 0),
    ],
)
def test_an_account_trades_with_itself_unless_the_venue_prevents_it(
    rule, statuses, trades
):
    venue = Venue(self_trade=rule)
    venue.submit("ann", "sell", 10, 150.00)

    venue.submit("ann", "buy", 10, 150.00)

    assert venue.statuses("o-2") == statuses
    assert len(venue.on("user_trades", "ann")) == trades
    assert venue.ledger.conserved() == []


# ── money ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.req("OR-20", "A-22", "AC-03")
def test_what_is_reserved_is_what_the_open_buys_may_still_cost(venue):
    def reserved():
        available, held, total = venue.balance("ann")
        assert available + held == pytest.approx(total)
        return held

    def cost(*orders):
        return pytest.approx(sum(left * price * (1 + FEE) for left, price in orders))

    venue.submit("ann", "buy", 100, 150.00)
    assert reserved() == cost((100, 150.00))
    venue.submit("ann", "buy", 50, 149.00)
    assert reserved() == cost((100, 150.00), (50, 149.00))
    venue.house("sell", 40, 150.00)
    assert reserved() == cost((60, 150.00), (50, 149.00))
    venue.modify("ann", "o-2", price=149.50, quantity=80)
    assert reserved() == cost((60, 150.00), (80, 149.50))
    venue.submit("ann", "buy", 10, stop=151.00)
    assert reserved() == cost((60, 150.00), (80, 149.50), (10, 151.00))
    venue.submit("ann", "buy", 10, 150.20, stop=151.00)
    assert reserved() == cost((60, 150.00), (80, 149.50), (10, 151.00), (10, 150.20))
    venue.submit("ann", "buy", 10)
    venue.submit("ann", "buy", 100, 150.10, tif="fok")
    venue.submit("ann", "sell", 10, 151.00)
    assert reserved() == cost((60, 150.00), (80, 149.50), (10, 151.00), (10, 150.20))
    for open_order in ("o-1", "o-2", "o-3", "o-4"):
        venue.cancel("ann", open_order)
    assert reserved() == 0


@pytest.mark.req("A-22", "AC-03")
def test_a_pair_is_sold_from_the_balance_of_its_base_currency():
    venue = Venue()
    venue.submit("ann", "sell", 1.5, 61_000, symbol="BTC-USD")

    assert venue.balance("ann", "BTC") == (0.5, 1.5, 2)
    code = code_of(venue.submit, "ann", "sell", 0.5001, 61_000, symbol="BTC-USD")
    assert code == "insufficient_funds"
    venue.house("buy", 10_000, 61_000, symbol="BTC-USD")
    assert venue.balance("ann", "BTC") == (0.5, 0.5, 1)
    assert venue.balance("ann")[2] == pytest.approx(100_000 + 61_000 * (1 - FEE))
    assert venue.ledger.conserved() == []


@pytest.mark.req("AC-01", "AC-02", "AC-04")
def test_an_account_update_is_as_the_reference_shows():
    who = account(
        "acc-12345",
        balances={"USD": 25_000, "BTC": "1.5"},
        positions={"AAPL": PositionConfig(quantity=150, average_price="149.75")},
    )
    venue = Venue(who, account("ann"))
    venue.trade(150.25)

    venue.submit("acc-12345", "buy", 100, 149.00)

    assert builtins(venue.on("account_updates", "acc-12345")[-1]) == {
        "account_id": "acc-12345",
        "balances": [
            {
                "currency": "USD",
                "available": 10_099.702,
                "reserved": 14_900.298,
                "total": 25_000,
            },
            {"currency": "BTC", "available": 1.5, "reserved": 0, "total": 1.5},
        ],
        "positions": [
            {
                "symbol": "AAPL",
                "quantity": 150,
                "average_price": 149.75,
                "unrealized_pnl": 75.0,
                "realized_pnl": 0,
            }
        ],
    }


@pytest.mark.req("AC-05")
def test_profit_is_marked_at_the_last_trade_and_before_the_first_at_the_close():
    position = PositionConfig(quantity=100, average_price=149)
    venue = Venue(account("ann", positions={"AAPL": position}))
    assert venue.position("ann").unrealized_pnl == 100

    venue.trade(151.00)
    assert venue.position("ann").unrealized_pnl == 200
    venue.submit("ann", "sell", 40, 151.00)
    venue.house("buy", 40, 151.00)

    assert venue.position("ann").quantity == 60
    assert venue.position("ann").unrealized_pnl == 120
    assert venue.position("ann").realized_pnl == 80


# ── who is told what, and when ────────────────────────────────────────────────────────


@pytest.mark.req("OV-04", "OV-05", "A-41")
def test_a_fill_is_told_at_once_and_the_account_once_and_last(venue):
    venue.house("sell", 10, 150.20)
    venue.told.clear()

    venue.submit("ann", "buy", 105, 150.20)

    assert venue.types_to("ann") == [
        "OrderUpdate", "UserTrade", "OrderUpdate", "UserTrade", "OrderUpdate",
        "AccountUpdate",
    ]  # fmt: skip
    updates = venue.on("user_orders", "ann")
    assert [u.filled_quantity for u in updates] == [0, 100, 105]
    assert venue.on("account_updates", "ann")[0].positions[0].quantity == 1105


@pytest.mark.req("A-41")
def test_both_parties_of_a_trade_are_told_and_each_account_once(venue):
    venue.submit("ann", "buy", 10, 150.00)
    venue.told.clear()

    venue.submit("bob", "sell", 10, 150.00)

    assert venue.types_to("ann") == ["UserTrade", "OrderUpdate", "AccountUpdate"]
    assert venue.types_to("bob") == [
        "OrderUpdate", "UserTrade", "OrderUpdate", "AccountUpdate",
    ]  # fmt: skip


@pytest.mark.req("TR-03", "TR-05")
def test_a_trade_has_one_id_in_public_and_for_both_its_parties(venue):
    venue.open("trades:AAPL")
    for price in (150.00, 150.05):
        venue.submit("ann", "sell", 10, price)
    venue.submit("bob", "buy", 15, 150.05)
    venue.house("buy", 105, 150.10)

    public = venue.on("trades:AAPL")
    anns, bobs = (venue.on("user_trades", who) for who in ("ann", "bob"))
    assert [t.size for t in public] == [10, 5, 5, 100]
    assert len({t.trade_id for t in public}) == 4
    assert [t.trade_id for t in anns] == [t.trade_id for t in public[:3]]
    assert [t.trade_id for t in bobs] == [t.trade_id for t in public[:2]]
    assert [(t.price, t.quantity) for t in anns] == [
        (t.price, t.size) for t in public[:3]
    ]
    assert {t.side for t in public} == {"buy"}


@pytest.mark.req("UO-03", "UT-03", "I-09")
def test_the_trades_of_an_order_sum_to_what_it_has_filled(venue):
    venue.submit("ann", "buy", 100, 150.00)
    for lots in (1, 30, 50):
        venue.house("sell", lots, 150.00)
        update = venue.orders("ann")["o-1"]
        traded = sum(t.quantity for t in venue.on("user_trades", "ann"))
        assert update.filled_quantity == traded
        assert update.filled_quantity + update.remaining_quantity == update.quantity


@pytest.mark.req("UO-06", "A-19")
def test_no_account_is_told_of_anothers_orders(venue):
    venue.submit("ann", "buy", 100, 150.00, id="anns")
    venue.submit("bob", "sell", 40, 150.00, id="bobs")
    venue.submit("ann", "sell", 7, stop=149.00, id="anns")

    for who in ("ann", "bob"):
        own = {"ann": {"o-1", "o-3"}, "bob": {"o-2"}}[who]
        pushed = venue.on("user_orders", who)
        replayed = [m.data for m in venue.open("user_orders", who)]
        for update in (*pushed, *replayed):
            assert update.order_id in own
            assert update.client_id == f"{who}s"
        for trade in (
            *venue.on("user_trades", who),
            *(m.data for m in venue.open("user_trades", who)),
        ):
            assert trade.order_id in own
        for data in venue.on("account_updates", who):
            assert data.account_id == who


@pytest.mark.req("UO-04", "A-17", "I-11")
def test_a_status_that_ends_an_order_is_its_last(venue):
    venue.submit("ann", "buy", 10, 150.00)
    venue.house("sell", 4, 150.00)
    venue.house("sell", 6, 150.00)
    venue.submit("ann", "buy", 10, 150.00, tif="day")
    venue.wait(DAY)
    venue.house("sell", 10, 150.00)

    assert venue.statuses("o-1") == ["accepted", "partially_filled", "filled"]
    assert venue.statuses("o-2") == ["accepted", "expired"]


# ── what a subscription brings ────────────────────────────────────────────────────────


def silent():
    venue = Venue(heard=False)
    venue.trade(150.00)
    return venue


@pytest.mark.req("A-19", "AC-01")
def test_a_subscription_brings_open_orders_recent_endings_and_trades_and_one_account():
    venue = silent()
    venue.submit("ann", "buy", 10, 150.00, client_order_id="open")
    venue.house("sell", 4, 150.00)
    venue.submit("ann", "buy", 10, 149.00)
    venue.cancel("ann", "o-2")
    venue.submit("ann", "sell", 5, stop=140.00)
    assert venue.told == []

    orders, trades, accounts = (venue.open(kind, "ann") for kind in OWN_KINDS)

    assert [(m.data.order_id, m.data.status) for m in orders] == [
        ("o-1", "partially_filled"),
        ("o-2", "canceled"),
        ("o-3", "accepted"),
    ]
    assert orders[0].data.client_order_id == "open"
    assert orders[2].data.triggered is False
    assert [(m.data.trade_id, m.data.order_id) for m in trades] == [("t-2", "o-1")]
    assert [m.data.account_id for m in accounts] == ["ann"]
    assert {m.channel for m in (*orders, *trades, *accounts)} == set(OWN_KINDS)


@pytest.mark.req("A-19")
def test_what_ended_or_traded_a_quarter_of_an_hour_ago_is_not_told_again():
    venue = silent()
    venue.submit("ann", "buy", 10, 150.00)
    venue.submit("ann", "buy", 10, 150.00)
    venue.house("sell", 15, 150.00)
    venue.wait(15 * MINUTE - MS)
    assert [m.data.order_id for m in venue.open("user_orders", "ann")] == ["o-1", "o-2"]
    assert len(venue.open("user_trades", "ann")) == 2

    venue.wait(MS)

    assert [m.data.order_id for m in venue.open("user_orders", "ann")] == ["o-2"]
    assert venue.open("user_trades", "ann") == []


@pytest.mark.req("A-19")
def test_a_replay_equals_what_was_pushed_last_and_is_in_order(venue):
    for number in range(12):
        venue.submit("ann", "buy", 10, 149.00 + number / 100)
    venue.house("sell", 35, 149.00)
    venue.cancel("ann", "o-2")

    replayed = [m.data for m in venue.open("user_orders", "ann")]

    assert replayed == [venue.orders("ann")[f"o-{n}"] for n in range(1, 13)]
    trades = [m.data for m in venue.open("user_trades", "ann")]
    assert trades == venue.on("user_trades", "ann")


@pytest.mark.req("A-19", "F-74")
def test_orders_outlive_their_listeners(venue):
    venue.submit("ann", "buy", 10, 150.00)
    for kind in OWN_KINDS:
        venue.exchange.release(f"{kind}/ann")
    venue.told.clear()
    venue.house("sell", 4, 150.00)
    assert venue.told == []

    (update,) = venue.open("user_orders", "ann")

    assert (update.data.status, update.data.filled_quantity) == ("partially_filled", 4)
    venue.house("sell", 6, 150.00)
    assert venue.statuses("o-1") == ["filled"]


# ── batches ───────────────────────────────────────────────────────────────────────────

SUBMIT = {
    "operation": "submit",
    "symbol": "AAPL",
    "side": "buy",
    "type": "limit",
    "quantity": 10,
    "price": 149.00,
}


@pytest.mark.req("OR-16", "OR-17", "OR-18")
def test_a_batch_runs_its_operations_in_order(venue):
    answer = venue.batch(
        "ann",
        SUBMIT | {"client_order_id": "x", "time_in_force": "gtc"},
        {"operation": "modify", "client_order_id": "x", "quantity": 5},
        {"operation": "cancel", "order_id": "o-1"},
    )

    assert builtins(answer) == {
        "status": "success",
        "results": [
            {
                "operation": "submit",
                "status": "accepted",
                "order_id": "o-1",
                "client_id": "x",
            },
            {
                "operation": "modify",
                "status": "modified",
                "order_id": "o-1",
                "client_id": "x",
            },
            {
                "operation": "cancel",
                "status": "canceled",
                "order_id": "o-1",
                "client_id": "x",
            },
        ],
    }
    assert venue.statuses("o-1") == ["accepted", "accepted", "canceled"]


@pytest.mark.req("OR-16", "A-18")
def test_an_operation_that_fails_leaves_the_others_of_its_batch_be(venue):
    answer = venue.batch(
        "ann",
        SUBMIT,
        {"operation": "cancel", "order_id": "o-77"},
        SUBMIT | {"price": 0},
        SUBMIT | {"quantity": 10_000},
        SUBMIT | {"stop_prize": 1},
        {"operation": "fly"},
        {"operation": "batch", "operations": [SUBMIT]},
        [],
        7,
        SUBMIT,
    )

    assert answer.status == "partial"
    assert [(r.operation, r.status, r.code) for r in answer.results] == [
        ("submit", "accepted", None),
        ("cancel", "error", "order_not_found"),
        ("submit", "error", "invalid_parameter"),
        ("submit", "error", "insufficient_funds"),
        ("submit", "error", "invalid_parameter"),
        ("fly", "error", "invalid_parameter"),
        ("batch", "error", "invalid_parameter"),
        ("", "error", "invalid_parameter"),
        ("", "error", "invalid_parameter"),
        ("submit", "accepted", None),
    ]
    assert answer.results[2].message == (
        "Invalid parameter: price must be greater than 0"
    )
    assert [o.id for o in venue.desk.open_orders("ann")] == ["o-1", "o-2"]


@pytest.mark.req("OR-16", "A-18", "A-24")
def test_a_batch_of_which_nothing_worked_is_an_error(venue):
    venue.submit("ann", "buy", 1, 1.00)
    venue.halt()

    answer = venue.batch("ann", SUBMIT, SUBMIT)
    mixed = venue.batch("ann", SUBMIT, {"operation": "cancel", "order_id": "o-1"})

    assert answer.status == "error"
    assert {result.code for result in answer.results} == {"market_closed"}
    assert (mixed.status, mixed.results[1].status) == ("partial", "canceled")

"""The ledger: goldens of the reference, every rule of a hold, and conservation."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from feedhandler.protocol.messages import Balance, Position
from feedhandler.venue.contract import Terms, exact
from feedhandler.venue.ledger import Amounts, InsufficientFunds, Ledger
from feedhandler.venue.matching import Side

BUY, SELL = Side.BUY, Side.SELL

AAPL = Terms("AAPL", "0.01", "1")
FREE = Terms("FREE", "0.01", "1", maker_fee="0", taker_fee="0")
BTC_USD = Terms("BTC-USD", "0.01", "0.0001", base="BTC", maker_fee="0.001")
ETH_BTC = Terms("ETH-BTC", "0.000001", "0.00001", quote="BTC", base="ETH")
EUR_SHARE = Terms("SAP", "0.05", "10", quote="EUR")
LISTED = [AAPL, FREE, BTC_USD, ETH_BTC, EUR_SHARE]

USD = 10**8
MARKS = {"AAPL": 15_000, "FREE": 15_000, "BTC-USD": 6_000_000, "ETH-BTC": 40_000}


def stand(balances=None, positions=None, *, allow_short=False, listed=LISTED):
    """A ledger with the account of the test, "me", and the house on the other side."""
    ledger = Ledger(listed, allow_short=allow_short)
    ledger.open_account("me", balances or {}, positions)
    ledger.open_account("house", {}, limited=False)
    return ledger


def meet(ledger, order_id, symbol, side, ticks, lots, *, maker=False):
    """Trade with the house."""
    fee = ledger.fill(order_id, ticks, lots, maker=maker)
    ledger.settle("house", symbol, 1 - side, ticks, lots, maker=not maker)
    return fee


def bought(ledger, symbol, lots, ticks):
    ledger.hold("bought", "me", symbol, BUY, lots, price_ticks=ticks)
    meet(ledger, "bought", symbol, BUY, ticks, lots)


def sold(ledger, symbol, lots, ticks):
    ledger.hold("sold", "me", symbol, SELL, lots)
    meet(ledger, "sold", symbol, SELL, ticks, lots)


def balance_of(ledger, currency="USD"):
    view = ledger.view("me", MARKS)
    return next(b for b in view.balances if b.currency == currency)


def position_of(ledger, symbol="AAPL", marks=MARKS):
    view = ledger.view("me", marks)
    return next(p for p in view.positions if p.symbol == symbol)


# ── goldens of the reference ──────────────────────────────────────────────────────────


@pytest.mark.req("AC-03", "OR-20")
def test_an_open_buy_of_15000_leaves_10000_of_25000_available():
    ledger = stand({"USD": "25000", "BTC": "1.5"})
    ledger.hold("o-1", "me", "FREE", BUY, 100, price_ticks=15_000)

    assert ledger.view("me", MARKS).balances == [
        Balance("USD", 10_000.0, 15_000.0, 25_000.0),
        Balance("BTC", 1.5, 0.0, 1.5),
    ]
    assert ledger.amounts("me", "USD") == (10_000 * USD, 15_000 * USD, 25_000 * USD)


@pytest.mark.req("UT-04", "A-48")
def test_50_at_150_cost_15_cents_of_fee():
    ledger = stand({"USD": 10_000})
    ledger.hold("o-1", "me", "AAPL", BUY, 50, price_ticks=15_000)

    fee = meet(ledger, "o-1", "AAPL", BUY, 15_000, 50)

    assert (fee.currency, fee.amount, fee.units) == ("USD", 0.15, 15 * USD // 100)
    assert balance_of(ledger).total == 10_000 - 7_500 - 0.15


@pytest.mark.req("AC-05")
def test_150_at_149_75_are_75_up_when_the_last_price_is_150_25():
    ledger = stand({"USD": 30_000})
    bought(ledger, "AAPL", 150, 14_975)

    assert position_of(ledger, marks={"AAPL": 15_025}) == Position(
        "AAPL", 150.0, 149.75, 75.0, 0.0
    )


@pytest.mark.req("AC-04", "AC-05")
def test_an_opening_position_has_its_average_price():
    ledger = stand({}, {"AAPL": ("150", "149.75"), "BTC-USD": ("0.5", "60000.01")})

    view = ledger.view("me", {"AAPL": 14_950, "BTC-USD": 6_000_101})

    assert view.account_id == "me"
    assert view.positions == [
        Position("AAPL", 150.0, 149.75, -37.5, 0.0),
        Position("BTC-USD", 0.5, 60_000.01, 0.5, 0.0),
    ]


# ── holds ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.req("OR-20", "A-22", "A-48")
@pytest.mark.parametrize("fees", [("0.001", "0.0002"), ("0", "0.001")])
def test_a_limit_buy_holds_its_price_and_the_dearer_fee(fees):
    terms = BTC_USD._replace(maker_fee=fees[0], taker_fee=fees[1])
    ledger = stand({"USD": 1_000}, listed=[terms])
    ledger.hold("o-1", "me", "BTC-USD", BUY, 100, price_ticks=5_000_000)

    assert ledger.amounts("me", "USD").reserved == 500 * USD + USD // 2


@pytest.mark.req("ER-07", "A-22")
def test_a_buy_over_what_is_available_says_both_and_changes_nothing():
    ledger = stand({"USD": "15000.29"})
    before = ledger.view("me", MARKS)

    with pytest.raises(InsufficientFunds) as refused:
        ledger.hold("o-1", "me", "AAPL", BUY, 100, price_ticks=15_000)

    assert str(refused.value) == "available 15000.29 USD, needed 15000.3"
    assert refused.value.asset == "USD"
    assert refused.value.available == Decimal("15000.29")
    assert refused.value.needed == Decimal("15000.3")
    assert ledger.view("me", MARKS) == before
    assert ledger.conserved() == []


@pytest.mark.req("OR-20", "A-22")
def test_a_buy_of_exactly_what_is_available_is_taken():
    ledger = stand({"USD": "15000.30"})

    ledger.hold("o-1", "me", "AAPL", BUY, 100, price_ticks=15_000)

    assert ledger.amounts("me", "USD").available == 0


@pytest.mark.req("ER-07")
def test_a_buy_in_a_currency_that_one_has_not_is_refused():
    ledger = stand({"USD": 1_000})

    with pytest.raises(InsufficientFunds, match=r"available 0 EUR, needed 1.00002"):
        ledger.hold("o-1", "me", "SAP", BUY, 1, price_ticks=2)
    assert [b.currency for b in ledger.view("me", MARKS).balances] == ["USD"]


@pytest.mark.req("OR-20", "A-22")
def test_a_market_buy_holds_the_cost_that_it_is_given():
    ledger = stand({"USD": 1_000})
    ledger.hold("o-1", "me", "AAPL", BUY, 3, cost=2 * 10_000 + 1 * 10_100)
    assert ledger.amounts("me", "USD").reserved == 301 * USD + 602_000

    meet(ledger, "o-1", "AAPL", BUY, 10_000, 2)
    assert ledger.amounts("me", "USD").reserved == 101 * USD + 202_000

    meet(ledger, "o-1", "AAPL", BUY, 10_050, 1)
    assert ledger.amounts("me", "USD").reserved == 0


@pytest.mark.req("OR-20")
def test_a_cheaper_fill_gives_back_what_the_limit_held():
    ledger = stand({"USD": 2_000})
    ledger.hold("o-1", "me", "FREE", BUY, 10, price_ticks=10_000)

    meet(ledger, "o-1", "FREE", BUY, 9_000, 4)

    assert balance_of(ledger) == Balance("USD", 1_040.0, 600.0, 1_640.0)


@pytest.mark.req("ER-07", "A-22")
def test_a_sell_over_the_position_is_refused():
    ledger = stand({"USD": 1_000}, {"AAPL": (10, 100)})
    ledger.hold("o-1", "me", "AAPL", SELL, 7)

    with pytest.raises(InsufficientFunds, match="available 3 AAPL, needed 4"):
        ledger.hold("o-2", "me", "AAPL", SELL, 4)
    ledger.hold("o-2", "me", "AAPL", SELL, 3)

    assert position_of(ledger).quantity == 10
    assert balance_of(ledger).reserved == 0


@pytest.mark.req("ER-07", "A-22")
def test_what_is_short_of_a_sell_is_said_in_shares_not_lots():
    ledger = stand({}, {"SAP": (30, 100)})

    with pytest.raises(InsufficientFunds, match="available 30 SAP, needed 40"):
        ledger.hold("o-1", "me", "SAP", SELL, 4)


@pytest.mark.req("AC-03", "ER-07", "A-22")
def test_a_sell_of_a_pair_holds_the_base_currency():
    ledger = stand({"BTC": "1.5"})
    ledger.hold("o-1", "me", "BTC-USD", SELL, 10_000)

    assert balance_of(ledger, "BTC") == Balance("BTC", 0.5, 1.0, 1.5)
    with pytest.raises(InsufficientFunds, match=r"available 0.5 BTC, needed 0.5001"):
        ledger.hold("o-2", "me", "BTC-USD", SELL, 5_001)


@pytest.mark.req("AC-03")
def test_a_base_currency_pays_for_another_pair():
    ledger = stand({"BTC": 1})
    ledger.hold("o-1", "me", "BTC-USD", SELL, 5_000)

    ledger.hold("o-2", "me", "ETH-BTC", BUY, 1_200_000, price_ticks=40_000)

    # 12 ETH at 0.04, and 0.2 bp of it.
    assert balance_of(ledger, "BTC").reserved == 0.5 + 0.48 + 0.0000096
    with pytest.raises(InsufficientFunds, match=r"available 0.0199904 BTC"):
        ledger.hold("o-3", "me", "BTC-USD", SELL, 200)


@pytest.mark.req("OR-20")
def test_canceled_lots_are_released_and_closing_releases_the_rest():
    ledger = stand({"USD": 2_000})
    ledger.hold("o-1", "me", "FREE", BUY, 10, price_ticks=10_000)

    ledger.release("o-1", 4)
    assert balance_of(ledger).reserved == 600
    ledger.close("o-1")
    assert balance_of(ledger).reserved == 0
    ledger.close("o-1")
    assert ledger.conserved() == []


@pytest.mark.req("OR-20")
def test_a_traded_order_holds_nothing_and_its_id_is_free():
    ledger = stand({"USD": 2_000})
    bought(ledger, "AAPL", 10, 10_000)

    with pytest.raises(KeyError):
        ledger.fill("bought", 10_000, 1, maker=True)
    bought(ledger, "AAPL", 5, 10_000)

    assert position_of(ledger).quantity == 15


@pytest.mark.req("OR-15", "OR-20", "A-20")
def test_a_modify_holds_for_the_new_terms():
    ledger = stand({"USD": 2_000})
    ledger.hold("o-1", "me", "FREE", BUY, 10, price_ticks=10_000)

    ledger.rehold("o-1", 5, price_ticks=40_000)
    assert balance_of(ledger).reserved == 2_000
    ledger.rehold("o-1", 1, price_ticks=5_000)
    assert balance_of(ledger).reserved == 50


@pytest.mark.req("OR-15", "ER-07", "A-20")
def test_a_modify_beyond_the_funds_leaves_the_old_hold():
    ledger = stand({"USD": 2_000})
    ledger.hold("o-1", "me", "FREE", BUY, 10, price_ticks=10_000)

    with pytest.raises(InsufficientFunds, match=r"available 1000 USD, needed 1000.01"):
        ledger.rehold("o-1", 1, price_ticks=200_001)

    assert balance_of(ledger) == Balance("USD", 1_000.0, 1_000.0, 2_000.0)
    assert ledger.fill("o-1", 10_000, 10, maker=True).amount == 0


@pytest.mark.req("OR-15", "A-22")
def test_a_modified_sell_holds_other_lots():
    ledger = stand({}, {"AAPL": (10, 100)})
    ledger.hold("o-1", "me", "AAPL", SELL, 4)

    ledger.rehold("o-1", 10)
    with pytest.raises(InsufficientFunds, match="available 0 AAPL, needed 1"):
        ledger.rehold("o-1", 11)


@pytest.mark.req("OR-06", "A-21")
def test_a_triggered_stop_is_held_again_at_the_cost_of_now():
    ledger = stand({"USD": 1_000})
    ledger.hold("o-1", "me", "FREE", BUY, 5, cost=5 * 10_000)

    ledger.rehold("o-1", 5, cost=5 * 20_000)
    with pytest.raises(InsufficientFunds):
        ledger.rehold("o-1", 5, cost=5 * 20_000 + 1)

    assert balance_of(ledger).reserved == 1_000


@pytest.mark.parametrize(
    ("lots", "terms"),
    [
        (0, {"price_ticks": 1}),
        (-1, {"price_ticks": 1}),
        (1, {"price_ticks": 0}),
        (1, {"cost": 0}),
        (1, {"price_ticks": 1, "cost": 1}),
        (1, {}),
    ],
)
def test_an_order_that_is_none_is_refused(lots, terms):
    ledger = stand({"USD": 10})
    ledger.hold("o-1", "me", "AAPL", BUY, 1, price_ticks=1)

    with pytest.raises(ValueError, match=r"lots|price_ticks|cost"):
        ledger.hold("o-2", "me", "AAPL", BUY, lots, **terms)
    with pytest.raises(ValueError, match=r"lots|price_ticks|cost"):
        ledger.rehold("o-1", lots, **terms)
    assert ledger.conserved() == []


def test_two_holds_of_one_order_are_refused():
    ledger = stand({"USD": 10})
    ledger.hold("o-1", "me", "AAPL", BUY, 1, price_ticks=1)

    with pytest.raises(ValueError, match="'o-1' has a hold already"):
        ledger.hold("o-1", "me", "AAPL", BUY, 1, price_ticks=1)


@pytest.mark.req("I-09", "I-11")
@pytest.mark.parametrize(("ticks", "lots"), [(100, 0), (100, 4), (0, 1), (101, 1)])
def test_a_fill_that_the_order_cannot_have_had_changes_nothing(ticks, lots):
    ledger = stand({"USD": 10})
    ledger.hold("o-1", "me", "AAPL", BUY, 3, price_ticks=100)
    before = ledger.view("me", MARKS)

    with pytest.raises(ValueError, match=r"not|above"):
        ledger.fill("o-1", ticks, lots, maker=True)
    with pytest.raises(ValueError, match="lots is 4, not 1 to 3"):
        ledger.release("o-1", 4)

    assert ledger.view("me", MARKS) == before
    assert ledger.conserved() == []


def test_a_fill_beyond_the_cost_held_is_refused():
    ledger = stand({"USD": 10})
    ledger.hold("o-1", "me", "AAPL", BUY, 3, cost=300)

    with pytest.raises(ValueError, match="cost is 303, above the 300 held"):
        ledger.fill("o-1", 101, 3, maker=False)


# ── money ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.req("UT-04", "A-48")
def test_buyer_and_seller_pay_the_fee_of_their_role():
    ledger = Ledger([Terms("X", "1", "1", maker_fee="0.001", taker_fee="0.002")])
    ledger.open_account("buyer", {"USD": 2_000})
    ledger.open_account("seller", {}, {"X": (1, 500)})
    ledger.hold("b", "buyer", "X", BUY, 1, price_ticks=1_000)
    ledger.hold("s", "seller", "X", SELL, 1)

    assert ledger.fill("b", 1_000, 1, maker=True).amount == 1
    assert ledger.fill("s", 1_000, 1, maker=False).amount == 2

    assert ledger.amounts("buyer", "USD").total == 999 * USD
    assert ledger.amounts("seller", "USD").total == 998 * USD
    assert ledger.fees("USD") == 3 * USD
    assert ledger.conserved() == []


@pytest.mark.req("UT-04", "OR-20")
@given(
    st.lists(st.integers(1, 2**40), min_size=1, max_size=8),
    st.integers(1, 2**52),
    st.decimals("0", "0.999999", places=6),
)
def test_the_fees_of_parts_never_exceed_the_fee_held(parts, ticks, rate):
    terms = Terms("X", "0.01", "0.0001", maker_fee=rate, taker_fee="0")
    ledger = Ledger([terms])
    lots = sum(parts)
    # Paid to the last unit: one more would be missed.
    notional = Fraction(ticks * lots, 10**6)
    held = int((notional * (1 + Fraction(rate))) * 10**8)
    ledger.open_account("me", {"USD": exact(held, 8)})
    ledger.hold("o", "me", "X", BUY, lots, price_ticks=ticks)
    assert ledger.amounts("me", "USD").available == 0

    for some in parts:
        ledger.fill("o", ticks, some, maker=True)
        assert ledger.amounts("me", "USD").available >= 0

    left = ledger.amounts("me", "USD")
    assert left.reserved == 0
    assert 0 <= left.total < len(parts)


@pytest.mark.req("I-10", "AC-03")
def test_a_pair_moves_both_currencies():
    ledger = stand({"USD": 100_000})
    bought(ledger, "BTC-USD", 5_000, 6_000_000)

    view = ledger.view("me", {"BTC-USD": 6_100_000})

    assert view.balances == [
        Balance("USD", 69_999.4, 0.0, 69_999.4),
        Balance("BTC", 0.5, 0.0, 0.5),
    ]
    assert view.positions == [Position("BTC-USD", 0.5, 60_000.0, 500.0, 0.0)]
    assert ledger.view("house", MARKS).balances[1].total == -0.5
    assert ledger.conserved() == []


@pytest.mark.req("I-10")
def test_trading_with_oneself_costs_the_fees_alone():
    ledger = stand({"USD": 10_000}, {"AAPL": (10, 90)})
    ledger.hold("b", "me", "AAPL", BUY, 10, price_ticks=10_000)
    ledger.hold("s", "me", "AAPL", SELL, 10)

    ledger.fill("b", 10_000, 10, maker=True)
    ledger.fill("s", 10_000, 10, maker=False)

    assert balance_of(ledger) == Balance("USD", 9_999.96, 0.0, 9_999.96)
    assert position_of(ledger).quantity == 10
    assert ledger.conserved() == []


@pytest.mark.req("I-10")
def test_the_house_trades_without_limits_or_holds():
    ledger = stand()
    ledger.hold("h", "house", "AAPL", BUY, 10, price_ticks=10_000)

    ledger.fill("h", 10_000, 10, maker=True)
    ledger.settle("house", "AAPL", SELL, 10_000, 10, maker=False)

    assert ledger.amounts("house", "USD") == Amounts(-4_000_000, 0, -4_000_000)
    assert ledger.fees("USD") == 4_000_000
    assert ledger.conserved() == []


def test_an_account_with_limits_cannot_trade_without_a_hold():
    ledger = stand({"USD": 1_000})

    with pytest.raises(ValueError, match="'me' trades with holds only"):
        ledger.settle("me", "AAPL", BUY, 1, 1, maker=False)
    with pytest.raises(ValueError, match="not at least 1"):
        ledger.settle("house", "AAPL", BUY, 1, 0, maker=False)


# ── positions ─────────────────────────────────────────────────────────────────────────


@pytest.mark.req("AC-04", "AC-05")
def test_selling_realises_against_the_average_cost():
    ledger = stand({"USD": 10_000})
    bought(ledger, "FREE", 10, 10_000)
    bought(ledger, "FREE", 20, 13_000)
    sold(ledger, "FREE", 15, 15_000)

    # 12 each on average: 15 of them cost 1,800 and bring 2,250.
    assert position_of(ledger, "FREE", {"FREE": 11_000}) == Position(
        "FREE", 15.0, 120.0, -150.0, 450.0
    )


@pytest.mark.req("AC-04")
def test_a_closed_position_stays_listed_with_what_it_earned():
    ledger = stand({"USD": 10_000})
    bought(ledger, "FREE", 10, 10_000)
    sold(ledger, "FREE", 10, 9_000)

    assert position_of(ledger, "FREE") == Position("FREE", 0.0, 0.0, 0.0, -100.0)


@pytest.mark.req("AC-05", "I-10")
def test_an_average_that_is_no_whole_unit_loses_nothing():
    ledger = stand({"USD": 10_000})
    bought(ledger, "FREE", 1, 10_000)
    bought(ledger, "FREE", 2, 10_001)
    assert position_of(ledger, "FREE").average_price == 300.02 / 3

    for _ in range(3):
        sold(ledger, "FREE", 1, 10_000)

    assert position_of(ledger, "FREE").realized_pnl == -0.02


@pytest.mark.req("A-22", "AC-05")
def test_where_shorting_is_allowed_a_sell_may_cross_zero_and_a_buy_back():
    ledger = stand({"USD": 10_000}, allow_short=True)
    bought(ledger, "FREE", 10, 10_000)

    sold(ledger, "FREE", 25, 11_000)
    assert position_of(ledger, "FREE", {"FREE": 10_000}) == Position(
        "FREE", -15.0, 110.0, 150.0, 100.0
    )

    bought(ledger, "FREE", 20, 10_500)
    assert position_of(ledger, "FREE", {"FREE": 10_000}) == Position(
        "FREE", 5.0, 105.0, -25.0, 175.0
    )
    assert ledger.conserved() == []


@pytest.mark.req("A-22")
def test_where_shorting_is_allowed_coins_may_be_owed():
    ledger = stand({"USD": 10_000}, allow_short=True)
    sold(ledger, "BTC-USD", 10_000, 6_000_000)

    assert balance_of(ledger, "BTC") == Balance("BTC", -1.0, 0.0, -1.0)
    assert ledger.conserved() == []


@pytest.mark.req("AC-04")
def test_deposited_coins_that_are_sold_make_the_pair_short():
    ledger = stand({"BTC": "1.5"})
    sold(ledger, "BTC-USD", 10_000, 6_000_000)

    assert position_of(ledger, "BTC-USD").quantity == -1
    assert balance_of(ledger, "BTC").total == 0.5
    assert ledger.conserved() == []


# ── what is refused ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("tick", "0", "tick of AAPL is 0, not above 0"),
        ("tick", "NaN", "'NaN' is not finite"),
        ("lot", "-1", "lot of AAPL is -1, not above 0"),
        ("lot", "one", "'one' is not a decimal"),
        ("maker_fee", "1", r"maker_fee of AAPL is 1, not in \[0, 1\)"),
        ("taker_fee", "-0.1", r"taker_fee of AAPL is -0.1, not in \[0, 1\)"),
        ("base", "USD", "base of AAPL is USD, its quote"),
    ],
)
def test_terms_that_nothing_can_be_counted_in_are_refused(field, value, said):
    with pytest.raises(ValueError, match=said):
        Ledger([AAPL._replace(**{field: value})])


def test_a_symbol_is_listed_once():
    with pytest.raises(ValueError, match="a symbol twice"):
        Ledger([AAPL, AAPL])


@pytest.mark.parametrize(
    ("balances", "positions", "said"),
    [
        ({"USD": -1}, {}, "balance of USD is -1, below 0"),
        ({"USD": "0.000000001"}, {}, "USD of 'me' is 1e-09, not a multiple"),
        ({}, {"AAPL": ("0.5", 1)}, "AAPL of 'me' is 0.5, not a multiple of 1.0"),
        ({}, {"AAPL": (-1, 1)}, "position in AAPL is -1, below 0"),
        ({}, {"AAPL": (1, "0.000000001")}, "cost of .* not a multiple of 1e-08"),
    ],
)
def test_an_account_that_cannot_be_counted_is_not_opened(balances, positions, said):
    ledger = Ledger(LISTED)

    with pytest.raises(ValueError, match=said):
        ledger.open_account("me", balances, positions)

    ledger.open_account("me", {"USD": 1}, {"AAPL": (1, 1)})
    with pytest.raises(ValueError, match="'me' is open already"):
        ledger.open_account("me", {})
    assert ledger.conserved() == []


@pytest.mark.req("A-22")
def test_an_account_may_be_opened_short_where_shorting_is_allowed():
    ledger = Ledger(LISTED, allow_short=True)
    ledger.open_account("me", {"USD": 1_000}, {"AAPL": (-10, 100)})

    assert ledger.view("me", MARKS).positions == [
        Position("AAPL", -10.0, 100.0, -500.0, 0.0)
    ]
    assert ledger.conserved() == []


def test_names_that_nobody_opened_or_listed_are_key_errors():
    ledger = stand({"USD": 1})

    for account_id, symbol in (("you", "AAPL"), ("me", "MSFT")):
        with pytest.raises(KeyError):
            ledger.hold("o", account_id, symbol, BUY, 1, price_ticks=1)
    for call in (ledger.rehold, ledger.release):
        with pytest.raises(KeyError):
            call("o", 1)


# ── units ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.req("F-100")
def test_the_finest_symbol_decides_the_unit_of_its_currency():
    fine = Terms("FINE", "0.000000000001", "0.000000000001")
    ledger = stand({"USD": 1}, listed=[AAPL, fine])
    ledger.hold("o", "me", "FINE", BUY, 1, price_ticks=1)

    assert ledger.amounts("me", "USD") == Amounts(10**24 - 1, 1, 10**24)
    assert ledger.view("me", MARKS).balances[0].total == 1.0


@pytest.mark.req("F-100")
def test_an_exact_number_has_no_trailing_zeros_and_any_size():
    assert str(exact(1_500_000_000, 8)) == "15"
    assert f"{exact(10**60 + 1, 8):f}" == "1" + "0" * 52 + ".00000001"
    assert exact(0, 8) == 0
    assert exact(-5, 1) == Decimal("-0.5")


@pytest.mark.req("F-100", "I-10")
@pytest.mark.parametrize("lots", [1, 2**40 - 1, 2**40])
@pytest.mark.parametrize("ticks", [1, 2**52 - 1, 2**52])
def test_extreme_numbers_stay_exact(lots, ticks):
    ledger = stand({"USD": "1e40", "BTC": 0})
    bought(ledger, "BTC-USD", lots, ticks)

    notional = ticks * lots * 100
    fee = notional * 2 // 100_000
    assert ledger.amounts("me", "USD").total == 10**48 - notional - fee
    assert position_of(ledger, "BTC-USD").average_price == float(Fraction(ticks, 100))
    sold(ledger, "BTC-USD", lots, ticks)
    assert position_of(ledger, "BTC-USD").realized_pnl == 0
    assert ledger.conserved() == []


# ── conservation ──────────────────────────────────────────────────────────────────────


def half_a_trade(ledger):
    ledger.settle("house", "AAPL", SELL, 100, 1, maker=True)


def lost_money(ledger):
    ledger._accounts["me"].balances["USD"].total -= 1


def lost_shares(ledger):
    ledger._accounts["me"].holdings["AAPL"].total -= 1


def lost_cost(ledger):
    ledger._accounts["me"].holdings["AAPL"].realised += 1


def cost_of_nothing(ledger):
    ledger._accounts["house"].holdings["AAPL"].cost = 1
    ledger._accounts["house"].holdings["AAPL"].realised = 1


def forgotten_hold(ledger):
    ledger._accounts["me"].balances["USD"].reserved += 1


def stale_hold(ledger):
    ledger._holds["o-1"].lots -= 1


def overdrawn(ledger):
    ledger._accounts["me"].balances["USD"].total = -5 * USD
    ledger._accounts["house"].balances["USD"].total = 1_005 * USD


@pytest.mark.req("I-10")
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (half_a_trade, "AAPL is 9 lots"),
        (lost_money, "USD is 99999999999 units"),
        (lost_shares, "AAPL is 9 lots"),
        (lost_cost, "AAPL cost 99999999999 units"),
        (cost_of_nothing, "AAPL has a cost without a position"),
        (forgotten_hold, "me reserves 20000400001 USD"),
        (stale_hold, "order 'o-1' holds 20000400000, not 10000200000"),
        (overdrawn, "me has -20500400000 USD available"),
    ],
)
def test_damage_is_found(damage, said):
    ledger = stand({"USD": 1_000}, {"AAPL": (10, 100)})
    ledger.hold("o-1", "me", "AAPL", BUY, 2, price_ticks=10_000)
    assert ledger.conserved() == []

    damage(ledger)

    assert said in "; ".join(ledger.conserved())


ACCOUNTS = ("ann", "bob", "house")
LOTS = st.one_of(st.integers(1, 50), st.integers(1, 2**40))
TICKS = st.one_of(st.integers(1, 200), st.integers(1, 2**52))
CURRENCIES = ("USD", "BTC", "ETH", "EUR")


class Books(RuleBasedStateMachine):
    """Random orders, trades, cancels and modifies, against sums kept in fractions."""

    @initialize(
        allow_short=st.booleans(),
        amount=st.sampled_from([500, 10**13, 10**32]),
        rate=st.sampled_from(["0", "0.3"]),
    )
    def open(self, allow_short, amount, rate):
        self.terms = {t.symbol: t._replace(taker_fee=rate) for t in LISTED}
        self.ledger = Ledger(self.terms.values(), allow_short=allow_short)
        self.allow_short = allow_short
        self.money = {}
        for name in ACCOUNTS:
            self.ledger.open_account(
                name,
                dict.fromkeys(CURRENCIES, str(amount)),
                {"AAPL": (100, "1.5"), "SAP": (100, "2")},
                limited=name != "house",
            )
            self.money |= {(name, currency): amount for currency in CURRENCIES}
        # order id -> account, symbol, side, lots left, limit or None, cost left or None
        self.orders = {}
        self.number = 0

    def need(self, order):
        """What a buy must hold, as a fraction of its currency rounded up to its fee."""
        _, symbol, _, lots, limit, cost = order
        terms = self.terms[symbol]
        worth = (cost if limit is None else limit * lots) * self.step(symbol)
        rate = max(Fraction(terms.maker_fee), Fraction(terms.taker_fee))
        return worth * (1 + rate)

    def step(self, symbol):
        terms = self.terms[symbol]
        return Fraction(terms.tick) * Fraction(terms.lot)

    @rule(
        name=st.sampled_from(ACCOUNTS),
        symbol=st.sampled_from(sorted(t.symbol for t in LISTED)),
        side=st.sampled_from([BUY, SELL]),
        lots=LOTS,
        ticks=TICKS,
        market=st.booleans(),
    )
    def order(self, name, symbol, side, lots, ticks, market):
        self.number += 1
        limit, cost = (None, ticks * lots) if market else (ticks, None)
        wanted = (name, symbol, side, lots, limit, cost)
        before = self.state()
        try:
            self.ledger.hold(
                self.number, name, symbol, side, lots, price_ticks=limit, cost=cost
            )
        except InsufficientFunds as error:
            self.check_refusal(error, name, before)
        else:
            self.orders[self.number] = wanted

    def check_refusal(self, error, name, before):
        assert name != "house"
        assert error.needed > error.available
        assert self.state() == before

    def pick(self, data, side=None, symbol=None):
        found = [
            number
            for number, order in self.orders.items()
            if side in (None, order[2]) and symbol in (None, order[1])
        ]
        return data.draw(st.sampled_from(found)) if found else None

    @precondition(lambda self: getattr(self, "orders", None))
    @rule(data=st.data(), against_the_house=st.booleans(), maker=st.booleans())
    def trade(self, data, against_the_house, maker):
        number = self.pick(data)
        _, symbol, side, most, *_ = self.orders[number]
        other = self.pick(data, 1 - side, symbol)
        if other is None or against_the_house:
            other = None
        else:
            most = min(most, self.orders[other][3])
        lots = data.draw(st.integers(1, most))
        buyer = number if side == BUY else other
        dearest = 2**52
        if buyer is not None:
            _, _, _, _, limit, cost = self.orders[buyer]
            dearest = limit if limit is not None else cost // lots
        if dearest < 1:
            return
        ticks = data.draw(st.integers(1, dearest))
        self.fill(number, symbol, side, ticks, lots, maker)
        self.fill(other, symbol, 1 - side, ticks, lots, not maker)

    def fill(self, number, symbol, side, ticks, lots, maker):
        terms = self.terms[symbol]
        if number is None:
            name = "house"
            fee = self.ledger.settle(name, symbol, side, ticks, lots, maker=maker)
        else:
            name, _, _, left, limit, cost = self.orders[number]
            fee = self.ledger.fill(number, ticks, lots, maker=maker)
            cost = None if cost is None else cost - ticks * lots
            self.orders[number] = (name, symbol, side, left - lots, limit, cost)
            if left == lots:
                del self.orders[number]
        notional = ticks * lots * self.step(symbol)
        rate = Fraction(terms.maker_fee if maker else terms.taker_fee)
        paid = Fraction(fee.units, self.unit(terms.quote))
        assert fee.currency == terms.quote
        assert 0 <= notional * rate - paid < Fraction(1, self.unit(terms.quote))
        sign = 1 if side == BUY else -1
        self.money[name, terms.quote] -= sign * notional + paid
        if terms.base is not None:
            self.money[name, terms.base] += sign * lots * Fraction(terms.lot)

    @precondition(lambda self: getattr(self, "orders", None))
    @rule(data=st.data())
    def cancel(self, data):
        number = self.pick(data)
        self.ledger.close(number)
        del self.orders[number]

    @precondition(lambda self: getattr(self, "orders", None))
    @rule(data=st.data())
    def cancel_some(self, data):
        number = self.pick(data)
        name, symbol, side, left, limit, cost = self.orders[number]
        lots = data.draw(st.integers(1, left))
        self.ledger.release(number, lots)
        self.orders[number] = (name, symbol, side, left - lots, limit, cost)
        if left == lots:
            del self.orders[number]

    @precondition(lambda self: getattr(self, "orders", None))
    @rule(data=st.data(), lots=LOTS, ticks=TICKS)
    def modify(self, data, lots, ticks):
        number = self.pick(data)
        name, symbol, side, _, limit, _ = self.orders[number]
        limit, cost = (None, ticks * lots) if limit is None else (ticks, None)
        before = self.state()
        try:
            self.ledger.rehold(number, lots, price_ticks=limit, cost=cost)
        except InsufficientFunds as error:
            self.check_refusal(error, name, before)
        else:
            self.orders[number] = (name, symbol, side, lots, limit, cost)

    def unit(self, currency):
        # The finest prices: AAPL 2, BTC-USD 6, ETH-BTC 11, SAP 2 decimals.
        return 10 ** {"BTC": 11}.get(currency, 8)

    def state(self):
        marks = dict.fromkeys(self.terms, 1)
        return [self.ledger.view(name, marks) for name in ACCOUNTS]

    @invariant()
    def all_is_conserved(self):
        if not hasattr(self, "ledger"):
            return
        assert self.ledger.conserved() == []

    @invariant()
    def balances_are_what_the_trades_made_them(self):
        if not hasattr(self, "ledger"):
            return
        for (name, currency), amount in self.money.items():
            balance = self.ledger.amounts(name, currency)
            assert Fraction(balance.total, self.unit(currency)) == amount
            assert balance.available + balance.reserved == balance.total

    @invariant()
    def reserved_is_what_open_orders_need(self):
        if not hasattr(self, "ledger"):
            return
        for name in ACCOUNTS:
            for currency in CURRENCIES:
                reserved = Fraction(
                    self.ledger.amounts(name, currency).reserved, self.unit(currency)
                )
                if name == "house":
                    assert reserved == 0
                    continue
                needs, selling = self.needs(name, currency)
                # Each order's fee is rounded down to the unit.
                slack = Fraction(len(needs), self.unit(currency))
                assert 0 <= sum(needs) + selling - reserved <= slack

    def needs(self, name, currency):
        mine = [order for order in self.orders.values() if order[0] == name]
        needs = [
            self.need(order)
            for order in mine
            if order[2] == BUY and self.terms[order[1]].quote == currency
        ]
        if self.allow_short:
            return needs, 0
        selling = sum(
            order[3] * Fraction(self.terms[order[1]].lot)
            for order in mine
            if order[2] == SELL and self.terms[order[1]].base == currency
        )
        return needs, selling


Books.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None
)


@pytest.mark.req("I-10", "OR-20", "AC-03")
class TestBooks(Books.TestCase):
    pass

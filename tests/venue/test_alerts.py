"""Custom alerts: when they fire, when they fire again, and who is told."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedhandler.protocol.messages import Alert
from feedhandler.venue.alerts import CONDITIONS, AlertRule, Alerts

NOW = 1_625_097_600_000
TICKS = {"AAPL": "0.05", "BTC-USD": Decimal("0.01")}


def rule(condition="price_above", threshold="150.00", **fields):
    fields = {"alert_id": "a-12345", "account_id": "acc-1", "symbol": "AAPL"} | fields
    return AlertRule(
        name="AAPL Price Alert", condition=condition, threshold=threshold, **fields
    )


def firings(alerts, prices, symbol="AAPL"):
    """Which of a row of last prices make something fire."""
    ticks = [int(Fraction(price) / Fraction(TICKS[symbol])) for price in prices]
    return [bool(alerts.on_trade(symbol, t, NOW)) for t in ticks]


@pytest.mark.req("CA-02", "CA-03")
def test_the_alert_of_the_reference():
    alerts = Alerts([rule()], TICKS)

    assert alerts.on_trade("AAPL", 2_999, NOW - 1) == []
    assert alerts.on_trade("AAPL", 3_005, NOW) == [
        (
            "acc-1",
            Alert(
                alert_id="a-12345",
                name="AAPL Price Alert",
                condition="price_above",
                symbol="AAPL",
                threshold=150.0,
                current_value=150.25,
                triggered_at=NOW,
            ),
        )
    ]


@pytest.mark.req("CA-03", "A-27")
@pytest.mark.parametrize(
    ("condition", "prices", "fires"),
    [
        ("price_above", ["149.95"], [False]),
        ("price_above", ["150.00"], [False]),
        ("price_above", ["150.05"], [True]),
        ("price_above", ["149.95", "150.25", "151.00"], [False, True, False]),
        ("price_above", ["150.05", "149.95", "150.05"], [True, False, True]),
        ("price_above", ["150.05", "150.00", "150.05"], [True, False, True]),
        ("price_above", ["150.00", "150.05"], [False, True]),
        ("price_below", ["150.05"], [False]),
        ("price_below", ["150.00"], [False]),
        ("price_below", ["149.95"], [True]),
        ("price_below", ["150.05", "149.00", "148.00"], [False, True, False]),
        ("price_below", ["149.95", "150.05", "149.95"], [True, False, True]),
        ("price_below", ["149.95", "150.00", "149.95"], [True, False, True]),
    ],
)
def test_an_alert_fires_once_for_each_crossing(condition, prices, fires):
    assert firings(Alerts([rule(condition)], TICKS), prices) == fires


@pytest.mark.req("CA-03")
@pytest.mark.parametrize(
    ("condition", "threshold", "fires"),
    [
        ("price_above", "149.99", True),
        ("price_above", "149.999999999999999999999999999999", True),
        ("price_above", "150.000000000000000000000000000001", False),
        ("price_below", "150.01", True),
        ("price_below", "150.000000000000000000000000000001", True),
        ("price_below", "149.999999999999999999999999999999", False),
    ],
)
def test_a_threshold_between_ticks_is_compared_exactly(condition, threshold, fires):
    assert firings(Alerts([rule(condition, threshold)], TICKS), ["150"]) == [fires]


@pytest.mark.req("CA-03", "A-27")
@given(
    st.sampled_from(CONDITIONS),
    st.decimals(0, 2, places=4),
    st.lists(st.integers(1, 40), max_size=30),
)
def test_an_alert_fires_where_its_condition_becomes_true(condition, threshold, ticks):
    alerts = Alerts([rule(condition, threshold)], TICKS)
    prices = [t * Decimal("0.05") for t in ticks]
    holds = [p > threshold if condition == "price_above" else p < threshold
             for p in prices]  # fmt: skip

    fired = [bool(alerts.on_trade("AAPL", t, NOW)) for t in ticks]

    assert fired == [
        now and not before for before, now in zip([False, *holds], holds, strict=False)
    ]


@pytest.mark.req("CA-04")
def test_each_account_is_told_of_its_own_alerts_alone():
    alerts = Alerts(
        [
            rule(alert_id="a-1", account_id="acc-1", threshold="150"),
            rule(alert_id="a-2", account_id="acc-2", threshold="151"),
            rule(alert_id="a-3", account_id="acc-1", threshold="151"),
        ],
        TICKS,
    )

    first = alerts.on_trade("AAPL", 3_010, NOW)
    second = alerts.on_trade("AAPL", 3_021, NOW)

    assert [(owner, alert.alert_id) for owner, alert in first] == [("acc-1", "a-1")]
    assert [(owner, alert.alert_id) for owner, alert in second] == [
        ("acc-2", "a-2"),
        ("acc-1", "a-3"),
    ]


@pytest.mark.req("CA-04")
def test_trades_of_other_symbols_neither_fire_nor_rearm():
    alerts = Alerts([rule()], TICKS)
    assert firings(alerts, ["150.05"]) == [True]

    assert firings(alerts, ["100.00", "61800"], "BTC-USD") == [False, False]
    assert alerts.on_trade("MSFT", 1, NOW) == []
    assert firings(alerts, ["150.05"]) == [False]


@pytest.mark.req("A-27")
def test_an_alert_added_later_fires_with_the_next_price():
    alerts = Alerts([], TICKS)
    assert firings(alerts, ["150.05"]) == [False]

    alerts.add(rule())

    assert firings(alerts, ["150.05"]) == [True]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"condition": "price_at"}, "'price_at', not one of price_above, price_below"),
        ({"symbol": "MSFT"}, "MSFT, not listed"),
        ({"threshold": "Infinity"}, "'Infinity' is not finite"),
        ({"threshold": "dear"}, "'dear' is not a decimal"),
        ({"alert_id": "a-1"}, "alert a-1 is there twice"),
    ],
)
def test_a_rule_that_could_never_fire_is_refused(wrong, said):
    alerts = Alerts([rule(alert_id="a-1")], TICKS)

    with pytest.raises(ValueError, match=said):
        alerts.add(rule(**wrong))

    assert len(alerts.on_trade("AAPL", 4_000, NOW)) == 1

"""What the account has, by the updates that came."""

from itertools import permutations

import pytest

from feedhandler.account import AccountState
from feedhandler.protocol.messages import AccountUpdateData, Balance, Position
from tests.trading import Venue


def balance(total, reserved=0, currency="USD"):
    return Balance(currency, total - reserved, reserved, total)


def position(quantity, symbol="AAPL"):
    return Position(symbol, quantity, 150.0, 0.0, 0.0)


def update(*rows, account_id="ann"):
    return AccountUpdateData(
        account_id,
        [row for row in rows if isinstance(row, Balance)],
        [row for row in rows if isinstance(row, Position)],
    )


def state(*updates):
    """An account that was told the updates in turn, at 1, 2, 3 ... ms."""
    account = AccountState()
    for at, told in enumerate(updates, 1):
        account.updated(told, at, at * 10)
    return account


@pytest.mark.req("AC-06")
def test_a_row_replaces_the_one_of_its_name_and_the_others_stay():
    account = state(
        update(balance(100), balance(2, currency="BTC"), position(10)),
        update(balance(90, 20), position(11)),
    )

    assert account.balances == {
        "USD": balance(90, 20), "BTC": balance(2, currency="BTC")
    }  # fmt: skip
    assert account.positions == {"AAPL": position(11)}


def test_it_tells_whose_it_is_and_when_it_was_told():
    account = state()

    assert (account.account_id, account.told_ms, account.recv_ns) == ("", 0, 0)

    account.updated(update(balance(100)), 5, 70)
    account.updated(update(balance(90)), 3, 80)

    assert (account.account_id, account.told_ms, account.recv_ns) == ("ann", 5, 80)


@pytest.mark.req("F-66")
def test_every_order_of_the_updates_ends_in_the_same_state():
    told = [
        (update(balance(100), position(10)), 1),
        (update(balance(90, 20)), 2),
        (update(balance(80), position(12)), 3),
        (update(position(9, "BTC-USD")), 4),
    ]
    for shuffled in permutations(told):
        account = AccountState()
        for data, at in (*shuffled, *shuffled):
            account.updated(data, at, 1)

        assert account.balances == {"USD": balance(80)}
        assert account.positions == {
            "AAPL": position(12), "BTC-USD": position(9, "BTC-USD")
        }  # fmt: skip
        assert account.told_ms == 4


def test_of_two_updates_in_one_millisecond_the_later_counts():
    account = AccountState()
    account.updated(update(balance(100)), 1, 1)
    account.updated(update(balance(90)), 1, 2)

    assert account.balances["USD"].total == 90


def test_a_new_subscription_is_newer_whatever_the_venues_clock_says():
    account = state(update(balance(1)), update(balance(2)), update(balance(3)))
    account.begin()
    account.updated(update(balance(50)), 1, 40)

    assert account.balances["USD"].total == 50


@pytest.mark.req("F-73", "A-49")
def test_what_a_venue_does_not_tell_after_its_restart_is_nothing():
    account = state(
        update(balance(100), balance(2, currency="BTC"), position(10)),
        update(position(5, "MSFT")),
    )
    account.begin()
    account.updated(update(balance(50), position(7)), 1, 40)
    account.take_changes()

    account.venue_restarted()

    assert account.balances == {
        "USD": balance(50), "BTC": balance(0, currency="BTC")
    }  # fmt: skip
    assert account.positions["AAPL"] == position(7)
    assert account.positions["MSFT"].quantity == 0
    assert [type(row) for row in account.take_changes()] == [Balance, Position]


def test_the_rows_that_changed_are_told_once():
    account = state(update(balance(100), position(10)))

    assert account.take_changes() == [balance(100), position(10)]
    assert account.take_changes() == []

    account.updated(update(balance(100), position(11)), 2, 2)
    account.updated(update(position(12)), 3, 3)

    assert account.take_changes() == [position(12)]


def test_a_currency_and_a_symbol_may_have_the_same_name():
    account = state(update(balance(1, currency="BTC"), position(2, "BTC")))

    assert len(account.take_changes()) == 2
    assert account.balances["BTC"].total == 1
    assert account.positions["BTC"].quantity == 2


@pytest.mark.req("UO-06")
def test_another_account_is_not_ours():
    account = state(update(balance(100)), update(balance(5), account_id="eve"))

    assert account.balances["USD"].total == 100
    assert account.told_ms == 1
    assert account.discarded == 1


@pytest.mark.req("I-17")
def test_a_venue_cannot_make_us_remember_rows_without_end(monkeypatch):
    monkeypatch.setattr("feedhandler.account.ROWS", 2)
    account = state(
        update(*(balance(n, currency=f"C{n}") for n in range(5))),
        update(balance(9, currency="C1")),
    )

    assert [row.total for row in account.balances.values()] == [0, 9]
    assert account.discarded == 3


@pytest.mark.req("AC-06", "I-10")
def test_the_updates_of_the_venue_leave_what_its_ledger_has():
    venue = Venue()
    venue.house("sell", 100, 150)
    venue.submit("ann", "buy", 60, 150)
    venue.submit("ann", "buy", 10, 149)
    account = AccountState()
    for data in venue.on("account_updates", "ann"):
        account.updated(data, venue.now_ns // 1_000_000, 1)

    (now,) = venue.open("account_updates", "ann")
    assert account.balances == {row.currency: row for row in now.data.balances}
    assert account.positions == {row.symbol: row for row in now.data.positions}
    assert account.balances["USD"].reserved > 0

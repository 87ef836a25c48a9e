"""The order book: levels in any order in, the best *depth* of each side out."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedhandler.book import OrderBook


def filled(depth: int = 10) -> OrderBook:
    book = OrderBook(depth)
    book.replace_levels(
        [(150.0, 500.0), (149.95, 1000.0), (149.9, 750.0)],
        [(150.05, 300.0), (150.1, 800.0), (150.15, 600.0)],
    )
    return book


def test_a_new_book_is_empty():
    book = OrderBook(10)

    assert len(book) == 0
    assert book.best_bid is None
    assert book.best_ask is None
    assert book.bid_levels() == book.ask_levels() == []


@pytest.mark.parametrize("depth", [0, -1, 5001, 1_000_000_000])
def test_a_depth_outside_the_grammar_is_refused(depth: int):
    with pytest.raises(ValueError, match=f"depth {depth} is not 1 to 5000"):
        OrderBook(depth)


@pytest.mark.req("OB-04", "OB-05")
def test_levels_come_out_best_first():
    book = filled()

    assert book.bid_levels() == [(150.0, 500.0), (149.95, 1000.0), (149.9, 750.0)]
    assert book.ask_levels() == [(150.05, 300.0), (150.1, 800.0), (150.15, 600.0)]
    assert book.best_bid == (150.0, 500.0)
    assert book.best_ask == (150.05, 300.0)
    assert book.bid_levels(1) == [(150.0, 500.0)]
    assert book.ask_levels(0) == book.ask_levels(-1) == []


@pytest.mark.req("OB-05", "F-48")
@given(order=st.permutations(range(8)))
def test_a_shuffled_snapshot_gives_the_same_book(order: list[int]):
    bids = [(100.0 - i, float(i + 1)) for i in range(8)]
    asks = [(101.0 + i, float(i + 1)) for i in range(8)]
    book = OrderBook(8)
    book.replace_levels([bids[i] for i in order], [asks[i] for i in reversed(order)])

    assert book.bid_levels() == bids
    assert book.ask_levels() == asks


@pytest.mark.req("OB-07")
def test_a_known_price_gets_the_new_quantity():
    book = filled()
    book.update_levels([(150.0, 600.0)], [(150.1, 1.5)])

    assert book.bid_levels() == [(150.0, 600.0), (149.95, 1000.0), (149.9, 750.0)]
    assert book.ask_levels()[1] == (150.1, 1.5)


@pytest.mark.req("OB-08")
def test_a_new_price_is_inserted_where_it_belongs():
    book = filled()
    book.update_levels([(149.97, 1.0), (149.85, 2.0)], [(150.03, 3.0)])

    assert [price for price, _ in book.bid_levels()] == [
        150.0, 149.97, 149.95, 149.9, 149.85,
    ]  # fmt: skip
    assert book.best_ask == (150.03, 3.0)


@pytest.mark.req("OB-09")
def test_quantity_zero_removes_the_level():
    book = filled()
    book.update_levels([(149.95, 0.0)], [(150.05, 0)])

    assert book.bid_levels() == [(150.0, 500.0), (149.9, 750.0)]
    assert book.best_ask == (150.1, 800.0)


@pytest.mark.req("OB-09", "F-47")
def test_the_removal_of_an_unknown_level_changes_nothing():
    book = filled()
    bids, asks = book.bid_levels(), book.ask_levels()
    book.update_levels([(149.96, 0.0), (1.0, 0.0)], [(150.07, 0.0), (999.0, 0.0)])

    assert (book.bid_levels(), book.ask_levels()) == (bids, asks)


@pytest.mark.req("F-47")
def test_the_same_quantity_again_changes_nothing():
    book = filled()
    bids, asks = book.bid_levels(), book.ask_levels()
    book.update_levels(bids, asks)

    assert (book.bid_levels(), book.ask_levels()) == (bids, asks)


@pytest.mark.req("F-48")
def test_the_last_of_equal_prices_wins():
    book = OrderBook(10)
    book.replace_levels(
        [(100.0, 1.0), (99.0, 5.0), (100.0, 2.0), (99.0, 0.0)],
        [(101.0, 1.0), (101.0, 7.0)],
    )

    assert book.bid_levels() == [(100.0, 2.0)]
    assert book.ask_levels() == [(101.0, 7.0)]

    book.update_levels([(100.0, 0.0), (100.0, 3.0), (98.0, 1.0), (98.0, 0.0)], [])

    assert book.bid_levels() == [(100.0, 3.0)]


@pytest.mark.req("OB-02", "F-48")
def test_only_the_best_levels_stay():
    book = OrderBook(2)
    book.replace_levels(
        [(i, 1.0) for i in range(1, 9)], [(i, 1.0) for i in range(9, 20)]
    )

    assert book.bid_levels() == [(8.0, 1.0), (7.0, 1.0)]
    assert book.ask_levels() == [(9.0, 1.0), (10.0, 1.0)]

    book.update_levels([(8.5, 2.0), (1.0, 2.0)], [])

    assert book.bid_levels() == [(8.5, 2.0), (8.0, 1.0)]


def test_pruning_waits_for_the_end_of_the_message():
    book = OrderBook(2)
    book.replace_levels([(10.0, 1.0), (9.0, 1.0)], [])
    book.update_levels([(11.0, 1.0), (11.0, 0.0)], [])

    assert book.bid_levels() == [(10.0, 1.0), (9.0, 1.0)]


@pytest.mark.req("F-49")
def test_a_side_or_both_may_be_empty():
    book = filled()
    book.update_levels([(150.0, 0), (149.95, 0), (149.9, 0)], [])

    assert book.best_bid is None
    assert book.best_ask == (150.05, 300.0)

    book.replace_levels([], [])

    assert len(book) == 0
    assert book.best_ask is None

    book.update_levels([], [])

    assert len(book) == 0


@pytest.mark.req("F-50")
@pytest.mark.parametrize(
    "level",
    [
        (0.0, 1.0), (-1.0, 1.0), (-0.0, 1.0), (math.nan, 1.0), (math.inf, 1.0),
        (1.0, -1.0), (1.0, math.nan), (1.0, math.inf), (-math.inf, 0.0),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("side", ["bids", "asks"])
@pytest.mark.parametrize("method", ["replace_levels", "update_levels"])
def test_an_illegal_level_leaves_the_book_as_it_was(method, side, level):
    book = filled()
    bids, asks = book.bid_levels(), book.ask_levels()
    good = [(150.01, 1.0)]
    message = {"bids": good, "asks": good, side: [*good, level]}

    with pytest.raises(ValueError, match="is not"):
        getattr(book, method)(message["bids"], message["asks"])
    with pytest.raises(ValueError, match="is not"):
        (book.update_bid if side == "bids" else book.update_ask)(*level)
    assert (book.bid_levels(), book.ask_levels()) == (bids, asks)


@pytest.mark.parametrize(
    "levels", [[(1.0,)], [(1.0, 2.0, 3.0)], [("1", 2.0)], [None], 5]
)
def test_what_is_no_level_at_all_leaves_the_book_as_it_was(levels):
    book = filled()
    bids = book.bid_levels()

    with pytest.raises((TypeError, ValueError)):
        book.update_levels(levels, [])
    with pytest.raises((TypeError, ValueError)):
        book.replace_levels(bids, levels)
    assert book.bid_levels() == bids


@pytest.mark.req("OB-08", "OB-09")
def test_one_level_is_set_and_removed_without_lists():
    book = OrderBook(2)
    book.update_bid(150.0, 3.0)
    book.update_ask(150.5, 1)

    assert book.top == (150.0, 3.0, 150.5, 1.0)

    book.update_bid(150.0, 0.0)

    assert math.isnan(book.top[0])
    assert book.top[1:] == (0.0, 150.5, 1.0)


def test_negative_zero_removes_like_zero():
    book = filled()
    book.update_levels([(150.0, -0.0)], [])

    assert book.best_bid == (149.95, 1000.0)


@pytest.mark.parametrize("count", [3, 4, 63, 64, 65, 255, 256, 257, 600, 5000])
@pytest.mark.parametrize("best_first", [True, False])
def test_long_sorted_updates_are_applied_like_short_ones(count: int, best_first: bool):
    book = OrderBook(5000)
    model = {float(i): 1.0 for i in range(1, 2 * count, 2)}
    book.replace_levels(list(model.items()), list(model.items()))
    changes = [
        (float(i), float(i % 3)) for i in range(1, 2 * count, 2 if count % 2 else 3)
    ]
    changes += [(float(2 * count + i), 2.0) for i in range(7)]
    model |= dict(changes)
    expected = sorted(level for level in model.items() if level[1])
    book.update_levels(changes[:: -1 if best_first else 1], changes)

    assert book.bid_levels() == expected[::-1][:5000]
    assert book.ask_levels() == expected[:5000]


@given(
    held=st.lists(st.integers(1, 900), unique=True, max_size=700),
    changed=st.lists(st.integers(1, 900), unique=True, min_size=4, max_size=700),
    removed=st.integers(1, 5),
    best_first=st.booleans(),
)
def test_a_merge_equals_one_level_after_the_other(held, changed, removed, best_first):
    levels = [(float(price), 1.0) for price in held]
    changes = [
        (float(price), 0.0 if price % removed == 0 else 2.0)
        for price in sorted(changed, reverse=best_first)
    ]
    merged, plain = OrderBook(5000), OrderBook(5000)
    for book in (merged, plain):
        book.replace_levels(levels, levels)
    merged.update_levels(changes, changes)
    for change in changes:
        plain.update_levels([change], [change])

    assert merged.bid_levels() == plain.bid_levels()
    assert merged.ask_levels() == plain.ask_levels()

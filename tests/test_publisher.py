"""What other processes see: the book as the session has it."""

import random

import pytest

from feedhandler.board import Board, BoardReader
from feedhandler.publisher import Publisher
from feedhandler.records import QUOTE, TRADE
from feedhandler.ring import Ring
from tests.feeds import Levels, live_feed

CHANNEL = "orderbook:AAPL:20"
WINDOW = 10


def anything(chance: random.Random, side: range) -> Levels:
    """Some levels, mostly few, in one of the orders in which venues send them."""
    prices = chance.sample(side, chance.choice([0, 1, 1, 2, 5, 12, 30]))
    order = chance.choice([sorted, list, lambda p: sorted(p, reverse=True)])
    return [(float(p), chance.choice([0.0, 0.0, 1.0, 2.0])) for p in order(prices)]


@pytest.mark.req("OB-11", "OB-02")
@pytest.mark.parametrize("seed", range(4))
def test_the_board_is_the_top_of_the_book_after_every_message(seed: int):
    memory = bytearray(Board.size_for(4, WINDOW))
    board = Board(memory, 4, WINDOW)
    board.add("AAPL")
    quotes, trades = (
        Ring(bytearray(Ring.size_for(kind, 64)), kind, 64) for kind in (QUOTE, TRADE)
    )
    feed = live_feed(CHANNEL, sink=Publisher(quotes, trades, board))
    reader, book = BoardReader(memory), feed.book(CHANNEL)
    chance, deepest = random.Random(seed), 0
    for sequence in range(101, 700):
        levels = anything(chance, range(1, 41)), anything(chance, range(41, 81))
        send = feed.snapshot if chance.random() < 0.02 else feed.update
        send(sequence, *levels, channel=CHANNEL)
        depth = reader.depth("AAPL")

        assert depth.bids.tolist() == [list(level) for level in book.bids(WINDOW)]
        assert depth.asks.tolist() == [list(level) for level in book.asks(WINDOW)]
        assert depth.top.flags & 0xFF == book.flags
        deepest = max(deepest, len(book.asks()))

    assert deepest == 20

"""Where events go: two sinks at once, and sinks in Python."""

from typing import Any

import pytest

from feedhandler.board import Board, BoardReader
from feedhandler.publisher import Publisher
from feedhandler.records import QUOTE, TRADE, Flags
from feedhandler.ring import Reader, Ring
from feedhandler.sink import PythonSink, Sink, Tee
from tests.feeds import AAPL, SOUND, Feed, Recorder
from tests.test_codec import CHANNELS, MESSAGES


class Raising(PythonSink):
    def quote(self, event: Any) -> None:
        raise RuntimeError("quote")

    def trade(self, event: Any) -> None:
        raise RuntimeError("trade")

    def ticker(self, event: Any) -> None:
        raise RuntimeError("ticker")

    def candle(self, event: Any) -> None:
        raise RuntimeError("candle")


def shared() -> tuple[Publisher, Reader, Reader, BoardReader]:
    quotes = bytearray(Ring.size_for(QUOTE, 64))
    trades = bytearray(Ring.size_for(TRADE, 64))
    page = bytearray(Board.size_for(4, 5))
    board = Board(page, 4, 5)
    publisher = Publisher(Ring(quotes, QUOTE, 64), Ring(trades, TRADE, 64), board)
    board.add("AAPL")
    return (
        publisher,
        Reader(quotes, start="oldest"),
        Reader(trades, start="oldest"),
        BoardReader(page),
    )


def play(sink: Sink, **options: Any) -> Feed:
    feed = Feed(sink=sink, opened=False, **options)
    for channel in CHANNELS:
        feed.session.add(channel, 0)
    feed.open()
    for message in MESSAGES.values():
        feed.receive(message)
    return feed


def test_a_sink_of_nothing_takes_everything():
    assert play(Sink()).counter("faults") == 0
    assert play(PythonSink()).counter("faults") == 0


def test_a_python_sink_sees_whatever_there_is():
    sink = Recorder()
    play(sink)

    assert [quote.sequence for quote in sink.quotes] == [100, 101]
    assert sink.quotes[1]._asdict() == {
        "instrument": 0,
        "flags": Flags.LIVE,
        "sequence": 101,
        "epoch": 2,
        "venue_ns": sink.trades[0].venue_ns,
        "recv_ns": sink.trades[0].recv_ns,
        "bid_price": 150.0,
        "bid_size": 600.0,
        "ask_price": 150.1,
        "ask_size": 800.0,
    }
    assert (len(sink.trades), len(sink.tickers), len(sink.candles)) == (1, 1, 1)


def test_a_tee_gives_everything_to_both_the_first_one_first():
    order = []

    class Named(PythonSink):
        def __init__(self, name: str) -> None:
            self.name = name

        def quote(self, event: Any) -> None:
            order.append((self.name, event.sequence))

    second = Recorder()
    play(Tee(Tee(Named("a"), Named("b"), order.append), second, order.append))

    assert order == [("a", 100), ("b", 100), ("a", 101), ("b", 101)]
    assert len(second.quotes) == 2


@pytest.mark.req("F-29", "I-23")
def test_what_the_first_raises_is_reported_and_the_second_gets_it_all_the_same():
    errors: list[Exception] = []
    second = Recorder()
    feed = play(Tee(Raising(), second, errors.append))

    assert [str(error) for error in errors] == [
        "quote", "quote", "trade", "ticker", "candle",
    ]  # fmt: skip
    assert len(second.quotes) == 2
    assert (len(second.trades), len(second.tickers), len(second.candles)) == (1, 1, 1)
    assert feed.book().is_live
    assert feed.counter("faults") == 0


@pytest.mark.parametrize(
    "arguments", [(None, Sink(), print), (Sink(), None, print), (Sink(), Sink(), None)]
)
def test_a_tee_of_nothing_is_refused(arguments):
    with pytest.raises(TypeError):
        Tee(*arguments)


@pytest.mark.req("BP-10")
def test_the_publisher_writes_both_rings_and_the_board():
    publisher, quotes, trades, board = shared()
    play(publisher)

    assert quotes.poll()["sequence"].tolist() == [100, 101]
    assert trades.poll()["price"].tolist() == [150.25]
    number = board.find("AAPL")
    assert number == 0
    assert board.top("AAPL").bid_size == 600.0
    assert board.ticker("AAPL").last_price == 150.25
    assert board.candle("AAPL", "1m").close == 150.25


def test_a_change_below_the_top_reaches_the_board_though_it_is_no_quote():
    publisher, quotes, _, board = shared()
    feed = play(publisher, changes_only=True)
    quotes.poll()
    feed.update(102, [(149.0, 3.0)], channel=AAPL)

    assert len(quotes.poll()) == 0
    assert (149.0, 3.0) in [tuple(level) for level in board.depth("AAPL").bids]
    assert board.top("AAPL").sequence == 102


def test_all_levels_of_messages_with_one_quote_reach_the_board():
    publisher, quotes, _, board = shared()
    feed = play(publisher, last_in_read=True)
    quotes.poll()
    feed.update(102, [(150.0, 7.0)], [(150.05, 8.0)], channel=AAPL)
    feed.update(103, [(149.0, 3.0)], channel=AAPL)
    feed.update(104, [], [(150.2, 4.0)], channel=AAPL)
    feed.session.read_ended()

    assert quotes.poll()["sequence"].tolist() == [104]
    book, depth = feed.book(), board.depth("AAPL")
    assert [tuple(level) for level in depth.bids] == book.bids(5)
    assert [tuple(level) for level in depth.asks] == book.asks(5)
    assert (150.0, 7.0) in book.bids(5)
    assert (150.05, 8.0) in book.asks(5)


def test_the_board_has_at_most_its_levels():
    publisher, _, _, board = shared()
    feed = play(publisher)
    feed.snapshot(200, [(100.0 - i, 1.0) for i in range(10)], SOUND[1])

    assert len(board.depth("AAPL").bids) == 5

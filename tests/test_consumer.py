"""A consumer process: the whole picture, a writer's restart, and no heavy imports."""

import os
import struct
import subprocess
import sys
import textwrap
import time
from types import SimpleNamespace

import numpy as np
import pytest

from feedhandler import consumer, shm
from feedhandler.board import Board
from feedhandler.counters import Counters
from feedhandler.errors import RingAbsent, RingInvalid, UnknownSymbol
from feedhandler.records import (
    ACCOUNT,
    CANDLE,
    FILL,
    NOTICE,
    ORDER_EVENT,
    QUOTE,
    TICKER,
    TRADE,
    Flags,
)
from feedhandler.ring import Ring
from feedhandler.shm import Status


class Feed:
    """A writer's whole set of segments, the board last."""

    def __init__(self, directory, symbols=("AAPL", "BTC"), counters=True) -> None:
        self.origin = shm.origin()
        self.segments: list = []
        self.quotes = self.make(
            directory, "quotes", Ring.size_for(QUOTE, 64), Ring, QUOTE, 64
        )
        self.trades = self.make(
            directory, "trades", Ring.size_for(TRADE, 64), Ring, TRADE, 64
        )
        if counters:
            self.counters = self.make(
                directory, "counters", Counters.size_for(1, 1), Counters,
                ["gaps"], ["decode"],
            )  # fmt: skip
        self.board = self.make(
            directory, "board", Board.size_for(64, 10), Board, 64, 10
        )
        for symbol in symbols:
            self.board.add(symbol)

    def make(self, directory, stream, size, kind, *arguments):
        owned = shm.create("md", stream, size, directory=directory, origin=self.origin)
        writer = kind(owned.buffer, *arguments, owned.origin)
        owned.publish()
        self.segments.append(SimpleNamespace(owned=owned, writer=writer))
        return writer

    def quote(self, price: float, flags: int = Flags.LIVE) -> None:
        record = np.zeros(1, QUOTE)
        record["bid_price"], record["flags"] = price, flags
        self.quotes.publish_record(record)
        self.board.write_quote(record, bids=[(price, 1.0)])

    def close(self) -> None:
        for segment in reversed(self.segments):
            segment.writer.release()
            segment.owned.close()


@pytest.fixture
def feed(tmp_path):
    feed = Feed(tmp_path)
    yield feed
    feed.close()


@pytest.fixture
def market(feed, tmp_path):
    with consumer.attach("md", directory=tmp_path) as market:
        yield market


def wait_for(stream, count: int = 1, seconds: float = 5.0) -> np.ndarray:
    batches, deadline = [], time.monotonic() + seconds
    while sum(map(len, batches)) < count:
        assert time.monotonic() < deadline, "nothing came"
        stream.wait(0.5)
        batches.append(stream.poll())
    return np.concatenate([batch for batch in batches if len(batch)])


def wait_until_live(market: consumer.MarketData, seconds: float = 5.0) -> None:
    """A writer that was without a processor for long is STALLED, and back at once."""
    deadline = time.monotonic() + seconds
    while not market.is_live("AAPL"):
        assert time.monotonic() < deadline, market.status().state


def test_a_consumer_imports_neither_asyncio_nor_picows():
    script = """
        import sys
        import feedhandler.consumer
        print([name for name in ("asyncio", "picows", "msgspec", "uvloop", "rich")
               if name in sys.modules])
    """
    answer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert answer.stdout == "[]\n"


def test_an_absent_feed_is_one_clear_line(tmp_path):
    with pytest.raises(RingAbsent, match=r"^no segment fh-md.board in .*running\?$"):
        consumer.attach("md", directory=tmp_path)


def test_the_market_is_what_the_writer_stored(feed, market):
    ticker, candle = np.zeros(1, TICKER), np.zeros(1, CANDLE)
    ticker["recv_ns"], ticker["last_price"] = 1, 9.0
    candle["recv_ns"], candle["close"] = 1, 8.0
    feed.quote(5.0)
    feed.board.write_ticker(ticker)
    feed.board.write_candle(0, "1m", candle)

    assert market.symbols() == ["AAPL", "BTC"]
    assert market.top("AAPL").bid_price == 5.0
    assert market.depth("AAPL").bids.tolist() == [[5.0, 1.0]]
    assert market.ticker("AAPL").last_price == 9.0
    assert market.candle("AAPL", "1m").close == 8.0
    assert market.candle("AAPL", "1h") is None
    with pytest.raises(UnknownSymbol):
        market.top("TSLA")


def test_streams_bring_records_of_both_kinds(feed, market):
    quotes, trades = market.quotes(), market.trades()
    feed.quote(5.0)
    trade = np.zeros(1, TRADE)
    trade["trade_id"] = b"t-1"
    feed.trades.publish_record(trade)

    assert quotes.poll()["bid_price"].tolist() == [5.0]
    assert trades.poll()["trade_id"].tolist() == [b"t-1"]
    assert quotes.status is Status.LIVE
    assert market.quotes(start="oldest").poll()["seq"].tolist() == [1]


PRIVATE = {
    "orders": ORDER_EVENT, "fills": FILL, "account": ACCOUNT, "notices": NOTICE,
}  # fmt: skip


@pytest.mark.parametrize("stream", PRIVATE)
def test_private_streams_are_there_where_the_feed_has_them(
    feed, market, stream, tmp_path
):
    dtype = PRIVATE[stream]
    with pytest.raises(RingAbsent, match=f"^feed md has no stream {stream}, which "):
        getattr(market, stream)()
    ring = feed.make(tmp_path, stream, Ring.size_for(dtype, 64), Ring, dtype, 64)
    records = getattr(market, stream)()
    record = np.zeros(1, dtype)
    record["recv_ns"] = 7
    ring.publish_record(record)

    assert wait_for(records)["recv_ns"].tolist() == [7]
    assert getattr(market, stream)(start="oldest").poll()["seq"].tolist() == [1]


def test_a_private_stream_of_another_layout_is_refused(feed, market, tmp_path):
    feed.make(tmp_path, "orders", Ring.size_for(FILL, 64), Ring, FILL, 64)

    with pytest.raises(RingInvalid, match="records are"):
        market.orders()


def test_status_tells_who_writes_and_how_it_is(feed, market):
    feed.counters.increment("gaps", 3)
    feed.counters.observe("decode", 50)
    feed.board.heartbeat(time.monotonic_ns())
    status = market.status()

    assert status.state is Status.LIVE
    assert 0 <= status.heartbeat_age_ns < shm.STALLED_NS
    assert (status.pid, status.epoch) == (os.getpid(), feed.origin.epoch)
    assert status.instruments == 2
    assert status.counters == market.counters() == {"gaps": 3}
    assert market.histogram("decode").max == 50


def test_a_feed_without_counters_has_a_status(tmp_path):
    feed = Feed(tmp_path, counters=False)
    with consumer.attach("md", directory=tmp_path) as market:
        assert market.status().counters == {}
        with pytest.raises(RingAbsent):
            market.counters()
    feed.close()


def test_the_offset_turns_record_times_into_monotonic(feed, market):
    now_ns = time.monotonic_ns() + market.utc_offset_ns

    assert abs(now_ns - time.time_ns()) < 1_000_000_000
    assert market.utc_offset_ns == (
        feed.origin.created_realtime_ns - feed.origin.created_monotonic_ns
    )


@pytest.mark.req("F-77")
def test_live_needs_the_flag_and_the_writer(feed, market):
    assert not market.is_live("AAPL")
    feed.quote(5.0)
    assert market.is_live("AAPL")
    feed.quote(5.0, Flags.STALE)
    assert not market.is_live("AAPL")
    feed.quote(5.0)
    feed.board.heartbeat(time.monotonic_ns() - 2 * shm.STALLED_NS)
    assert not market.is_live("AAPL")
    feed.board.heartbeat(time.monotonic_ns())
    assert market.is_live("AAPL")
    feed.close()
    assert not market.is_live("AAPL")
    assert market.status().state is Status.CLOSED
    assert market.top("AAPL").bid_price == 5.0


@pytest.mark.req("F-78")
def test_a_restart_is_reported_and_followed(feed, market, tmp_path):
    quotes = market.quotes()
    feed.quote(1.0)
    assert len(quotes.poll()) == 1
    feed.quote(2.0)
    feed.close()
    successor = Feed(tmp_path, symbols=["BTC", "AAPL"])
    successor.quote(3.0)
    old = quotes.poll()
    reset_before_old_was_read = quotes.resets
    new = wait_for(quotes)

    assert old["bid_price"].tolist() == [2.0]
    assert reset_before_old_was_read == 0
    assert new["bid_price"].tolist() == [3.0]
    assert new["seq"].tolist() == [1]
    assert (quotes.resets, quotes.lost) == (1, 0)
    assert quotes.epoch == successor.origin.epoch
    assert market.symbols() == ["BTC", "AAPL"]
    assert market.status().epoch == successor.origin.epoch
    assert market.is_live("BTC")
    assert market.counters() == {"gaps": 0}
    successor.close()


@pytest.mark.req("F-78")
def test_polling_alone_finds_the_new_writer_too(feed, market, tmp_path):
    quotes = market.quotes()
    feed.close()
    successor = Feed(tmp_path)
    successor.quote(3.0)
    deadline = time.monotonic() + 5
    while not len(records := quotes.poll()):
        assert time.monotonic() < deadline

    assert records["bid_price"].tolist() == [3.0]
    assert quotes.resets == 1
    successor.close()


def test_a_reader_waits_through_the_time_without_a_writer(feed, market, tmp_path):
    quotes = market.quotes()
    feed.quote(1.0)
    feed.close()

    assert len(quotes.poll()) == 1
    assert quotes.wait(0.15) is False
    assert quotes.status is Status.CLOSED
    assert market.status().instruments == 2
    successor = Feed(tmp_path)
    successor.quote(3.0)
    assert wait_for(quotes)["bid_price"].tolist() == [3.0]
    successor.close()


def test_a_successor_of_another_layout_is_refused(feed, market, tmp_path):
    quotes = market.quotes()
    feed.close()
    owned = shm.create("md", "quotes", Ring.size_for(TRADE, 64), directory=tmp_path)
    ring = Ring(owned.buffer, TRADE, 64, owned.origin)
    owned.publish()

    with pytest.raises(RingInvalid, match="records are"):
        wait_for(quotes)
    ring.release()
    owned.close()


WRITER = """
    import sys, time
    import numpy as np
    from feedhandler import shm
    from feedhandler.board import Board
    from feedhandler.records import QUOTE
    from feedhandler.ring import Ring

    origin = shm.origin()
    def make(stream, size, kind, *arguments):
        owned = shm.create("md", stream, size, directory=sys.argv[1], origin=origin)
        writer = kind(owned.buffer, *arguments, owned.origin)
        owned.publish()
        return owned, writer
    _, ring = quotes = make("quotes", Ring.size_for(QUOTE, 1024), Ring, QUOTE, 1024)
    _, board = top = make("board", Board.size_for(64), Board, 64, 10)
    board.add("AAPL")
    quote = np.zeros(1, QUOTE)
    quote["flags"] = 1
    print("ready", flush=True)
    while True:
        now = time.monotonic_ns()
        ring.heartbeat(now)
        board.heartbeat(now)
        ring.publish_record(quote)
        board.write_quote(quote)
"""


@pytest.mark.req("F-76", "F-78")
def test_a_consumer_survives_the_death_of_its_writer(tmp_path):
    def start() -> subprocess.Popen:
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)],
            stdout=subprocess.PIPE,
        )
        assert child.stdout.readline() == b"ready\n"
        return child

    writer = start()
    try:
        market = consumer.attach("md", directory=tmp_path)
        quotes = market.quotes()
        wait_for(quotes, 100)
        wait_until_live(market)
        writer.kill()
        writer.communicate()
        while quotes.has_next():
            quotes.poll()
            quotes.take_one()
        assert quotes.status is Status.DEAD
        assert market.status().state is Status.DEAD
        assert not market.is_live("AAPL")
        assert market.top("AAPL").is_live
        assert quotes.received + quotes.lost == quotes.position - quotes.start
        writer = start()
        wait_for(quotes, 100)
        assert quotes.resets == 1
        wait_until_live(market)
        market.close()
    finally:
        writer.kill()
        writer.communicate()


@pytest.mark.req("F-80")
def test_readers_that_come_and_go_leave_the_writer_alone(feed, tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        with consumer.attach("md", directory=tmp_path) as market:
            market.quotes()
            market.trades()
            market.status()
        feed.quote(1.0)

    assert len(os.listdir("/proc/self/fd")) == before
    assert feed.quotes.published == 100
    assert all(segment.owned.is_linked() for segment in feed.segments)


def test_a_closed_market_says_so(feed, tmp_path):
    market = consumer.attach("md", directory=tmp_path)
    quotes = market.quotes()
    market.close()
    market.close()

    for call in (market.symbols, market.status, quotes.poll):
        with pytest.raises(ValueError, match=r"closed|released"):
            call()


def test_filling_alone_finds_the_new_writer_too(feed, market, tmp_path):
    quotes = market.quotes()
    prices = quotes.columns["bid_price"]
    feed.quote(1.0)

    assert quotes.fill() == 1
    assert prices[0] == 1.0
    feed.close()
    successor = Feed(tmp_path)
    successor.quote(3.0)
    deadline = time.monotonic() + 5
    while not quotes.fill():
        assert time.monotonic() < deadline

    assert quotes.resets == 1
    assert quotes.columns["bid_price"] is prices
    assert prices[0] == 3.0
    successor.close()


@pytest.mark.req("F-76")
@pytest.mark.parametrize("read", ["poll", "fill"])
def test_a_record_that_its_dead_writer_did_not_count_is_read(tmp_path, read):
    """The writer died between the record's own word and the head: one kill in ten."""
    size = Ring.size_for(QUOTE, 64)
    with shm.create("md", "quotes", size, directory=tmp_path) as owned:
        ring = Ring(owned.buffer, QUOTE, 64, owned.origin)
        ring.publish_records(np.zeros(3, QUOTE))
        struct.pack_into("<Q", memoryview(owned.buffer), 0x1000, 2)
        owned.publish()
        stream = consumer.Stream(
            consumer.Source("md", tmp_path, None), "quotes", QUOTE, 0, "half"
        )
        ring.release()
    deadline = time.monotonic() + 5
    count = 0
    while count < 3:
        assert time.monotonic() < deadline
        count += stream.fill() if read == "fill" else len(stream.poll())

    assert stream.status is Status.CLOSED
    assert (stream.received, stream.lost) == (3, 0)
    stream.close()

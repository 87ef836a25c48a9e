"""The board: the latest of every instrument, always of one moment."""

import json
import math
import struct
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedhandler.board import Board, BoardReader
from feedhandler.errors import RingError, RingInvalid, UnknownSymbol
from feedhandler.records import CANDLE, INTERVAL_NAMES, QUOTE, TICKER, Flags
from feedhandler.segment import read_meta

ENTRIES = 0x3000
ENTRY = 1024
BUSY = 1 << 63
NO_CHANGE = 2**31 - 1


def new_board(instruments: int = 64, levels: int = 10) -> tuple[bytearray, Board]:
    buffer = bytearray(Board.size_for(instruments, levels))
    return buffer, Board(buffer, instruments, levels)


def quote(instrument: int = 0, flags: int = Flags.LIVE, **fields: float) -> np.ndarray:
    record = np.zeros(1, QUOTE)
    record["instrument"], record["flags"] = instrument, flags
    for name, value in fields.items():
        record[name] = value
    return record


def rows(side: np.ndarray) -> list[tuple[float, float]]:
    return [tuple(row) for row in side.tolist()]


def test_the_meta_page_describes_the_entry():
    buffer, _ = new_board()
    meta = read_meta(buffer)
    schema = json.loads(meta.schema)

    assert (meta.kind, meta.capacity, meta.slot_size) == (3, 64, ENTRY)
    assert meta.slots_offset == ENTRIES
    assert schema["directory"] == {"offset": 0x2000, "size": 32, "count": 0x1000}
    assert schema["entry_size"] == ENTRY
    assert schema["levels"] == 10
    assert schema["entry"] == {
        "seq": 0,
        "status": 8,
        "sequence": 16,
        "session_epoch": 24,
        "bid_count": 28,
        "ask_count": 32,
        "quote": 64,
        "ticker": 128,
        "candles": 256,
        "bids": 704,
        "asks": 864,
    }


def test_values_are_where_the_schema_says():
    buffer, board = new_board()
    board.add("AAPL")
    board.add("BTC-USD")
    board.write_quote(
        quote(1, bid_price=5.0), 1 << 40, 9, bids=[(5, 1), (4, 2)], asks=[(6, 3)]
    )
    entry = ENTRIES + ENTRY

    assert buffer[0x2000:0x2020] == b"AAPL".ljust(32, b"\0")
    assert buffer[0x2020:0x2040] == b"BTC-USD".ljust(32, b"\0")
    assert struct.unpack_from("<Q", buffer, 0x1000) == (2,)
    assert struct.unpack_from("<QII", buffer, entry) == (2, 1, 0)
    assert struct.unpack_from("<QIii", buffer, entry + 16) == (1 << 40, 9, 2, 1)
    assert struct.unpack_from("<d", buffer, entry + 64 + 32) == (5.0,)
    assert struct.unpack_from("<4d", buffer, entry + 704) == (5, 1, 4, 2)
    assert struct.unpack_from("<2d", buffer, entry + 864) == (6, 3)


@pytest.mark.parametrize(("levels", "entry"), [(1, 768), (10, 1024), (100, 3904)])
def test_entries_are_whole_lines_and_fit_a_slot(levels, entry):
    buffer, _ = new_board(200, levels)

    assert read_meta(buffer).slot_size == entry
    assert read_meta(buffer).capacity == 256


def test_a_board_refuses_sizes_that_it_cannot_have():
    for instruments, levels in [(0, 10), (65_537, 10), (10, 0), (10, 101), (10, -1)]:
        with pytest.raises(ValueError, match="not 1 to"):
            Board.size_for(instruments, levels)


def test_symbols_keep_their_numbers():
    buffer, board = new_board()
    reader = BoardReader(buffer)

    assert reader.symbols() == []
    assert [board.add("AAPL"), board.add("MSFT"), board.add("AAPL")] == [0, 1, 0]
    assert reader.symbols() == board.symbols() == ["AAPL", "MSFT"]
    assert reader.find("MSFT") == 1
    assert board.add("X" * 32) == 2
    assert reader.find("X" * 32) == 2
    with pytest.raises(UnknownSymbol, match="TSLA"):
        reader.find("TSLA")


def test_a_full_board_says_so():
    _, board = new_board(64)
    for number in range(64):
        board.add(f"S{number}")

    with pytest.raises(RingError, match="full with 64"):
        board.add("ONEMORE")


@pytest.mark.req("F-85", "SEC-20")
@pytest.mark.parametrize(
    "symbol",
    ["", "../x", "A\0", "A" * 33, "A" * 300, "BTC/USD", "%n", "aapl", "ААPL", "A B",
     "A\n", "-A", ".A"],
)  # fmt: skip
def test_a_hostile_symbol_is_refused(symbol):
    buffer, board = new_board()

    with pytest.raises(ValueError, match="symbol is"):
        board.add(symbol)
    assert BoardReader(buffer).symbols() == []


@pytest.mark.req("SEC-20")
def test_symbols_that_look_alike_stay_distinct():
    buffer, board = new_board()
    numbers = [board.add(symbol) for symbol in ("A.B", "A_B", "A-B", "AB")]

    assert numbers == [0, 1, 2, 3]
    assert [BoardReader(buffer).find(s) for s in ("A.B", "A_B", "A-B", "AB")] == numbers


def test_nothing_is_known_of_a_new_instrument():
    buffer, board = new_board()
    board.add("AAPL")
    reader = BoardReader(buffer)
    top = reader.top("AAPL")

    assert math.isnan(top.bid_price)
    assert math.isnan(top.ask_price)
    assert top.flags == Flags.STALE | Flags.NO_BID | Flags.NO_ASK
    assert not top.is_live
    assert len(reader.depth("AAPL").bids) == 0
    assert reader.ticker("AAPL") is None
    assert reader.candle("AAPL", "1m") is None


def test_the_last_quote_wins():
    buffer, board = new_board()
    board.add("AAPL")
    reader = BoardReader(buffer)
    board.write_quote(quote(bid_price=1.0), 1, 1)
    board.write_quote(
        quote(bid_price=10.5, bid_size=1, ask_price=10.6, ask_size=2, venue_ns=3,
              recv_ns=4), 1 << 50, 300,
    )  # fmt: skip

    assert reader.top("AAPL") == (
        "AAPL", 10.5, 1.0, 10.6, 2.0, 3, 4, 1 << 50, 300, Flags.LIVE, True,
    )  # fmt: skip


def test_an_instrument_that_was_not_added_is_ignored():
    buffer, board = new_board()
    board.add("AAPL")
    before = bytes(buffer)
    candle = np.ones(1, CANDLE)
    ticker = np.zeros(1, TICKER)
    ticker["instrument"] = 1
    board.write_quote(quote(1))
    board.write_quote(quote(65_535))
    board.write_ticker(ticker)
    board.write_candle(1, "1m", candle)
    board.write_candle(-1, "1m", candle)

    assert buffer == before


def test_a_quote_without_levels_keeps_them():
    buffer, board = new_board()
    board.add("AAPL")
    board.write_quote(quote(), bids=[(5, 1)], asks=[(6, 1)])
    board.write_quote(quote(flags=Flags.STALE))
    depth = BoardReader(buffer).depth("AAPL")

    assert rows(depth.bids) == [(5, 1)]
    assert rows(depth.asks) == [(6, 1)]
    assert depth.top.flags == Flags.STALE


def test_levels_are_copied_from_the_best_rank_that_changed():
    buffer, board = new_board(levels=3)
    board.add("AAPL")
    reader = BoardReader(buffer)
    board.write_quote(quote(), bids=[(9, 1), (8, 1), (7, 1)])
    board.write_quote(quote(), bids=[(99, 9), (6, 2), (5, 2)], bid_changed=1)

    assert rows(reader.depth("AAPL").bids) == [(9, 1), (6, 2), (5, 2)]
    board.write_quote(quote(), bids=[(1, 1)] * 5, bid_changed=3)
    board.write_quote(quote(), bids=[(1, 1)] * 5, bid_changed=NO_CHANGE)
    assert rows(reader.depth("AAPL").bids) == [(9, 1), (6, 2), (5, 2)]


def test_levels_that_are_gone_are_cleared():
    buffer, board = new_board(levels=3)
    board.add("AAPL")
    board.write_quote(quote(), bids=[(9, 1), (8, 1), (7, 1)], asks=[(10, 1)])
    board.write_quote(quote(), bids=[(9, 1)], asks=[], bid_changed=1)
    place = struct.unpack_from("<12d", buffer, ENTRIES + 704)
    depth = BoardReader(buffer).depth("AAPL")

    assert rows(depth.bids) == [(9, 1)]
    assert depth.asks.shape == (0, 2)
    assert place[:2] == (9, 1)
    assert all(math.isnan(price) for price in place[2::2])
    assert set(place[3::2]) == {0.0}


levels = st.dictionaries(st.integers(1, 30), st.integers(1, 9), max_size=12)


def first_change(old: list, new: list) -> int:
    ranks = range(max(len(old), len(new)))
    return next((r for r in ranks if old[r : r + 1] != new[r : r + 1]), NO_CHANGE)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(levels, levels), max_size=8), st.integers(1, 8))
def test_the_window_is_the_top_of_the_book_whatever_changes(books, window):
    """The model: the whole book, sorted; the change told is the first that differs."""
    buffer, board = new_board(levels=window)
    board.add("AAPL")
    reader = BoardReader(buffer)
    before: list[list] = [[], []]
    for sides in books:
        now = [sorted(side.items(), reverse=not i) for i, side in enumerate(sides)]
        changed = [first_change(*pair) for pair in zip(before, now, strict=True)]
        board.write_quote(
            quote(), bids=now[0], asks=now[1], bid_changed=changed[0],
            ask_changed=changed[1],
        )  # fmt: skip
        depth = reader.depth("AAPL")
        assert rows(depth.bids) == now[0][:window]
        assert rows(depth.asks) == now[1][:window]
        before = now


def test_depth_is_a_private_copy():
    buffer, board = new_board()
    board.add("AAPL")
    board.write_quote(quote(), bids=[(5, 1)])
    reader = BoardReader(buffer)
    first = reader.depth("AAPL")
    board.write_quote(quote(), bids=[(4, 1)])
    first.bids[0, 1] = 77

    assert rows(first.bids) == [(5, 77)]
    assert rows(reader.depth("AAPL").bids) == [(4, 1)]


def test_ticker_and_candles_are_kept_apart():
    buffer, board = new_board()
    board.add("AAPL")
    reader = BoardReader(buffer)
    ticker = np.zeros(1, TICKER)
    for number, name in enumerate(TICKER.names[5:]):
        ticker[name] = number + 1
    ticker["venue_ns"], ticker["recv_ns"] = 11, 12
    board.write_ticker(ticker)
    for number, interval in enumerate(INTERVAL_NAMES):
        candle = np.zeros(1, CANDLE)
        candle["recv_ns"], candle["close"] = 1, number
        board.write_candle(0, interval, candle)

    assert reader.ticker("AAPL") == ("AAPL", 11, 12, *range(1, 11))
    for number, interval in enumerate(INTERVAL_NAMES):
        assert reader.candle("AAPL", interval).interval == interval
        assert reader.candle("AAPL", interval).close == number
    with pytest.raises(ValueError, match="interval is '2m', not one of 1m"):
        reader.candle("AAPL", "2m")


def test_a_removed_instrument_is_not_live_and_comes_back_blank():
    buffer, board = new_board()
    board.add("AAPL")
    reader = BoardReader(buffer)
    board.write_quote(quote(bid_price=5.0))
    assert reader.is_listed("AAPL")
    board.remove("AAPL")

    assert not reader.is_listed("AAPL")
    assert not reader.top("AAPL").is_live
    assert reader.top("AAPL").bid_price == 5.0
    assert board.add("MSFT") == 1
    assert board.add("AAPL") == 0
    assert reader.is_listed("AAPL")
    assert math.isnan(reader.top("AAPL").bid_price)
    with pytest.raises(UnknownSymbol):
        board.remove("TSLA")


@pytest.mark.req("F-76")
def test_an_entry_that_stays_half_written_is_an_error_not_a_hang():
    buffer, board = new_board()
    board.add("AAPL")
    struct.pack_into("<Q", buffer, ENTRIES, BUSY | 2)
    before = time.monotonic()

    with pytest.raises(RingError, match="half-written"):
        BoardReader(buffer).top("AAPL")
    assert time.monotonic() - before < 5


def test_a_released_board_stores_nothing():
    buffer, board = new_board()
    board.add("AAPL")
    reader = BoardReader(buffer)
    board.release()
    before = bytes(buffer)
    board.write_quote(quote(), bids=[(1, 1)])

    assert buffer == before
    with pytest.raises(ValueError, match="released"):
        board.add("MSFT")
    with pytest.raises(ValueError, match="released"):
        board.remove("AAPL")
    reader.release()
    with pytest.raises(ValueError, match="released"):
        reader.symbols()


def test_records_of_the_wrong_size_are_refused():
    _, board = new_board()
    board.add("AAPL")

    for write in (board.write_quote, board.write_ticker):
        with pytest.raises(ValueError, match="record is 3 bytes"):
            write(b"abc")
    with pytest.raises(ValueError, match="record is 3 bytes"):
        board.write_candle(0, "1m", b"abc")


@pytest.mark.req("F-84")
def test_a_segment_that_is_no_board_is_refused():
    from feedhandler.ring import Ring

    buffer = bytearray(Ring.size_for(QUOTE, 64))
    Ring(buffer, QUOTE, 64)

    with pytest.raises(RingInvalid, match="not that of a board"):
        BoardReader(buffer)


@pytest.mark.req("F-84", "SEC-19")
def test_a_directory_count_beyond_the_capacity_is_cut():
    buffer, board = new_board()
    board.add("AAPL")
    struct.pack_into("<Q", buffer, 0x1000, 2**63)
    buffer[0x2020:0x2040] = b"\xff" * 32
    reader = BoardReader(buffer)

    assert len(reader.symbols()) == 64
    assert reader.symbols()[1] == r"\xff" * 32


WRITER = """
    import sys
    import numpy as np
    from feedhandler.board import Board
    from feedhandler.records import QUOTE
    from feedhandler.segment import Mapping

    size = Board.size_for(64, 10)
    with open(sys.argv[1], "r+b") as file:
        mapping = Mapping(file.fileno(), size, writable=True)
    board = Board(mapping, 64, 10)
    board.add("AAPL")
    print("writing", flush=True)
    number = 0
    while True:
        number += 1
        quote = np.full(1, 0, QUOTE)
        quote["bid_price"] = quote["ask_size"] = quote["recv_ns"] = number
        levels = [(number, number)] * (number % 10 + 1)
        board.write_quote(quote, number, number, bids=levels, asks=levels)
"""


@pytest.mark.req("F-76", "F-86")
def test_a_top_and_its_levels_are_of_one_moment(tmp_path):
    path = tmp_path / "board"
    path.write_bytes(bytes(Board.size_for(64, 10)))
    writer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(path)],
        stdout=subprocess.PIPE,
    )
    try:
        assert writer.stdout.readline() == b"writing\n"
        reader = BoardReader(np.memmap(path, np.uint8, "r"))
        seen = set()
        began = time.monotonic()
        while (took := time.monotonic() - began) < 20 and (took < 1 or len(seen) < 101):
            bids, asks, top = reader.depth("AAPL")
            number = top.sequence
            if number == 0:
                continue
            seen.add(number)
            assert top.session_epoch == top.recv_ns == number
            assert top.bid_price == top.ask_size == number
            assert len(bids) == len(asks) == number % 10 + 1
            assert (bids == number).all()
            assert (asks == number).all()
    finally:
        writer.kill()
        writer.communicate()

    assert len(seen) > 100

"""The log of the venue: its lines, what it never shows, and what ends it."""

import errno
import gc
import io
import json
import logging
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedhandler.venue.config import SymbolConfig, TradersConfig
from feedhandler.venue.journal import Journal, book_crc
from feedhandler.venue.listing import Listing
from tests.recordings import SMALL, Recording, crc10
from tests.trading import MS, SECOND, START, Books, Venue

KEY, SIGNATURE = "key-of-ann-0123456789", "deadbeef" * 8


class Log(io.BytesIO):
    """A file in memory, and what is in it."""

    def lines(self):
        return [json.loads(line) for line in self.getvalue().splitlines()]


class FullDisk(io.BytesIO):
    """A file that takes so many writes."""

    def __init__(self, room):
        super().__init__()
        self.room = room

    def write(self, data):
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= 1
        return super().write(data)


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def journal(log):
    return Journal(log)


# ── lines ─────────────────────────────────────────────────────────────────────────────


def test_a_line_has_the_time_and_its_kind(journal, log):
    journal.note("open", 7, c=1, address="127.0.0.1", endpoint="/ws/trading")
    journal.note("close", 8, c=1, code=1001)

    assert log.lines() == [
        {"t": 7, "k": "open", "c": 1, "address": "127.0.0.1",
         "endpoint": "/ws/trading"},
        {"t": 8, "k": "close", "c": 1, "code": 1001},
    ]  # fmt: skip


def test_a_message_is_kept_as_it_came_and_as_it_went(journal, log):
    asked = '{"action": "subscribe", "data": {"channels": ["trades:AAPL"]}, "id": "ü"}'

    journal.inbound(3, asked.encode(), 7)
    journal.outbound(3, b'{"type":"heartbeat"}', 8)

    assert log.lines() == [
        {"t": 7, "k": "in", "c": 3, "m": asked},
        {"t": 8, "k": "out", "c": 3, "m": {"type": "heartbeat"}},
    ]


@pytest.mark.req("SEC-05")
def test_a_message_cannot_forge_a_line(journal, log):
    forged = '{"action":"pong",\n"id":"\\u001b[31m\\n{\\"k\\":\\"fill\\"}"}'

    journal.inbound(3, forged.encode(), 7)

    assert log.getvalue().count(b"\n") == 1
    assert b"\x1b" not in log.getvalue()
    assert log.lines()[0]["m"] == forged


@pytest.mark.req("TR-03", "I-09")
def test_orders_fills_and_books_are_kept_in_their_order(journal, log):
    venue = Venue()
    venue.exchange.keep(journal, lambda: venue.now_ns)
    venue.open("orderbook:AAPL:10")
    venue.submit("ann", "buy", 10, 150.00, client_order_id="x")
    venue.wait(SECOND)
    venue.submit("bob", "sell", 4, 150.00)

    lines = log.lines()
    assert [(line["k"], line.get("account")) for line in lines] == [
        ("order", "ann"), ("book", None),
        ("order", "bob"), ("book", None),
        ("fill", "bob"), ("order", "bob"), ("fill", "ann"), ("order", "ann"),
    ]  # fmt: skip
    assert {line["t"] for line in lines[2:]} == {START + SECOND}
    assert lines[0]["order"]["client_order_id"] == "x"
    assert lines[7]["order"]["status"] == "partially_filled"
    assert lines[4]["trade"]["trade_id"] == lines[6]["trade"]["trade_id"] == "t-1"
    assert (lines[3]["channel"], lines[3]["sequence"]) == ("orderbook:AAPL:10", 3)


def test_orders_are_kept_whether_or_not_anybody_listens(journal, log):
    venue = Venue(heard=False)
    venue.exchange.keep(journal, lambda: venue.now_ns)

    venue.submit("ann", "buy", 10, 150.00)
    venue.house("sell", 10, 150.00)

    assert [line["k"] for line in log.lines()] == ["order", "fill", "order"]


# ── what is not shown ─────────────────────────────────────────────────────────────────

CREDENTIALS = f'"data":{{"api_key":"{KEY}","signature":"{SIGNATURE}","timestamp":1}}'


@pytest.mark.req("SEC-05", "I-18")
@pytest.mark.parametrize(
    "frame",
    [
        f'{{"action":"authenticate",{CREDENTIALS}}}',
        f'{{{CREDENTIALS},"action":"authenticate"}}',
        f'{{"action":"\\u0061uthenticate",{CREDENTIALS}}}',
        f'{{"\\u0061ction":"authenticat\\u0065",{CREDENTIALS}}}',
        f'{{"action":"subscribe",{CREDENTIALS},"action":"authenticate"}}',
        f' {{ "id":"a", "action" : "authenticate" , {CREDENTIALS} }} ',
        # What is no request is not shown either.
        f'{{"action":"Authenticate",{CREDENTIALS}}}',
        f'{{"action":"auth",{CREDENTIALS}}}',
        f'{{"action":7,{CREDENTIALS}}}',
        f'{{"action":"authenticate",{CREDENTIALS}',
        f"[{{{CREDENTIALS}}}]",
        f"{{{CREDENTIALS}}}",
        KEY + SIGNATURE,
    ],
)
def test_credentials_are_never_shown(journal, log, frame):
    journal.inbound(3, frame.encode(), 7)

    (line,) = log.lines()
    assert (line["k"], line["c"]) == ("in", 3)
    assert KEY not in str(line)
    assert SIGNATURE not in str(line)


@pytest.mark.req("SEC-05")
@pytest.mark.parametrize(
    "frame",
    [b"", b"hello", b"{", b'"x"', b'{"action":null}', b'{"action":"\xff"}',
     b"\xff\xfe", b'{"action":"pong","id":"\xff"}', b"[" * 5000],
)  # fmt: skip
def test_of_what_is_no_message_only_the_length_is_kept(journal, log, frame):
    journal.inbound(3, frame, 7)

    assert log.lines() == [{"t": 7, "k": "in", "c": 3, "malformed": len(frame)}]


@given(st.binary(max_size=60))
def test_whatever_comes_makes_one_line(payload):
    log = Log()
    Journal(log).inbound(3, payload, 7)

    assert len(log.lines()) == 1


# ── its end ───────────────────────────────────────────────────────────────────────────


@pytest.mark.req("F-92")
def test_a_full_disk_ends_the_journal_and_not_the_venue(caplog):
    disk = FullDisk(room=3)
    journal = Journal(disk)
    venue = Venue()
    venue.exchange.keep(journal, lambda: venue.now_ns)
    with caplog.at_level(logging.ERROR, "feedhandler.venue"):
        for _ in range(10):
            venue.submit("ann", "buy", 1, 1.00)
    journal.inbound(1, b'{"action":"pong"}', 7)
    journal.flush()
    journal.close()

    assert len(venue.desk.open_orders("ann")) == 10
    assert [record.getMessage() for record in caplog.records] == [
        "journal ends error=No space left on device"
    ]


@pytest.mark.req("F-92")
def test_a_file_on_a_full_disk_is_given_up_quietly(caplog):
    journal = Journal.at("/dev/full")
    journal.note("open", 7, c=1)

    with caplog.at_level(logging.ERROR, "feedhandler.venue"):
        journal.flush()
    gc.collect()
    journal.note("open", 8, c=2)
    journal.close()

    assert len(caplog.records) == 1


def test_a_journal_is_appended_to_and_ends_when_closed(tmp_path):
    path = tmp_path / "venue.ndjson"
    for number in range(2):
        journal = Journal.at(str(path))
        journal.note("open", number, c=number)
        journal.close()
        journal.note("open", 99, c=99)

    assert [json.loads(line)["c"] for line in path.read_text().splitlines()] == [0, 1]


def test_a_journal_that_cannot_be_opened_says_so(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        Journal.at(str(tmp_path / "nowhere" / "venue.ndjson"))


# ── books ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.req("I-01")
def test_the_crc_of_a_book_is_that_of_the_recorded_markets():
    recording = Recording(SMALL / "engine.jsonl.gz")
    lines = recording.lines()
    ticks = {"AAPL": ("0.01", "1"), "BTC-USD": ("0.01", "0.0001"),
             "ETH-USD": ("0.01", "0.001"), "MSFT": ("0.01", "1")}  # fmt: skip
    listings = {
        name: Listing(SymbolConfig(name=name, tick=tick, lot=lot, previous_close=1))
        for name, (tick, lot) in ticks.items()
    }
    books = {name: ({}, {}) for name in ticks}
    checked = 0
    for row in recording.truth()[:2000]:
        data = json.loads(lines[int(row["line"])])["data"]
        listing, sides = listings[data["symbol"]], books[data["symbol"]]
        for side, levels in zip(sides, (data["bids"], data["asks"]), strict=True):
            if row["kind"] == "snapshot":
                side.clear()
            for price, quantity in levels:
                side[listing.tick.count(price)] = listing.lot.count(quantity)
        bids, asks = (
            sorted((level for level in side.items() if level[1]), reverse=best)
            for side, best in zip(sides, (True, False), strict=True)
        )
        assert book_crc(listing, bids[:10], asks[:10]) == int(row["crc10"])
        checked += 1

    assert checked == 2000


@pytest.mark.req("I-01", "OB-10")
def test_every_book_that_is_sent_is_kept_with_its_sequence_and_crc(journal, log):
    venue = Venue(traders=TradersConfig(seed=3))
    venue.exchange.keep(journal, lambda: venue.now_ns)
    names = ["orderbook:AAPL:5", "orderbook:AAPL:20", "orderbook:BTC-USD:10"]
    books = Books(venue, names)
    true = {}
    for _ in range(200):
        venue.wait(5 * MS)
        assert books.wrong() == []
        for name in names:
            true[name, books.sequences[name]] = crc10(*books.kept(name), "0.01")

    kept = {(line["channel"], line["sequence"]): line["crc"] for line in log.lines()}
    checked = true.keys() & kept.keys()
    assert len(checked) > 100
    assert {key: kept[key] for key in checked} == {key: true[key] for key in checked}
    for name in names:
        sequences = [sequence for known, sequence in kept if known == name]
        assert sequences == list(range(2, books.sequences[name] + 1))


@pytest.mark.parametrize(
    ("bids", "asks", "text"),
    [
        ([], [], ""),
        ([(15000, 10)], [], "150.00:10"),
        ([], [(15001, 1)], "150.01:1"),
        ([(3, 1), (2, 2)], [(4, 3)], "0.03:1:0.04:3:0.02:2"),
    ],
)
def test_missing_levels_are_left_out_of_the_crc(bids, asks, text):
    listing = Listing(SymbolConfig(name="AAPL", previous_close=150))

    assert book_crc(listing, bids, asks) == crc32(text.encode())

"""The audit log: its lines, their sums, and what ends it."""

import errno
import os
import re
import resource
import stat
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedhandler import Event, FeedHandler, Flags, PythonSink
from feedhandler.audit import AuditLog
from feedhandler.config import build
from feedhandler.errors import ConfigError
from feedhandler.records import TradeFlags
from feedhandler.sink import Tee
from feedhandler.venue import Venue, VenueConfig
from tests.audit_log import read_audit
from tests.end_to_end.processes import left_behind, unique
from tests.feeds import AAPL, SOUND, START_NS, TIME_MS, Feed, Levels, Recorder
from tests.loops import SECONDS, eventually, run

TRADES = "trades:AAPL"


def trade(trade_id: str, price: float = 150.25, size: float = 3.0) -> dict[str, Any]:
    data = {"symbol": "AAPL", "price": price, "size": size, "side": "sell"}
    message = {"type": "trade", "channel": TRADES, "timestamp": TIME_MS}
    return message | {"data": data | {"trade_id": trade_id, "trade_time": TIME_MS}}


def lines_of(path: Path) -> list[str]:
    return path.read_text().split("\n")[:-1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


def noted(path: Path, play: Callable[[Feed], object], **options: Any) -> list[str]:
    """Return the lines of a session that gets what *play* has it get."""
    path.unlink(missing_ok=True)
    audit = AuditLog(path)
    play(Feed(AAPL, TRADES, sink=audit, **options))
    audit.close()
    return lines_of(path)


# ── lines ─────────────────────────────────────────────────────────────────────────────


def sum_of(bids: Levels, asks: Levels) -> int:
    """Return the sum as the module's docstring has it."""
    bids, asks = bids[:10], asks[:10]
    whole = bytes([len(bids), len(asks)])
    for rank in range(10):
        for price, size in bids[rank : rank + 1] + asks[rank : rank + 1]:
            whole += struct.pack("<dd", price, size)
    return zlib.crc32(whole)


@pytest.mark.req("I-01")
def test_every_quote_and_trade_is_a_line(path):
    def play(feed: Feed) -> None:
        feed.session.sink.name(0, AAPL)
        feed.session.sink.name(1, TRADES)
        feed.snapshot(2**40, *SOUND)
        feed.receive(trade("t-1"))
        feed.pass_s(1)
        feed.update(2**40 + 1, [(140.0, 1.0)])
        feed.update(2**40 + 3)
        feed.snapshot(2**40 + 3, [], SOUND[1])

    below = [*SOUND[0], (140.0, 1.0)]
    sums = [sum_of(*SOUND), sum_of(below, SOUND[1]), sum_of([], SOUND[1])]
    first, then = START_NS, START_NS + 10**9
    flags = [
        2 << 8 | Flags.LIVE | Flags.SNAPSHOT,
        2 << 8 | Flags.LIVE,
        2 << 8 | Flags.STALE | Flags.GAP,
        3 << 8 | Flags.LIVE | Flags.SNAPSHOT | Flags.NO_BID,
    ]
    assert noted(path, play, changes_only=True) == [
        "H 1",
        f"I 0 {AAPL}",
        f"I 1 {TRADES}",
        f"Q {first} 0 2 {2**40} {flags[0]} {sums[0]}",
        f"T {first} 1 {1 << 8 | TradeFlags.SELL} 150.25 3 t-1",
        f"D {then} 0 2 {2**40 + 1} {flags[1]} {sums[1]}",
        f"Q {then} 0 2 {2**40 + 1} {flags[2]} {sums[1]}",
        f"Q {then} 0 3 {2**40 + 3} {flags[3]} {sums[2]}",
        "E 8",
    ]


FEW = settings(max_examples=40, deadline=None)
PRICES = st.integers(1, 2**53 - 1).map(lambda n: n / 2**20)
SIDES = st.dictionaries(PRICES, st.floats(1e-9, 1e9), max_size=13).map(dict.items)


@pytest.mark.req("I-01")
@FEW
@given(SIDES.map(sorted), SIDES.map(sorted))
def test_the_sum_is_that_of_zlib_over_the_best_ten_levels(tmp_path_factory, bids, asks):
    path = tmp_path_factory.getbasetemp() / "sum.log"

    def play(feed: Feed) -> None:
        feed.session.add("orderbook:AAPL:20", 5)
        feed.snapshot(1, bids, asks, channel="orderbook:AAPL:20")

    quote = noted(path, play)[1].split(" ")
    assert quote[0] == "Q"
    assert int(quote[-1]) == sum_of(bids[::-1], asks)


def test_great_numbers_are_whole(path):

    def play(feed: Feed) -> None:
        for sequence in range(300):
            feed.snapshot(2**53 - 1 - sequence % 2, *SOUND)

    quote = noted(path, play, utc_offset_ns=2**62)[-2].split(" ")
    byte = 301 & 0xFF
    flags = byte << 8 | Flags.LIVE | Flags.SNAPSHOT
    numbers = [2**62 + START_NS, 0, 301, 2**53 - 2, flags]
    assert list(map(int, quote[1:6])) == numbers


def test_a_time_before_1970_has_a_sign(path):
    lines = noted(
        path, lambda feed: feed.snapshot(1, *SOUND), utc_offset_ns=-2 * START_NS
    )

    assert lines[1].split(" ")[1] == str(-START_NS)


@FEW
@given(st.text(max_size=20))
def test_an_id_ends_neither_a_field_nor_a_line(tmp_path_factory, trade_id):
    path = tmp_path_factory.getbasetemp() / "id.log"

    _, line, _ = noted(path, lambda feed: feed.receive(trade(trade_id)))
    assert re.fullmatch(r"T \d+ 1 \d+ 150\.25 3 ([!-$&-~]|%[0-9A-F]{2})*", line)
    (life,) = read_audit(f"{text}\n" for text in lines_of(path)).lives
    assert life.trades[0].key == trade_id.encode()[:16].partition(b"\0")[0]


@FEW
@given(*[st.floats(min_value=5e-324, allow_infinity=False)] * 2)
def test_a_price_is_noted_to_its_last_bit(tmp_path_factory, price, size):
    path = tmp_path_factory.getbasetemp() / "price.log"

    _, line, _ = noted(path, lambda feed: feed.receive(trade("t-1", price, size)))
    assert tuple(map(float, line.split(" ")[4:6])) == (price, size)


def test_a_channel_has_a_name_of_some_length(path):
    audit = AuditLog(path)

    with pytest.raises(ValueError, match="over 128 bytes"):
        audit.name(0, "x" * 129)
    audit.close()
    assert lines_of(path) == ["H 1", "E 1"]


# ── the file ──────────────────────────────────────────────────────────────────────────


@pytest.mark.req("SEC-16")
def test_the_file_is_ours_alone(path):
    AuditLog(path).close()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "nowhere"])
def test_a_file_that_is_none_is_an_error(kind, path):
    makers: dict[str, Callable[[], object]] = {
        "link": lambda: path.symlink_to(path.with_name("other")),
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "nowhere": lambda: None,
    }
    makers[kind]()

    with pytest.raises(OSError, match=r"audit\.log"):
        AuditLog(path / "audit.log" if kind == "nowhere" else path)


def test_a_log_is_appended_to_behind_an_empty_line(path):
    for _ in range(2):
        AuditLog(path).close()

    assert lines_of(path) == ["H 1", "E 1", "", "H 1", "E 1"]


def test_lines_are_written_when_there_is_no_more_room(path):
    audit = AuditLog(path)
    feed = Feed(AAPL, sink=audit)
    feed.snapshot(1, *SOUND)
    assert path.read_bytes() == b""

    for sequence in range(2, 2000):
        feed.update(sequence)
    written = path.read_bytes()
    assert 64_000 < len(written) < 66_000
    assert written.endswith(b"\n")
    audit.close()
    assert len(lines_of(path)) == audit.lines == 2001
    assert lines_of(path)[-1] == "E 2000"


def test_what_comes_after_the_end_is_not_noted(path):
    audit = AuditLog(path)
    feed = Feed(AAPL, sink=audit)
    audit.close()
    feed.snapshot(1, *SOUND)
    feed.receive(trade("t-1"))
    audit.name(0, AAPL)
    audit.close()

    assert lines_of(path) == ["H 1", "E 1"]
    assert audit.take_error() is None
    assert feed.book().is_live


# ── its end ───────────────────────────────────────────────────────────────────────────


def filled(audit: AuditLog) -> Recorder:
    """Let a log have more than it holds back; return what the next sink was given."""
    recorder = Recorder()
    feed = Feed(AAPL, sink=Tee(audit, recorder, pytest.fail))
    for sequence in range(1, 3000):
        feed.snapshot(sequence, *SOUND)
    assert feed.book().is_live
    return recorder


@pytest.mark.req("F-92", "I-26")
def test_a_full_disk_ends_the_log_and_nothing_else():
    audit = AuditLog("/dev/full")
    assert len(filled(audit).quotes) == 2999

    assert audit.take_error() == os.strerror(errno.ENOSPC)
    assert audit.take_error() is None
    audit.close()
    assert audit.take_error() is None


def test_a_disk_that_is_full_at_the_end_is_told_too():
    audit = AuditLog("/dev/full")
    assert audit.take_error() is None

    audit.close()
    assert audit.take_error() == os.strerror(errno.ENOSPC)


@pytest.mark.req("F-92")
def test_a_log_that_is_torn_is_read_up_to_its_last_whole_line(path):
    most = 100_001
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    audit = AuditLog(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        filled(audit)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert audit.take_error() == os.strerror(errno.EFBIG)
    assert path.stat().st_size == most
    *whole, torn = path.read_text().splitlines(keepends=True)
    assert not torn.endswith("\n")
    with path.open() as lines:
        (life,) = read_audit(lines).lives
    assert len(life.quotes) == len(whole) - 1
    assert not life.is_whole
    AuditLog(path).close()
    with path.open() as lines:
        lives, wrong = read_audit(lines)
    assert wrong == []
    assert [len(life.quotes) for life in lives] == [len(whole) - 1, 0]


# ── a feed that keeps one ─────────────────────────────────────────────────────────────


def config_of(venue: Venue, audit_log: Any, *symbols: str, **more: Any) -> Any:
    return build(
        {
            "url": venue.url,
            "audit_log": str(audit_log),
            "shm": {"name": unique("audit")},
            "instruments": [{"symbol": symbol} for symbol in symbols or ("AAPL",)],
            **more,
        }
    )


class Raising(PythonSink):
    """Raises at the first quotes of a book."""

    def quote(self, event: Any) -> None:
        if event.sequence < 5:
            raise RuntimeError("quote")


@pytest.mark.req("I-06")
def test_all_connections_of_a_feed_note_in_one_log(path):
    async def work() -> None:
        limits = {"limits": {"subscriptions_per_connection": 2}}
        async with Venue(VenueConfig(port=0)) as venue:
            config = config_of(venue, path, "AAPL", "MSFT", **limits)
            async with FeedHandler(config, Raising()) as feed:
                await feed.live(SECONDS)
                assert len(feed.states) == 2
                await eventually(lambda: len(lines_of(path)) > 100, "lines")
                feed.subscribe("BTC-USD")
                await feed.live(SECONDS)
                await eventually(lambda: feed.counters()["trades"] > 5, "trades")
                await eventually(
                    lambda: feed.counters()["audit_log_lines"] > 100, "a beat"
                )
                assert feed.counters()["sink_errors"] > 0
                assert feed.counters()["audit_log_errors"] == 0

    run(work)
    with path.open() as lines:
        (life,), wrong = read_audit(lines)
    assert wrong == []
    assert life.is_whole
    assert list(life.names.values()) == [
        [f"orderbook:{symbol}:10", f"trades:{symbol}"]
        for symbol in ("AAPL", "MSFT", "BTC-USD")
    ]
    ends = [life.books[number][-1] for number in range(3)]
    assert all(line.says(Flags.STALE) for line in ends)


@pytest.mark.req("F-92", "I-26")
def test_a_feed_whose_disk_is_full_says_so_once_and_goes_on():
    events: list[Event] = []

    async def work() -> None:
        async with Venue(VenueConfig(port=0)) as venue:
            config = config_of(venue, "/dev/full")
            async with FeedHandler(config, on_event=events.append) as feed:
                await feed.live(SECONDS)
                await eventually(
                    lambda: feed.counters()["audit_log_errors"], "the end of the log"
                )
                quotes = feed.counters()["quotes"]
                await eventually(
                    lambda: feed.counters()["quotes"] > quotes + 20, "quotes"
                )
                assert feed.is_live
                assert feed.counters()["audit_log_errors"] == 1
                assert feed.counters()["sink_errors"] == 0

    run(work)
    assert [event for event in events if event.kind == "error"] == [
        Event("error", "", {"audit_log": os.strerror(errno.ENOSPC)})
    ]


def test_a_feed_whose_log_cannot_be_opened_does_not_start(tmp_path):
    async def work() -> None:
        async with Venue(VenueConfig(port=0)) as venue:
            config = config_of(venue, tmp_path)
            feed = FeedHandler(config)
            with pytest.raises(
                ConfigError, match=f"audit_log {tmp_path}: Is a directory"
            ):
                await feed.start()
            assert left_behind(config.shm.name) == []

    run(work)


def test_a_feed_without_a_log_has_its_counters_all_the_same():
    async def work() -> None:
        async with Venue(VenueConfig(port=0)) as venue:
            feed = FeedHandler(config_of(venue, ""))
            await feed.start()
            counters = feed.counters()
            await feed.stop()
        assert (counters["audit_log_lines"], counters["audit_log_errors"]) == (0, 0)

    run(work)

"""What a stream of books may suffer, in virtual time: F-34 to F-51."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from feedhandler.audit import AuditLog
from feedhandler.records import Flags
from feedhandler.sink import Tee
from feedhandler.tracker import Action
from tests.checker import Loss, Report, examine
from tests.feeds import AAPL, Feed, Recorder
from tests.markets import Market

LIVE, STALE, GAP = Flags.LIVE, Flags.STALE, Flags.GAP
RUN = 2000
# Updates that pass between a request for a snapshot and the snapshot.
LATENCY = 3

Message = dict[str, Any]


STREAMS: list["Stream"] = []


@pytest.fixture(autouse=True)
def checked(tmp_path: Path) -> Iterator[None]:
    """Have the checker judge what each test published, by what its market sent."""
    STREAMS.clear()
    Stream.folder = tmp_path
    yield
    for stream in STREAMS:
        report = stream.report()
        assert report.counts["live lines"]
        assert stream.is_falsified == bool(report.violations), report.violations[:3]


class Stream:
    """A market, a feed of its book, and every quote compared as it is published.

    What goes wrong where the feed cannot see it, the checker is to find.
    """

    folder: Path

    def __init__(self, seed: int = 1, channel: str = AAPL, **options: Any) -> None:
        STREAMS.append(self)
        self.market = Market(seed, channel)
        self.lost: list[Loss] = []
        self.is_falsified = False
        self.path = self.folder / f"audit-{len(STREAMS)}"
        self.audit = AuditLog(str(self.path))
        self.audit.name(0, channel)
        recorder = Recorder()
        self.feed = Feed(
            channel, answers=True, sink=Tee(self.audit, recorder, print), **options
        )
        self.feed.sink = recorder
        self.live = self.stale = self.resyncs = 0
        self.due: int | None = None
        self.feed.sent()
        self.snapshot()

    def report(self) -> Report:
        """Have the checker say what was published."""
        self.audit.close()
        with self.path.open() as lines:
            return examine(self.market.journal, lines, losses=self.lost)

    def snapshot(self) -> None:
        self.deliver(self.market.snapshot())

    def deliver(self, message: Message | bytes) -> None:
        self.feed.receive(message)
        self.judge()

    def judge(self) -> None:
        for quote in self.feed.quotes():
            if quote.flags & LIVE:
                self.live += 1
                bids, asks = self.market.history[quote.sequence]
                assert (quote.bid_price, quote.bid_size) == bids[0]
                assert (quote.ask_price, quote.ask_size) == asks[0]
            else:
                self.stale += 1
        book = self.feed.book(self.market.channel)
        if book.is_live:
            assert (book.bids(), book.asks()) == self.market.history[book.sequence]

    def serve(self) -> None:
        """Let the venue answer a request for a snapshot, LATENCY updates later."""
        self.feed.collect()
        if any(action == "subscribe" for action, _ in self.feed.asked()):
            self.resyncs += 1
            self.due = LATENCY
        if self.due is not None:
            self.due -= 1
            if self.due < 0:
                self.due = None
                self.snapshot()

    def play(self, updates: int, lost: Callable[[int], bool]) -> None:
        """Let *updates* happen, of which those that are *lost* do not arrive."""
        for _ in range(updates):
            message = self.market.change()
            sequence = message["data"]["sequence"]
            if lost(sequence):
                self.lost.append(Loss(self.market.channel, sequence))
            else:
                self.deliver(message)
            self.feed.pass_s(0.001)
            self.serve()

    @property
    def flags(self) -> Flags:
        return Flags(self.feed.book(self.market.channel).flags)

    def ends_live(self) -> None:
        self.play(2 * LATENCY + 2, lambda sequence: False)
        assert self.flags & LIVE
        assert self.feed.book(self.market.channel).sequence == self.market.sequence


def nothing(sequence: int) -> bool:
    return False


# ── lost ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.req("F-34", "I-01", "I-03")
def test_one_lost_update_at_any_place_of_a_run_is_seen_at_the_next():
    stream = Stream()
    for place in range(1, RUN + 1):
        before = stream.feed.counter("gaps")
        lost = stream.market.change()
        assert stream.flags & LIVE, place
        stream.deliver(stream.market.change())
        assert stream.flags & (LIVE | STALE | GAP) == STALE | GAP
        assert stream.feed.counter("gaps") == before + 1
        stream.snapshot()
        assert stream.flags & LIVE
        stream.deliver(lost)
        assert stream.flags & LIVE, "what comes too late changes nothing"

    assert stream.market.sequence == 2 * RUN


@pytest.mark.req("F-35", "I-01", "I-14")
def test_a_hundred_gaps_of_one_to_eight_cost_one_or_two_snapshots_each():
    lengths = [1 + n % 8 for n in range(100)]
    places = {
        64 * (n + 1) + k for n, length in enumerate(lengths) for k in range(length)
    }
    stream = Stream(subscribes=1000)
    stream.play(64 * 102, places.__contains__)
    stream.ends_live()

    assert stream.feed.counter("gaps") == 100
    assert 100 <= stream.resyncs <= 200


@pytest.mark.req("F-35", "I-01")
@pytest.mark.parametrize("share", [0.001, 0.01, 0.05])
def test_no_quote_is_wrong_whatever_share_is_lost(share: float):
    chance = random.Random(7)
    lost = {n for n in range(1, 5001) if chance.random() < share}
    stream = Stream(subscribes=5000)
    stream.play(5000, lost.__contains__)
    stream.ends_live()

    runs = sum(n - 1 not in lost for n in lost)
    gaps = stream.feed.counter("gaps")
    # One that a snapshot on its way makes up for is never seen.
    assert runs - stream.resyncs // 10 <= gaps <= runs
    assert 2 < stream.resyncs <= gaps
    assert stream.live > stream.stale


@pytest.mark.req("F-35", "F-46")
@pytest.mark.parametrize("length", [2, 100, 1000])
def test_a_gap_of_any_length_is_one_gap(length: int):
    stream = Stream()
    stream.play(50, nothing)
    for _ in range(length):
        stream.market.change()
    stream.ends_live()

    assert stream.feed.counter("gaps") == 1
    assert stream.resyncs == 1


@pytest.mark.req("F-46", "I-17")
def test_a_flood_while_a_snapshot_is_on_its_way_is_kept_up_to_a_bound():
    stream = Stream()
    stream.market.change()
    for _ in range(3000):
        stream.deliver(stream.market.change())
    stream.feed.collect()
    assert len(stream.feed.asked()) == 1
    assert stream.flags & STALE

    stream.snapshot()

    assert stream.flags & LIVE


@pytest.mark.req("F-46", "F-45")
def test_a_second_gap_while_a_snapshot_is_on_its_way_is_found_by_it():
    stream = Stream()
    stream.play(5, nothing)
    stream.market.change()
    stream.deliver(stream.market.change())
    early = stream.market.snapshot()
    stream.market.change()
    stream.deliver(stream.market.change())
    stream.feed.collect()
    assert len(stream.feed.asked()) == 1

    stream.deliver(early)

    assert stream.flags & (LIVE | STALE | GAP) == STALE | GAP
    stream.ends_live()


@pytest.mark.req("F-46", "F-41", "I-14")
@pytest.mark.parametrize("ahead", [2, 1000, 1 << 52])
def test_an_update_far_ahead_that_no_snapshot_reaches_is_of_no_stream(ahead: int):
    """Asked for after it came, twice: the venue does not know of it."""
    stream = Stream()
    stream.play(10, nothing)
    stream.feed.update(stream.market.sequence + ahead, [(98.0, 7.0)])
    asked = 0
    for _ in range(20):
        stream.feed.collect()
        asked += len(stream.feed.asked())
        assert stream.flags & (LIVE | STALE) in (LIVE, STALE)
        if not stream.flags & LIVE:
            stream.snapshot()

    assert asked == 2
    stream.ends_live()
    assert stream.feed.counter("bad_values") == 1


# ── out of order ──────────────────────────────────────────────────────────────────────


@pytest.mark.req("F-36", "I-01")
def test_an_update_that_comes_twice_or_thrice_changes_nothing():
    stream = Stream()
    for _ in range(500):
        message = stream.market.change()
        for _ in range(1 + stream.market.random.randrange(3)):
            stream.deliver(message)
        stream.deliver(message)
        stream.serve()

    assert stream.resyncs == stream.feed.counter("gaps") == 0
    assert stream.flags & LIVE


@pytest.mark.req("F-37", "I-01", "I-03")
@pytest.mark.parametrize("window", [2, 3, 8, 64])
def test_updates_in_disorder_heal_when_the_missing_ones_come(window: int):
    stream, chance = Stream(), random.Random(window)
    for _ in range(2000 // window):
        messages = [stream.market.change() for _ in range(window)]
        chance.shuffle(messages)
        for message in messages:
            stream.deliver(message)
        assert stream.flags & LIVE
        assert stream.feed.book().sequence == stream.market.sequence
    stream.feed.collect()

    assert stream.feed.counter("duplicates") == 0


@pytest.mark.req("F-38", "I-01")
def test_what_comes_after_the_snapshot_that_contains_it_is_dropped():
    stream = Stream()
    stream.play(10, nothing)
    late = [stream.market.change() for _ in range(5)]
    stream.deliver(stream.market.change())
    stream.snapshot()
    epoch = stream.feed.book().epoch
    for message in late[::2]:
        stream.deliver(message)

    assert stream.flags & LIVE
    assert stream.feed.book().epoch == epoch
    assert stream.feed.counter("duplicates") == 3


# ── a venue that starts anew ──────────────────────────────────────────────────────────


@pytest.mark.req("F-39", "OB-15", "I-04")
def test_a_snapshot_with_a_lower_number_replaces_the_book_and_is_a_new_epoch():
    stream = Stream()
    stream.play(100, nothing)
    epoch = stream.feed.book().epoch
    stream.market.restart()
    stream.snapshot()

    assert stream.feed.book().epoch == epoch + 1
    stream.ends_live()


@pytest.mark.req("F-40", "I-01")
def test_numbers_that_begin_again_without_a_snapshot_are_a_loss():
    stream = Stream()
    stream.play(100, nothing)
    before = stream.market.history
    stream.market.restart()
    stream.market.history.update(before)
    for _ in range(3):
        stream.feed.receive(stream.market.change())
    stream.feed.quotes()

    assert stream.flags & (LIVE | STALE) == STALE
    stream.ends_live()


# ── numbers that cannot be ────────────────────────────────────────────────────────────


@pytest.mark.req("F-41", "I-23")
@pytest.mark.parametrize(
    "sequence", [-1, 1.5, "7", None, 1 << 53, 1 << 63, 1 << 200, True, [], {}]
)
def test_a_sequence_that_cannot_be_is_a_lost_update(sequence: Any):
    stream = Stream()
    stream.play(20, nothing)
    message = stream.market.change()
    message["data"]["sequence"] = sequence
    stream.deliver(message)

    assert stream.flags & (LIVE | STALE) == STALE
    stream.ends_live()
    assert stream.feed.counter("faults") == 0


@pytest.mark.req("F-41")
def test_an_update_without_a_sequence_is_a_lost_one():
    stream = Stream()
    message = stream.market.change()
    del message["data"]["sequence"]
    stream.deliver(message)

    assert stream.flags & STALE
    stream.ends_live()


@pytest.mark.req("F-50", "I-23")
@pytest.mark.parametrize("side", ["bids", "asks"])
@pytest.mark.parametrize(
    "level",
    [
        [0, 1], [-1, 1], [150, -1], ["150", 1], [150, "1"], [None, 1], [150, None],
        [150], [150, 1, 1], [], 150, {"price": 150}, [1e400, 1], [150, 1e400],
    ],
    ids=repr,
)  # fmt: skip
def test_a_level_that_cannot_be_is_a_lost_update(side: str, level: Any):
    stream = Stream()
    stream.play(20, nothing)
    message = stream.market.change()
    message["data"][side] = [*message["data"][side], level]
    stream.deliver(message)

    assert stream.flags & (LIVE | STALE) == STALE
    stream.ends_live()


@pytest.mark.req("F-50")
@pytest.mark.parametrize("size", [-0.0, 1e308, 5e-324])
def test_a_size_at_the_edge_is_taken_as_it_is(size: float):
    stream = Stream()
    stream.is_falsified = True
    sequence = stream.market.sequence + 1
    stream.feed.update(sequence, [(99.0, size)])

    held = dict(stream.feed.book().bids())
    assert stream.flags & LIVE
    assert held.get(99.0) == (None if size == 0 else size)


# ── corrupted in flight ───────────────────────────────────────────────────────────────


@pytest.mark.req("F-42", "OB-13", "I-26")
def test_a_size_that_was_falsified_is_found_by_the_next_audit():
    """No sequence shows it: the audit does, within its interval."""
    stream = Stream(resync_interval_ns=2_000_000_000)
    stream.is_falsified = True
    stream.feed.tick()
    message = stream.market.change()
    bids = message["data"]["bids"]
    bids.append([stream.market.top()[0][3][0], 12345.0])
    stream.feed.receive(message)
    stream.feed.quotes()
    assert stream.flags & LIVE
    falsified_ns = stream.feed.now_ns
    while not stream.feed.asked():
        stream.feed.tick(0.1)
    stream.snapshot()

    assert stream.feed.now_ns - falsified_ns <= 2_100_000_000
    assert stream.feed.counter("differences") == 1
    (alarm,) = stream.feed.events("audit")
    assert ("bid", bids[-1][0], 12345.0) in [
        level[:3] for level in alarm.detail["levels"]
    ]
    stream.ends_live()


# ── snapshots that do not come ────────────────────────────────────────────────────────


def asked_in(feed: Feed, seconds: float) -> list[str]:
    """What is asked for while nothing is given, and at last the end."""
    asked: list[str] = []
    for _ in range(round(10 * seconds)):
        actions = feed.tick(0.1)
        asked += [action for action, _ in feed.asked()]
        if actions & Action.CLOSE:
            return [*asked, "reconnect"]
    return asked


@pytest.mark.req("F-44", "A-06", "I-14")
def test_a_snapshot_that_never_comes_is_asked_for_thrice_and_not_more():
    stream = Stream()
    stream.market.change()
    stream.deliver(stream.market.change())
    stream.feed.collect()

    asked = asked_in(stream.feed, 10)

    assert asked == ["subscribe", "unsubscribe", "subscribe", "reconnect"]


@pytest.mark.req("F-44", "ER-11")
@pytest.mark.parametrize("code", ["internal_error", "something_new"])
def test_a_request_for_a_snapshot_that_is_refused_ends_the_connection(code: str):
    stream = Stream()
    stream.feed.answers = False
    stream.market.change()
    stream.deliver(stream.market.change())
    stream.feed.collect()

    assert stream.feed.refuse(code) & Action.CLOSE
    assert stream.flags & STALE


@pytest.mark.req("LM-04", "F-44")
def test_a_book_stays_stale_while_its_request_waits_for_its_turn():
    stream = Stream(subscribes=3)
    resyncs = 0
    for _ in range(2):
        stream.market.change()
        stream.deliver(stream.market.change())
        stream.feed.collect()
        resyncs += len(stream.feed.asked())
        stream.snapshot()
    assert resyncs == 2

    stream.market.change()
    stream.deliver(stream.market.change())
    for _ in range(600):
        stream.feed.tick(0.1)
        if stream.feed.now_ns % 10**10 == 0:
            stream.feed.heartbeat()
        assert stream.flags & (LIVE | STALE) == STALE
    assert stream.feed.asked() == []
    stream.feed.tick(1)
    assert stream.feed.asked() == [("subscribe", [AAPL])]
    stream.snapshot()
    assert stream.flags & LIVE


# ── strange books ─────────────────────────────────────────────────────────────────────


@pytest.mark.req("F-47", "OB-09")
def test_removing_what_is_not_there_and_setting_what_is_are_no_news():
    stream = Stream()
    for _ in range(50):
        message = stream.market.change()
        bids, asks = stream.market.top()
        message["data"]["bids"] += [[1.0, 0.0], list(bids[0])]
        message["data"]["asks"] += [[9999.0, 0.0], list(asks[-1])]
        stream.deliver(message)

    assert stream.flags & LIVE


@pytest.mark.req("F-48", "A-37", "OB-05")
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_levels_that_are_too_many_unsorted_or_repeated_make_the_same_book(depth: int):
    channel, chance = f"orderbook:AAPL:{depth}", random.Random(depth)
    stream = Stream(channel=channel)
    for number in range(300):
        message = stream.market.change()
        if number % 20 == 0:
            message = stream.market.snapshot()
            beyond = [[p - 50, 1.0] for p, _ in message["data"]["bids"]]
            message["data"]["bids"] += beyond
            message["data"]["asks"] += [
                [p + 50, 1.0] for p, _ in message["data"]["asks"]
            ]
        for side in ("bids", "asks"):
            levels = message["data"][side]
            chance.shuffle(levels)
            if levels:
                levels.insert(0, [levels[-1][0], 77.0])
        stream.deliver(message)
        assert stream.flags & LIVE


@pytest.mark.req("F-49", "I-02")
def test_a_book_that_loses_its_sides_and_gets_them_back_has_no_price_meanwhile():
    feed = Feed(AAPL, answers=True)
    feed.snapshot(1, [], [])
    assert feed.flags == LIVE | Flags.NO_BID | Flags.NO_ASK | Flags.SNAPSHOT
    feed.update(2, [(10.0, 1.0)])
    assert feed.flags == LIVE | Flags.NO_ASK
    feed.update(3, [], [(11.0, 1.0)])
    assert feed.flags == LIVE
    feed.update(4, [(10.0, 0.0)], [(11.0, 0.0)])
    assert feed.flags == LIVE | Flags.NO_BID | Flags.NO_ASK
    feed.update(5)

    for quote in feed.quotes():
        assert (quote.bid_price == quote.bid_price) != bool(quote.flags & Flags.NO_BID)
        assert (quote.ask_price == quote.ask_price) != bool(quote.flags & Flags.NO_ASK)


# ── all at once ───────────────────────────────────────────────────────────────────────


@pytest.mark.req("F-51", "BP-06", "I-14")
def test_fifty_books_that_lose_an_update_at_once_are_asked_for_in_one_message():
    channels = [f"orderbook:S{n}:10" for n in range(50)]
    markets = [Market(n, channel) for n, channel in enumerate(channels)]
    feed = Feed(*channels, answers=True)
    feed.sent()
    for market in markets:
        feed.receive(market.snapshot())
    for market in markets:
        market.change()
        feed.receive(market.change())
    feed.collect()

    ((action, asked),) = feed.asked()
    assert action == "subscribe"
    assert sorted(asked) == sorted(channels)
    assert feed.counter("gaps") == 50

    for market in markets:
        feed.receive(market.snapshot())
    assert all(feed.book(channel).is_live for channel in channels)

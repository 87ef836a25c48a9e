"""The order book: alone, on its way to ring and board, and beside the PyPI package.

``python -m benchmarks.bench_book`` prints the tables. Method: benchmarks/README.md.
"""

import functools
import gc
import os
import platform
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from benchmarks import harness, order_books, updates
from benchmarks.updates import Message, Stream
from feedhandler.book import OrderBook
from feedhandler.codec import Codec
from feedhandler.session import Session
from feedhandler.sync import Sync

DEPTH = 10
DEPTHS = (10, 100, 1_000, 5_000)
INSTRUMENTS = (1, 10, 100, 1_000)
RECORDED = 2_000
GATE_NS = 90
GATE_DECODES = 0.25
GATE_DEPTH = 1.5
NO_PACKAGE = "order-book is not installed"

RECORDINGS = harness.recordings()
loops = harness.loops()


class Effort(NamedTuple):
    """How often each thing is timed, and with how many updates."""

    rounds: int
    count: int


FULL = Effort(21, 50_000)
FROM_PYTHON = Effort(9, 20_000)
QUICK = Effort(1, 500)

Times = dict[str, np.ndarray]


def alternate(rounds: int, count: int, timers: dict[str, Callable[[], int]]) -> Times:
    """Call all *timers* in turn, *rounds* times; return the ns of one of *count*.

    In turn, so that what else the machine does in a moment meets all of them alike.
    """
    times: dict[str, list[float]] = {name: [] for name in timers}
    for timer in timers.values():
        timer()
    gc.collect()
    gc.freeze()
    for _ in range(rounds):
        for name, timer in timers.items():
            times[name].append(timer() / count)
    gc.unfreeze()
    return {name: np.array(each) for name, each in times.items()}


def row(name: str, times: np.ndarray, remark: str = "") -> str:
    spread = f"({times.min():.1f} to {times.max():.1f})"
    return f"{name:<50} {np.median(times):8.1f} ns {spread:<20} {remark}".rstrip()


class Books:
    """Books of a session, and a stream of updates for them."""

    def __init__(self, session: Session, channels: list[str], stream: Stream) -> None:
        self.session = session
        self.stream = stream
        self.channels = channels
        self.names = names_of(channels)
        self.first = [
            (updates.pack(bids), updates.pack(asks)) for bids, asks in stream.first
        ]
        self.packed = stream.updates.tobytes()
        self.check()

    def start(self) -> None:
        """Give every book its first snapshot again."""
        channels, symbols = self.names[::2], self.names[1::2]
        for channel, symbol, levels in zip(channels, symbols, self.first, strict=True):
            loops.snapshot(self.session, channel, symbol, *levels)

    def time(self) -> int:
        """Return the ns of all updates, from levels in C arrays to ring and board."""
        self.start()
        return loops.time_on_book(self.session, self.names, self.packed)

    def time_fed(self) -> int:
        """Return the same by Session.feed, whose codec is a Ready."""
        self.start()
        return loops.time_ready(self.session, self.packed)

    def check(self) -> None:
        """Compare what the session makes of the stream with what the oracle made."""
        self.start()
        self.session.take_events()
        loops.time_on_book(self.session, self.names, self.packed)
        assert self.session.take_events() == []
        for channel, (bids, asks) in zip(self.channels, self.stream.last, strict=True):
            book = self.session.routes[channel].book
            assert book.is_live
            assert book.bids() == bids
            assert book.asks() == asks


def channels_of(depths: Iterable[int]) -> list[str]:
    return [f"orderbook:S{number}:{depth}" for number, depth in enumerate(depths)]


def names_of(channels: list[str]) -> list[str]:
    """Return channel and symbol of each book in turn, as its messages have them."""
    return [text for channel in channels for text in (channel, channel.split(":")[1])]


def books(stream: Stream, codec: Codec | None = None) -> Books:
    channels = channels_of(stream.depths)
    return Books(harness.session_of(channels, codec), channels, stream)


# ── beyond decoding ───────────────────────────────────────────────────────────────────


def beyond_decoding(effort: Effort) -> Times:
    """Time one-level updates of one book, whole and in parts, each part alone."""
    ours = books(updates.stream([DEPTH], "mixed", effort.count))
    where = {
        name: books(updates.stream([DEPTH], name, effort.count))
        for name in ("top", "second", "any")
    }
    fed = books(ours.stream, loops.Ready(ours.names))
    frames = updates.frames(ours.stream, ours.channels)
    decoder = ours.session.codec.decoder
    publisher = ours.session.sink
    (route,) = ours.session.routes.values()
    bids, asks = ours.stream.first[0]
    last = OrderBook(DEPTH)
    last.replace_levels(bids, asks)
    ranks = loops.changed_ranks(last, ours.packed)

    def update() -> int:
        book = OrderBook(DEPTH)
        book.replace_levels(bids, asks)
        return loops.time_update(book, ours.packed)

    def judge() -> int:
        sync = Sync()
        sync.on_snapshot(0)
        return loops.time_sync(sync, ours.packed)

    return alternate(
        effort.rounds,
        effort.count,
        {
            "all": ours.time,
            "feed": fed.time_fed,
            "update": update,
            "sync": judge,
            "find": lambda: loops.time_find(ours.session, ours.names, ours.packed),
            "quote": lambda: loops.time_quote(ours.session, route, ranks),
            "publish": lambda: loops.time_publish(publisher.quotes, effort.count),
            "store": lambda: loops.time_store(publisher.board, last, ranks),
            "decode": lambda: loops.time_decode(decoder, frames),
            **{name: each.time for name, each in where.items()},
        },
    )


def beyond_decoding_rows(times: Times) -> list[str]:
    quote = times["quote"] - times["publish"] - times["store"]
    rest = (
        times["all"] - times["find"] - times["sync"] - times["update"] - times["quote"]
    )
    share = np.median(times["all"] / times["decode"])
    return [
        row("on_book: sync, apply, flags, ring and board", times["all"]),
        row("  where all updates are at the top", times["top"]),
        row("  at the second level", times["second"]),
        row("  at any of the ten", times["any"]),
        row("the same by feed(), with nothing to decode", times["feed"]),
        row("parts alone: RouteTable.find", times["find"]),
        row("  Sync.delta", times["sync"]),
        row("  OrderBook.update", times["update"]),
        row("  Ring.publish", times["publish"]),
        row("  Board.store_quote", times["store"]),
        row("  Tracker.publish without those two: flags, quote", quote),
        row("  left: texts compared, counters, calls", rest),
        row(
            "decoding these messages", times["decode"], f"on_book is {share:.2f} of it"
        ),
    ]


def test_beyond_decoding(benchmark, report: list[str]):
    """One-level updates of a 10-level book."""
    times = beyond_decoding(FULL if benchmark.enabled else QUICK)
    benchmark.pedantic(lambda: None, rounds=1)
    report.extend(beyond_decoding_rows(times))
    if benchmark.enabled:
        decode = times["decode"].min()
        assert times["all"].min() < max(GATE_NS, GATE_DECODES * decode)


# ── deeper books ──────────────────────────────────────────────────────────────────────

WHERE = {
    "top": "at the top",
    "any": "at any level",
    "push": "new best level, the worst falls off",
}


def by_depth(effort: Effort) -> Times:
    """Time updates of one book of each depth, all of them in one session."""
    cases = [(where, depth) for where in WHERE for depth in DEPTHS]
    channels = channels_of(depth for _, depth in cases)
    session = harness.session_of(channels)
    timers = {
        f"{where} {depth}": Books(
            session, [channel], updates.stream([depth], where, effort.count)
        ).time
        for channel, (where, depth) in zip(channels, cases, strict=True)
    }
    return alternate(effort.rounds, effort.count, timers)


def by_depth_rows(times: Times) -> list[str]:
    rows = []
    for where, name in WHERE.items():
        for depth in DEPTHS:
            each = times[f"{where} {depth}"]
            ratio = np.median(each / times[f"{where} {DEPTHS[0]}"])
            rows.append(row(f"{name}, {depth:,} levels", each, f"{ratio:.2f} x"))
    return rows


def test_deeper_books(benchmark, report: list[str]):
    times = by_depth(FULL if benchmark.enabled else QUICK)
    benchmark.pedantic(lambda: None, rounds=1)
    report.extend(by_depth_rows(times))
    if benchmark.enabled:
        shallow = times[f"top {DEPTHS[0]}"]
        for depth in DEPTHS:
            assert np.median(times[f"top {depth}"] / shallow) < GATE_DEPTH


# ── many instruments ──────────────────────────────────────────────────────────────────


def by_instruments(effort: Effort) -> tuple[Times, dict[str, int]]:
    """Time updates of books drawn by lot, and say what one book takes."""
    channels = channels_of([DEPTH] * max(INSTRUMENTS))
    session = harness.session_of(channels)
    timers = {}
    for count in INSTRUMENTS:
        stream = updates.stream([DEPTH] * count, "mixed", effort.count)
        timers[str(count)] = Books(session, channels[:count], stream).time
    taken = loops.book_bytes(session.routes[channels[0]], session.sink.board)
    return alternate(effort.rounds, effort.count, timers), taken


def by_instruments_rows(times: Times, taken: dict[str, int]) -> list[str]:
    one = times[str(INSTRUMENTS[0])]
    rows = [
        row(
            f"books drawn by lot from {count:,}",
            times[str(count)],
            f"cache misses {np.median(times[str(count)] - one):.1f} ns",
        )
        for count in INSTRUMENTS
    ]
    parts = ", ".join(f"{name} {size:,}" for name, size in taken.items())
    return [
        *rows,
        f"one book of {DEPTH} levels: {sum(taken.values()):,} bytes ({parts})",
    ]


def test_many_instruments(benchmark, report: list[str]):
    times, taken = by_instruments(FULL if benchmark.enabled else QUICK)
    benchmark.pedantic(lambda: None, rounds=1)
    report.extend(by_instruments_rows(times, taken))


# ── beside order-book ─────────────────────────────────────────────────────────────────


def cases(count: int) -> dict[str, Callable[[], order_books.Case]]:
    """Return what makes each input of the comparison: of one level, and recorded."""
    made: dict[str, Callable[[], order_books.Case]] = {
        f"one level of {depth}": functools.partial(
            order_books.of_stream, updates.stream([depth], "mixed", count)
        )
        for depth in (10, 100)
    }
    for name, path in RECORDINGS.items():
        made[name] = functools.partial(
            order_books.of_recording, path, min(count, RECORDED)
        )
    return made


def hot_path(case: order_books.Case, last: Message) -> Callable[[], int]:
    """Return a timer of the same messages in process, published too.

    *last* is what the book must be at the end.
    """
    (channel,) = channels_of([case.depth])
    symbol = channel.split(":")[1]
    session = harness.session_of([channel])
    first = [updates.pack(levels) for levels in case.first]
    packed = [(updates.pack(bids), updates.pack(asks)) for bids, asks in case.messages]

    def timer() -> int:
        loops.snapshot(session, channel, symbol, *first)
        return loops.time_messages(session, channel, symbol, packed)

    timer()
    book = session.routes[channel].book
    assert (book.bids(), book.asks()) == last
    return timer


def beside_order_book(case: order_books.Case, rounds: int) -> Times:
    """Time both books through Python, and our hot path, on the same messages."""
    timers = {"in process": hot_path(case, order_books.check(case))}
    for read in (False, True):
        timers[f"ours {read}"] = functools.partial(order_books.time_ours, case, read)
        timers[f"theirs {read}"] = functools.partial(
            order_books.time_theirs, case, read
        )
    return alternate(rounds, len(case.messages), timers)


def beside_order_book_rows(name: str, times: Times) -> list[str]:
    """Return rows of medians; what is called so many x is order-book's time by ours."""
    rows = []
    for read, what in ((False, "update"), (True, "update and read")):
        ours, theirs = times[f"ours {read}"], times[f"theirs {read}"]
        rows.append(
            f"{name:<18} {what:<18} order-book {np.median(theirs):8.0f} ns   "
            f"ours {np.median(ours):7.0f} ns   {np.median(theirs / ours):6.2f} x"
        )
    inside = times["in process"]
    ratio = np.median(times["theirs True"] / inside)
    where = "our hot path, in process, published"
    rows.append(f"{name:<18} {where:<46} {np.median(inside):7.0f} ns   {ratio:6.2f} x")
    return rows


@pytest.mark.parametrize("name", cases(0))
def test_beside_order_book(name: str, benchmark, report: list[str]):
    """The PyPI package, through Python: the same messages, and the same book after."""
    if order_books.version() is None:
        report.append(f"{name}: skipped, {NO_PACKAGE}")
        pytest.skip(NO_PACKAGE)
    effort = FROM_PYTHON if benchmark.enabled else QUICK
    times = beside_order_book(cases(effort.count)[name](), effort.rounds)
    benchmark.pedantic(lambda: None, rounds=1)
    report.extend(beside_order_book_rows(name, times))


# ── the recorded books alone ──────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", RECORDINGS.values(), ids=RECORDINGS)
def test_book_update(path: Path, benchmark, report: list[str]):
    """Every update of a recording's first book, as levels in C arrays."""
    depth, packed = harness.book_updates(path)
    levels = sum(len(bids) + len(asks) for bids, asks in packed) // 16
    times = []
    for _ in range(FULL.rounds if benchmark.enabled else 1):
        times.append(loops.time_book(OrderBook(depth), packed))
    benchmark.pedantic(loops.time_book, (OrderBook(depth), packed), rounds=3)
    median = statistics.median(times)
    name = path.name.removesuffix(".jsonl.gz")
    report.append(
        f"{name:<16} book   update {median / len(packed):8.0f} ns   "
        f"a level {median / levels:6.1f} ns   "
        f"({levels / len(packed):.1f} levels an update, depth {depth})"
    )


def main() -> None:
    """Print all tables but that of the recorded books alone."""
    package = order_books.version()
    print(f"{platform.platform()}, {os.cpu_count()} processors", end=", ")
    print(
        f"load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}", end=", "
    )
    print(f"order-book {package or 'not installed'}")
    print("Medians (minimum to maximum) of", FULL.rounds, "rounds of", FULL.count)
    show(
        "One-level updates of a 10-level book",
        beyond_decoding_rows(beyond_decoding(FULL)),
    )
    show("Deeper books, and the ratio to 10 levels", by_depth_rows(by_depth(FULL)))
    show("Many instruments", by_instruments_rows(*by_instruments(FULL)))
    if package is None:
        show("Beside order-book", [f"skipped: {NO_PACKAGE}"])
        return
    rows: list[str] = []
    for name, make in cases(FROM_PYTHON.count).items():
        rows += beside_order_book_rows(
            name, beside_order_book(make(), FROM_PYTHON.rounds)
        )
    show("Beside order-book, through the Python API of both", rows)


def show(title: str, rows: list[str]) -> None:
    print("", title, *rows, sep="\n", flush=True)


if __name__ == "__main__":
    main()

"""The same recorded frames through what a user would pick instead of us.

``python -m benchmarks.bench_peers [--write] [--rounds N] [--turns N] [--messages N]``:
from a frame to a book whose best prices are read, in process; and over one socket, as
fast as it goes. README.md has the method, peers/ what each does.
"""

import argparse
import asyncio
import contextlib
import csv
import gc
import gzip
import inspect
import json
import math
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks import harness, pages, wire
from benchmarks.bench_faults import load, machine
from benchmarks.bench_throughput import FLAT_OUT, Job, Round, prepared, run_handler
from benchmarks.bench_wire_to_ring import chosen_recordings
from benchmarks.peers import Best, Handle, Instrument
from benchmarks.peers.ours import Ours
from benchmarks.peers.roster import PEERS
from benchmarks.wire import Feed, Material, Program, Sender

PAGE = harness.ROOT / "benchmarks/README.md"
RECORDINGS = harness.recordings()
loops = harness.loops()

ROUNDS = 9
MOST_MESSAGES = 20_000
SECONDS = 1.5
TRIAL = 50_000
MOST_FRAMES = 6_000_000
QUICK = 2_000

# The rows that the others are compared with.
OURS = "feedhandler, msgspec"
FEED = Feed("block", "msgspec")
LEVEL = re.compile(rb"\[([0-9.]+),([0-9.]+)\]")

Top = tuple[float, float, float, float] | None

# ── what goes in, and what must come out ──────────────────────────────────────────────


class Input(NamedTuple):
    """The order-book messages of a recording, and the best levels after each.

    The first *warm* messages end with the last snapshot; the others are timed.
    """

    name: str
    instruments: list[Instrument]
    messages: list[bytes]
    tops: list[Top]
    warm: int


def read_input(path: Path) -> Input:
    messages = harness.book_frames(path)
    tops = list(read_tops(path.with_name(path.name.replace(".jsonl.", ".truth.csv."))))
    assert len(tops) == len(messages), path.name
    snapshots = [
        number
        for number, message in enumerate(messages)
        if message.startswith(b'{"type":"orderbook"')
    ]
    return Input(
        path.name.removesuffix(".jsonl.gz"),
        instruments_of(messages),
        messages,
        tops,
        snapshots[-1] + 1,
    )


def read_tops(path: Path) -> Iterator[Top]:
    """Yield the best levels after each message, None where a side is empty."""
    with gzip.open(path, "rt") as lines:
        for row in csv.DictReader(lines):
            best = [row[name] for name in ("bid_px", "bid_qty", "ask_px", "ask_qty")]
            if "" in best:
                yield None
            else:
                bid, bid_size, ask, ask_size = map(float, best)
                yield bid, bid_size, ask, ask_size


def instruments_of(messages: list[bytes]) -> list[Instrument]:
    """Return what is subscribed, with as many decimals as the numbers have."""
    decimals: dict[str, list[int]] = {}
    for message in messages:
        channel = json_text(message, b'"channel":"')
        found = decimals.setdefault(channel, [0, 0])
        for texts in LEVEL.findall(message):
            for which, text in enumerate(texts):
                found[which] = max(found[which], len(text.partition(b".")[2]))
    return [
        Instrument(channel.split(":")[1], channel, *found)
        for channel, found in decimals.items()
    ]


def json_text(message: bytes, key: bytes) -> str:
    start = message.index(key) + len(key)
    return message[start : message.index(b'"', start)].decode()


def plain(best: Best) -> Top:
    """Return the best levels as floats, from the numbers of whichever library."""
    if best is None:
        return None
    bid, bid_size, ask, ask_size = (float(str(n)) for side in best for n in side)
    return (
        None if math.isnan(bid) or math.isnan(ask) else (bid, bid_size, ask, ask_size)
    )


def check(name: str, handle: Handle, given: Input, most: int | None = None) -> None:
    """Have messages handled; AssertionError unless all leave the right best levels.

    One for whom a side is empty after a message knows no best levels then.
    """
    is_async = inspect.iscoroutinefunction(handle)

    async def handle_all() -> None:
        for number, message in enumerate(given.messages[:most]):
            best = await handle(message.decode()) if is_async else handle(message)
            if plain(best) != given.tops[number]:
                raise AssertionError(
                    f"{name}, {given.name}: message {number} left {plain(best)}, "
                    f"not {given.tops[number]}"
                )

    asyncio.run(handle_all())


# ── in process ────────────────────────────────────────────────────────────────────────

Timers = dict[str, Callable[[], int]]


def timer_of_ours(given: Input, codec: str, messages: list[bytes]) -> Callable[[], int]:
    """Return what times a Session, fed from a compiled loop as the listener does it."""
    session = Ours(given.instruments, codec).session

    def measure() -> int:
        loops.time_feed(session, given.messages[: given.warm])
        return loops.time_feed(session, messages)

    return measure


def timer(handle: Handle, given: Input, messages: list[bytes]) -> Callable[[], int]:
    """Return what times a function of messages, from the same sort of loop."""
    first = given.messages[: given.warm]

    def measure() -> int:
        for message in first:
            handle(message)
        return loops.time_each(handle, messages)

    return measure


def timer_of_coroutines(
    handle: Handle, given: Input, messages: list[bytes]
) -> Callable[[], int]:
    """Return what times a coroutine function, which an event loop runs."""
    first = [message.decode() for message in given.messages[: given.warm]]
    texts = [message.decode() for message in messages]

    async def handle_all() -> int:
        for text in first:
            await handle(text)
        start = time.thread_time_ns()
        for text in texts:
            await handle(text)
        return time.thread_time_ns() - start

    return lambda: asyncio.run(handle_all())


def timers_of(given: Input, most: int) -> Timers:
    """Return what times each of ours, and each peer that is installed; check them."""
    messages = given.messages[given.warm :][:most]
    found: Timers = {}
    for codec in harness.CODECS:
        handle = Ours(given.instruments, codec).handle()
        check(codec, handle, given)
        found[f"feedhandler, {codec}"] = timer_of_ours(given, codec, messages)
        found[f"feedhandler, {codec}, by Python"] = timer(handle, given, messages)
    for name, peer in PEERS.items():
        if peer.missing():
            continue
        handle = peer.handle(given.instruments)
        check(name, handle, given)
        if inspect.iscoroutinefunction(handle):
            found[name] = timer_of_coroutines(handle, given, messages)
        else:
            found[name] = timer(handle, given, messages)
    return found


def in_process(given: Input, rounds: int, most: int) -> dict[str, list[float]]:
    """Return the ns of a message, of each in each round; they take turns."""
    timers = timers_of(given, most)
    count = len(given.messages[given.warm :][:most])
    times: dict[str, list[float]] = {name: [] for name in timers}
    gc.collect()
    gc.freeze()
    for _ in range(rounds):
        for name, measure in timers.items():
            times[name].append(measure() / count)
    gc.unfreeze()
    return times


# ── over one socket ───────────────────────────────────────────────────────────────────


def run_peer(name: str, job: Job, count: int, tops: list[Top]) -> Round:
    """Send *count* frames to a peer, flat out; check its best levels at the end."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peer-")))
        sender = stack.enter_context(
            Sender(job.frames, folder / "sent", FLAT_OUT, count)
        )
        channels = job.recorded.channels.values()
        command = [sys.executable, "-m", "benchmarks.peers"]
        program = stack.enter_context(
            Program(*command, name, sender.port, count, *channels)
        )
        sender.go()
        first_ns, _ = sender.sent()
        done_ns, user_ns, kernel_ns = program.hear("done", wire.MOST_S)
        assert program.process.stdout is not None
        best = plain(json.loads(program.process.stdout.readline()))
        program.finish()
        sender.finish()
    if best != tops[(count - 1) % len(tops)]:
        raise AssertionError(f"{name}: {count} messages left {best}")
    seconds = (done_ns - first_ns) / 1e9
    return Round(count, seconds, seconds, user_ns / 1e9, kernel_ns / 1e9)


Runs = dict[str, Callable[[Job, int], Round]]


def runs_of(given: Input) -> tuple[Runs, dict[str, str]]:
    """Return what can take part, by the name of its row, and why others cannot."""
    runs: Runs = {}
    refused = {}
    for mode in wire.MODES:
        for codec in wire.CODECS:
            feed = Feed(mode, codec)
            why = feed.refusal()
            if why is None:
                runs[row_of(feed)] = lambda job, count, feed=feed: run_handler(
                    job, feed, count
                )
            else:
                refused[row_of(feed)] = why
    for name, peer in PEERS.items():
        if peer.over_a_socket and not peer.missing():
            runs[name] = lambda job, count, name=name: run_peer(
                name, job, count, given.tops
            )
    return runs, refused


def row_of(feed: Feed) -> str:
    return f"feedhandler, {feed.codec}, {feed.mode}"


def over_a_socket(
    recorded: Material, runs: Runs, rounds: int, seconds: float
) -> dict[str, list[Round]]:
    """Run all in turn, each with as many frames as it takes in *seconds*."""
    found: dict[str, list[Round]] = {name: [] for name in runs}
    with wire.on_the_first_processor():
        with prepared(recorded, TRIAL) as job:
            rates = {name: rate_of(run(job, TRIAL)) for name, run in runs.items()}
        counts = {
            name: min(MOST_FRAMES, max(TRIAL, int(rate * seconds)))
            for name, rate in rates.items()
        }
        with prepared(recorded, max(counts.values())) as job:
            for _ in range(rounds):
                for name, run in runs.items():
                    found[name].append(run(job, counts[name]))
                    print(".", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
    return found


def rate_of(played: Round) -> float:
    """Return the messages a second, until somebody saw that all were handled."""
    return played.count / played.wall_s


# ── the tables ────────────────────────────────────────────────────────────────────────


def lacks_of(name: str) -> str:
    """Return what a row does not do that the feed handler does."""
    return PEERS[name].lacks if name in PEERS else ""


def spread(ratios: Iterable[float]) -> str:
    each = sorted(ratios)
    return f"**{statistics.median(each):.2f}** ({each[0]:.2f} to {each[-1]:.2f})"


def line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Write a table whose rows may end early."""
    lines = [head, ["---"] * len(head)]
    lines += [row + [""] * (len(head) - len(row)) for row in rows]
    return "\n".join(line(*cells) for cells in lines)


def skipped_rows(names: Iterable[str]) -> list[list[str]]:
    """Return a row for each peer that is not there, and says so."""
    return [
        [name, f"skipped: {', '.join(PEERS[name].missing())} not installed"]
        for name in names
        if PEERS[name].missing()
    ]


def in_process_table(found: dict[str, dict[str, list[float]]]) -> str:
    """Write what in_process() returned, by recording."""
    head = ["in process, ns a message (and times the first row)", *found, "does not do"]
    rows = []
    for name in next(iter(found.values())):
        cells = [name]
        for times in found.values():
            pairs = zip(times[name], times[OURS], strict=True)
            ratio = spread(each / ours for each, ours in pairs)
            cells.append(
                f"{statistics.median(times[name]):,.0f}"
                + (f"; {ratio}" if name != OURS else "")
            )
        rows.append([*cells, lacks_of(name)])
    return table(head, rows + skipped_rows(PEERS))


def socket_table(found: dict[str, list[Round]], refused: dict[str, str]) -> str:
    head = [
        "one socket, flat out", "messages", "messages/s, median", "least", "most",
        f"of {row_of(FEED)}'s", "processor, us a message", "of it in the kernel",
        "does not do",
    ]  # fmt: skip
    ours, rows = found[row_of(FEED)], []
    for name, rounds in found.items():
        rates = [rate_of(each) for each in rounds]
        spent = [each.user_s + each.kernel_s for each in rounds]
        costs = [1e6 * s / each.count for s, each in zip(spent, rounds, strict=True)]
        kernel = sum(each.kernel_s for each in rounds) / max(sum(spent), 1e-9)
        ratios = (rate / rate_of(each) for rate, each in zip(rates, ours, strict=True))
        rows.append([
            name,
            f"{rounds[0].count:,} x {len(rounds)}",
            f"{statistics.median(rates):,.0f}",
            f"{min(rates):,.0f}",
            f"{max(rates):,.0f}",
            spread(ratios) if rounds is not ours else "",
            f"{statistics.median(costs):.2f}",
            f"{kernel:.0%}",
            lacks_of(name),
        ])  # fmt: skip
    rows += [[name, f"left out: {why}"] for name, why in refused.items()]
    with_sockets = (name for name, peer in PEERS.items() if peer.over_a_socket)
    return table(head, rows + skipped_rows(with_sockets))


def versions() -> str:
    """Say which packages the figures are of."""
    installed = (p.versions() for p in PEERS.values() if not p.missing())
    return "; ".join(dict.fromkeys(", ".join(installed).split(", ")))


def measure(options: argparse.Namespace) -> str:
    """Measure all of it; return what goes into the page."""
    before = load()
    tables = []
    for path in RECORDINGS.values():
        tables.append(in_process(read_input(path), options.rounds, MOST_MESSAGES))
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    texts = [in_process_table(dict(zip(RECORDINGS, tables, strict=True)))]
    busy = chosen_recordings()[1]
    if options.seconds:
        runs, refused = runs_of(read_input(busy))
        found = over_a_socket(
            wire.material(busy), runs, options.rounds, options.seconds
        )
        texts.append(socket_table(found, refused))
    texts.append(f"{options.rounds} rounds. {versions()}. {machine(before)}")
    return "\n\n".join(texts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="of each run over the socket"
    )
    options = parser.parse_args()
    text = measure(options)
    if options.write:
        pages.write(PAGE, "peers", text)
    print(text)
    return 0


# ── what a book must not have ─────────────────────────────────────────────────────────

MESSAGE = (
    '{"type":"%s","data":{"symbol":"A","bids":[[%s]],"asks":[[11,1]],"sequence":%d},'
    '"channel":"orderbook:A:10","timestamp":1}'
)
HOSTILE = {
    "negative prices": "-9,1",
    "negative sizes": "10,-1",
    "texts for sizes": '10,"1"',
    "NaN": "NaN,1",
}


def is_taken(handle: Handle, level: str, sequence: int = 2) -> bool:
    """Return whether an update with a bid gets into a book, or an error comes of it."""
    texts = [
        MESSAGE % ("orderbook", "9,1", 1),
        MESSAGE % ("orderbook_update", level, sequence),
    ]

    async def handle_both() -> None:
        for text in texts:
            if inspect.iscoroutinefunction(handle):
                await handle(text)
            else:
                handle(text.encode())

    try:
        asyncio.run(handle_both())
    # Each library has errors of its own.
    except Exception:
        return False
    return True


# ── in the tests ──────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module", params=RECORDINGS)
def given(request: pytest.FixtureRequest) -> Input:
    return read_input(RECORDINGS[request.param])


@pytest.mark.parametrize("name", [*harness.CODECS, *PEERS])
def test_the_best_levels_are_right_after_every_message(name: str, given: Input):
    """The first messages of each recording; main() has all of them checked."""
    if name in harness.CODECS:
        handle = Ours(given.instruments, name).handle()
    elif missing := PEERS[name].missing():
        pytest.skip(f"not installed: {', '.join(missing)}")
    else:
        handle = PEERS[name].handle(given.instruments)

    check(name, handle, given, QUICK)


@pytest.mark.parametrize("name", PEERS)
def test_what_a_row_is_said_to_take_it_takes(name: str):
    if missing := PEERS[name].missing():
        pytest.skip(f"not installed: {', '.join(missing)}")
    instruments = [Instrument("A", "orderbook:A:10", 2, 2)]

    def takes(level: str, sequence: int = 2) -> bool:
        return is_taken(PEERS[name].handle(instruments), level, sequence)

    assert takes("10,1")
    assert not takes("10,1", sequence=3)
    assert {what for what in HOSTILE if takes(HOSTILE[what])} == set(PEERS[name].takes)


@pytest.mark.parametrize("codec", harness.CODECS)
@pytest.mark.parametrize("level", HOSTILE.values(), ids=HOSTILE)
def test_we_take_no_such_number(level: str, codec: str):
    ours = Ours([Instrument("A", "orderbook:A:10")], codec)

    is_taken(ours.handle(), level)

    (book,) = ours.session.books()
    assert not book.is_live
    assert book.bids() == [(9.0, 1.0)]


def test_in_process(given: Input, benchmark, report: list[str]):
    rounds = 3 if benchmark.enabled else 1
    found = in_process(given._replace(messages=given.messages[:QUICK]), rounds, QUICK)
    benchmark(lambda: None)
    report.append(in_process_table({given.name: found}))

    assert OURS in found


def test_over_one_socket(benchmark, report: list[str]):
    """Everybody who is there has the last message's best levels, and none is lost."""
    if not wire.has_compiler():
        pytest.skip("there is no cc to build the C programs with")
    busy = chosen_recordings()[1]
    recorded = wire.material(busy, QUICK)
    runs, refused = runs_of(read_input(busy))
    with wire.on_the_first_processor(), prepared(recorded, QUICK) as job:
        found = {name: [run(job, QUICK)] for name, run in runs.items()}
    benchmark(lambda: None)
    report.append(socket_table(found, refused))

    assert row_of(FEED) in found


if __name__ == "__main__":
    sys.exit(main())

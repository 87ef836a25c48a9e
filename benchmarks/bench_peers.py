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
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from benchmarks import harness, pages, wire
from benchmarks.bench_faults import load, machine
from benchmarks.peers import Best, Handle, Instrument, Peer
from benchmarks.peers.ours import Ours, codecs
from benchmarks.peers.roster import PEERS
from benchmarks.wire import Feed, Handler, Material, Pace, Sender

PAGE = harness.ROOT / "benchmarks/README.md"
RECORDINGS = harness.recordings()

ROUNDS = 9
TURNS = 5
# Of a recording in process, and of the busiest over a socket.
MOST_MESSAGES = 20_000
MESSAGES = 400_000
BUSY = "BTCUSDTP.bbo"
QUICK_MESSAGES = 2_000

# All together as fast as the socket takes them, a thousand in one write.
FLAT_OUT = Pace(0, burst=1_024, warm=0)
LOOK_S = 0.0005

OURS = "feedhandler"
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
    """Yield what the best levels were after each message, None where a side is empty."""
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
    return None if math.isnan(bid) or math.isnan(ask) else (bid, bid_size, ask, ask_size)


def check(handle: Handle, given: Input) -> None:
    """Have all messages handled; the best levels must be right after each of them."""
    is_async = inspect.iscoroutinefunction(handle)

    async def handle_all() -> None:
        for number, message in enumerate(given.messages):
            best = await handle(message.decode()) if is_async else handle(message)
            found = plain(best)
            assert found == given.tops[number], (given.name, number, message[:500])

    asyncio.run(handle_all())


# ── in process ────────────────────────────────────────────────────────────────────────

Timers = dict[str, Callable[[], int]]


def timer_of_ours(loops: Any, given: Input, codec: str, messages: list[bytes]):
    """Return what times a Session, fed from a compiled loop as the listener does it."""
    session = Ours(given.instruments, codec).session

    def measure() -> int:
        loops.time_feed(session, given.messages[: given.warm])
        return loops.time_feed(session, messages)

    return measure


def timer(loops: Any, handle: Handle, given: Input, messages: list[bytes]):
    """Return what times a function of messages, from the same sort of loop."""
    first = given.messages[: given.warm]

    def measure() -> int:
        for message in first:
            handle(message)
        return loops.time_each(handle, messages)

    return measure


def timer_of_coroutines(handle: Handle, given: Input, messages: list[bytes]):
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
    """Return what times each of ours, and each peer that is installed; all are checked."""
    loops = harness.loops()
    messages = given.messages[given.warm :][:most]
    found: Timers = {}
    for codec in codecs():
        check(Ours(given.instruments, codec).handle(), given)
        found[f"{OURS}, {codec}"] = timer_of_ours(loops, given, codec, messages)
        handle = Ours(given.instruments, codec).handle()
        found[f"{OURS}, {codec}, from Python"] = timer(loops, handle, given, messages)
    for name, peer in PEERS.items():
        if peer.missing():
            continue
        check(peer.handle(given.instruments), given)
        handle = peer.handle(given.instruments)
        if inspect.iscoroutinefunction(handle):
            found[name] = timer_of_coroutines(handle, given, messages)
        else:
            found[name] = timer(loops, handle, given, messages)
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


if __name__ == "__main__":
    given = read_input(RECORDINGS[sys.argv[1]])
    times=in_process(given, int(sys.argv[2]), 20000)
    for n,t in times.items(): print(f"{n:50} {statistics.median(t):10,.0f} {statistics.median(a/b for a,b in zip(t,times['feedhandler, msgspec'])):6.2f}")

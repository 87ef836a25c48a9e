"""Feeds on bad networks, and a checker that knows what the venue had."""

import asyncio
import io
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feedhandler import Event, FeedHandler
from feedhandler.config import build
from feedhandler.testing import FaultProxy, MultiGap
from feedhandler.venue import Journal, Venue, VenueConfig
from tests.checker import Loss, Read, Report, examine
from tests.end_to_end.processes import unique
from tests.loops import SECONDS, eventually, run

BOOK = "orderbook:AAPL:10"
UPDATE = "orderbook_update"
CAPACITY = 64

# Opens both streams at once, and begins to read when it is told to.
CONSUMER = """
import sys
import numpy as np
from feedhandler import attach
from feedhandler.shm import Status

name, folder = sys.argv[1:]
with attach(name) as market:
    streams = {"quotes": market.quotes("oldest"), "trades": market.trades("oldest")}
    print("attached", flush=True)
    input()
    kept = {stream: [reader.empty] for stream, reader in streams.items()}
    live = True
    while live:
        live = market.status().state is Status.LIVE
        for stream, reader in streams.items():
            reader.wait(0.01)
            while len(batch := reader.poll()):
                kept[stream].append(batch)
    for stream, reader in streams.items():
        np.save(f"{folder}/{stream}.npy", np.concatenate(kept[stream]))
        print(stream, reader.lost, reader.start)
"""


class Consumer:
    """Another process, that reads what a feed publishes to its end."""

    def __init__(self, name: str, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-c", CONSUMER, name, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def attach(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "attached\n"

    def begin(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def reads(self) -> list[Read]:
        told, _ = self._process.communicate(timeout=SECONDS)
        assert self._process.returncode == 0
        return [
            Read(stream, np.load(self._folder / f"{stream}.npy"), int(lost), int(start))
            for stream, lost, start in map(str.split, told.splitlines())
        ]


class Scene:
    """A venue, a proxy and a feed, until the feed has all that the venue ever sent."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.folder = folder
        self.name = unique("trust")
        self.events: list[Event] = []
        self.counters: dict[str, int] = {}
        self.reads: list[Read] = []
        self.consumer: Consumer | None = None
        self._journal = io.BytesIO()
        self._config = {
            "audit_log": str(folder / "audit.log"),
            "shm": {"name": self.name, "capacity": CAPACITY},
            "limits": {
                "subscribe_per_minute": 1000,
                "reconnect_base_s": 0.02,
                "reconnect_jitter": 0.0,
            },
            "instruments": [{"symbol": "AAPL"}, {"symbol": "MSFT"}],
        } | config

    def play(self, act: Callable[[], Awaitable[None]]) -> None:
        """Run *act* with a feed that is LIVE, and bring all to its end."""

        async def work() -> None:
            journal = Journal(self._journal)
            async with (
                Venue(VenueConfig(port=0), journal=journal) as self.venue,
                FaultProxy(self.venue.url) as self.proxy,
            ):
                config = build({"url": self.proxy.url, **self._config})
                async with FeedHandler(config, None, self.events.append) as self.feed:
                    await self.feed.live(SECONDS)
                    await act()
                    self.proxy.heal()
                    await self.feed.live(SECONDS)
                    await self.venue.stop()
                    await eventually(lambda: not self.feed.is_live, "the end")
                    self.counters = self.feed.counters()
                if self.consumer is not None:
                    self.reads = await asyncio.to_thread(self.consumer.reads)

        run(work)

    async def attach(self) -> "Consumer":
        """Start a consumer, who does not read yet."""
        self.consumer = Consumer(self.name, self.folder)
        await asyncio.to_thread(self.consumer.attach)
        return self.consumer

    def losses(self) -> list[Loss]:
        """The updates that the proxy did not pass in time."""
        return [
            Loss(
                fault.detail["channel"], fault.detail["sequence"], fault.kind == "swap"
            )
            for fault in self.proxy.log
            if fault.kind in ("gap", "swap")
        ]

    def lines(self) -> list[str]:
        path = self.folder / "audit.log"
        return path.read_text().splitlines(keepends=True)

    def examined(self, lines: list[str] | None = None) -> Report:
        """Judge the lines of the audit log, or others instead."""
        return examine(
            self._journal.getvalue().decode().splitlines(keepends=True),
            self.lines() if lines is None else lines,
            reads=self.reads,
            losses=self.losses(),
            events=self.events,
            quiescent=True,
        )


@pytest.mark.req("I-01", "I-03", "I-06")
def test_a_feed_that_loses_updates_tells_nothing_that_is_not_so(tmp_path):
    scene = Scene(tmp_path)

    async def act() -> None:
        consumer = await scene.attach()
        lap = scene.feed.counters()["quotes"] + CAPACITY + 10
        gaps = MultiGap(radix=24, length=2, total=4)
        scene.proxy.down.gap(gaps)
        await eventually(lambda: gaps.updates == 2 * 4 * 2, "the losses")
        await eventually(lambda: scene.feed.counters()["gaps"] == 8, "their detection")
        await eventually(lambda: scene.feed.counters()["quotes"] > lap, "a lap")
        consumer.begin()

    scene.play(act)
    violations, counts = scene.examined()

    assert violations == []
    assert scene.counters["gaps"] == 8
    assert counts["losses"] == 16
    assert counts["live lines"] > 100
    assert counts["events"] >= 24
    quotes, trades = scene.reads
    assert quotes.lost > 0
    missed = sum(read.lost + (read.start or 0) for read in (quotes, trades))
    published = sum(line[0] in "QT" for line in scene.lines())
    assert counts["records"] + missed == published


@pytest.mark.req("F-36", "F-37", "I-04")
def test_a_feed_that_is_cut_off_and_confused_tells_nothing_that_is_not_so(tmp_path):
    scene = Scene(tmp_path, publish="changes")

    async def act() -> None:
        down = scene.proxy.down
        down.duplicate(type=UPDATE, count=10)
        down.swap(type=UPDATE, channel=BOOK, count=3, after=20)
        await scene.proxy.happened("swap", 3)
        for connects in (2, 3):
            scene.proxy.reset()
            await eventually(
                lambda n=connects: scene.feed.counters()["connects"] == n,
                "a connection",
            )
            await scene.feed.live(SECONDS)
        sequence = scene.feed.book("AAPL").sequence
        await scene.venue.restart()
        await eventually(
            lambda: scene.feed.is_live and scene.feed.book("AAPL").sequence > sequence,
            "the new venue to come as far as the old one",
        )

    scene.play(act)
    violations, counts = scene.examined()

    assert violations == []
    assert counts["losses"] == 3
    assert counts["live lines"] > 100
    assert scene.counters["disconnects"] == 4
    assert scene.counters["duplicates"] >= 10
    for change, invariant in (
        (without_the_first_gap, {"I-03"}),
        (with_another_sum, {"I-01"}),
        # It may be the snapshot after the last loss.
        (without_the_last_book, {"I-01", "I-03"}),
        (with_a_trade_twice, {"I-07"}),
    ):
        found = scene.examined(change(scene.lines())).violations
        assert invariant & {violation.invariant for violation in found}, change


def place_of(lines: list[str], kind: str, *flags: int) -> int:
    """Return the last place of a kind of line whose flags are among *flags*."""
    fields = [line.split() for line in lines]
    return max(
        place
        for place, words in enumerate(fields)
        if words[:1] == [kind] and (not flags or int(words[5]) & 0xFF in flags)
    )


def without_the_first_gap(lines: list[str]) -> list[str]:
    """Leave every line out that says GAP."""
    return [line for line in lines if line[0] != "Q" or not int(line.split()[5]) & 4]


def with_another_sum(lines: list[str]) -> list[str]:
    place = place_of(lines, "Q", 1)
    return [*lines[:place], lines[place][:-1] + "0\n", *lines[place + 1 :]]


def without_the_last_book(lines: list[str]) -> list[str]:
    """Let the end of the feed be one update too early."""
    channel = lines[place_of(lines, "Q", 1)].split()[2:5]
    return [line for line in lines if line.split()[2:5] != channel]


def with_a_trade_twice(lines: list[str]) -> list[str]:
    place = place_of(lines, "T")
    return [*lines[:place], lines[place], *lines[place:]]

"""Recorded markets on a wire with faults: never wrong, and right at last."""

import json
import random
from typing import Any

import pytest

from feedhandler.codec import Codec, MsgspecCodec, ScanCodec
from feedhandler.records import Flags
from tests.feeds import Feed
from tests.recordings import Recording, crc, crc10, recordings

LOST, REPEATED, SWAPPED = 0.004, 0.004, 0.004
ANSWERED_AFTER = 25
SOUND_END = 200


class Books:
    """The recorded books in plain dicts, for the snapshots of a venue."""

    def __init__(self) -> None:
        self._books: dict[str, tuple[int, dict[float, float], dict[float, float]]] = {}

    def apply(self, message: dict[str, Any]) -> None:
        data = message["data"]
        _, bids, asks = self._books.get(message["channel"], (0, {}, {}))
        if message["type"] == "orderbook":
            bids, asks = {}, {}
        for side, levels in ((bids, data["bids"]), (asks, data["asks"])):
            for price, size in levels:
                side[price] = size
                if not size:
                    del side[price]
        self._books[message["channel"]] = (data["sequence"], bids, asks)

    def snapshot(self, channel: str) -> dict[str, Any]:
        sequence, bids, asks = self._books[channel]
        depth = int(channel.split(":")[2])
        return {
            "type": "orderbook",
            "data": {
                "symbol": channel.split(":")[1],
                "bids": sorted(bids.items(), reverse=True)[:depth],
                "asks": sorted(asks.items())[:depth],
                "sequence": sequence,
            },
            "channel": channel,
            "timestamp": 1,
        }


@pytest.mark.req("I-01", "I-07", "OB-12")
@pytest.mark.parametrize("recording", recordings(), ids=repr)
@pytest.mark.parametrize("codec", [MsgspecCodec, ScanCodec])
def test_a_recording_with_faults_is_never_wrong_and_ends_equal_to_its_truth(
    codec: type[Codec], recording: Recording
):
    truth = {(row["symbol"], int(row["sequence"])): row for row in recording.truth()}
    lines = recording.lines()
    names = [name for held in recording.channels().values() for name in held]
    feed = Feed(*names, answers=True, subscribes=10**6, codec=codec())
    symbols = [name.split(":")[1] for name in names]
    books, chance = Books(), random.Random(5)
    waiting: list[tuple[int, str]] = []
    behind: bytes | None = None
    live = faults = 0
    feed.sent()

    def deliver(message: bytes | dict[str, Any]) -> None:
        nonlocal live
        feed.receive(message)
        for quote in feed.quotes():
            if not quote.flags & Flags.LIVE:
                continue
            live += 1
            row = truth[symbols[quote.instrument], quote.sequence]
            for name in ("bid_px", "bid_qty", "ask_px", "ask_qty"):
                side, _, what = name.partition("_")
                value = getattr(quote, f"{side}_{'price' if what == 'px' else 'size'}")
                assert not row[name] or value == float(row[name]), (row["line"], name)

    for number, line in enumerate(lines):
        is_book = line.startswith(b'{"type":"orderbook')
        if is_book:
            books.apply(json.loads(line))
        fate = chance.random() if is_book and number + SOUND_END < len(lines) else 1.0
        faults += fate < LOST + REPEATED + SWAPPED
        if fate >= LOST:
            deliver(line)
        if behind is not None:
            deliver(behind)
            behind = None
        if LOST <= fate < LOST + REPEATED:
            deliver(line)
        elif LOST + REPEATED <= fate < LOST + REPEATED + SWAPPED and number:
            behind = lines[number - 1]
        feed.collect()
        waiting += [
            (number + ANSWERED_AFTER, c) for _, asked in feed.asked() for c in asked
        ]
        while waiting and (waiting[0][0] <= number or number + 50 > len(lines)):
            deliver(books.snapshot(waiting.pop(0)[1]))
        feed.pass_s(0.0001)

    if codec is ScanCodec:
        assert feed.session.codec.scanned > len(truth) // 2
    assert faults > 5
    assert live > len(truth) // 2
    assert feed.counter("faults") == feed.counter("malformed") == 0
    last = {row["symbol"]: row for row in truth.values()}
    for name in names:
        if not name.startswith("orderbook:"):
            continue
        row, book = last[name.split(":")[1]], feed.book(name)
        like = row["bid_px"] or row["ask_px"]
        assert book.sequence == int(row["sequence"])
        assert crc10(book.bids(10), book.asks(10), like) == int(row["crc10"])
        if row["crc_full"]:
            assert crc(book.bids() + book.asks(), like) == int(row["crc_full"])

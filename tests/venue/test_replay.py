"""Recorded markets: the same bytes, and snapshots for those who come late."""

import csv
import gzip
import json
import os
import zlib
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import pytest

from feedhandler.errors import ConfigError
from feedhandler.protocol.channels import parse_channel
from feedhandler.venue.config import ReplayConfig
from feedhandler.venue.replay import Replay

SMALL = Path(__file__).parent.parent / "data" / "engine.jsonl.gz"
LARGE = ("BTCUSDT.full", "ETHUSDT.top10", "BTCUSDTP.bbo", "coinbase10")
RECORDINGS = os.environ.get("FEEDHANDLER_RECORDINGS")


def lines_of(path):
    with gzip.open(path) as file:
        return file.read().splitlines()


def replay(path=SMALL, **options):
    return Replay(ReplayConfig(path=str(path), **options))


def books_in(path):
    return sorted(
        {
            json.loads(line)["channel"]
            for line in lines_of(path)
            if b'"type":"orderbook"' in line
        }
    )


class Held:
    """A subscriber's book, kept as text by code of its own."""

    def __init__(self):
        self.sequence = None
        self.sides = {"bids": {}, "asks": {}}

    def take(self, payload):
        message = json.loads(payload)
        data = message["data"]
        if message["type"] == "orderbook":
            self.sides = {"bids": {}, "asks": {}}
        else:
            assert data["sequence"] == self.sequence + 1
        self.sequence = data["sequence"]
        for name, side in self.sides.items():
            for price, quantity in data[name]:
                if quantity == 0:
                    side.pop(price, None)
                else:
                    side[price] = quantity

    def crc10(self, decimals):
        bids = sorted(self.sides["bids"].items(), reverse=True)[:10]
        asks = sorted(self.sides["asks"].items())[:10]
        parts = []
        for rank in range(10):
            for price, quantity in (*bids[rank : rank + 1], *asks[rank : rank + 1]):
                size = f"{Decimal(repr(quantity)):f}"
                size = size.removesuffix(".0")
                parts.append(f"{price:.{decimals}f}:{size}")
        return zlib.crc32(":".join(parts).encode())


class Truth:
    """What every book must be after every message, by symbol and sequence."""

    def __init__(self, path):
        self.rows = defaultdict(dict)
        self.decimals = {}
        with gzip.open(path, "rt") as file:
            for row in csv.DictReader(file):
                self.rows[row["symbol"]][int(row["sequence"])] = row
                for price in (row["bid_px"], row["ask_px"]):
                    self.decimals[row["symbol"]] = len(price.partition(".")[2])

    def check(self, symbol, held):
        row = self.rows[symbol][held.sequence]
        assert len(held.sides["bids"]) == int(row["n_bids"])
        assert len(held.sides["asks"]) == int(row["n_asks"])
        assert held.crc10(self.decimals[symbol]) == int(row["crc10"])


def test_the_bytes_of_a_recording_go_out_unchanged_and_in_order():
    market = replay(speed="max")
    assert market.advance(0) == []
    market.open("trades:AAPL", 0)

    sent = []
    while not market.finished:
        sent += market.advance(0)

    assert [push.payload for push in sent] == lines_of(SMALL)
    assert market.due_ns() is None


def test_nothing_is_sent_before_the_first_subscriber():
    market = replay()

    assert market.due_ns() is None
    assert market.advance(10**18) == []
    market.open("trades:AAPL", 10**18)
    assert market.due_ns() == 10**18


@pytest.mark.parametrize("speed", [1.0, 4.0])
def test_lines_come_with_the_recorded_timing(speed):
    times = [int(line) for line in lines_of(SMALL.with_name("engine.ts.gz"))]
    market = replay(speed=speed)
    start_ns = 5_000_000_000
    market.open("trades:AAPL", start_ns)

    for seconds in (0, 0.1, 0.5, 2):
        elapsed_ns = round(seconds * 1e9)
        while market.advance(start_ns + elapsed_ns):
            pass
        due = sum((time - times[0]) / speed <= elapsed_ns for time in times)
        assert market.sent == due


@pytest.mark.parametrize("name", books_in(SMALL))
def test_a_snapshot_is_the_book_at_the_sequence_sent_last(name):
    check_late_subscribers(SMALL, [name], every=1)


@pytest.mark.skipif(not RECORDINGS, reason="FEEDHANDLER_RECORDINGS is not set")
@pytest.mark.parametrize("recording", LARGE)
def test_a_snapshot_of_a_real_market_is_its_truth(recording):
    path = Path(RECORDINGS or "") / f"{recording}.jsonl.gz"

    check_late_subscribers(path, books_in(path), every=20)


def check_late_subscribers(path, names, every):
    """Subscribe again and again: snapshot and tail must both lead to the truth."""
    stem = path.name.removesuffix(".jsonl.gz")
    truth = Truth(path.with_name(f"{stem}.truth.csv.gz"))
    market = replay(path, speed="max")
    held = {name: Held() for name in names}
    for name in names:
        assert market.open(name, 0) == []
    batches = checked = 0
    while not market.finished:
        for push in market.advance(0):
            if push.channel in held:
                held[push.channel].take(push.payload)
        batches += 1
        if batches % every and not market.finished:
            continue
        for name in names:
            if held[name].sequence is None:
                continue
            symbol = parse_channel(name).symbol
            (payload,) = market.open(name, 0)
            message = json.loads(payload)
            late = Held()
            late.take(payload)
            assert message["channel"] == name
            assert late.sequence == held[name].sequence
            assert late.sides == held[name].sides
            for side, best_first in (("bids", -1), ("asks", 1)):
                prices = [best_first * level[0] for level in message["data"][side]]
                assert prices == sorted(prices)
            truth.check(symbol, late)
            checked += 1
    assert checked >= len(names)


@pytest.mark.req("A-06")
def test_before_the_recorded_snapshot_is_sent_none_is_made_up():
    market = replay(speed="max")

    assert market.open("orderbook:AAPL:10", 0) == []
    assert market.open("orderbook:AAPL:10", 0) == []
    first = market.advance(0)[0]

    assert first.snapshot
    assert json.loads(first.payload)["channel"] == "orderbook:AAPL:10"
    assert len(market.open("orderbook:AAPL:10", 0)) == 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("orderbook:AAPL:10", None),
        ("candles:ETH-USD:1w", None),
        ("ticker:ETH-USD", None),
        ("trades:MSFT", "'MSFT' is not in the recording"),
        ("orderbook:AAPL:5", "depth 5 is not recorded, depth 10 is"),
    ],
)
def test_any_channel_of_a_recorded_symbol_can_be_had_but_no_other_depth(name, says):
    refusal = replay().refusal(parse_channel(name))

    assert refusal == says or says in refusal


def test_a_loop_begins_again_at_the_first_line():
    market = replay(speed="max", loop=True)
    market.open("orderbook:AAPL:10", 0)
    lines = lines_of(SMALL)

    sent = []
    while len(sent) < 2 * len(lines) + 1:
        sent += [push.payload for push in market.advance(0)]

    assert sent[: len(lines)] == sent[len(lines) : 2 * len(lines)] == lines
    assert not market.finished


def test_flat_out_it_waits_while_nobody_is_subscribed():
    market = replay(speed="max")
    market.open("trades:AAPL", 0)
    market.advance(0)
    market.release("trades:AAPL")

    assert market.due_ns() is None
    assert market.advance(0) == []
    market.open("trades:AAPL", 0)
    assert market.advance(0)


GOOD = b'{"type":"trade","data":{},"channel":"trades:A","timestamp":1}'


def test_a_plain_recording_is_read_like_a_compressed_one(tmp_path):
    path = tmp_path / "plain.jsonl"
    path.write_bytes(GOOD + b"\n" + GOOD)
    (tmp_path / "plain.ts").write_text("1\n2\n")
    market = replay(path, speed="max")
    market.open("trades:A", 0)

    assert [push.payload for push in market.advance(0)] == [GOOD, GOOD]


@pytest.mark.parametrize(
    ("lines", "times", "says"),
    [
        (None, b"1\n", "cannot read .*x.jsonl: No such file"),
        (GOOD, None, "cannot read .*x.*ts.*: No such file"),
        (b"", b"", "is empty"),
        (GOOD + b"\n" + GOOD, b"1\n", "differ in length after line 1"),
        (GOOD + b"\n{", b"1\n2\n", "x.jsonl line 2 is malformed"),
        (GOOD, b"noon\n", "x.ts line 1 is malformed"),
        (b'{"type":"trade","channel":"trades"}', b"1\n", "line 1 is malformed"),
        (b'{"type":"trade","channel":"ticker:A"}', b"1\n", "'trade' on channel"),
        (
            b'{"type":"orderbook","channel":"orderbook:A:1","data":{}}',
            b"1\n",
            "line 1 is malformed",
        ),
    ],
)
def test_a_damaged_recording_is_one_clear_error(tmp_path, lines, times, says):
    path = tmp_path / "x.jsonl"
    if lines is not None:
        path.write_bytes(lines)
    if times is not None:
        (tmp_path / "x.ts").write_bytes(times)

    with pytest.raises(ConfigError, match=says):
        replay(path)


@pytest.mark.parametrize("damage", [lambda d: d[:-20], lambda d: b"no gzip" + d])
def test_a_broken_gzip_is_one_clear_error(tmp_path, damage):
    path = tmp_path / "engine.jsonl.gz"
    path.write_bytes(damage(SMALL.read_bytes()))
    times = SMALL.with_name("engine.ts.gz").read_bytes()
    (tmp_path / "engine.ts.gz").write_bytes(times)

    with pytest.raises(ConfigError, match=r"cannot read .*engine.jsonl.gz: "):
        replay(path)


def test_a_file_of_another_name_is_refused():
    with pytest.raises(ConfigError, match=r"not named \*.jsonl"):
        replay("market.csv")

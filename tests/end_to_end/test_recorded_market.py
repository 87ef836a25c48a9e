"""Recorded markets through venue, handler and consumer, record by record."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feedhandler.handler import CODECS
from feedhandler.records import Flags
from tests.end_to_end.processes import (
    attached,
    left_behind,
    program,
    unique,
    until,
    venue,
)
from tests.recordings import Recording, crc, crc10, recordings

SOUND = Flags.LIVE | Flags.CROSSED
SECONDS = 60.0


def toml(
    recording: Recording, url: str, name: str, codec: str, publish: str = "every"
) -> str:
    lines = [f'url = "{url}"', f'codec = "{codec}"', f'publish = "{publish}"']
    lines += ["[shm]", f'name = "{name}"']
    for table in recording.instruments():
        lines.append("[[instruments]]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join(lines)


def expected(text: str) -> float:
    return float(text) if text else math.nan


@pytest.mark.req("OB-11", "OB-12", "BP-10")
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("recording", recordings(), ids=repr)
def test_quotes_in_shared_memory_equal_the_truth(
    recording: Recording, codec: str, tmp_path: Path
):
    name = unique("truth")
    truth = recording.truth()
    batches: list[Any] = []
    with venue("--replay", str(recording.path), "--speed", "max") as (_, url):
        config = tmp_path / "feed.toml"
        config.write_text(toml(recording, url, name, codec))
        with (
            program("run", "--config", str(config)) as handler,
            attached(name) as market,
        ):
            quotes = market.quotes(start="oldest")

            def all_there() -> bool:
                batch = quotes.poll()
                batches.append(batch[(batch["flags"] & SOUND) != 0].copy())
                return sum(map(len, batches)) >= len(truth)

            until(all_there, "every quote", SECONDS)
            symbols = market.symbols()
            counters = market.counters()
            lost = quotes.lost
            assert handler.end() == 0
    read = np.concatenate(batches)

    assert lost == 0
    assert counters["gaps"] == counters["malformed"] == counters["bad_values"] == 0
    assert len(read) == len(truth)
    for instrument, symbol in enumerate(symbols):
        ours = read[read["instrument"] == instrument]
        rows = [row for row in truth if row["symbol"] == symbol]
        assert ours["sequence"].tolist() == [int(row["sequence"]) for row in rows]
        for field, column in (
            ("bid_price", "bid_px"),
            ("bid_size", "bid_qty"),
            ("ask_price", "ask_px"),
            ("ask_size", "ask_qty"),
        ):
            np.testing.assert_array_equal(
                ours[field],
                [expected(row[column]) for row in rows],
                f"{symbol} {field}",
            )
    assert left_behind(name) == []


@pytest.mark.req("I-04", "BP-10")
def test_with_last_in_read_no_quote_is_missing_but_those_that_are_counted(
    tmp_path: Path,
):
    recording, name = recordings()[0], unique("last")
    truth = recording.truth()
    with venue("--replay", str(recording.path), "--speed", "max") as (_, url):
        config = tmp_path / "feed.toml"
        config.write_text(toml(recording, url, name, "scan", "last_in_read"))
        with (
            program("run", "--config", str(config)) as handler,
            attached(name) as market,
        ):
            quotes = market.quotes(start="oldest")
            read: list[tuple[str, int]] = []

            def all_there() -> bool:
                passed_over = market.counters()["conflated"]
                batch = quotes.poll()
                batch = batch[(batch["flags"] & SOUND) != 0]
                read.extend(batch[["instrument", "sequence"]].tolist())
                return len(read) + passed_over >= len(truth)

            until(all_there, "every quote", SECONDS)
            symbols = market.symbols()
            tops = {symbol: market.top(symbol) for symbol in symbols}
            passed_over = market.counters()["conflated"]
            assert handler.end() == 0

    states = [(symbols.index(r["symbol"]), int(r["sequence"])) for r in truth]
    assert len(read) + passed_over == len(truth)
    assert passed_over > 0
    for instrument, symbol in enumerate(symbols):
        ours = [sequence for number, sequence in read if number == instrument]
        theirs = [sequence for number, sequence in states if number == instrument]
        rest = iter(theirs)
        assert all(sequence in rest for sequence in ours)
        assert ours[-1] == theirs[-1] == tops[symbol].sequence


@pytest.mark.req("OB-13", "OB-15")
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("recording", recordings(), ids=repr)
def test_the_book_in_process_equals_the_truth(recording: Recording, codec: str):
    import asyncio

    from feedhandler import FeedHandler, PythonSink
    from feedhandler.config import build

    truth = recording.truth()
    wrong: list[str] = []
    checked = {"crc10": 0, "crc_full": 0}
    rows = iter(truth)

    with venue("--replay", str(recording.path), "--speed", "max") as (_, url):
        config = build(
            {
                "url": url,
                "codec": codec,
                "shm": {"name": unique("crc")},
                # The checks below take longer than the market did.
                "stall_after": 0,
                "instruments": recording.instruments(),
            }
        )

        class Check(PythonSink):
            def quote(self, event) -> None:
                row = next(rows)
                book = feed.book(row["symbol"])
                like = row["bid_px"] or row["ask_px"]
                bids, asks = book.bids(10), book.asks(10)
                checked["crc10"] += 1
                if event.sequence != int(row["sequence"]):
                    wrong.append(f"line {row['line']}: sequence {event.sequence}")
                if crc10(bids, asks, like) != int(row["crc10"]):
                    wrong.append(f"line {row['line']}: crc10")
                if row["crc_full"]:
                    checked["crc_full"] += 1
                    if crc(book.bids() + book.asks(), like) != int(row["crc_full"]):
                        wrong.append(f"line {row['line']}: crc_full")
                    if len(book.bids()) != int(row["n_bids"]):
                        wrong.append(f"line {row['line']}: n_bids")

        feed = FeedHandler(config, sink=Check())

        async def run() -> None:
            async with feed:
                async with asyncio.timeout(SECONDS):
                    while checked["crc10"] < len(truth) and not wrong:
                        await asyncio.sleep(0.01)

        asyncio.run(run())

    assert wrong == []
    assert checked["crc10"] == len(truth)
    assert checked["crc_full"] == sum(1 for row in truth if row["crc_full"])

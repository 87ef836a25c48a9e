"""The asyncio iterator: nothing lost, an end that is told, no thread left behind."""

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from feedhandler import consumer, shm
from feedhandler.consumer_async import records
from feedhandler.errors import RingError
from feedhandler.records import QUOTE
from feedhandler.ring import Ring
from feedhandler.shm import Status
from tests.test_consumer import WRITER, Feed

SECONDS = 10.0


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    gc.collect()
    wait_until(lambda: not helpers())


@pytest.fixture
def feed(tmp_path):
    feed = Feed(tmp_path)
    yield feed
    feed.close()


@pytest.fixture
def market(feed, tmp_path):
    with consumer.attach("md", directory=tmp_path) as market:
        yield market


def helpers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("feedhandler")]


def wait_until(probe: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not probe():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def run(work) -> None:
    asyncio.run(asyncio.wait_for(work, SECONDS))


def test_batches_come_in_order_until_the_writer_closes(feed, market):
    got: list[float] = []

    async def write() -> None:
        for number in range(200):
            feed.quote(float(number))
            await asyncio.sleep(0.0001 * (number % 3))
        feed.close()

    async def work() -> None:
        writer = asyncio.create_task(write())
        async for batch in records(market.quotes()):
            got.extend(batch["bid_price"].tolist())
        assert helpers() == []
        await writer

    run(work())
    assert got == [float(number) for number in range(200)]


def test_what_was_published_before_the_end_is_read(feed, market):
    quotes = market.quotes()
    for number in range(10):
        feed.quote(float(number))
    feed.close()

    async def work() -> None:
        sizes = [len(batch) async for batch in records(quotes, max=4)]
        assert sizes == [4, 4, 2]

    run(work())


@pytest.mark.req("F-76")
def test_it_ends_when_the_writer_dies(tmp_path):
    writer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)],
        stdout=subprocess.PIPE,
    )
    try:
        assert writer.stdout.readline() == b"ready\n"
        with consumer.attach("md", directory=tmp_path) as market:
            quotes = market.quotes()

            async def work() -> None:
                count = 0
                async for batch in records(quotes):
                    count += len(batch)
                    if count > 100:
                        writer.kill()
                assert quotes.status is Status.DEAD
                assert count == quotes.received
                assert quotes.received + quotes.lost == quotes.position - quotes.start

            run(work())
    finally:
        writer.kill()
        writer.communicate()


@pytest.mark.req("F-78")
def test_with_no_end_it_goes_on_with_the_successor(feed, market, tmp_path):
    quotes = market.quotes()
    feed.quote(1.0)

    async def work() -> None:
        async with records(quotes, until=()) as batches:
            assert (await anext(batches))["bid_price"].tolist() == [1.0]
            following = asyncio.create_task(anext(batches))
            await asyncio.sleep(0.01)
            feed.close()
            successor = Feed(tmp_path)
            successor.quote(2.0)
            assert (await following)["bid_price"].tolist() == [2.0]
            assert quotes.resets == 1
            successor.close()

    run(work())


def test_a_cancelled_wait_loses_nothing_and_gives_the_stream_back(feed, market):
    quotes = market.quotes()

    async def work() -> None:
        batches = records(quotes)
        for number in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(batches), 0.005)
            feed.quote(float(number))
            assert (await anext(batches))["bid_price"].tolist() == [float(number)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(batches), 0.005)
        quotes.close()

    run(work())


def test_a_task_cancelled_twice_waits_for_its_thread(market):
    quotes = market.quotes()

    async def work() -> None:
        reading = asyncio.create_task(anext(records(quotes)))
        while not helpers():
            await asyncio.sleep(0.001)
        reading.cancel()
        await asyncio.sleep(0.001)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        quotes.close()

    run(work())


def test_leaving_the_loop_early_ends_the_thread(feed, market):
    quotes = market.quotes()

    async def work() -> None:
        asyncio.get_running_loop().call_later(0.01, feed.quote, 1.0)
        async for batch in records(quotes):
            assert len(batch) == 1
            break
        gc.collect()
        await asyncio.to_thread(wait_until, lambda: not helpers())

    run(work())


def test_closing_ends_whoever_waits(market):
    async def work() -> None:
        batches = records(market.quotes())
        reading = asyncio.create_task(anext(batches, None))
        while not helpers():
            await asyncio.sleep(0.001)
        await batches.aclose()
        assert await reading is None
        assert helpers() == []
        assert await anext(batches, None) is None
        await batches.aclose()

    run(work())


def test_an_error_of_the_stream_is_raised_and_ends_it(market):
    async def work() -> None:
        batches = records(market.quotes(), strategy="block")
        with pytest.raises(RingError, match="does not wake readers"):
            await anext(batches)
        assert helpers() == []
        assert await anext(batches, None) is None

    run(work())


@pytest.mark.parametrize("strategy", ["adaptive", "spin", "block"])
def test_every_strategy_wakes_the_loop(tmp_path, strategy):
    feed = Feed(tmp_path)
    owned = shm.create("x", "quotes", Ring.size_for(QUOTE, 64), directory=tmp_path)
    ring = Ring(owned.buffer, QUOTE, 64, owned.origin, wake=True)
    owned.publish()
    source = consumer.Source("x", tmp_path, None)
    stream = consumer.Stream(source, "quotes", QUOTE, "new", "half")

    def write() -> None:
        ring.publish_record(np.zeros(1, QUOTE))
        ring.flush()

    async def work() -> None:
        async with records(stream, strategy=strategy) as batches:
            for _ in range(20):
                asyncio.get_running_loop().call_later(0.002, write)
                assert len(await anext(batches)) == 1

    run(work())
    stream.close()
    ring.release()
    owned.close()
    feed.close()


def test_a_stream_that_is_never_empty_leaves_the_loop_its_turns(feed, market):
    quotes = market.quotes()
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def work() -> None:
        task = asyncio.create_task(other())
        batches = records(quotes)
        for number in range(50):
            feed.quote(float(number))
            assert len(await anext(batches)) == 1
        assert turns >= 50
        task.cancel()
        await batches.aclose()

    run(work())

"""The venue: its matching engine alone, and the whole of it over a socket."""

import asyncio
import contextlib
import gc
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from benchmarks.harness import ROOT
from benchmarks.served import KEY, SECRET
from feedhandler.protocol.channels import MARKET_DATA, TRADING
from feedhandler.protocol.signature import sign
from feedhandler.venue.matching import Engine, Report, Side, TimeInForce

COUNT = 100_000
ROUNDS = 21
LEAST_A_SECOND = 500_000
MIDDLE_TICKS = 100_000
OWNERS = 50

MIX = {"limit": 45, "cancel": 35, "take": 10, "modify": 5, "stop": 5}

Operation = tuple[str, tuple[Any, ...]]


class Crowd:
    """Seeded traders, who see the book: they act on an engine of their own."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._engine = Engine()
        self._living: list[int] = []
        self.stream: list[Operation] = []

    def act(self, count: int) -> list[Operation]:
        """Return *count* operations; what they make due is activated between."""
        for kind in self._random.choices([*MIX], [*MIX.values()], k=count):
            name, arguments = getattr(self, f"_{kind}")()
            self.stream.append((name, arguments))
            self._note(getattr(self._engine, name)(*arguments))
            while order_id := self._engine.next_due():
                self._note(self._engine.activate(order_id))
        return self.stream

    def _note(self, report: Report) -> None:
        if report.resting_lots or report.waiting_lots:
            self._living.append(report.order_id)

    def _owner_side_lots(self) -> tuple[int, int, int]:
        random = self._random
        side = random.choice((Side.BUY, Side.SELL))
        return random.randrange(OWNERS), int(side), random.randint(1, 200)

    def _near(self, side: int) -> int:
        """Return a price mostly behind the touch, sometimes across it."""
        best = self._engine.price_at(side, 0) or MIDDLE_TICKS
        behind = int(self._random.expovariate(0.1)) - 2
        return best - behind if side == Side.BUY else best + behind

    def _chosen(self) -> int | None:
        living, random = self._living, self._random
        while living:
            index = random.randrange(len(living))
            living[index], living[-1] = living[-1], living[index]
            order_id = living.pop()
            if self._engine.order(order_id) or self._engine.stop(order_id):
                return order_id
        return None

    def _limit(self) -> Operation:
        owner, side, lots = self._owner_side_lots()
        return "submit", (owner, side, lots, self._near(side))

    def _take(self) -> Operation:
        owner, side, lots = self._owner_side_lots()
        best = self._engine.price_at(1 - side, 0)
        if best is None or self._random.random() < 0.5:
            return "submit", (owner, side, lots)
        return "submit", (owner, side, lots, best, int(TimeInForce.IOC))

    def _stop(self) -> Operation:
        owner, side, lots = self._owner_side_lots()
        away = self._random.randint(1, 20) * (1 if side == Side.BUY else -1)
        stop = (self._engine.last_ticks or MIDDLE_TICKS) + away
        price = stop + 2 * away if self._random.random() < 0.5 else None
        return "submit", (owner, side, lots, price, int(TimeInForce.GTC), stop)

    def _cancel(self) -> Operation:
        order_id = self._chosen()
        return self._limit() if order_id is None else ("cancel", (order_id,))

    def _modify(self) -> Operation:
        order_id = self._chosen()
        if order_id is None:
            return self._limit()
        order, lots = self._engine.order(order_id), self._random.randint(1, 200)
        if order is None or self._random.random() < 0.5:
            return "modify", (order_id, lots)
        return "modify", (order_id, lots, self._near(order[1]))


def run(
    calls: list[tuple[Callable[..., Report], tuple[Any, ...]]], engine: Engine
) -> None:
    """Do what a caller must, and no more."""
    next_due, activate = engine.next_due, engine.activate
    for call, arguments in calls:
        call(*arguments)
        while order_id := next_due():
            activate(order_id)


def run_reading(
    calls: list[tuple[Callable[..., Report], tuple[Any, ...]]], engine: Engine
) -> None:
    """Look at every trade and every level that changed, too."""
    next_due, activate = engine.next_due, engine.activate
    for call, arguments in calls:
        report = call(*arguments)
        for fill in report.fills:
            _ = fill.price_ticks, fill.lots, fill.maker_id
        for _side, _price, _lots in report.changes:
            pass
        while order_id := next_due():
            activate(order_id)


@pytest.fixture(scope="module")
def stream() -> list[Operation]:
    return Crowd(seed=1).act(COUNT)


@pytest.mark.parametrize("runner", [run, run_reading])
def test_operations(runner, stream: list[Operation], benchmark, report: list[str]):
    """Operations on an empty book; the activations between are not counted."""
    wall, cpu = [], []

    def before():
        engine = Engine()
        methods = {
            name: getattr(engine, name) for name in ("submit", "cancel", "modify")
        }
        calls = [(methods[name], arguments) for name, arguments in stream]
        gc.collect()
        return (calls, engine), {}

    for _ in range(ROUNDS if benchmark.enabled else 1):
        arguments, _none = before()
        started, ticks = time.thread_time_ns(), time.perf_counter_ns()
        runner(*arguments)
        wall.append(time.perf_counter_ns() - ticks)
        cpu.append(time.thread_time_ns() - started)
    benchmark.pedantic(runner, setup=before, rounds=3)
    middle = statistics.median(wall) / COUNT
    what = "calls alone" if runner is run else "and reading"
    report.append(
        f"engine, {what}  min {min(wall) / COUNT:5.0f} ns   median {middle:5.0f} ns   "
        f"cpu {statistics.median(cpu) / COUNT:5.0f} ns an operation   "
        f"{1e3 / middle:5.2f} M a second"
    )
    if benchmark.enabled and runner is run:
        assert COUNT * 1e9 / statistics.median(cpu) >= LEAST_A_SECOND


# ── over a socket ─────────────────────────────────────────────────────────────────────

SECONDS = 2.0
RUNS = 5
TRIPS = 4000
LEAST_MESSAGES_A_SECOND = 50_000
LEAST_TRIPS_A_SECOND = 3_000
SYMBOLS = ("AAPL", "MSFT", "BTC-USD", "ETH-USD")
ORDER = {"symbol": "AAPL", "type": "limit", "price": 150, "quantity": 1}


def two_processors() -> tuple[int, int]:
    """Return the venue's processor and ours."""
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < 2:
        pytest.skip("one processor: venue and client would share it")
    return processors[0], processors[-1]


@contextlib.contextmanager
def served(what: str) -> Iterator[str]:
    """Run a venue on one processor, and this process on another."""
    theirs, ours = two_processors()
    command = [sys.executable, "-m", "benchmarks.served", what, str(theirs)]
    before = os.sched_getaffinity(0)
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as venue:
        try:
            os.sched_setaffinity(0, {ours})
            assert venue.stdout is not None
            yield venue.stdout.readline().strip()
        finally:
            os.sched_setaffinity(0, before)
            venue.kill()


class Counting(WSListener):
    """Counts what arrives, and reads nothing of it."""

    def __init__(self) -> None:
        super().__init__()
        self.messages = 0
        self.bytes = 0

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.messages += 1
        self.bytes += frame.payload_size


async def count_messages(url: str, channels: list[str]) -> list[tuple[float, float]]:
    """Return messages and MB a second of each run."""
    transport, client = await ws_connect(Counting, url + MARKET_DATA)
    assert isinstance(client, Counting)
    request = {"action": "subscribe", "data": {"channels": channels}}
    transport.send(WSMsgType.TEXT, json.dumps(request).encode())
    await asyncio.sleep(1.0)
    rates = []
    for _ in range(RUNS):
        before, octets, started = client.messages, client.bytes, time.perf_counter()
        await asyncio.sleep(SECONDS)
        seconds = time.perf_counter() - started
        rates.append(
            (
                (client.messages - before) / seconds,
                (client.bytes - octets) / seconds / 1e6,
            )
        )
    transport.disconnect()
    return rates


@pytest.mark.parametrize("depths", [(10,), (5, 10, 20, 50), tuple(range(5, 50, 5))])
def test_messages_to_one_subscriber(depths: tuple[int, ...], benchmark, report):
    """Books of these depths, trades and ticker of four symbols."""
    kinds = ["trades:{}", "ticker:{}", *(f"orderbook:{{}}:{d}" for d in depths)]
    channels = [kind.format(symbol) for kind in kinds for symbol in SYMBOLS]
    with served("market") as url:
        rates = uvloop.run(count_messages(url, channels))
    benchmark(lambda: None)
    messages, megabytes = zip(*rates, strict=True)
    report.append(
        f"to one subscriber of {len(channels):2} channels  "
        f"median {statistics.median(messages):7,.0f} messages a second "
        f"({min(messages):,.0f} to {max(messages):,.0f}), "
        f"{statistics.median(megabytes):.0f} MB a second"
    )
    if benchmark.enabled and len(depths) > 4:
        assert statistics.median(messages) >= LEAST_MESSAGES_A_SECOND


class Trading:
    """A blocking client, as quick as Python has it: one request at a time."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        assert address.port is not None
        self._socket = socket.create_connection(("127.0.0.1", address.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb", buffering=1 << 16)
        self._socket.sendall(UPGRADE)
        while self._file.readline() != b"\r\n":
            pass
        now_ms = time.time_ns() // 1_000_000
        signature = sign(KEY, SECRET.encode(), now_ms)
        self.ask("authenticate", api_key=KEY, signature=signature, timestamp=now_ms)

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def frame(self, action: str, **data: Any) -> bytes:
        text = json.dumps({"action": action, "data": data, "id": "r"}).encode()
        # A key of zeros: what it masks stays as it is.
        return b"\x81" + masked_size(len(text)) + bytes(4) + text

    def ask(self, action: str, **data: Any) -> bytes:
        return self.trip(self.frame(action, **data))

    def trip(self, frame: bytes) -> bytes:
        """Send a request; return its answer, past what else is said."""
        self._socket.sendall(frame)
        while b'"id":"r"' not in (message := self._message()):
            pass
        return message

    def _message(self) -> bytes:
        _, size = self._file.read(2)
        if size == 126:
            size = int.from_bytes(self._file.read(2), "big")
        return self._file.read(size)


def masked_size(size: int) -> bytes:
    if size < 126:
        return bytes((0x80 | size,))
    return bytes((0x80 | 126,)) + size.to_bytes(2, "big")


UPGRADE = (
    f"GET {TRADING} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
).encode()


@pytest.mark.parametrize("private", [False, True])
def test_order_round_trips(private: bool, benchmark, report):
    """A buy rests and a sell trades with it, one after the other, both ours."""
    with served("orders") as url, contextlib.closing(Trading(url)) as client:
        if private:
            channels = ["user_orders", "user_trades", "account_updates"]
            client.ask("subscribe", channels=channels)
        frames = [
            client.frame("submit_order", side=s, **ORDER) for s in ("buy", "sell")
        ]
        assert b'"status":"accepted"' in client.trip(frames[0])
        client.trip(frames[1])
        rates, taken_us = [], []
        for _ in range(RUNS if benchmark.enabled else 1):
            started = time.perf_counter()
            for number in range(TRIPS):
                before = time.perf_counter_ns()
                client.trip(frames[number & 1])
                taken_us.append((time.perf_counter_ns() - before) / 1000)
            rates.append(TRIPS / (time.perf_counter() - started))
    benchmark(lambda: None)
    taken_us.sort()
    report.append(
        f"orders{', told on three channels' if private else '':25}  "
        f"median {statistics.median(rates):6,.0f} round trips a second "
        f"({min(rates):,.0f} to {max(rates):,.0f}), p50 "
        f"{taken_us[len(taken_us) // 2]:.0f} us, p99 "
        f"{taken_us[len(taken_us) * 99 // 100]:.0f} us"
    )
    if benchmark.enabled and not private:
        assert statistics.median(rates) >= LEAST_TRIPS_A_SECOND

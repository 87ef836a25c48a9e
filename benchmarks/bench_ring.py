"""The ring: stores, polls, and one-way latency between two Python processes."""

import importlib.util
import timeit

import numpy as np
import pytest

from benchmarks import harness, transports
from feedhandler.records import QUOTE
from feedhandler.ring import Reader, Ring

ROUNDS = 21
RUNS = 3
COUNT = 200_000
CAPACITY = 65_536
PUBLISH_NS = 10
EMPTY_POLL_NS = 80
ONE_WAY_NS = 1000
WIDE = np.dtype([(f"word_{number}", "<u8") for number in range(16)])

loops = harness.loops()
one_way: dict[str, float] = {}


def new_ring() -> tuple[bytearray, Ring]:
    buffer = bytearray(Ring.size_for(QUOTE, CAPACITY))
    return buffer, Ring(buffer, QUOTE, CAPACITY)


def middle(found: transports.Latency) -> float:
    return float(np.median(found.all_ns))


def spread(times: list[int], count: int) -> str:
    each = np.array(times) / count
    return f"min {each.min():8.1f} ns   median {np.median(each):8.1f} ns"


def repeat(benchmark, function, *arguments, before=lambda: None) -> list[int]:
    """Call *function* for its time, often enough for a minimum."""
    times = []
    for _ in range(ROUNDS if benchmark.enabled else 1):
        before()
        times.append(function(*arguments))
    before()
    benchmark.pedantic(function, arguments, rounds=1)
    return times


@pytest.mark.parametrize("dtype", [QUOTE, WIDE], ids=["64", "128"])
def test_publish(dtype, benchmark, report: list[str]):
    ring = Ring(bytearray(Ring.size_for(dtype, CAPACITY)), dtype, CAPACITY)
    loops.time_publish(ring, CAPACITY)
    times = repeat(benchmark, loops.time_publish, ring, COUNT)
    report.append(f"publish, {dtype.itemsize:>3} bytes      {spread(times, COUNT)}")
    if benchmark.enabled and dtype is QUOTE:
        assert min(times) / COUNT < PUBLISH_NS


def test_next(benchmark, report: list[str]):
    buffer = bytearray(Ring.size_for(QUOTE, CAPACITY))
    ring = Ring(buffer, QUOTE, CAPACITY)
    reader, count = Reader(buffer), CAPACITY // 2
    times = repeat(
        benchmark, loops.time_next, reader, count,
        before=lambda: loops.time_publish(ring, count),
    )  # fmt: skip
    report.append(f"next, from C loop       {spread(times, count)}")


def test_an_empty_poll(benchmark, report: list[str]):
    """From Python's own loop: the call is half of it."""
    buffer, _ring = new_ring()
    timer = timeit.Timer("poll()", globals={"poll": Reader(buffer).poll})
    times = repeat(benchmark, lambda: int(timer.timeit(COUNT) * 1e9))
    report.append(f"poll, empty             {spread(times, COUNT)}")
    if benchmark.enabled:
        assert min(times) / COUNT < EMPTY_POLL_NS


@pytest.mark.parametrize("count", [1, 256])
def test_a_poll_of(count: int, benchmark, report: list[str]):
    buffer, ring = new_ring()
    reader = Reader(buffer)
    times = repeat(
        benchmark, loops.time_poll, reader, 1,
        before=lambda: loops.time_publish(ring, count),
    )  # fmt: skip
    report.append(f"poll of {count:>3} records     {spread(times, 1)}")


@pytest.mark.parametrize("name", transports.TRANSPORTS)
def test_one_way(name: str, benchmark, report: list[str]):
    """From one Python process to another, each on a processor of its own."""
    needed = transports.NEEDS.get(name)
    if needed is not None and importlib.util.find_spec(needed) is None:
        report.append(f"{name:<14} skipped: {needed} is not installed")
        pytest.skip(f"{needed} is not installed")
    count, runs = (20_000, RUNS) if benchmark.enabled else (50, 1)
    # The quietest of a few runs, for all alike: the machine has other things to do.
    found = min((transports.latency(name, count) for _ in range(runs)), key=middle)
    benchmark.pedantic(lambda: None, rounds=1)
    waiting = found.all_ns[found.waiting]
    for kind, times in (("waiting", waiting), ("all", found.all_ns)):
        if len(times) == 0:
            report.append(f"{name:<14} {kind:<8} no sample: it blocks, or never waited")
            continue
        p50, p99, p999 = np.percentile(times, (50, 99, 99.9)) / 1000
        report.append(
            f"{name:<14} {kind:<8} p50 {p50:8.2f}   p99 {p99:8.2f}   "
            f"p99.9 {p999:8.2f} us   ({len(times)} samples)"
        )
    received, rate = transports.throughput(name, COUNT if benchmark.enabled else 100)
    report.append(f"{name:<14} at full speed {rate:6.2f} M msg/s, {received} received")
    one_way[name] = float(np.median(waiting)) if len(waiting) else float("nan")
    if benchmark.enabled and name == "ring":
        assert one_way[name] < ONE_WAY_NS
    if benchmark.enabled and name == "iceoryx2" and "ring" in one_way:
        ratio = one_way[name] / one_way["ring"]
        report.append(f"iceoryx2 / ring: {ratio:.1f} x at p50, waiting")

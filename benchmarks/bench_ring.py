"""The ring: stores, polls, and one-way latency between two Python processes."""

import functools
import importlib.util
import shutil
import timeit
from typing import NamedTuple

import numpy as np
import pytest

from benchmarks import harness, transports
from feedhandler.records import QUOTE
from feedhandler.ring import Reader, Ring

ROUNDS = 21
RUNS = 5
COUNT = 200_000
CAPACITY = 65_536
PUBLISH_NS = 10
PUBLISH_TIMES = 2
EMPTY_POLL_NS = 80
ONE_WAY_NS = 2000
COMPILED = "ring, in C"
WIDE = np.dtype([(f"word_{number}", "<u8") for number in range(16)])

loops = harness.loops()


def new_ring() -> tuple[bytearray, Ring]:
    buffer = bytearray(Ring.size_for(QUOTE, CAPACITY))
    return buffer, Ring(buffer, QUOTE, CAPACITY)


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
    if dtype is not QUOTE:
        return
    # There are minutes in which this machine's memory is twice as slow.
    bare = min(loops.time_copy(ring, COUNT) for _ in range(len(times))) / COUNT
    report.append(f"the same bytes, bare    min {bare:8.1f} ns")
    if benchmark.enabled:
        assert min(times) / COUNT < max(PUBLISH_NS, PUBLISH_TIMES * bare)


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


@pytest.mark.parametrize("call", ["poll", "fill"])
@pytest.mark.parametrize("count", [1, 256])
def test_a_read_of(call: str, count: int, benchmark, report: list[str]):
    """The ring holds the records already, from another cache line each."""
    buffer, ring = new_ring()
    reader = Reader(buffer)
    times = repeat(
        benchmark, loops.time_call, getattr(reader, call), 1,
        before=lambda: loops.time_publish(ring, count),
    )  # fmt: skip
    report.append(f"{call} of {count:>3} records     {spread(times, 1)}")


class Waited(NamedTuple):
    """Percentiles of one run in us: 50, 99, 99.9; NaN where nothing was measured."""

    waiting: np.ndarray
    all: np.ndarray


def percentiles(times_ns: np.ndarray) -> np.ndarray:
    if len(times_ns) == 0:
        return np.full(3, np.nan)
    return np.percentile(times_ns, (50, 99, 99.9)) / 1000


@functools.cache
def one_way_runs(names: tuple[str, ...], count: int, runs: int):
    """Measure the transports in turn, and all of them *runs* times.

    In turn, so that what else the machine does in a minute meets all of them alike.
    """
    found: dict[str, list[Waited]] = {name: [] for name in names}
    for _ in range(runs):
        for name, results in found.items():
            if name == COMPILED:
                run = transports.compiled_latency(loops, count)
            else:
                run = transports.latency(name, count)
            waiting = run.all_ns[run.waiting]
            results.append(Waited(percentiles(waiting), percentiles(run.all_ns)))
    return found


def selected(session: pytest.Session) -> tuple[str, ...]:
    """Return the transports that this run of the tests asks for and has."""
    asked = {
        item.callspec.params["name"]
        for item in session.items
        if isinstance(item, pytest.Function) and item.function is test_one_way
    }
    return tuple(name for name in installed() if name in asked)


def installed() -> list[str]:
    return [
        name
        for name in (COMPILED, *transports.TRANSPORTS)
        if transports.NEEDS.get(name) is None
        or importlib.util.find_spec(transports.NEEDS[name]) is not None
    ]


def median_run(runs: list[Waited], kind: str) -> np.ndarray:
    return np.median([getattr(run, kind) for run in runs], axis=0)


@pytest.mark.parametrize("name", [COMPILED, *transports.TRANSPORTS])
def test_one_way(name: str, benchmark, report: list[str], request):
    """From one process to another, each on a processor of its own."""
    if name not in installed():
        report.append(f"{name:<14} skipped: {transports.NEEDS[name]} is not installed")
        pytest.skip(f"{transports.NEEDS[name]} is not installed")
    if name == COMPILED and shutil.which("gcc") is None:
        pytest.skip("there is no gcc to build one_way.c with")
    wanted = selected(request.session)
    measured = one_way_runs(wanted, *((20_000, RUNS) if benchmark.enabled else (50, 1)))
    benchmark.pedantic(lambda: None, rounds=1)
    for kind in ("waiting", "all"):
        p50, p99, p999 = median_run(measured[name], kind)
        if np.isnan(p50):
            report.append(f"{name:<14} {kind:<8} no sample: it blocks, or never waited")
            continue
        each = [round(float(getattr(run, kind)[0]), 2) for run in measured[name]]
        report.append(
            f"{name:<14} {kind:<8} p50 {p50:8.2f}   p99 {p99:8.2f}   "
            f"p99.9 {p999:8.2f} us   (p50 of each run: {each})"
        )
    if benchmark.enabled and name == "ring":
        assert median_run(measured[name], "waiting")[0] < ONE_WAY_NS / 1000
    if benchmark.enabled and name == "iceoryx2" and "ring" in measured:
        ratios = [
            theirs.waiting[0] / ours.waiting[0]
            for theirs, ours in zip(measured[name], measured["ring"], strict=True)
        ]
        report.append(
            f"iceoryx2 / ring: {np.median(ratios):.1f} x at p50, waiting "
            f"({min(ratios):.1f} to {max(ratios):.1f} in {len(ratios)} runs)"
        )


@pytest.mark.parametrize("name", transports.TRANSPORTS)
def test_at_full_speed(name: str, benchmark, report: list[str]):
    """As fast as Python sends, whether or not the receiver keeps up."""
    if name not in installed():
        pytest.skip(f"{transports.NEEDS[name]} is not installed")
    sent = COUNT if benchmark.enabled else 100
    received, rate = transports.throughput(name, sent)
    benchmark.pedantic(lambda: None, rounds=1)
    lost = sent - received
    report.append(
        f"{name:<14} at full speed {rate:6.2f} M msg/s, {lost} of {sent} lost"
    )

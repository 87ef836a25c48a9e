"""Commands: one way from an engine's call to the handler's poll in another process."""

import multiprocessing
import os
import tempfile
import time
from multiprocessing.connection import Connection

import numpy as np
import pytest

from feedhandler import shm
from feedhandler.board import Board
from feedhandler.commands import Commands
from feedhandler.errors import ChannelFull
from feedhandler.trader import Trader

RUNS = 5
COUNT = 20_000
GAP_NS = 50_000
POLLS_MIN = 3
WARM_UP = 200
SPAWN = multiprocessing.get_context("spawn")


def trade(folder: str, count: int, gap_ns: int, cpu: int, line: Connection) -> None:
    """Be the engine: give *count* commands, *gap_ns* apart."""
    os.sched_setaffinity(0, {cpu})
    clock = time.monotonic_ns
    with Trader("bench", directory=folder, timeout_s=20) as trader:
        spent = 0
        due = clock()
        for _ in range(count):
            before = clock()
            while True:
                try:
                    trader.cancel("order", deadline_s=60)
                    break
                except ChannelFull:
                    before = clock()
            spent += clock() - before
            due += gap_ns
            while clock() < due:
                pass
            due = max(due, clock() - gap_ns)
        line.send(spent / count)


def one_way(
    count: int, gap_ns: int, wakes: bool
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the ns of each command, whether it was waited for, and the ns of a call.

    From before the engine packs the record, to when it is a Command in the handler.
    """
    before = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="bench-") as folder:
        size = Board.size_for(64, 10)
        with shm.create("bench", "board", size, directory=folder) as owned:
            board = Board(owned.buffer, 64, 10, owned.origin)
            owned.publish()
            made = owned.origin
            offset_ns = made.created_realtime_ns - made.created_monotonic_ns
            ours, theirs = SPAWN.Pipe()
            engine = SPAWN.Process(
                target=trade, args=(folder, count, gap_ns, max(before), theirs)
            )
            with Commands(
                "bench", folder, made.epoch, offset_ns, wakes=wakes
            ) as commands:
                engine.start()
                os.sched_setaffinity(0, {min(before)})
                try:
                    times, polls = receive(commands, count)
                    assert ours.poll(20), "the engine did not end"
                    return times, polls >= POLLS_MIN, ours.recv()
                finally:
                    os.sched_setaffinity(0, before)
                    engine.kill()
                    engine.join()
                    board.release()


def receive(commands: Commands, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Be the handler, which polls without a pause; count the polls before each."""
    clock, poll = time.monotonic_ns, commands.poll
    taken: list[tuple[int, int]] = []
    beat_ns = polls = 0
    while len(taken) < count:
        now_ns = clock()
        if now_ns >= beat_ns:
            commands.beat(now_ns)
            beat_ns = now_ns + 100_000_000
        found = poll(now_ns)
        if not found:
            polls += 1
            continue
        now_ns = clock()
        taken += [(now_ns - command.sent_ns, polls) for command in found]
        polls = 0
    array = np.array(taken, np.int64)
    return array[:, 0], array[:, 1]


@pytest.mark.parametrize("wakes", [False, True], ids=["spin", "block"])
def test_one_way(wakes: bool, benchmark, report: list[str]):
    """The handler polls in both; with "block" the engine also sends datagrams."""
    count, runs = (COUNT + WARM_UP, RUNS) if benchmark.enabled else (50 + WARM_UP, 1)
    found = [one_way(count, GAP_NS, wakes) for _ in range(runs)]
    benchmark.pedantic(lambda: None, rounds=1)
    for kind in ("waiting", "all"):
        rows = []
        for times, waiting, _ in found:
            kept = times[WARM_UP:]
            kept = kept[waiting[WARM_UP:]] if kind == "waiting" else kept
            if len(kept):
                rows.append(np.percentile(kept, (50, 99, 99.9)) / 1000)
        if not rows:
            report.append(f"commands {kind:<8} no sample: it never waited")
            continue
        p50, p99, p999 = np.median(rows, axis=0)
        report.append(
            f"commands, {'block' if wakes else 'spin '} {kind:<8} p50 {p50:8.2f}   "
            f"p99 {p99:8.2f}   p99.9 {p999:8.2f} us"
        )
    call_ns = np.median([call_ns for *_, call_ns in found])
    report.append(f"the engine's call       {call_ns:8.0f} ns")


def test_at_full_speed(benchmark, report: list[str]):
    """As fast as Python gives them and takes them."""
    count = 200_000 if benchmark.enabled else 1000
    started = time.monotonic_ns()
    times, _, call_ns = one_way(count, 0, False)
    benchmark.pedantic(lambda: None, rounds=1)
    span_ns = time.monotonic_ns() - started
    report.append(
        f"commands at full speed {call_ns:8.0f} ns a call, {len(times)} taken in "
        f"{span_ns / 1e9:.2f} s with the start of a process"
    )

"""Engines and handlers in processes of their own, at full speed and killed."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from feedhandler.commands import Command
from feedhandler.errors import HandlerGone
from feedhandler.trader import Trader
from tests.engines import Feed, names, until

BARE = {"fh-md.board", "fh-md.board.lock", ".fh-md.wake"}

# Has imported everything already: a new engine costs a fork.
NURSERY = """
    import os, signal, sys, time
    from feedhandler.errors import ChannelFull
    from feedhandler.trader import Trader

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    directory = sys.argv[1]

    def trade(seconds):
        number, full = 0, 0
        with Trader("md", directory=directory, capacity=64, timeout_s=10) as trader:
            end_ns = time.monotonic_ns() + int(seconds * 1e9)
            while time.monotonic_ns() < end_ns:
                try:
                    trader.submit(
                        f"S{number}", "buy", "stop_limit", number + 1.0,
                        price=number + 2.0, stop_price=number + 3.0,
                        client_id=f"{number}", deadline_s=30,
                    )
                    number += 1
                except ChannelFull:
                    full += 1
        return number, full

    print("ready", flush=True)
    for line in iter(sys.stdin.readline, ""):
        pid = os.fork()
        if pid == 0:
            number, full = trade(float(line))
            print(number, full, flush=True)
            os._exit(0)
        print(pid, flush=True)
"""

HANDLER = """
    import sys, time
    from pathlib import Path
    from tests.engines import Feed

    feed = Feed(Path(sys.argv[1]))
    print("ready", flush=True)
    while True:
        feed.beat()
        for command in feed.poll():
            print(command.client_id, flush=True)
        time.sleep(0.001)
"""


def start(script: str, directory: Path) -> subprocess.Popen:
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(directory)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert child.stdout.readline() == "ready\n"
    return child


@pytest.fixture
def nursery(tmp_path):
    child = start(NURSERY, tmp_path)
    yield child
    child.communicate()


def engine_in(nursery: subprocess.Popen, seconds: float) -> int:
    """Start an engine that trades for so long; return its pid."""
    nursery.stdin.write(f"{seconds}\n")
    nursery.stdin.flush()
    return int(nursery.stdout.readline())


def is_whole(command: Command, number: int) -> bool:
    """Tell whether every field is of the command with that number."""
    numbers = (command.quantity, command.price, command.stop_price)
    return (
        (command.client_id, command.symbol) == (f"{number}", f"S{number}")
        and numbers == (number + 1.0, number + 2.0, number + 3.0)
        and (command.side, command.type) == ("buy", "stop_limit")
    )


def take_until(feed: Feed, taken: list[Command], condition) -> None:
    """Let the handler's loop turn without pause until *condition* holds."""
    beat_ns = 0
    end_ns = time.monotonic_ns() + 20_000_000_000
    while not condition():
        now_ns = time.monotonic_ns()
        assert now_ns < end_ns, "it never came true"
        if now_ns >= beat_ns:
            beat_ns = now_ns + 20_000_000
            feed.beat()
        taken += feed.poll()


@pytest.mark.parametrize("wakes", [True, False], ids=["block", "spin"])
def test_at_full_speed_every_command_comes_once_and_whole(nursery, tmp_path, wakes):
    feed = Feed(tmp_path, wakes=wakes)
    taken: list[Command] = []
    engine_in(nursery, 1.0)
    take_until(feed, taken, lambda: feed.commands.channels == 1)
    take_until(feed, taken, lambda: feed.commands.channels == 0)
    taken += feed.poll()
    published, _ = map(int, nursery.stdout.readline().split())
    left = names(tmp_path)
    feed.close()

    assert len(taken) == published > 1000
    assert all(is_whole(command, number) for number, command in enumerate(taken))
    assert {command.problem for command in taken} == {""}
    assert left == BARE


def kill_one(nursery: subprocess.Popen, feed: Feed, wanted: int) -> list[Command]:
    """Kill an engine when it has given some commands; return all that it gave."""
    taken: list[Command] = []
    pid = engine_in(nursery, 60)
    take_until(feed, taken, lambda: len(taken) >= wanted)
    os.kill(pid, signal.SIGKILL)
    take_until(feed, taken, lambda: feed.commands.channels == 0)
    return taken + feed.poll()


def kill_engines(nursery: subprocess.Popen, directory: Path, kills: int) -> int:
    """Kill engines while they trade; return how many commands they gave."""
    feed = Feed(directory)
    given = 0
    for kill in range(kills):
        taken = kill_one(nursery, feed, 1 + 37 * kill % 300)

        assert all(is_whole(command, number) for number, command in enumerate(taken))
        # All that was taken before the death was seen, then all that was left.
        problems = [command.problem for command in taken]
        assert problems == sorted(problems)
        assert set(problems) <= {"", "its engine is dead"}
        assert names(directory) == BARE
        given += len(taken)
    assert feed.commands.broken == feed.commands.refused == feed.commands.untrusted == 0
    feed.close()
    return given


@pytest.mark.req("F-76")
def test_an_engine_that_is_killed_leaves_no_half_command(nursery, tmp_path):
    assert kill_engines(nursery, tmp_path, 20) > 1000


@pytest.mark.stress
def test_a_hundred_engines_that_are_killed_leave_no_half_command(nursery, tmp_path):
    given = kill_engines(nursery, tmp_path, 100)
    print(f"\n{given} commands of 100 engines")

    assert given > 5000


@pytest.mark.parametrize("restarts", [False, True])
def test_an_engine_learns_that_its_handler_was_killed(tmp_path, restarts):
    handler = start(HANDLER, tmp_path)
    trader = Trader("md", directory=tmp_path, timeout_s=10)
    trader.cancel("taken")
    assert handler.stdout.readline() == "taken\n"
    os.kill(handler.pid, signal.SIGSTOP)
    for number in range(5):
        trader.cancel(f"left-{number}", deadline_s=30)
    handler.kill()
    handler.communicate()
    if restarts:
        handler = start(HANDLER, tmp_path)
    gone: list[HandlerGone] = []

    def fails() -> bool:
        try:
            trader.cancel("left-behind", deadline_s=30)
        except HandlerGone as error:
            gone.append(error)
        return bool(gone)

    until(fails)
    expired = [each.client_id for each in trader.expired()]
    if restarts:
        trader.cancel("again")
        assert handler.stdout.readline() == "again\n"
        handler.kill()
        handler.communicate()
    trader.close()

    assert re.search("it is (DEAD|SUPERSEDED)", str(gone[0]))
    assert expired[:5] == [f"left-{number}" for number in range(5)]
    assert set(expired[5:]) <= {"left-behind"}
    assert trader.expired() == []

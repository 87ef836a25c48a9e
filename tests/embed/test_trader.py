"""An engine in C: the same channel, the same promises."""

import os
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest

from feedhandler import command
from feedhandler.commands import Command
from feedhandler.records import CommandKind
from tests.engines import Feed, names, running

HERE = Path(__file__).parent
BARE = {"fh-md.board", "fh-md.board.lock", ".fh-md.wake"}


@pytest.fixture
def engine(build) -> Path:
    return build(HERE / "trader.c")


def start(engine: Path, directory: Path, *arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [engine, directory, "md", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def is_whole(taken: Command, number: int) -> bool:
    """Tell whether every field is of the order with that number."""
    numbers = (taken.quantity, taken.price, taken.stop_price)
    return (taken.client_id, taken.symbol) == (
        f"{number}",
        f"S{number}",
    ) and numbers == (number + 1.0, number + 2.0, number + 3.0)


def take_until(feed: Feed, taken: list[Command], condition) -> None:
    beat_ns = 0
    end_ns = time.monotonic_ns() + 20_000_000_000
    while not condition():
        now_ns = time.monotonic_ns()
        assert now_ns < end_ns, "it never came true"
        if now_ns >= beat_ns:
            beat_ns = now_ns + 20_000_000
            feed.beat()
        taken += feed.poll()


def test_the_handler_gets_what_c_asks_for(engine, tmp_path):
    with running(tmp_path) as loop:
        child = start(engine, tmp_path, "say")
        out, error = child.communicate(timeout=10)
        taken = loop.wait_for(6)
    submitted, every, some, *refused = out.split()
    first = taken[0]

    assert (child.returncode, error) == (0, "")
    assert {each.problem for each in taken} == {""}
    assert {each.channel for each in taken} == {f"commands-{child.pid}"}
    assert [each.kind for each in taken] == [
        CommandKind.SUBMIT, CommandKind.MODIFY, CommandKind.CANCEL,
        CommandKind.CANCEL_ALL, CommandKind.CANCEL_ALL, CommandKind.RESOLVE,
    ]  # fmt: skip
    assert [each.client_id for each in taken] == [
        submitted, submitted, submitted, every, some, "mine",
    ]  # fmt: skip
    assert first[4:11] == ("BTC-USD", "sell", "stop_limit", "day", 2.0, 9.5, 9.75)
    assert (taken[1].quantity, taken[1].price, taken[1].stop_price) == (3.0, 11.0, None)
    assert (taken[3].symbol, taken[4].symbol) == (None, "BTC-USD")
    assert first.deadline_ns - first.sent_ns == 1_000_000_000
    assert refused == ["-29"] * 3
    assert names(tmp_path) == set()


@pytest.mark.parametrize("wakes", [True, False], ids=["block", "spin"])
def test_at_full_speed_every_command_of_c_comes_once(engine, tmp_path, wakes):
    feed = Feed(tmp_path, wakes=wakes)
    taken: list[Command] = []
    child = start(engine, tmp_path, "flood", 20_000)
    take_until(feed, taken, lambda: feed.commands.channels == 1)
    take_until(feed, taken, lambda: feed.commands.channels == 0)
    taken += feed.poll()
    out, _ = child.communicate(timeout=10)
    published, full = map(int, out.split())
    left = names(tmp_path)
    feed.close()

    assert (len(taken), published) == (20_000, 20_000)
    assert full > 0
    assert all(is_whole(each, number) for number, each in enumerate(taken))
    assert {each.problem for each in taken} == {""}
    assert left == BARE


def kill_one(engine: Path, feed: Feed, us: int) -> tuple[list[Command], bool]:
    """Let an engine be killed; return what it gave, and if it left a half command."""
    taken: list[Command] = []
    child = start(engine, feed.directory, "burst", us)
    # Without a beat, which would see the death, and remove what we want to see.
    while child.poll() is None:
        taken += feed.poll()
    child.communicate()
    assert child.returncode == -signal.SIGALRM
    raw = (feed.directory / f"fh-md.commands-{child.pid}").read_bytes()
    words = struct.unpack("<" + "Q184x" * 4096, raw[0x3000:])
    take_until(feed, taken, lambda: feed.commands.channels == 0)
    return taken + feed.poll(), any(word >> 63 for word in words)


def kill_engines(engine: Path, directory: Path, kills: int) -> tuple[int, int]:
    """Return how many commands the engines gave, and how many died within one."""
    feed = Feed(directory)
    given = half = 0
    for kill in range(kills):
        taken, is_half = kill_one(engine, feed, 50 + 97 * kill % 700)

        assert all(is_whole(each, number) for number, each in enumerate(taken))
        problems = [each.problem for each in taken]
        assert problems == sorted(problems)
        assert set(problems) <= {"", "its engine is dead"}
        assert names(directory) == BARE
        given += len(taken)
        half += is_half
    assert feed.commands.broken == feed.commands.refused == feed.commands.untrusted == 0
    feed.close()
    return given, half


@pytest.mark.req("F-76")
def test_a_killed_engine_of_c_leaves_no_half_command(engine, tmp_path):
    given, half = kill_engines(engine, tmp_path, 60)

    assert given > 3000
    assert half > 0


@pytest.mark.stress
def test_hundreds_of_killed_engines_of_c_leave_no_half_command(engine, tmp_path):
    given, half = kill_engines(engine, tmp_path, 300)
    print(f"\n{given} commands of 300 engines, {half} of which died within one")

    assert given > 15_000
    assert half > 0


def test_c_learns_what_its_handler_left_behind(engine, tmp_path):
    with running(tmp_path) as loop:
        child = start(engine, tmp_path, "left", 5)
        assert child.stdout.readline() == "given\n"
        loop.wait_for(5)
        loop.stop()
    out, error = child.communicate(timeout=10)

    # All five were taken; what it tries since then, nobody took.
    *expired, later, more = out.split()
    assert (child.returncode, error) == (0, "")
    assert set(expired) <= {"late"}
    assert (later, more) == ("-28", "0")
    assert names(tmp_path) == set()


def test_c_takes_back_what_was_not_taken(engine, tmp_path):
    with running(tmp_path) as loop:
        loop.polls = False
        child = start(engine, tmp_path, "left", 3)
        assert child.stdout.readline() == "given\n"
        loop.stop()
    out, _ = child.communicate(timeout=10)
    *expired, later, more = out.split()
    taken = [each.client_id for each in loop.taken]

    assert [*taken, *expired][:3] == ["left-0", "left-1", "left-2"]
    assert len(expired) >= 3
    assert (later, more) == ("-28", "0")


def test_c_has_one_trader_in_a_process_and_none_of_its_parent(engine, tmp_path):
    with running(tmp_path) as loop:
        child = start(engine, tmp_path, "fork")
        out, error = child.communicate(timeout=10)
        given = sorted(each.client_id for each in loop.wait_for(2))

    assert (child.returncode, error) == (0, "")
    assert out.splitlines() == [
        "this process has a trader of that feed already",
        "the trader belongs to the parent process",
        "no error",
    ]
    assert given == ["child", "parent"]
    assert names(tmp_path) == set()


def test_c_finds_no_handler_where_there_is_none(engine, tmp_path):
    nothing = start(engine, tmp_path, "say").communicate(timeout=10)[1]
    feed = Feed(tmp_path)
    feed.commands.close()
    (tmp_path / ".fh-md.wake").touch()
    deaf = start(engine, tmp_path, "say")
    before = time.monotonic()
    told = deaf.communicate(timeout=20)[1]
    took = time.monotonic() - before
    feed.close()

    assert nothing == told == "open: no handler takes commands\n"
    assert took > 1.9
    assert names(tmp_path) == {".fh-md.wake"}


def test_a_long_directory_is_no_hindrance(engine, tmp_path):
    directory = tmp_path / ("d" * 90)
    directory.mkdir()
    with running(directory, beat_s=60) as loop:
        child = start(engine, directory, "say")
        child.communicate(timeout=10)
        loop.wait_for(6)

    assert child.returncode == 0


def test_the_pages_are_where_the_package_has_them(build, tmp_path):
    source = tmp_path / "pages.c"
    source.write_text(
        """
        #include "feedhandler.h"
        int main(void)
        {
            printf("%zu %zu %d %d %s %zu", offsetof(struct fh_channel_page, revoked),
                   offsetof(struct fh_cursor_page, turn), FH_CHANNEL_SLOTS,
                   FH_CHANNEL_MAX, FH_CURSOR_SCHEMA,
                   FH_CHANNEL_SLOTS + FH_CHANNEL_MAX * sizeof(struct fh_command));
            return 0;
        }
        """
    )
    done = subprocess.run(build(source), capture_output=True, text=True, check=True)

    assert done.stdout.split() == [
        "128", "128", "12288", "4096", command.CURSOR_SCHEMA,
        str(command.CHANNEL_BYTES_MAX),
    ]  # fmt: skip
    assert os.sysconf("SC_PAGESIZE") == 4096

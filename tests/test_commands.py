"""The handler's side of command channels: who is served, and what is left of whom."""

import os
import stat
import time
from pathlib import Path

import pytest

from feedhandler import shm
from feedhandler.command import CURSOR_BYTES, CursorWriter, Published
from feedhandler.commands import CHANNELS, TAKEN, Commands
from feedhandler.errors import RingError
from feedhandler.shm import Status
from tests.engines import BUSY, SLOTS, Engine, Feed, abandon, names

SECOND_NS = 1_000_000_000


@pytest.fixture
def feed(tmp_path):
    feed = Feed(tmp_path)
    yield feed
    feed.close()


@pytest.fixture
def engines(feed):
    """Make engines, and let go of them at the end."""
    made: list[Engine] = []

    def make(pid: int = 1234, **how) -> Engine:
        made.append(Engine(feed, pid, **how))
        return made[-1]

    yield make
    for engine in made:
        engine.forget()


def ids(commands) -> list[str]:
    return [command.client_id for command in commands]


# ── engines that come ─────────────────────────────────────────────────────────────────


def test_an_engine_that_rings_is_served_at_once(feed, engines):
    engine = engines()
    feed.ring(b"1234")
    woken = feed.is_woken()
    feed.poll()
    cursor = engine.follow()
    engine.give(3)
    taken = feed.poll()

    assert woken
    assert ids(taken) == ["1234-0", "1234-1", "1234-2"]
    assert {command.channel for command in taken} == {"commands-1234"}
    assert {command.problem for command in taken} == {""}
    assert cursor.look().head == 3
    assert cursor.meta.origin.epoch == feed.epoch
    origin = cursor.meta.origin
    assert origin.created_realtime_ns - origin.created_monotonic_ns == feed.offset_ns


def test_an_engine_that_does_not_ring_is_found(feed, engines):
    feed.beat()
    engine = engines()
    feed.beat()
    before = feed.commands.channels
    feed.beat(SECOND_NS)
    engine.follow()

    assert (before, feed.commands.channels) == (0, 1)


@pytest.mark.req("SEC-18", "SEC-32")
def test_what_a_channel_is_made_of_is_for_its_owner_alone(feed, engines):
    before = os.umask(0)
    try:
        engines().meet()
        other = Commands("other", feed.directory, 1, 0)
        other.open()
    finally:
        os.umask(before)
    modes = {
        path.name: stat.S_IMODE(path.lstat().st_mode)
        for path in feed.directory.iterdir()
    }
    other.close()

    assert modes.keys() >= {
        "fh-md.commands-1234", "fh-md.cursor-1234", ".fh-md.wake", ".fh-other.wake",
    }  # fmt: skip
    assert set(modes.values()) == {0o600}


def test_a_channel_of_another_feed_is_none_of_ours(feed, engines, tmp_path):
    engine = engines()
    for name in ("md2", "m", "xmd"):
        (tmp_path / f"fh-{name}.commands-1").write_bytes(engine.path.read_bytes())
    for name in ("commands-0", "commands-01", "commands-12345678", "commands-1x"):
        (tmp_path / f"fh-md.{name}").write_bytes(engine.path.read_bytes())
    feed.beat()

    assert feed.commands.channels == 1
    assert feed.commands.untrusted == 0


@pytest.mark.parametrize(
    "message", [b"", b"\0", b"0", b"x", b"1234\n", b"99999999", b"-1"]
)
def test_a_ring_that_names_nobody_is_a_ring(feed, engines, message):
    engines()
    feed.ring(message)

    assert feed.poll() == []
    assert feed.commands.channels == 0
    assert not feed.is_woken()


def test_a_pid_that_has_no_channel_is_nobody(feed):
    feed.ring(b"4242")

    assert feed.poll() == []
    assert feed.commands.counters() == dict.fromkeys(feed.commands.counters(), 0)


def test_there_are_sixteen_engines_at_most(feed, engines):
    made = [engines(pid) for pid in range(1, CHANNELS + 2)]
    feed.beat()
    served = [f"cursor-{engine.pid}" for engine in made]
    found = {name for name in served if f"fh-md.{name}" in names(feed.directory)}
    (left,) = set(served) - found
    one = next(engine for engine in made if f"cursor-{engine.pid}" in found)
    one.say_goodbye()
    feed.beat(2 * SECOND_NS)
    feed.beat(4 * SECOND_NS)

    assert CHANNELS == len(found) == feed.commands.channels
    assert f"fh-md.{left}" in names(feed.directory)


def test_a_directory_with_many_files_is_looked_through_in_parts(
    feed, engines, tmp_path
):
    for number in range(1500):
        (tmp_path / f"other-{number}").touch()
    engines()
    beats = 0
    while feed.commands.channels == 0 and beats < 20:
        feed.beat()
        beats += 1
    for _ in range(20):
        feed.beat()

    assert feed.commands.channels == 1
    assert beats <= 6 + 1


# ── files that are no channels ────────────────────────────────────────────────────────


def symlink(path: Path, real: Path) -> None:
    path.symlink_to(real)


def fifo(path: Path, real: Path) -> None:
    os.mkfifo(path)


def folder(path: Path, real: Path) -> None:
    path.mkdir()


def linked(path: Path, real: Path) -> None:
    os.link(real, path)


def writable(path: Path, real: Path) -> None:
    path.write_bytes(real.read_bytes())
    path.chmod(0o620)


def huge(path: Path, real: Path) -> None:
    path.touch(0o600)
    os.truncate(path, 1 << 39)


def empty(path: Path, real: Path) -> None:
    path.touch(0o600)


def garbage(path: Path, real: Path) -> None:
    path.write_bytes(b"\xff" * 20_480)
    path.chmod(0o600)


@pytest.mark.req("SEC-19")
@pytest.mark.parametrize(
    "make", [symlink, fifo, folder, linked, writable, huge, empty, garbage]
)
def test_a_file_that_cannot_be_trusted_is_no_channel(feed, engines, tmp_path, make):
    real = engines(1)
    make(tmp_path / "fh-md.commands-2", real.path)
    used = (tmp_path / "fh-md.commands-2").lstat().st_blocks
    for late_ns in (0, 2 * SECOND_NS, 4 * SECOND_NS):
        feed.ring(b"2")
        feed.beat(late_ns)

    # A second link makes the real one no better.
    assert feed.commands.channels == (make is not linked)
    assert feed.commands.untrusted == (2 if make is linked else 1)
    assert (tmp_path / "fh-md.commands-2").lstat().st_blocks == used


def test_a_new_file_of_a_refused_name_is_looked_at_again(feed, engines, tmp_path):
    (tmp_path / "fh-md.commands-1234").write_bytes(b"no channel")
    feed.beat()
    before = feed.commands.untrusted
    (tmp_path / "fh-md.commands-1234").unlink()
    engine = engines()
    engine.meet()

    assert (before, feed.commands.channels, feed.commands.untrusted) == (1, 1, 1)


def test_a_segment_of_another_kind_is_refused(feed, tmp_path):
    with shm.create("md", "commands-7", CURSOR_BYTES, directory=tmp_path) as owned:
        writer = CursorWriter(owned.buffer, 1, owned.origin)
        owned.publish()
        feed.beat()
        writer.release()

    assert (feed.commands.channels, feed.commands.untrusted) == (0, 1)


def test_a_channel_for_another_handler_is_left_to_its_engine(feed, engines, tmp_path):
    engine = engines(epoch=feed.epoch ^ 1)
    feed.ring(b"1234")
    feed.poll()
    feed.beat()

    assert feed.commands.channels == feed.commands.untrusted == 0
    assert engine.path.exists()
    assert "fh-md.cursor-1234" not in names(tmp_path)


def test_a_channel_that_another_handler_serves_waits_for_its_end(feed, engines):
    engine = engines().meet()
    other = Commands("md", feed.directory, feed.epoch, feed.offset_ns)
    other.beat(time.monotonic_ns())
    before = other.channels
    feed.commands.close()
    other.beat(time.monotonic_ns() + 2 * SECOND_NS)
    after = other.channels
    other.close()

    assert (before, after) == (0, 1)
    assert engine.writer.publish_record(bytes(192), time.monotonic_ns()) < 0


# ── turns ─────────────────────────────────────────────────────────────────────────────


def test_no_engine_waits_for_the_end_of_another_ones_commands(feed, engines):
    greedy, modest = engines(1).meet(), engines(2).meet()
    greedy.give(64)
    modest.give(1)
    first, second, third = feed.poll(), feed.poll(), feed.poll()

    assert len(first) == TAKEN + 1
    assert "2-0" in ids(first)
    assert ids(second) == [f"1-{number}" for number in range(TAKEN, 64)]
    assert third == []


def test_another_engine_is_first_each_time(feed, engines):
    made = [engines(pid).meet() for pid in (1, 2, 3)]
    firsts = []
    for _ in range(6):
        for engine in made:
            engine.give()
        firsts.append(feed.poll()[0].channel)

    assert firsts[:3] == firsts[3:]
    assert sorted(firsts[:3]) == ["commands-1", "commands-2", "commands-3"]


def test_a_handler_that_left_something_wakes_itself(feed, engines):
    engine = engines().meet()
    engine.give(2 * TAKEN)
    woken = []
    while feed.poll():
        woken.append(feed.is_woken())

    assert woken == [True, False]


def test_a_sleeping_handler_is_to_be_woken_and_a_spinning_one_is_not(tmp_path):
    for wakes, expected in ((True, Published.SENT_ASLEEP), (False, Published.SENT)):
        feed = Feed(tmp_path, f"feed-{wakes}", wakes=wakes)
        engine = Engine(feed)
        feed.beat()
        feed.poll()
        engine.follow()
        found = engine.give()
        taken = feed.poll()
        engine.forget()
        feed.close()

        assert found == [expected]
        assert len(taken) == 1


def test_a_spinning_handler_reads_its_socket_at_a_beat(tmp_path):
    feed = Feed(tmp_path, wakes=False)
    feed.beat()
    engine = Engine(feed)
    feed.ring(b"1234")
    feed.poll()
    before = feed.commands.channels
    feed.beat()
    after = feed.commands.channels
    engine.forget()
    feed.close()

    assert (before, after) == (0, 1)


def test_every_command_is_counted_as_what_it_was(feed, engines):
    engine = engines().meet()
    engine.give(2)
    engine.give(3, seconds=0)
    record = bytearray(192)
    engine.writer.publish_record(record, time.monotonic_ns())
    taken = feed.poll()

    assert len(taken) == 6
    assert feed.commands.counters() == {
        "commands": 6, "commands_refused": 1, "commands_expired": 3,
        "commands_stuck": 0, "command_channels": 1, "command_channels_broken": 0,
        "command_channels_untrusted": 0,
    }  # fmt: skip


# ── engines that go ───────────────────────────────────────────────────────────────────


def test_nothing_of_a_dead_engine_is_carried_out(feed, engines, tmp_path):
    engine = engines().meet()
    engine.give(40)
    engine.put(SLOTS + 40 * 192, BUSY | 41)
    engine.die()
    feed.beat()
    taken = feed.poll()

    assert ids(taken) == [f"1234-{number}" for number in range(40)]
    assert {command.problem for command in taken} == {"its engine is dead"}
    assert all(command.is_expired for command in taken)
    assert names(tmp_path) == {"fh-md.board", "fh-md.board.lock", ".fh-md.wake"}
    assert feed.commands.channels == 0


def test_what_was_taken_before_a_death_was_seen_is_carried_out(feed, engines):
    engine = engines().meet()
    engine.give(1)
    engine.die()
    taken = feed.poll()
    feed.beat()

    assert [command.problem for command in taken] == [""]
    assert feed.poll() == []


def test_what_came_before_a_goodbye_is_carried_out(feed, engines, tmp_path):
    engine = engines().meet()
    engine.give(40)
    engine.give(1, seconds=0)
    engine.say_goodbye()
    feed.beat()
    taken = feed.poll()

    assert ids(taken) == [f"1234-{number}" for number in range(41)]
    assert [command.is_expired for command in taken] == [False] * 40 + [True]
    assert names(tmp_path) == {"fh-md.board", "fh-md.board.lock", ".fh-md.wake"}


def test_a_channel_whose_file_was_removed_ends(feed, engines):
    engine = engines().meet()
    engine.give(1)
    engine.path.unlink()
    feed.beat()
    (taken,) = feed.poll()

    assert taken.problem == "its engine is dead"
    assert engine.cursor.status() is Status.CLOSED
    assert engine.give() == [Published.GONE]


def test_an_engine_that_comes_again_has_a_channel_of_its_own(feed, engines):
    first = engines().meet()
    first.give(5)
    first.say_goodbye()
    second = engines().meet()
    before = feed.commands.commands
    second.give(2)

    assert before == 5
    assert ids(feed.poll()) == ["1234-0", "1234-1"]
    assert feed.commands.channels == 1


def test_a_lying_engine_loses_its_channel(feed, engines, tmp_path):
    liar, honest = engines(1).meet(), engines(2).meet()
    liar.give(1)
    liar.put(SLOTS + 192, 99)
    honest.give(1)
    taken = feed.poll()
    feed.beat()
    feed.beat(2 * SECOND_NS)

    assert sorted(ids(taken)) == ["1-0", "2-0"]
    assert (feed.commands.channels, feed.commands.broken) == (1, 1)
    assert liar.cursor.status() is Status.CLOSED
    assert liar.give() == [Published.GONE]
    feed.beat()
    assert honest.give()[0] >= 0


def test_a_half_written_command_of_a_live_engine_is_counted(feed, engines):
    engine = engines().meet()
    engine.put(SLOTS, BUSY | 1)
    for tenth in range(20):
        feed.beat(tenth * SECOND_NS // 10)

    assert feed.commands.stuck == 1
    assert feed.commands.channels == 1
    assert feed.poll() == []


def test_what_the_dead_left_is_removed(tmp_path):
    before = Feed(tmp_path)
    engine, other = Engine(before, 1).meet(), Engine(before, 2).meet()
    for channel in before.commands._channels.values():
        abandon(channel.owned)
    engine.die()
    left = names(tmp_path)
    before.close()
    feed = Feed(tmp_path)
    feed.beat()
    now = names(tmp_path)
    other.forget()
    engine.forget()
    feed.close()

    assert {"fh-md.commands-1", "fh-md.cursor-1", "fh-md.cursor-2"} <= left
    # The second engine lives, and has yet to notice.
    assert now == {
        "fh-md.board", "fh-md.board.lock", ".fh-md.wake", "fh-md.commands-2",
        "fh-md.commands-2.lock",
    }  # fmt: skip
    assert names(tmp_path) == set()


# ── the handler's end ─────────────────────────────────────────────────────────────────


def test_a_handler_that_ends_says_so_and_leaves_nothing(feed, engines, tmp_path):
    engine = engines().meet()
    engine.give(3)
    feed.commands.close()
    feed.commands.close()
    published = engine.give()

    assert published == [Published.GONE]
    assert ids(engine.writer.revoke()) == ["1234-0", "1234-1", "1234-2"]
    assert engine.cursor.status() is Status.CLOSED
    assert names(tmp_path) == {
        "fh-md.board", "fh-md.board.lock", "fh-md.commands-1234",
        "fh-md.commands-1234.lock",
    }  # fmt: skip
    with pytest.raises(ValueError, match="closed"):
        feed.commands.fileno()


def test_the_socket_of_a_handler_before_is_replaced_and_not_removed(tmp_path):
    first = Commands("md", tmp_path, 1, 0)
    first.open()
    with Commands("md", tmp_path, 2, 0) as second:
        first.close()
        left = names(tmp_path)
        assert second.fileno() > 0

    assert left == {".fh-md.wake"}
    assert names(tmp_path) == set()


def test_a_place_that_is_taken_is_an_error(tmp_path):
    (tmp_path / ".fh-md.wake").mkdir()
    with pytest.raises(RingError, match="cannot listen for commands of md"):
        Commands("md", tmp_path, 1, 0).open()

    assert names(tmp_path) == {".fh-md.wake"}


def test_the_path_of_a_socket_may_be_long(tmp_path):
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    before = len(os.listdir("/proc/self/fd"))
    with Commands("md", directory, 1, 0) as commands:
        assert names(directory) == {".fh-md.wake"}
        assert commands.poll(1) == []

    assert names(directory) == set()
    assert len(os.listdir("/proc/self/fd")) == before

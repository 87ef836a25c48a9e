"""Named segments: one writer, nothing left behind, nothing trusted."""

import os
import random
import signal
import socket
import stat
import struct
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from feedhandler import shm
from feedhandler.errors import RingAbsent, RingBusy, RingError, RingInvalid
from feedhandler.records import QUOTE
from feedhandler.ring import Reader, Ring
from feedhandler.shm import Status

SIZE = Ring.size_for(QUOTE, 64)


def publish(directory, stream: str = "quotes", **options) -> tuple:
    owned = shm.create("md", stream, SIZE, directory=directory, **options)
    ring = Ring(owned.buffer, QUOTE, 64, owned.origin)
    owned.publish()
    return owned, ring


def names(directory) -> list[str]:
    return sorted(os.listdir(directory))


def until(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.001)


def start(script: str, *arguments) -> subprocess.Popen:
    """Start a script that prints a line when it is ready."""
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "ready\n"
    return child


def end(child: subprocess.Popen) -> None:
    child.kill()
    child.communicate()


WRITER = """
    import sys, time
    import numpy as np
    from feedhandler import shm
    from feedhandler.records import QUOTE
    from feedhandler.ring import Ring

    owned = shm.create("md", "quotes", Ring.size_for(QUOTE, 64), directory=sys.argv[1])
    ring = Ring(owned.buffer, QUOTE, 64, owned.origin)
    owned.publish()
    words = np.zeros((4096, 8), np.uint64)
    words[:] = np.arange(4096, dtype=np.uint64)[:, None]
    ring.publish_records(words)
    print("ready", flush=True)
    while True:
        ring.heartbeat(time.monotonic_ns())
        ring.publish_records(words)
"""


def test_a_segment_is_seen_only_when_it_is_published(tmp_path):
    with shm.create("md", "quotes", SIZE, directory=tmp_path) as owned:
        with pytest.raises(RingAbsent):
            shm.attach("md", "quotes", directory=tmp_path)
        assert "fh-md.quotes" not in names(tmp_path)
        ring = Ring(owned.buffer, QUOTE, 64, owned.origin)
        owned.publish()
        assert names(tmp_path) == ["fh-md.quotes", "fh-md.quotes.lock"]
        with shm.attach("md", "quotes", directory=tmp_path) as attached:
            assert attached.meta.origin == owned.origin
            assert attached.meta.origin.name == "md.quotes"
            assert attached.meta.origin.pid == os.getpid()
            assert attached.status() is Status.LIVE
        ring.release()


def test_an_unformatted_segment_is_not_published(tmp_path):
    owned = shm.create("md", "quotes", SIZE, directory=tmp_path)
    with pytest.raises(RingInvalid, match="magic"):
        owned.publish()
    owned.close()

    assert names(tmp_path) == []


def test_nothing_is_left_after_close(tmp_path):
    owned, ring = publish(tmp_path)
    unpublished = shm.create("md", "trades", SIZE, directory=tmp_path)
    ring.release()
    owned.close()
    owned.close()
    unpublished.close()

    assert names(tmp_path) == []


def test_the_directory_for_shared_memory_is_the_default():
    name = f"test-{os.getpid()}-{random.randrange(1 << 30)}"
    with shm.create(name, "quotes", SIZE) as owned:
        ring = Ring(owned.buffer, QUOTE, 64, owned.origin)
        owned.publish()
        assert Path("/dev/shm", f"fh-{name}.quotes").stat().st_size == SIZE
        assert name in [listing.name for listing in shm.list_segments()]
        ring.release()
    assert not [entry for entry in os.listdir("/dev/shm") if name in entry]


def test_closing_over_a_live_writer_and_reader_is_safe(tmp_path):
    owned, ring = publish(tmp_path)
    attached = shm.attach("md", "quotes", directory=tmp_path)
    reader = Reader(attached.buffer, QUOTE)
    attached.close()
    owned.close()
    ring.publish_record(bytes(64))

    assert len(reader.poll()) == 1
    assert names(tmp_path) == []


def test_persisted_data_stay_readable_and_are_replaced(tmp_path):
    owned, ring = publish(tmp_path)
    ring.publish_record(bytes(64))
    owned.close(persist=True)

    assert names(tmp_path) == ["fh-md.quotes"]
    with shm.attach("md", "quotes", directory=tmp_path) as attached:
        assert attached.status() is Status.CLOSED
        assert len(Reader(attached.buffer, start=0).poll()) == 1
    owned, _ = publish(tmp_path)
    owned.close()
    assert names(tmp_path) == []


@pytest.mark.req("F-85", "SEC-20")
@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "/dev/shm/x", "a.b", ".md", "-md", "_md", "m d",
     "md\0", "md\n", "é", "m" * 49, "%n"],
)  # fmt: skip
def test_a_bad_name_is_refused_before_any_file_is_touched(tmp_path, name):
    missing = tmp_path / "missing"
    for call in (
        lambda: shm.create(name, "quotes", SIZE, directory=missing),
        lambda: shm.attach(name, "quotes", directory=missing),
        lambda: shm.remove(name, "quotes", directory=missing),
    ):
        with pytest.raises(ValueError, match="name is"):
            call()


@pytest.mark.parametrize("stream", ["", "a.b", "q" * 17, "../x", "quotes\n"])
def test_a_bad_stream_is_refused(tmp_path, stream):
    with pytest.raises(ValueError, match="stream is"):
        shm.attach("md", stream, directory=tmp_path)


def test_bad_sizes_and_modes_are_refused(tmp_path):
    for size in (0, -1, 1 << 41):
        with pytest.raises(ValueError, match="size is"):
            shm.create("md", "quotes", size, directory=tmp_path)
    for mode in (0o666, 0o644, 0o660, 0o400):
        with pytest.raises(ValueError, match="mode is"):
            shm.create("md", "quotes", SIZE, mode=mode, directory=tmp_path)
    assert names(tmp_path) == []


@pytest.mark.req("SEC-18")
@pytest.mark.parametrize("umask", [0o000, 0o777])
@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_the_mode_is_exact_whatever_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        owned, ring = publish(tmp_path, mode=mode, group=os.getegid())
    finally:
        os.umask(before)

    assert stat.S_IMODE(owned.path.stat().st_mode) == mode
    ring.release()
    owned.close()


def test_an_absent_segment_is_one_clear_line(tmp_path):
    with pytest.raises(RingAbsent) as caught:
        shm.attach("md", "quotes", directory=tmp_path)

    assert str(caught.value) == (
        f"no segment fh-md.quotes in {tmp_path}; is its feed handler running?"
    )


@pytest.mark.req("F-87")
def test_a_second_writer_is_refused(tmp_path):
    owned, ring = publish(tmp_path)

    with pytest.raises(RingBusy, match="another writer"):
        shm.create("md", "quotes", SIZE, directory=tmp_path)
    assert names(tmp_path) == ["fh-md.quotes", "fh-md.quotes.lock"]
    # Somebody tidied the lock file away: the lock on the data still tells.
    Path(tmp_path, "fh-md.quotes.lock").unlink()
    with pytest.raises(RingBusy, match="another writer"):
        shm.create("md", "quotes", SIZE, directory=tmp_path)
    ring.release()
    owned.close()
    assert names(tmp_path) == []


@pytest.mark.req("F-87")
def test_of_many_writers_at_once_never_two_have_the_name(tmp_path):
    script = """
        import sys
        from feedhandler import shm
        from feedhandler.errors import RingBusy
        from feedhandler.records import QUOTE
        from feedhandler.ring import Ring

        print("ready", flush=True)
        sys.stdin.readline()
        wins = 0
        for _ in range(50):
            try:
                owned = shm.create("md", "quotes", Ring.size_for(QUOTE, 64),
                                   directory=sys.argv[1])
            except RingBusy:
                continue
            ring = Ring(owned.buffer, QUOTE, 64, owned.origin)
            owned.publish()
            # Whoever has the name has it alone, and whole.
            assert owned.is_linked()
            with shm.attach("md", "quotes", directory=sys.argv[1]) as attached:
                assert attached.meta.origin.epoch == owned.origin.epoch
            assert owned.is_linked()
            ring.release()
            owned.close()
            wins += 1
        print(wins)
    """
    children = [start(script, tmp_path) for _ in range(4)]
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    answers = [child.communicate(timeout=30)[0] for child in children]

    assert all(child.returncode == 0 for child in children)
    assert sum(int(answer) for answer in answers) > 0
    assert names(tmp_path) == []


@pytest.mark.req("F-76")
def test_a_killed_writer_is_dead_and_all_it_published_is_readable(tmp_path):
    for _ in range(5):
        writer = start(WRITER, tmp_path)
        attached = shm.attach("md", "quotes", directory=tmp_path)
        reader = Reader(attached.buffer, QUOTE, start="oldest")
        assert attached.status() is Status.LIVE
        writer.kill()
        writer.wait()
        until(lambda seen=attached: seen.status() is Status.DEAD, 0.2)
        writer.communicate()
        records = []
        while len(batch := reader.poll()) or len(batch := reader.take_one()):
            records.append(batch)
        words = np.concatenate(records).view(np.uint64).reshape(-1, 8)

        assert reader.position >= attached.live().head
        assert reader.received + reader.lost == reader.position - reader.start
        assert (words[:, 1:] == (words[:, :1] - 1) % 4096).all()
        attached.close()


@pytest.mark.req("F-77")
def test_a_stopped_writer_is_stalled_and_then_lives_again(tmp_path):
    writer = start(WRITER, tmp_path)
    try:
        with shm.attach("md", "quotes", directory=tmp_path) as attached:
            writer.send_signal(signal.SIGSTOP)
            until(lambda: attached.status() is Status.STALLED, 2.0)
            assert attached.heartbeat_age_ns() > shm.STALLED_NS
            writer.send_signal(signal.SIGCONT)
            until(lambda: attached.status() is Status.LIVE, 2.0)
    finally:
        end(writer)


@pytest.mark.req("F-78")
def test_a_restarted_writer_supersedes_the_old_segment(tmp_path):
    first = start(WRITER, tmp_path)
    old = shm.attach("md", "quotes", directory=tmp_path)
    end(first)
    until(lambda: old.status() is Status.DEAD)
    owned, ring = publish(tmp_path)

    assert old.status() is Status.SUPERSEDED
    with shm.attach("md", "quotes", directory=tmp_path) as new:
        assert new.status() is Status.LIVE
        assert new.meta.origin.epoch != old.meta.origin.epoch
    assert len(Reader(old.buffer, QUOTE, start="oldest").poll()) > 0
    old.close()
    ring.release()
    owned.close()


def test_a_clean_end_is_closed_and_a_successor_supersedes_it(tmp_path):
    owned, ring = publish(tmp_path)
    attached = shm.attach("md", "quotes", directory=tmp_path)
    ring.release()
    owned.close()

    assert attached.status() is Status.CLOSED
    owned, ring = publish(tmp_path)
    assert attached.status() is Status.SUPERSEDED
    attached.close()
    ring.release()
    owned.close()


@pytest.mark.req("F-82")
def test_the_writer_and_its_readers_see_that_the_file_was_unlinked(tmp_path):
    owned, ring = publish(tmp_path)
    attached = shm.attach("md", "quotes", directory=tmp_path)
    assert owned.is_linked()
    owned.path.unlink()

    assert not owned.is_linked()
    assert attached.status() is Status.SUPERSEDED
    ring.publish_record(bytes(64))
    assert attached.live().head == 1
    attached.close()
    ring.release()
    owned.close()
    assert names(tmp_path) == []


@pytest.mark.req("SEC-18")
@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory", "socket"])
def test_what_is_not_a_regular_file_is_refused(tmp_path, kind):
    path = tmp_path / "fh-md.quotes"
    owned, ring = publish(tmp_path, "other")
    if kind == "symlink":
        path.symlink_to(owned.path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))

    with pytest.raises(RingInvalid, match="not a regular file"):
        shm.attach("md", "quotes", directory=tmp_path)
    listing = shm.list_segments(tmp_path)[1]
    assert listing.meta is None
    assert "not a regular file" in listing.problem
    ring.release()
    owned.close()


@pytest.mark.req("SEC-18")
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o660])
def test_a_file_that_others_can_write_is_refused(tmp_path, mode):
    owned, ring = publish(tmp_path)
    owned.path.chmod(mode)

    with pytest.raises(RingInvalid, match="only its owner can write"):
        shm.attach("md", "quotes", directory=tmp_path)
    ring.release()
    owned.close()


@pytest.mark.req("SEC-18")
def test_a_file_with_a_second_name_is_refused(tmp_path):
    owned, ring = publish(tmp_path)
    os.link(owned.path, tmp_path / "second")

    with pytest.raises(RingInvalid, match="has 2 links"):
        shm.attach("md", "quotes", directory=tmp_path)
    ring.release()
    owned.close()


@pytest.mark.req("SEC-18")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_stranger_is_trusted_only_by_name(tmp_path):
    owned, ring = publish(tmp_path)
    os.chown(owned.path, 65_534, -1)

    with pytest.raises(RingInvalid, match="belongs to uid 65534, not 0"):
        shm.attach("md", "quotes", directory=tmp_path)
    shm.attach("md", "quotes", directory=tmp_path, owner=65_534).close()
    ring.release()
    owned.close()


@pytest.mark.req("SEC-18")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become someone else")
def test_another_user_cannot_open_a_segment():
    name = f"test-{os.getpid()}-{random.randrange(1 << 30)}"
    script = """
        import os, sys
        from feedhandler import shm
        from feedhandler.errors import RingError
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            shm.attach(sys.argv[1], "quotes", owner=0)
        except RingError as error:
            print(error)
    """
    with shm.create(name, "quotes", SIZE) as owned:
        ring = Ring(owned.buffer, QUOTE, 64, owned.origin)
        owned.publish()
        answer = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), name],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        ring.release()
    assert "Permission denied" in answer.stdout


@pytest.mark.req("SEC-18")
@pytest.mark.parametrize("name", ["fh-md.quotes.lock", "fh-md.quotes"])
def test_planted_files_are_not_followed_or_written(tmp_path, name):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / name).symlink_to(victim)
    if name.endswith("lock"):
        with pytest.raises(RingError, match="cannot lock"):
            shm.create("md", "quotes", SIZE, directory=tmp_path)
    else:
        owned, ring = publish(tmp_path)
        assert not owned.path.is_symlink()
        ring.release()
        owned.close()

    assert victim.read_text() == "precious"


def test_a_directory_in_the_way_is_a_clean_error(tmp_path):
    (tmp_path / "fh-md.quotes").mkdir()
    with shm.create("md", "quotes", SIZE, directory=tmp_path) as owned:
        ring = Ring(owned.buffer, QUOTE, 64, owned.origin)
        with pytest.raises(RingError, match="cannot publish"):
            owned.publish()
        ring.release()

    assert names(tmp_path) == ["fh-md.quotes"]


@pytest.mark.req("F-83", "SEC-21")
def test_no_room_is_a_clean_error_with_nothing_left_behind(tmp_path):
    script = """
        import resource, sys
        from feedhandler import shm
        from feedhandler.errors import RingError

        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
        try:
            shm.create("md", "quotes", 1 << 20, directory=sys.argv[1])
        except RingError as error:
            print(error)
    """
    answer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert "of 1048576 bytes: File too large" in answer.stdout
    assert names(tmp_path) == []


@pytest.mark.req("F-83")
@pytest.mark.parametrize("directory", ["/dev/shm"])
def test_a_full_file_system_is_a_clean_error(directory):
    room = os.statvfs(directory)
    with pytest.raises(RingError, match="No space left"):
        shm.create("md-full", "quotes", room.f_blocks * room.f_frsize + 4096,
                   directory=directory)  # fmt: skip
    assert not [name for name in os.listdir(directory) if "md-full" in name]


def test_what_a_writer_left_that_died_unpublished_is_removed(tmp_path):
    script = """
        import sys, time
        from feedhandler import shm
        owned = shm.create("md", "quotes", 1 << 16, directory=sys.argv[1])
        print("ready", flush=True)
        time.sleep(60)
    """
    end(start(script, tmp_path))
    assert len(names(tmp_path)) == 2
    owned, ring = publish(tmp_path)

    assert names(tmp_path) == ["fh-md.quotes", "fh-md.quotes.lock"]
    ring.release()
    owned.close()


def test_remove_refuses_a_live_writer_and_clears_a_dead_one(tmp_path):
    writer = start(WRITER, tmp_path)
    with pytest.raises(RingBusy):
        shm.remove("md", "quotes", directory=tmp_path)
    end(writer)
    shm.remove("md", "quotes", directory=tmp_path)

    assert names(tmp_path) == []
    with pytest.raises(RingAbsent):
        shm.remove("md", "quotes", directory=tmp_path)
    assert names(tmp_path) == []


def test_the_list_tells_name_state_and_head(tmp_path):
    owned, ring = publish(tmp_path)
    other, other_ring = publish(tmp_path, "commands-123")
    ring.publish_record(bytes(64))
    (tmp_path / "fh-md.bad").write_bytes(bytes(8192))
    (tmp_path / "unrelated").touch()
    listings = shm.list_segments(tmp_path)

    assert [item.stream for item in listings] == ["bad", "commands-123", "quotes"]
    assert [item.status for item in listings] == [None, Status.LIVE, Status.LIVE]
    assert "magic" in listings[0].problem
    assert listings[2].live.head == 1
    assert listings[2].size_bytes == SIZE
    for segment, writer in ((owned, ring), (other, other_ring)):
        writer.release()
        segment.close()


def test_a_forked_child_does_not_keep_a_dead_writer_alive(tmp_path):
    script = """
        import os, sys, time
        from feedhandler import shm
        from feedhandler.records import QUOTE
        from feedhandler.ring import Ring

        size = Ring.size_for(QUOTE, 64)
        owned = shm.create("md", "quotes", size, directory=sys.argv[1])
        ring = Ring(owned.buffer, QUOTE, 64, owned.origin)
        owned.publish()
        child = os.fork()
        if child == 0:
            ring.publish_record(bytes(64))
            owned.close()
            print(os.getpid(), flush=True)
            time.sleep(60)
        time.sleep(60)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    child = int(parent.stdout.readline())
    attached = shm.attach("md", "quotes", directory=tmp_path)
    try:
        assert attached.status() is Status.LIVE
        assert attached.live().head == 0
        parent.kill()
        parent.wait()
        assert attached.status() is Status.DEAD
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)
        parent.communicate()
        attached.close()


def test_a_thousand_lives_leak_no_descriptor_and_no_mapping(tmp_path):
    def census() -> tuple[int, int]:
        maps = Path("/proc/self/maps").read_text()
        return len(os.listdir("/proc/self/fd")), maps.count("fh-md")

    before = census()
    for _ in range(1000):
        owned, ring = publish(tmp_path)
        with shm.attach("md", "quotes", directory=tmp_path) as attached:
            Reader(attached.buffer).release()
        ring.release()
        owned.close()

    assert census() == before
    assert names(tmp_path) == []


@pytest.mark.req("F-81", "SEC-18")
def test_a_raw_store_into_an_attached_segment_is_a_fault(tmp_path):
    script = """
        import ctypes, sys
        import numpy as np
        from feedhandler import shm
        attached = shm.attach("md", "quotes", directory=sys.argv[1])
        view = np.frombuffer(attached.buffer, np.uint8)
        ctypes.memset(view.ctypes.data, 1, 1)
    """
    owned, ring = publish(tmp_path)
    answer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        capture_output=True, check=False,
    )  # fmt: skip

    assert answer.returncode == -signal.SIGSEGV
    ring.release()
    owned.close()


@pytest.mark.req("F-84", "SEC-19")
def test_no_mutated_header_gets_more_than_a_clean_refusal(tmp_path):
    """600 headers in a child, which ends by itself and saw RingErrors alone."""
    script = """
        import random, struct, sys
        from pathlib import Path
        from feedhandler import shm
        from feedhandler.board import Board, BoardReader
        from feedhandler.counters import Counters, CountersReader
        from feedhandler.errors import RingError
        from feedhandler.records import QUOTE
        from feedhandler.ring import Reader, Ring
        from feedhandler.segment import schema_hash

        random.seed(int(sys.argv[2]))
        path = Path(sys.argv[1], "fh-md.quotes")
        samples = [
            (Ring, Reader, (QUOTE, 64), Ring.size_for(QUOTE, 64)),
            (Board, BoardReader, (64, 10), Board.size_for(64, 10)),
            (Counters, CountersReader, (["a"], ["b"]), Counters.size_for(1, 1)),
        ]
        good = []
        for make, read, arguments, size in samples:
            buffer = bytearray(size)
            make(buffer, *arguments).release()
            good.append((read, bytes(buffer)))
        tried = refused = 0
        for number in range(600):
            read, buffer = random.choice(good)
            buffer = bytearray(buffer)
            for _ in range(random.randint(1, 4)):
                kind = random.random()
                if kind < 0.3:
                    place = random.randrange(0, 0x80, 4)
                    value = random.choice([0, 1, 2**31, 2**32 - 1, 4096, 8192, 2**28])
                    struct.pack_into("<I", buffer, place, value)
                elif kind < 0.6:
                    buffer[random.randrange(0x300)] ^= 1 << random.randrange(8)
                elif kind < 0.7:
                    struct.pack_into("<Q", buffer, 0x1000, random.getrandbits(64))
                elif kind < 0.8:
                    del buffer[random.randrange(len(buffer)):]
                    buffer += bytes(max(0, 0x2000 - len(buffer)) * random.randrange(2))
                    struct.pack_into("<Q", buffer, 0x38, len(buffer)) \
                        if len(buffer) > 0x40 else None
                elif len(buffer) >= 0x2000:
                    # A schema with the right hash: only its meaning is wrong.
                    length = min(struct.unpack_from("<I", buffer, 0x48)[0], 3584)
                    text = bytearray(buffer[0x200:0x200 + length])
                    for _ in range(random.randrange(3)):
                        if text:
                            text[random.randrange(len(text))] = random.choice(
                                b'0123456789"[]{}:,-e.<ufOS|')
                    buffer[0x200:0x200 + length] = text
                    struct.pack_into("<Q", buffer, 0x40, schema_hash(
                        text.decode("ascii", "backslashreplace")))
                if len(buffer) < 0x1008:
                    break
            path.unlink(missing_ok=True)
            path.touch(0o600)
            path.write_bytes(buffer)
            tried += 1
            try:
                with shm.attach("md", "quotes", directory=sys.argv[1]) as attached:
                    reader = read(attached.buffer)
                    if read is Reader:
                        reader.poll()
                        reader.take_one()
                        Reader(attached.buffer, start="oldest").poll()
                    elif read is BoardReader:
                        for symbol in reader.symbols()[:2]:
                            reader.is_listed(symbol)
                    else:
                        reader.values()
                    reader.release()
            except RingError:
                refused += 1
        print(tried, refused)
    """
    answer = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(script),
         str(tmp_path), "7"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    assert (answer.returncode, answer.stderr) == (0, "")
    tried, refused = map(int, answer.stdout.split())
    assert tried == 600
    assert 300 < refused < 600


def test_a_segment_of_an_alien_size_is_refused(tmp_path):
    owned, ring = publish(tmp_path)
    with owned.path.open("r+b") as file:
        file.seek(0x38)
        file.write(struct.pack("<Q", SIZE + 4096))

    with pytest.raises(RingInvalid, match=r"fh-md.quotes: segment is"):
        shm.attach("md", "quotes", directory=tmp_path)
    ring.release()
    owned.close()

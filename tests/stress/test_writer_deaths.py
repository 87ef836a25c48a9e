"""Writers that are killed, stopped or started all at once."""

import os
import signal
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from feedhandler import shm
from feedhandler.consumer import Source, Stream
from feedhandler.errors import RingAbsent
from feedhandler.records import QUOTE
from feedhandler.ring import Reader
from feedhandler.shm import Status

ROOT = Path(__file__).parents[2]
PERIOD = 1024
KILLS = 300
SEEN_NS = 300_000_000

# Has imported everything already: a new writer costs a fork.
NURSERY = """
    import os, signal, sys, time
    import numpy as np
    from feedhandler import shm
    from feedhandler.errors import RingBusy
    from feedhandler.records import QUOTE
    from feedhandler.ring import Ring

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    directory = sys.argv[1]
    size = Ring.size_for(QUOTE, 64)
    words = np.zeros((1024, 8), np.uint64)
    words[:] = np.arange(1024, dtype=np.uint64)[:, None]

    def create():
        owned = shm.create("md", "quotes", size, directory=directory)
        return owned, Ring(owned.buffer, QUOTE, 64, owned.origin)

    def write():
        owned, ring = create()
        ring.heartbeat(time.monotonic_ns())
        owned.publish()
        sys.stdout.write(f"{os.getpid()} {owned.origin.epoch}\\n")
        sys.stdout.flush()
        while True:
            ring.heartbeat(time.monotonic_ns())
            ring.publish_records(words)

    def compete(gate, verdict, end):
        os.read(gate, 1)
        try:
            owned, ring = create()
            ring.publish_records(words)
            owned.publish()
        except RingBusy:
            os.write(verdict, b"-")
            return
        os.write(verdict, b"+")
        os.read(end, 1)
        ring.release()
        owned.close()

    def race(count):
        (gate, open_gate), (result, verdict), (end, let_end) = (
            os.pipe(), os.pipe(), os.pipe())
        for _ in range(count):
            if os.fork() == 0:
                os.close(open_gate)
                os.close(let_end)
                try:
                    compete(gate, verdict, end)
                finally:
                    os._exit(0)
        os.close(open_gate)
        os.close(verdict)
        answers = b""
        while len(answers) < count and (more := os.read(result, count)):
            answers += more
        print(answers.decode(), flush=True)
        sys.stdin.readline()
        os.close(let_end)
        while os.read(result, 1):
            pass
        print("over", flush=True)

    print("ready", flush=True)
    for line in iter(sys.stdin.readline, ""):
        order = line.split()
        if order[0] == "race":
            race(int(order[1]))
        elif os.fork() == 0:
            write()
"""


class Nursery:
    """A process that starts writers on demand."""

    def __init__(self, directory) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(NURSERY), str(directory)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.writer = 0
        assert self.hear() == "ready"

    def hear(self) -> str:
        return self.process.stdout.readline().strip()

    def say(self, order: str) -> str:
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()
        return self.hear()

    def start(self) -> tuple[int, int]:
        """Start a writer; return its pid and its epoch."""
        self.writer, epoch = map(int, self.say("write").split())
        return self.writer, epoch

    def kill(self) -> int:
        """Kill the writer; return when that was."""
        os.kill(self.writer, signal.SIGKILL)
        self.writer = 0
        return time.monotonic_ns()

    def close(self) -> None:
        if self.writer:
            os.kill(self.writer, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def nursery(tmp_path) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path)
    yield nursery
    nursery.close()


def until(condition, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.0002)


def check_records(records: np.ndarray) -> int:
    """Fail if a word is not of its record; return the number after the last."""
    words = np.ascontiguousarray(records).view(np.uint64).reshape(-1, 8)
    assert (words[:, 1:] == (words[:, :1] - np.uint64(1)) % np.uint64(PERIOD)).all()
    assert (np.diff(words[:, 0].astype(np.int64)) == 1).all()
    return len(words)


def drain(stream: Stream) -> int:
    """Read what a dead writer left, also a record that it did not count."""
    count = 0
    while len(records := stream.poll()) or len(records := stream.take_one()):
        count += check_records(records)
    return count


@pytest.mark.req("F-76", "F-78")
def test_three_hundred_killed_writers_leave_no_bad_record(tmp_path, nursery):
    random = np.random.default_rng(5)
    source = Source("md", tmp_path, None)
    _, epoch = nursery.start()
    stream = Stream(source, "quotes", QUOTE, 0, "half")
    stream.watched = False
    noticed, received, uncounted = [], 0, 0
    for life in range(1, KILLS + 1):
        assert stream.epoch == epoch
        end = time.monotonic() + random.random() * 0.004
        while time.monotonic() < end:
            received += check_records(stream.poll())
        killed_ns = nursery.kill()
        until(lambda: stream.status is Status.DEAD)
        noticed.append(time.monotonic_ns() - killed_ns)
        with source.open("quotes") as segment:
            head = segment.live().head
        received += drain(stream)
        assert stream.position in (head, head + 1)
        uncounted += stream.position - head
        assert stream.received + stream.lost == stream.position - stream.start
        _, epoch = nursery.start()
        assert stream.status is Status.SUPERSEDED
        stream.look_around()
        assert stream.resets == life
    stream.close()
    p99 = statistics.quantiles(noticed, n=100)[98]
    print(f"\n{KILLS} kills, {received} received, {uncounted} complete but uncounted")
    print(f"DEAD seen after p50 {statistics.median(noticed) / 1e6:.2f} ms", end=", ")
    print(f"p99 {p99 / 1e6:.2f} ms, max {max(noticed) / 1e6:.2f} ms")

    assert p99 < SEEN_NS
    assert received > 0


@pytest.mark.req("F-77")
def test_a_stream_reads_on_after_its_writer_was_stopped(tmp_path, nursery):
    pid, _ = nursery.start()
    with Stream(Source("md", tmp_path, None), "quotes", QUOTE, "new", "half") as stream:
        for _ in range(2):
            os.kill(pid, signal.SIGSTOP)
            until(lambda: stream.status is Status.STALLED)
            drain(stream)
            assert len(stream.poll()) == 0
            os.kill(pid, signal.SIGCONT)
            until(lambda: stream.status is Status.LIVE)
            assert stream.wait(5.0)
            check_records(stream.poll())
        assert stream.resets == 0
        assert stream.received + stream.lost == stream.position - stream.start


READER = """
    import select, sys
    import numpy as np
    from feedhandler.consumer import Source, Stream
    from feedhandler.records import QUOTE
    from tests.stress.test_writer_deaths import check_records

    source = Source("md", sys.argv[1], None)
    with Stream(source, "quotes", QUOTE, "new", sys.argv[2]) as stream:
        print("reading", flush=True)
        while True:
            if select.select([sys.stdin], [], [], 0)[0]:
                sys.stdin.readline()
                print(stream.received, stream.lost, stream.position, stream.start,
                      flush=True)
            records = stream.poll()
            check_records(records)
            assert stream.received + stream.lost == stream.position - stream.start
"""


@pytest.mark.req("F-76", "F-79")
@pytest.mark.parametrize("on_lap", ["half", "latest"])
def test_a_reader_that_was_stopped_for_laps_knows_what_it_lost(
    tmp_path, nursery, on_lap
):
    nursery.start()
    reader = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(READER), str(tmp_path), on_lap],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip

    def ask() -> list[int]:
        reader.stdin.write("?\n")
        reader.stdin.flush()
        return [int(number) for number in reader.stdout.readline().split()]

    try:
        assert reader.stdout.readline() == "reading\n"
        with Source("md", tmp_path, None).open("quotes") as segment:
            for _ in range(5):
                _, lost_before, _, _ = ask()
                os.kill(reader.pid, signal.SIGSTOP)
                os.waitid(os.P_PID, reader.pid, os.WSTOPPED)
                stopped_at = segment.live().head
                until(lambda at=stopped_at: segment.live().head > at + 2 * 64)
                os.kill(reader.pid, signal.SIGCONT)
                ask()  # it may answer before it looks at the ring again
                received, lost, position, start = ask()

                assert lost > lost_before
                assert received + lost == position - start
    finally:
        reader.kill()
        reader.communicate()


@pytest.mark.req("F-79", "F-86")
def test_readers_that_sleep_at_random_count_every_record(tmp_path, nursery):
    """Four readers of a writer at full speed, each away for 0 to 200 ms at a time."""
    random = np.random.default_rng(3)
    source = Source("md", tmp_path, None)
    nursery.start()
    readers = [
        Stream(source, "quotes", QUOTE, start, on_lap)
        for start in ("new", "oldest")
        for on_lap in ("half", "latest")
    ]
    last = [reader.position for reader in readers]
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        time.sleep(float(random.choice([0, 0, 0.001, 0.02, 0.2]) * random.random()))
        number = int(random.integers(4))
        reader = readers[number]
        for records in (reader.poll(), reader.take_one(), reader.poll(7)):
            if check_records(records):
                assert records["seq"][0] > last[number]
                last[number] = int(records["seq"][-1])
            assert reader.received + reader.lost == reader.position - reader.start
    for reader in readers:
        assert reader.received > 0
        assert reader.lost > 0
        reader.close()


def race(nursery: Nursery, directory, count: int) -> None:
    answers = nursery.say(f"race {count}")
    assert sorted(answers) == ["+"] + ["-"] * (count - 1)
    with shm.attach("md", "quotes", directory=directory) as segment:
        assert segment.live().head == PERIOD
        reader = Reader(segment.buffer, QUOTE, start="oldest")
        assert check_records(reader.poll()) == 63
        reader.release()
    assert sorted(os.listdir(directory)) == ["fh-md.quotes", "fh-md.quotes.lock"]
    assert nursery.say("end") == "over"
    with pytest.raises(RingAbsent):
        shm.attach("md", "quotes", directory=directory)
    assert os.listdir(directory) == []


@pytest.mark.req("F-87")
def test_of_two_hundred_writers_at_once_one_wins(tmp_path, nursery):
    race(nursery, tmp_path, 200)


@pytest.mark.stress
def test_of_two_hundred_writers_one_wins_every_time(tmp_path, nursery):
    for _ in range(20):
        race(nursery, tmp_path, 200)

"""Both ends of command channels for tests: a feed's handler, and engines beside it."""

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from feedhandler import shm
from feedhandler.board import Board
from feedhandler.command import CommandWriter, CursorReader, Published
from feedhandler.commands import Command, Commands, bell_of
from feedhandler.records import COMMAND, CommandKind
from feedhandler.shm import AttachedSegment, OwnedSegment

NAN = float("nan")


def cancel(client_id: str, epoch: int, offset_ns: int, seconds: float = 10) -> bytes:
    """Return a record that is in order, and for a handler."""
    made = np.zeros(1, COMMAND)
    now_ns = time.monotonic_ns() + offset_ns
    made["kind"] = CommandKind.CANCEL
    made["client_id"] = client_id.encode()
    made["writer_epoch"] = epoch
    made["sent_ns"] = now_ns
    made["deadline_ns"] = now_ns + int(seconds * 1e9)
    for name in ("quantity", "price", "stop_price"):
        made[name] = NAN
    return made.tobytes()


class Feed:
    """What a handler has but for its connections: a board, and the commands."""

    def __init__(self, directory: Path, name: str = "md", wakes: bool = True) -> None:
        self.directory = directory
        self.name = name
        size = Board.size_for(64, 10)
        self.owned = shm.create(name, "board", size, directory=directory)
        self.board = Board(self.owned.buffer, 64, 10, self.owned.origin)
        self.owned.publish()
        origin = self.owned.origin
        self.epoch = origin.epoch
        self.offset_ns = origin.created_realtime_ns - origin.created_monotonic_ns
        self.commands = Commands(
            name, directory, self.epoch, self.offset_ns, wakes=wakes
        )
        self.commands.open()

    def poll(self) -> list[Command]:
        return self.commands.poll(time.monotonic_ns())

    def beat(self, later_ns: int = 0) -> None:
        """Beat as of now, or later: the look around comes once a second."""
        self.board.heartbeat(time.monotonic_ns())
        self.commands.beat(time.monotonic_ns() + later_ns)

    def is_woken(self) -> bool:
        return bool(select.select([self.commands], [], [], 0)[0])

    def ring(self, message: bytes) -> None:
        """Send what an engine might."""
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bell,
            bell_of(self.name, self.directory) as address,
        ):
            bell.connect(address)
            bell.send(message)

    def close(self) -> None:
        self.commands.close()
        self.board.release()
        self.owned.close()


class Loop:
    """A feed whose loop turns on a thread, and sleeps until it is woken."""

    def __init__(self, feed: Feed, beat_s: float = 0.1) -> None:
        self.feed = feed
        self.taken: list[Command] = []
        self.polls = True
        self._beat_s = beat_s
        self._ends = False
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ends:
            self.feed.beat()
            if self.polls:
                self.taken += self.feed.poll()
                select.select([self.feed.commands], [], [], self._beat_s)
            else:
                select.select([], [], [], 0.01)

    def wait_for(self, count: int) -> list[Command]:
        until(lambda: len(self.taken) >= count)
        return self.taken

    def __enter__(self) -> "Loop":
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stand still, as a process that is stopped: nobody is told."""
        if self._thread.is_alive():
            self._ends = True
            self.feed.ring(b"\0")
            self._thread.join()

    def __exit__(self, *_: object) -> None:
        self.stop()


@contextmanager
def running(directory: Path, **how) -> Iterator[Loop]:
    feed = Feed(directory)
    try:
        with Loop(feed, **how) as loop:
            yield loop
    finally:
        feed.close()


def until(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.001)


class Engine:
    """An engine of any pid that does what it is told to, honest or not."""

    def __init__(
        self, feed: Feed, pid: int = 1234, epoch: int | None = None, capacity: int = 64
    ) -> None:
        self.feed = feed
        self.stream = f"commands-{pid}"
        self.pid = pid
        self.count = 0
        self.owned: OwnedSegment = shm.create(
            feed.name,
            self.stream,
            CommandWriter.size_for(capacity),
            directory=feed.directory,
        )
        self.writer = CommandWriter(
            self.owned.buffer,
            capacity,
            feed.epoch if epoch is None else epoch,
            self.owned.origin,
        )
        self.owned.publish()
        self.cursor: AttachedSegment | None = None

    @property
    def path(self) -> Path:
        return self.owned.path

    def follow(self) -> CursorReader:
        """Map the handler's page."""
        self.cursor = shm.attach(
            self.feed.name, f"cursor-{self.pid}", directory=self.feed.directory
        )
        self.writer.follow(self.cursor.buffer)
        return CursorReader(self.cursor.buffer)

    def meet(self) -> "Engine":
        """Come as an honest engine does."""
        self.feed.ring(str(self.pid).encode())
        self.feed.poll()
        self.follow()
        return self

    def give(self, count: int = 1, **how) -> list[Published]:
        """Publish cancels of orders that are called after pid and number."""
        return [self._give_one(**how) for _ in range(count)]

    def _give_one(self, **how) -> Published:
        client_id = f"{self.pid}-{self.count}"
        self.count += 1
        record = cancel(client_id, self.feed.epoch, self.feed.offset_ns, **how)
        return self.writer.publish_record(record, time.monotonic_ns())

    def put(self, place: int, word: int) -> None:
        """Write a word, as nobody who is honest does."""
        struct.pack_into("<Q", self.owned.buffer, place, word)

    def die(self) -> None:
        """Lose the locks, and nothing else: as the kernel ends a process."""
        abandon(self.owned)

    def say_goodbye(self) -> None:
        self.writer.release()
        self.owned.close()

    def forget(self) -> None:
        """Let go of what is mapped, whatever happened before."""
        self.writer.release()
        self.owned.close()
        if self.cursor is not None:
            self.cursor.close()


def abandon(owned: OwnedSegment) -> None:
    """Drop the locks of a segment as its process's death would; a mapping holds one."""
    shm._unlock(owned._fd)
    owned._disown()


def names(directory: Path) -> set[str]:
    return set(os.listdir(directory))


SLOTS = 0x3000
BUSY = 1 << 63

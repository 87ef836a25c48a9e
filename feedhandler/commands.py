"""The handler's side of the command channels: finds them, serves them, lets them go.

Knows what a command says, and nothing of what becomes of it: every command that is
taken comes out of poll() once, those that must not be carried out with their problem.
docs/commands.md says what is promised.
"""

import contextlib
import logging
import os
import re
import secrets
import socket
from collections.abc import Generator, Iterator
from itertools import islice
from pathlib import Path
from typing import Self

from feedhandler import shm
from feedhandler.command import (
    CHANNEL_BYTES_MAX,
    CURSOR_BYTES,
    Command,
    CommandReader,
    CursorWriter,
)
from feedhandler.errors import RingAbsent, RingBusy, RingError
from feedhandler.segment import Origin, WriterState
from feedhandler.shm import AttachedSegment, OwnedSegment, Status

__all__ = ["CHANNELS", "COUNTERS", "Command", "Commands", "bell_of"]

log = logging.getLogger(__name__)

CHANNELS = 16
COUNTERS = (
    "commands",
    "commands_refused",
    "commands_expired",
    "commands_stuck",
    "command_channels",
    "command_channels_broken",
    "command_channels_untrusted",
)
TAKEN = 32
"""Commands that one poll() takes of one channel: then it is the next one's turn."""

# The rest of a directory that others may fill waits for the next beat.
_ENTRIES = 256
_LOOK_NS = 1_000_000_000
_REFUSED = 256
_RINGS = 16
_RING_BYTES = 16

_FILE = r"fh-{}\.((commands|cursor)-[1-9][0-9]{{0,6}})"
_PID = re.compile(rb"[1-9][0-9]{0,6}")
# struct sockaddr_un has room for so many bytes.
_ADDRESS_BYTES = 107


@contextlib.contextmanager
def bell_of(
    name: str, directory: str | os.PathLike[str], suffix: str = ""
) -> Iterator[str]:
    """Lend the address of the socket that wakes the handler of *name*."""
    file = f".fh-{name}.wake{suffix}"
    path = os.path.join(directory, file)
    if len(os.fsencode(path)) <= _ADDRESS_BYTES:
        yield path
        return
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{file}"
    finally:
        os.close(fd)


class Commands:
    """The channels of all engines that give commands to one handler.

    *writer_epoch* and *utc_offset_ns* are those of the feed's board; times are
    monotonic nanoseconds. Without *wakes* nobody wakes a handler that polls without
    pause. The loop's thread only; not to be used in a forked child.
    """

    def __init__(
        self,
        name: str,
        directory: str | os.PathLike[str],
        writer_epoch: int,
        utc_offset_ns: int,
        *,
        wakes: bool = True,
    ) -> None:
        self.commands = 0
        """Commands taken, whatever they said."""
        self.refused = 0
        """Those of them that made no sense."""
        self.expired = 0
        """Those of them that came too late."""
        self.stuck = 0
        """Slots that an engine left half-written for a second."""
        self.broken = 0
        """Channels let go because no honest engine writes what was read."""
        self.untrusted = 0
        """Files that are called channels, and cannot be used as such."""
        self._name = name
        self._directory = Path(directory)
        self._epoch = writer_epoch
        self._offset_ns = utc_offset_ns
        self._wakes = wakes
        self._channels: dict[str, _Channel] = {}
        self._left: list[Command] = []
        self._refused: dict[str, int] = {}
        self._file = re.compile(_FILE.format(re.escape(name)), re.ASCII)
        self._names: Generator[str, None, None] | None = None
        self._look_ns = 0
        self._turn = 0
        self._socket: socket.socket | None = None
        self._bell: socket.socket | None = None

    def open(self) -> None:
        """Let engines come; RingError if the place for the socket is another user's."""
        suffix = f".{os.getpid()}.{secrets.token_hex(4)}"
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            bound.setblocking(False)
            bell.setblocking(False)
            # Before it is bound: the name has this mode from its first moment.
            os.fchmod(bound.fileno(), 0o600)
            with (
                bell_of(self._name, self._directory, suffix) as own,
                bell_of(self._name, self._directory) as public,
            ):
                bound.bind(own)
                try:
                    os.rename(own, public)
                except BaseException:
                    os.unlink(own)
                    raise
                bell.connect(public)
        except OSError as error:
            bound.close()
            bell.close()
            raise RingError(
                f"cannot listen for commands of {self._name}: {error.strerror or error}"
            ) from None
        self._socket, self._bell = bound, bell
        self._inode = os.stat(self._bell_path, follow_symlinks=False).st_ino

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is something to poll."""
        if self._socket is None:
            raise ValueError("commands are closed")
        return self._socket.fileno()

    @property
    def channels(self) -> int:
        """How many engines there are now."""
        return len(self._channels)

    def counters(self) -> dict[str, int]:
        """Return all counts by their names, with the number of channels."""
        counts = (
            self.commands,
            self.refused,
            self.expired,
            self.stuck,
            self.channels,
            self.broken,
            self.untrusted,
        )
        return dict(zip(COUNTERS, counts, strict=True))

    def poll(self, now_ns: int) -> list[Command]:
        """Take commands, of each channel at most TAKEN; each time another one is first.

        Each was taken before it is returned, and never comes again: what a handler that
        dies has taken, the engine has to ask for.
        """
        if self._wakes:
            self._hear(now_ns)
        taken, self._left = self._left, []
        channels = list(self._channels.values())
        if channels:
            self._turn = (self._turn + 1) % len(channels)
            for channel in channels[self._turn :] + channels[: self._turn]:
                taken += channel.reader.take(TAKEN, now_ns)
        if taken:
            self._count(taken)
        if self._wakes:
            self._doze(channels)
        return taken

    def beat(self, now_ns: int) -> None:
        """Show that the loop turns, and look for engines that came, died or lie.

        To be called ten times a second, before poll().
        """
        self._hear(now_ns)
        for channel in list(self._channels.values()):
            channel.cursor.heartbeat(now_ns)
            self._look_after(channel, now_ns)
        if self._names is None and now_ns >= self._look_ns:
            self._look_ns = now_ns + _LOOK_NS
            self._names = self._listing()
        if self._names is not None:
            self._look_around(self._names, now_ns)

    def close(self) -> None:
        """Tell all engines that nothing more is taken, and remove every trace."""
        for channel in list(self._channels.values()):
            self._let_go(channel)
        if self._names is not None:
            self._names.close()
            self._names = None
        if self._socket is None or self._bell is None:
            return
        with contextlib.suppress(FileNotFoundError):
            # Another handler of that name may have put its own there.
            if self._bell_path.stat().st_ino == self._inode:
                self._bell_path.unlink()
        self._socket.close()
        self._bell.close()
        self._socket = self._bell = None

    def __enter__(self) -> Self:
        """Open it; leaving the block closes it."""
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    # ── engines that come ─────────────────────────────────────────────────────────────

    @property
    def _bell_path(self) -> Path:
        return self._directory / f".fh-{self._name}.wake"

    def _hear(self, now_ns: int) -> None:
        """Read what was sent to wake us: a byte, or the pid of an engine that comes."""
        if self._socket is None:
            return
        for _ in range(_RINGS):
            try:
                message = self._socket.recv(_RING_BYTES)
            except BlockingIOError:
                return
            if _PID.fullmatch(message):
                self._meet(f"commands-{message.decode()}", now_ns)

    def _listing(self) -> Generator[str, None, None]:
        with os.scandir(self._directory) as entries:
            for entry in entries:
                yield entry.name

    def _look_around(self, names: Iterator[str], now_ns: int) -> None:
        looked = 0
        for name in islice(names, _ENTRIES):
            looked += 1
            match = self._file.fullmatch(name)
            if match is not None and match[2] == "commands":
                self._meet(match[1], now_ns)
            elif match is not None:
                self._remove(match[1])
        if looked < _ENTRIES:
            self._names = None

    def _meet(self, stream: str, now_ns: int) -> None:
        """Serve the channel of that name, if there is one of a live engine for us."""
        known = self._channels.get(stream)
        if known is not None:
            self._look_after(known, now_ns)
        if stream in self._channels or len(self._channels) >= CHANNELS:
            return
        try:
            inode = os.stat(self._path(stream), follow_symlinks=False).st_ino
        except OSError:
            return
        if self._refused.get(stream) == inode:
            return
        try:
            segment = shm.attach(
                self._name,
                stream,
                directory=self._directory,
                largest=CHANNEL_BYTES_MAX,
            )
        except RingAbsent:
            return
        except RingError as error:
            self._refuse(stream, inode, str(error))
            return
        try:
            self._adopt(stream, inode, segment)
        except RingBusy:
            segment.close()  # another handler serves it still: next time
        except RingError as error:
            segment.close()
            self._refuse(stream, inode, str(error))
        except BaseException:
            segment.close()
            raise

    def _adopt(self, stream: str, inode: int, segment: AttachedSegment) -> None:
        status = segment.status()
        if status not in (Status.LIVE, Status.STALLED):
            segment.close()
            self._remove(stream)  # unless its engine is just about to
            return
        reader = CommandReader(segment.buffer, stream, self._epoch, self._offset_ns)
        if reader.writer_epoch != self._epoch:
            # It goes on with a handler before us, until its engine notices.
            reader.release()
            segment.close()
            self._note_refused(stream, inode)
            return
        owned = shm.create(
            self._name,
            stream.replace("commands", "cursor"),
            CURSOR_BYTES,
            directory=self._directory,
            origin=self._origin(),
        )
        try:
            cursor = CursorWriter(owned.buffer, segment.meta.origin.epoch, owned.origin)
            reader.serve(cursor)
            owned.publish()
        except BaseException:
            owned.close()
            raise
        self._channels[stream] = _Channel(stream, inode, segment, reader, owned, cursor)
        log.info("commands from an engine feed=%s channel=%s", self._name, stream)

    def _origin(self) -> Origin:
        """Describe us as the board does: under its epoch, by its clock."""
        origin = shm.origin()
        return origin._replace(
            epoch=self._epoch,
            created_realtime_ns=origin.created_monotonic_ns + self._offset_ns,
        )

    def _refuse(self, stream: str, inode: int, reason: str) -> None:
        self.untrusted += 1
        self._note_refused(stream, inode)
        log.warning(
            "channel refused feed=%s channel=%s: %s", self._name, stream, reason
        )

    def _note_refused(self, stream: str, inode: int) -> None:
        if len(self._refused) >= _REFUSED:
            del self._refused[next(iter(self._refused))]
        self._refused[stream] = inode

    # ── engines that go ───────────────────────────────────────────────────────────────

    def _look_after(self, channel: "_Channel", now_ns: int) -> None:
        """Let go of a channel that has no honest engine any more."""
        # In this order: what a writer does before it goes is there when it is gone.
        is_closed = channel.segment.live().state == WriterState.CLOSED
        is_dead = not is_closed and channel.segment.status() in (
            Status.DEAD,
            Status.SUPERSEDED,
        )
        stuck = channel.reader.stuck
        channel.reader.inspect(now_ns)
        self.stuck += channel.reader.stuck - stuck
        if is_closed or is_dead:
            # Who said goodbye meant what came before it; a dead engine hears no answer.
            self._left += channel.rest(now_ns, is_dead=is_dead)
            log.info(
                "engine is gone feed=%s channel=%s dead=%s",
                self._name,
                channel.stream,
                is_dead,
            )
            self._let_go(channel)
            if is_dead:
                self._remove(channel.stream)
        elif channel.reader.broken:
            self.broken += 1
            log.warning(
                "channel is broken feed=%s channel=%s after=%d",
                self._name,
                channel.stream,
                channel.reader.taken,
            )
            self._note_refused(channel.stream, channel.inode)
            self._let_go(channel)

    def _let_go(self, channel: "_Channel") -> None:
        del self._channels[channel.stream]
        channel.close()

    def _remove(self, stream: str) -> None:
        """Remove what a dead writer left; nothing of a live one."""
        with contextlib.suppress(RingError, OSError):
            shm.remove(self._name, stream, directory=self._directory)

    def _path(self, stream: str) -> Path:
        return self._directory / f"fh-{self._name}.{stream}"

    # ── turns ─────────────────────────────────────────────────────────────────────────

    def _count(self, taken: list[Command]) -> None:
        self.commands += len(taken)
        for command in taken:
            if command.problem:
                self.expired += command.is_expired
                self.refused += not command.is_expired

    def _doze(self, channels: list["_Channel"]) -> None:
        """Have whoever publishes from now on wake us, then look once more."""
        for channel in channels:
            channel.cursor.doze()
        if self._bell is not None and any(
            channel.reader.has_next() for channel in channels
        ):
            # A queue that is full wakes us too.
            with contextlib.suppress(OSError):
                self._bell.send(b"\0")


class _Channel:
    """One engine: the segment it writes, and the one that we write for it."""

    def __init__(
        self,
        stream: str,
        inode: int,
        segment: AttachedSegment,
        reader: CommandReader,
        owned: OwnedSegment,
        cursor: CursorWriter,
    ) -> None:
        self.stream = stream
        self.inode = inode
        self.segment = segment
        self.reader = reader
        self.owned = owned
        self.cursor = cursor

    def rest(self, now_ns: int, *, is_dead: bool) -> list[Command]:
        """Take what is left: not more than the channel holds, whoever still writes."""
        taken: list[Command] = []
        for _ in range(self.segment.meta.capacity // TAKEN + 1):
            more = self.reader.take(TAKEN, now_ns, is_dead=is_dead)
            if not more:
                break
            taken += more
        return taken

    def close(self) -> None:
        self.reader.release()
        self.segment.close()
        self.cursor.release()
        self.owned.close()

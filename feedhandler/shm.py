"""Named segments: create, publish, attach, watch, list and remove.

Knows what a segment's first two pages say, and nothing of what follows them. A segment
is made under a temporary name and renamed when it is whole; it is never truncated or
used again, so whoever has it mapped keeps what was there. Who writes is told by locks
on open file descriptions, which the kernel drops with their last descriptor.
"""

import contextlib
import errno
import fcntl
import logging
import os
import re
import secrets
import stat
import struct
import time
import weakref
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Self

from feedhandler.errors import RingAbsent, RingBusy, RingError, RingInvalid
from feedhandler.segment import (
    Live,
    Mapping,
    Meta,
    Origin,
    WriterState,
    beat,
    mark_closed,
    read_live,
    read_meta,
)

__all__ = [
    "DIRECTORY",
    "HEARTBEAT_NS",
    "STALLED_NS",
    "AttachedSegment",
    "Listing",
    "OwnedSegment",
    "Status",
    "attach",
    "create",
    "list_segments",
    "origin",
    "remove",
]

log = logging.getLogger(__name__)

DIRECTORY = "/dev/shm"
HEARTBEAT_NS = 100_000_000
STALLED_NS = 3 * HEARTBEAT_NS

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,47}", re.ASCII)
_STREAM = re.compile(r"[A-Za-z0-9_-]{1,16}", re.ASCII)
_FILE = re.compile(rf"fh-({_NAME.pattern})\.({_STREAM.pattern})", re.ASCII)
_MODES = (0o600, 0o640)
_SIZE_MAX = 1 << 40

# struct flock of 64-bit Linux: type, whence, start, length, pid.
_FLOCK = struct.Struct("@hhqqi4x")
_LOCK_TRIES = 100
_ATTACH_TRIES = 10


class Status(StrEnum):
    """What a reader knows about the writer of its segment."""

    LIVE = "LIVE"
    STALLED = "STALLED"
    """It holds its lock, but its loop has not beaten for three periods."""
    CLOSED = "CLOSED"
    """It said goodbye."""
    DEAD = "DEAD"
    """It did not, and its lock is gone."""
    SUPERSEDED = "SUPERSEDED"
    """The name belongs to another segment now, or to none: attach again."""


class Listing(NamedTuple):
    """One segment of a directory; *problem* says why it could not be read, if so."""

    name: str
    stream: str
    path: Path
    size_bytes: int
    status: Status | None
    meta: Meta | None
    live: Live | None
    problem: str


def origin(name: str = "") -> Origin:
    """Describe this process, now, under a new epoch: one for all segments of a feed."""
    return Origin(
        epoch=secrets.randbits(64) or 1,
        created_realtime_ns=time.time_ns(),
        created_monotonic_ns=time.monotonic_ns(),
        pid=os.getpid(),
        uid=os.geteuid(),
        start_time=_start_time(),
        boot_id=_boot_id(),
        name=name,
        version=_version(),
    )


def create(
    name: str,
    stream: str,
    size: int,
    *,
    mode: int = 0o600,
    group: int = -1,
    directory: str | os.PathLike[str] = DIRECTORY,
    origin: Origin | None = None,
) -> "OwnedSegment":
    """Reserve *size* bytes for the segment of that name, and the right to write it.

    Nobody sees it before its publish(). RingBusy while another writer lives; RingError
    when there is no room, with nothing left behind. *group* is given to the file, for
    use with mode 0o640.
    """
    path = _path(name, stream, directory)
    if mode not in _MODES:
        raise ValueError(f"mode is {mode:#o}, not 0o600 or 0o640")
    if not 0 < size <= _SIZE_MAX:
        raise ValueError(f"size is {size} bytes, not 1 to {_SIZE_MAX}")
    made_by = (origin or _origin())._replace(name=f"{name}.{stream}")
    return OwnedSegment(path, size, mode, group, made_by)


def attach(
    name: str,
    stream: str,
    *,
    directory: str | os.PathLike[str] = DIRECTORY,
    owner: int | None = None,
    largest: int = _SIZE_MAX,
) -> "AttachedSegment":
    """Map the segment of that name, read-only, if it has *largest* bytes at most.

    It must be a regular file that belongs to this user, or to the uid *owner*, and that
    nobody else can write: otherwise another user could truncate it under us.
    """
    return AttachedSegment(_path(name, stream, directory), owner, largest)


def list_segments(directory: str | os.PathLike[str] = DIRECTORY) -> list[Listing]:
    """List the segments of *directory*, also those that cannot be trusted."""
    listings = []
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        match = _FILE.fullmatch(entry.name)
        if match is not None:
            with contextlib.suppress(RingAbsent):
                listings.append(_listing(match[1], match[2], Path(entry.path)))
    return listings


def remove(
    name: str, stream: str, *, directory: str | os.PathLike[str] = DIRECTORY
) -> None:
    """Unlink what a dead writer left; RingBusy if the writer lives."""
    path = _path(name, stream, directory)
    lock = _take_lock(_lock_path(path))
    try:
        _refuse_if_written(path)
        try:
            path.unlink()
        except FileNotFoundError:
            raise _absent(path) from None
        except OSError as error:
            raise RingError(f"cannot remove {path}: {error.strerror}") from None
        finally:
            _lock_path(path).unlink()
    finally:
        os.close(lock)


class OwnedSegment:
    """A segment that this process alone may write, from create() to close()."""

    def __init__(
        self, path: Path, size: int, mode: int, group: int, origin: Origin
    ) -> None:
        self.path = path
        self.origin = origin
        self.published = False
        self.closed = False
        self._lock = _take_lock(_lock_path(path))
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.{origin.epoch:x}")
        try:
            _refuse_if_written(path)
            _remove_leftovers(path)
            self._fd = _new_file(self._temporary, size, mode, group)
            try:
                self._inode = os.fstat(self._fd).st_ino
                self.buffer = Mapping(self._fd, size, writable=True)
                if not self.buffer.lock():
                    log.warning("not locked in memory path=%s bytes=%d", path, size)
                _lock_or_busy(self._fd, path)
            except BaseException:
                os.close(self._fd)
                self._temporary.unlink(missing_ok=True)
                raise
        except OSError as error:
            self._drop_lock()
            raise RingError(
                f"cannot create {path} of {size} bytes: {error.strerror}"
            ) from None
        except BaseException:
            self._drop_lock()
            raise
        _owned.add(self)

    def publish(self) -> None:
        """Give the segment its public name; it has been formatted by now."""
        self._check_open()
        read_meta(self.buffer)
        beat(self.buffer, time.monotonic_ns())
        try:
            self._temporary.rename(self.path)
        except OSError as error:
            raise RingError(f"cannot publish {self.path}: {error.strerror}") from None
        self.published = True

    def is_linked(self) -> bool:
        """Say whether the public name is still ours: someone may have unlinked it."""
        return not self.closed and _inode_of(self.path) == self._inode

    def close(self, *, persist: bool = False) -> None:
        """Say goodbye to the readers and remove every trace, but *persist* the data.

        A writer that still holds the buffer goes on unseen, until it is released.
        """
        if self.closed:
            return
        self.closed = True
        mark_closed(self.buffer)
        if not self.published:
            self._temporary.unlink(missing_ok=True)
        elif not persist and _inode_of(self.path) == self._inode:
            self.path.unlink()
        # A mapping that a writer still uses would hold the lock, closed or not.
        _unlock(self._fd)
        with contextlib.suppress(BufferError):
            self.buffer.close()
        os.close(self._fd)
        self._drop_lock()

    def __enter__(self) -> Self:
        """Return itself; leaving the block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError(f"segment {self.path} is closed")

    def _drop_lock(self) -> None:
        """Remove the lock file while it is locked: nobody then locks an orphan."""
        with contextlib.suppress(OSError):
            _lock_path(self.path).unlink()
        os.close(self._lock)

    def _disown(self) -> None:
        """Let go in a forked child, which would keep a dead writer alive."""
        if not self.closed:
            self.closed = True
            os.close(self._fd)
            os.close(self._lock)


class AttachedSegment:
    """A segment that someone else writes, mapped read-only."""

    def __init__(self, path: Path, owner: int | None, largest: int = _SIZE_MAX) -> None:
        self.path = path
        self._fd = _open_checked(path, owner, largest)
        try:
            found = os.fstat(self._fd)
            self._inode = found.st_ino
            self.buffer = Mapping(self._fd, found.st_size)
            self.meta = read_meta(self.buffer)
        except RingInvalid as error:
            os.close(self._fd)
            raise RingInvalid(f"{path.name}: {error}") from None
        except OSError as error:
            os.close(self._fd)
            raise RingError(f"cannot map {path}: {error.strerror}") from None
        except BaseException:
            os.close(self._fd)
            raise
        self.closed = False

    def live(self) -> Live:
        """Read the live page."""
        self._check_open()
        return read_live(self.buffer)

    def heartbeat_age_ns(self) -> int:
        """Return how long ago the writer's loop last beat."""
        return time.monotonic_ns() - self.live().heartbeat_mono_ns

    def status(self) -> Status:
        """Ask the kernel and the live page about the writer; about 3 us."""
        self._check_open()
        inode = _inode_of(self.path)
        if inode is not None and inode != self._inode:
            return Status.SUPERSEDED
        if self.live().state == WriterState.CLOSED:
            return Status.CLOSED
        if not _is_locked(self._fd):
            # It may have closed between the two looks.
            closed = self.live().state == WriterState.CLOSED
            return Status.CLOSED if closed else Status.DEAD
        if inode is None:
            return Status.SUPERSEDED
        if self.heartbeat_age_ns() > STALLED_NS:
            return Status.STALLED
        return Status.LIVE

    def close(self) -> None:
        """Let go; the memory stays mapped while a reader holds the buffer."""
        if self.closed:
            return
        self.closed = True
        with contextlib.suppress(BufferError):
            self.buffer.close()
        os.close(self._fd)

    def __enter__(self) -> Self:
        """Return itself; leaving the block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError(f"segment {self.path} is closed")


# The argument of create() has the name of the function.
_origin = origin


def _path(name: str, stream: str, directory: str | os.PathLike[str]) -> Path:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"name is {name[:64]!r}, not 1 to 48 of A-Z a-z 0-9 _ -, a letter or "
            "digit first"
        )
    if not _STREAM.fullmatch(stream):
        raise ValueError(f"stream is {stream[:64]!r}, not 1 to 16 of A-Z a-z 0-9 _ -")
    return Path(directory, f"fh-{name}.{stream}")


def _lock_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _absent(path: Path) -> RingAbsent:
    return RingAbsent(
        f"no segment {path.name} in {path.parent}; is its feed handler running?"
    )


def _inode_of(path: Path) -> int | None:
    """Return the inode that *path* names, None if nothing is there."""
    try:
        return os.stat(path, follow_symlinks=False).st_ino
    except FileNotFoundError:
        return None


def _lock_or_busy(fd: int, path: Path) -> None:
    """Take the write lock of *fd*'s open file; it ends with the last descriptor."""
    request = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, request)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        raise RingBusy(f"{path} has another writer") from None


def _unlock(fd: int) -> None:
    request = _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, request)


def _is_locked(fd: int) -> bool:
    """Say whether someone else holds a write lock, without taking one."""
    request = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, request)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def _take_lock(path: Path) -> int:
    """Lock the file at *path*, made if need be, and return its descriptor."""
    for _ in range(_LOCK_TRIES):
        try:
            fd = os.open(
                path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
        except OSError as error:
            raise RingError(f"cannot lock {path}: {error.strerror}") from None
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                raise RingError(f"{path} is not a file of ours")
            _lock_or_busy(fd, path)
            # The writer before us unlinks it, locked: then ours is an orphan.
            if _inode_of(path) == found.st_ino:
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    raise RingBusy(f"{path} was taken away {_LOCK_TRIES} times")


def _refuse_if_written(path: Path) -> None:
    """Raise RingBusy if the file at *path* has a writer, even without a lock file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    try:
        if _is_locked(fd):
            raise RingBusy(f"{path} has another writer")
    finally:
        os.close(fd)


def _remove_leftovers(path: Path) -> None:
    """Remove what a writer left that died before publish(); its lock is ours now."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9]+\.[0-9a-f]+", re.ASCII)
    for entry in os.scandir(path.parent):
        if pattern.fullmatch(entry.name):
            with contextlib.suppress(OSError):
                os.unlink(entry.path)


def _new_file(path: Path, size: int, mode: int, group: int) -> int:
    """Create *path* with all of its *size* bytes reserved; nothing is left if it fails.

    Reserved, because a sparse file in a full tmpfs is a SIGBUS at first touch.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(path, flags, 0o600)
    try:
        if group != -1:
            os.fchown(fd, -1, group)
        os.fchmod(fd, mode)
        os.posix_fallocate(fd, 0, size)
    except BaseException:
        os.close(fd)
        path.unlink()
        raise
    return fd


def _open_checked(path: Path, owner: int | None, largest: int) -> int:
    """Open *path* for reading, if only an owner whom we trust can write it."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    for _ in range(_ATTACH_TRIES):
        try:
            fd = os.open(path, flags)
        except FileNotFoundError:
            raise _absent(path) from None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                raise RingInvalid(f"{path} is not a regular file") from None
            raise RingError(f"cannot open {path}: {error.strerror}") from None
        found = os.fstat(fd)
        if found.st_nlink == 0:
            os.close(fd)  # replaced since we opened it: look again
            continue
        problem = _distrust(found, owner, largest)
        if problem:
            os.close(fd)
            raise RingInvalid(f"{path} {problem}")
        return fd
    raise RingInvalid(f"{path} was replaced {_ATTACH_TRIES} times")


def _distrust(found: os.stat_result, owner: int | None, largest: int) -> str:
    """Say what is wrong with a file's attributes, "" if nothing is."""
    if not stat.S_ISREG(found.st_mode):
        return "is not a regular file"
    if found.st_uid not in (os.geteuid(), owner):
        return f"belongs to uid {found.st_uid}, not {owner or os.geteuid()}"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(found.st_mode)
        return f"has mode {mode:#o}, not one that only its owner can write"
    if found.st_nlink != 1:
        return f"has {found.st_nlink} links, not 1"
    if not 0 < found.st_size <= largest:
        return f"is {found.st_size} bytes, not 1 to {largest}"
    return ""


def _listing(name: str, stream: str, path: Path) -> Listing:
    size = path.lstat().st_size if _inode_of(path) is not None else 0
    try:
        with AttachedSegment(path, None) as segment:
            return Listing(
                name,
                stream,
                path,
                size,
                segment.status(),
                segment.meta,
                segment.live(),
                "",
            )
    except RingAbsent:
        raise
    except RingError as error:
        return Listing(name, stream, path, size, None, None, None, str(error))


def _start_time() -> int:
    """Return when this process started, in clock ticks since boot; 0 if unknown."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        return int(fields[19])
    except (OSError, ValueError, IndexError):
        return 0


def _boot_id() -> bytes:
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text()
        return bytes.fromhex(text.strip().replace("-", ""))
    except (OSError, ValueError):
        return bytes(16)


def _version() -> str:
    # Consumers import this module too, and never ask: it costs them 10 ms.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("feedhandler")[:63]
    except PackageNotFoundError:
        return ""


_owned: "weakref.WeakSet[OwnedSegment]" = weakref.WeakSet()


def _after_fork() -> None:
    for segment in list(_owned):
        segment._disown()


os.register_at_fork(after_in_child=_after_fork)

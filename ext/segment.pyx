"""The first two pages of every shared-memory segment: format, check, watch.

What is read from a segment is untrusted: the meta page is copied once, the copy is
checked, and only the copy is used.
"""

import hashlib
import os
import weakref
from typing import NamedTuple

from cpython.buffer cimport (
    PyBUF_SIMPLE,
    PyBUF_WRITABLE,
    PyBuffer_FillInfo,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.exc cimport PyErr_SetFromErrno
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset
from posix.mman cimport (
    MADV_DONTFORK,
    MAP_FAILED,
    MAP_POPULATE,
    MAP_SHARED,
    PROT_READ,
    PROT_WRITE,
    madvise,
    mlock,
    mmap,
    munmap,
)

from feedhandler.atomic cimport (
    load_acquire,
    load_acquire32,
    load_relaxed,
    store_relaxed,
    store_release,
    store_release32,
)
from feedhandler.futex cimport futex_wake

from feedhandler.errors import RingInvalid

cdef uint64_t MAGIC = 0x0100474E49524846       # FHRING\0\1, little-endian
cdef uint32_t BYTE_ORDER = 0x01020304
cdef uint32_t KNOWN_FLAGS = 0x3
cdef uint32_t MUST_UNDERSTAND = 0xFFFF0000
ABI_MAJOR = 1
ABI_MINOR = 0


class Origin(NamedTuple):
    """Who made a segment, and when.

    One writer uses the same epoch and the same two stamps for all its segments: record
    times are CLOCK_MONOTONIC + (created_realtime_ns - created_monotonic_ns).
    """

    epoch: int
    created_realtime_ns: int = 0
    created_monotonic_ns: int = 0
    pid: int = 0
    uid: int = 0
    start_time: int = 0
    boot_id: bytes = bytes(16)
    name: str = ""
    version: str = ""


class Meta(NamedTuple):
    """A meta page that passed every check."""

    abi_major: int
    abi_minor: int
    flags: int
    kind: int
    capacity: int
    slot_size: int
    record_size: int
    slots_offset: int
    file_size: int
    schema_hash: int
    schema: str
    origin: Origin


class Live(NamedTuple):
    """What the live page said a moment ago."""

    head: int
    state: int
    heartbeat_mono_ns: int
    heartbeat_count: int
    session_gap_count: int
    wake_seq: int


def schema_hash(schema: str) -> int:
    """Return the number that stands for a schema's text in the meta page."""
    return int.from_bytes(hashlib.blake2b(schema.encode()).digest()[:8], "little")


def align(size: int, boundary: int) -> int:
    """Round *size* up to a multiple of *boundary*."""
    return (size + boundary - 1) // boundary * boundary


def capacity_for(count: int) -> int:
    """Return the smallest capacity a segment may have that holds *count* slots."""
    capacity = max(CAPACITY_MIN, 1 << (count - 1).bit_length() if count > 1 else 1)
    if capacity > CAPACITY_MAX:
        raise ValueError(f"capacity is {count}, not {CAPACITY_MAX} or less")
    return capacity


cdef bint is_capacity(uint64_t capacity) noexcept:
    return CAPACITY_MIN <= capacity <= CAPACITY_MAX and capacity & (capacity - 1) == 0


cdef int claim(object buffer, Py_buffer *view, int flags) except -1:
    """Export *buffer* into *view*; it is long enough for two pages and aligned."""
    PyObject_GetBuffer(buffer, view, flags)
    try:
        if view.len < DATA_OFFSET:
            raise RingInvalid(f"segment is {view.len} bytes, not {DATA_OFFSET} or more")
        if <uintptr_t> view.buf % sizeof(uint64_t):
            raise ValueError("buffer is not aligned to 8 bytes")
    except BaseException:
        PyBuffer_Release(view)
        raise
    return 0


cdef str text_of(const char *text, Py_ssize_t size):
    return text[:size].split(b"\0", 1)[0].decode("ascii", "backslashreplace")


cdef object check_meta(const char *base, Py_ssize_t size):
    """Copy and check the meta page at *base*, of a segment of *size* bytes."""
    cdef MetaPage meta
    cdef uint64_t magic = load_acquire(<const uint64_t *> base)
    memcpy(&meta, base, sizeof(MetaPage))
    if magic != MAGIC or meta.magic != MAGIC:
        raise RingInvalid(f"magic is {magic:#018x}, not {MAGIC:#018x}")
    if meta.byte_order != BYTE_ORDER:
        raise RingInvalid(f"byte order tag is {meta.byte_order:#x}, not {BYTE_ORDER:#x}")
    if meta.abi_major != ABI_MAJOR:
        raise RingInvalid(f"layout version is {meta.abi_major}, not {ABI_MAJOR}")
    if meta.flags & MUST_UNDERSTAND:
        raise RingInvalid(f"flags are {meta.flags:#x}, not within {KNOWN_FLAGS:#x}")
    if not QUOTES <= meta.stream_kind <= GENERIC:
        raise RingInvalid(f"stream kind is {meta.stream_kind}, not {QUOTES} to {GENERIC}")
    if meta.epoch == 0:
        raise RingInvalid("epoch is 0, not a random number")
    if not is_capacity(meta.capacity):
        raise RingInvalid(f"capacity is {meta.capacity}, not a power of two of 64 to 2^28")
    if not LINE <= meta.slot_size <= SLOT_MAX or meta.slot_size % LINE:
        raise RingInvalid(f"slots are {meta.slot_size} bytes, not a multiple of 64 up to 4096")
    if not sizeof(uint64_t) <= meta.record_size <= meta.slot_size:
        raise RingInvalid(f"records are {meta.record_size} bytes, not 8 to {meta.slot_size}")
    if meta.file_size != <uint64_t> size:
        raise RingInvalid(f"segment is {size} bytes, not the {meta.file_size} of its header")
    if meta.slots_offset % PAGE or not DATA_OFFSET <= meta.slots_offset <= meta.file_size:
        raise RingInvalid(f"slots start at {meta.slots_offset:#x}, not at a page inside")
    # At most 2^28 slots of 2^12 bytes: the product cannot overflow.
    if meta.capacity * meta.slot_size > meta.file_size - meta.slots_offset:
        raise RingInvalid(
            f"segment is {size} bytes, not enough for {meta.capacity} slots of "
            f"{meta.slot_size} at {meta.slots_offset:#x}"
        )
    if meta.schema_len > SCHEMA_BYTES:
        raise RingInvalid(f"schema is {meta.schema_len} bytes, not {SCHEMA_BYTES} or less")
    schema = meta.schema[:meta.schema_len].decode("ascii", "backslashreplace")
    if meta.schema_hash != schema_hash(schema):
        raise RingInvalid(f"schema hash is {meta.schema_hash:#x}, not that of the schema")
    return Meta(
        abi_major=meta.abi_major,
        abi_minor=meta.abi_minor,
        flags=meta.flags,
        kind=meta.stream_kind,
        capacity=meta.capacity,
        slot_size=meta.slot_size,
        record_size=meta.record_size,
        slots_offset=meta.slots_offset,
        file_size=meta.file_size,
        schema_hash=meta.schema_hash,
        schema=schema,
        origin=Origin(
            epoch=meta.epoch,
            created_realtime_ns=meta.created_realtime_ns,
            created_monotonic_ns=meta.created_monotonic_ns,
            pid=meta.pid,
            uid=meta.uid,
            start_time=meta.start_time,
            boot_id=(<const char *> meta.boot_id)[:16],
            name=text_of(meta.name, NAME_BYTES),
            version=text_of(meta.version, NAME_BYTES),
        ),
    )


cdef object look(const LivePage *live):
    return Live(
        head=load_acquire(&live.head),
        state=load_acquire32(&live.state),
        heartbeat_mono_ns=load_relaxed(&live.heartbeat_mono_ns),
        heartbeat_count=load_relaxed(&live.heartbeat_count),
        session_gap_count=load_relaxed(&live.session_gap_count),
        wake_seq=load_acquire32(&live.wake_seq),
    )


def read_meta(buffer) -> Meta:
    """Check the meta page of the segment in *buffer*, of which nothing is believed."""
    cdef Py_buffer view
    claim(buffer, &view, PyBUF_SIMPLE)
    try:
        return check_meta(<const char *> view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


def read_live(buffer) -> Live:
    """Read the live page of the segment in *buffer*."""
    cdef Py_buffer view
    claim(buffer, &view, PyBUF_SIMPLE)
    try:
        return look(<const LivePage *> (<const char *> view.buf + LIVE_OFFSET))
    finally:
        PyBuffer_Release(&view)


def beat(buffer, int64_t monotonic_ns) -> None:
    """Store a heartbeat in *buffer*, on behalf of its writer."""
    cdef Py_buffer view
    cdef LivePage *live
    claim(buffer, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
    live = <LivePage *> (<char *> view.buf + LIVE_OFFSET)
    beat_live(live, monotonic_ns)
    PyBuffer_Release(&view)


def mark_closed(buffer) -> None:
    """Tell the readers of *buffer* that nothing more will come, those that sleep too."""
    cdef Py_buffer view
    cdef LivePage *live
    claim(buffer, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
    live = <LivePage *> (<char *> view.buf + LIVE_OFFSET)
    store_release32(&live.state, CLOSED)
    if (<MetaPage *> view.buf).flags & WAKE:
        wake_readers(live)
    PyBuffer_Release(&view)


cdef void wake_readers(LivePage *live) noexcept nogil:
    # Unconditional: a count of sleepers would need their write access, and a full fence
    # here; the kernel compares the word under its own lock instead.
    store_release32(&live.wake_seq, live.wake_seq + 1)
    futex_wake(&live.wake_seq)


cdef void beat_live(LivePage *live, int64_t monotonic_ns) noexcept nogil:
    store_relaxed(&live.heartbeat_count, live.heartbeat_count + 1)
    store_release(&live.heartbeat_mono_ns, <uint64_t> monotonic_ns)


cdef int put_text(char *field, str text, str what) except -1:
    cdef bytes encoded = text.encode("ascii")
    if len(encoded) >= NAME_BYTES:
        raise ValueError(f"{what} is {len(encoded)} bytes, not less than {NAME_BYTES}")
    memcpy(field, <const char *> encoded, len(encoded))
    return 0


cdef class SegmentWriter:
    """The one writer of a segment, over any writable buffer.

    Not for two threads. In a forked child it is released: it writes nothing more.
    """

    cdef int format(
        self, object buffer, StreamKind kind, uint64_t capacity, uint32_t slot_size,
        uint32_t record_size, uint64_t slots_offset, str schema, object origin,
    ) except -1:
        cdef MetaPage *meta
        cdef bytes text = schema.encode("ascii")
        cdef bytes boot_id = origin.boot_id
        if self.base != NULL:
            raise ValueError("segment is in use already")
        if not is_capacity(capacity):
            raise ValueError(f"capacity is {capacity}, not a power of two of 64 to 2^28")
        if not LINE <= slot_size <= SLOT_MAX or slot_size % LINE:
            raise ValueError(f"slots are {slot_size} bytes, not a multiple of 64 up to 4096")
        if len(text) > SCHEMA_BYTES:
            raise ValueError(f"schema is {len(text)} bytes, not {SCHEMA_BYTES} or less")
        if origin.epoch == 0 or len(boot_id) != 16:
            raise ValueError("origin has no epoch, or a boot id that is not 16 bytes")
        claim(buffer, &self.view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            if <uint64_t> self.view.len < slots_offset + capacity * slot_size:
                raise ValueError(
                    f"buffer is {self.view.len} bytes, not "
                    f"{slots_offset + capacity * slot_size} or more"
                )
            memset(self.view.buf, 0, self.view.len)
            meta = <MetaPage *> self.view.buf
            meta.abi_major = ABI_MAJOR
            meta.abi_minor = ABI_MINOR
            meta.byte_order = BYTE_ORDER
            meta.stream_kind = kind
            meta.epoch = origin.epoch
            meta.capacity = capacity
            meta.slot_size = slot_size
            meta.record_size = record_size
            meta.slots_offset = slots_offset
            meta.file_size = self.view.len
            meta.schema_hash = schema_hash(schema)
            meta.schema_len = <uint32_t> len(text)
            meta.created_realtime_ns = origin.created_realtime_ns
            meta.created_monotonic_ns = origin.created_monotonic_ns
            meta.pid = origin.pid
            meta.uid = origin.uid
            meta.start_time = origin.start_time
            memcpy(meta.boot_id, <const char *> boot_id, 16)
            put_text(meta.name, origin.name, "name")
            put_text(meta.version, origin.version, "version")
            memcpy(meta.schema, <const char *> text, len(text))
        except BaseException:
            PyBuffer_Release(&self.view)
            raise
        self.base = <char *> self.view.buf
        self.live = <LivePage *> (self.base + LIVE_OFFSET)
        self.live.heartbeat_mono_ns = meta.created_monotonic_ns
        self.live.state = LIVE
        _writers.add(self)
        return 0

    cdef void seal(self) noexcept nogil:
        store_release(<uint64_t *> self.base, MAGIC)

    cdef void forget(self) noexcept:
        pass

    cdef void beat(self, int64_t monotonic_ns) noexcept nogil:
        if self.live != NULL:
            beat_live(self.live, monotonic_ns)

    def heartbeat(self, int64_t monotonic_ns) -> None:
        """Say that the writer's loop is alive at *monotonic_ns*; call it every 100 ms."""
        self.beat(monotonic_ns)

    cdef void note_gap(self) noexcept nogil:
        if self.live != NULL:
            store_relaxed(&self.live.session_gap_count, self.live.session_gap_count + 1)

    def look(self) -> Live:
        """Read back the live page."""
        if self.base == NULL:
            raise ValueError("segment is released")
        return look(self.live)

    def release(self) -> None:
        """Let go of the buffer; from here on every write is ignored."""
        if self.base == NULL:
            return
        if self.pinned:
            raise BufferError("segment is in use by another thread")
        self.forget()
        self.base = NULL
        self.live = NULL
        PyBuffer_Release(&self.view)

    def __dealloc__(self):
        if self.base != NULL:
            self.base = NULL
            PyBuffer_Release(&self.view)


cdef class SegmentReader:
    """A reader of a segment, over any buffer; it writes nothing, ever.

    Not for two threads.
    """

    cdef int bind(self, object buffer) except -1:
        cdef Py_buffer view
        claim(buffer, &view, PyBUF_SIMPLE)
        try:
            meta = check_meta(<const char *> view.buf, view.len)
            if self.pinned:
                raise BufferError("segment is in use by another thread")
            self.accept(meta)
            SegmentReader.release(self)
        except BaseException:
            PyBuffer_Release(&view)
            raise
        self.view = view
        self.base = <const char *> view.buf
        self.live = <const LivePage *> (self.base + LIVE_OFFSET)
        self.meta = meta
        return 0

    cdef int accept(self, object meta) except -1:
        return 0

    cdef void forget(self) noexcept:
        pass

    def look(self) -> Live:
        """Read the live page."""
        if self.base == NULL:
            raise ValueError("segment is released")
        return look(self.live)

    def release(self) -> None:
        """Let go of the buffer; from here on there is nothing to read."""
        if self.base == NULL:
            return
        if self.pinned:
            raise BufferError("segment is in use by another thread")
        self.forget()
        self.base = NULL
        self.live = NULL
        PyBuffer_Release(&self.view)

    def __dealloc__(self):
        if self.base != NULL:
            self.base = NULL
            PyBuffer_Release(&self.view)


cdef class Mapping:
    """A file's memory as a buffer; unlike mmap.mmap it keeps no descriptor of its own.

    It is unmapped by close(), or when the last user of the buffer lets go. A writable
    one is not there in a forked child.
    """

    cdef object __weakref__
    cdef void *base
    cdef Py_ssize_t size
    cdef Py_ssize_t exports
    cdef readonly bint writable

    def __init__(self, int fd, Py_ssize_t size, *, bint writable=False):
        cdef int protection = PROT_READ | PROT_WRITE if writable else PROT_READ
        cdef void *base
        if self.base != NULL:
            raise ValueError("mapping is in use already")
        with nogil:
            base = mmap(NULL, size, protection, MAP_SHARED | MAP_POPULATE, fd, 0)
        if base == MAP_FAILED:
            PyErr_SetFromErrno(OSError)
        self.base = base
        self.size = size
        self.writable = writable
        if writable:
            # Kernels without it give the child a copy of the mapping; it is never used.
            madvise(base, size, MADV_DONTFORK)
            _mappings.add(self)

    def lock(self) -> bool:
        """Keep the pages in memory, if RLIMIT_MEMLOCK allows it."""
        return self.base != NULL and mlock(self.base, self.size) == 0

    def close(self) -> None:
        """Unmap; BufferError while someone holds the buffer."""
        if self.exports:
            raise BufferError(f"mapping has {self.exports} users")
        if self.base != NULL:
            munmap(self.base, self.size)
            self.base = NULL

    def __len__(self) -> int:
        return self.size

    def __getbuffer__(self, Py_buffer *view, int flags):
        if self.base == NULL:
            raise BufferError("mapping is closed")
        PyBuffer_FillInfo(view, self, self.base, self.size, not self.writable, flags)
        self.exports += 1

    def __releasebuffer__(self, Py_buffer *view):
        self.exports -= 1

    def __dealloc__(self):
        if self.base != NULL:
            munmap(self.base, self.size)


_writers = weakref.WeakSet()
_mappings = weakref.WeakSet()


def _after_fork() -> None:
    """Disown, in the child, what only the parent may write."""
    cdef SegmentWriter writer
    cdef Mapping mapping
    for writer in list(_writers):
        # The thread that pinned it, if any, is not in the child.
        writer.pinned = 0
        writer.release()
    for mapping in list(_mappings):
        # Not munmap: the address is free, and may soon be someone else's.
        mapping.base = NULL


os.register_at_fork(after_in_child=_after_fork)


cdef int offset_of(const void *page, const void *field) noexcept:
    return <int> (<const char *> field - <const char *> page)


def struct_layout() -> dict[str, dict[str, int]]:
    """Return what the C compiler made of the two pages: offsets, and the sizes."""
    cdef MetaPage meta
    cdef LivePage live
    return {
        "MetaPage": {
            "magic": offset_of(&meta, &meta.magic),
            "abi_major": offset_of(&meta, &meta.abi_major),
            "abi_minor": offset_of(&meta, &meta.abi_minor),
            "byte_order": offset_of(&meta, &meta.byte_order),
            "flags": offset_of(&meta, &meta.flags),
            "stream_kind": offset_of(&meta, &meta.stream_kind),
            "epoch": offset_of(&meta, &meta.epoch),
            "capacity": offset_of(&meta, &meta.capacity),
            "slot_size": offset_of(&meta, &meta.slot_size),
            "record_size": offset_of(&meta, &meta.record_size),
            "slots_offset": offset_of(&meta, &meta.slots_offset),
            "file_size": offset_of(&meta, &meta.file_size),
            "schema_hash": offset_of(&meta, &meta.schema_hash),
            "schema_len": offset_of(&meta, &meta.schema_len),
            "created_realtime_ns": offset_of(&meta, &meta.created_realtime_ns),
            "created_monotonic_ns": offset_of(&meta, &meta.created_monotonic_ns),
            "pid": offset_of(&meta, &meta.pid),
            "uid": offset_of(&meta, &meta.uid),
            "start_time": offset_of(&meta, &meta.start_time),
            "boot_id": offset_of(&meta, &meta.boot_id),
            "name": offset_of(&meta, &meta.name),
            "version": offset_of(&meta, &meta.version),
            "schema": offset_of(&meta, &meta.schema),
            "size": sizeof(MetaPage),
        },
        "LivePage": {
            "head": offset_of(&live, &live.head),
            "state": offset_of(&live, &live.state),
            "heartbeat_mono_ns": offset_of(&live, &live.heartbeat_mono_ns),
            "heartbeat_count": offset_of(&live, &live.heartbeat_count),
            "session_gap_count": offset_of(&live, &live.session_gap_count),
            "wake_seq": offset_of(&live, &live.wake_seq),
            "size": sizeof(LivePage),
        },
    }

from enum import IntEnum, IntFlag
from typing import NamedTuple

from typing_extensions import Buffer

ABI_MAJOR: int
ABI_MINOR: int

class StreamKind(IntEnum):
    QUOTES = 1
    TRADES = 2
    GENERIC = 3

class WriterState(IntEnum):
    LIVE = 1
    CLOSED = 2

class SegmentFlags(IntFlag):
    WAKE = 0x1
    HUGE_PAGES = 0x2

class Origin(NamedTuple):
    epoch: int
    created_realtime_ns: int = 0
    created_monotonic_ns: int = 0
    pid: int = 0
    uid: int = 0
    start_time: int = 0
    boot_id: bytes = ...
    name: str = ""
    version: str = ""

class Meta(NamedTuple):
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
    head: int
    state: int
    heartbeat_mono_ns: int
    heartbeat_count: int
    session_gap_count: int
    wake_seq: int

class SegmentWriter:
    def heartbeat(self, monotonic_ns: int) -> None: ...
    def look(self) -> Live: ...
    def release(self) -> None: ...

class SegmentReader:
    @property
    def meta(self) -> Meta: ...
    def look(self) -> Live: ...
    def release(self) -> None: ...

class Mapping:
    def __init__(self, fd: int, size: int, *, writable: bool = False) -> None: ...
    @property
    def writable(self) -> bool: ...
    def lock(self) -> bool: ...
    def close(self) -> None: ...
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

def schema_hash(schema: str) -> int: ...
def align(size: int, boundary: int) -> int: ...
def capacity_for(count: int) -> int: ...
def read_meta(buffer: Buffer) -> Meta: ...
def read_live(buffer: Buffer) -> Live: ...
def beat(buffer: Buffer, monotonic_ns: int) -> None: ...
def mark_closed(buffer: Buffer) -> None: ...
def struct_layout() -> dict[str, dict[str, int]]: ...

from enum import IntEnum
from typing import NamedTuple, final

from typing_extensions import Buffer

from feedhandler.records import CommandKind
from feedhandler.segment import Origin, SegmentReader, SegmentWriter

CHANNEL_BYTES_MAX: int
CHANNEL_SCHEMA: str
CURSOR_BYTES: int
CURSOR_SCHEMA: str
SIDES: tuple[str | None, ...]
TIMES_IN_FORCE: tuple[str | None, ...]
TYPES: tuple[str | None, ...]

class Published(IntEnum):
    SENT = 0
    SENT_ASLEEP = 1
    FULL = -1
    GONE = -2
    BROKEN = -3

class Command(NamedTuple):
    channel: str
    kind: CommandKind | None
    client_id: str
    order_id: str | None = None
    symbol: str | None = None
    side: str | None = None
    type: str | None = None
    time_in_force: str | None = None
    quantity: float | None = None
    price: float | None = None
    stop_price: float | None = None
    deadline_ns: int = 0
    sent_ns: int = 0
    is_expired: bool = False
    problem: str = ""

class CursorWriter(SegmentWriter):
    def __init__(
        self, buffer: Buffer, channel_epoch: int, origin: Origin = ...
    ) -> None: ...
    def doze(self) -> None: ...

class CursorReader(SegmentReader):
    def __init__(self, buffer: Buffer) -> None: ...
    @property
    def channel_epoch(self) -> int: ...

@final
class CommandWriter(SegmentWriter):
    def __init__(
        self, buffer: Buffer, capacity: int, writer_epoch: int, origin: Origin = ...
    ) -> None: ...
    @staticmethod
    def size_for(capacity: int) -> int: ...
    @property
    def published(self) -> int: ...
    def follow(self, buffer: Buffer) -> None: ...
    def publish_record(self, record: Buffer, now_ns: int) -> Published: ...
    def woke(self) -> None: ...
    def revoke(self, channel: str = "", utc_offset_ns: int = 0) -> list[Command]: ...

class CommandReader(SegmentReader):
    def __init__(
        self, buffer: Buffer, name: str, writer_epoch: int, utc_offset_ns: int = 0
    ) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def broken(self) -> bool: ...
    @property
    def stuck(self) -> int: ...
    @property
    def taken(self) -> int: ...
    @property
    def writer_epoch(self) -> int: ...
    def serve(self, cursor: CursorWriter) -> None: ...
    def has_next(self) -> bool: ...
    def take(
        self, limit: int, now_ns: int, *, is_dead: bool = False
    ) -> list[Command]: ...
    def inspect(self, now_ns: int) -> None: ...

def problem_of(record: Buffer) -> str: ...

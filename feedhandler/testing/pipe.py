"""The end of a lane: what is put in is written; late, slowly, in pieces, or not."""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from feedhandler.testing.faults import (
    Bandwidth,
    Blackhole,
    ByteFault,
    End,
    F,
    Faults,
    Latency,
    Limit,
    Slicer,
    SlowClose,
    Stall,
)

__all__ = ["Pipe"]

# What may wait in a pipe before its source is read no more.
ROOM_BYTES = 256 * 1024
BANDWIDTH_STEPS_PER_S = 50


class Chunk(NamedTuple):
    """Bytes to write, not before *due_s* of the loop's clock, and what follows them."""

    data: bytes
    due_s: float
    end: End | None


class Pipe:
    """Writes to *writer*, with the byte faults of *scopes*, the first that has one.

    *note* is told when a fault first does something here. Bytes are put in as whole
    frames where the frames are known: what is swallowed is whole.
    """

    def __init__(
        self,
        writer: asyncio.StreamWriter,
        scopes: tuple[Faults, ...],
        note: Callable[[str, dict[str, Any]], object],
        name: str,
    ) -> None:
        self._writer = writer
        self._scopes = scopes
        self._note = note
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._chunks: deque[Chunk] = deque()
        self._held_bytes = 0
        self._wake = asyncio.Event()
        self._space = asyncio.Event()
        self._noted: dict[ByteFault, None] = {}
        self._jitter: tuple[Latency, random.Random] | None = None
        self._limit: tuple[Limit, int] | None = None
        self._free_s = 0.0
        self._shut = False

    # ── in ────────────────────────────────────────────────────────────────────────

    def put(self, data: bytes, end: End | None = None) -> None:
        """Have bytes written, and then an *end*; see room()."""
        due_s = 0.0
        latency = self._active(Latency)
        if latency is not None:
            due_s = self._loop.time() + self._draw_s(latency)
        self._chunks.append(Chunk(data, due_s, end))
        self._held_bytes += len(data)
        self._wake.set()

    async def room(self) -> None:
        """Wait until more may be put in."""
        while self._held_bytes >= ROOM_BYTES:
            self._space.clear()
            await self._space.wait()

    def wake(self) -> None:
        """Hear that faults have changed."""
        self._wake.set()

    # ── out ───────────────────────────────────────────────────────────────────────

    async def run(self) -> End:
        """Write until an end is due, and return it; OSError if nobody takes it."""
        while True:
            chunk = await self._next()
            if self._active(Blackhole) is not None:
                if chunk.end is None:
                    self._tell(Blackhole)
                    self._taken(chunk)
                    continue
                await self._until(lambda: self._active(Blackhole) is None)
            if chunk.data and not self._shut:
                end = await self._write(self._join(chunk))
                if end is not None:
                    return end
            self._taken(chunk)
            if chunk.end is None:
                continue
            if chunk.end is End.FIN:
                self._shut_down()
                continue
            if chunk.end is End.EOF:
                await self._close_slowly()
                self._shut_down()
            return chunk.end

    async def _next(self) -> Chunk:
        """Wait for the next chunk, until it is due and nothing stalls."""
        await self._until(lambda: bool(self._chunks))
        await self._flowing()
        chunk = self._chunks[0]
        while self._active(Latency) is not None:
            left_s = chunk.due_s - self._loop.time()
            if left_s <= 0:
                break
            self._tell(Latency)
            await self._pause(left_s)
        return self._chunks.popleft()

    def _join(self, chunk: Chunk) -> bytes:
        """Return a chunk's data, with that of those behind it where no fault is on."""
        if chunk.end is not None or any(scope.active for scope in self._scopes):
            return chunk.data
        found = [chunk.data]
        while self._chunks and self._chunks[0].end is None:
            following = self._chunks.popleft()
            found.append(following.data)
            self._taken(following)
        return b"".join(found)

    async def _write(self, data: bytes) -> End | None:
        """Write bytes as faults have it; return the end that a limit puts to them."""
        view = memoryview(data)
        while view:
            await self._flowing()
            size, end = self._limited(self._piece(len(view)))
            self._writer.write(view[:size])
            await self._writer.drain()
            view = view[size:]
            if end is not None:
                return end
            await self._pace(size)
        return None

    def _piece(self, size: int) -> int:
        """Return how many of *size* bytes to write at once."""
        slicer, bandwidth = self._active(Slicer), self._active(Bandwidth)
        if slicer is not None:
            self._tell(Slicer)
            size = min(size, slicer.size_bytes)
        if bandwidth is not None:
            self._tell(Bandwidth)
            size = min(size, max(1, bandwidth.bytes_per_s // BANDWIDTH_STEPS_PER_S))
        return size

    def _limited(self, size: int) -> tuple[int, End | None]:
        """Count *size* bytes against a limit; return what may be written of them."""
        limit = self._active(Limit)
        if limit is None:
            return size, None
        known = self._limit is not None and self._limit[0] is limit
        left = self._limit[1] if known and self._limit else limit.size_bytes
        self._limit = (limit, left - size)
        if size < left:
            return size, None
        self._tell(Limit)
        return left, limit.end

    async def _pace(self, size: int) -> None:
        """Wait after a piece; without a fault not even for the loop's next turn."""
        bandwidth, slicer = self._active(Bandwidth), self._active(Slicer)
        if bandwidth is not None:
            now_s = self._loop.time()
            self._free_s = max(self._free_s, now_s) + size / bandwidth.bytes_per_s
            while (
                self._active(Bandwidth) is bandwidth
                and (left_s := self._free_s - self._loop.time()) > 0
            ):
                await self._pause(left_s)
        if slicer is not None:
            await asyncio.sleep(slicer.pause_s)

    async def _close_slowly(self) -> None:
        slow = self._active(SlowClose)
        if slow is None or self._shut:
            return
        self._tell(SlowClose)
        due_s = self._loop.time() + slow.delay_s
        while self._active(SlowClose) is slow and self._loop.time() < due_s:
            await self._pause(due_s - self._loop.time())

    def _shut_down(self) -> None:
        if not self._shut:
            self._shut = True
            self._writer.write_eof()

    # ── waiting ───────────────────────────────────────────────────────────────────

    async def _flowing(self) -> None:
        if self._active(Stall) is not None:
            self._tell(Stall)
            await self._until(lambda: self._active(Stall) is None)

    async def _until(self, ready: Callable[[], bool]) -> None:
        while not ready():
            self._wake.clear()
            await self._wake.wait()

    async def _pause(self, seconds: float) -> None:
        """Wait for so long, or until something has changed."""
        self._wake.clear()
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            pass

    def _taken(self, chunk: Chunk) -> None:
        self._held_bytes -= len(chunk.data)
        if self._held_bytes < ROOM_BYTES:
            self._space.set()

    # ── faults ────────────────────────────────────────────────────────────────────

    def _active(self, kind: type[F]) -> F | None:
        for scope in self._scopes:
            found = scope.active.get(kind)
            if found is not None:
                assert isinstance(found, kind)
                return found
        return None

    def _tell(self, kind: type[ByteFault]) -> None:
        """Note that a fault does something here, once."""
        fault = self._active(kind)
        if fault is not None and fault not in self._noted:
            self._noted[fault] = None
            while len(self._noted) > 100:
                del self._noted[next(iter(self._noted))]
            self._note(fault.kind, dict(vars(fault)))

    def _draw_s(self, latency: Latency) -> float:
        if self._jitter is None or self._jitter[0] is not latency:
            source = random.Random(f"{latency.seed}/{self._name}")
            self._jitter = (latency, source)
        spread = latency.jitter_s
        return max(0.0, latency.delay_s + self._jitter[1].uniform(-spread, spread))

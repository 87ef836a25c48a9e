"""What a feed has in shared memory: made, published and ended together."""

import contextlib
from typing import TYPE_CHECKING, Any

from feedhandler import audit, commands, shm
from feedhandler.board import Board
from feedhandler.counters import Counters, CountersReader
from feedhandler.errors import RingError
from feedhandler.publisher import Publisher
from feedhandler.records import PRIVATE_STREAMS, QUOTE, TRADE
from feedhandler.ring import Ring
from feedhandler.segment import Mapping, Origin
from feedhandler.tracker import COUNTERS, HISTOGRAMS

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Segments"]

_COUNTERS = COUNTERS + audit.COUNTERS + commands.COUNTERS


class Segments:
    """The shared memory of one feed: two rings, the board and the counters.

    All are formatted, and the directory of instruments is filled, before the first is
    published: whoever finds one finds everything. *capacity* is in records of each
    ring, *board_levels* in levels of each side, *instruments* is what the directory has
    room for. Raises RingBusy where another writer has that *name*; without a name all
    is in this process's own memory.

    With *private* there are four rings more, of *private_capacity*, which only we may
    read, whatever *mode* says: the group may see the market, and not the account.
    """

    def __init__(
        self,
        name: str,
        *,
        capacity: int,
        board_levels: int,
        instruments: int,
        mode: int = 0o600,
        directory: str = "/dev/shm",
        wake: bool = False,
        private: bool = False,
        private_capacity: int = 4096,
    ) -> None:
        self._name = name
        self._mode = mode
        self._directory = directory
        self._origin = shm.origin()
        self._wake = wake
        self._owned: list[shm.OwnedSegment] = []
        self.private: list[Ring] = []
        """The rings of PRIVATE_STREAMS, in their order; none without *private*."""
        try:
            self.quotes = self._ring("quotes", QUOTE, capacity)
            self.trades = self._ring("trades", TRADE, capacity)
            for stream, dtype in PRIVATE_STREAMS.items():
                if private:
                    ring = self._ring(stream, dtype, private_capacity, mode=0o600)
                    self.private.append(ring)
                else:
                    self._remove(stream)
            self.board = Board(
                self._create("board", Board.size_for(instruments, board_levels)),
                instruments,
                board_levels,
                self._made_by,
            )
            self._counted = self._create(
                "counters", Counters.size_for(len(_COUNTERS), len(HISTOGRAMS))
            )
            self.counters = Counters(
                self._counted, _COUNTERS, HISTOGRAMS, self._made_by
            )
        except BaseException:
            self.close()
            raise
        self.publisher = Publisher(self.quotes, self.trades, self.board)

    def publish(self) -> None:
        """Let readers find all of it; the board last, for which a consumer looks."""
        for segment in sorted(self._owned, key=lambda s: s.path.suffix == ".board"):
            segment.publish()

    def _ring(
        self,
        stream: str,
        dtype: "np.dtype[Any]",
        capacity: int,
        mode: int | None = None,
    ) -> Ring:
        buffer = self._create(stream, Ring.size_for(dtype, capacity), mode)
        return Ring(buffer, dtype, capacity, self._made_by, wake=self._wake)

    def _remove(self, stream: str) -> None:
        """Remove what a feed of that name left that was killed and had the stream."""
        if not self._name:
            return
        with contextlib.suppress(RingError):
            shm.remove(self._name, stream, directory=self._directory)

    def _create(
        self, stream: str, size: int, mode: int | None = None
    ) -> Mapping | bytearray:
        if not self._name:
            return bytearray(size)
        segment = shm.create(
            self._name,
            stream,
            size,
            mode=self._mode if mode is None else mode,
            directory=self._directory,
            origin=self._origin,
        )
        self._owned.append(segment)
        return segment.buffer

    @property
    def _made_by(self) -> Origin:
        """What the last segment says of its writer."""
        return self._owned[-1].origin if self._owned else self._origin

    @property
    def epoch(self) -> int:
        """The writer's epoch, that of all segments."""
        return self._origin.epoch

    @property
    def utc_offset_ns(self) -> int:
        """What to add to monotonic time for the times in records."""
        return self._origin.created_realtime_ns - self._origin.created_monotonic_ns

    def counter_values(self) -> dict[str, int]:
        """Read the counters as any other process would."""
        reader = CountersReader(self._counted)
        try:
            return reader.values()
        finally:
            reader.release()

    def beat(self, now_ns: int) -> None:
        """Show readers that the writer's loop turns."""
        for writer in (*self._rings, self.board, self.counters):
            writer.heartbeat(now_ns)

    @property
    def _rings(self) -> list[Ring]:
        return [self.quotes, self.trades, *self.private]

    def close(self) -> None:
        """Say goodbye to readers, and remove every trace."""
        for name in ("quotes", "trades", "board", "counters"):
            writer = getattr(self, name, None)
            if writer is not None:
                writer.release()
        for ring in self.private:
            ring.release()
        for segment in self._owned:
            segment.close()

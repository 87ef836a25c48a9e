"""What a feed has in shared memory: made, published and ended together."""

from feedhandler import audit, shm
from feedhandler.board import Board
from feedhandler.counters import Counters, CountersReader
from feedhandler.publisher import Publisher
from feedhandler.records import QUOTE, TRADE
from feedhandler.ring import Ring
from feedhandler.segment import Mapping, Origin
from feedhandler.tracker import COUNTERS, HISTOGRAMS

__all__ = ["Segments"]

_COUNTERS = COUNTERS + audit.COUNTERS


class Segments:
    """The shared memory of one feed: two rings, the board and the counters.

    All four are formatted, and the directory of instruments is filled, before the first
    is published: whoever finds one finds everything. *capacity* is in records of each
    ring, *board_levels* in levels of each side, *instruments* is what the directory has
    room for. Raises RingBusy where another writer has that *name*; without a name all
    is in this process's own memory.
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
    ) -> None:
        self._name = name
        self._mode = mode
        self._directory = directory
        self._origin = shm.origin()
        self._owned: list[shm.OwnedSegment] = []
        try:
            self.quotes = Ring(
                self._create("quotes", Ring.size_for(QUOTE, capacity)),
                QUOTE,
                capacity,
                self._made_by,
                wake=wake,
            )
            self.trades = Ring(
                self._create("trades", Ring.size_for(TRADE, capacity)),
                TRADE,
                capacity,
                self._made_by,
                wake=wake,
            )
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

    def _create(self, stream: str, size: int) -> Mapping | bytearray:
        if not self._name:
            return bytearray(size)
        segment = shm.create(
            self._name,
            stream,
            size,
            mode=self._mode,
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
        for writer in (self.quotes, self.trades, self.board, self.counters):
            writer.heartbeat(now_ns)

    def close(self) -> None:
        """Say goodbye to readers, and remove every trace."""
        for name in ("quotes", "trades", "board", "counters"):
            writer = getattr(self, name, None)
            if writer is not None:
                writer.release()
        for segment in self._owned:
            segment.close()

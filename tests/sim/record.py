"""What a judge knows of one client connection, and of those before it."""

from typing import Any

from tests.sim.rules import Attempts, Wish

__all__ = ["LIVE", "STALE", "Record", "Shown", "Stream", "submits"]

LIVE, STALE = 0x01, 0x02

Shown = tuple[int, int, int]
"""The epoch, the sequence and the flags of a quote."""
NOTHING: Shown = (0, 0, 0)


def submits(message: dict[str, Any]) -> list[str]:
    """Return the client order ids of the orders that a message places."""
    if message["action"] == "submit_order":
        return [message["data"]["client_order_id"]]
    if message["action"] != "batch_orders":
        return []
    return [
        operation["client_order_id"]
        for operation in message["data"]["operations"]
        if operation["operation"] == "submit"
    ]


class Stream:
    """What of a channel has come on this connection; *number* is its instrument."""

    def __init__(self, number: int, is_book: bool) -> None:
        self.number = number
        self.is_book = is_book
        # Of a book: up to where all is known, and what is known beyond that.
        self.reached: int | None = None
        self.ahead: set[int] = set()
        # Numbers of what was told wrongly, and whether that may be in the book.
        self.lies: set[int] = set()
        self.tainted = False
        self.wishes = 0
        self.quote = NOTHING
        # Of trades: which were published.
        self.trades: set[str] = set()

    def begin(self) -> None:
        """Hear that there is a new connection, or none."""
        self.reached = None
        self.ahead.clear()
        self.lies.clear()
        self.tainted = False
        self.wishes = 0
        self.trades.clear()

    def snapshot(self, sequence: int, true: bool, latest: int) -> None:
        """Hear of a snapshot, when *latest* is the last number that there is."""
        # What has a number that is none yet is not waited for.
        self.ahead = {number for number in self.ahead if sequence < number <= latest}
        self.lies = {number for number in self.lies if sequence < number <= latest}
        self.tainted = not true or bool(self.lies)
        self.reached = sequence
        self._go_on()

    def update(self, sequence: int, true: bool) -> None:
        """Hear of an update."""
        if not true:
            self.tainted = True
            self.lies.add(sequence)
        if self.reached is None or sequence > self.reached:
            self.ahead.add(sequence)
            self._go_on()

    def lose(self) -> None:
        """Hear that something of it was lost, and nobody knows what."""
        self.reached = None

    def _go_on(self) -> None:
        while self.reached is not None and self.reached + 1 in self.ahead:
            self.reached += 1
            self.ahead.remove(self.reached)

    def stands_at(self, sequence: int) -> bool:
        """Say whether all is known, and ends with *sequence*."""
        return not self.ahead and self.reached == sequence

    @property
    def is_unknown(self) -> bool:
        """Whether something of the book is known to be missing."""
        return not self.tainted and (self.reached is None or bool(self.ahead))

    @property
    def is_live(self) -> bool:
        """Whether the last quote said so."""
        return bool(self.quote[2] & LIVE)


class Record:
    """One client connection after the other; *private*: they authenticate."""

    def __init__(self, private: bool) -> None:
        self.private = private
        self.attempts = Attempts(private)
        self.wish: Wish | None = Wish(0, 1 << 62)
        self.state = "connecting"
        self.streams: dict[str, Stream] = {}
        self.refused: dict[str, None] = {}
        # Of requests: every id, those of ask() without an answer, and those with one.
        self.ids: set[str] = set()
        self.asked_ns: dict[str, int] = {}
        self.timed_out_ns: dict[str, int] = {}
        self.answered: set[str] = set()
        # Messages of private channels that are to be handed on.
        self.to_hand = 0
        self.ended_ns = 0
        # We want no further connection.
        self.finished = False
        self.begin(0)

    def begin(self, now_ns: int) -> None:
        """Hear of a new connection, or of the end of one."""
        self.open = now_ns > 0
        self.beat_ns = now_ns
        self.login_id: str | None = None
        self.stopped = self.crowded = False
        # Whether what comes may be old, until the answer to one of these pings.
        self.late = False
        self.pings: set[bytes] = set()
        self.subscribes: set[str | None] = set()
        self.pending: set[str | None] = set()
        self.owes_pong = False
        self.suspects: list[Stream] = []
        for stream in self.streams.values():
            stream.begin()

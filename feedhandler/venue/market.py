"""What a gateway and a server need of a market, whether matched here or recorded."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from feedhandler.protocol.channels import Channel

if TYPE_CHECKING:
    from feedhandler.venue.desk import Desk

__all__ = ["Market", "Push", "private"]


class Push(NamedTuple):
    """One message for all subscribers of a channel, encoded once."""

    channel: str
    payload: bytes
    snapshot: bool = False


def private(kind: str, account: str) -> str:
    """Name the channel *kind* of one account, as no public channel is named."""
    return f"{kind}/{account}"


class Market(Protocol):
    """A source of market data; sans-I/O as seen from here: time in, messages out."""

    @property
    def patient(self) -> bool:
        """Whether it waits for slow subscribers instead of losing them."""

    @property
    def desk(self) -> "Desk | None":
        """Where orders go; None where there is nothing to trade."""

    def take(self) -> list[Push]:
        """Return what there is to tell of what was done since, without time passing."""

    def refusal(self, channel: Channel, others: Sequence[Channel] = ()) -> str | None:
        """Say why a grammatical public channel cannot be had; None if it can.

        *others* are about to be opened too.
        """

    def open(self, name: str, now_ns: int) -> list[bytes]:
        """Produce a channel; return what a new subscriber gets first."""

    def release(self, name: str) -> None:
        """Stop producing a channel: its last subscriber is gone."""

    def advance(self, now_ns: int) -> list[Push]:
        """Return what is due by *now_ns*, in order."""

    def due_ns(self) -> int | None:
        """Return when advance() next has something to do; None for not of itself."""

"""Which updates of order books to lose: by channel and sequence, and nothing else.

The same generator loses the same updates whatever comes between them, and however many
connections there are.
"""

import random
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["FixedGap", "Gaps", "MultiGap", "RandomGap"]


class Gaps:
    """Says which updates to lose, and counts the *updates* and *gaps* that it took.

    A gap is a run of sequences lost by one connection on one channel.
    """

    def __init__(self) -> None:
        self.gaps = 0
        self.updates = 0
        self._last: WeakKeyDictionary[Any, dict[str, int]] = WeakKeyDictionary()

    def loses(self, channel: str, sequence: int) -> bool:
        """Tell whether an update is to be lost."""
        raise NotImplementedError

    def take(self, stream: object, channel: str, sequence: int) -> bool:
        """Tell the same, and count it; *stream* is what the update was lost from."""
        if not self.loses(channel, sequence):
            return False
        last = self._last.setdefault(stream, {})
        self.updates += 1
        if last.get(channel) != sequence - 1:
            self.gaps += 1
        last[channel] = sequence
        return True


class FixedGap(Gaps):
    """Loses the *length* updates from *sequence* on."""

    def __init__(self, sequence: int, length: int = 1) -> None:
        super().__init__()
        if length < 1:
            raise ValueError(f"a gap has {length} updates, not 1 or more")
        self._lost = range(sequence, sequence + length)

    def loses(self, channel: str, sequence: int) -> bool:
        """Tell whether an update is to be lost."""
        return sequence in self._lost


class MultiGap(Gaps):
    """Loses *length* updates at each multiple of *radix*: *total* gaps a channel.

    The first gap of a channel is at the first multiple that is not before the first
    update seen.
    """

    def __init__(self, radix: int, length: int, total: int) -> None:
        super().__init__()
        if not 1 <= length < radix:
            raise ValueError(f"a gap has {length} updates, not 1 to {radix - 1}")
        self._radix = radix
        self._length = length
        self._total = total
        self._first: dict[str, int] = {}

    def loses(self, channel: str, sequence: int) -> bool:
        """Tell whether an update is to be lost."""
        first = self._first.setdefault(channel, -(-sequence // self._radix))
        gap, place = divmod(sequence, self._radix)
        return first <= gap < first + self._total and place < self._length


class RandomGap(Gaps):
    """Loses each update with a *probability*; the same *seed* loses the same ones."""

    def __init__(self, probability: float, seed: int) -> None:
        super().__init__()
        if not 0 <= probability <= 1:
            raise ValueError(f"probability {probability} is not from 0 to 1")
        self._probability = probability
        self._seed = seed

    def loses(self, channel: str, sequence: int) -> bool:
        """Tell whether an update is to be lost."""
        chance = random.Random(f"{self._seed}/{channel}/{sequence}")
        return chance.random() < self._probability

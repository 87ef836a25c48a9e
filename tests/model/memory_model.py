"""Every execution of one writer and one reader under C11 relaxed, acquire and release.

There is one writer, and it never loads what it shares: its stores have a fixed order,
and what a reader is certain of is a prefix of them, one number. A load returns any
store of its place that is not older than the last in that prefix, nor than what this
reader saw there before. Acquiring a release store adds all before it to the prefix; a
relaxed store passes on what was before the writer's last release fence, and a relaxed
load keeps what it was passed until the reader's next acquire fence. As readers never
store, that is complete.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import NamedTuple

BUSY = 1 << 63

Place = str | tuple[str, int] | tuple[str, int, int]


class Store(NamedTuple):
    position: int
    value: int
    passes_on: int
    """The prefix that a reader of it gets: up to itself, or up to a fence."""


class History:
    """All that the writer stores, per place, in its order."""

    def __init__(self) -> None:
        self.stores: dict[Place, list[Store]] = {}
        self._position = 0
        self._fence = 0

    def begin(self, place: Place, value: int = 0) -> None:
        """Say what is there before anybody runs."""
        self.stores[place] = [Store(0, value, 0)]

    def store(self, place: Place, value: int, *, release: bool = False) -> None:
        self._position += 1
        passes_on = self._position if release else self._fence
        self.stores[place].append(Store(self._position, value, passes_on))

    def release_fence(self) -> None:
        self._fence = self._position

    def index(self, place: Place, position: int) -> int:
        """Return which store of *place* is the last not after *position*."""
        stores = self.stores[place]
        return bisect_right(stores, position, key=lambda store: store.position) - 1


class View(NamedTuple):
    """What one reader knows: immutable, so that a search can go on from it twice."""

    history: History
    prefix: int = 0
    unfenced: int = 0
    seen: tuple[tuple[Place, int], ...] = ()

    def load(
        self, place: Place, *, acquire: bool = False
    ) -> Iterator[tuple[int, "View"]]:
        """Every value that a load of *place* can return, and what is known then."""
        seen = dict(self.seen)
        oldest = max(self.history.index(place, self.prefix), seen.get(place, 0))
        stores = self.history.stores[place]
        for index in range(oldest, len(stores)):
            store = stores[index]
            seen[place] = index
            prefix = max(self.prefix, store.passes_on) if acquire else self.prefix
            unfenced = max(self.unfenced, store.passes_on)
            after = View(
                self.history, prefix, unfenced, tuple(sorted(seen.items(), key=str))
            )
            yield store.value, after

    def acquire_fence(self) -> "View":
        return self._replace(prefix=max(self.prefix, self.unfenced))

    def load_all(self, places: list[Place]) -> Iterator[tuple[tuple[int, ...], "View"]]:
        """Every outcome of relaxed loads of *places*, in that order."""
        if not places:
            yield (), self
            return
        for value, view in self.load(places[0]):
            for values, last in view.load_all(places[1:]):
                yield (value, *values), last

    def key(self) -> tuple[int, int, tuple[tuple[Place, int], ...]]:
        return self.prefix, self.unfenced, self.seen


class Protocol(NamedTuple):
    """The ring's protocol, and the steps of it that can be left out or weakened."""

    capacity: int = 2
    words: int = 2
    records: int = 5
    busy: bool = True
    busy_release: bool = True
    writer_fence: bool = True
    seq_release: bool = True
    head_release: bool = True
    head_every: int = 1
    seq_acquire: bool = True
    reader_fence: bool = True
    trust_unacquired: bool = False
    """Judge whether it was lapped by the relaxed word of the second look."""
    bound: int = 0
    """How many records too many the bulk reader believes."""

    def payload(self, number: int) -> tuple[int, ...]:
        return tuple(1000 * (number + 1) + word for word in range(self.words))

    def write(self) -> History:
        """Store all records as the writer does: W1 to W5."""
        history = History()
        history.begin("head")
        for slot in range(self.capacity):
            history.begin(("seq", slot))
            for word in range(self.words):
                history.begin(("word", slot, word))
        for number in range(self.records):
            slot = number % self.capacity
            if self.busy:
                history.store(
                    ("seq", slot), BUSY | (number + 1), release=self.busy_release
                )
            if self.writer_fence:
                history.release_fence()
            for word, value in enumerate(self.payload(number)):
                history.store(("word", slot, word), value)
            history.store(("seq", slot), number + 1, release=self.seq_release)
            if (number + 1) % self.head_every == 0:
                history.store("head", number + 1, release=self.head_release)
        return history

    def places(self, number: int) -> list[Place]:
        slot = number % self.capacity
        return [("word", slot, word) for word in range(self.words)]


class Broken(Exception):
    """A reader can be told what is not so."""


class Position(NamedTuple):
    """A reader between two calls."""

    view: View
    cursor: int = 0
    received: int = 0
    lost: int = 0

    def key(self) -> tuple[object, ...]:
        return self.view.key(), self.cursor, self.received, self.lost


Reader = Callable[[Protocol, Position], Iterator[Position]]


def expect(holds: bool, what: str) -> None:
    if not holds:
        raise Broken(what)


def slot_reader(protocol: Protocol, at: Position) -> Iterator[Position]:
    """R1 to R5, once: with a record, with none, or moved on after a lap."""
    number, slot = at.cursor, at.cursor % protocol.capacity
    seq_place: Place = ("seq", slot)
    for seq, view in at.view.load(seq_place, acquire=protocol.seq_acquire):
        if seq != number + 1:
            yield from _not_there(protocol, at._replace(view=view), seq)
            continue
        for words, copied in view.load_all(protocol.places(number)):
            fenced = copied.acquire_fence() if protocol.reader_fence else copied
            for again, checked in fenced.load(seq_place):
                if again == seq:
                    expect(
                        words == protocol.payload(number),
                        f"record {number} is torn: {words}",
                    )
                    yield Position(checked, number + 1, at.received + 1, at.lost)
                elif protocol.trust_unacquired:
                    yield from _not_there(protocol, at._replace(view=checked), again)
                else:
                    yield at._replace(view=checked)


def _not_there(protocol: Protocol, at: Position, seq: int) -> Iterator[Position]:
    if seq & ~BUSY <= at.cursor + 1:
        yield at
        return
    for head, view in at.view.load("head", acquire=True):
        expect(
            head >= at.cursor + protocol.capacity,
            f"record {at.cursor} is gone, and yet the head is {head}",
        )
        target = head - protocol.capacity // 2
        lost = at.lost + target - at.cursor
        yield Position(view, target, at.received, lost)


def bulk_reader(protocol: Protocol, at: Position) -> Iterator[Position]:
    """B1 to B3, once, of all there is; slots are copied with their first words."""
    for head, view in at.view.load("head", acquire=True):
        first, lost = at.cursor, at.lost
        if head <= first:
            yield at._replace(view=view)
            continue
        if head - first >= protocol.capacity + protocol.bound:
            # The oldest that can be whole, not half a ring: the harder case.
            first = head - protocol.capacity + 1 - protocol.bound
            lost += first - at.cursor
        places: list[Place] = []
        for number in range(first, head):
            places += [("seq", number % protocol.capacity), *protocol.places(number)]
        for values, copied in view.load_all(places):
            fenced = copied.acquire_fence() if protocol.reader_fence else copied
            for later, checked in fenced.load("head"):
                whole = [
                    number
                    for number in range(first, head)
                    if later - number < protocol.capacity + protocol.bound
                ]
                for number in whole:
                    start = (number - first) * (protocol.words + 1)
                    found = values[start : start + protocol.words + 1]
                    expect(
                        found == (number + 1, *protocol.payload(number)),
                        f"record {number} is torn: {found}, head {head} then {later}",
                    )
                yield Position(
                    checked,
                    head,
                    at.received + len(whole),
                    lost + head - first - len(whole),
                )


class Verdict(NamedTuple):
    positions: int
    problem: str


def check(protocol: Protocol, reader: Reader, calls: int) -> Verdict:
    """Search all that *calls* calls of *reader* can see, from every first record."""
    history = protocol.write()
    start = View(history)
    frontier = {
        position.key(): position
        for position in (Position(start, n) for n in range(protocol.records))
    }
    origin = {key: key[1] for key in frontier}
    reached = set(frontier)
    for _ in range(calls):
        following = {}
        for key, position in frontier.items():
            try:
                for after in reader(protocol, position):
                    expect(after.cursor >= position.cursor, "the reader went back")
                    first = origin[key]
                    expect(
                        after.received + after.lost == after.cursor - first,
                        f"received {after.received} and lost {after.lost} from {first} "
                        f"to {after.cursor}",
                    )
                    known = after.key()
                    if known not in reached:
                        reached.add(known)
                        origin[known] = first
                        following[known] = after
            except Broken as broken:
                return Verdict(len(reached), str(broken))
        frontier = following
    return Verdict(len(reached), "")

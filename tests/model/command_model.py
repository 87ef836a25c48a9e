"""Every interleaving of an engine and a handler over one channel, on x86's TSO.

The stores of each wait in a buffer that empties in order whenever it likes, and at the
latest at a full fence or in a system call. What acquire and release are needed for is
as in a ring, and checked with its model; here it is cursor, wake and revocation.
"""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

BUSY = 1 << 8
Place = str | tuple[str, int]


class Channel(NamedTuple):
    """The protocol, and what can be done wrong in it."""

    capacity: int = 2
    commands: int = 3
    batch: int = 2
    """What one take() takes at most."""
    revokes: bool = False
    """The engine may take back what is left, at any time between two commands."""
    dies: bool = False
    """The engine may end between any two of its stores; the handler never sleeps."""
    full_by_one: int = 0
    """How many slots too many the engine takes for free."""
    seq_last: bool = True
    publish_fence: bool = True
    sleep_fence: bool = True
    looks_again: bool = True
    revoke_fence: bool = True
    take_fence: bool = True
    cursor_last: bool = True
    """The handler moves its cursor when it has the records, and not before."""
    carried_out_last: bool = True
    """And carries them out after that, not before."""


class State(NamedTuple):
    memory: tuple[tuple[Place, int], ...]
    engine: str = "next"
    stores: tuple[tuple[Place, int], ...] = ()
    """The engine's buffer."""
    count: int = 0
    known: int = 0
    woken: int = 0
    expired: tuple[int, ...] | None = None
    """What the engine took back, once it has."""
    rings: int = 0
    handler: str = "take"
    own_stores: tuple[tuple[Place, int], ...] = ()
    position: int = 0
    turn: int = 0
    copied: tuple[int, ...] = ()
    executed: tuple[int, ...] = ()
    refused: tuple[int, ...] = ()


def start(channel: Channel) -> State:
    places: list[Place] = ["cursor", "turn", "revoked"]
    places += [(name, n) for name in ("seq", "word") for n in range(channel.capacity)]
    return State(tuple(sorted(((place, 0) for place in places), key=str)))


def put(memory: tuple[tuple[Place, int], ...], place: Place, value: int):
    return tuple((key, value if key == place else old) for key, old in memory)


def load(state: State, place: Place, stores: tuple[tuple[Place, int], ...]) -> int:
    return dict((*state.memory, *stores))[place]


def drained(state: State, buffer: str) -> State:
    memory = state.memory
    for place, value in getattr(state, buffer):
        memory = put(memory, place, value)
    return state._replace(memory=memory, **{buffer: ()})


def buffers(state: State) -> Iterator[State]:
    for buffer in ("stores", "own_stores"):
        waiting = getattr(state, buffer)
        if waiting:
            memory = put(state.memory, *waiting[0])
            yield state._replace(memory=memory, **{buffer: waiting[1:]})


def engine_steps(channel: Channel, state: State) -> Iterator[State]:
    def store(place: Place, value: int, after: str) -> State:
        return state._replace(stores=(*state.stores, (place, value)), engine=after)

    slot = state.count % channel.capacity
    number = state.count + 1
    order = ["word", "seq"] if channel.seq_last else ["seq", "word"]
    if channel.dies and state.engine != "over":
        yield state._replace(engine="over")
    if state.engine == "next":
        room = channel.capacity + channel.full_by_one
        if state.count < channel.commands:
            if state.count - state.known < room:
                yield store(("seq", slot), BUSY | number, order[0])
            else:
                cursor = load(state, "cursor", state.stores)
                if cursor > state.known:
                    yield state._replace(known=cursor)
        if channel.revokes:
            yield store("revoked", 1, "revoked")
    elif state.engine in ("word", "seq"):
        value = number if state.engine == "seq" else -number
        last = order[1] == state.engine
        after = store((state.engine, slot), value, "fence" if last else order[1])
        yield after._replace(count=number) if last else after
    elif state.engine == "fence":
        after = state._replace(engine="ring")
        yield drained(after, "stores") if channel.publish_fence else after
    elif state.engine == "ring":
        turn = load(state, "turn", state.stores)
        after = state._replace(engine="next")
        if turn not in (0, state.woken):
            after = drained(after, "stores")
            after = after._replace(rings=min(after.rings + 1, 2), woken=turn)
        yield after
    elif state.engine == "revoked":
        after = state._replace(engine="look back")
        yield drained(after, "stores") if channel.revoke_fence else after
    elif state.engine == "look back":
        cursor = load(state, "cursor", state.stores)
        yield state._replace(engine="over", expired=tuple(range(cursor, state.count)))


def handler_steps(channel: Channel, state: State) -> Iterator[State]:
    slot = state.position % channel.capacity
    done = len(state.copied) == channel.batch
    if state.handler == "take":
        if not done and load(state, ("seq", slot), ()) == state.position + 1:
            yield state._replace(handler="copy" if channel.cursor_last else "early")
        elif state.copied and channel.cursor_last:
            yield moved(channel, state, state.position, "fence")
        elif state.copied:
            yield state._replace(handler="fence")
        else:
            yield state._replace(handler="take" if channel.dies else "doze")
    elif state.handler == "early":
        yield moved(channel, state, state.position + 1, "copy")
    elif state.handler == "copy":
        word = load(state, ("word", slot), ())
        copied = (*state.copied, word)
        after = state._replace(
            handler="take", copied=copied, position=state.position + 1
        )
        if not channel.carried_out_last:
            after = judged(after._replace(copied=(word,)))._replace(copied=copied)
        yield after
    elif state.handler == "fence":
        after = state._replace(handler="judge")
        yield drained(after, "own_stores") if channel.take_fence else after
    elif state.handler == "judge":
        after = judged(state) if channel.carried_out_last else state
        # poll() takes one batch: what is left must wake it again.
        yield after._replace(copied=(), handler="take" if channel.dies else "doze")
    elif state.handler == "doze":
        own = (*state.own_stores, ("turn", state.turn + 1))
        yield state._replace(turn=state.turn + 1, own_stores=own, handler="sleep fence")
    elif state.handler == "sleep fence":
        after = state._replace(handler="look" if channel.looks_again else "asleep")
        yield drained(after, "own_stores") if channel.sleep_fence else after
    elif state.handler == "look":
        left = load(state, ("seq", slot), ()) == state.position + 1
        rings = min(state.rings + left, 2)
        yield state._replace(handler="asleep", rings=rings)
    elif state.rings:
        yield drained(state._replace(rings=0, handler="take"), "own_stores")


def moved(channel: Channel, state: State, cursor: int, after: str) -> State:
    own = (*state.own_stores, ("cursor", cursor))
    return state._replace(own_stores=own, handler=after)


def judged(state: State) -> State:
    numbers = tuple(-word - 1 for word in state.copied)
    if load(state, "revoked", ()):
        return state._replace(refused=state.refused + numbers)
    return state._replace(executed=state.executed + numbers)


def problem_in(channel: Channel, state: State, is_end: bool) -> str:
    """Say what an engine or a venue could see that must never be."""
    if state.count - state.position > channel.capacity:
        return "overwritten"
    seen = sorted((*state.executed, *state.refused))
    if seen != list(range(len(seen))):
        return "not each command once"
    if state.executed != tuple(sorted(state.executed)):
        return "out of order"
    if set(state.expired or ()) & set(state.executed):
        return "expired and carried out"
    if is_end and not channel.dies:
        if state.expired is None and len(seen) < state.count:
            return "nobody wakes the handler"
        told = set(state.executed) | set(state.refused) | set(state.expired or ())
        if told != set(range(state.count)) and state.expired is not None:
            return "lost"
    return ""


class Verdict(NamedTuple):
    problem: str
    states: int
    ends: int
    full: int
    """States in which the engine found no room."""


def check(channel: Channel) -> Verdict:
    """Look at every state that can be reached; stop at the first that must not be."""
    first = start(channel)
    seen = {first}
    queue = deque([first])
    ends = full = 0
    while queue:
        state = queue.popleft()
        following = [
            *buffers(state),
            *engine_steps(channel, state),
            *handler_steps(channel, state),
        ]
        moves = [after for after in following if after != state]
        ends += not moves
        full += state.count - state.known == channel.capacity
        problem = problem_in(channel, state, not moves)
        if problem:
            return Verdict(problem, len(seen), ends, full)
        for after in moves:
            if after not in seen:
                seen.add(after)
                queue.append(after)
    return Verdict("", len(seen), ends, full)

"""Every interleaving of a writer that wakes and a reader that sleeps, on x86's TSO.

The writer's stores wait in a buffer that empties in order whenever it likes, and at the
latest in a FUTEX_WAKE, which takes the kernel's lock. FUTEX_WAIT compares the word and
goes to sleep in one step, under that lock.
"""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple


class Wake(NamedTuple):
    """The protocol of flush() and sleepers, and what can be done wrong in it."""

    records: int = 3
    word_read_first: bool = True
    """The sleeper reads wake_seq before it looks at the head for the last time."""
    bump: bool = True
    wake_after_bump: bool = True
    gated: bool = False
    """The writer wakes only if a counter of sleepers, which it loads, is not zero."""
    fenced: bool = False
    """The gated writer empties its buffer before it loads the counter."""


class State(NamedTuple):
    writer: tuple[str, ...]
    buffer: tuple[tuple[str, int], ...] = ()
    head: int = 0
    word: int = 0
    sleepers: int = 0
    reader: str = "look"
    read_word: int = 0
    cursor: int = 0


def program(protocol: Wake) -> tuple[str, ...]:
    """Return the writer's steps."""
    if protocol.gated:
        fence = ("fence",) if protocol.fenced else ()
        one = ("head", *fence, "gate")
    elif not protocol.bump:
        one = ("head", "wake")
    elif protocol.wake_after_bump:
        one = ("head", "bump", "wake")
    else:
        one = ("head", "wake", "bump")
    return one * protocol.records


def drained(state: State) -> State:
    for place, value in state.buffer:
        state = state._replace(**{place: value})
    return state._replace(buffer=())


def writer_steps(protocol: Wake, state: State) -> Iterator[State]:
    if state.buffer:
        (place, value), *rest = state.buffer
        yield state._replace(buffer=tuple(rest), **{place: value})
    if not state.writer:
        return
    step, after = state.writer[0], state._replace(writer=state.writer[1:])
    own = dict([("head", state.head), ("word", state.word), *state.buffer])
    if step in ("head", "bump"):
        place = "head" if step == "head" else "word"
        yield after._replace(buffer=(*state.buffer, (place, own[place] + 1)))
    elif step == "fence":
        yield drained(after)
    elif step == "gate":
        more = ("bump", "wake") if state.sleepers else ()
        yield after._replace(writer=more + after.writer)
    else:
        after = drained(after)
        woken = "look" if after.reader == "asleep" else after.reader
        sleepers = 0 if after.reader == "asleep" else after.sleepers
        yield after._replace(reader=woken, sleepers=sleepers)


def reader_steps(protocol: Wake, state: State) -> Iterator[State]:
    """Look, register if gated, read word and head again in some order, wait."""
    order = ["word", "check"] if protocol.word_read_first else ["check", "word"]
    steps = ["look", *(["register"] if protocol.gated else []), *order, "wait"]
    if state.reader == "asleep" or state.cursor == protocol.records:
        return
    following = [*steps[1:], ""][steps.index(state.reader)]
    if state.reader in ("look", "check"):
        if state.head > state.cursor:
            yield state._replace(cursor=state.head, reader="look", sleepers=0)
        else:
            yield state._replace(reader=following)
    elif state.reader == "register":
        yield state._replace(sleepers=1, reader=following)
    elif state.reader == "word":
        yield state._replace(read_word=state.word, reader=following)
    elif state.word == state.read_word:
        yield state._replace(reader="asleep")
    else:
        yield state._replace(reader="look", sleepers=0)


def lost_wake_up(protocol: Wake) -> tuple[int, list[State]]:
    """Return the number of states, and the shortest way to sleep for ever, if any."""
    first = State(program(protocol))
    before: dict[State, State | None] = {first: None}
    queue = deque([first])
    while queue:
        state = queue.popleft()
        following = [*writer_steps(protocol, state), *reader_steps(protocol, state)]
        if not following and state.cursor < protocol.records:
            path: list[State] = []
            step: State | None = state
            while step is not None:
                path.insert(0, step)
                step = before[step]
            return len(before), path
        for after in following:
            if after not in before:
                before[after] = state
                queue.append(after)
    return len(before), []

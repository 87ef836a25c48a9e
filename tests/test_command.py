"""A channel: nothing lost, nothing twice, full is exact, and nothing believed."""

import os
import re
import struct
from collections import deque
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedhandler import command
from feedhandler.command import (
    CommandReader,
    CommandWriter,
    CursorReader,
    CursorWriter,
    Published,
    problem_of,
)
from feedhandler.errors import RingInvalid
from feedhandler.records import COMMAND, CommandKind
from feedhandler.ring import Reader, schema_of
from feedhandler.segment import Origin

CAPACITY = 64
HEAD, STATE, BEAT = 0x1000, 0x1080, 0x1088
WRITER_EPOCH, REVOKED, SLOTS = 0x2000, 0x2080, 0x3000
CHANNEL_EPOCH, TURN = 0x2000, 0x2080
BUSY = 1 << 63
NAN = float("nan")
EPOCH = 77
OFFSET_NS = 1_700_000_000_000_000_000
NOW_NS = 5_000_000_000
SECOND_NS = 1_000_000_000


def record(**fields) -> np.ndarray:
    """Return a SUBMIT that is in order, but for *fields*."""
    made = np.zeros(1, COMMAND)
    values = {
        "writer_epoch": EPOCH, "kind": CommandKind.SUBMIT, "side": 1, "type": 2,
        "tif": 1, "client_id": b"id-1", "symbol": b"AAPL", "quantity": 1.5,
        "price": 10.25, "stop_price": NAN, "sent_ns": NOW_NS + OFFSET_NS,
        "deadline_ns": NOW_NS + OFFSET_NS + SECOND_NS,
    }  # fmt: skip
    for name, value in (values | fields).items():
        made[name] = value
    return made


def plain(like: CommandKind, **fields) -> np.ndarray:
    """Return a command of another kind, which has no more than a client id."""
    empty = {
        "kind": like, "side": 0, "type": 0, "tif": 0, "symbol": b"", "quantity": NAN,
        "price": NAN,
    }  # fmt: skip
    return record(**(empty | fields))


def numbered(number: int) -> np.ndarray:
    return plain(CommandKind.CANCEL, client_id=f"{number}".encode())


class Both:
    """A channel in memory, with both of its ends."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.channel = bytearray(CommandWriter.size_for(capacity))
        self.page = bytearray(command.CURSOR_BYTES)
        self.cursor = CursorWriter(self.page, 9, Origin(epoch=EPOCH))
        self.cursor.heartbeat(NOW_NS)
        self.writer = CommandWriter(self.channel, capacity, EPOCH, Origin(epoch=9))
        self.writer.follow(self.page)
        self.reader = CommandReader(self.channel, "commands-1", EPOCH, OFFSET_NS)
        self.reader.serve(self.cursor)

    def publish(self, made: np.ndarray, now_ns: int = NOW_NS) -> Published:
        return self.writer.publish_record(made, now_ns)

    def take(self, limit: int = 32, now_ns: int = NOW_NS, **how):
        return self.reader.take(limit, now_ns, **how)

    def put(self, place: int, word: int) -> None:
        """Do what a hostile engine can."""
        struct.pack_into("<Q", self.channel, place, word)

    def slot(self, number: int) -> int:
        return SLOTS + number % CAPACITY * 192


# ── what honest ends do ───────────────────────────────────────────────────────────────


def test_a_command_comes_out_as_it_went_in():
    both = Both()
    published = both.publish(record(stop_price=9.5, type=4, order_id=b""))
    (taken,) = both.take()

    assert published is Published.SENT
    assert taken == command.Command(
        channel="commands-1", kind=CommandKind.SUBMIT, client_id="id-1", symbol="AAPL",
        side="buy", type="stop_limit", time_in_force="gtc", quantity=1.5, price=10.25,
        stop_price=9.5, deadline_ns=NOW_NS + SECOND_NS, sent_ns=NOW_NS,
    )  # fmt: skip
    assert both.take() == []


@pytest.mark.parametrize("kind", list(CommandKind)[1:])
def test_other_kinds_say_what_they_need_to(kind):
    both = Both()
    fields = {"quantity": 2.0} if kind is CommandKind.MODIFY else {}
    both.publish(plain(kind, client_id=b"x" * 32, **fields))
    (taken,) = both.take()

    assert (taken.kind, taken.client_id, taken.problem) == (kind, "x" * 32, "")
    assert taken.quantity == fields.get("quantity")
    assert (taken.side, taken.price, taken.order_id, taken.symbol) == (None,) * 4


def test_commands_come_in_order_and_once_for_many_laps():
    both, given_in, out = Both(), 0, []
    for burst in (1, 31, 64, 7, 64, 3, 33):
        for _ in range(burst):
            assert both.publish(numbered(given_in)) is Published.SENT
            given_in += 1
        while taken := both.take():
            out += [int(each.client_id) for each in taken]

    assert out == list(range(given_in))
    assert both.reader.taken == both.writer.published == given_in == 203
    assert not both.reader.broken


def test_full_is_exact_and_loses_nothing():
    both = Both()
    published = [both.publish(numbered(number)) for number in range(CAPACITY + 2)]
    first = both.take(1)
    after = [both.publish(numbered(number)) for number in (CAPACITY, CAPACITY + 1)]
    rest = [taken for _ in range(4) for taken in both.take()]

    assert published == [Published.SENT] * CAPACITY + [Published.FULL] * 2
    assert after == [Published.SENT, Published.FULL]
    assert [int(each.client_id) for each in first + rest] == list(range(CAPACITY + 1))


def test_a_take_has_a_limit():
    both = Both()
    for number in range(40):
        both.publish(numbered(number))

    assert [len(both.take(limit)) for limit in (0, -1, 3, 99, 99)] == [0, 0, 3, 32, 5]


def test_the_cursor_has_moved_when_a_command_is_returned():
    both = Both()
    both.publish(record())
    before = struct.unpack_from("<Q", both.page, HEAD)
    both.take()

    assert (before, struct.unpack_from("<Q", both.page, HEAD)) == ((0,), (1,))


def test_words_are_where_the_layout_says():
    both = Both()
    for number in range(CAPACITY):
        both.publish(numbered(number))
    both.take()
    both.publish(numbered(CAPACITY))

    assert struct.unpack_from("<Q", both.channel, HEAD) == (CAPACITY + 1,)
    assert struct.unpack_from("<Q", both.channel, WRITER_EPOCH) == (EPOCH,)
    assert struct.unpack_from("<Q", both.channel, SLOTS) == (CAPACITY + 1,)
    assert struct.unpack_from("<Q", both.channel, SLOTS + 192) == (2,)
    assert struct.unpack_from("<Q", both.page, CHANNEL_EPOCH) == (9,)
    assert both.reader.writer_epoch == EPOCH
    assert CursorReader(both.page).channel_epoch == 9


def test_any_reader_can_look_at_a_channel():
    """It is laid out as a ring, so that tools can show it."""
    both = Both()
    both.publish(record())
    ring = Reader(both.channel, COMMAND, start=0)

    assert ring.poll()["client_id"].tolist() == [b"id-1"]
    assert both.reader.meta.schema == schema_of(COMMAND)


actions = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 2 * CAPACITY)),
        st.tuples(st.just("take"), st.integers(1, 40)),
        st.tuples(st.just("doze"), st.just(1)),
        st.tuples(st.just("inspect"), st.just(1)),
        st.tuples(st.just("revoke"), st.just(1)),
    ),
    max_size=60,
)


@settings(max_examples=200)
@given(actions)
def test_a_channel_is_a_queue_with_an_end(steps):
    both, waiting, number, revoked = Both(), deque(), 0, None
    for action, amount in steps:
        if action == "publish":
            for _ in range(amount):
                published = both.publish(numbered(number))
                is_full = len(waiting) == CAPACITY
                if revoked is not None:
                    assert published is Published.GONE
                elif is_full:
                    assert published is Published.FULL
                else:
                    assert published >= 0
                    waiting.append(f"{number}")
                    number += 1
        elif action == "take":
            taken = both.take(amount)
            count = min(amount, 32, len(waiting))
            assert [each.client_id for each in taken] == [
                waiting.popleft() for _ in range(count)
            ]
            assert all(each.is_expired is (revoked is not None) for each in taken)
        elif action == "doze":
            both.cursor.doze()
            assert both.reader.has_next() is bool(waiting)
        elif action == "inspect":
            both.reader.inspect(NOW_NS)
        else:
            revoked = both.writer.revoke()
            assert [each.client_id for each in revoked] == list(waiting)
    assert not both.reader.broken
    assert both.reader.taken + len(waiting) == both.writer.published == number


# ── wakes ─────────────────────────────────────────────────────────────────────────────


def test_a_sleeper_is_to_be_woken_once_a_turn():
    both = Both()
    found = [both.publish(numbered(0))]
    both.cursor.doze()
    found += [both.publish(numbered(1)), both.publish(numbered(2))]
    both.writer.woke()
    found += [both.publish(numbered(3))]
    both.cursor.doze()
    found += [both.publish(numbered(4))]

    sent, asleep = Published.SENT, Published.SENT_ASLEEP
    assert found == [sent, asleep, asleep, sent, asleep]


def test_there_is_something_left_when_a_command_is_complete():
    both = Both()
    nothing = both.reader.has_next()
    both.put(both.slot(0), BUSY | 1)
    half = both.reader.has_next()
    both.put(both.slot(0), 0)
    both.publish(record())

    assert (nothing, half, both.reader.has_next()) == (False, False, True)


# ── handlers that are gone ────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("age_ns", "published"),
    [
        (0, Published.SENT),
        (SECOND_NS, Published.SENT),
        (-SECOND_NS, Published.SENT),
        (SECOND_NS + 1, Published.GONE),
        (-SECOND_NS - 1, Published.GONE),
        (1 << 62, Published.GONE),
    ],
)
def test_a_handler_that_does_not_beat_gets_no_command(age_ns, published):
    both = Both()

    assert both.publish(record(), NOW_NS + age_ns) is published
    assert both.writer.published == (published is Published.SENT)


@pytest.mark.parametrize("state", [0, 2, 3, 2**32 - 1])
def test_a_handler_that_is_not_live_gets_no_command(state):
    both = Both()
    struct.pack_into("<I", both.page, STATE, state)

    assert both.publish(record()) is Published.GONE


def test_nothing_is_published_before_there_is_a_cursor():
    writer = CommandWriter(bytearray(CommandWriter.size_for(64)), 64, EPOCH)

    assert writer.publish_record(record(), NOW_NS) is Published.GONE
    assert writer.revoke() == []


def test_the_cursor_of_another_channel_is_refused():
    page = bytearray(command.CURSOR_BYTES)
    CursorWriter(page, 9)
    writer = CommandWriter(
        bytearray(CommandWriter.size_for(64)), 64, EPOCH, Origin(epoch=8)
    )
    with pytest.raises(RingInvalid, match="0x9, not 0x8"):
        writer.follow(page)
    with pytest.raises(RingInvalid, match="not a cursor"):
        writer.follow(Both().channel)

    assert writer.publish_record(record(), NOW_NS) is Published.GONE


@pytest.mark.parametrize("taken", [0, 3, 5])
def test_what_was_not_taken_can_be_taken_back(taken):
    both = Both()
    for number in range(5):
        both.publish(numbered(number))
    before = both.take(taken)
    returned = both.writer.revoke()
    after = both.take()

    assert [each.client_id for each in returned] == [str(n) for n in range(taken, 5)]
    assert {each.problem for each in returned} <= {"no handler took it"}
    assert [each.problem for each in before] == [""] * taken
    assert [each.problem for each in after] == ["its engine took it back"] * (5 - taken)
    assert all(each.is_expired for each in after)
    assert both.publish(record()) is Published.GONE
    assert both.writer.revoke() == []


def test_what_is_taken_back_says_all_it_said():
    """An order whose cancel is taken back may well live."""
    both = Both()
    both.publish(record())
    both.publish(plain(CommandKind.CANCEL, client_id=b"", order_id=b"V-1"))
    first, second = both.writer.revoke("commands-1", OFFSET_NS)
    taken = both.take()

    problem = {"problem": "its engine took it back"}
    assert [first._replace(**problem), second._replace(**problem)] == taken
    assert (second.kind, second.order_id) == (CommandKind.CANCEL, "V-1")
    assert first.deadline_ns == NOW_NS + SECOND_NS
    assert first.is_expired


def test_nonsense_can_be_taken_back_too():
    both = Both()
    both.publish(record(kind=255, side=255))
    (returned,) = both.writer.revoke()

    assert (returned.kind, returned.problem) == (None, "it made no sense")


@pytest.mark.parametrize("cursor", [4, CAPACITY + 6, 1 << 63, 2**64 - 1])
def test_a_cursor_that_cannot_be_is_not_believed(cursor):
    """Ahead of what was published, or behind where it was: 4, after 5."""
    both = Both()
    for number in range(5):
        both.publish(numbered(number))
    both.take()
    for number in range(CAPACITY):
        both.publish(numbered(number))
    full = both.publish(record())
    struct.pack_into("<Q", both.page, HEAD, cursor)

    assert full is Published.FULL
    assert both.publish(record()) is Published.BROKEN
    assert both.writer.revoke() == []


# ── commands that come too late ───────────────────────────────────────────────────────

LATE = {
    "another handler": ({"writer_epoch": 78}, {}, "for handler 0x4e, not 0x4d"),
    "now": ({"deadline_ns": NOW_NS + OFFSET_NS}, {}, "it is 0.000 s past"),
    "then": ({}, {"now_ns": NOW_NS + 3 * SECOND_NS}, "it is 2.000 s past"),
    "long ago": ({"sent_ns": 1, "deadline_ns": 1}, {}, "s past its deadline"),
    "dead": ({}, {"is_dead": True}, "its engine is dead"),
}


@pytest.mark.parametrize("what", LATE)
def test_a_late_command_is_expired_and_says_all_it_said(what):
    fields, how, problem = LATE[what]
    both = Both()
    both.publish(record(**fields))
    (taken,) = both.take(**how)

    assert taken.is_expired
    assert problem in taken.problem
    assert (taken.client_id, taken.symbol, taken.quantity) == ("id-1", "AAPL", 1.5)


def test_the_last_moment_before_a_deadline_is_in_time():
    both = Both()
    both.publish(record())
    (taken,) = both.take(now_ns=NOW_NS + SECOND_NS - 1)

    assert taken.problem == ""


# ── commands that make no sense ───────────────────────────────────────────────────────

SUBMIT, MODIFY, CANCEL, CANCEL_ALL, RESOLVE = CommandKind
ALL = list(CommandKind)


def cases():
    """Every way to be wrong: the kinds that it is wrong of, the fields, the words."""
    yield ALL, {"kind": 0}, "kind is 0"
    yield ALL, {"kind": 6}, "kind is 6"
    yield ALL, {"kind": 255}, "kind is 255"
    for bad in (
        b"",
        b" a",
        b"a b",
        b"a\x7f",
        b"\xff",
        b"a\n",
        b"a\0b",
        b"\0" * 31 + b"x",
    ):
        kinds = [kind for kind in ALL if bad or kind not in (MODIFY, CANCEL)]
        yield kinds, {"client_id": bad}, "client_id of"
    yield [MODIFY, CANCEL], {"client_id": b"", "order_id": b""}, "client_id of"
    for bad in (b"a b", b"a\0b", b"\x80"):
        yield ALL, {"order_id": bad}, "order_id of"
    yield [SUBMIT, CANCEL_ALL, RESOLVE], {"order_id": b"V-1"}, "order_id of"
    for bad in (b"aapl", b"-A", b".A", b"A:B", b"A/B", b"A\0B", b"A B", b"\xc3\x84"):
        yield ALL, {"symbol": bad}, "symbol of"
    yield [SUBMIT], {"symbol": b""}, "symbol of"
    yield [MODIFY, CANCEL, RESOLVE], {"symbol": b"AAPL"}, "symbol of"
    others = ALL[1:]
    for name, words, most in (
        ("side", "side of", 2),
        ("type", "type of", 4),
        ("tif", "time in force of", 4),
    ):
        yield ALL, {name: most + 1}, words
        yield ALL, {name: 255}, words
        yield others, {name: 1}, words
        if name != "tif":
            yield [SUBMIT], {name: 0}, words
    for bad in (0.0, -0.0, -1.0, float("inf"), float("-inf")):
        yield ALL, {"quantity": bad}, "quantity of"
        yield ALL, {"price": bad}, "price of"
        yield ALL, {"stop_price": bad}, "stop price of"
    yield [SUBMIT], {"quantity": NAN}, "quantity of"
    yield [CANCEL, CANCEL_ALL, RESOLVE], {"quantity": 1.0}, "quantity of"
    yield [CANCEL, CANCEL_ALL, RESOLVE], {"price": 1.0}, "price of"
    yield [CANCEL, CANCEL_ALL, RESOLVE], {"stop_price": 1.0}, "stop price of"
    for kind, price, stop_price, words in (
        (1, 1.0, NAN, "price of"),
        (1, NAN, 1.0, "stop price of"),
        (2, NAN, NAN, "price of"),
        (2, 1.0, 1.0, "stop price of"),
        (3, 1.0, 1.0, "price of"),
        (3, NAN, NAN, "stop price of"),
        (4, NAN, 1.0, "price of"),
        (4, 1.0, NAN, "stop price of"),
    ):
        yield [SUBMIT], {"type": kind, "price": price, "stop_price": stop_price}, words
    yield [MODIFY], {"quantity": NAN}, "MODIFY changes nothing"
    for bad in (0, -1, -(2**63)):
        yield ALL, {"sent_ns": bad}, "it was sent at"
        yield ALL, {"deadline_ns": bad}, "it was sent at"
    yield ALL, {"deadline_ns": NOW_NS + OFFSET_NS - 1}, "it was sent at"
    yield ALL, {"deadline_ns": 2**63 - 1}, "it was sent at"


def proper(like: CommandKind, **fields) -> np.ndarray:
    if like is SUBMIT:
        return record(**fields)
    quantity = {"quantity": 1.0 if like is MODIFY else NAN}
    return plain(like, **(quantity | fields))


@pytest.mark.parametrize(
    ("kind", "fields", "problem"),
    [
        pytest.param(kind, fields, problem, id=f"{kind.name}-{fields}")
        for kinds, fields, problem in cases()
        for kind in kinds
    ],
)
def test_a_command_that_makes_no_sense_is_refused(kind, fields, problem):
    both = Both()
    made = proper(kind, **fields)
    both.publish(proper(kind))
    both.publish(made)
    both.publish(proper(kind))
    good, bad, another = both.take()

    assert (good.problem, another.problem) == ("", "")
    assert bad.problem.startswith(problem)
    assert bad.problem == problem_of(made)
    assert not bad.is_expired
    assert (bad.symbol, bad.quantity, bad.price, bad.side) == (None,) * 4
    if "client_id" not in fields:
        assert bad.client_id == good.client_id


@pytest.mark.parametrize("place", [36, 160, 168, 176, 184, 191])
def test_reserved_bytes_are_zero(place):
    both = Both()
    raw = bytearray(record().tobytes())
    raw[place] = 1
    both.writer.publish_record(raw, NOW_NS)

    assert both.take()[0].problem == "its reserved bytes are not 0"


def test_a_deadline_is_not_too_far_away():
    both = Both()
    for far_ns in (61 * SECOND_NS, 61 * SECOND_NS + 1):
        both.publish(record(deadline_ns=NOW_NS + OFFSET_NS + far_ns))
    near, far = both.take()

    assert near.problem == ""
    assert far.problem == "deadline is 61.000 s away, not 61 or less"
    assert not far.is_expired


ID = re.compile(rb"[\x21-\x7e]{1,32}")
SYMBOL = re.compile(rb"[A-Z0-9][A-Z0-9._-]{0,31}")


def makes_sense(raw: bytes) -> bool:
    """Judge a command as docs/commands.md does, without a look at the code."""
    made = np.frombuffer(raw, COMMAND)[0]
    kind, type_ = int(made["kind"]), int(made["type"])
    texts = [raw[start : start + 32] for start in (40, 72, 104)]
    if any(text.rstrip(b"\0").count(b"\0") for text in texts):
        return False
    client_id, order_id, symbol = (text.rstrip(b"\0") for text in texts)
    numbers = {name: made[name] for name in ("quantity", "price", "stop_price")}
    told = {name for name, number in numbers.items() if not np.isnan(number)}
    if any(not 0 < numbers[name] < np.inf for name in told):
        return False
    prices = {1: set(), 2: {"price"}, 3: {"stop_price"}, 4: {"price", "stop_price"}}
    named = bool(ID.fullmatch(client_id))
    if kind == SUBMIT:
        fits = (
            named and not order_id and SYMBOL.fullmatch(symbol)
            and made["side"] in (1, 2) and type_ in prices and made["tif"] <= 4
            and told == {"quantity"} | prices[type_]
        )  # fmt: skip
    else:
        fits = not (made["side"] or type_ or made["tif"])
        either = (named or not client_id) and (ID.fullmatch(order_id) or not order_id)
        if kind == MODIFY:
            fits &= bool(either and (client_id or order_id) and not symbol and told)
        elif kind == CANCEL:
            fits &= bool(either and (client_id or order_id) and not symbol and not told)
        elif kind == CANCEL_ALL:
            fits &= named and not order_id and not told
            fits &= not symbol or bool(SYMBOL.fullmatch(symbol))
        else:
            fits &= kind == RESOLVE and named and not (order_id or symbol or told)
    times = 0 < made["sent_ns"] <= made["deadline_ns"] <= 2**63 - 1 - 61 * SECOND_NS
    return bool(fits and times and not any(raw[36:40] + raw[160:]))


ids = st.one_of(
    st.binary(max_size=32), st.sampled_from([b"", b"id", b"AAPL", b"x" * 32])
)
numbers = st.one_of(st.floats(), st.sampled_from([NAN, 1.0, 2.5]))
codes = st.integers(0, 6)
times = st.sampled_from([0, 1, NOW_NS + OFFSET_NS, NOW_NS + OFFSET_NS + 9, 2**62, -1])
fields = st.fixed_dictionaries(
    {
        "kind": codes, "side": codes, "type": codes, "tif": codes, "client_id": ids,
        "order_id": ids, "symbol": ids, "quantity": numbers, "price": numbers,
        "stop_price": numbers, "sent_ns": times, "deadline_ns": times,
    }
)  # fmt: skip
mutations = st.lists(st.tuples(st.integers(8, 191), st.integers(0, 255)), max_size=4)


@settings(max_examples=400)
@given(st.one_of(fields, fields.map(lambda made: {"kind": made["kind"]})), mutations)
def test_whatever_an_engine_writes_is_judged_and_no_more(made, changes):
    both = Both()
    kind = made.pop("kind")
    known = CommandKind(kind) if kind in ALL else SUBMIT
    raw = bytearray(proper(known, **(made | {"kind": kind} if made else {})).tobytes())
    for place, byte in changes:
        raw[place] = byte
    both.writer.publish_record(raw, NOW_NS)
    (taken,) = both.take()
    is_far = "away" in taken.problem

    assert (
        taken.is_expired or is_far or (taken.problem == "") is makes_sense(bytes(raw))
    )
    assert (problem_of(raw) == "") is makes_sense(bytes(raw))
    assert taken.client_id == "" or ID.fullmatch(taken.client_id.encode())
    assert taken.problem.isprintable()
    if not taken.problem:
        assert taken.deadline_ns > NOW_NS


# ── engines that lie ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("before", [0, 3, CAPACITY, 3 * CAPACITY + 7])
@pytest.mark.parametrize("lie", [-1, 2, CAPACITY + 1, BUSY, BUSY | 2, 2**64 - 1, "lap"])
def test_a_slot_that_no_engine_writes_ends_the_channel(before, lie):
    """Relative to the number that the next command has, which is before + 1."""
    both = Both()
    for number in range(before):
        both.publish(numbered(number))
        both.take()
    if lie == "lap":
        word = max(before + 1 - 2 * CAPACITY, 0) if before > 2 * CAPACITY else 10**6
    elif isinstance(lie, int) and abs(lie) < BUSY:
        word = (before + lie) % 2**64 if lie != -1 else before + 5
    else:
        word = (lie + before) % 2**64 if lie != BUSY else BUSY
    both.put(both.slot(before), word)

    assert both.take() == []
    assert both.reader.broken
    both.put(both.slot(before), before + 1)
    assert both.take() == []
    assert not both.reader.has_next()


@pytest.mark.parametrize("before", [0, 3, CAPACITY, 3 * CAPACITY + 7])
def test_a_half_written_command_is_never_taken(before):
    both = Both()
    for number in range(before):
        both.publish(numbered(number))
        both.take()
    both.put(both.slot(before), BUSY | (before + 1))

    assert both.take() == []
    assert not both.reader.broken
    both.put(both.slot(before), before + 1)
    assert len(both.take()) == 1


@pytest.mark.parametrize(
    ("head", "is_broken"),
    [
        (4, False),
        (5, False),
        (3, True),
        (6, True),
        (0, True),
        (5 + CAPACITY + 1, True),
        (2**64 - 1, True),
        (BUSY, True),
    ],
)
def test_a_count_that_cannot_be_ends_the_channel(head, is_broken):
    """After five that were taken; 4, for a command may be taken before it counts."""
    both = Both()
    for number in range(5):
        both.publish(numbered(number))
    both.take()
    both.put(HEAD, head)
    both.reader.inspect(NOW_NS)

    assert both.reader.broken is is_broken


def test_a_count_that_goes_back_ends_the_channel():
    both = Both()
    for number in range(5):
        both.publish(numbered(number))
    both.take(2)
    both.reader.inspect(NOW_NS)
    both.put(HEAD, 4)
    both.reader.inspect(NOW_NS)

    assert both.reader.broken


def test_a_count_far_ahead_is_found_out_where_the_commands_end():
    both = Both()
    for number in range(2):
        both.publish(numbered(number))
    both.put(HEAD, 40)
    both.reader.inspect(NOW_NS)
    before = both.reader.broken
    taken = both.take()
    both.reader.inspect(NOW_NS)

    assert (before, len(taken), both.reader.broken) == (False, 2, True)


def test_a_slot_that_stays_half_written_is_counted_once():
    both = Both()
    both.put(both.slot(0), BUSY | 1)
    found = []
    for tenths in range(25):
        both.reader.inspect(NOW_NS + tenths * SECOND_NS // 10)
        found.append(both.reader.stuck)
    both.put(both.slot(0), 0)
    both.publish(numbered(0))
    both.take()
    both.put(both.slot(1), BUSY | 2)
    for tenths in (30, 41):
        both.reader.inspect(NOW_NS + tenths * SECOND_NS // 10)

    assert found == [0] * 11 + [1] * 14
    assert both.reader.stuck == 2
    assert not both.reader.broken


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.integers(0, CAPACITY - 1).map(lambda slot: SLOTS + slot * 192),
                st.sampled_from([HEAD, REVOKED, WRITER_EPOCH, STATE]),
                st.integers(HEAD // 8, (SLOTS + CAPACITY * 192) // 8 - 1).map(
                    lambda word: word * 8
                ),
            ),
            st.one_of(
                st.integers(0, 2 * CAPACITY),
                st.integers(0, 2 * CAPACITY).map(lambda number: BUSY | number),
                st.integers(0, 2**64 - 1),
            ),
        ),
        max_size=120,
    )
)
def test_no_memory_makes_more_commands_than_slots_or_a_crash(words):
    both = Both()
    for place, word in words:
        both.put(place, word)
    taken = [each for _ in range(10) for each in both.take()]
    both.reader.inspect(NOW_NS)
    both.reader.inspect(NOW_NS + 2 * SECOND_NS)

    assert len(taken) <= CAPACITY
    assert both.reader.taken == len(taken)
    assert both.reader.writer_epoch >= 0


@pytest.mark.parametrize(
    ("offset", "form", "value", "reason"),
    [
        (0x000, "<Q", 1, "magic"),
        (0x020, "<Q", 128, "not enough"),
        (0x028, "<I", 64, "records are 192"),
        (0x028, "<I", 256, "not enough"),
        (0x030, "<Q", 0x2000, "slots are 192 bytes at 0x2000"),
        (0x203, "<c", b"S", "schema hash"),
        (0x048, "<I", 0, "schema hash"),
    ],
)
def test_a_channel_of_another_layout_is_refused(offset, form, value, reason):
    both = Both()
    struct.pack_into(form, both.channel, offset, value)

    with pytest.raises(RingInvalid, match=reason):
        CommandReader(both.channel, "x", EPOCH)


def test_a_segment_of_other_records_is_no_channel():
    with pytest.raises(RingInvalid, match="not commands"):
        CommandReader(Both().page, "x", EPOCH)


# ── ends ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("capacity", [0, 1, 63, 65, 8192])
def test_a_channel_has_64_to_4096_slots(capacity):
    with pytest.raises(ValueError, match="capacity is"):
        CommandWriter.size_for(capacity)
    with pytest.raises(ValueError, match="capacity is"):
        CommandWriter(bytearray(1 << 20), capacity, EPOCH)


def test_a_record_has_192_bytes():
    both = Both()
    for size in (0, 191, 193):
        with pytest.raises(ValueError, match=f"command is {size} bytes, not 192"):
            both.writer.publish_record(bytes(size), NOW_NS)
        with pytest.raises(ValueError, match=f"command is {size} bytes, not 192"):
            problem_of(bytes(size))


def test_released_ends_refuse_to_go_on():
    both = Both()
    both.publish(record())
    both.cursor.release()
    with pytest.raises(ValueError, match="released"):
        both.take()
    both.reader.release()
    with pytest.raises(ValueError, match="released"):
        both.take()
    both.writer.release()
    with pytest.raises(ValueError, match="released, or was its parent's"):
        both.publish(record())
    with pytest.raises(ValueError, match="released"):
        both.writer.revoke()

    assert not both.reader.has_next()


def test_a_forked_child_is_no_second_producer_and_no_second_consumer():
    both = Both()
    both.publish(record())
    ends, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        found = b""
        for attempt in (lambda: both.publish(record()), both.take):
            try:
                attempt()
            except ValueError:
                found += b"r"
        os.write(told, found)
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(told)

    assert os.read(ends, 9) == b"rr"
    os.close(ends)
    assert both.publish(record()) is Published.SENT
    assert len(both.take()) == 2


def test_the_words_of_an_order_are_those_of_the_protocol():
    for side, type_ in product((1, 2), (1, 2, 3, 4)):
        made = record(
            side=side,
            type=type_,
            price=1.0 if type_ in (2, 4) else NAN,
            stop_price=1.0 if type_ in (3, 4) else NAN,
        )
        both = Both()
        both.publish(made)
        (taken,) = both.take()
        assert taken.problem == ""
        assert (taken.side, taken.type) == (command.SIDES[side], command.TYPES[type_])
    assert command.TIMES_IN_FORCE == (None, "gtc", "ioc", "fok", "day")

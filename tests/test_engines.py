"""Commands into the order flow: each is answered, and none is sent that must not be."""

from typing import Any

import pytest

from feedhandler.command import Command
from feedhandler.engines import Engines
from feedhandler.guards import Guards
from feedhandler.order import Cause, Operation
from feedhandler.records import (
    CommandKind,
    EventCause,
    OrderOperation,
    OrderStatus,
)
from tests.desk import Desk, Told, names
from tests.test_private import Pipe

SECOND = 1_000_000_000
SUBMIT, CANCEL, MODIFY = Operation.SUBMIT, Operation.CANCEL, Operation.MODIFY


class Queue:
    """What engines ask for, without the channels."""

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.beats: list[int] = []

    def poll(self, now_ns: int) -> list[Command]:
        taken, self.commands = self.commands, []
        return taken

    def beat(self, now_ns: int) -> None:
        self.beats.append(now_ns)


class Floor:
    """A desk whose orders come from engines."""

    def __init__(self, **options: Any) -> None:
        self.desk = Desk(**options)
        self.queue = Queue()
        self.engines = Engines(self.queue, self.desk.flow)  # type: ignore
        self.desk.wire()
        self.desk.told()

    def ask(self, kind: CommandKind, client_id: str = "c-1", **fields: Any) -> None:
        """Have an engine ask, in good time unless *fields* say otherwise."""
        deadline_ns = self.desk.now_ns + SECOND
        terms: dict[str, Any] = {"deadline_ns": deadline_ns}
        if kind is CommandKind.SUBMIT:
            terms |= {"symbol": "AAPL", "side": "buy", "type": "limit"}
            terms |= {"quantity": 10.0, "price": 150.0}
        command = Command("commands-1", kind, client_id, **(terms | fields))
        self.queue.commands.append(command)
        assert self.engines.poll(self.desk.now_ns)

    def answer(self) -> Told:
        """The last thing that hearers were told."""
        return self.desk.told()[-1]


@pytest.mark.req("I-08", "OR-01")
def test_an_order_of_an_engine_goes_out_and_its_life_is_told():
    floor = Floor()
    floor.ask(CommandKind.SUBMIT, time_in_force="ioc")
    (request,) = floor.desk.wire()

    assert request["data"] == {
        "symbol": "AAPL", "side": "buy", "type": "limit", "quantity": 10.0,
        "price": 150.0, "time_in_force": "ioc", "client_order_id": "c-1",
    }  # fmt: skip
    floor.desk.ack(request["id"], "c-1")
    assert [(t.cause, t.status) for t in floor.desk.told()] == [
        (Cause.SENT, "pending"),
        (Cause.ACK, "live"),
    ]


@pytest.mark.req("OR-14", "OR-15")
def test_an_order_is_modified_and_canceled_by_either_name():
    floor = Floor()
    floor.desk.live("c-1")
    floor.desk.wire()
    floor.ask(CommandKind.MODIFY, price=151.0)
    floor.ask(CommandKind.CANCEL, "", order_id="o-c-1")

    modify, cancel = floor.desk.wire()
    assert modify["data"] == {"client_order_id": "c-1", "price": 151.0}
    assert cancel["data"] == {"order_id": "o-c-1"}


@pytest.mark.parametrize("kind", [CommandKind.SUBMIT, CommandKind.CANCEL])
def test_what_is_past_its_deadline_is_not_sent_but_answered(kind):
    floor = Floor()
    floor.desk.live("c-1")
    floor.desk.wire()
    client_id = "c-2" if kind is CommandKind.SUBMIT else "c-1"
    floor.ask(kind, client_id, deadline_ns=floor.desk.now_ns)

    assert floor.desk.wire() == []
    told = floor.answer()
    assert (told.client_id, told.cause) == (client_id, Cause.EXPIRED)
    assert told.operation is (SUBMIT if kind is CommandKind.SUBMIT else CANCEL)


@pytest.mark.parametrize(
    ("fields", "cause", "code"),
    [
        ({"is_expired": True, "problem": "late"}, Cause.EXPIRED, None),
        ({"problem": "side is 9"}, Cause.REFUSED, "invalid_parameter"),
    ],
)
def test_what_must_not_be_carried_out_is_answered(fields, cause, code):
    floor = Floor()
    floor.ask(CommandKind.SUBMIT, **fields)

    assert floor.desk.wire() == []
    told = floor.answer()
    assert told[2:5] == (cause, SUBMIT, code)
    assert floor.desk.flow.orders.by_client_id("c-1") is None


def test_what_has_no_name_cannot_be_answered():
    floor = Floor()
    command = Command("commands-1", None, "", problem="nonsense")
    floor.queue.commands.append(command)

    assert floor.engines.poll(floor.desk.now_ns)
    assert floor.desk.told() == []


@pytest.mark.req("SEC-26", "SEC-27")
def test_the_guards_hold_here_too():
    floor = Floor(guards=Guards(max_quantity=5))
    floor.ask(CommandKind.SUBMIT)
    assert floor.answer()[2:5] == (Cause.GUARDED, SUBMIT, None)

    floor.ask(CommandKind.SUBMIT, quantity=5.0)
    floor.ask(CommandKind.MODIFY, quantity=6.0)
    assert floor.answer()[2:5] == (Cause.GUARDED, MODIFY, None)
    assert len(floor.desk.wire()) == 1


@pytest.mark.req("F-70", "I-14")
def test_what_the_limit_has_no_room_for_is_answered_and_not_kept():
    floor = Floor()
    number = 0
    while floor.desk.flow.orders.open == [] or floor.answer().cause is Cause.SENT:
        number += 1
        floor.ask(CommandKind.SUBMIT, f"c-{number}")
    floor.ask(CommandKind.SUBMIT, "last")

    assert floor.answer()[:4] == ("last", "rejected", Cause.THROTTLED, SUBMIT)
    floor.desk.wire()
    floor.desk.tick(62)
    assert floor.desk.wire("submit_order") == []


@pytest.mark.req("A-19", "F-63")
def test_nothing_new_goes_out_before_the_venue_told_what_there_is():
    floor = Floor(ready=False)
    floor.desk.feed.pongs = False
    floor.ask(CommandKind.SUBMIT)
    assert floor.answer()[2:4] == (Cause.NOT_CONNECTED, SUBMIT)

    floor.ask(CommandKind.CANCEL, "of an earlier life")
    told = floor.answer()
    assert told[:4] == ("of an earlier life", "unknown", Cause.NOT_CONNECTED, CANCEL)
    assert floor.desk.wire() == []


@pytest.mark.req("ER-08")
@pytest.mark.parametrize(
    ("kind", "operation"),
    [
        (CommandKind.CANCEL, CANCEL),
        (CommandKind.MODIFY, MODIFY),
        (CommandKind.RESOLVE, None),
    ],
)
def test_an_order_that_nobody_knows_is_not_found(kind, operation):
    floor = Floor()
    fields = {"price": 1.0} if kind is CommandKind.MODIFY else {}
    floor.ask(kind, "nobody's", **fields)

    assert floor.desk.wire() == []
    assert floor.answer()[:5] == (
        "nobody's", "unknown", Cause.REFUSED, operation, "order_not_found",
    )  # fmt: skip


@pytest.mark.req("A-16", "ER-09")
def test_an_id_that_is_in_use_is_refused_and_the_order_of_that_name_goes_on():
    floor = Floor()
    floor.desk.live("c-1")
    floor.desk.wire()
    floor.ask(CommandKind.SUBMIT, quantity=3.0)

    assert floor.desk.wire() == []
    assert floor.answer()[2:5] == (
        Cause.REFUSED, SUBMIT, "duplicate_client_order_id",
    )  # fmt: skip
    assert floor.desk.status("c-1") == "live"


def test_all_orders_are_canceled_or_those_of_a_symbol():
    floor = Floor()
    for client_id, symbol in (("a", "AAPL"), ("b", "MSFT"), ("c", "AAPL")):
        sent = floor.desk.submit(client_id, symbol=symbol)
        floor.desk.ack(sent.request_id, client_id)
    floor.desk.wire()
    floor.ask(CommandKind.CANCEL_ALL, "name", symbol="AAPL")
    assert names(floor.desk.wire()) == ["a", "c"]

    floor.ask(CommandKind.CANCEL_ALL, "name")
    assert names(floor.desk.wire()) == ["b"]


def test_what_an_order_is_by_now_is_told_again():
    floor = Floor()
    floor.desk.live("c-1")
    floor.desk.told()
    floor.ask(CommandKind.RESOLVE)

    assert floor.desk.told() == [("c-1", "live", Cause.UPDATE, None, None, True)]


def test_time_passes_for_the_channels():
    floor = Floor()
    floor.engines.beat(5)

    assert floor.queue.beats == [5]
    assert not floor.engines.poll(5)


# ── what engines read of it ───────────────────────────────────────────────────────────


def published(floor: Floor) -> Pipe:
    """What engines read of all that follows."""
    pipe = Pipe()
    floor.desk.flow.hearers.append(pipe.publisher)
    return pipe


@pytest.mark.req("I-08")
def test_a_question_that_came_too_late_does_not_tell_that_the_order_is_dead():
    floor = Floor()
    floor.desk.live("c-1")
    floor.desk.told()
    pipe = published(floor)
    floor.ask(CommandKind.RESOLVE, is_expired=True, problem="late")
    row = pipe.row("orders")

    assert row["cause"] == EventCause.CAUSE_EXPIRED
    assert row["operation"] == OrderOperation.OPERATION_NONE
    assert row["status"] == OrderStatus.ACCEPTED


@pytest.mark.req("I-08")
def test_a_question_before_the_venue_has_told_leaves_the_order_unknown():
    floor = Floor(ready=False)
    pipe = published(floor)
    floor.ask(CommandKind.RESOLVE, "of an earlier life")
    row = pipe.row("orders")

    assert row["cause"] == EventCause.CAUSE_NOT_CONNECTED
    assert row["status"] == OrderStatus.STATUS_UNKNOWN


@pytest.mark.req("A-16", "I-08")
@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"is_expired": True, "problem": "late"}, EventCause.CAUSE_EXPIRED),
        ({}, EventCause.CAUSE_REFUSED),
    ],
)
def test_a_submit_with_the_id_of_a_live_order_does_not_tell_that_this_is_over(
    fields, cause
):
    floor = Floor()
    floor.desk.live("c-1")
    floor.desk.told()
    pipe = published(floor)
    floor.ask(CommandKind.SUBMIT, **fields)
    row = pipe.row("orders")

    assert row["cause"] == cause
    assert row["operation"] == OrderOperation.OPERATION_SUBMIT
    assert row["status"] == OrderStatus.ACCEPTED
    assert row["order_id"] == b"o-c-1"


@pytest.mark.req("I-08")
def test_a_submit_that_makes_no_sense_is_over_and_not_pending():
    floor = Floor()
    pipe = published(floor)
    floor.ask(CommandKind.SUBMIT, problem="side is 9")
    row = pipe.row("orders")

    assert row["cause"] == EventCause.CAUSE_REFUSED
    assert row["status"] == OrderStatus.REJECTED

"""What a review of the order flow found, each as it would have cost a trader."""

import asyncio

import pytest

from feedhandler.config import Account, Credentials, FeedConfig, Shm
from feedhandler.desk import Desk as FeedDesk
from feedhandler.records import (
    CommandKind,
    EventCause,
    OrderOperation,
    OrderStatus,
)
from feedhandler.segments import Segments
from feedhandler.session import Answer
from feedhandler.trading import CHANNELS, OrderFlow
from tests.desk import ORDERS, Desk
from tests.test_engines import Floor
from tests.test_private import Pipe

MEMORY = {"capacity": 64, "board_levels": 1, "instruments": 1}


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


@pytest.mark.req("A-19")
def test_no_order_goes_out_while_nobody_listens_to_what_becomes_of_orders():
    desk = Desk()
    desk.feed.session.remove(ORDERS)
    desk.feed.collect()
    assert desk.refused() == "NotConnected"
    assert not desk.flow.is_ready

    desk.tick()
    desk.feed.session.add(ORDERS, 0)
    desk.feed.collect()
    assert desk.refused() == "NotConnected"
    desk.subscribed()
    desk.tick(0.3)
    assert desk.refused() is None


@pytest.mark.req("A-19")
def test_a_flow_that_begins_after_its_subscriptions_has_the_venue_tell_again():
    desk = Desk()
    late = OrderFlow(desk.feed.session)
    desk.flow = late
    desk.tick(0.2)
    requests = desk.wire("subscribe")[-3:]
    assert [m["data"]["channels"] for m in requests] == [[name] for name in CHANNELS]

    for request in requests:
        desk.feed.answer(request)
    desk.pump()
    desk.tick(0.3)
    assert late.is_ready


def test_who_asks_for_an_answer_late_or_twice_does_not_wait_for_ever():
    async def act() -> None:
        account = Account(channels=CHANNELS)
        config = FeedConfig(
            url="ws://127.0.0.1:1", credentials=Credentials(api_key="key-late"),
            shm=Shm(name=""), account=account,
        )  # fmt: skip
        segments = Segments("", **MEMORY)
        place = Floor(ready=True).desk
        host = FeedDesk(
            config, segments, top=lambda s: None, instrument_of=lambda s: 0
        )
        host.flow = place.flow
        sent = place.submit("c-1")
        first, second = host.answer(sent), host.answer(sent)
        place.ack(sent.request_id, "c-1")
        message = place.outcomes[-1][1]
        host.answered(Answer(sent.request_id, "submit_order", message))
        assert await asyncio.wait_for(first, 1) is message
        assert await asyncio.wait_for(second, 1) is message

        assert await asyncio.wait_for(host.answer(sent), 1) is None
        segments.close()

    asyncio.run(act())

"""The order flow: nothing goes out too early, too late, twice or past the guards."""

from itertools import pairwise, permutations
from typing import Any

import pytest

from feedhandler.errors import (
    DeadlinePassed,
    GuardRefused,
    NotConnected,
    Throttled,
    UnknownOrder,
)
from feedhandler.guards import Guards, Top
from feedhandler.order import Cause, Operation
from feedhandler.protocol.messages import (
    BatchCancel,
    BatchModify,
    BatchSubmit,
    CancelOrderData,
    ModifyOrderData,
    OrderData,
)
from feedhandler.trading import CHANNELS, OrderFlow
from tests.desk import ACCOUNT, ORDERS, Desk, Heard, names
from tests.feeds import TIME_MS

SECOND = 1_000_000_000
SUBMIT, CANCEL = Operation.SUBMIT, Operation.CANCEL


def notice(epoch: str) -> dict[str, Any]:
    return {
        "type": "system_notification",
        "data": {
            "id": "n-1", "level": "warning", "title": "t", "message": "m",
            "link": None, "event": "start", "venue_epoch": epoch,
        },
        "channel": "system_notifications",
        "timestamp": TIME_MS,
    }  # fmt: skip


# ── what goes out ─────────────────────────────────────────────────────────────────────


@pytest.mark.req("OR-01", "SEC-28")
def test_an_order_goes_out_at_once_and_is_given_an_id():
    desk = Desk()
    sent = desk.submit()
    (request,) = desk.wire("submit_order")

    assert request["id"] == sent.request_id
    assert request["data"]["client_order_id"] == sent.orders[0].client_id
    assert sent.orders[0].status.value == "pending"
    assert desk.told()[0][1:4] == ("pending", Cause.SENT, None)


@pytest.mark.req("OR-02", "A-41")
def test_what_the_venue_says_of_an_order_is_heard_in_its_order():
    desk = Desk()
    sent = desk.submit("c-1")
    desk.ack(sent.request_id, "c-1")
    desk.update("c-1", "partially_filled", filled_quantity=4, remaining_quantity=6)
    desk.fill("t-1", "c-1", 4)

    assert [(t.status, t.cause, t.operation) for t in desk.told()] == [
        ("pending", Cause.SENT, None),
        ("live", Cause.ACK, SUBMIT),
        ("partially_filled", Cause.UPDATE, None),
        ("partially_filled", Cause.FILL, None),
    ]
    assert desk.heard.fills == [("t-1", "c-1", False)]
    assert desk.order("c-1").filled == 4


@pytest.mark.req("F-66", "A-41")
def test_an_order_of_ours_is_not_adopted_when_it_is_told_of_before_its_answer():
    desk = Desk()
    sent = desk.submit("c-1")
    desk.told()
    desk.update("c-1", "accepted")
    desk.ack(sent.request_id, "c-1")
    desk.update("somebodys", "accepted")

    assert [(t.client_id, t.status, t.cause) for t in desk.told()] == [
        ("c-1", "live", Cause.UPDATE),
        ("somebodys", "live", Cause.ADOPTED),
    ]


@pytest.mark.req("F-75", "I-09")
def test_a_fill_is_heard_once_however_often_it_is_told():
    desk = Desk()
    desk.live("c-1")
    for _ in range(3):
        desk.fill("t-1", "c-1")

    assert desk.heard.fills == [("t-1", "c-1", False)]
    assert desk.order("c-1").filled == 10


def test_an_order_that_the_venue_refuses_is_over_and_says_why():
    desk = Desk()
    sent = desk.submit("c-1")
    desk.refuse(sent.request_id, "insufficient_funds")

    assert desk.told()[-1][1:5] == (
        "rejected", Cause.REFUSED, SUBMIT, "insufficient_funds",
    )  # fmt: skip
    assert desk.flow.orders.open == []


@pytest.mark.req("F-65")
def test_a_second_ack_changes_nothing():
    desk = Desk()
    sent = desk.live("c-1")
    desk.told()
    desk.ack(sent.request_id, "c-1")

    assert desk.told() == []


@pytest.mark.req("F-66", "A-41", "I-11")
@pytest.mark.parametrize("order", list(permutations(range(5))), ids=str)
def test_ack_update_fill_and_account_in_any_order_end_alike(order: tuple[int, ...]):
    desk = Desk()
    sent = desk.submit("c-1")
    balance = {"currency": "USD", "available": 1.0, "reserved": 2.0, "total": 3.0}
    account = {
        "type": "account_update",
        "data": {"account_id": "a", "balances": [balance], "positions": []},
        "channel": ACCOUNT,
        "timestamp": TIME_MS,
    }
    filled = {"filled_quantity": 10, "remaining_quantity": 0}
    steps = (
        lambda: desk.ack(sent.request_id, "c-1"),
        lambda: desk.update("c-1", "accepted"),
        lambda: desk.update("c-1", "filled", updated_at=TIME_MS + 1, **filled),
        lambda: desk.fill("t-1", "c-1"),
        lambda: desk.receive(account),
    )
    for step in order:
        steps[step]()

    (made,) = sent.orders
    assert made is desk.order("c-1")
    assert (made.status.value, made.filled, made.average_price) == ("filled", 10, 150.0)
    assert (made.order_id, made.pending, made.updated_ms) == (
        "o-c-1", {}, TIME_MS + 1,
    )  # fmt: skip
    assert desk.flow.orders.open == []
    assert desk.flow.account.balances["USD"].total == 3.0
    assert [fill[0] for fill in desk.heard.fills] == ["t-1"]


@pytest.mark.req("OR-13", "OR-14", "OR-15")
def test_an_order_is_modified_and_canceled_by_either_name():
    desk = Desk()
    desk.live("c-1")
    desk.wire()
    modified = desk.flow.modify(
        ModifyOrderData(client_order_id="c-1", quantity=5), desk.now_ns
    )
    canceled = desk.flow.cancel(CancelOrderData(order_id="o-c-1"), desk.now_ns)

    assert desk.order("c-1").pending == {Operation.MODIFY: "sent", CANCEL: "sent"}
    assert [m["data"] for m in desk.wire()] == [
        {"client_order_id": "c-1", "quantity": 5},
        {"order_id": "o-c-1"},
    ]

    desk.refuse(modified.request_id, "invalid_parameter")
    desk.ack(canceled.request_id, "c-1", "canceled")

    assert [(t.status, t.cause) for t in desk.told()[-2:]] == [
        ("live", Cause.REFUSED),
        ("canceled", Cause.ACK),
    ]


def test_what_we_do_not_know_can_be_canceled_and_not_modified():
    desk = Desk()
    desk.wire()
    desk.flow.cancel(CancelOrderData(order_id="o-9"), desk.now_ns)

    assert [m["data"] for m in desk.wire()] == [{"order_id": "o-9"}]
    with pytest.raises(UnknownOrder, match="'o-9'"):
        desk.flow.modify(ModifyOrderData(order_id="o-9", price=1.0), desk.now_ns)
    assert desk.wire() == []


@pytest.mark.req("OR-16", "OR-17", "OR-18")
def test_a_batch_is_one_request_and_each_operation_has_its_own_outcome():
    desk = Desk()
    desk.live("c-1")
    desk.wire()
    desk.told()
    sent = desk.flow.batch(
        [
            BatchSubmit("AAPL", "buy", "limit", 10, 150.0, client_order_id="c-2"),
            BatchModify(client_order_id="c-1", quantity=0.5),
            BatchCancel(client_order_id="c-1"),
        ],
        desk.now_ns,
    )
    (request,) = desk.wire()
    desk.receive(
        {
            "type": "batch_response",
            "data": {
                "status": "partial",
                "results": [
                    {"operation": "submit", "status": "accepted", "order_id": "o-c-2",
                     "client_id": "c-2"},
                    {"operation": "modify", "status": "error",
                     "code": "invalid_parameter", "message": "lot"},
                    {"operation": "cancel", "status": "canceled", "order_id": "o-c-1",
                     "client_id": "c-1"},
                ],
            },
            "timestamp": TIME_MS,
            "id": sent.request_id,
        }
    )  # fmt: skip

    assert [o["operation"] for o in request["data"]["operations"]] == [
        "submit", "modify", "cancel",
    ]  # fmt: skip
    assert [order.client_id for order in sent.orders] == ["c-2", "c-1", "c-1"]
    assert (desk.status("c-2"), desk.status("c-1")) == ("live", "canceled")
    assert {t.client_id: t.cause for t in desk.told()[-2:]} == {
        "c-2": Cause.ACK,
        "c-1": Cause.ACK,
    }


@pytest.mark.parametrize(
    "operations",
    [
        [],
        [BatchCancel(order_id="o-c-1")] * 51,
        [BatchSubmit("AAPL", "buy", "limit", 1, 1.0, client_order_id="c-2")] * 2,
        [BatchSubmit("AAPL", "buy", "limit", 1, 1.0, client_order_id="c-1")],
        [BatchSubmit("AAPL", "buy", "limit", 1, 1.0, client_order_id="c 2")],
    ],
    ids=["none", "too many", "one id twice", "id in use", "bad id"],
)
def test_a_batch_that_cannot_be_is_not_sent(operations):
    desk = Desk()
    desk.live("c-1")
    desk.wire()
    with pytest.raises(ValueError, match=r".+"):
        desk.flow.batch(operations, desk.now_ns)

    assert desk.wire() == []
    assert [order.client_id for order in desk.flow.orders.open] == ["c-1"]


@pytest.mark.req("A-16")
@pytest.mark.parametrize("client_id", ["c-1", "", "a b", "é", "x" * 65])
def test_an_id_that_is_in_use_or_is_none_is_not_sent(client_id):
    desk = Desk()
    desk.live("c-1")
    desk.wire()
    with pytest.raises(ValueError, match="client_order_id"):
        desk.submit(client_id)

    assert desk.wire() == []


def test_what_is_past_its_deadline_is_not_sent():
    desk = Desk()
    desk.live("c-1")
    desk.wire()
    now_ns = desk.now_ns
    for request in (
        lambda: desk.flow.submit(OrderData("AAPL", "buy", "market", 1), now_ns, now_ns),
        lambda: desk.flow.cancel(CancelOrderData(order_id="o-c-1"), now_ns, now_ns),
        lambda: desk.flow.batch([BatchCancel(order_id="o-c-1")], now_ns, now_ns - 1),
        lambda: desk.flow.modify(ModifyOrderData(order_id="o-c-1", price=2), 2, 1),
    ):
        with pytest.raises(DeadlinePassed):
            request()
    assert desk.wire() == []


def test_where_bytes_wait_for_the_connection_only_cancels_go_out():
    waiting = [0]
    desk = Desk(backlog=lambda: waiting[0])
    desk.live("c-1")
    waiting[0] = 17

    assert desk.refused() == "NotConnected"
    desk.wire()
    desk.cancel("c-1")
    assert names(desk.wire()) == ["c-1"]


@pytest.mark.req("F-70", "I-14")
def test_what_the_limit_has_no_room_for_is_not_sent_and_its_id_stays_free():
    desk = Desk()
    while desk.refused(None) is None:
        pass
    desk.wire()
    with pytest.raises(Throttled) as caught:
        desk.submit("c-1")
    assert desk.wire() == []

    desk.tick(caught.value.wait_ns / SECOND + 0.1)
    desk.wire()
    desk.submit("c-1")
    assert names(desk.wire("submit_order")) == ["c-1"]


# ── guards ────────────────────────────────────────────────────────────────────────────


@pytest.mark.req("SEC-27")
def test_guards_are_asked_of_submits_modifies_and_batches_but_not_of_cancels():
    desk = Desk(guards=Guards(max_quantity=10))
    desk.live("c-1")
    desk.wire()
    for request in (
        lambda: desk.submit("c-2", quantity=11),
        lambda: desk.flow.modify(ModifyOrderData(order_id="o-c-1", quantity=11), 0),
        lambda: desk.flow.batch(
            [BatchCancel(order_id="o-c-1"), BatchModify(order_id="o-c-1", quantity=11)],
            0,
        ),
        lambda: desk.flow.batch([BatchSubmit("AAPL", "buy", "limit", 11, 1.0)], 0),
    ):
        with pytest.raises(GuardRefused, match="max_quantity"):
            request()
    assert desk.wire() == []

    desk.flow.guards.killed = True
    desk.flow.batch([BatchCancel(order_id="o-c-1")], desk.now_ns)
    assert len(desk.wire()) == 1


@pytest.mark.req("SEC-27")
def test_two_modifications_under_way_are_judged_together():
    desk = Desk(guards=Guards(max_notional=10_000))
    desk.live("c-1")
    change = ModifyOrderData(client_order_id="c-1", quantity=60.0)
    sent = desk.flow.modify(change, desk.now_ns)
    dear = ModifyOrderData(client_order_id="c-1", price=900.0)
    with pytest.raises(GuardRefused, match="worth"):
        desk.flow.modify(dear, desk.now_ns)

    desk.refuse(sent.request_id, "invalid_parameter")
    desk.flow.modify(dear, desk.now_ns)


@pytest.mark.req("SEC-27")
def test_two_modifications_in_a_batch_are_judged_together():
    desk = Desk(guards=Guards(max_notional=10_000))
    desk.live("c-1")
    desk.wire()
    changes = [
        BatchModify(client_order_id="c-1", quantity=60.0),
        BatchModify(client_order_id="c-1", price=900.0),
    ]
    with pytest.raises(GuardRefused, match="worth"):
        desk.flow.batch(changes, desk.now_ns)
    assert desk.wire() == []

    sent = desk.flow.batch(changes[:1], desk.now_ns)
    with pytest.raises(GuardRefused, match="worth"):
        desk.flow.batch(changes[1:], desk.now_ns)
    assert sent.orders[0].requests[0].change is changes[0]


@pytest.mark.req("SEC-27")
def test_the_collar_looks_at_the_book_of_the_symbol():
    tops = {"AAPL": Top(149.9, 150.1, True)}
    desk = Desk(guards=Guards(collar=0.01, refuse_stale=True), top=tops.get)

    assert desk.refused("c-1", price=152.0) == "GuardRefused"
    assert desk.refused("c-1", symbol="MSFT") == "GuardRefused"
    assert desk.refused("c-1", price=151.0) is None


@pytest.mark.req("SEC-26")
def test_too_many_unknown_orders_let_no_more_out():
    desk = Desk(guards=Guards(max_unknown=0))
    sent = desk.submit("c-1")
    desk.refuse(sent.request_id, "internal_error")

    assert desk.status("c-1") == "unknown"
    assert desk.refused("c-2") == "GuardRefused"


@pytest.mark.req("SEC-26")
def test_the_kill_switch_cancels_what_is_open_and_what_turns_up():
    desk = Desk()
    for number in range(3):
        desk.live(f"c-{number}")
    desk.wire()
    desk.flow.kill(desk.now_ns)

    assert names(desk.wire()) == ["c-0", "c-1", "c-2"]
    assert desk.refused() == "GuardRefused"

    desk.update("stranger", "accepted")
    desk.tick()

    assert [m["data"] for m in desk.wire("cancel_order")] == [
        {"order_id": "o-stranger"}
    ]


@pytest.mark.req("SEC-26", "I-14")
def test_the_kill_switch_does_not_storm_for_an_order_that_is_not_found():
    desk = Desk()
    desk.submit("c-1")
    desk.cut()
    desk.feed.pass_s(2)
    desk.connect()
    desk.flow.kill(desk.now_ns)
    desk.feed.collect()
    (request,) = desk.wire("cancel_order")
    desk.refuse(request["id"], "order_not_found")

    desk.tick(4.5)
    assert desk.wire("cancel_order") == []

    desk.tick(1)
    assert names(desk.wire("cancel_order")) == ["c-1"]


@pytest.mark.req("SEC-26", "I-14")
def test_cancel_all_goes_on_for_as_long_as_the_limit_holds_it_up():
    desk = Desk()
    for number in range(60):
        desk.live(f"c-{number}")
    desk.wire()
    desk.flow.cancel_all(desk.now_ns)
    canceled = names(desk.wire())
    assert len(canceled) == 30

    for _ in range(70):
        desk.tick(1)
        for request in desk.wire("cancel_order"):
            canceled.append(request["data"]["client_order_id"])
            desk.ack(request["id"], canceled[-1], "canceled")

    assert set(canceled) == {f"c-{number}" for number in range(60)}
    assert desk.refused("x-1") is None


# ── what is not known ─────────────────────────────────────────────────────────────────


@pytest.mark.req("F-64", "I-08")
def test_an_order_without_an_answer_is_unknown_until_a_late_one_comes():
    desk = Desk()
    sent = desk.submit("c-1")
    desk.wire()
    desk.tick(10)

    assert desk.status("c-1") == "unknown"
    assert desk.outcomes[-1] == (sent.request_id, None)
    assert desk.wire("submit_order") == []

    desk.ack(sent.request_id, "c-1")

    assert desk.status("c-1") == "live"
    assert desk.told()[-1][1:4] == ("live", Cause.ACK, SUBMIT)


@pytest.mark.req("F-64", "F-71", "I-08")
def test_what_stays_unknown_is_settled_by_another_subscription():
    desk = Desk()
    sent = desk.submit("c-1")
    desk.refuse(sent.request_id, "internal_error")
    desk.wire()
    desk.tick(2.2)
    asked = [(m["action"], m["data"]["channels"]) for m in desk.wire()]
    assert asked[:2] == [("unsubscribe", [ORDERS]), ("subscribe", [ORDERS])]

    desk.update("c-1", "accepted")
    assert desk.status("c-1") == "live"


@pytest.mark.req("F-71", "I-08")
def test_an_order_that_is_not_told_again_is_canceled_to_find_out():
    desk = Desk()
    sent = desk.submit("c-1")
    desk.refuse(sent.request_id, "internal_error")
    desk.tick(2.2)
    desk.subscribed()
    desk.wire()
    desk.tick(5.2)
    (probe,) = desk.wire("cancel_order")

    assert probe["data"] == {"client_order_id": "c-1"}
    desk.refuse(probe["id"], "order_not_found")
    assert (desk.status("c-1"), desk.order("c-1").reason) == (
        "rejected", "never arrived",
    )  # fmt: skip


@pytest.mark.req("F-63", "I-08", "A-19")
def test_after_a_cut_no_order_goes_out_before_the_venue_told_what_there_is():
    desk = Desk()
    desk.live("c-1")
    desk.submit("c-2")
    desk.cut()

    assert (desk.status("c-1"), desk.status("c-2")) == ("live", "unknown")
    assert desk.refused() == "NotConnected"

    desk.wire()
    desk.feed.pass_s(2)
    desk.connect()
    desk.tick(1)
    assert desk.refused() == "NotConnected"

    desk.update("c-1", "accepted", updated_at=TIME_MS + 1)
    desk.update("c-2", "accepted")
    desk.tick()

    assert desk.refused() is None
    sent = names(desk.wire("submit_order"))
    assert sent == ["x-1"]


@pytest.mark.req("F-63", "I-08")
def test_what_was_cut_before_it_was_sent_is_found_out_and_never_sent_again():
    desk = Desk()
    desk.submit("c-1")
    desk.feed.wire = []
    desk.feed.session.take_outbox()
    desk.cut()
    desk.feed.pass_s(2)
    desk.connect()
    desk.tick(5.2)
    (probe,) = desk.wire("cancel_order")
    assert desk.refused() == "NotConnected"

    desk.refuse(probe["id"], "order_not_found")
    desk.tick()

    assert desk.status("c-1") == "rejected"
    assert desk.refused() is None
    assert names(desk.wire("submit_order")) == ["x-1"]


@pytest.mark.req("F-74", "A-19")
def test_a_new_process_adopts_what_is_open_before_it_sends_anything():
    desk = Desk(ready=False)
    assert desk.refused() == "NotConnected"

    desk.update("from-before", "accepted")
    desk.tick()

    assert desk.told()[0][:4] == ("from-before", "live", Cause.ADOPTED, None)
    assert desk.heard.orders == []
    assert desk.refused() is None


def test_what_is_told_before_the_pong_is_a_replay():
    desk = Desk(ready=False)
    desk.feed.pongs = False
    desk.update("from-before", "filled", filled_quantity=10, remaining_quantity=0)
    desk.fill("t-1", "from-before")
    desk.tick()
    desk.feed.session.pong(desk.feed.session.ping_payload, desk.now_ns)
    desk.tick()
    desk.live("c-1")

    assert [t.is_replay for t in desk.told()] == [True, True, False, False, False]
    assert desk.heard.fills == [("t-1", "from-before", True)]


@pytest.mark.req("F-58", "A-19")
def test_what_could_not_be_read_in_time_is_not_canceled_for_it():
    desk = Desk()
    desk.live("c-1")
    desk.cut()
    desk.feed.pass_s(2)
    desk.connect()
    desk.wire()
    desk.feed.now_ns += 8 * SECOND
    desk.tick()
    desk.update("c-1", "accepted")
    desk.tick(6)

    assert desk.wire("cancel_order") == []
    assert desk.status("c-1") == "live"


@pytest.mark.req("F-58", "A-19")
def test_what_is_told_slowly_is_waited_for_until_a_pong_shows_that_it_is_all():
    desk = Desk()
    for name in ("c-1", "c-2", "c-3"):
        desk.live(name)
    desk.cut()
    desk.feed.pass_s(2)
    desk.feed.pongs = False
    desk.connect()
    desk.wire()
    for name in ("c-1", "c-2"):
        desk.tick(4)
        desk.update(name, "accepted", updated_at=TIME_MS + 1)
    assert desk.wire("cancel_order") == []

    desk.tick(5.2)
    assert names(desk.wire("cancel_order")) == ["c-3"]


@pytest.mark.req("F-58")
def test_a_venue_that_goes_on_telling_and_answers_no_ping_is_waited_for_a_minute():
    desk = Desk(ready=False)
    desk.feed.pongs = False
    for number in range(33):
        desk.tick(2)
        desk.update("busy", "accepted", updated_at=TIME_MS + number)
        if number == 28:
            assert desk.refused() == "NotConnected"

    assert desk.refused() is None


def test_nothing_is_ready_while_the_venue_does_not_answer_the_ping():
    desk = Desk(ready=False)
    desk.feed.pongs = False
    desk.tick(4.8)
    assert desk.refused() == "NotConnected"

    desk.tick(0.4)
    assert desk.refused() is None


@pytest.mark.req("F-73", "A-49")
def test_the_orders_of_a_venue_that_started_anew_are_gone():
    desk = Desk()

    hear(desk, "life-1")
    desk.live("c-1")
    desk.submit("c-2")
    desk.cut()
    hear(desk, "life-2")
    desk.feed.pass_s(2)
    desk.connect()
    desk.wire()
    desk.tick(5.2)

    assert desk.wire("cancel_order") == []
    assert (desk.status("c-1"), desk.status("c-2")) == ("canceled", "canceled")
    assert desk.order("c-1").reason == "venue restarted"
    assert desk.told()[-1].cause is Cause.SETTLED
    desk.tick()
    assert desk.refused() is None


@pytest.mark.req("F-73", "A-49")
def test_the_name_of_another_life_alone_is_no_evidence():
    desk = Desk()
    hear(desk, "life-1")
    desk.live("c-1")
    hear(desk, "life-2")
    desk.tick(1)
    assert desk.status("c-1") == "live"
    assert desk.refused() == "NotConnected"

    desk.tick(8)
    assert desk.status("c-1") == "live"
    desk.subscribed()
    desk.update("c-1", "accepted", updated_at=TIME_MS + 1)
    desk.tick(6)
    assert desk.status("c-1") == "live"
    assert desk.refused() is None


@pytest.mark.req("F-71", "A-19")
def test_what_is_unknown_soon_after_a_subscription_does_not_wait_for_that_one():
    desk = Desk()
    sent = desk.submit("c-1")
    desk.refuse(sent.request_id, "internal_error")
    desk.wire()
    desk.tick(2.2)
    desk.subscribed()
    assert desk.status("c-1") == "unknown"

    desk.tick(5.1)
    assert [m["data"] for m in desk.wire("cancel_order")] == [
        {"client_order_id": "c-1"}
    ]


@pytest.mark.req("F-71", "A-19")
def test_another_unknown_order_does_not_keep_the_first_from_being_found_out():
    desk = Desk()
    desk.wire()
    for name in ("c-1", "c-2"):
        sent = desk.submit(name)
        desk.refuse(sent.request_id, "internal_error")
        desk.tick(2.2)
        if name == "c-1":
            desk.subscribed()
    desk.tick(3)

    sent = desk.wire("subscribe", "cancel_order")
    assert [m["action"] for m in sent] == ["subscribe", "cancel_order", "subscribe"]
    assert names(sent[1:2]) == ["c-1"]


@pytest.mark.req("F-73", "A-49")
def test_the_venue_is_asked_at_once_when_it_is_heard_to_have_begun_anew():
    desk = Desk()
    hear(desk, "life-1")
    desk.live("c-1")
    desk.cut()
    desk.feed.pass_s(2)
    desk.connect()
    hear(desk, "life-2")
    desk.wire()
    desk.tick(0.2)
    desk.subscribed()
    desk.tick(5.2)

    assert len(desk.wire("subscribe")) == 1
    assert desk.status("c-1") == "canceled"
    assert desk.refused() is None


@pytest.mark.req("F-73", "A-49")
def test_what_the_account_had_in_the_venues_former_life_is_heard_to_be_gone():
    desk = Desk()
    hear(desk, "life-1")
    desk.account(BTC=2.0)
    desk.cut()
    hear(desk, "life-2")
    desk.feed.pass_s(2)
    desk.connect()
    desk.account(USD=3.0)
    desk.tick(5.2)

    totals = [(row.currency, row.total) for row in desk.heard.rows]
    assert totals == [("BTC", 2.0), ("USD", 3.0), ("BTC", 0.0)]


@pytest.mark.req("F-73", "A-49")
def test_a_name_that_comes_after_the_subscription_wants_another_one():
    desk = Desk()
    hear(desk, "life-1")
    desk.live("c-1")
    desk.cut()
    desk.feed.pass_s(2)
    desk.connect()
    hear(desk, "life-2")
    desk.tick(6)
    assert desk.status("c-1") == "unknown"

    desk.subscribed()
    desk.tick(6)
    assert desk.status("c-1") == "canceled"


def hear(desk: Desk, epoch: str) -> None:
    """Have the flow told of a venue's life, by another connection."""
    data = notice(epoch)
    desk.feed.session.add("system_notifications", 0)
    desk.receive(data)


@pytest.mark.req("AC-06")
def test_account_rows_are_heard_when_they_change():
    desk = Desk()
    desk.account(USD=3.0)
    desk.account(USD=3.0)

    assert [(r.currency, r.total) for r in desk.heard.rows] == [("USD", 3.0)]
    assert desk.flow.account.balances["USD"].available == 3.0


def test_a_venue_that_never_settles_it_is_asked_less_and_less_often():
    desk = Desk()
    sent = desk.live("c-1")
    desk.flow.modify(ModifyOrderData(client_order_id="c-1", price=151.0), desk.now_ns)
    desk.told()
    asked = []
    for second in range(200):
        desk.tick(1)
        for request in desk.wire():
            if request["action"] in ("subscribe", "unsubscribe"):
                asked += [second] * (request["action"] == "subscribe")
                desk.feed.answer(request)
                desk.pump()
            elif request["action"] == "cancel_order":
                desk.refuse(request["id"], "order_not_found")

    assert sent.orders[0].status.value == "unknown"
    gaps = [later - earlier for earlier, later in pairwise(asked)]
    assert len(asked) >= 3
    assert gaps[1:] == sorted(gaps[1:])
    assert gaps[-1] >= 2 * gaps[0]


def test_a_hearer_that_raises_stops_nobody_else():
    class Broken(Heard):
        def on_order(self, *_: Any) -> None:
            raise ValueError("not today")

        on_fill = on_account = on_order

    errors: list[Exception] = []
    desk = Desk(on_error=errors.append)
    desk.flow.hearers.insert(0, Broken())
    desk.live("c-1")
    desk.fill("t-1", "c-1")

    assert [told.cause for told in desk.told()][:2] == [Cause.SENT, Cause.ACK]
    assert desk.heard.fills == [("t-1", "c-1", False)]
    assert len(errors) >= 3
    assert desk.order("c-1").filled == 10


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


@pytest.mark.parametrize("quantity", [None, True])
def test_what_is_no_quantity_is_not_sent_and_then_forgotten(quantity):
    desk = Desk()
    desk.wire()

    assert desk.refused(quantity=quantity) == "GuardRefused"
    assert desk.wire() == []


def test_a_hearer_that_leaves_while_it_hears_takes_nothing_from_the_next_one():
    class Leaves(Heard):
        def on_order(self, *told: Any) -> None:
            desk.flow.hearers.remove(self)

    desk, after = Desk(), Heard()
    desk.flow.hearers[:] = [Leaves(), after]
    desk.submit("c-1")
    desk.flow.announce()

    assert [told.client_id for told in after.orders] == ["c-1"]


def test_an_order_is_let_out_by_a_connection_that_is_open_only():
    desk = Desk(ready=False)
    desk.cut()
    with pytest.raises(NotConnected):
        desk.cancel("c-1")
    assert desk.refused() == "NotConnected"

"""An engine's orders: in the channel or refused, and told when nobody takes them."""

import os
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import feedhandler
from feedhandler import errors, shm
from feedhandler.command import Command
from feedhandler.errors import (
    ChannelFull,
    FeedError,
    HandlerGone,
    RingBusy,
    RingError,
    RingInvalid,
)
from feedhandler.records import ORDER_EVENT, CommandKind
from feedhandler.ring import Ring
from feedhandler.trader import Trader
from tests.engines import Feed, Loop, names, running, until

SECOND_NS = 1_000_000_000
LIMIT = ("AAPL", "buy", "limit", 1.5)


@pytest.fixture
def loop(tmp_path):
    with running(tmp_path) as loop:
        yield loop


@pytest.fixture
def trader(loop, tmp_path):
    with Trader("md", directory=tmp_path) as trader:
        yield trader


def said(command) -> dict:
    """Return what a command says, without where and when."""
    told = command._asdict()
    for name in ("channel", "deadline_ns", "sent_ns", "is_expired", "problem"):
        del told[name]
    return {name: value for name, value in told.items() if value is not None}


def test_the_handler_gets_what_was_asked_for(loop, trader):
    first = trader.submit("AAPL", "buy", "limit", 1.5, price=10.25)
    second = trader.submit(
        "BTC-USD", "sell", "stop_limit", 2, price=9.5, stop_price=9.75,
        time_in_force="day", client_id="mine",
    )  # fmt: skip
    trader.modify(first, quantity=3.0, price=11.0)
    trader.modify(order_id="V-7", stop_price=1.0)
    trader.cancel(first)
    trader.cancel(order_id="V-7")
    every, some = trader.cancel_all(), trader.cancel_all("AAPL")
    trader.resolve(second)
    taken = loop.wait_for(9)

    kinds = CommandKind
    assert [said(command) for command in taken] == [
        {
            "kind": kinds.SUBMIT, "client_id": first, "symbol": "AAPL", "side": "buy",
            "type": "limit", "quantity": 1.5, "price": 10.25,
        },
        {
            "kind": kinds.SUBMIT, "client_id": "mine", "symbol": "BTC-USD",
            "side": "sell", "type": "stop_limit", "time_in_force": "day",
            "quantity": 2.0, "price": 9.5, "stop_price": 9.75,
        },
        {"kind": kinds.MODIFY, "client_id": first, "quantity": 3.0, "price": 11.0},
        {"kind": kinds.MODIFY, "client_id": "", "order_id": "V-7", "stop_price": 1.0},
        {"kind": kinds.CANCEL, "client_id": first},
        {"kind": kinds.CANCEL, "client_id": "", "order_id": "V-7"},
        {"kind": kinds.CANCEL_ALL, "client_id": every},
        {"kind": kinds.CANCEL_ALL, "client_id": some, "symbol": "AAPL"},
        {"kind": kinds.RESOLVE, "client_id": "mine"},
    ]  # fmt: skip
    assert {command.problem for command in taken} == {""}
    assert {command.channel for command in taken} == {f"commands-{os.getpid()}"}
    assert second == "mine"


def test_the_ids_are_never_the_same(loop, trader):
    given = [trader.submit(*LIMIT, price=1.0) for _ in range(50)]

    assert len(set(given)) == 50
    assert all(len(client_id) <= 32 for client_id in given)
    assert [each.client_id for each in loop.wait_for(50)] == given


def test_a_deadline_is_counted_from_the_call(loop, trader):
    before_ns = time.monotonic_ns()
    trader.cancel("a", deadline_s=0.25)
    after_ns = time.monotonic_ns()
    (taken,) = loop.wait_for(1)

    assert before_ns <= taken.sent_ns <= after_ns
    assert taken.deadline_ns - taken.sent_ns == SECOND_NS // 4


def test_the_longest_patience_is_not_too_long_for_a_turn_that_began_before(tmp_path):
    feed = Feed(tmp_path)
    with Loop(feed) as loop:
        trader = Trader("md", directory=tmp_path)
        loop.stop()
        now_ns = time.monotonic_ns()
        trader.cancel("a", deadline_s=60)
        (taken,) = feed.commands.poll(now_ns)
        trader.close()
    feed.close()

    assert taken.problem == ""


def test_a_command_of_no_time_is_expired(loop, trader):
    trader.cancel("a", deadline_s=0)

    assert loop.wait_for(1)[0].is_expired


@pytest.mark.parametrize(
    ("call", "arguments", "reason"),
    [
        ("submit", (("AAPL", "hold", "limit", 1), {"price": 1}), "side is 'hold'"),
        ("submit", (("AAPL", None, "limit", 1), {"price": 1}), "side of SUBMIT is 0"),
        ("submit", (("AAPL", "buy", "iceberg", 1), {}), "type is 'iceberg'"),
        ("submit", (LIMIT, {"price": 1, "time_in_force": "x"}), "time_in_force is 'x'"),
        ("submit", (LIMIT, {}), "price of SUBMIT is nan"),
        ("submit", (LIMIT, {"price": -1}), "price of SUBMIT is -1"),
        ("submit", (("aapl", "buy", "market", 1), {}), "symbol of SUBMIT"),
        ("submit", (("A" * 33, "buy", "market", 1), {}), "not 32 characters or less"),
        ("submit", (("AAPL", "buy", "market", 0), {}), "quantity of SUBMIT is 0"),
        ("submit", (LIMIT, {"price": 1, "client_id": "a b"}), "client_id of SUBMIT"),
        ("submit", (LIMIT, {"price": 1, "deadline_s": 61}), "deadline_s is 61"),
        ("submit", (LIMIT, {"price": 1, "deadline_s": -1}), "deadline_s is -1"),
        ("submit", (LIMIT, {"price": 1, "deadline_s": float("nan")}), "deadline_s"),
        ("modify", (("a",), {}), "MODIFY changes nothing"),
        ("modify", ((), {"price": 1}), "client_id of MODIFY"),
        ("cancel", ((), {}), "client_id of CANCEL"),
        ("cancel", (("x" * 33,), {}), "not 32 characters or less"),
        ("cancel", (("sch\u00f6n " * 2,), {}), "client_id of CANCEL"),
        ("cancel_all", (("a",), {}), "symbol of CANCEL_ALL"),
        ("resolve", (("",), {}), "client_id of RESOLVE"),
    ],
)
def test_what_makes_no_sense_is_not_given(loop, trader, call, arguments, reason):
    positional, named = arguments
    with pytest.raises(ValueError, match=reason):
        getattr(trader, call)(*positional, **named)
    trader.cancel("after")

    assert [each.client_id for each in loop.wait_for(1)] == ["after"]


def test_a_full_channel_is_an_error_and_loses_nothing(loop, tmp_path):
    with Trader("md", directory=tmp_path, capacity=64) as trader:
        loop.polls = False
        given, refused = [], 0
        while not refused:
            given.append(f"{len(given)}")
            try:
                trader.cancel(given[-1], deadline_s=10)
            except ChannelFull as error:
                refused = error.capacity
        loop.polls = True
        loop.wait_for(len(given) - 1)
        trader.cancel("after")
        taken = loop.wait_for(len(given))

    assert refused == 64
    assert len(given) >= 65
    assert [each.client_id for each in taken] == [*given[:-1], "after"]


def test_a_sleeping_handler_is_woken(tmp_path):
    """It would sleep for a minute: what comes in time, comes because it was woken."""
    with running(tmp_path, beat_s=60) as loop:
        began_ns = time.monotonic_ns()
        with Trader("md", directory=tmp_path) as trader:
            for number in range(5):
                trader.cancel(f"{number}")
                loop.wait_for(number + 1)
        took_ns = time.monotonic_ns() - began_ns

    assert [each.problem for each in loop.taken] == [""] * 5
    assert took_ns < 10 * SECOND_NS


# ── no handler ────────────────────────────────────────────────────────────────────────


def test_without_a_feed_there_is_no_handler(tmp_path):
    with pytest.raises(
        HandlerGone, match="no handler takes commands of md: there is no"
    ):
        Trader("md", directory=tmp_path)

    assert names(tmp_path) == set()


def test_a_feed_that_takes_no_commands_does_not_come(tmp_path):
    feed = Feed(tmp_path)
    feed.commands.close()
    before = names(tmp_path)
    with pytest.raises(HandlerGone, match=r"it did not come in 0\.02 s"):
        Trader("md", directory=tmp_path, timeout_s=0.02)

    assert names(tmp_path) == before
    feed.close()


def test_a_feed_that_ended_has_no_handler(tmp_path):
    feed = Feed(tmp_path)
    feed.commands.close()
    feed.board.release()
    feed.owned.close(persist=True)
    with pytest.raises(HandlerGone, match="its board is CLOSED"):
        Trader("md", directory=tmp_path)


def test_a_socket_that_is_none_is_refused(tmp_path):
    feed = Feed(tmp_path)
    feed.commands.close()
    (tmp_path / ".fh-md.wake").touch()
    with pytest.raises(RingError, match="is not a socket of ours"):
        Trader("md", directory=tmp_path, timeout_s=1)
    feed.close()

    assert names(tmp_path) == {".fh-md.wake"}


def test_a_cursor_that_is_none_is_refused(tmp_path):
    feed = Feed(tmp_path)
    (tmp_path / f"fh-md.cursor-{os.getpid()}").write_bytes(b"x" * 12_288)
    with pytest.raises(RingInvalid, match="magic"):
        Trader("md", directory=tmp_path, timeout_s=1)
    feed.close()


def test_there_is_one_trader_in_a_process(loop, trader, tmp_path):
    with pytest.raises(RingBusy):
        Trader("md", directory=tmp_path)
    trader.cancel("still")
    trader.close()
    with Trader("md", directory=tmp_path) as another:
        another.cancel("another")
        loop.wait_for(2)

    assert [each.client_id for each in loop.taken] == ["still", "another"]
    assert [each.problem for each in loop.taken] == ["", ""]


def test_what_the_handler_left_behind_is_told_once(tmp_path):
    with running(tmp_path) as loop:
        trader = Trader("md", directory=tmp_path)
        trader.cancel("taken")
        loop.wait_for(1)
        loop.polls = False
        trader.cancel("left-1", deadline_s=30)
        trader.cancel("left-2", deadline_s=30)
    taken = [each.client_id for each in loop.taken]
    with pytest.raises(HandlerGone):
        trader.cancel("refused")
    expired = [each.client_id for each in trader.expired()]
    with running(tmp_path) as loop:
        trader.cancel("again")
        again = [each.client_id for each in loop.wait_for(1)]
        trader.close()

    # Some were taken before the loop heard that it is not to take any.
    assert taken + expired == ["taken", "left-1", "left-2"]
    assert trader.expired() == []
    assert again == ["again"]
    assert names(tmp_path) == set()


def test_a_handler_that_stands_still_is_gone_and_takes_nothing_later(tmp_path):
    with running(tmp_path) as loop:
        trader = Trader("md", directory=tmp_path)
        feed = loop.feed
        loop.stop()
        trader.cancel("left", deadline_s=30)
        (channel,) = feed.commands._channels.values()
        channel.cursor.heartbeat(time.monotonic_ns() - SECOND_NS - 1)
        with pytest.raises(HandlerGone, match="it does not beat"):
            trader.cancel("refused")
        expired = [each.client_id for each in trader.expired()]
        is_connected = trader.is_connected
        # The old channel's, as it comes back to itself.
        late = feed.poll()
        feed.beat()
        late += feed.poll()
        with Loop(feed) as another:
            trader.cancel("again")
            again = another.wait_for(1)
            trader.close()

    assert (expired, is_connected) == (["left"], False)
    assert [(each.client_id, each.is_expired) for each in late] == [("left", True)]
    assert [(each.client_id, each.problem) for each in again] == [("again", "")]


def test_expired_looks_for_the_handler_itself(tmp_path):
    with running(tmp_path) as loop:
        trader = Trader("md", directory=tmp_path)
        loop.stop()
        trader.cancel("left", deadline_s=30)
        before = trader.expired()
    after: list[Command] = []
    until(lambda: after.extend(trader.expired()) or after)
    trader.close()

    assert (before, [each.client_id for each in after]) == ([], ["left"])
    assert after[0].kind is CommandKind.CANCEL
    assert after[0].channel == f"commands-{os.getpid()}"
    assert not trader.is_connected


def test_after_a_goodbye_nothing_is_given(loop, tmp_path):
    trader = Trader("md", directory=tmp_path)
    trader.cancel("before")
    trader.close()
    trader.close()
    with pytest.raises(ValueError, match="trader is closed"):
        trader.cancel("after")

    assert [each.problem for each in loop.wait_for(1)] == [""]
    assert trader.expired() == []
    until(lambda: not [name for name in names(tmp_path) if "curs" in name])


# ── beside the feed ───────────────────────────────────────────────────────────────────


def test_a_consumer_opens_a_trader_and_hears_the_answers(loop, tmp_path):
    size = Ring.size_for(ORDER_EVENT, 64)
    with (
        shm.create("md", "orders", size, directory=tmp_path) as owned,
        feedhandler.attach("md", directory=tmp_path) as market,
    ):
        ring = Ring(owned.buffer, ORDER_EVENT, 64, owned.origin)
        owned.publish()
        with market.trader() as trader:
            orders = trader.orders()
            client_id = trader.submit("AAPL", "buy", "market", 1.0)
            (taken,) = loop.wait_for(1)
            event = np.zeros(1, ORDER_EVENT)
            event["client_id"] = taken.client_id
            ring.publish_record(event)
            answered = orders.poll()["client_id"].tolist()
        ring.release()

    assert answered == [client_id.encode()]


def test_a_trader_of_its_own_has_no_streams(trader):
    with pytest.raises(ValueError, match=r"MarketData\.trader"):
        trader.orders()


def run(script: str, *arguments) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_forked_child_has_to_open_its_own(loop, tmp_path):
    told = run(
        """
        import os, sys
        from feedhandler.trader import Trader

        trader = Trader("md", directory=sys.argv[1])
        trader.cancel("parent-1")
        pid = os.fork()
        if pid == 0:
            try:
                trader.cancel("child-1")
            except ValueError as error:
                print("belongs to process" in str(error), flush=True)
            trader.close()
            with Trader("md", directory=sys.argv[1]) as own:
                own.cancel("child-2")
            os._exit(0)
        os.waitpid(pid, 0)
        trader.cancel("parent-2")
        trader.close()
        """,
        tmp_path,
    )
    taken = loop.wait_for(3)

    assert told == "True\n"
    # Of two channels, either may be first.
    given = sorted(each.client_id for each in taken)
    assert given == ["child-2", "parent-1", "parent-2"]
    assert {each.problem for each in taken} == {""}


def test_a_trader_loads_neither_asyncio_nor_picows():
    told = run(
        """
        import sys
        import feedhandler.trader
        print(sorted({"asyncio", "picows", "msgspec", "uvloop"} & set(sys.modules)))
        """
    )

    assert told == "[]\n"


def test_the_errors_say_what_happened():
    assert issubclass(ChannelFull, FeedError)
    assert issubclass(HandlerGone, FeedError)
    assert str(ChannelFull(64)) == "64 commands wait for the handler, no room for more"
    assert errors.HandlerGone("md", "why").reason == "why"

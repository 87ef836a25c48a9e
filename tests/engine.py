"""An engine that trades as fast as it is let, and says what it gave and what it heard.

``python -m tests.engine NAME``: lines on stdout, *giving ID* before and *gave ID* after
a command, then how it ended: *unsent*, *expired*, *absent* or *told ID*. After a
handler was gone, *settled* when all from before have ended. SIGTERM has it give no
more, wait for what is open, and say *end N*.
"""

import signal
import sys
import time
from typing import Any

from feedhandler import attach
from feedhandler.client_ids import ClientIds
from feedhandler.consumer import MarketData, Stream
from feedhandler.errors import ChannelFull, FeedError, HandlerGone
from feedhandler.records import (
    CommandKind,
    EventCause,
    EventReason,
    OrderOperation,
)
from feedhandler.trader import Trader

PACE_S = 0.002
AGAIN_S = 0.2
PATIENCE_S = 20.0
UNSENT = {
    EventCause.CAUSE_EXPIRED,
    EventCause.CAUSE_GUARDED,
    EventCause.CAUSE_THROTTLED,
    EventCause.CAUSE_NOT_CONNECTED,
}


def say(*words: object) -> None:
    print(*words, flush=True)


class Engine:
    """One process: its orders that have not ended, and from when they are."""

    def __init__(self, market: MarketData, trader: Trader) -> None:
        self.trader = trader
        self.answers: Stream = market.orders()
        self.ids = ClientIds()
        self.open: set[str] = set()
        self.old: set[str] = set()
        self.asked_s = 0.0
        self.stopping = False
        self.was_gone = False

    def turn(self) -> None:
        try:
            if not self.stopping:
                self.give()
            self.leave()
            self.hear()
            self.ask()
        except HandlerGone:
            self.was_gone = True
            self.old = set(self.open)
            self.leave()
            time.sleep(0.05)
        if self.was_gone and self.trader.is_connected and not self.old:
            self.was_gone = False
            say("settled")

    def give(self) -> None:
        name = self.ids.next()
        say("giving", name)
        try:
            self.trader.submit(
                "AAPL", "buy", "limit", 1, price=1.0, time_in_force="ioc",
                client_id=name, deadline_s=0.5,
            )  # fmt: skip
        except ChannelFull:
            say("unsent", name)
        except HandlerGone:
            say("unsent", name)
            raise
        else:
            say("gave", name)
            self.open.add(name)

    def leave(self) -> None:
        """Note what a handler left behind: orders, and questions about others."""
        for command in self.trader.expired():
            if command.kind is CommandKind.SUBMIT:
                self.end(command.client_id, "expired")

    def hear(self) -> None:
        self.answers.look_around()
        for event in self.answers.poll():
            name = event["client_id"].decode()
            if name in self.open:
                self.judge(name, event)

    def judge(self, name: str, event: Any) -> None:
        cause = EventCause(event["cause"])
        is_submit = event["operation"] == OrderOperation.OPERATION_SUBMIT
        if cause in UNSENT:
            # Of a question, it says that the handler does not know yet.
            if is_submit:
                self.end(name, "unsent")
        elif cause == EventCause.CAUSE_REFUSED and not is_submit:
            if event["reason"] == EventReason.REASON_ORDER_NOT_FOUND:
                self.end(name, "absent")
        elif cause not in (EventCause.CAUSE_SENT, EventCause.CAUSE_LOST):
            self.end(name, "told")

    def ask(self) -> None:
        """Ask what became of what a handler that is gone had taken."""
        now_s = time.monotonic()
        if self.old and now_s > self.asked_s + AGAIN_S:
            self.asked_s = now_s
            for name in self.old:
                self.trader.resolve(name)

    def end(self, name: str, how: str) -> None:
        say(how, name)
        self.open.discard(name)
        self.old.discard(name)


def main() -> None:
    with attach(sys.argv[1]) as market, market.trader(timeout_s=PATIENCE_S) as trader:
        engine = Engine(market, trader)

        def stop(*_: object) -> None:
            engine.stopping = True

        signal.signal(signal.SIGTERM, stop)
        deadline_s = None
        while not (engine.stopping and not engine.open):
            engine.turn()
            if engine.stopping and deadline_s is None:
                deadline_s = time.monotonic() + PATIENCE_S
                engine.old = set(engine.open)
            if deadline_s is not None and time.monotonic() > deadline_s:
                break
            time.sleep(PACE_S)
        say("end", len(engine.open))


if __name__ == "__main__":
    try:
        main()
    except FeedError as error:
        sys.exit(f"engine: {error!r}")

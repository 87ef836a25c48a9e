"""What goes wrong with orders beside the sixteen cuts: F-64 to F-75, a life each."""

import gc
from collections.abc import Callable
from functools import partial

from feedhandler.protocol.messages import BatchSubmit, ModifyOrderData
from feedhandler.trading import Sent
from tests.sim.network import Fault
from tests.sim.order_client import Make
from tests.sim.order_life import CELLS, LATEST_NS, Life, Report, action_of
from tests.sim.order_venue import Strike, price_of
from tests.sim.world import MS, SECOND

__all__ = ["LIVES", "OTHERS", "live", "live_with"]

ANY = ("submit", "cancel", "modify", "batch")
ROUNDS = 6
IN_FLIGHT = 100
LATE_S = 11.0


class Late(Life):
    """An answer comes after 11 s, when nobody waits any more, or never (F-64)."""

    def happen(self) -> None:
        self.venue.rest(True)
        self.wait(SECOND)
        operation = self.random.choice(("submit", "cancel", "modify"))
        faults = self.venue.faults
        if self.random.random() < 0.7:
            faults.spoil_answer(
                action_of(operation), "delay", processed=True, delay_s=LATE_S
            )
        else:
            done = self.random.random() < 0.5
            faults.spoil_answer(action_of(operation), "drop", processed=done)
        mute = self.random.random() < 0.5 and self.target() is not None
        if mute:
            # Nothing but the answer tells of it.
            faults.freeze("user_orders")
        self.process.ask(self.quiet(operation))
        self.wait(SECOND)
        faults.thaw("user_orders")
        self.venue.rest(mute)
        self.wait(round(LATE_S * SECOND))
        self.judge.disturb()

    def quiet(self, operation: str) -> Callable[[], Sent]:
        """Return an operation with which no trade follows."""
        if operation == "cancel":
            return self.operation("cancel")
        client_id = self.target()
        if operation == "modify" and client_id is not None:
            change = ModifyOrderData(client_order_id=client_id, quantity=50)
            return partial(self.process.flow.modify, change, self.world.now_ns)
        terms = self.terms() | {
            "symbol": "AAPL", "side": "buy", "type": "limit", "quantity": 3,
            "price": price_of("AAPL", -9), "stop_price": None, "time_in_force": "gtc",
        }  # fmt: skip
        return self.placing(terms)


class Twice(Life):
    """Answers come twice, and so do updates and fills (F-65)."""

    def happen(self) -> None:
        link = self.process.trading.link
        assert link is not None
        for kind in (b"order_response", b"batch_response", b"user_trade", b"_update"):
            link.down.faults.append(Fault("duplicate", 100, kind))
        for _ in range(ROUNDS):
            self.ask(self.operation(self.random.choice(ANY)))
            self.wait(self.random.randrange(SECOND))
        self.judge.disturb()


class Race(Life):
    """A fill meets a cancel or a modification on its way (F-67, F-68)."""

    operation_name = "cancel"

    def happen(self) -> None:
        for _ in range(ROUNDS):
            client_id = self.target()
            for _ in range(self.random.randint(0, 2)):
                delay_ns = self.random.randrange(250 * MS)
                self.world.after(delay_ns, self.venue.hit, client_id)
            self.ask(self.operation(self.operation_name))
            self.wait(self.random.randrange(400 * MS))
        self.judge.disturb()


class ModifyRace(Race):
    """The same of a modification, also to less than has traded."""

    operation_name = "modify"


class HalfBatch(Life):
    """A batch is broken off after some of its operations (F-69)."""

    def happen(self) -> None:
        count = self.random.randint(2, 8)
        operations, flow = self.operations(count), self.process.flow
        how = self.random.choice(("rst", "fin", "close"))
        strike = Strike("batch_orders", "i", how, 0, self.random.randrange(count))
        now_ns = self.world.now_ns
        self.strike(lambda: flow.batch(operations, now_ns), strike)
        self.after_cut()


class Stalled(Life):
    """The loop is stuck while the venue tells what there is (F-58)."""

    def happen(self) -> None:
        for _ in range(self.random.randint(1, 3)):
            self.ask(self.operation(self.random.choice(ANY)))
        trading = self.process.trading
        assert trading.link is not None
        trading.link.cut()
        self.until(lambda: not self.is_back(trading), SECOND)
        self.until(lambda: self.is_back(trading), 60 * SECOND)
        if trading.link is not None:
            # What is told comes bit by bit.
            trading.link.down.slow_down(100 * MS)
        route = trading.session.routes["user_orders"]
        until_ns = self.world.now_ns + SECOND
        while not route.confirmed and self.world.now_ns < until_ns:
            self.wait(MS)
        self.wait(self.random.randrange(100 * MS))
        stuck_ns = self.random.randrange(1, 12) * SECOND
        self.process.client.stall(stuck_ns)
        self.attempt()
        self.wait(stuck_ns)
        self.until(lambda: self.is_back(trading), 60 * SECOND)
        self.judge.disturb()


class Switched(Life):
    """Everything is to be canceled, and nothing goes out any more; then a cut."""

    def happen(self) -> None:
        self.ask(self.operation(self.random.choice(ANY)))
        cut_first = self.random.random() < 0.5
        for is_cut in (cut_first, not cut_first):
            if is_cut:
                assert self.process.trading.link is not None
                self.process.trading.link.cut()
            else:
                self.process.flow.kill(self.world.now_ns)
                self.process.trading.flush()
            self.wait(self.random.randrange(400 * MS))
        self.until(lambda: self.is_back(self.process.trading), 60 * SECOND)
        self.judge.disturb()
        self.wait(9 * SECOND)
        for order in self.process.flow.orders.open:
            self.findings.fail("SEC-26", self.process.name, f"{order} is left open")


class Limited(Life):
    """The venue's limit is met before ours: a stranger uses the key (F-70)."""

    def happen(self) -> None:
        self.venue.exhaust(100, 0)
        what = self.random.choice(("submit", "batch"))
        sent = self.ask(self.operation(what))
        self.wait(SECOND)
        if sent is None or not self.judge.refusals.get("rate_limit_exceeded"):
            raise AssertionError("the venue's limit was not met")
        self.limited_ns = self.world.now_ns + 61 * SECOND
        self.attempt()
        self.wait(61 * SECOND)
        self.judge.disturb()


class Internal(Life):
    """The answer is internal_error, whether or not it was done (F-71)."""

    def happen(self) -> None:
        operation = self.random.choice(ANY)
        done = self.random.random() < 0.5
        self.have_target()
        self.venue.faults.spoil_answer(action_of(operation), "error", processed=done)
        self.ask(self.operation(operation))
        self.judge.disturb()
        self.wait(SECOND)
        if not self.judge.refusals.get("internal_error"):
            raise AssertionError("there was no internal_error")


class Hundred(Life):
    """A hundred orders are in flight when the connection ends (F-72)."""

    def happen(self) -> None:
        flow = self.process.flow
        left = IN_FLIGHT
        while left:
            count = min(left, self.random.choice((1, 1, 1, 10)))
            now_ns = self.world.now_ns
            if count == 1:
                self.process.ask(self.placing(self.terms()))
            else:
                batch = [BatchSubmit(**self.terms()) for _ in range(count)]
                self.process.ask(partial(flow.batch, batch, now_ns))
            left -= count
        link = self.process.trading.link
        assert link is not None
        self.world.after(self.random.randrange(300 * MS), link.cut)
        self.after_cut()


class Restart(Life):
    """The venue begins anew, and knows of no order; or it only says so (F-73)."""

    def happen(self) -> None:
        for _ in range(self.random.randint(1, 3)):
            self.ask(self.operation(self.random.choice(ANY)))
        self.wait(self.random.randrange(300 * MS))
        if self.random.random() < 0.25:
            self.venue.end_all(4004, "server restarting")
        else:
            self.whole = False
            down_ns = self.random.randrange(200, 3000) * MS
            self.venue.restart(down_ns, crash=self.random.random() < 0.5)
        self.attempt()
        hosts = self.process.hosts
        self.until(lambda: not any(map(self.is_back, hosts)), 10 * SECOND)
        self.until(lambda: all(map(self.is_back, hosts)), 60 * SECOND)
        self.judge.disturb()


class Killed(Life):
    """The client dies; one that knows of nothing takes its place (F-74)."""

    def happen(self) -> None:
        for _ in range(self.random.randint(1, 3)):
            self.ask(self.operation(self.random.choice(ANY)))
        self.wait(self.random.choice((0, self.random.randrange(300 * MS))))
        late_ns = self.random.choice((0, 0, self.random.randrange(LATEST_NS)))
        self.process.die(late_ns)
        self.wait(self.random.randrange(3 * SECOND))
        self.process = self.born("q")
        self.process.client.start()
        self.attempt()
        self.until(lambda: self.is_back(self.process.trading), 30 * SECOND)
        self.judge.disturb()


class Replayed(Life):
    """Channels are subscribed to again and again: all is told again (F-75)."""

    def happen(self) -> None:
        trading = self.process.trading
        for _ in range(ROUNDS):
            channel = self.random.choice(("user_trades", "user_trades", "user_orders"))
            trading.session.refresh(channel, self.world.now_ns)
            trading.flush()
            self.ask(self.operation(self.random.choice(ANY)))
            self.wait(self.random.randrange(1500 * MS))
        self.judge.disturb()


OTHERS: dict[str, type[Life]] = {
    "F-58": Stalled,
    "F-64": Late,
    "F-65": Twice,
    "F-67": Race,
    "F-68": ModifyRace,
    "F-69": HalfBatch,
    "F-70": Limited,
    "F-71": Internal,
    "F-72": Hundred,
    "F-73": Restart,
    "F-74": Killed,
    "F-75": Replayed,
    "kill": Switched,
}
LIVES: dict[str, type[Life]] = dict.fromkeys(CELLS, Life) | OTHERS
"""By what a life is about: what it is like."""


def live(what: str, seed: int) -> Report:
    """Live the life of a seed, and return what became of its orders."""
    return live_with(what, seed, None)


def live_with(what: str, seed: int, make: Make | None) -> Report:
    """Live it with a process that is made otherwise."""
    # A life ends before the collector would find anything.
    gc.disable()
    try:
        life = LIVES[what](what, seed, make)
        report = life.run()
        life.world.forget()
        return report
    finally:
        gc.enable()

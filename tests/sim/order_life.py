"""One life of an order desk, from a seed: what it asks is cut off at a chosen point.

Sixteen cells (F-63): an operation and a point; beside them what else goes wrong with
orders (F-64 to F-75). The seed decides all the rest.
"""

import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from feedhandler.protocol.messages import (
    BatchCancel,
    BatchModify,
    BatchSubmit,
    CancelOrderData,
    ModifyOrderData,
    OrderData,
)
from feedhandler.trading import BatchOperation, Sent
from tests.sim.findings import Findings
from tests.sim.network import Fault, Network, Pipe
from tests.sim.order_client import Make, OrderHost, Process, is_sending
from tests.sim.order_judge import OrderJudge
from tests.sim.order_venue import (
    ALL_LIMITS,
    OrderVenue,
    RoomyVenue,
    Strike,
    price_of,
    sever,
)
from tests.sim.venue_judge import VenueJudge
from tests.sim.world import MS, SECOND, World

__all__ = ["CELLS", "LATEST_NS", "Life", "Report", "action_of"]

OPERATIONS = ("submit", "cancel", "modify", "batch")
POINTS = ("a", "b", "c", "d")
CELLS = tuple(f"{what} {point}" for what in OPERATIONS for point in POINTS)

RESOLVES_WITHIN_NS = 10 * SECOND
CONNECTS_WITHIN_NS = 120 * SECOND
# What goes on for so long after all is known, and is then looked at again.
CALM_NS = 3 * SECOND
# The kernel's own patience with what a client sent and did not reset; less than the
# five seconds that the desk waits for what it was not told of.
LATEST_NS = 4 * SECOND
ATTEMPT_NS = 300 * MS


class Report(NamedTuple):
    """What became of a life: of what it was, how long all took, what was wrong.

    *doubted*: orders of which something was unknown for a while. *resolved_s* is from
    the last connection on, *healed_s* from when there could be one; *limited* says that
    the venue's limit was met, and waited for.
    """

    what: str
    seed: int
    orders: int
    doubted: int
    limited: bool
    duplicates: int
    unknown: int
    fills: int
    early: int
    resolved_s: float
    healed_s: float
    refused: dict[str, int]
    log_hash: str
    failures: list[str]


class Life:
    """All that there is in a life."""

    def __init__(self, what: str, seed: int, make: Make | None = None) -> None:
        self.what = what
        self.world = World(seed)
        self.random = self.world.random(f"desk {what}")
        self.roomy = what == "F-72"
        self.make = make or Make()
        if self.roomy:
            self.make.limit, self.make.urgent = ALL_LIMITS, ALL_LIMITS // 2
        self.findings = Findings(self.world)
        self.judge = OrderJudge(self.world, self.findings)
        if self.roomy:
            self.judge.unlimited()
        self.network = Network(self.world, self._spoiled)
        pause_ns = self.random.choice((100, 400, 1500)) * MS
        observer = VenueJudge(self.world, self.findings, limits_provoked=True)
        venue_type = RoomyVenue if self.roomy else OrderVenue
        self.venue = venue_type(self.world, self.network, observer, pause_ns)
        self.count = 0
        self.process = self.born("p")
        self.heal_ns = 0
        self.limited_ns = 0
        self.whole = True

    def _spoiled(
        self, pipe: Pipe, fault: Fault, payload: bytes, became: list[bytes]
    ) -> None:
        self.world.note("fault", "spoils", fault.kind)

    def born(self, name: str) -> Process:
        """Have a process that knows of nothing."""
        return Process(
            self.world, self.network, self.judge, self.random, self.make, name
        )

    def run(self) -> Report:
        """Live it."""
        try:
            self._live()
        except Exception:
            self.findings.fail("I-23", "somebody", traceback.format_exc(limit=-6))
        failures, judge = self.findings.failures, self.judge
        counts = {
            kind: sum(line.startswith(kind) for line in failures)
            for kind in ("unknown", "fills")
        }
        again = sum(count - 1 for count in judge.submitted.values())
        placed = self.venue.past.by_client_id()
        again += sum(len(o) - 1 for client_id, o in placed.items() if client_id)
        return Report(
            self.what, self.world.seed, len(judge.submitted), len(judge.doubted),
            "rate_limit_exceeded" in judge.refusals, again,
            counts["unknown"], counts["fills"], judge.early,
            judge.since_s(judge.disturbed_ns), judge.since_s(self.heal_ns),
            judge.refusals, self.world.log_hash(), failures,
        )  # fmt: skip

    def _live(self) -> None:
        self.process.client.start()
        self.until(lambda: self.process.flow.is_ready, 30 * SECOND)
        self.stock()
        self.venue.rest(False)
        self.happen()
        self._resolve()
        self._stop()

    def happen(self) -> None:
        """Let that happen which the life is about."""
        operation, point = self.what.split()
        self.cut(operation, point)

    # ── its course ────────────────────────────────────────────────────────────────

    def until(self, is_so: Callable[[], bool], most_ns: int) -> bool:
        """Let time pass until something is so, but not for ever."""
        until_ns = self.world.now_ns + most_ns
        while not is_so() and self.world.now_ns < until_ns:
            self.world.run(self.world.now_ns + 50 * MS)
        return is_so()

    def wait(self, duration_ns: int) -> None:
        """Let time pass."""
        self.world.run(self.world.now_ns + duration_ns)

    def stock(self) -> None:
        """Have a few orders in the market, which nobody trades with yet."""
        for _ in range(self.random.randint(3, 6)):
            steps = self.random.randint(1, 8)
            side = self.random.choice(("buy", "sell"))
            terms = self.terms() | {
                "side": side, "type": "limit", "time_in_force": "gtc",
                "stop_price": None, "quantity": 10,
            }  # fmt: skip
            terms["price"] = price_of(
                terms["symbol"], -steps if side == "buy" else steps
            )
            self.ask(self.placing(terms))
        self.wait(2 * SECOND)

    def _resolve(self) -> None:
        """Wait for the connection, and then for all to be known, for 10 s at most."""
        judge, process = self.judge, self.process
        self.heal_ns = max(self.heal_ns, self.world.now_ns)
        self.world.run(self.heal_ns)
        self.network.heal()
        trading = process.trading

        def is_settled() -> bool:
            return self.is_back(trading) and self.world.now_ns >= self.limited_ns

        if not self.until(is_settled, CONNECTS_WITHIN_NS):
            judge._fail("I-22", trading, "is not connected again")
        self.until(lambda: judge.resolved_ns is not None, RESOLVES_WITHIN_NS)
        if judge.resolved_ns is None:
            left = process.flow.orders.open
            judge._fail("unknown", trading, f"after 10 s: {left}")

    def _stop(self) -> None:
        """Trade on for a moment, and compare when nothing is on its way any more."""
        self.attempt()
        self.wait(CALM_NS)
        self.venue.rest(True)
        self.wait(2 * SECOND)
        self.until(
            lambda: not any(o.pending for o in self.process.flow.orders.open),
            RESOLVES_WITHIN_NS,
        )
        self.wait(SECOND)
        self.judge.conclude(self.process, self.venue, self.whole)

    # ── what is cut ───────────────────────────────────────────────────────────────

    def cut(self, operation: str, point: str) -> None:
        """Do an operation, and have the connection end at a point of it."""
        random, world = self.random, self.world
        how = random.choice({"a": ("rst", "rst", "late", "silence"),
                             "b": ("rst", "fin", "close", "silence"),
                             "c": ("rst", "fin", "close", "silence"),
                             "d": ("rst", "rst", "silence")}[point])  # fmt: skip
        blocked_ns = random.choice((0, 0, random.randrange(5 * SECOND)))
        if how == "silence":
            # For as long as it takes to find out that nobody is there, and more.
            blocked_ns = random.randrange(21, 32) * SECOND
        self.heal_ns = world.now_ns + blocked_ns
        # The kernel waits longer and longer before it tries again.
        again_ns = self.heal_ns + random.randrange(20 * SECOND)
        self._beside(operation)
        self.have_target()
        target = self.operation(operation)
        if point == "a":
            self._end_here(target, how, again_ns)
        else:
            strike = Strike(action_of(operation), point, how, again_ns)
            self.strike(target, strike)
        self._block(how)
        self.after_cut()

    def have_target(self) -> None:
        """Have an order that can be changed."""
        while self.target() is None:
            self.venue.rest(True)
            self.stock()
            self.venue.rest(False)

    def strike(self, target: Callable[[], Sent], strike: Strike) -> None:
        """Do an operation that the venue is to break off."""
        self.venue.strike = strike
        self.ask(target)
        if not self.until(lambda: self.venue.struck, SECOND):
            raise AssertionError(f"{strike} did not happen")

    def _end_here(self, target: Callable[[], Sent], how: str, again_ns: int) -> None:
        """Have the bytes never leave: kept by us, lost by the kernel, or late."""
        random, world, host = self.random, self.world, self.process.trading
        self.ask(target, flush=random.random() < 0.6)
        link = host.link
        assert link is not None
        if how == "late":
            # We see an end, and have nothing to reset: the kernel goes on to deliver.
            link.up.hold(world.now_ns + random.randrange(LATEST_NS))
            link.down.cut()
        else:
            sever(link, how, again_ns)

    def _block(self, how: str) -> None:
        """Have no new connection be made until it is healed."""
        if self.heal_ns <= self.world.now_ns:
            return
        if how == "silence" or self.random.random() < 0.5:
            self.network.swallows = True
        else:
            self.network.refuses = True
        self.world.at(self.heal_ns, self.network.heal)

    def after_cut(self) -> None:
        """Try to trade all the time, and have other things happen meanwhile."""
        random, world, trading = self.random, self.world, self.process.trading
        self.attempt()
        self.until(lambda: not is_sending(trading), 40 * SECOND)
        self.until(lambda: self.is_back(trading), CONNECTS_WITHIN_NS)
        self.judge.disturb()
        if random.random() < 0.1:
            # A stranger has used up what the key may ask.
            self.venue.exhaust(random.randint(80, 100), 0)
            self.limited_ns = world.now_ns + 61 * SECOND
        if random.random() < 0.35:
            self.wait(random.randrange(7 * SECOND))
            self._cut_again()

    def is_back(self, host: OrderHost) -> bool:
        return is_sending(host) and self.judge.records[host].attempts.logged_in

    def _cut_again(self) -> None:
        """End the connection while it finds out what there is."""
        host = self.process.trading
        self.world.note("fault", "cuts again")
        if host.link is not None:
            host.link.cut()
        self.until(lambda: not self.is_back(host), SECOND)
        self.until(lambda: self.is_back(host), CONNECTS_WITHIN_NS)
        self.judge.disturb()

    def attempt(self) -> None:
        """Try to place an order, again and again until one goes out."""
        sent = self.ask(lambda: self.submit(self.terms()))
        if sent is None and self.count < 400:
            self.world.after(ATTEMPT_NS, self.attempt)

    def _beside(self, operation: str) -> None:
        """Have more be under way than the one operation, and trades around it."""
        random, world = self.random, self.world
        for _ in range(random.choice((0, 0, 1, 3))):
            self.ask(self.operation(random.choice(("submit", "cancel", "modify"))))
        for _ in range(random.choice((0, 1, 4))):
            world.after(random.randrange(600 * MS), self.venue.hit, None)
        if random.random() < 0.5:
            self.wait(random.randrange(400 * MS))

    # ── operations ────────────────────────────────────────────────────────────────

    def ask(self, act: Callable[[], Sent], flush: bool = True) -> Sent | None:
        """Have the process ask for something; its targets trade just then, or not."""
        sent = self.process.ask(act, flush)
        if sent is not None and self.random.random() < 0.5:
            for order in sent.orders:
                delay_ns = self.random.randrange(300 * MS)
                self.world.after(delay_ns, self.venue.hit, order.client_id)
        return sent

    def operation(self, what: str) -> Callable[[], Sent]:
        now_ns = self.world.now_ns
        flow = self.process.flow
        if what == "batch":
            operations = self.operations(self.random.randint(2, 6))
            return lambda: flow.batch(operations, now_ns)
        client_id = self.target()
        if what == "submit" or client_id is None:
            return self.placing(self.terms())
        if what == "cancel":
            which = CancelOrderData(client_order_id=client_id)
            return lambda: flow.cancel(which, now_ns)
        change = ModifyOrderData(client_order_id=client_id, **self.change(client_id))
        return lambda: flow.modify(change, now_ns)

    def operations(self, count: int) -> list[BatchOperation]:
        """Make a batch: of all kinds, and now and then two of one order."""
        made: list[BatchOperation] = []
        for _ in range(count):
            client_id, kind = self.target(), self.random.random()
            if kind < 0.5 or client_id is None:
                made.append(BatchSubmit(**self.terms()))
            elif kind < 0.75:
                made.append(BatchCancel(client_order_id=client_id))
            else:
                made.append(
                    BatchModify(client_order_id=client_id, **self.change(client_id))
                )
        return made

    def target(self) -> str | None:
        orders = [o for o in self.process.flow.orders.open if o.client_id]
        return self.random.choice(orders).client_id if orders else None

    def change(self, client_id: str) -> dict[str, Any]:
        """Choose what is changed of an order: also to less than has traded."""
        order = self.process.flow.orders.by_client_id(client_id)
        assert order is not None
        change: dict[str, Any] = {}
        if self.random.random() < 0.7:
            change["quantity"] = self.random.randint(1, 20)
        if order.price is not None and (not change or self.random.random() < 0.5):
            change["price"] = price_of(order.symbol, self.random.randint(-11, 11))
        return change or {"quantity": 3}

    def placing(self, terms: dict[str, Any]) -> Callable[[], Sent]:
        """Return what places an order of these terms."""
        return lambda: self.submit(terms)

    def submit(self, terms: dict[str, Any]) -> Sent:
        return self.process.flow.submit(OrderData(**terms), self.world.now_ns)

    def terms(self) -> dict[str, Any]:
        """Describe an order: it rests, trades with the rival's or with our own."""
        random = self.random
        self.count += 1
        symbol = "AAPL" if random.random() < 0.8 else "BTC-USD"
        kind = random.choices(
            ("limit", "market", "stop", "stop_limit"), (75, 10, 8, 7)
        )[0]
        side = random.choice(("buy", "sell"))
        sign = 1 if side == "buy" else -1
        price = stop = None
        if kind in ("limit", "stop_limit"):
            price = price_of(symbol, random.randint(-11, 11))
        if kind in ("stop", "stop_limit"):
            stop = price_of(symbol, sign * random.randint(2, 9))
        tifs = ("gtc", "ioc", "fok", "day")
        return {
            "symbol": symbol, "side": side, "type": kind,
            "quantity": random.choice((1, 5, 20, 40)), "price": price,
            "stop_price": stop,
            "time_in_force": random.choices(tifs, (7, 1, 1, 1))[0],
            "client_order_id": f"{self.process.name}-{self.count}",
        }  # fmt: skip


def action_of(operation: str) -> str:
    """Return the name of an operation on the wire."""
    return "batch_orders" if operation == "batch" else f"{operation}_order"

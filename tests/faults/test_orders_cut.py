"""Orders whose connection is cut, over sockets, at each of four points.

The venue's journal and its desk say what came of it, and the proxy what was sent.
"""

import asyncio
import io
import json
from collections import Counter
from typing import Any, NamedTuple

import pytest

from feedhandler.errors import NotConnected
from feedhandler.protocol.channels import TRADING
from feedhandler.protocol.messages import (
    BatchCancel,
    BatchModify,
    BatchSubmit,
    CancelOrderData,
    ModifyOrderData,
)
from feedhandler.testing import FaultProxy
from feedhandler.trading import Sent
from feedhandler.venue import Venue
from feedhandler.venue.config import (
    LimitsConfig,
    SymbolConfig,
    TradersConfig,
    VenueConfig,
)
from feedhandler.venue.exchange import Exchange
from feedhandler.venue.journal import Journal
from tests.loops import eventually, run
from tests.order_past import Difference
from tests.traders import Trader, account, now_ns, terms

OPERATIONS = ("submit", "cancel", "modify", "batch")
POINTS = ("a", "b", "c", "d")
CELLS = [f"{operation} {point}" for operation in OPERATIONS for point in POINTS]
ACTIONS = {"submit": "submit_order", "cancel": "cancel_order",
           "modify": "modify_order", "batch": "batch_orders"}  # fmt: skip
ROUNDS = 5
ONE_WAY_S = 0.01
WITHIN_S = 10.0

CONFIG = VenueConfig(
    port=0,
    accounts=[account("ann"), account("rival")],
    symbols=[SymbolConfig(name="AAPL", previous_close=150)],
    traders=TradersConfig(enabled=False),
    limits=LimitsConfig(authentication_per_minute=1000),
)


class Result(NamedTuple):
    """What came of a cut: what is wrong, and how long it took until all was known."""

    cell: str
    wrong: list[Difference]
    refused: int
    seconds: float


class Scene:
    """A venue, a proxy and a trader who has orders in the market."""

    def __init__(self, venue: Venue, proxy: FaultProxy, journal: io.BytesIO) -> None:
        self.venue, self.proxy = venue, proxy
        self.journal = journal
        self.sent: Counter[str] = Counter()
        self.ann = Trader("ann", proxy.url)
        proxy.up.drop(count=None, action=tuple(ACTIONS.values()), where=self._see)
        for direction in (proxy.up, proxy.down):
            direction.latency(ONE_WAY_S)

    def _see(self, message: dict[str, Any]) -> bool:
        """Count the orders that a message places, and let it pass."""
        self.sent.update(submits(message))
        return False

    def trade(self, side: str, quantity: float, price: float, tif: str) -> None:
        """Have the rival trade, whoever hears of it."""
        assert isinstance(self.venue.market, Exchange)
        data = terms(side, quantity, price, tif=tif)
        self.venue.market.desk.submit("rival", data, None, self.venue.now_ns())
        self.venue.acted()

    async def prepare(self) -> None:
        """Have four orders rest, the first of which has traded in part."""
        await self.ann.ready()
        self.trade("buy", 100, 149.50, "gtc")
        for number in range(4):
            price = round(150.10 + number / 100, 2)
            await self.ann.submit("sell", 10, price, id=f"s-{number}")
        self.trade("buy", 3, 150.10, "ioc")
        await self.ann.agrees()

    def ask(self, operation: str, number: int) -> Sent:
        """Have the flow ask for an operation, in a variation of it."""
        flow = self.ann.flow
        crosses = 149.50 if number % 2 else 150.60
        if operation == "submit":
            return self.ann.place("sell", 5, crosses, id="new")
        if operation == "cancel":
            return flow.cancel(CancelOrderData(client_order_id="s-0"), now_ns())
        if operation == "modify":
            change = ModifyOrderData(client_order_id="s-0", quantity=8, price=crosses)
            return flow.modify(change, now_ns())
        sent = flow.batch(
            [
                BatchSubmit("AAPL", "sell", "limit", 5, crosses, client_order_id="b-1"),
                BatchCancel(client_order_id="s-0"),
                BatchModify(client_order_id="s-1", quantity=6),
                BatchSubmit("AAPL", "sell", "limit", 2, 150.70, client_order_id="b-2"),
            ],
            now_ns(),
        )
        self.ann.note(sent)
        return sent

    def arm(self, action: str, point: str, number: int) -> None:
        """Have the next action of that name be cut at a point."""
        if point == "a":
            # Of its frame nothing, or not all.
            self.proxy.up.cut(number % 4 * 15, reset=True, action=action)
        elif point == "d":
            kinds = ("order_response", "batch_response")
            self.proxy.down.cut(number % 4 * 15, reset=True, type=kinds)
        else:
            self.venue.faults.spoil_answer(action, "cut", processed=point == "c")

    async def cut(self, cell: str, number: int) -> Result:
        """Cut an operation off; trade while nobody is connected; find all out again."""
        operation, point = cell.split()
        ann = self.ann
        self.arm(ACTIONS[operation], point, number)
        gone = len(ann.closed)
        answer = await ann.answer(self.ask(operation, number))
        began_ns = now_ns()
        assert answer is None
        assert len(ann.closed) > gone
        self.trade("buy", 4, 150.12, "ioc")
        refused = await self._trade_on()
        await eventually(self._is_known, f"{cell} to be known")
        seconds = (now_ns() - began_ns) / 1e9
        await ann.agrees()
        wrong = [*ann.differences(), *self._told_twice(), *self._too_early()]
        return Result(cell, wrong, refused, seconds)

    async def _trade_on(self) -> int:
        """Try to place an order until one goes out; return how often that failed."""
        refused = 0
        while True:
            try:
                sent = self.ann.place("sell", 1, 150.80)
            except NotConnected:
                refused += 1
                await asyncio.sleep(0.005)
            else:
                await self.ann.answer(sent)
                return refused

    def _is_known(self) -> bool:
        flow = self.ann.flow
        return flow.is_ready and not any(
            order.is_unknown or order.pending for order in flow.orders.open
        )

    def _told_twice(self) -> list[Difference]:
        return [
            ("I-08", f"{name} went out {n}x") for name, n in self.sent.items() if n > 1
        ]

    def _too_early(self) -> list[Difference]:
        """Find orders that came to the venue before its replay can have been read."""
        asked_ns: dict[int, int] = {}
        trading: set[int] = set()
        found = []
        for line in self.journal.getvalue().splitlines():
            noted = json.loads(line)
            if noted["k"] == "open" and noted["endpoint"] == TRADING:
                trading.add(noted["c"])
            if noted["k"] != "in" or noted["c"] not in trading:
                continue
            message, connection = json.loads(noted["m"]), noted["c"]
            if message["action"] == "subscribe":
                asked_ns.setdefault(connection, noted["t"])
            elif submits(message) or message["action"] == "modify_order":
                waited_ns = noted["t"] - asked_ns.get(connection, noted["t"])
                if waited_ns < 2 * ONE_WAY_S * 1e9:
                    found.append(("early", f"{message} after {waited_ns} ns"))
        return found


def submits(message: dict[str, Any]) -> list[str]:
    """Return the names of the orders that a message places."""
    if message["action"] == "submit_order":
        return [message["data"]["client_order_id"]]
    if message["action"] != "batch_orders":
        return []
    return [
        one["client_order_id"]
        for one in message["data"]["operations"]
        if one["operation"] == "submit"
    ]


async def live(cell: str, number: int) -> Result:
    """Have a venue, a proxy and a trader of its own for one cut."""
    file = io.BytesIO()
    async with (
        Venue(CONFIG, journal=Journal(file)) as venue,
        FaultProxy(venue.url) as proxy,
    ):
        scene = Scene(venue, proxy, file)
        assert isinstance(venue.market, Exchange)
        scene.ann.watch(venue.market)
        async with scene.ann.feed:
            await scene.prepare()
            return await scene.cut(cell, number)


def live_all(numbers: range) -> dict[str, list[Result]]:
    """Live every cell, all at once, so many times."""
    results: dict[str, list[Result]] = {cell: [] for cell in CELLS}

    async def work() -> None:
        for number in numbers:
            for result in await asyncio.gather(*(live(cell, number) for cell in CELLS)):
                results[result.cell].append(result)

    run(work, 60.0 * len(numbers))
    return results


@pytest.fixture(scope="module")
def results() -> dict[str, list[Result]]:
    return live_all(range(1))


@pytest.mark.req("F-63", "I-08", "I-09")
@pytest.mark.parametrize("cell", CELLS)
def test_an_operation_that_is_cut_off_is_done_once_or_not_at_all(
    results: dict[str, list[Result]], cell: str
) -> None:
    (result,) = results[cell]

    assert result.wrong == []
    assert result.refused > 0
    assert result.seconds < WITHIN_S


@pytest.mark.stress
@pytest.mark.req("F-63", "I-08", "I-09")
def test_operations_that_are_cut_off_again_and_again_are_done_once() -> None:
    results = [
        result for found in live_all(range(1, ROUNDS + 1)).values() for result in found
    ]

    for cell in CELLS:
        times = [f"{result.seconds:.2f}" for result in results if result.cell == cell]
        print(f"{cell}: known again after {', '.join(times)} s")
    assert [result.wrong for result in results if result.wrong] == []
    assert max(result.seconds for result in results) < WITHIN_S

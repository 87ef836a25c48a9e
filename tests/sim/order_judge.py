"""Says whether an order desk does right: by the wire, by its own word, by the venue.

The connections are judged as those of every other life; to that comes what concerns
orders (I-08 to I-11). It shares no code with the product's orders.
"""

from typing import TYPE_CHECKING, Any

import msgspec

from feedhandler.order import Cause, Order, Status
from feedhandler.protocol.messages import UserTradeData
from tests.sim.client_side import Host
from tests.sim.findings import Findings
from tests.sim.judge import Judge
from tests.sim.order_venue import OrderPeer, OrderVenue, Past
from tests.sim.record import submits
from tests.sim.venue_side import ACCOUNT
from tests.sim.world import SECOND, World

if TYPE_CHECKING:
    from tests.sim.order_client import Process

__all__ = ["OrderJudge"]

ACTIONS = ("submit_order", "cancel_order", "modify_order", "batch_orders")
OPEN = ("accepted", "partially_filled")
ENDED = (Status.FILLED, Status.CANCELED, Status.EXPIRED, Status.REJECTED)
WORDS = {
    Status.LIVE: "accepted",
    Status.PARTIALLY_FILLED: "partially_filled",
    **{status: status.value for status in ENDED},
}
NEVER = "rejected"

decode = msgspec.json.decode


class OrderJudge(Judge):
    """The account of all that is asked of a venue in a life, and what became of it."""

    def __init__(self, world: World, findings: Findings) -> None:
        super().__init__(world, findings, set())
        self.submitted: dict[str, int] = {}
        """How often each client order id went out to be placed."""
        self.early = 0
        self.doubted: dict[Order, None] = {}
        self.refusals: dict[str, int] = {}
        self._got: dict[Any, int] = {}
        self._desks: list[Process] = []
        self._ended: dict[Order, Status] = {}
        self._fills: dict[tuple[Any, str, str, int], float] = {}
        self._again: set[str] = set()
        # When something last happened that may leave an order unknown, and was over.
        self.disturbed_ns = 0
        self.resolved_ns: int | None = None

    def desk(self, process: "Process") -> None:
        """Begin to watch a process."""
        self._desks.append(process)

    def unlimited(self) -> None:
        """Count nothing: this life has other limits."""
        self._limits.count = lambda *_: None  # type: ignore[method-assign]

    def disturb(self) -> None:
        """Hear of a disturbance: what is known now may not be all."""
        self.disturbed_ns, self.resolved_ns = self._world.now_ns, None

    def beat(self, process: "Process") -> None:
        """See a beat's end: is all known?"""
        if self.resolved_ns is None and process.is_resolved:
            self.resolved_ns = self._world.now_ns

    # ── the wire ──────────────────────────────────────────────────────────────────

    def asks(self, host: Host, request_id: str) -> None:
        """Hear of a request of the flow's, which may never be sent."""
        self.asked(host, request_id)
        self._again.add(request_id)

    def sent(self, host: Host, payload: bytes) -> None:
        """See a message go: no order twice, and none before we know what there is."""
        message = decode(payload)
        if message["action"] in ACTIONS:
            if message["id"] not in self.records[host].asked_ns:
                self.asked(host, message["id"])
            self._order_sent(host, message)
        super().sent(host, payload)

    def _order_sent(self, host: Host, message: dict[str, Any]) -> None:
        for client_id in submits(message):
            self.submitted[client_id] = self.submitted.get(client_id, 0) + 1
        action = message["action"]
        if action == "cancel_order" or not (
            action != "batch_orders" or submits(message)
        ):
            return
        link = host.link
        peer = None if link is None else link.served
        if (
            not isinstance(peer, OrderPeer)
            or peer.told_at is None
            or (self._got.get(link, 0) < peer.told_at)
        ):
            self.early += 1
            self._fail("early", host, f"{action} before the venue has told its orders")

    def delivered(self, host: Host, payload: bytes) -> None:
        """See a message come."""
        self._got[host.link] = self._got.get(host.link, 0) + 1
        super().delivered(host, payload)

    def _hear_error(self, host: Host, record: Any, data: dict[str, Any]) -> None:
        self.refusals[data["code"]] = self.refusals.get(data["code"], 0) + 1
        super()._hear_error(host, record, data)

    def _answer(self, host: Host, record: Any, answer: Any) -> None:
        """Take an answer: a second one only where there was none in time (F-64)."""
        is_late = answer.id in record.answered and answer.id in self._again
        if is_late and answer.message is not None:
            self._again.discard(answer.id)
            return
        super()._answer(host, record, answer)

    def buries(self, host: Host) -> None:
        """Hear that a process has died."""
        self._world.note(host.name, "dies")
        del self.records[host]

    # ── what the desk says ────────────────────────────────────────────────────────

    def order(self, process: "Process", order: Order, cause: Cause) -> None:
        """Hear of an order: its end is final, and its numbers add up (I-11)."""
        self._world.note(process.name, cause.value, repr(order))
        if order.is_unknown or "unknown" in order.pending.values():
            self.doubted[order] = None
        was = self._ended.get(order)
        if was is not None and order.status is not was:
            self._fail("I-11", process.trading, f"{order} was {was.value}")
        is_ours = (order.client_id or "").startswith(f"{process.name}-")
        if cause is Cause.ADOPTED and is_ours:
            self._fail("I-08", process.trading, f"{order} is ours, and was adopted")
        if order.status in ENDED:
            self._ended[order] = order.status
        if abs(order.filled + order.remaining - order.quantity) > 1e-9:
            self._fail("I-11", process.trading, f"{order} does not add up")

    def fill(self, process: "Process", data: UserTradeData) -> None:
        """Hear of a fill: each is told once (I-09)."""
        self._world.note(process.name, "fill", [data.order_id, data.trade_id])
        # A venue that begins anew gives the same ids again.
        key = (process, data.order_id, data.trade_id, data.trade_time)
        if key in self._fills:
            self._fail("I-09", process.trading, f"{data.trade_id} is told again")
        self._fills[key] = data.quantity

    # ── the end ───────────────────────────────────────────────────────────────────

    def conclude(self, process: "Process", venue: OrderVenue, whole: bool) -> None:
        """Compare what a process knows with what there is.

        *whole*: the venue has not forgotten what there was before.
        """
        past, host = venue.past, process.trading
        for client_id, count in self.submitted.items():
            if count > 1:
                self._fail("I-08", host, f"{client_id} went out {count} times")
        for client_id, orders in past.by_client_id().items():
            if len(orders) > 1 and client_id:
                self._fail("I-08", host, f"the venue has {client_id} {len(orders)}x")
        self._compare_open(process, past)
        for order in process.flow.orders.open:
            if order.is_unknown:
                self._fail("unknown", host, f"{order}: {order.reason}")
            elif order.pending:
                self._fail("unknown", host, f"{order}: {order.pending}")
        self._compare_orders(process, past, whole)
        self._compare_fills(process, past, whole)
        self._compare_account(process, venue)
        for wrong in venue.exchange.ledger.conserved():
            self._fail("I-10", host, wrong)

    def _compare_open(self, process: "Process", past: Past) -> None:
        ours = sorted(order.order_id or "?" for order in process.flow.orders.open)
        theirs = sorted(o.order_id for o in past.orders.values() if o.status in OPEN)
        if ours != theirs:
            self._fail("I-08", process.trading, f"open are {ours}, not {theirs}")

    def _compare_orders(self, process: "Process", past: Past, whole: bool) -> None:
        """Compare each order that was ever sent, whether it arrived or not."""
        by_client_id, orders = past.by_client_id(), process.flow.orders
        for client_id in self.submitted:
            if not client_id.startswith(f"{process.name}-") or not whole:
                continue
            order = orders.by_client_id(client_id)
            if order is None:
                self._fail("I-08", process.trading, f"{client_id} is forgotten")
            elif client_id not in by_client_id and order.status.value != NEVER:
                self._fail("I-08", process.trading, f"{order} is none of the venue's")
            elif client_id in by_client_id:
                self._compare_order(process, order, by_client_id[client_id][0])
        for order_id, data in past.orders.items():
            order = orders.by_order_id(order_id)
            if order is None:
                self._fail("I-08", process.trading, f"{data} is not known")
            else:
                self._compare_order(process, order, data)

    def _compare_order(self, process: "Process", order: Order, data: Any) -> None:
        status = WORDS.get(order.status, order.status.value)
        ours = (
            order.order_id, status, order.filled, order.quantity, order.price,
            order.stop_price, order.triggered,
        )  # fmt: skip
        stop = data.stop_price if data.stop_price is not msgspec.UNSET else None
        triggered = data.triggered if data.triggered is not msgspec.UNSET else None
        theirs = (
            data.order_id, data.status, data.filled_quantity, data.quantity,
            data.price, stop, triggered,
        )  # fmt: skip
        if ours != theirs:
            what = "fills" if ours[2] != theirs[2] else "I-11"
            self._fail(what, process.trading, f"{order}: {ours} is not {theirs}")

    def _compare_fills(self, process: "Process", past: Past, whole: bool) -> None:
        """Compare the sums of fills, as they were told, with the venue's (I-09)."""
        theirs = {
            (order_id, trade.trade_id, trade.trade_time): trade.quantity
            for order_id, trades in past.trades.items()
            for trade in trades
        }
        ours = {key[1:]: quantity for key, quantity in self._fills.items()
                if key[0] is process}  # fmt: skip
        if not whole:
            ours = {key: ours[key] for key in ours.keys() & theirs.keys()}
        if ours != theirs:
            differ = sorted(ours.items() ^ theirs.items())[:5]
            self._fail("fills", process.trading, f"differ in {differ}")
        for order_id, trades in past.trades.items():
            order = process.flow.orders.by_order_id(order_id)
            paid = sum(trade.price * trade.quantity for trade in trades)
            size = sum(trade.quantity for trade in trades)
            average = None if order is None else order.average_price
            if average is None or abs(average - paid / size) > 1e-6:
                self._fail("fills", process.trading, f"{order} cost {average}")

    def _compare_account(self, process: "Process", venue: OrderVenue) -> None:
        exchange, marks = venue.exchange, {}
        for name, engine in exchange.engines.items():
            before = exchange._listings[name].previous_close_ticks
            marks[name] = engine.last_ticks or before
        view = venue.exchange.ledger.view(ACCOUNT, marks)
        theirs = {b.currency: b for b in view.balances}
        if process.flow.account.balances != theirs:
            ours = process.flow.account.balances
            self._fail("account", process.trading, f"{ours} is not {theirs}")
        sizes = {p.symbol: p.quantity for p in view.positions}
        held = process.flow.account.positions
        # What is not held any more may be listed or not.
        had = {name: row.quantity for name, row in held.items() if row.quantity}
        if had != {name: size for name, size in sizes.items() if size}:
            self._fail("account", process.trading, f"{held} is not {sizes}")

    def since_s(self, time_ns: int) -> float:
        """Return how long it took until all was known, or how long it has not been."""
        end_ns = self.resolved_ns or self._world.now_ns
        return max(0, end_ns - time_ns) / SECOND

"""Says whether an order desk does right: by the wire, by its own word, by the venue.

The connections are judged as those of every other life; to that comes what concerns
orders (I-08 to I-11). It shares no code with the product's orders.
"""

from typing import TYPE_CHECKING, Any

import msgspec

from feedhandler.order import Cause, Order, Status
from feedhandler.protocol.messages import UserTradeData
from tests.order_past import ENDED
from tests.sim.client_side import Host
from tests.sim.findings import Findings
from tests.sim.judge import Judge
from tests.sim.order_venue import OrderPeer, OrderVenue
from tests.sim.record import submits
from tests.sim.world import SECOND, World

if TYPE_CHECKING:
    from tests.sim.order_client import Process

__all__ = ["OrderJudge"]

ACTIONS = ("submit_order", "cancel_order", "modify_order", "batch_orders")

MOST_CANCELS = 8

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
        self._cancels: dict[str, int] = {}
        self._ended: dict[Order, Status] = {}
        self._fills: dict[tuple[Any, str, str, int], float] = {}
        self._of_embedder: set[str] = set()
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
        self._of_embedder.add(request_id)

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
        if action == "cancel_order":
            self._canceled(host, message["data"].get("client_order_id"))
        if action == "cancel_order" and message["id"] not in self._of_embedder:
            self._probed(host, message["data"].get("client_order_id"))
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

    def _canceled(self, host: Host, client_id: str | None) -> None:
        """Count how often an order is canceled: no storms."""
        name = client_id or ""
        self._cancels[name] = self._cancels.get(name, 0) + 1
        if self._cancels[name] == MOST_CANCELS:
            self._fail("storm", host, f"{client_id} is canceled again and again")

    def _probed(self, host: Host, client_id: str | None) -> None:
        """See the flow cancel an order by itself: none that the venue told of."""
        peer = None if host.link is None else host.link.served
        killed = any(desk.flow.guards.killed for desk in self._desks)
        if killed or not isinstance(peer, OrderPeer):
            return
        if client_id in peer.replayed:
            self._fail("needless", host, f"cancels {client_id}, which it was told of")

    def delivered(self, host: Host, payload: bytes) -> None:
        """See a message come."""
        self._got[host.link] = self._got.get(host.link, 0) + 1
        super().delivered(host, payload)

    def _hear_error(self, host: Host, record: Any, data: dict[str, Any]) -> None:
        self.refusals[data["code"]] = self.refusals.get(data["code"], 0) + 1
        super()._hear_error(host, record, data)

    def _answer(self, host: Host, record: Any, answer: Any) -> None:
        """Take an answer: a second one only where there was none in time (F-64)."""
        is_late = answer.id in record.answered and answer.id in self._of_embedder
        if is_late and answer.message is not None:
            self._of_embedder.discard(answer.id)
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
        fills = {key[1:]: n for key, n in self._fills.items() if key[0] is process}
        submitted = [n for n in self.submitted if n.startswith(f"{process.name}-")]
        if not whole:
            known = {(t.order_id, t.trade_id, t.trade_time)
                     for trades in past.trades.values() for t in trades}  # fmt: skip
            fills = {key: fills[key] for key in fills.keys() & known}
            submitted = []
        for what, why in past.differences(process.flow, fills, submitted):
            self._fail(what, host, why)

    def since_s(self, time_ns: int) -> float:
        """Return how long it took until all was known, or how long it has not been."""
        end_ns = self.resolved_ns or self._world.now_ns
        return max(0, end_ns - time_ns) / SECOND

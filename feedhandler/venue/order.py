"""One order of an account: what it asks for, what became of it, how it is told."""

from feedhandler.protocol.messages import OrderResponseData, OrderUpdateData
from feedhandler.venue.listing import Listing
from feedhandler.venue.matching import Side
from feedhandler.venue.requests import OrderTerms

__all__ = ["SIDE_NAMES", "Order"]

SIDE_NAMES = {Side.BUY: "buy", Side.SELL: "sell"}


class Order:
    """One order of an account, open or ended; *filled* and *lots* are in lots."""

    __slots__ = (
        "account", "client_id", "client_order_id", "created_ms", "engine_id", "filled",
        "id", "kind", "listing", "lots", "price_ticks", "side", "status", "stop_ticks",
        "time_in_force", "triggered", "updated_ms",
    )  # fmt: skip

    def __init__(
        self,
        id: str,
        account: str,
        listing: Listing,
        kind: str,
        terms: OrderTerms,
        now_ms: int,
    ) -> None:
        self.id = id
        self.account = account
        self.listing = listing
        self.kind = kind
        self.side = terms.side
        self.lots = terms.lots
        self.price_ticks = terms.price_ticks
        self.stop_ticks = terms.stop_ticks
        self.time_in_force = terms.time_in_force.name.lower()
        self.client_id: str | None = None
        self.client_order_id: str | None = None
        self.engine_id = 0
        self.filled = 0
        self.status = "accepted"
        self.triggered = False
        self.created_ms = self.updated_ms = now_ms

    @property
    def left(self) -> int:
        """How many lots have not traded."""
        return self.lots - self.filled

    @property
    def open(self) -> bool:
        """Whether anything may still happen to it."""
        return self.status in ("accepted", "partially_filled")

    def response(self, status: str) -> OrderResponseData:
        """Write it as the answer to a request."""
        answer = OrderResponseData(
            status,
            self.id,
            self.client_id,
            self.listing.name,
            SIDE_NAMES[self.side],
            self.kind,
            self._quantity(self.lots),
            self._price(self.price_ticks),
            self.time_in_force,
        )
        self._add_extensions(answer)
        if status != "accepted":
            answer.filled_quantity = self._quantity(self.filled)
            answer.remaining_quantity = self._quantity(self.left)
        return answer

    def update(self) -> OrderUpdateData:
        """Write it as it is now."""
        told = OrderUpdateData(
            self.id,
            self.client_id,
            self.listing.name,
            SIDE_NAMES[self.side],
            self.kind,
            self._quantity(self.lots),
            self._quantity(self.filled),
            self._quantity(self.left),
            self._price(self.price_ticks),
            self.status,
            self.time_in_force,
            self.created_ms,
            self.updated_ms,
        )
        self._add_extensions(told)
        return told

    def _add_extensions(self, data: OrderResponseData | OrderUpdateData) -> None:
        if self.client_order_id is not None:
            data.client_order_id = self.client_order_id
        if self.stop_ticks is not None:
            data.stop_price = self.listing.tick.number(self.stop_ticks)
            data.triggered = self.triggered

    def _quantity(self, lots: int) -> float:
        return self.listing.lot.number(lots)

    def _price(self, ticks: int | None) -> float | None:
        return None if ticks is None else self.listing.tick.number(ticks)

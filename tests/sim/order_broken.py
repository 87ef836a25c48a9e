"""Order desks that are wrong in one way each: a judge who lets one pass is none."""

from typing import Any

from feedhandler.errors import NotConnected, Throttled
from feedhandler.order import Order
from feedhandler.orders import Orders
from feedhandler.protocol.messages import (
    OrderData,
    SubmitOrder,
    UserTradeData,
)
from feedhandler.session import Answer
from feedhandler.trading import OrderFlow, Sent
from tests.sim.network import END
from tests.sim.order_client import Make, OrderSocket

__all__ = ["BROKEN"]


class Insistent(OrderFlow):
    """Sends an order again when it does not know what became of the first."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._asked: dict[str, OrderData] = {}
        self._lost: list[OrderData] = []

    def submit(
        self, data: OrderData, now_ns: int, deadline_ns: int | None = None
    ) -> Sent:
        """Send an order, and remember it."""
        sent = super().submit(data, now_ns, deadline_ns)
        self._asked[sent.request_id] = data
        return sent

    def answered(self, answer: Answer) -> None:
        """Take an answer, or plan to send the order again."""
        super().answered(answer)
        data = self._asked.pop(answer.id, None)
        if data is not None and answer.message is None:
            self._lost.append(data)

    def tick(self, now_ns: int) -> None:
        """Send what was lost as soon as that can be done."""
        super().tick(now_ns)
        while self._lost and self.is_ready:
            try:
                self._session.ask(SubmitOrder(self._lost[0]), now_ns)
            except (NotConnected, Throttled):
                return
            self._lost.pop(0)


class Polite(OrderSocket):
    """Leaves what it has sent to the kernel when it gives a connection up."""

    def let_go(self) -> None:
        """Close the socket, and no more."""
        self.link.up.send(END)


class Hasty(OrderFlow):
    """Lets orders out as soon as there is a connection."""

    def _is_reconciled(self, now_ns: int) -> bool:
        return True


class Trusting(Orders):
    """Takes an internal_error for a refusal."""

    def _refuse(self, request: Any, code: str) -> None:
        super()._refuse(
            request, "invalid_parameter" if code == "internal_error" else code
        )


class OneSided(Orders):
    """Knows a fill by its trade alone, which may be one with ourselves."""

    def __init__(self) -> None:
        super().__init__()
        self._trades: set[str] = set()

    def filled(self, data: UserTradeData) -> bool:
        """Count a fill, if its trade is a new one."""
        if data.trade_id in self._trades:
            return False
        self._trades.add(data.trade_id)
        return super().filled(data)


class Credulous(Orders):
    """Counts each fill that it is told of."""

    def filled(self, data: UserTradeData) -> bool:
        """Count it, whether it was told before or not."""
        super().filled(data)
        return True


class Hopeful(Orders):
    """Takes what was lost with a connection for never sent."""

    def disconnected(self) -> None:
        """Have everything without an answer be over."""
        super().disconnected()
        for order in [o for o in self.open if o.order_id is None]:
            self.withdrawn(order, "lost")


class Resigned(Orders):
    """Never asks what became of an order that is not told of."""

    def to_probe(self, now_ns: int) -> list[Order]:
        """Return none."""
        super().to_probe(now_ns)
        return []


class Stuck(Orders):
    """Does not see that an operation is settled by what it is told anew."""

    def begin(self, subscribed_ns: int, now_ns: int) -> None:
        """Hear of a subscription, and take no operation for old."""
        super().begin(subscribed_ns, now_ns)
        for order in self.open:
            for request in order.requests:
                request.is_old = False


class Settled(OrderFlow):
    """Takes orders for gone with the first news of another life of the venue."""

    def _venue_is(self, epoch: object, now_ns: int) -> None:
        super()._venue_is(epoch, now_ns)
        if self._restarted_ns is not None:
            self._restarted_ns = None


class Blind(Orders):
    """Goes by the clock, whether or not it has read what there is."""

    def postpone(self, now_ns: int) -> None:
        """Wait no longer for that."""


class Storming(OrderFlow):
    """Asks for each cancel again, as soon as it is refused."""

    def tick(self, now_ns: int) -> None:
        """Forget when a cancel was asked for."""
        self._canceling = dict.fromkeys(self._canceling, 0)
        super().tick(now_ns)


def made(**parts: type) -> Make:
    """Make a process of these parts."""
    make = Make()
    vars(make).update(parts)
    return make


BROKEN: dict[str, tuple[dict[str, type], str, str]] = {
    "sends again after a reconnect": ({"flow": Insistent}, "submit c", "I-08"),
    "forgets to reset": ({"socket": Polite}, "submit a", "I-08"),
    "lets orders out at once": ({"flow": Hasty}, "submit d", "early"),
    "takes internal_error for a refusal": ({"orders": Trusting}, "F-71", "I-08"),
    "knows fills by their trade": ({"orders": OneSided}, "F-67", "fills"),
    "counts each fill": ({"orders": Credulous}, "F-75", "I-09"),
    "takes what was lost for not sent": ({"orders": Hopeful}, "submit d", "I-08"),
    "never asks": ({"orders": Resigned}, "submit a", "unknown"),
    "waits for answers that are lost": ({"orders": Stuck}, "cancel b", "unknown"),
    "goes by the clock alone": ({"orders": Blind}, "F-58", "needless"),
    "cancels in a storm": ({"flow": Storming}, "kill", "storm"),
    "forgets a venue's life": ({"flow": Settled}, "F-73", "unknown"),
}
"""By what is wrong: parts of the process, lives that show it, what they show."""

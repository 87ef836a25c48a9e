"""What other processes of ours ask for: their commands into the order flow, answered.

Every command that was taken is answered in the stream of order events, by its client
order id: with what became of the order, or at once with why nothing was sent. Sans-I/O,
but for the channels themselves (commands.py).
"""

from collections.abc import Callable

from feedhandler.commands import Command, Commands
from feedhandler.errors import (
    DeadlinePassed,
    FeedError,
    GuardRefused,
    NotConnected,
    Throttled,
    UnknownOrder,
)
from feedhandler.order import Cause, Doubt, Operation, Order, Status
from feedhandler.protocol.codes import ErrorCode
from feedhandler.protocol.messages import (
    CancelOrderData,
    ModifyOrderData,
    OrderData,
)
from feedhandler.records import CommandKind
from feedhandler.trading import OrderFlow

__all__ = ["Engines"]

OPERATIONS = {
    CommandKind.SUBMIT: Operation.SUBMIT,
    CommandKind.MODIFY: Operation.MODIFY,
    CommandKind.CANCEL: Operation.CANCEL,
    CommandKind.CANCEL_ALL: Operation.CANCEL,
}
CAUSES: tuple[tuple[type[FeedError], Cause], ...] = (
    (GuardRefused, Cause.GUARDED),
    (Throttled, Cause.THROTTLED),
    (NotConnected, Cause.NOT_CONNECTED),
    (DeadlinePassed, Cause.EXPIRED),
)


class Engines:
    """The engines that trade through one *flow*, whose hearers get the answers.

    The loop's thread only.
    """

    def __init__(self, commands: Commands, flow: OrderFlow) -> None:
        self.commands = commands
        self._flow = flow
        self._deeds: dict[CommandKind, Callable[[Command, int], None]] = {
            CommandKind.SUBMIT: self._submit,
            CommandKind.MODIFY: self._modify,
            CommandKind.CANCEL: self._cancel,
            CommandKind.CANCEL_ALL: self._cancel_all,
            CommandKind.RESOLVE: self._resolve,
        }

    def beat(self, now_ns: int) -> None:
        """Let time pass, ten times a second; then poll()."""
        self.commands.beat(now_ns)

    def poll(self, now_ns: int) -> bool:
        """Do what the engines ask for now; return whether they asked for anything.

        The host then sends what the Session has to send.
        """
        taken = self.commands.poll(now_ns)
        for command in taken:
            self._do(command, now_ns)
        return bool(taken)

    def _do(self, command: Command, now_ns: int) -> None:
        if command.problem or command.kind is None:
            cause = Cause.EXPIRED if command.is_expired else Cause.REFUSED
            code = None if command.is_expired else ErrorCode.INVALID_PARAMETER
            self._answer(command, cause, code)
            return
        try:
            self._deeds[command.kind](command, now_ns)
        except UnknownOrder:
            self._not_found(command)
        except ValueError:
            # The one thing that a whole command can still have wrong.
            self._answer(command, Cause.REFUSED, ErrorCode.DUPLICATE_CLIENT_ORDER_ID)
        except FeedError as error:
            cause = next(cause for kind, cause in CAUSES if isinstance(error, kind))
            self._answer(command, cause, None)

    # ── what they ask for ─────────────────────────────────────────────────────────────

    def _submit(self, command: Command, now_ns: int) -> None:
        self._flow.submit(_order_of(command), now_ns, command.deadline_ns)

    def _modify(self, command: Command, now_ns: int) -> None:
        change = ModifyOrderData(
            command.order_id or None,
            None if command.order_id else command.client_id,
            command.quantity,
            command.price,
            command.stop_price,
        )
        self._flow.modify(change, now_ns, command.deadline_ns)

    def _cancel(self, command: Command, now_ns: int) -> None:
        client_id = None if command.order_id else command.client_id
        # One that we do not know the venue may have; but nobody would hear the answer.
        self._flow.find(command.order_id or None, client_id)
        which = CancelOrderData(command.order_id or None, client_id)
        self._flow.cancel(which, now_ns, command.deadline_ns)

    def _cancel_all(self, command: Command, now_ns: int) -> None:
        self._flow.cancel_all(now_ns, command.symbol or "")

    def _resolve(self, command: Command, now_ns: int) -> None:
        order = self._flow.find(None, command.client_id)
        self._tell(order, Cause.UPDATE, None, None, is_replay=True)

    # ── what they are told ────────────────────────────────────────────────────────────

    def _not_found(self, command: Command) -> None:
        """Answer for an order that we do not know of."""
        if self._flow.is_ready:
            self._answer(command, Cause.REFUSED, ErrorCode.ORDER_NOT_FOUND)
        else:
            # It may be told yet.
            self._answer(command, Cause.NOT_CONNECTED, None)

    def _answer(self, command: Command, cause: Cause, code: str | None) -> None:
        """Answer that nothing was sent, and why; of an order we know, as it is now."""
        if not command.client_id and not command.order_id:
            return
        operation = None if command.kind is None else OPERATIONS.get(command.kind)
        try:
            client_id = None if command.order_id else command.client_id
            order = self._flow.find(command.order_id or None, client_id)
        except UnknownOrder:
            order = _unsent(command, operation)
        self._tell(order, cause, operation, code)

    def _tell(
        self,
        order: Order,
        cause: Cause,
        operation: Operation | None,
        code: str | None,
        is_replay: bool = False,
    ) -> None:
        self._flow.tell(order, cause, operation, code, is_replay)


def _order_of(command: Command) -> OrderData:
    """Return the order that a submit asks for; the venue judges what is left."""
    return OrderData(
        command.symbol or "",
        command.side,  # type: ignore[arg-type]
        command.type,  # type: ignore[arg-type]
        command.quantity or 0.0,
        command.price,
        command.stop_price,
        command.time_in_force,  # type: ignore[arg-type]
        command.client_id,
    )


def _unsent(command: Command, operation: Operation | None) -> Order:
    """Make an order to answer with, for one that is none of ours, or not yet."""
    order = Order(_order_of(command), command.client_id or None)
    order.order_id = command.order_id or None
    if operation is Operation.SUBMIT:
        order.end(Status.REJECTED)
    else:
        # Whether there is such an order, we do not know.
        order.doubt = Doubt.NOT_FOUND
    return order

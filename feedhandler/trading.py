"""The order flow of one account: what goes out over a Session, and what comes back.

Sans-I/O, and closed on failure. Nothing is kept to be sent later: a request goes out at
once or raises. No new order goes out before the venue has told, on this connection,
what there is (decisions.md, A-19); what had no answer stays unknown until the venue
says, is canceled if it does not, and is never sent again.

The host hands on what the Session's messages and answers are, in their order, and lets
time pass ten times a second.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from typing import NamedTuple, Protocol

import msgspec

from feedhandler.account import AccountState
from feedhandler.client_ids import ClientIds
from feedhandler.errors import (
    DeadlinePassed,
    NotConnected,
    Throttled,
    UnknownOrder,
)
from feedhandler.guards import Guards, Top
from feedhandler.order import Cause, Doubt, Operation, Order
from feedhandler.orders import Orders
from feedhandler.protocol.messages import (
    AccountUpdate,
    Balance,
    BatchCancel,
    BatchModify,
    BatchOrders,
    BatchOrdersData,
    BatchResponse,
    BatchSubmit,
    CancelOrder,
    CancelOrderData,
    Error,
    ModifyOrder,
    ModifyOrderData,
    OrderData,
    OrderResponse,
    OrderUpdate,
    Position,
    SubmitOrder,
    SystemNotification,
    UserTrade,
    UserTradeData,
)
from feedhandler.session import Answer, Disconnected, Session, Subscribed

__all__ = ["CHANNELS", "Hearer", "OrderFlow", "Sent"]

ORDERS, TRADES, ACCOUNT = CHANNELS = ("user_orders", "user_trades", "account_updates")
"""The private channels without which there is no order flow."""

SECOND_NS = 1_000_000_000
# For a cancel of what the venue did not tell of; then others need not wait for it.
PROBE_PATIENCE_NS = 10 * SECOND_NS
# From a request without an answer until the venue is asked to tell its orders again.
REFRESH_NS = 2 * SECOND_NS
LONGEST_REFRESH_NS = 600 * SECOND_NS
CANCEL_AGAIN_NS = 5 * SECOND_NS
# Our loop did not turn for so long: what was told meanwhile is still to be read.
SLEPT_NS = SECOND_NS
# A venue that answers no ping is not listened to for ever before orders go out.
LONGEST_TELLING_NS = 60 * SECOND_NS
BATCH = 50

BatchOperation = BatchSubmit | BatchCancel | BatchModify


class Sent(NamedTuple):
    """A request that went out: its id, and the orders that it is about, in order."""

    request_id: str
    orders: tuple[Order, ...]


class Hearer(Protocol):
    """Who is told what became of orders and account, as it happens.

    *code* is the venue's error code, None for none; times are the venue's in
    milliseconds, 0 where nothing came from it; *is_replay* tells what the venue tells
    again after a subscription.
    """

    def on_order(
        self,
        order: Order,
        cause: Cause,
        operation: Operation | None,
        code: str | None,
        time_ms: int,
        is_replay: bool,
    ) -> object:
        """Take an order as it is now."""

    def on_fill(
        self, data: UserTradeData, order: Order | None, is_replay: bool
    ) -> object:
        """Take a fill, once; *order* is None while it is not known whose it is."""

    def on_account(self, rows: list[Balance | Position], time_ms: int) -> object:
        """Take the rows that an update changed."""


class OrderFlow:
    """The orders of one account over *session*, which serves CHANNELS.

    *guards* are asked before anything goes out; *top* gives them the book of a symbol.
    *backlog* says how many bytes wait because the connection takes no more: new orders
    would wait there as well, so there are none. What a hearer raises is given to
    *on_error*, and stops nothing. Times are monotonic nanoseconds. The
    loop's thread only.
    """

    def __init__(
        self,
        session: Session,
        guards: Guards | None = None,
        *,
        top: Callable[[str], Top | None] = lambda symbol: None,
        backlog: Callable[[], int] = lambda: 0,
        hearers: Iterable[Hearer] = (),
        on_error: Callable[[Exception], object] = lambda error: None,
        orders: Orders | None = None,
    ) -> None:
        self.orders = Orders() if orders is None else orders
        self.account = AccountState()
        self.guards = Guards() if guards is None else guards
        self.hearers = list(hearers)
        self._session = session
        self._top = top
        self._backlog = backlog
        self._on_error = on_error
        self._ids = ClientIds()
        self._sent: dict[str, list[tuple[Order, Operation]]] = {}
        self._is_ready = False
        self._asked_ns = 0
        """When the subscription was asked for that the venue last confirmed."""
        self._begun_ns: int | None = None
        self._missed = [name for name in CHANNELS if self._is_confirmed(name)]
        """Channels whose subscription was before us: to be told again."""
        self._settled_ns: int | None = None
        self._venue_epoch: str | None = None
        self._restarted_ns: int | None = None
        self._canceling: dict[Order, int] = {}
        """Of cancel_all(): when each may be canceled, or canceled again."""
        self._ticked_ns = 0
        self._is_untold = False
        self._refresh_ns: int | None = None
        self._refresh_wait_ns = REFRESH_NS

    # ── what is asked for ─────────────────────────────────────────────────────────────

    @property
    def is_ready(self) -> bool:
        """Whether new orders go out: the venue has told what there is, and goes on."""
        return self._is_ready and self._is_served

    def submit(
        self, data: OrderData, now_ns: int, deadline_ns: int | None = None
    ) -> Sent:
        """Send a new order; without a client_order_id it is given one.

        Raises GuardRefused, NotConnected, Throttled or DeadlinePassed, when nothing was
        sent nor will be; ValueError for a client_order_id that is none, or in use.
        """
        data = self._named(data)
        self.orders.check_id(data)
        self._let_out("submit_order", now_ns, deadline_ns)
        self._check(data)
        request_id = self._session.ask(SubmitOrder(data), now_ns)
        order = self.orders.submitted(data, now_ns, request_id)
        self._sent[request_id] = [(order, Operation.SUBMIT)]
        self._is_untold = True
        return Sent(request_id, (order,))

    def modify(
        self, change: ModifyOrderData, now_ns: int, deadline_ns: int | None = None
    ) -> Sent:
        """Ask for another quantity, price or stop price; raises as submit().

        And UnknownOrder, for what cannot be judged is not sent.
        """
        order = self.find(change.order_id, change.client_order_id)
        self._let_out("modify_order", now_ns, deadline_ns)
        self._check_all(order.changed(change))
        request_id = self._session.ask(ModifyOrder(change), now_ns)
        asked = [(order, Operation.MODIFY)]
        return self._note(request_id, asked, now_ns, [change])

    def cancel(
        self, which: CancelOrderData, now_ns: int, deadline_ns: int | None = None
    ) -> Sent:
        """Ask for an order to be taken out, also one that we do not know of.

        Guards are not asked, and cancels have a lane of their own in the venue's limit.
        Raises NotConnected, Throttled or DeadlinePassed.
        """
        _check_deadline("cancel_order", now_ns, deadline_ns)
        try:
            known = [self.find(which.order_id, which.client_order_id)]
        except UnknownOrder:
            known = []
        request_id = self._session.ask(CancelOrder(which), now_ns, urgent=True)
        return self._note(
            request_id, [(order, Operation.CANCEL) for order in known], now_ns
        )

    def batch(
        self,
        operations: Sequence[BatchOperation],
        now_ns: int,
        deadline_ns: int | None = None,
    ) -> Sent:
        """Send several operations in one request, all of them or none.

        Raises as submit() and modify(), and ValueError for none or too many.
        """
        if not 1 <= len(operations) <= BATCH:
            raise ValueError(f"{len(operations)} operations are not 1 to {BATCH}")
        is_urgent = all(isinstance(one, BatchCancel) for one in operations)
        if is_urgent:
            _check_deadline("batch_orders", now_ns, deadline_ns)
        else:
            self._let_out("batch_orders", now_ns, deadline_ns)
        before: dict[Order, list[ModifyOrderData]] = {}
        named = [self._prepare(one, before) for one in operations]
        ids = [one.client_order_id for one in named if isinstance(one, BatchSubmit)]
        if len(set(ids)) < len(ids):
            raise ValueError("two orders of a batch have one client_order_id")
        known = [
            None
            if isinstance(one, BatchSubmit)
            else self.find(one.order_id, one.client_order_id)
            for one in named
        ]
        message = BatchOrders(BatchOrdersData(named))
        request_id = self._session.ask(message, now_ns, len(named), is_urgent)
        asked = [
            (
                order or self.orders.submitted(_as_order(one), now_ns),
                Operation(one.__struct_config__.tag),
            )
            for one, order in zip(named, known, strict=True)
        ]
        return self._note(request_id, asked, now_ns, named)

    def cancel_all(self, now_ns: int, symbol: str = "") -> None:
        """Have all open orders canceled, or those of *symbol*.

        As fast as the venue's limit lets it; the next ticks go on.
        """
        orders = self.orders.open
        self._canceling.update(
            (order, now_ns) for order in orders if symbol in ("", order.symbol)
        )
        self._cancel_some(now_ns)

    def kill(self, now_ns: int) -> None:
        """Let no order out any more, and cancel all that are open, or turn up."""
        self.guards.killed = True
        self.cancel_all(now_ns)

    def find(self, order_id: str | None, client_order_id: str | None) -> Order:
        """Return the order of that name; UnknownOrder for none."""
        order = None
        if order_id is not None:
            order = self.orders.by_order_id(order_id)
        elif client_order_id is not None:
            order = self.orders.by_client_id(client_order_id)
        if order is None:
            raise UnknownOrder(order_id or client_order_id or "")
        return order

    def _named(self, data: OrderData) -> OrderData:
        if data.client_order_id is not None:
            return data
        return msgspec.structs.replace(data, client_order_id=self._ids.next())

    def _prepare(
        self, one: BatchOperation, before: dict[Order, list[ModifyOrderData]]
    ) -> BatchOperation:
        """Give an operation a name where it needs one, and ask the guards."""
        if isinstance(one, BatchSubmit):
            if one.client_order_id is None:
                one = msgspec.structs.replace(one, client_order_id=self._ids.next())
            data = _as_order(one)
            self.orders.check_id(data)
            self._check(data)
        elif isinstance(one, BatchModify):
            order = self.find(one.order_id, one.client_order_id)
            earlier = before.setdefault(order, [])
            self._check_all(order.changed(one, earlier))
            earlier.append(one)
        return one

    def _let_out(self, action: str, now_ns: int, deadline_ns: int | None) -> None:
        """Raise unless a new order may go out now."""
        _check_deadline(action, now_ns, deadline_ns)
        name = self._session.name or "trading"
        self._look(now_ns)
        if not self._is_ready:
            raise NotConnected(name, "not reconciled")
        if self._backlog():
            raise NotConnected(name, "congested")

    def _check(self, data: OrderData) -> None:
        self.guards.check(data, self._top(data.symbol), self.orders.unknown)

    def _check_all(self, orders: Iterable[OrderData]) -> None:
        for data in orders:
            self._check(data)

    def _note(
        self,
        request_id: str,
        asked: list[tuple[Order, Operation]],
        now_ns: int,
        parts: Sequence[object] = (),
    ) -> Sent:
        """Note what was sent; *parts* are the operations, where some modify."""
        for (order, operation), part in zip_longest(asked, parts):
            change = part if isinstance(part, ModifyOrderData) else None
            self.orders.asked(order, operation, request_id, now_ns, change)
        if asked:
            self._sent[request_id] = asked
            self._is_untold = True
        return Sent(request_id, tuple(order for order, _ in asked))

    def announce(self) -> None:
        """Tell the hearers what was sent; when it is on the wire, which is in no hurry.

        Whatever comes back does so too, if nobody did before.
        """
        if self._is_untold:
            self._is_untold = False
            self._tell(Cause.SENT)

    def tell(
        self,
        order: Order,
        cause: Cause,
        operation: Operation | None,
        code: str | None,
        is_replay: bool = False,
    ) -> None:
        """Tell the hearers of an order that is not what it was for any other reason.

        Nothing was sent of it, say; what happened before is told before.
        """
        self.announce()
        self._each(lambda h: h.on_order(order, cause, operation, code, 0, is_replay))

    # ── what comes back ───────────────────────────────────────────────────────────────

    def answered(self, answer: Answer) -> None:
        """Take an answer of the Session's, or that there was none."""
        self.announce()
        message = answer.message
        self.orders.answered(answer.id, message)
        asked = self._sent.get(answer.id, [])
        if message is not None:
            self._sent.pop(answer.id, None)
        causes = dict(_causes(message, asked))
        for order in self.orders.take_changes():
            cause = causes.get(order, (Cause.LOST if message is None else Cause.ACK,))
            time_ms = 0 if message is None else message.timestamp
            self._tell_of(order, *cause, time_ms=time_ms)

    def hear(self, message: object, now_ns: int) -> None:
        """Take one of the Session's messages; what is none of ours is ignored."""
        self.announce()
        if isinstance(message, OrderUpdate):
            order_id = message.data.order_id
            known = self.orders.by_order_id(order_id)
            if self._is_replay and now_ns < (self._begun_ns or 0) + LONGEST_TELLING_NS:
                self.orders.postpone(now_ns)
            self.orders.updated(message.data)
            order = self.orders.by_order_id(order_id)
            is_new = order is not None and order is not known and order.is_foreign
            self._tell(Cause.ADOPTED if is_new else Cause.UPDATE, message.timestamp)
        elif isinstance(message, UserTrade):
            self._fill(message)
        elif isinstance(message, AccountUpdate):
            self.account.updated(message.data, message.timestamp, now_ns)
            self._tell_account(message.timestamp)
        elif isinstance(message, Subscribed):
            self._subscribed(message, now_ns)
        elif isinstance(message, Disconnected):
            self._disconnected()
        elif isinstance(message, SystemNotification):
            self._venue_is(message.data.venue_epoch, now_ns)

    def _fill(self, message: UserTrade) -> None:
        if self.orders.filled(message.data):
            order = self.orders.by_order_id(message.data.order_id)
            self._each(lambda h: h.on_fill(message.data, order, self._is_replay))
        self._tell(Cause.FILL, message.timestamp)

    def _subscribed(self, message: Subscribed, now_ns: int) -> None:
        if message.channel == ACCOUNT:
            self.account.begin()
        elif message.channel == ORDERS:
            self._asked_ns, self._begun_ns = message.asked_ns, now_ns
            self._settled_ns = None
            self.orders.begin(message.asked_ns, now_ns)
            self._tell(Cause.LOST)

    def _disconnected(self) -> None:
        self._is_ready = False
        self._begun_ns = self._settled_ns = None
        self._missed.clear()
        self._sent.clear()
        self._canceling = dict.fromkeys(self._canceling, 0)
        self.orders.disconnected()
        self._tell(Cause.LOST)

    def _venue_is(self, epoch: object, now_ns: int) -> None:
        """Take the name of the venue's life; with another one all its orders are gone.

        That is sure once it has told its orders to a subscription of after now.
        """
        if not isinstance(epoch, str):
            return
        if self._venue_epoch not in (None, epoch):
            self._restarted_ns = now_ns
            self._is_ready = False
        self._venue_epoch = epoch

    @property
    def _is_replay(self) -> bool:
        """Whether the venue may still be telling what was before the subscription."""
        return self._begun_ns is None or self._session.proven_ns <= self._begun_ns

    # ── time ──────────────────────────────────────────────────────────────────────────

    def tick(self, now_ns: int) -> None:
        """Let time pass: find out what became of what is unknown.

        The host then has the Session's collect() say what is to be sent, and calls
        announce().
        """
        self.announce()
        slept_ns, self._ticked_ns = now_ns - self._ticked_ns, now_ns
        self._missed = [
            name for name in self._missed if not self._session.refresh(name, now_ns)
        ]
        if self._begun_ns is None:
            return
        if self._is_replay:
            self._session.prove(now_ns)
        if slept_ns > SLEPT_NS:
            self.orders.postpone(now_ns)
        probes = self.orders.to_probe(now_ns)
        self._tell(Cause.LOST)
        if self._settled_ns is None and not self.orders.is_reconciling:
            self._settled_ns = now_ns
        if self._restarted_ns is not None:
            self._settle_restart()
        else:
            self._cancel(probes, now_ns)
        self._cancel_some(now_ns)
        self._refresh(now_ns)
        self._look(now_ns)

    def _settle_restart(self) -> None:
        """Take the orders of the venue's former life for gone, once that is sure."""
        if self._asked_ns > (self._restarted_ns or 0) and self._settled_ns is not None:
            self._restarted_ns = None
            self.orders.venue_restarted()
            self.account.venue_restarted()
            self._tell(Cause.SETTLED)
            self._tell_account()

    def _look(self, now_ns: int) -> None:
        """Look whether new orders may go out: not while a channel is given up."""
        self._is_ready = self._is_served and (
            self._is_ready or self._is_reconciled(now_ns)
        )

    @property
    def _is_served(self) -> bool:
        """Whether the venue serves all channels that tell what becomes of orders."""
        return all(map(self._is_confirmed, CHANNELS))

    def _is_confirmed(self, channel: str) -> bool:
        route = self._session.routes.get(channel)
        return route is not None and route.confirmed

    def _is_reconciled(self, now_ns: int) -> bool:
        """Tell whether the venue has told what there is, as far as it ever will."""
        if self._begun_ns is None or self._restarted_ns is not None:
            return False
        if self._settled_ns is not None:
            return now_ns - self._settled_ns >= PROBE_PATIENCE_NS or not any(
                order.doubt is Doubt.UNMENTIONED for order in self.orders.doubtful
            )
        # All that we know of was told, and so was, by the pong, what we did not.
        return not self._is_replay and all(
            order.is_heard and not order.requests for order in self.orders.open
        )

    def _cancel_some(self, now_ns: int) -> None:
        """Go on with cancel_all()."""
        if self.guards.killed:
            for order in self.orders.open:
                self._canceling.setdefault(order, now_ns)
        self._canceling = {
            order: due_ns
            for order, due_ns in self._canceling.items()
            if not order.is_terminal and order.doubt is not Doubt.NOT_FOUND
        }
        due = (
            order
            for order, due_ns in self._canceling.items()
            if now_ns >= due_ns and Operation.CANCEL not in order.pending
        )
        self._cancel(due, now_ns)

    def _cancel(self, orders: Iterable[Order], now_ns: int) -> None:
        """Cancel as many as the limit lets; the rest has its turn at the next tick."""
        try:
            for order in list(orders):
                which = order.cancellation()
                if which.order_id is None and which.client_order_id is None:
                    continue
                request_id = self._session.ask(CancelOrder(which), now_ns, urgent=True)
                self._note(request_id, [(order, Operation.CANCEL)], now_ns)
                if order in self._canceling:
                    # One that is not found may not be there yet: no use in a storm.
                    self._canceling[order] = now_ns + CANCEL_AGAIN_NS
        except (NotConnected, Throttled):
            pass

    def _refresh(self, now_ns: int) -> None:
        """Ask the venue to tell its orders again, when that can settle something."""
        # What the venue of a former life may have told settles nothing.
        is_former = (
            self._restarted_ns is not None and self._asked_ns <= self._restarted_ns
        )
        if not is_former and self._is_telling:
            return
        if not is_former and not any(map(_is_unsettled, self.orders.doubtful)):
            self._refresh_ns = None
            if not self.orders.doubtful:
                self._refresh_wait_ns = REFRESH_NS
        elif self._refresh_ns is None:
            self._refresh_ns = now_ns + (0 if is_former else self._refresh_wait_ns)
        elif now_ns >= self._refresh_ns and self._session.refresh(ORDERS, now_ns):
            wait_ns = min(2 * self._refresh_wait_ns, LONGEST_REFRESH_NS)
            self._refresh_ns, self._refresh_wait_ns = now_ns + wait_ns, wait_ns

    @property
    def _is_telling(self) -> bool:
        """Whether the last subscription may still settle something."""
        return self._settled_ns is None and (
            self._is_replay or not all(map(_is_told, self.orders.open))
        )

    # ── who hears of it ───────────────────────────────────────────────────────────────

    def _tell(self, cause: Cause, time_ms: int = 0) -> None:
        for order in self.orders.take_changes():
            self._tell_of(order, cause, time_ms=time_ms)

    def _tell_account(self, time_ms: int = 0) -> None:
        if rows := self.account.take_changes():
            self._each(lambda hearer: hearer.on_account(rows, time_ms))

    def _tell_of(
        self,
        order: Order,
        cause: Cause,
        operation: Operation | None = None,
        code: str | None = None,
        *,
        time_ms: int,
    ) -> None:
        is_replay = self._is_replay
        self._each(
            lambda h: h.on_order(order, cause, operation, code, time_ms, is_replay)
        )

    def _each(self, tell: Callable[[Hearer], object]) -> None:
        """Tell every hearer, whatever one of them does with it."""
        for hearer in tuple(self.hearers):
            try:
                tell(hearer)
            except Exception as error:
                self._on_error(error)


def _check_deadline(action: str, now_ns: int, deadline_ns: int | None) -> None:
    if deadline_ns is not None and now_ns >= deadline_ns:
        raise DeadlinePassed(action, now_ns - deadline_ns)


def _as_order(one: BatchOperation) -> OrderData:
    """Return the order of a submit in a batch as one that stands alone."""
    assert isinstance(one, BatchSubmit)
    return OrderData(*(getattr(one, name) for name in OrderData.__struct_fields__))


def _is_told(order: Order) -> bool:
    """Tell whether the last subscription has said of an order what it can."""
    return order.is_heard and not any(request.is_old for request in order.requests)


def _is_unsettled(order: Order) -> bool:
    """Tell whether another subscription could say what became of something."""
    return order.doubt is Doubt.NOT_FOUND or any(
        request.is_unknown and not request.is_old for request in order.requests
    )


def _causes(
    message: OrderResponse | BatchResponse | Error | None,
    asked: list[tuple[Order, Operation]],
) -> Iterable[tuple[Order, tuple[Cause, Operation, str | None]]]:
    """Return what an answer says of each order that it is about."""
    for number, (order, operation) in enumerate(asked):
        code = None
        if isinstance(message, Error):
            code = message.data.code
        elif isinstance(message, BatchResponse) and number < len(message.data.results):
            code = message.data.results[number].code
        if message is None:
            yield order, (Cause.LOST, operation, None)
        else:
            yield order, (Cause.REFUSED if code else Cause.ACK, operation, code)

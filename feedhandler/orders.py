"""Our orders, by what we asked for and what the venue answers and tells, in any order.

Sans-I/O, and closed on failure: what is not known to have happened or not is unknown,
and stays so until the venue says. A connection's end loses every answer; the next one
subscribes to user_orders, and is told all orders that are open or ended lately. So

* what it tells settles what was asked before it subscribed: nothing asked on a dead
  connection is done later than that. Its socket is to be reset for this, for the kernel
  goes on to deliver what a closed one had left;
* what it has not told SETTLE_NS later is unknown, and to be canceled: ``to_probe()``.

All order updates are to come from the one subscription that begin() was called for.
"""

from collections.abc import Sequence
from itertools import zip_longest

from feedhandler.client_ids import is_client_id
from feedhandler.order import ENDS, Doubt, Operation, Order, Request, Status
from feedhandler.protocol.codes import ErrorCode
from feedhandler.protocol.messages import (
    BatchResponse,
    BatchResult,
    Error,
    ErrorData,
    ModifyOrderData,
    OrderData,
    OrderResponse,
    OrderResponseData,
    OrderUpdateData,
    UserTradeData,
)

__all__ = ["Operation", "Order", "Orders", "Status"]

SETTLE_NS = 5_000_000_000
# The venue tells again what ended in the last 15 minutes; a minute less is certain.
REPLAY_NS = 14 * 60 * 1_000_000_000
KEPT = 10_000
# What a venue that tells nonsense can make us remember.
EARLY_FILLS = 10_000
OPEN_ORDERS = 100_000
ID_CHARS = 128

DEFINITE = frozenset(ErrorCode) - {ErrorCode.INTERNAL_ERROR}

Outcome = OrderResponseData | BatchResult | ErrorData


class Orders:
    """The orders of one account: all that are open, and the last *kept* that ended.

    *replay_ns* is for how long the venue tells of an order that ended, 0 for not at
    all.
    """

    def __init__(self, kept: int = KEPT, replay_ns: int = REPLAY_NS) -> None:
        self.discarded = 0
        """Messages, or parts of them, that could not be true."""
        self._kept = kept
        self._replay_ns = replay_ns
        self._open: dict[Order, None] = {}
        self._ended: dict[Order, None] = {}
        self._by_client_id: dict[str, Order] = {}
        self._by_order_id: dict[str, Order] = {}
        self._requests: dict[str, list[Request]] = {}
        self._early: dict[tuple[str, str], UserTradeData] = {}
        self._changed: dict[Order, None] = {}
        # So that nobody has to look through all that are open, ten times a second.
        self._doubtful: dict[Order, None] = {}
        self._subscribed_ns: int | None = None
        self._settle_ns: int | None = None

    # ── what there is ─────────────────────────────────────────────────────────────────

    @property
    def open(self) -> list[Order]:
        """The orders that have not ended, as far as we know; oldest first."""
        return list(self._open)

    @property
    def unknown(self) -> int:
        """How many orders may be in the market or not."""
        if not self._doubtful:
            return 0
        return sum(order.is_unknown for order in self._doubtful)

    @property
    def doubtful(self) -> list[Order]:
        """The open orders of which something is unknown: what is asked, or all."""
        return list(self._doubtful)

    @property
    def is_reconciling(self) -> bool:
        """Whether the venue is still telling its orders, for all that we know."""
        return self._settle_ns is not None

    def by_client_id(self, client_id: str) -> Order | None:
        """Return the order of that name."""
        return self._by_client_id.get(client_id)

    def by_order_id(self, order_id: str) -> Order | None:
        """Return the order that the venue calls so."""
        return self._by_order_id.get(order_id)

    def take_changes(self) -> list[Order]:
        """Return the orders that are not what they were at the last call."""
        changed, self._changed = self._changed, {}
        return list(changed)

    # ── what we ask ───────────────────────────────────────────────────────────────────

    def submitted(
        self, data: OrderData, now_ns: int, request_id: str | None = None
    ) -> Order:
        """Note an order that is about to be sent, or was, under *request_id*.

        Raises ValueError as check_id().
        """
        client_id = self.check_id(data)
        order = Order(data, client_id, now_ns)
        self._add(order)
        if request_id is None:
            self._note(order)
        else:
            self.asked(order, Operation.SUBMIT, request_id, now_ns)
        return order

    def check_id(self, data: OrderData) -> str:
        """Return what we call an order; ValueError if that is nothing, or in use."""
        client_id = data.client_order_id or ""
        if not is_client_id(client_id):
            raise ValueError(
                f"client_order_id is {client_id!r}, not 1 to 64 printable characters"
            )
        if client_id in self._by_client_id:
            raise ValueError(f"client_order_id {client_id} is in use")
        return client_id

    def asked(
        self,
        order: Order,
        operation: Operation,
        request_id: str,
        now_ns: int,
        change: ModifyOrderData | None = None,
    ) -> None:
        """Note that an operation was sent; those of a batch in its order, by its id."""
        request = Request(order, operation, now_ns, change)
        self._requests.setdefault(request_id, []).append(request)
        # What has ended already takes its place in a batch, and is not waited for.
        request.is_done = order.is_terminal
        if not request.is_done:
            order.requests.append(request)
        self._note(order)

    def withdrawn(self, order: Order, reason: str = "not sent") -> None:
        """Note that a submitted order was not sent after all, nor will be."""
        self._end(order, Status.REJECTED, reason)
        self._note(order)

    # ── what the venue answers ────────────────────────────────────────────────────────

    def answered(
        self, request_id: str, message: OrderResponse | BatchResponse | Error | None
    ) -> None:
        """Take the answer to a request; None if none came in time.

        The first that settles an operation counts, however late it is.
        """
        requests = self._requests.get(request_id, [])
        outcomes = _outcomes(message, requests)
        time_ms = 0 if message is None else message.timestamp
        for request, outcome in zip(requests, outcomes, strict=True):
            if not request.is_done:
                self._judge(request, outcome, time_ms)
                self._note(request.order)
        if _done(requests):
            self._requests.pop(request_id, None)

    def _judge(self, request: Request, outcome: Outcome | None, time_ms: int) -> None:
        order, operation = request.order, request.operation
        if outcome is None:
            request.is_unknown = True
        elif isinstance(outcome, ErrorData):
            self._refuse(request, outcome.code)
        elif operation is Operation.CANCEL and outcome.status not in ENDS:
            request.is_unknown = True
        elif not self._name(order, outcome.order_id):
            self.discarded += 1
            request.is_unknown = True
        else:
            self._done(request)
            self._confirm(order)
            if operation is not Operation.SUBMIT:
                order.doubt = None
            if isinstance(outcome, OrderResponseData):
                order.merge(outcome, time_ms)
            self._end_as_told(order, outcome.status)

    def _refuse(self, request: Request, code: str) -> None:
        if code not in DEFINITE and not code.startswith("invalid_"):
            request.is_unknown = True
            return
        self._done(request)
        order = request.order
        if request.operation is Operation.SUBMIT:
            self._end(order, Status.REJECTED, code)
        elif code == ErrorCode.ORDER_NOT_FOUND:
            self._not_found(order)

    def _not_found(self, order: Order) -> None:
        """Take it that the venue has no such open order, whatever became of it."""
        if order.doubt is not Doubt.UNMENTIONED:
            # Its end, or the answer to its submit, is still to come.
            order.doubt = Doubt.NOT_FOUND if order.exists else order.doubt
        elif not order.exists and self._never_arrived(order):
            self._end(order, Status.REJECTED, "never arrived")
        elif not order.remaining:
            self._end(order, Status.FILLED)
        else:
            order.doubt = Doubt.NOT_FOUND

    def _never_arrived(self, order: Order) -> bool:
        """Tell whether an order that was neither told nor found cannot have been one.

        It can, if it ended before what the last subscription told of, or if there is a
        fill that is nobody's.
        """
        since_ns = self._subscribed_ns
        if since_ns is None or order.sent_ns < since_ns - self._replay_ns:
            return False
        likeness = (order.symbol, order.side)
        return likeness not in {(f.symbol, f.side) for f in self._early.values()}

    # ── what the venue tells ──────────────────────────────────────────────────────────

    def updated(self, data: OrderUpdateData) -> bool:
        """Take an order_update; return whether it was news.

        An order that we do not know is adopted: an earlier process of ours, or somebody
        else who has the account, submitted it.
        """
        order = self._told_of(data)
        if order is None or not self._name(order, data.order_id):
            self.discarded += 1
            return False
        self._confirm(order)
        order.doubt = None
        order.created_ms = order.created_ms or data.created_at
        order.merge(data, data.updated_at)
        for request in [request for request in order.requests if request.is_old]:
            self._done(request)
        self._end_as_told(order, data.status)
        return self._note(order)

    def filled(self, data: UserTradeData) -> bool:
        """Take a user_trade; return whether it is not one that was told before.

        The trade of an order that is not known yet is kept until it is.
        """
        ids = (data.trade_id, data.order_id)
        if data.quantity <= 0 or max(map(len, ids)) > ID_CHARS:
            self.discarded += 1
            return False
        order = self._by_order_id.get(data.order_id)
        if order is not None:
            is_news = order.fill(data)
            self._note(order)
            return is_news
        key = (data.order_id, data.trade_id)
        is_news = key not in self._early
        self._early[key] = data
        if len(self._early) > EARLY_FILLS:
            del self._early[next(iter(self._early))]
            self.discarded += 1
        return is_news

    def _told_of(self, data: OrderUpdateData) -> Order | None:
        """Return the order that an update is about, a new one if need be."""
        names = {data.client_id, data.client_order_id}
        order = self._by_order_id.get(data.order_id)
        if order is not None and (order.is_heard or names & {None, order.client_id}):
            return order
        # A venue that was restarted may give an id anew.
        client_id = _text(data.client_order_id) or data.client_id
        order = self._by_client_id.get(client_id or "")
        if order is not None and order.order_id is None and not order.is_terminal:
            return order
        ids = (data.order_id, client_id or "")
        if max(map(len, ids)) > ID_CHARS or len(self._open) >= OPEN_ORDERS:
            return None
        order = Order(data, client_id)
        self._add(order)
        return order

    # ── connections ───────────────────────────────────────────────────────────────────

    def disconnected(self) -> None:
        """Note that the connection ended, and with it every answer to come."""
        self._subscribed_ns = self._settle_ns = None
        self._requests.clear()
        for order in self._ended:
            order.is_heard = False
        for order in self._open:
            order.is_heard = False
            for request in order.requests:
                request.is_unknown = True
            self._note(order)

    def begin(self, subscribed_ns: int, now_ns: int) -> None:
        """Note that the subscription of user_orders asked for then is confirmed.

        To be called before its first update, on a new connection, or on the same one to
        settle what had no answer in time.
        """
        self._subscribed_ns = subscribed_ns
        self._settle_ns = now_ns + SETTLE_NS
        for request_id in [id for id, asked in self._requests.items() if _done(asked)]:
            del self._requests[request_id]
        for order in self._ended:
            order.is_heard = False
        for order in self._open:
            order.is_heard = order.sent_ns >= subscribed_ns
            for request in order.requests:
                request.is_old = request.asked_ns < subscribed_ns
                request.is_unknown |= request.is_old
            self._note(order)

    def postpone(self, now_ns: int) -> None:
        """Note that not all that the venue tells may be read: wait SETTLE_NS anew."""
        if self._settle_ns is not None:
            self._settle_ns = now_ns + SETTLE_NS

    def to_probe(self, now_ns: int) -> list[Order]:
        """Return the orders to be canceled now, to find out what became of them.

        To be called ten times a second. An order that can be canceled was live; one
        that is not found never arrived, or ended when nobody listened, which leaves it
        unknown. An order comes again for as long as no cancel of it is on its way.
        """
        if self._settle_ns is not None and now_ns >= self._settle_ns:
            self._settle_ns = None
            for order in self._open:
                if not order.is_heard:
                    order.doubt = Doubt.UNMENTIONED
                    self._note(order)
        if self._subscribed_ns is None or self._settle_ns is not None:
            return []
        if not self._doubtful:
            return []
        return [order for order in self._open if _is_to_probe(order, now_ns)]

    def venue_restarted(self) -> None:
        """Take it that the venue has forgotten what it has not told since begin().

        Only for a new venue epoch: the orders are gone, and their ids may come again.
        """
        self._early.clear()
        for order in [o for o in (*self._open, *self._ended) if not o.is_heard]:
            self.settle(order, Status.CANCELED, "venue restarted")

    def settle(self, order: Order, status: Status, reason: str) -> None:
        """End an order on better knowledge than the venue's, say a person's.

        Should the venue tell of it again, it is adopted as another one.
        """
        self._lose_name(order)
        self._end(order, status, reason)
        self._note(order)

    # ── inside ────────────────────────────────────────────────────────────────────────

    def _add(self, order: Order) -> None:
        self._open[order] = None
        if order.client_id is not None:
            # Strangers may share a name: an order that is open keeps it.
            known = self._by_client_id.get(order.client_id)
            if known is None or known.is_terminal:
                self._by_client_id[order.client_id] = order

    def _name(self, order: Order, order_id: str | None) -> bool:
        """Note what the venue calls an order; return False if it has another name."""
        if order_id is None or order.order_id == order_id:
            return True
        if order.order_id is not None or len(order_id) > ID_CHARS:
            return False
        holder = self._by_order_id.pop(order_id, None)
        if holder is not None:
            # Nobody is to cancel the one when he means the other.
            holder.order_id = None
            self._note(holder)
        order.order_id = order_id
        self._by_order_id[order_id] = order
        for key in [key for key in self._early if key[0] == order_id]:
            order.fill(self._early.pop(key))
        return True

    def _confirm(self, order: Order) -> None:
        """Note that the venue has, or had, the order."""
        order.exists = order.is_heard = True
        for request in list(order.requests):
            if request.operation is Operation.SUBMIT:
                self._done(request)

    def _done(self, request: Request) -> None:
        request.is_done = True
        request.order.requests.remove(request)

    def _end_as_told(self, order: Order, word: str) -> None:
        end = ENDS.get(word)
        if end is None:
            return
        self.discarded += order.is_terminal and order.status is not end
        self._end(order, end)

    def _end(self, order: Order, status: Status, reason: str | None = None) -> None:
        if order.is_terminal:
            return
        order.end(status, reason)
        for request in list(order.requests):
            self._done(request)
        del self._open[order]
        self._ended[order] = None
        if len(self._ended) > self._kept:
            self._forget(next(iter(self._ended)))

    def _forget(self, order: Order) -> None:
        del self._ended[order]
        self._changed.pop(order, None)
        if self._by_client_id.get(order.client_id or "") is order:
            del self._by_client_id[order.client_id or ""]
        self._lose_name(order)

    def _lose_name(self, order: Order) -> None:
        if self._by_order_id.get(order.order_id or "") is order:
            del self._by_order_id[order.order_id or ""]

    def _note(self, order: Order) -> bool:
        """Return whether an order is not what it was, and remember that it changed."""
        if order.is_in_doubt:
            self._doubtful[order] = None
        else:
            self._doubtful.pop(order, None)
        version = order.version()
        if version == order.noted:
            return False
        order.noted = version
        self._changed[order] = None
        return True


def _outcomes(
    message: OrderResponse | BatchResponse | Error | None, requests: list[Request]
) -> Sequence[Outcome | None]:
    """Return what a message says of each operation; None where it says nothing."""
    count = len(requests)
    if isinstance(message, Error):
        return [message.data] * count
    if isinstance(message, BatchResponse):
        results = message.data.results[:count]
        return [_of_batch(*pair) for pair in zip_longest(requests, results)]
    return [None] * count if message is None or count != 1 else [message.data]


def _of_batch(request: Request, result: BatchResult | None) -> Outcome | None:
    if result is None or result.operation != request.operation.value:
        return None
    if result.status == "error":
        return ErrorData(result.code or "", result.message or "")
    return result


def _done(requests: list[Request]) -> bool:
    return all(request.is_done for request in requests)


def _is_to_probe(order: Order, now_ns: int) -> bool:
    """Tell whether a cancel can help, and none is on its way, or was a moment ago."""
    if order.doubt is not Doubt.UNMENTIONED:
        return False
    if order.is_foreign and order.order_id is None:
        return False
    return not any(
        request.operation is Operation.CANCEL
        and (not request.is_unknown or now_ns - request.asked_ns < SETTLE_NS)
        for request in order.requests
    )


def _text(told: object) -> str | None:
    """Return a text that may be UNSET."""
    return told if isinstance(told, str) else None

"""The order desk: what accounts ask of the engines, and what they are told of it.

A request is answered or refused at once; the order updates, trades and account updates
that follow from it are queued for the accounts' channels, in the order of events.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

import msgspec

from feedhandler.protocol.codes import ErrorCode
from feedhandler.protocol.messages import (
    AccountUpdate,
    BatchCancel,
    BatchResponseData,
    BatchResult,
    BatchSubmit,
    CancelOrderData,
    ModifyOrderData,
    OrderData,
    OrderResponseData,
    OrderUpdate,
    OrderUpdateData,
    UserTrade,
    UserTradeData,
)
from feedhandler.venue.ledger import Fee, InsufficientFunds, Ledger
from feedhandler.venue.listing import Listing
from feedhandler.venue.market import Push, private
from feedhandler.venue.matching import Engine, Report, Side
from feedhandler.venue.order import SIDE_NAMES, Order
from feedhandler.venue.requests import (
    Refusal,
    invalid,
    order_terms,
    read_operation,
    refuse_client_order_id,
    refuse_ids,
    whole_lots,
    whole_ticks,
)

__all__ = ["HOUSE", "Desk", "Floor"]

HOUSE = "house"
"""The account of the venue's own traders, which has no limits."""

NS_PER_MS = 1_000_000
# What a subscription brings again of what has ended.
REPLAY_MS = 15 * 60 * 1000
# How long a client order id stays taken, at least, after its order has ended.
TAKEN_MS = 24 * 60 * 60 * 1000

Ending = Literal["filled", "canceled", "expired", "rejected"]

encode = msgspec.json.Encoder().encode


class Floor(NamedTuple):
    """What the desk needs of the exchange around it."""

    listings: Mapping[str, Listing]
    engines: Mapping[str, Engine]
    publish: Callable[[str, Report, int], None]
    """Make known what an operation did to a symbol; calls settle() and activate()."""
    is_open: Callable[[str, int], bool]
    day_end_ms: Callable[[int], int]


class Desk:
    """The orders of all accounts."""

    def __init__(
        self,
        floor: Floor,
        ledger: Ledger,
        accounts: Iterable[str],
        *,
        self_trade: bool = True,
    ) -> None:
        self.ledger = ledger
        self._floor = floor
        self._self_trade = self_trade
        self._owners = {name: n for n, name in enumerate(accounts, 1)}
        self._count = 0
        self._orders: dict[str, Order] = {}
        self._working: dict[tuple[str, int], Order] = {}
        self._by_client_id: dict[tuple[str, str], Order] = {}
        self._taken: set[tuple[str, str]] = set()
        self._ended: deque[tuple[int, Order]] = deque()
        self._released: deque[tuple[int, tuple[str, str]]] = deque()
        self._trades: dict[str, deque[tuple[int, UserTradeData]]] = {
            name: deque() for name in self._owners
        }
        self._touched: dict[str, None] = {}
        self._endings: dict[str, Ending] = {}
        self._pushes: list[Push] = []
        self._heard: set[str] = set()
        self.on_fill: Callable[[Order, int, int, int], None] | None = None
        self.on_account: Callable[[str, int], None] | None = None
        self.on_order: Callable[[str, OrderUpdateData], None] | None = None
        self.on_trade: Callable[[str, UserTradeData], None] | None = None

    # ── requests ──────────────────────────────────────────────────────────────────

    def submit(
        self, account: str, data: OrderData | BatchSubmit, request_id: str | None,
        now_ns: int,
    ) -> OrderResponseData:  # fmt: skip
        """Accept an order and match it, or raise Refusal with nothing changed."""
        now_ms = now_ns // NS_PER_MS
        listing = self._listing(data.symbol)
        terms = order_terms(data, listing)
        refuse_client_order_id(data.client_order_id)
        self._refuse_closed(listing.name, now_ms)
        self._refuse_taken(account, data.client_order_id, now_ms)
        engine = self._floor.engines[listing.name]
        refuse_reached(engine, terms.side, terms.stop_ticks)
        order = Order(
            f"o-{self._count + 1}", account, listing, data.type, terms, now_ms
        )
        order.client_order_id = data.client_order_id
        order.client_id = data.client_order_id or request_id
        self._hold(order, engine)
        self._count += 1
        report = engine.submit(
            self._owners[account], terms.side, terms.lots, terms.price_ticks,
            terms.time_in_force, terms.stop_ticks, self._self_trade,
        )  # fmt: skip
        self._register(order, report.order_id)
        answer = order.response("accepted")
        self._tell_order(order, now_ms)
        self._floor.publish(listing.name, report, now_ns)
        return answer

    def cancel(
        self, account: str, data: CancelOrderData | BatchCancel, now_ns: int
    ) -> OrderResponseData:
        """Take an order out; Refusal if it is not an open one of the account."""
        order = self._find(account, data)
        self._end(order, "canceled", now_ns)
        return order.response("canceled")

    def modify(
        self, account: str, data: ModifyOrderData, now_ns: int
    ) -> OrderResponseData:
        """Change an order; its quantity is the new total. Refusal changes nothing."""
        order = self._find(account, data)
        listing = order.listing
        if data.quantity is None and data.price is None and data.stop_price is None:
            raise invalid("one of quantity, price and stop_price is required")
        self._refuse_closed(listing.name, now_ns // NS_PER_MS)
        lots = (
            order.lots if data.quantity is None else whole_lots(data.quantity, listing)
        )
        price, stop = self._changed_prices(order, data)
        left = lots - order.filled
        if left <= 0:
            order.lots = order.filled
            self._end(order, "canceled", now_ns)
            return order.response("modified")
        self._rehold(order, left, price, stop)
        engine = self._floor.engines[listing.name]
        order.lots, order.price_ticks, order.stop_ticks = lots, price, stop
        report = engine.modify(
            order.engine_id,
            left,
            None if data.price is None else price,
            None if data.stop_price is None else stop,
        )
        answer = order.response("modified")
        self._tell_order(order, now_ns // NS_PER_MS)
        self._floor.publish(listing.name, report, now_ns)
        return answer

    def batch(
        self, account: str, operations: list[msgspec.Raw], now_ns: int
    ) -> BatchResponseData:
        """Run operations in order, each for itself; tell the outcome of each."""
        results = [self._operate(account, raw, now_ns) for raw in operations]
        failed = sum(result.status == "error" for result in results)
        status = "success" if not failed else "partial"
        return BatchResponseData("error" if failed == len(results) else status, results)

    def _operate(self, account: str, raw: msgspec.Raw, now_ns: int) -> BatchResult:
        name = operation_name(raw)
        try:
            operation = read_operation(raw)
            if isinstance(operation, BatchSubmit):
                answer = self.submit(account, operation, None, now_ns)
            elif isinstance(operation, BatchCancel):
                answer = self.cancel(account, operation, now_ns)
            else:
                answer = self.modify(account, operation, now_ns)
        except Refusal as refusal:
            return BatchResult(
                name, "error", code=refusal.code, message=refusal.message
            )
        return BatchResult(
            name, answer.status, answer.order_id, client_id=answer.client_id
        )

    # ── what the exchange says ────────────────────────────────────────────────────

    def settle(
        self, symbol: str, report: Report, trade_ids: list[str], now_ns: int
    ) -> None:
        """Book what an operation did, and queue what its parties are told."""
        taker = self._working.get((symbol, report.order_id))
        now_ms = now_ns // NS_PER_MS
        for fill, trade_id in zip(report.fills, trade_ids, strict=True):
            maker = self._working.get((symbol, fill.maker_id))
            parties = ((taker, report.side, False), (maker, 1 - report.side, True))
            for order, side, makes in parties:
                self._book(
                    order, symbol, side, makes, fill.price_ticks, fill.lots, trade_id,
                    now_ms,
                )  # fmt: skip
        if taker is None or not taker.open:
            return
        if report.resting_lots + report.waiting_lots == 0:
            self._finish(taker, self._endings.pop(taker.id, "canceled"), now_ms)
            self._tell_order(taker, now_ms)

    def activate(self, symbol: str, engine_id: int, now_ns: int) -> Report:
        """Send a stop order whose price was reached into the market, if it can be paid.

        A stop order that buys at any price is reserved for anew: the book has moved.
        """
        order = self._working[symbol, engine_id]
        engine = self._floor.engines[symbol]
        order.triggered = True
        if order.price_ticks is None and order.side == Side.BUY:
            cost, _ = engine.walk(Side.BUY, order.left)
            try:
                if cost:
                    self.ledger.rehold(order.id, order.left, cost=cost)
            except InsufficientFunds:
                self._endings[order.id] = "rejected"
                return engine.cancel(engine_id)
        self._tell_order(order, now_ns // NS_PER_MS)
        return engine.activate(engine_id)

    def tell_accounts(self, now_ns: int) -> None:
        """Queue an account update for every account that was touched."""
        touched, self._touched = self._touched, {}
        for account in touched:
            channel = private("account_updates", account)
            if channel in self._heard:
                update = self._account_update(account, now_ns // NS_PER_MS)
                self.say(Push(channel, update))
            if self.on_account is not None:
                self.on_account(account, now_ns)

    def expire_day_orders(self, now_ns: int) -> None:
        """End every day order that is still open."""
        ending = [o for o in self._working.values() if o.time_in_force == "day"]
        for order in ending:
            if order.open:
                self._end(order, "expired", now_ns)

    # ── subscriptions ─────────────────────────────────────────────────────────────

    def open(self, kind: str, account: str, now_ns: int) -> list[bytes]:
        """Start telling a channel of an account; return its present state."""
        now_ms = now_ns // NS_PER_MS
        self._heard.add(private(kind, account))
        if kind == "account_updates":
            return [self._account_update(account, now_ms)]
        self._forget(now_ms)
        if kind == "user_trades":
            return [
                encode(UserTrade(data, kind, now_ms))
                for _, data in self._trades_of(account, now_ms)
            ]
        ended = (order for _, order in self._ended)
        orders = [o for o in (*ended, *self._working.values()) if o.account == account]
        orders.sort(key=lambda order: int(order.id[2:]))
        return [encode(OrderUpdate(order.update(), kind, now_ms)) for order in orders]

    def release(self, channel: str) -> None:
        """Stop telling a channel: nobody listens."""
        self._heard.discard(channel)

    def say(self, push: Push) -> None:
        """Queue a message after those of the events so far."""
        self._pushes.append(push)

    def take_pushes(self) -> list[Push]:
        """Return what was queued since, and forget it."""
        pushes, self._pushes = self._pushes, []
        return pushes

    def open_orders(self, account: str) -> list[Order]:
        """Return the account's open orders, oldest first."""
        return [o for o in self._working.values() if o.account == account]

    # ── rules ─────────────────────────────────────────────────────────────────────

    def _listing(self, symbol: str) -> Listing:
        listing = self._floor.listings.get(symbol)
        if listing is None:
            raise invalid("symbol is not listed")
        return listing

    def _refuse_closed(self, symbol: str, now_ms: int) -> None:
        if not self._floor.is_open(symbol, now_ms):
            raise Refusal(
                ErrorCode.MARKET_CLOSED, f"The market for {symbol} is currently closed"
            )

    def _refuse_taken(self, account: str, text: str | None, now_ms: int) -> None:
        self._forget(now_ms)
        if text is not None and (account, text) in self._taken:
            raise Refusal(
                ErrorCode.DUPLICATE_CLIENT_ORDER_ID,
                f"Client order ID {text} is already in use",
            )

    def _find(self, account: str, data: CancelOrderData | ModifyOrderData) -> Order:
        """Return the account's open order of that id; a stranger's is not found."""
        refuse_ids(data)
        if data.order_id is not None:
            order = self._orders.get(data.order_id)
        else:
            order = self._by_client_id.get((account, data.client_order_id or ""))
        if order is None or order.account != account or not order.open:
            raise Refusal(ErrorCode.ORDER_NOT_FOUND, "The order was not found")
        return order

    def _changed_prices(
        self, order: Order, data: ModifyOrderData
    ) -> tuple[int | None, int | None]:
        """Return price and stop price of the order as they are to be."""
        price, stop = order.price_ticks, order.stop_ticks
        if data.price is not None:
            if price is None:
                raise invalid(f"price is not allowed for a {order.kind} order")
            price = whole_ticks("price", data.price, order.listing)
        if data.stop_price is not None:
            if stop is None or order.triggered:
                raise invalid("stop_price is only for a stop that has not triggered")
            stop = whole_ticks("stop_price", data.stop_price, order.listing)
            refuse_reached(self._floor.engines[order.listing.name], order.side, stop)
        return price, stop

    # ── funds ─────────────────────────────────────────────────────────────────────

    def _hold(self, order: Order, engine: Engine) -> None:
        """Reserve what a new order needs."""
        ticks, cost = held_price(order.price_ticks, order.stop_ticks), None
        if ticks is None:
            cost, available = engine.walk(order.side, order.lots)
            if available == 0:
                raise invalid("no liquidity for a market order")
        if order.side == Side.SELL:
            ticks = cost = None
        try:
            self.ledger.hold(
                order.id, order.account, order.listing.name, order.side, order.lots,
                price_ticks=ticks, cost=cost,
            )  # fmt: skip
        except InsufficientFunds as error:
            raise insufficient(error) from None

    def _rehold(
        self, order: Order, left: int, price: int | None, stop: int | None
    ) -> None:
        ticks = None if order.side == Side.SELL else held_price(price, stop)
        try:
            self.ledger.rehold(order.id, left, price_ticks=ticks)
        except InsufficientFunds as error:
            raise insufficient(error) from None

    # ── events ────────────────────────────────────────────────────────────────────

    def _register(self, order: Order, engine_id: int) -> None:
        order.engine_id = engine_id
        self._orders[order.id] = order
        self._working[order.listing.name, engine_id] = order
        if order.client_id is not None:
            # The id of a request takes nothing from an order that was named so.
            name = (order.account, order.client_id)
            known = self._by_client_id.get(name)
            if known is None or known.client_order_id is None:
                self._by_client_id[name] = order
        if order.client_order_id is not None:
            self._taken.add((order.account, order.client_order_id))

    def _book(
        self, order: Order | None, symbol: str, side: int, makes: bool, ticks: int,
        lots: int, trade_id: str, now_ms: int,
    ) -> None:  # fmt: skip
        """Book one side of a fill, the house's or an order's."""
        if order is None:
            self.ledger.settle(HOUSE, symbol, side, ticks, lots, maker=makes)
            return
        fee = self.ledger.fill(order.id, ticks, lots, maker=makes)
        order.filled += lots
        self._tell_trade(order, ticks, lots, fee, trade_id, now_ms)
        if order.left == 0:
            self._finish(order, "filled", now_ms)
        else:
            order.status = "partially_filled"
        self._tell_order(order, now_ms)
        if self.on_fill is not None:
            self.on_fill(order, ticks, lots, now_ms)

    def _end(self, order: Order, ending: Ending, now_ns: int) -> None:
        """Take an order out of its engine, for a reason."""
        self._endings[order.id] = ending
        name = order.listing.name
        report = self._floor.engines[name].cancel(order.engine_id)
        self._floor.publish(name, report, now_ns)

    def _finish(self, order: Order, ending: Ending, now_ms: int) -> None:
        order.status = ending
        self.ledger.close(order.id)
        del self._working[order.listing.name, order.engine_id]
        self._ended.append((now_ms + REPLAY_MS, order))
        if order.client_order_id is not None:
            name = (order.account, order.client_order_id)
            self._released.append((self._taken_until_ms(now_ms), name))

    def _taken_until_ms(self, now_ms: int) -> int:
        """Return when the id of an order that ends now is free: after the next session.

        Whoever lost an answer may ask again in the next one without a second order.
        """
        day_end_ms = self._floor.day_end_ms
        return max(now_ms + TAKEN_MS, day_end_ms(day_end_ms(now_ms)))

    def _forget(self, now_ms: int) -> None:
        """Let go of orders that ended long ago, and later of their ids."""
        while self._ended and self._ended[0][0] <= now_ms:
            order = self._ended.popleft()[1]
            del self._orders[order.id]
            name = (order.account, order.client_id or "")
            if self._by_client_id.get(name) is order:
                del self._by_client_id[name]
        while self._released and self._released[0][0] <= now_ms:
            self._taken.discard(self._released.popleft()[1])

    def _trades_of(self, account: str, now_ms: int) -> deque[tuple[int, UserTradeData]]:
        """Return the account's trades of the last 15 minutes."""
        trades = self._trades[account]
        while trades and trades[0][0] <= now_ms:
            trades.popleft()
        return trades

    def _tell_order(self, order: Order, now_ms: int) -> None:
        order.updated_ms = max(now_ms, order.updated_ms)
        self._touched[order.account] = None
        channel = private("user_orders", order.account)
        if self.on_order is None and channel not in self._heard:
            return
        data = order.update()
        if self.on_order is not None:
            self.on_order(order.account, data)
        if channel in self._heard:
            self.say(Push(channel, encode(OrderUpdate(data, "user_orders", now_ms))))

    def _tell_trade(
        self, order: Order, ticks: int, lots: int, fee: Fee, trade_id: str, now_ms: int
    ) -> None:
        listing = order.listing
        data = UserTradeData(
            trade_id,
            order.id,
            listing.name,
            SIDE_NAMES[order.side],
            listing.tick.number(ticks),
            listing.lot.number(lots),
            fee.amount,
            fee.currency,
            now_ms,
        )
        trades = self._trades_of(order.account, now_ms)
        trades.append((now_ms + REPLAY_MS, data))
        if self.on_trade is not None:
            self.on_trade(order.account, data)
        channel = private("user_trades", order.account)
        if channel in self._heard:
            self.say(Push(channel, encode(UserTrade(data, "user_trades", now_ms))))

    def _account_update(self, account: str, now_ms: int) -> bytes:
        marks = {
            name: engine.last_ticks or self._floor.listings[name].previous_close_ticks
            for name, engine in self._floor.engines.items()
        }
        data = self.ledger.view(account, marks)
        return encode(AccountUpdate(data, "account_updates", now_ms))


def held_price(price_ticks: int | None, stop_ticks: int | None) -> int | None:
    """Return the price that a buy is reserved for: its limit, else its stop."""
    return stop_ticks if price_ticks is None else price_ticks


def refuse_reached(engine: Engine, side: int, stop_ticks: int | None) -> None:
    """Raise Refusal for a stop price that the last trade has reached already."""
    last = engine.last_ticks
    if stop_ticks is None or last is None:
        return
    if last >= stop_ticks if side == Side.BUY else last <= stop_ticks:
        raise invalid("stop_price has been reached already")


def insufficient(error: InsufficientFunds) -> Refusal:
    return Refusal(ErrorCode.INSUFFICIENT_FUNDS, f"Insufficient funds: {error}")


class Named(msgspec.Struct):
    """An operation of a batch, of which only the name is looked at."""

    operation: str = ""


_named = msgspec.json.Decoder(Named)


def operation_name(raw: msgspec.Raw) -> str:
    """Return what an operation calls itself, as far as that can be read."""
    try:
        return _named.decode(raw).operation[:64]
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return ""

"""The market of the reference venue: engines, accounts, and all that is told of them.

Sans-I/O: time is an argument, messages go out as Pushes in the order of events.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from decimal import Decimal
from itertools import count

from feedhandler.errors import ConfigError
from feedhandler.protocol.channels import PRIVATE_KINDS, Channel, parse_channel
from feedhandler.venue.alerts import AlertRule, Alerts
from feedhandler.venue.calendar import Calendar
from feedhandler.venue.config import CalendarConfig, SymbolConfig, VenueConfig
from feedhandler.venue.desk import HOUSE, Desk, Floor
from feedhandler.venue.flow import Trader
from feedhandler.venue.journal import LEVELS, Journal, book_crc
from feedhandler.venue.ledger import Ledger, Terms
from feedhandler.venue.listing import Listing
from feedhandler.venue.market import Push
from feedhandler.venue.marketdata import MarketData
from feedhandler.venue.matching import Engine, Report, Side
from feedhandler.venue.notices import Notices
from feedhandler.venue.order import Order
from feedhandler.venue.requests import TICKS_MAX

__all__ = ["Exchange", "check"]

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
# After a stall the traders carry on; they do not make up for more than this.
CATCH_UP_NS = NS_PER_S // 4
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
TRADING_KINDS = ("user_orders", "user_trades", "account_updates")


class Exchange:
    """All symbols and accounts of the venue."""

    patient = False

    def __init__(self, config: VenueConfig, now_ns: int, epoch: str = "0") -> None:
        now_ms = now_ns // NS_PER_MS
        self._config = config
        self._trade_ids = count(1)
        self._pushes: list[Push] = []
        self.engines = {symbol.name: Engine() for symbol in config.symbols}
        self._listings = {symbol.name: Listing(symbol) for symbol in config.symbols}
        self._data = {
            name: MarketData(
                self._listings[name], engine, config.limits.depths_per_symbol
            )
            for name, engine in self.engines.items()
        }
        self.calendar = make_calendar(config.calendar)
        self._halted: set[str] = set()
        self._session_open = self.calendar.is_open(now_ms)
        self._next_change_ms = self.calendar.next_change_ms(now_ms)
        self._day_end_ms = self.calendar.day_end_ms(now_ms)
        self.notices = Notices(epoch, now_ms)
        self.alerts = make_alerts(config)
        for name, listing in self._listings.items():
            # A crossing is from somewhere: before the first trade, from this.
            self.alerts.on_trade(name, listing.previous_close_ticks, now_ms)
        self.ledger = make_ledger(config, self._listings)
        self.desk = Desk(
            Floor(
                self._listings, self.engines, self.publish, self.is_open,
                self.calendar.day_end_ms,
            ),
            self.ledger,
            [account.id for account in config.accounts],
            self_trade=config.self_trade == "allow",
        )  # fmt: skip
        self.desk.on_fill = self._warn_of_fill
        self.desk.on_account = self._warn_of_low_cash
        self._wishes = {account.id: account for account in config.accounts}
        self._low: set[str] = set()
        if not self._session_open:
            self._announce("close", list(self.engines), now_ms)
        self._traders = self._make_traders(now_ns)

    def keep(self, journal: Journal, clock: Callable[[], int]) -> None:
        """Note every order, fill and book state in *journal*, by *clock*."""
        self.desk.on_order = lambda account, order: journal.order(
            account, order, clock()
        )
        self.desk.on_trade = lambda account, trade: journal.fill(
            account, trade, clock()
        )

        def keep_books(listing: Listing, engine: Engine) -> Callable[[str, int], None]:
            def keep_book(channel: str, sequence: int) -> None:
                bids, asks = (
                    engine.top(side, LEVELS) for side in (Side.BUY, Side.SELL)
                )
                depth = parse_channel(channel).depth
                crc = book_crc(listing, bids[:depth], asks[:depth])
                journal.book(channel, sequence, crc, clock())

            return keep_book

        for name, data in self._data.items():
            data.on_book = keep_books(self._listings[name], self.engines[name])

    def _make_traders(self, now_ns: int) -> list[Trader]:
        traders = self._config.traders
        self._step_ns = max(1, round(NS_PER_S / traders.rate))
        self._next_step_ns = now_ns
        if not traders.enabled:
            return []
        made = [
            Trader(self._listings[name], engine, self, traders.seed)
            for name, engine in self.engines.items()
        ]
        for trader in made:
            trader.open(now_ns)
        return made

    # ── trading ───────────────────────────────────────────────────────────────────

    def submit(
        self,
        symbol: str,
        owner: int,
        side: int,
        lots: int,
        *,
        price_ticks: int | None,
        time_in_force: int,
        now_ns: int,
    ) -> Report:
        """Match an order of the house; take() has what is to be told of it."""
        report = self.engines[symbol].submit(
            owner, side, lots, price_ticks, time_in_force
        )
        self.publish(symbol, report, now_ns)
        return report

    def cancel(self, symbol: str, order_id: int, *, now_ns: int) -> Report:
        """Cancel an order of the house; KeyError if it is not in the book."""
        report = self.engines[symbol].cancel(order_id)
        self.publish(symbol, report, now_ns)
        return report

    def publish(self, symbol: str, report: Report, now_ns: int) -> None:
        """Tell everybody what an operation did, and run the stops that it set off."""
        self._record(symbol, report, now_ns)
        engine = self.engines[symbol]
        while due := engine.next_due():
            self._record(symbol, self.desk.activate(symbol, due, now_ns), now_ns)
        self.desk.tell_accounts(now_ns)
        self._pushes += self.desk.take_pushes()

    def _record(self, symbol: str, report: Report, now_ns: int) -> None:
        now_ms = now_ns // NS_PER_MS
        fills = report.fills
        trade_ids = [f"t-{next(self._trade_ids)}" for _ in fills]
        self._pushes += self._data[symbol].take(report, trade_ids, now_ms)
        self.desk.settle(symbol, report, trade_ids, now_ns)
        self._pushes += self.desk.take_pushes()
        for fill in fills:
            for account, alert in self.alerts.on_trade(
                symbol, fill.price_ticks, now_ms
            ):
                self._pushes.append(self.notices.alert(account, alert, now_ms))

    # ── open and closed ───────────────────────────────────────────────────────────

    def is_open(self, symbol: str, now_ms: int) -> bool:
        """Say whether orders are taken, also before advance() heard of the time."""
        if symbol in self._halted:
            return False
        if self._next_change_ms is not None and now_ms >= self._next_change_ms:
            return self.calendar.is_open(now_ms)
        return self._session_open

    def halt(self, symbol: str, now_ns: int) -> None:
        """Take no more orders in *symbol*, until resume()."""
        if symbol not in self._halted and symbol in self.engines:
            self._halted.add(symbol)
            self._announce("halt", [symbol], now_ns // NS_PER_MS)

    def resume(self, symbol: str, now_ns: int) -> None:
        """Take orders in *symbol* again."""
        if symbol in self._halted:
            self._halted.remove(symbol)
            if self._session_open:
                self._announce("open", [symbol], now_ns // NS_PER_MS)

    def shut_down(self, now_ns: int, message: str) -> None:
        """Tell everybody that the venue is about to end."""
        self._pushes.append(
            self.notices.system(
                "shutdown", "Venue shutting down", message, [], now_ns // NS_PER_MS
            )
        )

    def _announce(self, event: str, symbols: list[str], now_ms: int) -> None:
        titles = {
            "open": "Market open",
            "close": "Market closed",
            "halt": "Trading halted",
        }
        words = {
            "open": "Orders are taken in",
            "close": "No orders are taken any more in",
            "halt": "No orders are taken for the time being in",
        }
        self._pushes.append(
            self.notices.system(
                event,  # type: ignore[arg-type]
                titles[event],
                f"{words[event]} {', '.join(symbols)}.",
                symbols,
                now_ms,
            )
        )

    def _pass_time(self, now_ns: int) -> None:
        """Open, close, and end the day's orders, as the calendar says."""
        now_ms = now_ns // NS_PER_MS
        if now_ms >= self._day_end_ms:
            self._day_end_ms = self.calendar.day_end_ms(now_ms)
            self.desk.expire_day_orders(now_ns)
        if self._next_change_ms is None or now_ms < self._next_change_ms:
            return
        self._next_change_ms = self.calendar.next_change_ms(now_ms)
        opened = self.calendar.is_open(now_ms)
        if opened != self._session_open:
            self._session_open = opened
            symbols = [name for name in self.engines if name not in self._halted]
            if symbols:
                self._announce("open" if opened else "close", symbols, now_ms)

    # ── notifications ─────────────────────────────────────────────────────────────

    def _warn_of_fill(self, order: Order, ticks: int, lots: int, now_ms: int) -> None:
        wish = Decimal(self._wishes[order.account].large_fill)
        listing = order.listing
        value = listing.tick.number(ticks) * listing.lot.number(lots)
        if wish and value >= float(wish):
            text = (
                f"Your order {order.id} traded {listing.lot.number(lots):.12g} "
                f"{listing.name} at {listing.tick.number(ticks):.12g}."
            )
            self.desk.say(
                self.notices.user(order.account, "info", "Large fill", text, now_ms)
            )

    def _warn_of_low_cash(self, account: str, now_ns: int) -> None:
        wish = self._wishes[account]
        currency = next(iter(wish.balances), "")
        if not currency or not Decimal(wish.low_cash):
            return
        available = self.ledger.available(account, currency)
        if available >= Decimal(wish.low_cash):
            self._low.discard(account)
        elif account not in self._low:
            self._low.add(account)
            text = (
                f"Your account has {available:f} {currency} available, below "
                f"{wish.low_cash}. Please deposit funds or reduce positions."
            )
            self.desk.say(
                self.notices.user(
                    account, "warning", "Margin Call Warning", text, now_ns // NS_PER_MS
                )
            )

    # ── the seam to the gateways ──────────────────────────────────────────────────

    def refusal(self, channel: Channel, others: Sequence[Channel] = ()) -> str | None:
        """Say why a channel cannot be had beside *others*; None if it can."""
        data = self._data.get(channel.symbol)
        if data is None:
            return f"symbol {channel.symbol!r} is not listed"
        depths = (
            other.depth
            for other in others
            if (other.kind, other.symbol) == ("orderbook", channel.symbol)
        )
        if channel.kind == "orderbook" and not data.has_room(channel.depth, depths):
            most = self._config.limits.depths_per_symbol
            return f"{most} other depths of {channel.symbol} are in use already"
        return None

    def open(self, name: str, now_ns: int) -> list[bytes]:
        """Produce a channel; return what a new subscriber gets first."""
        now_ms = now_ns // NS_PER_MS
        kind, _, account = name.partition("/")
        if kind in TRADING_KINDS:
            return self.desk.open(kind, account, now_ns)
        if kind in PRIVATE_KINDS:
            return self.notices.opening(kind, now_ms)
        channel = parse_channel(name)
        return self._data[channel.symbol].open(channel, name, now_ms)

    def release(self, name: str) -> None:
        """Stop producing a channel: its last subscriber is gone."""
        kind = name.partition("/")[0]
        if kind in TRADING_KINDS:
            self.desk.release(name)
        elif kind not in PRIVATE_KINDS:
            channel = parse_channel(name)
            self._data[channel.symbol].release(channel, name)

    def advance(self, now_ns: int) -> list[Push]:
        """Let the traders act and time pass up to *now_ns*; return the messages due."""
        self._pass_time(now_ns)
        for data in self._data.values():
            self._pushes += data.advance(now_ns // NS_PER_MS)
        if self._traders:
            self._next_step_ns = max(self._next_step_ns, now_ns - CATCH_UP_NS)
            while self._next_step_ns <= now_ns:
                self._next_step_ns += self._step_ns
                for trader in self._traders:
                    if self.is_open(trader.symbol, now_ns // NS_PER_MS):
                        trader.step(now_ns)
        return self.take()

    def take(self) -> list[Push]:
        """Return what is to be told of what was done since."""
        pushes, self._pushes = self._pushes, []
        return pushes

    def due_ns(self) -> int | None:
        """Return when advance() next has something to do; None for not of itself."""
        if self._pushes:
            return 0
        due_ms: Iterable[int | None] = (
            self._next_change_ms,
            self._day_end_ms,
            *(data.due_ms() for data in self._data.values()),
        )
        due = [time_ms * NS_PER_MS for time_ms in due_ms if time_ms is not None]
        if self._traders:
            due.append(self._next_step_ns)
        return min(due, default=None)


def make_calendar(config: CalendarConfig) -> Calendar:
    """Make the calendar that a configuration describes."""
    return Calendar(
        config.timezone,
        opens=config.opens,
        closes=config.closes,
        weekdays=[WEEKDAYS.index(day) for day in config.weekdays],
        holidays=[date_of("holidays", day) for day in config.holidays],
        early_closes={
            date_of("early_closes", day): at for day, at in config.early_closes.items()
        },
    )


def date_of(key: str, text: str) -> date:
    """Return the date that *text* is, else ValueError names *key*."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{key} has {text!r}, which is not a date such as 2021-12-24"
        ) from None


def make_alerts(config: VenueConfig) -> Alerts:
    """Watch for what every account has configured."""
    rules = (
        AlertRule(
            alert.id, account.id, alert.name, alert.condition, alert.symbol,
            alert.threshold,
        )
        for account in config.accounts
        for alert in account.alerts
    )  # fmt: skip
    return Alerts(rules, {symbol.name: symbol.tick for symbol in config.symbols})


def check(config: VenueConfig) -> None:
    """Raise ConfigError for what a venue of this configuration would stumble over."""
    try:
        make_calendar(config.calendar)
        make_alerts(config)
        listings = {symbol.name: Listing(symbol) for symbol in config.symbols}
        for listing in listings.values():
            if listing.previous_close_ticks > TICKS_MAX:
                raise ValueError(f"previous_close of {listing.name} is too many ticks")
        ledger = make_ledger(config, listings)
        marks = {name: found.previous_close_ticks for name, found in listings.items()}
        for account in config.accounts:
            ledger.view(account.id, marks)
    except (ValueError, ArithmeticError) as error:
        raise ConfigError(f"configuration: {error}") from None


def make_ledger(config: VenueConfig, listings: dict[str, Listing]) -> Ledger:
    """Open every account, and that of the house."""
    ledger = Ledger(map(terms_of, config.symbols), allow_short=config.allow_short)
    ledger.open_account(HOUSE, {}, limited=False)
    for account in config.accounts:
        positions = {}
        for symbol in account.positions:
            price = account.average_price(symbol)
            if price is None:
                listing = listings[symbol]
                price = str(listing.tick.number(listing.previous_close_ticks))
            positions[symbol] = (account.quantity(symbol), price)
        ledger.open_account(account.id, account.balances, positions)
    return ledger


def terms_of(symbol: SymbolConfig) -> Terms:
    return Terms(
        symbol.name, symbol.tick, symbol.lot, symbol.currency, symbol.base_currency,
        symbol.maker_fee, symbol.taker_fee,
    )  # fmt: skip

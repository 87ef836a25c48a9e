"""The market that is matched here: the engines, their market data, and the traders."""

from itertools import count

from feedhandler.protocol.channels import Channel, parse_channel
from feedhandler.venue.config import VenueConfig
from feedhandler.venue.flow import Trader
from feedhandler.venue.limits import NS_PER_S
from feedhandler.venue.listing import Listing
from feedhandler.venue.market import Push
from feedhandler.venue.marketdata import MarketData
from feedhandler.venue.matching import Engine, Report

__all__ = ["Exchange"]

NS_PER_MS = 1_000_000
# After a stall the traders carry on; they do not make up for more than this.
CATCH_UP_NS = NS_PER_S // 4


class Exchange:
    """All symbols of the venue. Whatever trades goes through submit() and cancel()."""

    patient = False

    def __init__(self, config: VenueConfig, now_ns: int) -> None:
        trade_ids = count(1)
        self._pushes: list[Push] = []
        self.engines: dict[str, Engine] = {}
        self._data: dict[str, MarketData] = {}
        self._traders: list[Trader] = []
        for symbol in config.symbols:
            listing, engine = Listing(symbol), Engine()
            self.engines[symbol.name] = engine
            self._data[symbol.name] = MarketData(listing, engine, trade_ids)
            if config.traders.enabled:
                self._traders.append(Trader(listing, engine, self, config.traders.seed))
        self._step_ns = max(1, round(NS_PER_S / config.traders.rate))
        self._next_step_ns = now_ns
        for trader in self._traders:
            trader.open(now_ns)

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
        """Match an order, and publish what it did with the next advance()."""
        report = self.engines[symbol].submit(
            owner, side, lots, price_ticks, time_in_force
        )
        return self._publish(symbol, report, now_ns)

    def cancel(self, symbol: str, order_id: int, *, now_ns: int) -> Report:
        """Cancel an order and publish it; KeyError if it is not in the book."""
        return self._publish(symbol, self.engines[symbol].cancel(order_id), now_ns)

    def reduce(self, symbol: str, order_id: int, lots: int, *, now_ns: int) -> Report:
        """Take lots off an order and publish it; KeyError if it is not in the book."""
        report = self.engines[symbol].reduce(order_id, lots)
        return self._publish(symbol, report, now_ns)

    def _publish(self, symbol: str, report: Report, now_ns: int) -> Report:
        self._pushes += self._data[symbol].take(report, now_ns // NS_PER_MS)
        return report

    # ── the seam to the gateways ──────────────────────────────────────────────────

    def refusal(self, channel: Channel) -> str | None:
        """Say why a channel cannot be had; None if it can."""
        if channel.symbol not in self._data:
            return f"symbol {channel.symbol!r} is not listed"
        return None

    def open(self, name: str, now_ns: int) -> list[bytes]:
        """Produce a channel; return what a new subscriber gets first."""
        channel = parse_channel(name)
        return self._data[channel.symbol].open(channel, name, now_ns // NS_PER_MS)

    def release(self, name: str) -> None:
        """Stop producing a channel: its last subscriber is gone."""
        channel = parse_channel(name)
        self._data[channel.symbol].release(channel, name)

    def advance(self, now_ns: int) -> list[Push]:
        """Let the traders act and time pass up to *now_ns*; return the messages due."""
        for data in self._data.values():
            self._pushes += data.advance(now_ns // NS_PER_MS)
        if self._traders:
            self._next_step_ns = max(self._next_step_ns, now_ns - CATCH_UP_NS)
            while self._next_step_ns <= now_ns:
                self._next_step_ns += self._step_ns
                for trader in self._traders:
                    trader.step(now_ns)
        pushes, self._pushes = self._pushes, []
        return pushes

    def due_ns(self) -> int | None:
        """Return when advance() next has something to do; None for not of itself."""
        if self._pushes:
            return 0
        due = [
            due_ms * NS_PER_MS
            for data in self._data.values()
            if (due_ms := data.due_ms()) is not None
        ]
        if self._traders:
            due.append(self._next_step_ns)
        return min(due, default=None)

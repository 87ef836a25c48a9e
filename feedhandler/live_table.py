"""What the demo shows: a live table on a terminal, plain lines elsewhere."""

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.live import Live
from rich.table import Table

from feedhandler.board import LastTicker, Top

__all__ = ["Display", "Row", "display"]

REFRESH_S = 0.25
LINE_S = 1.0


class Row(NamedTuple):
    """One instrument."""

    top: Top
    ticker: LastTicker | None
    flags: str


class Display:
    """Show rows now and then; *live* is None where there is no terminal."""

    def __init__(self, console: Console, live: Live | None) -> None:
        self._console = console
        self._live = live
        self._begun = self._shown = time.monotonic()

    def is_due(self) -> bool:
        """Tell whether it is time to show something new."""
        every = LINE_S if self._live is None else REFRESH_S
        return time.monotonic() - self._shown >= every

    def show(self, rows: Sequence[Row], quotes: int, trades: int) -> None:
        """Show *rows* and the records read so far."""
        self._shown = time.monotonic()
        seconds = self._shown - self._begun
        if self._live is not None:
            title = (
                f"feedhandler demo  {seconds:.0f} s  {quotes} quotes  {trades} trades"
            )
            self._live.update(_table(rows, title), refresh=True)
            return
        markets = "  ".join(
            f"{row.top.symbol} {_number(row.top.bid_price)}/"
            f"{_number(row.top.ask_price)} {row.flags}"
            for row in rows
        )
        print(f"{seconds:.0f}s quotes={quotes} trades={trades}  {markets}", flush=True)


@contextlib.contextmanager
def display() -> Iterator[Display]:
    """Own the terminal for the length of the block, if there is one."""
    console = Console()
    if not console.is_terminal:
        yield Display(console, None)
        return
    with Live(console=console, auto_refresh=False) as live:
        yield Display(console, live)


def _table(rows: Sequence[Row], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in ("symbol", "bid size", "bid", "ask", "ask size", "last", "volume"):
        table.add_column(heading, justify="left" if heading == "symbol" else "right")
    table.add_column("sequence", justify="right")
    table.add_column("state")
    for row in rows:
        top, ticker = row.top, row.ticker
        table.add_row(
            top.symbol,
            _number(top.bid_size),
            _number(top.bid_price),
            _number(top.ask_price),
            _number(top.ask_size),
            _number(ticker.last_price if ticker else math.nan),
            _number(ticker.volume if ticker else math.nan),
            str(top.sequence),
            row.flags,
            style="" if top.is_live else "yellow",
        )
    return table


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.10g}"

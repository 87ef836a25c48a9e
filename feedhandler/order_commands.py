"""The commands ``feedhandler order …``: one request to the venue, or a look at orders.

They have connections of their own: next to a feed of the same key they count towards
the venue's five.
"""

import argparse
import asyncio
import json
from collections.abc import Iterator
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from feedhandler.client import TradingClient
from feedhandler.config import Account, FeedConfig, Shm
from feedhandler.handler import FeedHandler
from feedhandler.order import Cause, Operation, Order
from feedhandler.printable import printable
from feedhandler.protocol.messages import Balance, OrderData, Position, UserTradeData
from feedhandler.secret import Secret

__all__ = ["run"]

DONE, FAILURE = 0, 1
READY_S = 15.0
CANCEL_S = 30.0


async def run(
    options: argparse.Namespace,
    config: FeedConfig,
    secret: Secret | None,
    stop: asyncio.Event,
) -> int:
    """Do what *options* say; return the exit code. Raises what TradingClient does."""
    alone = msgspec.structs.replace(
        config, shm=Shm(name=""), account=Account(channels=()), instruments=(),
        audit_log="",
    )  # fmt: skip
    feed = FeedHandler(alone, secret=secret)
    async with TradingClient(feed, owns=True) as client:
        working = asyncio.ensure_future(_do(options, client, stop))
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and options.order_command == "watch":
            await working
        stopping.cancel()
        if working.done():
            return working.result()
        working.cancel()
        return FAILURE


async def _do(
    options: argparse.Namespace, client: TradingClient, stop: asyncio.Event
) -> int:
    await client.ready(READY_S)
    command = options.order_command
    if command == "watch":
        await _watch(options, client, stop)
    elif command == "list":
        _list(options, client)
    elif command == "cancel" and options.all:
        return await _cancel_all(options, client)
    else:
        answer = await _ask(options, client)
        _print(options, msgspec.to_builtins(answer))
    return DONE


async def _ask(options: argparse.Namespace, client: TradingClient) -> Any:
    if options.order_command == "cancel":
        return await client.cancel_order(
            options.order_id, client_order_id=options.client_order_id
        )
    if options.order_command == "modify":
        order = client.orders.find(options.order_id, options.client_order_id)
        await _see_book(client, order.symbol)
        return await client.modify_order(
            options.order_id,
            client_order_id=options.client_order_id,
            quantity=options.quantity,
            price=options.price,
            stop_price=options.stop_price,
        )
    await _see_book(client, options.symbol)
    return await client.submit_order(
        OrderData(
            options.symbol,
            options.side,
            options.type,
            options.quantity,
            options.price,
            options.stop_price,
            options.tif,
            options.client_order_id,
        )
    )


async def _see_book(client: TradingClient, symbol: str) -> None:
    """Have the book of a symbol, where a guard will ask for it."""
    guards = client.orders.guards
    if (
        guards.collar is None
        and guards.max_notional is None
        and not (guards.refuse_stale)
    ):
        return
    await client.subscribe([f"orderbook:{symbol}:1"])
    await client.feed.live(READY_S)


async def _cancel_all(options: argparse.Namespace, client: TradingClient) -> int:
    orders = client.open_orders
    client.cancel_all()
    async with asyncio.timeout(CANCEL_S):
        while not all(order.is_terminal for order in orders):
            client.feed.check_connections()
            await asyncio.sleep(0.01)
    for order in orders:
        _print(options, _of_order(order))
    return DONE


# ── what is printed ───────────────────────────────────────────────────────────────────


class _Printer:
    """A hearer that prints a line of everything."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options

    def on_order(
        self,
        order: Order,
        cause: Cause,
        operation: Operation | None,
        code: str | None,
        time_ms: int,
        is_replay: bool,
    ) -> None:
        values = {"event": "order", "cause": cause.value} | _of_order(order)
        if operation is not None:
            values["operation"] = operation.value
        if code is not None:
            values["code"] = code
        _print(self._options, values | ({"replay": True} if is_replay else {}))

    def on_fill(
        self, data: UserTradeData, order: Order | None, is_replay: bool
    ) -> None:
        values = {"event": "fill"} | msgspec.to_builtins(data)
        _print(self._options, values | ({"replay": True} if is_replay else {}))

    def on_account(self, rows: list[Balance | Position], time_ms: int) -> None:
        for row in rows:
            kind = "balance" if isinstance(row, Balance) else "position"
            _print(self._options, {"event": kind} | msgspec.to_builtins(row))


async def _watch(
    options: argparse.Namespace, client: TradingClient, stop: asyncio.Event
) -> None:
    """Print what there is, and what happens, until a signal."""
    printer = _Printer(options)
    _print(options, {"event": "watching", "url": client.feed.config.url})
    for order in client.open_orders:
        _print(options, {"event": "order", "cause": "open"} | _of_order(order))
    client.orders.hearers.append(printer)
    while not stop.is_set():
        try:
            await asyncio.wait_for(stop.wait(), 0.1)
        except TimeoutError:
            client.feed.check_connections()


def _list(options: argparse.Namespace, client: TradingClient) -> None:
    orders = [_of_order(order) for order in client.open_orders]
    account = client.orders.account
    balances = [msgspec.to_builtins(row) for row in account.balances.values()]
    positions = [msgspec.to_builtins(row) for row in account.positions.values()]
    if options.json:
        values = {"orders": orders, "balances": balances, "positions": positions}
        print(json.dumps(values))
        return
    console = Console()
    for title, rows in (
        ("open orders", orders),
        ("balances", balances),
        ("positions", positions),
    ):
        if rows:
            console.print(_table(title, rows))
        else:
            console.print(f"no {title}")


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    names = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    for name in names:
        is_number = all(isinstance(row[name], (int, float, type(None))) for row in rows)
        table.add_column(
            name, justify="right" if is_number else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(_text(row[name]) for name in names))
    return table


def _of_order(order: Order) -> dict[str, Any]:
    return {
        "client_id": order.client_id,
        "order_id": order.order_id,
        "symbol": order.symbol,
        "side": order.side,
        "type": order.type,
        "quantity": order.quantity,
        "filled": order.filled,
        "price": order.price,
        "stop_price": order.stop_price,
        "status": order.status.value,
        "reason": order.reason,
    }


def _print(options: argparse.Namespace, values: dict[str, Any]) -> None:
    if options.json:
        print(json.dumps(values), flush=True)
    else:
        print(" ".join(_words(values)), flush=True)


def _words(values: dict[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if value is not None:
            yield f"{name}={_text(value)}"


def _text(value: Any) -> str:
    """Return a value as a word; what the venue wrote cannot forge a line."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.12g}"
    return printable(str(value))

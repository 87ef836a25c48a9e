"""What a feed does for an account: orders out, and what is told of it into memory."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from feedhandler.commands import Commands
from feedhandler.config import FeedConfig
from feedhandler.connection import Connection
from feedhandler.engines import Engines
from feedhandler.errors import ConfigError
from feedhandler.guards import Top
from feedhandler.private import Moment, PrivatePublisher
from feedhandler.protocol.messages import (
    CustomAlert,
    SystemNotification,
    UserNotification,
)
from feedhandler.segments import Segments
from feedhandler.session import Answer
from feedhandler.trading import CHANNELS, OrderFlow, Sent

__all__ = ["Desk"]

log = logging.getLogger("feedhandler")

NOTICES = (SystemNotification, UserNotification, CustomAlert)
# For the venue to cancel what is open, where that is wanted at the end.
CANCEL_S = 2.0
POLL_S = 0.002


class Desk:
    """The account of one feed: its order flow, its records, the engines beside it.

    *top* gives guards the book of a symbol, *instrument_of* records its number. There
    is a flow from serve() on. The loop's thread only.
    """

    def __init__(
        self,
        config: FeedConfig,
        segments: Segments,
        *,
        top: Callable[[str], Top | None],
        instrument_of: Callable[[str], int],
    ) -> None:
        self.flow: OrderFlow | None = None
        self._loop = asyncio.get_running_loop()
        self._config = config
        self._segments = segments
        self._top = top
        self._connection: Connection | None = None
        self._engines: Engines | None = None
        self._waiting: dict[str, list[asyncio.Future[Any]]] = {}
        self._records: PrivatePublisher | None = None
        if segments.private:
            self._records = PrivatePublisher(
                *segments.private, instrument_of=instrument_of, moment=self._now
            )

    # ── life ──────────────────────────────────────────────────────────────────────────

    def serve(self, connection: Connection) -> None:
        """Trade over a connection, if it holds all that this needs."""
        routes = connection.session.routes
        if self.flow is not None or any(name not in routes for name in CHANNELS):
            return
        self._connection = connection
        self.flow = OrderFlow(
            connection.session,
            self._config.trading.guards(),
            top=self._top,
            backlog=connection.backlog,
            hearers=() if self._records is None else (self._records,),
            on_error=lambda error: log.error("a hearer raised", exc_info=error),
        )

    def trading(self) -> OrderFlow:
        """Return the order flow; ConfigError for none."""
        if self.flow is None:
            raise ConfigError(
                "orders want [credentials] and user_orders, user_trades and "
                "account_updates among account.channels"
            )
        return self.flow

    def open(self) -> None:
        """Let other processes trade through us, where that is wanted."""
        config, segments = self._config, self._segments
        if not config.trading.commands:
            return
        if not config.shm.name:
            raise ConfigError("trading.commands wants a name of the shared memory")
        engines = Engines(
            Commands(
                config.shm.name,
                config.shm.directory,
                segments.epoch,
                segments.utc_offset_ns,
            ),
            self.trading(),
        )
        engines.commands.open()
        self._engines = engines
        self._loop.add_reader(engines.commands.fileno(), self._on_commands)

    def close(self) -> None:
        """Tell the engines that nothing more is taken."""
        engines, self._engines = self._engines, None
        if engines is not None:
            self._loop.remove_reader(engines.commands.fileno())
            engines.commands.close()

    async def finish(self) -> None:
        """Take no more commands; cancel what is open, where that is wanted.

        And wait until it is over, but not for long.
        """
        self.close()
        flow, until_ns = self.flow, time.monotonic_ns() + int(CANCEL_S * 1e9)
        if flow is None or not self._config.trading.cancel_on_exit:
            return
        flow.kill(time.monotonic_ns())
        self.flush()
        while flow.orders.open and time.monotonic_ns() < until_ns:
            await asyncio.sleep(POLL_S)
        if flow.orders.open:
            log.error("orders are open at the end: %s", flow.orders.open)

    # ── orders ────────────────────────────────────────────────────────────────────────

    def answer(self, sent: Sent, is_awaited: bool = True) -> "asyncio.Future[Any]":
        """Send what was asked of the flow; return a future of its answer.

        Done already, with None, where the answer was before: *is_awaited* tells.
        """
        future = self._loop.create_future()
        if is_awaited:
            self._waiting.setdefault(sent.request_id, []).append(future)
        else:
            future.set_result(None)
        self.flush()
        return future

    def flush(self) -> None:
        """Send what was asked of the flow, then tell, and wake who reads of it."""
        if self.flow is not None and self._connection is not None:
            self._connection.flush()
            self.flow.announce()
        self.wake()

    def wake(self) -> None:
        """Wake who reads of the account, if there is anything."""
        if self._records is not None:
            self._records.flush()

    def _on_commands(self) -> None:
        """Do what engines ask for, at once."""
        if self._engines is not None and self._engines.poll(time.monotonic_ns()):
            self.flush()

    # ── what happens ──────────────────────────────────────────────────────────────────

    def beat(self, now_ns: int) -> None:
        """Let time pass, ten times a second."""
        if self.flow is not None:
            self.flow.tick(now_ns)
            self.flush()
        if self._engines is not None:
            self._engines.beat(now_ns)
            self._on_commands()

    def answered(self, answer: Answer) -> None:
        """Take an answer of a session."""
        if self.flow is not None:
            self.flow.answered(answer)
        for future in self._waiting.pop(answer.id, ()):
            if not future.done():
                future.set_result(answer.message)

    def hear(self, message: object, connection: Connection) -> None:
        """Take a message of a session's, or what it says of itself."""
        is_notice = isinstance(message, NOTICES)
        if self.flow is not None and (connection is self._connection or is_notice):
            self.flow.hear(message, time.monotonic_ns())
        if self._records is not None and isinstance(message, NOTICES):
            self._records.notice(message, *self._moment(connection, message.channel))

    def counters(self) -> dict[str, int]:
        """Return what is counted of engines; nothing where there can be none."""
        return {} if self._engines is None else self._engines.commands.counters()

    def _now(self) -> Moment:
        """Return when what the flow tells of was received."""
        assert self._connection is not None
        return self._moment(self._connection, CHANNELS[0])

    def _moment(self, connection: Connection, channel: str) -> Moment:
        """Return when a connection last read, and on how many a channel was held."""
        session = connection.session
        route = session.routes.get(channel)
        recv_ns = session.now_ns + self._segments.utc_offset_ns
        return Moment(recv_ns, 0 if route is None else route.epoch)

"""A feed that its caller drives, for an engine that has a loop of its own."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from feedhandler.config import FeedConfig
from feedhandler.event_loop import FeedEventLoop
from feedhandler.handler import FeedHandler
from feedhandler.secret import Secret
from feedhandler.sink import Sink
from feedhandler.tracker import Event

__all__ = ["Feed"]


class Feed:
    """A feed without a thread or an asyncio loop of its own: poll() does what is ready.

    Takes what FeedHandler takes, which it has as *handler*, to be used between polls.
    Sinks and callables are called from within poll(), on the caller's thread. One
    thread, the same for all calls, in which no asyncio loop is running; not from within
    the sinks and callables: RuntimeError, otherwise. What is not polled for
    ``stall_after`` seconds has fallen behind: all of its books are STALE until they are
    known to be of now.

    Use as a context manager, or call start() and stop().
    """

    def __init__(
        self,
        config: FeedConfig,
        sink: Sink | None = None,
        on_event: Callable[[Event], object] | None = None,
        on_message: Callable[[object], object] | None = None,
        secret: Secret | None = None,
    ) -> None:
        self.handler = FeedHandler(config, sink, on_event, on_message, secret)
        self._loop: FeedEventLoop | None = None
        self._happened = 0

    def start(self) -> None:
        """Create the segments and begin to connect; raises as FeedHandler.start()."""
        if self._loop is not None:
            raise RuntimeError("the feed was started already")
        _refuse_within_a_loop()
        self._loop = FeedEventLoop()
        try:
            self._run(self.handler.start())
        except BaseException:
            self.stop()
            raise
        self._happened = self.handler.happened

    def poll(self) -> int:
        """Do what is ready, without waiting; return how many events that brought.

        Events are what sinks and callables are given: quotes, trades, tickers, candles,
        messages of the account, changes of state. Raises ConnectionFailed once every
        connection has given up, and RuntimeError where the feed is not running.
        """
        loop = self._loop
        if loop is None:
            raise RuntimeError("the feed is not running")
        if not loop.turn():
            return 0
        before = self._happened
        self._happened = self.handler.happened
        self.handler.check_connections(all_of_them=True)
        return self._happened - before

    def live(self, timeout: float) -> None:
        """Poll until every book is LIVE and every other channel confirmed.

        Raises TimeoutError after *timeout* seconds, and ConnectionFailed when a
        connection has given up.
        """
        end = time.monotonic() + timeout
        while not self.handler.is_live:
            self.poll()
            self.handler.check_connections()
            if time.monotonic() > end:
                raise TimeoutError(f"not every book is LIVE after {timeout} s")

    def stop(self) -> None:
        """Close all connections, flag all quotes STALE, end the segments; up to 2 s."""
        if self._loop is None:
            return
        _refuse_within_a_loop()
        try:
            self._run(self.handler.stop())
        finally:
            self._close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None
        self._loop.run_until_complete(work)

    def _close(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    def __enter__(self) -> Self:
        """Start the feed."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the feed."""
        self.stop()


def _refuse_within_a_loop() -> None:
    """Raise before anything is begun that could not be ended."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError("a loop is running already")

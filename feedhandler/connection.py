"""One connection to the venue, kept: connect, back off, reconnect, close in time.

Takes values, not the configuration. What to do after a close is read from
protocol.codes; what to say on the wire is the Session's business.
"""

import asyncio
import contextlib
import logging
import random
import ssl
import time
import warnings
from collections.abc import Callable

from picows import WSError, ws_connect

from feedhandler.backoff import Backoff
from feedhandler.protocol.codes import CloseAction, action_for
from feedhandler.session import Session, State

with warnings.catch_warnings():
    # picows structs other than the ones compiled against: refuse, do not guess.
    warnings.filterwarnings("error", message=".*size changed", category=RuntimeWarning)
    from feedhandler.listener import Listener

__all__ = ["Connection"]

log = logging.getLogger("feedhandler.connection")

USEFUL_NS = 30_000_000_000
ZOMBIE_WINDOW_NS = 90_000_000_000
LIMIT_WINDOW_NS = 61_000_000_000
AT_ONCE_NS = 250_000_000
HARD_LIMIT = 4


class Connection:
    """Keep *session* connected to *url* until close() or until there is no more hope.

    *on_events* is called whenever the session has events to take. *failed* is set to
    the reason when the connection has given up for good. The loop's thread only.
    """

    listener_type = Listener

    def __init__(
        self,
        url: str,
        session: Session,
        on_events: Callable[[], object],
        *,
        backoff: Backoff | None = None,
        ssl_context: ssl.SSLContext | None = None,
        max_message_bytes: int = 4 << 20,
        connect_timeout_s: float = 5.0,
        close_timeout_s: float = 2.0,
        retry_forever: bool = False,
    ) -> None:
        self.url = url
        self.session = session
        self.failed: str | None = None
        self.attempts = 0
        self._on_events = on_events
        self._backoff = backoff or Backoff()
        self._ssl_context = ssl_context
        self._max_message_bytes = max_message_bytes
        self._connect_timeout_s = connect_timeout_s
        self._close_timeout_s = close_timeout_s
        self._retry_forever = retry_forever
        self._listener: Listener | None = None
        self._stop = asyncio.Event()
        self._retried: set[CloseAction] = set()

    async def run(self) -> None:
        """Connect and reconnect; return after close(), or with *failed* set."""
        try:
            await self._keep()
        except Exception as error:
            # A mistake of ours: say so, instead of leaving books STALE for ever.
            log.exception("connection broke url=%s", self.url)
            self.session.closed(time.monotonic_ns())
            self.failed = f"internal error: {_describe(error)}"
            self._on_events()

    async def _keep(self) -> None:
        while not self._stop.is_set():
            self.session.connecting(time.monotonic_ns())
            try:
                listener = await self._connect()
            except (
                OSError,
                WSError,
                TimeoutError,
                ValueError,  # of a host name or port that cannot be
                asyncio.CancelledError,
            ) as error:
                self.session.closed(time.monotonic_ns())
                if isinstance(error, asyncio.CancelledError):
                    raise
                action = CloseAction.BACKOFF
                reason = _describe(error)
                if isinstance(error, ssl.SSLCertVerificationError):
                    action = CloseAction.RETRY_ONCE
            else:
                opened_ns = time.monotonic_ns()
                self._listener = listener
                if self._stop.is_set():
                    await self._finish(listener)
                await listener.closed
                await _forget(listener)
                self._listener = None
                if self._was_useful(opened_ns):
                    self._backoff.reset()
                    self._retried.clear()
                action = action_for(listener.close_code or 1006)
                reason = f"closed with {listener.close_code} {listener.close_reason}"
            self._on_events()
            if self._stop.is_set():
                return
            delay_ns = self._delay_ns(action)
            if delay_ns is None:
                self.failed = reason.strip()
                log.error("failed url=%s reason=%r", self.url, self.failed)
                return
            log.warning(
                "reconnect url=%s attempt=%d in_ms=%d reason=%r",
                self.url,
                self._backoff.attempt,
                delay_ns // 1_000_000,
                reason.strip(),
            )
            await self._sleep(delay_ns / 1e9)

    async def _connect(self) -> Listener:
        self.attempts += 1
        listener = self.listener_type(
            self.session, self._on_events, self._max_message_bytes
        )
        try:
            _, made = await asyncio.wait_for(
                ws_connect(
                    lambda: listener,
                    self.url,
                    ssl_context=self._ssl_context,
                    websocket_handshake_timeout=self._connect_timeout_s,
                    enable_auto_pong=False,
                    max_frame_size=HARD_LIMIT * self._max_message_bytes,
                    max_redirects=0,
                ),
                self._connect_timeout_s,
            )
            if made is None:
                # picows' answer to a peer that closed before it had upgraded.
                raise ConnectionError("closed before the upgrade was complete")
        except BaseException:
            listener.discard()
            raise
        return listener

    def _was_useful(self, opened_ns: int) -> bool:
        """Tell whether the attempts may start over: not for a peer that flaps."""
        return (
            self.session.heartbeat_ns > opened_ns + 1_000_000_000
            or time.monotonic_ns() - opened_ns >= USEFUL_NS
        )

    def _delay_ns(self, action: CloseAction) -> int | None:
        """Return how long to wait before the next attempt; None to give up."""
        if action is CloseAction.STOP:
            return None
        if action is CloseAction.RECONNECT and action not in self._retried:
            self._retried.add(action)
            return int(random.uniform(0, AT_ONCE_NS))
        if action in (
            CloseAction.RETRY_ONCE,
            CloseAction.RESUBSCRIBE_ONCE,
            CloseAction.WAIT,
        ):
            if action in self._retried:
                return None
            self._retried.add(action)
        if action is CloseAction.WAIT:
            return ZOMBIE_WINDOW_NS
        if action is CloseAction.COOL_DOWN:
            delay_ns = self._backoff_ns()
            return None if delay_ns is None else max(delay_ns, LIMIT_WINDOW_NS)
        return self._backoff_ns(2 if action is CloseAction.BACKOFF_TWICE else 1)

    def _backoff_ns(self, factor: int = 1) -> int | None:
        delay_ns = self._backoff.next_ns(factor)
        if delay_ns is None and self._retry_forever:
            self._backoff.reset()
            delay_ns = self._backoff.next_ns()
        return delay_ns

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            pass

    def tick(self) -> None:
        """Let time pass; call about ten times a second."""
        if self._listener is None:
            return
        if self._listener.is_overdue(int(self._close_timeout_s * 1e9)):
            self._listener.abort()
        else:
            self._listener.tick()

    def flush(self) -> None:
        """Send what was added to or removed from the session just now."""
        if self._listener is not None:
            self._listener.flush()

    async def close(self) -> None:
        """Close with 1000 and wait for the venue's answer, but not for long."""
        self._stop.set()
        if self._listener is not None:
            await self._finish(self._listener)

    async def _finish(self, listener: Listener) -> None:
        listener.begin_close(1000, "")
        try:
            await asyncio.wait_for(
                asyncio.shield(listener.closed), self._close_timeout_s
            )
        except TimeoutError:
            listener.abort()

    @property
    def state(self) -> State:
        """The session's state."""
        return State(self.session.state)


async def _forget(listener: Listener) -> None:
    """Take the exception that picows keeps; asyncio logs one that nobody asks for.

    What it says is in the listener's close code and reason.
    """
    if listener.transport is not None:
        with contextlib.suppress(Exception):
            await listener.transport.wait_disconnected()


def _describe(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text.splitlines()[0]

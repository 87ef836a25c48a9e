"""One connection to the venue, kept: connect, wait, reconnect, close in time.

Takes values, not the configuration. What to say on the wire, and what follows a close,
is the Session's business.
"""

import asyncio
import contextlib
import logging
import math
import ssl
import time
import warnings
from collections.abc import Callable

from picows import WSError, ws_connect

from feedhandler.event_loop import FeedEventLoop
from feedhandler.protocol.codes import ABNORMAL, UNTRUSTED
from feedhandler.session import Session, State

with warnings.catch_warnings():
    # picows structs other than the ones compiled against: refuse, do not guess.
    warnings.filterwarnings("error", message=".*size changed", category=RuntimeWarning)
    from feedhandler.listener import Listener

__all__ = ["Connection"]

log = logging.getLogger("feedhandler.connection")

HARD_LIMIT = 4


class Connection:
    """Keep *session* connected to *url* until close() or until there is no more hope.

    *on_events* is called whenever the session has events, messages or answers to take.
    The loop's thread only.
    """

    listener_type = Listener

    def __init__(
        self,
        url: str,
        session: Session,
        on_events: Callable[[], object],
        *,
        ssl_context: ssl.SSLContext | None = None,
        max_message_bytes: int = 4 << 20,
        connect_timeout_s: float = 5.0,
        close_timeout_s: float = 2.0,
    ) -> None:
        self.url = url
        self.session = session
        self.attempts = 0
        self._on_events = on_events
        self._ssl_context = ssl_context
        self._max_message_bytes = max_message_bytes
        self._connect_timeout_s = connect_timeout_s
        self._close_timeout_s = close_timeout_s
        self._broken: str | None = None
        self._listener: Listener | None = None
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Connect and reconnect; return after close(), or with *failed* set."""
        try:
            await self._keep()
        except Exception as error:
            # A mistake of ours: say so, instead of leaving books STALE for ever.
            log.exception("connection broke url=%s", self.url)
            self.session.closed(time.monotonic_ns())
            self._broken = f"internal error: {_describe(error)}"
            self._on_events()

    async def _keep(self) -> None:
        session = self.session
        slept_until_ns = 0
        while True:
            # A timer may fire a little early.
            now_ns = max(time.monotonic_ns(), slept_until_ns)
            wait_ns = session.wait_ns(now_ns)
            if wait_ns is None:
                return
            if wait_ns > 0:
                slept_until_ns = now_ns + wait_ns
                await self._sleep(wait_ns / 1e9)
                continue
            slept_until_ns = 0
            session.connecting(time.monotonic_ns())
            code, reason = await self._live()
            session.closed(time.monotonic_ns(), code, reason)
            self._on_events()
            self._report(code, reason)

    async def _live(self) -> tuple[int, str]:
        """Make one connection and wait for its end; return code and reason."""
        try:
            listener = await self._connect()
        except asyncio.CancelledError:
            self.session.closed(time.monotonic_ns())
            raise
        except ssl.SSLCertVerificationError as error:
            return UNTRUSTED, _describe(error)
        except (OSError, WSError, TimeoutError, ValueError) as error:
            # ValueError: of a host name or port that cannot be.
            return ABNORMAL, _describe(error)
        self._listener = listener
        loop = asyncio.get_running_loop()
        if isinstance(loop, FeedEventLoop) and listener.transport is not None:
            loop.pump.take(listener.transport.underlying_transport)
        if self._stop.is_set():
            await self._finish(listener)
        await listener.closed
        await _forget(listener)
        self._listener = None
        return listener.close_code or ABNORMAL, listener.close_reason

    def _report(self, code: int, reason: str) -> None:
        if self.failed is not None:
            log.error("failed url=%s reason=%r", self.url, self.failed)
            return
        wait_ns = self.session.wait_ns(time.monotonic_ns())
        if wait_ns is not None:
            log.warning(
                "reconnect url=%s attempt=%d in_ms=%d code=%d reason=%r",
                self.url,
                self.session.reconnect.attempt,
                wait_ns // 1_000_000,
                code,
                reason,
            )

    @property
    def failed(self) -> str | None:
        """Why the connection has given up for good; None while it has not."""
        return self._broken or self.session.failed

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
                    # Its readers miss a reset that comes right behind data on uvloop.
                    use_aiofastnet=False,
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

    def backlog(self) -> int:
        """Return how many bytes wait because the socket takes no more."""
        return 0 if self._listener is None else self._listener.backlog()

    async def close(self, most_s: float = math.inf) -> None:
        """Close with 1000 and wait for the venue's answer, but not for long.

        No longer than *most_s*, if that is less than the connection's own time.
        """
        self.session.end(time.monotonic_ns())
        self._stop.set()
        if self._listener is not None:
            await self._finish(self._listener, most_s)

    async def _finish(self, listener: Listener, most_s: float = math.inf) -> None:
        listener.begin_close(1000, "")
        try:
            await asyncio.wait_for(
                asyncio.shield(listener.closed), min(self._close_timeout_s, most_s)
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

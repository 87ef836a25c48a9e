"""The venue as a server: picows around the gateways, a clock around the market."""

import asyncio
import logging
import os
import secrets
import ssl
import stat
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

from feedhandler.errors import ConfigError
from feedhandler.protocol.channels import ENDPOINTS
from feedhandler.secret import Secret
from feedhandler.venue.access import Access, Key, Member
from feedhandler.venue.config import (
    LOOPBACK,
    AccountConfig,
    VenueConfig,
    with_demo_account,
)
from feedhandler.venue.connection import (
    CLOSE_DEADLINE_S,
    HIGH_WATER_BYTES,
    LOW_WATER_BYTES,
    Connection,
    Frame,
    text_frame,
)
from feedhandler.venue.exchange import Exchange, check
from feedhandler.venue.faults import FaultPlan
from feedhandler.venue.gateway import Gateway, Services
from feedhandler.venue.journal import Journal
from feedhandler.venue.limits import NS_PER_S
from feedhandler.venue.market import Market, Push
from feedhandler.venue.replay import Replay

__all__ = ["Venue"]

log = logging.getLogger("feedhandler.venue")

GOING_AWAY, RESTARTING = 1001, 4004
FAILED_NS = NS_PER_S
NS_PER_MS = 1_000_000


class PicowsWire:
    """The Wire of a connection, on picows.

    Frames are written whole to the transport below picows, many at once; the close
    frame goes through picows, so that it knows of it.
    """

    def __init__(self, transport: WSTransport) -> None:
        self._transport = transport
        below = transport.underlying_transport
        below.set_write_buffer_limits(HIGH_WATER_BYTES, LOW_WATER_BYTES)
        self.write = below.write
        self.buffered = below.get_write_buffer_size
        self.send_pong = transport.send_pong
        peer = below.get_extra_info("peername")
        self.address = str(peer[0]) if peer else ""

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._transport.is_close_frame_sent or self._transport.is_disconnected

    def send_close(self, code: int, reason: str) -> None:
        """Send a close control frame, the last of all."""
        # picows takes any number; its stub names those of the RFC only.
        self._transport.send_close(cast(WSCloseCode, code), reason.encode())

    def disconnect(self) -> None:
        """End the connection when what is kept has been sent."""
        self._transport.disconnect()

    def abort(self) -> None:
        """End it at once."""
        self._transport.disconnect(graceful=False)


class Listener(WSListener):
    """picows' callbacks, translated for a Connection that *connect* makes."""

    def __init__(self, connect: Callable[[PicowsWire], Connection]) -> None:
        super().__init__()
        self._connect = connect
        self._connection: Connection | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Begin to serve."""
        self._connection = self._connect(PicowsWire(transport))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Hand on one frame."""
        connection = self._connection
        if connection is None:
            return
        if connection.closing and frame.msg_type != WSMsgType.CLOSE:
            # A read may hold forty thousand more: not worth an object each.
            return
        connection.take(
            Frame(
                int(frame.msg_type),  # type: ignore[call-overload]
                frame.get_payload_as_bytes(),
                bool(frame.fin),
                bool(frame.rsv1 or frame.rsv2 or frame.rsv3),
            )
        )

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Hand on the end."""
        if self._connection is not None:
            self._connection.gone()

    def pause_writing(self) -> None:
        """Hand on that the transport holds too much."""
        if self._connection is not None:
            self._connection.pause()

    def resume_writing(self) -> None:
        """Hand on that it holds little again."""
        if self._connection is not None:
            self._connection.resume()


class Venue:
    """The reference venue, in this process and on this loop.

    ``async with Venue(VenueConfig(port=0)) as venue: connect(venue.url + path)``

    A configuration without accounts gets one for demonstration, with a random secret:
    see ``credentials``. With *journal*, everything that happens is noted there.
    """

    def __init__(
        self,
        config: VenueConfig,
        faults: FaultPlan | None = None,
        journal: Journal | None = None,
    ) -> None:
        if not config.accounts:
            config = with_demo_account(config)
        if config.replay is None:
            check(config)
        self.config = config
        self.faults = faults or FaultPlan()
        self.journal = journal
        self.market: Market | None = None
        self.port = config.port
        self._keys = [key_of(account) for account in config.accounts]
        self._access = Access(
            self._keys, config.limits, config.authentication_window_ms
        )
        # One clock that never steps back: what the wall said at the start, and on.
        self._epoch_ns = time.time_ns() - time.monotonic_ns()
        self._server: Any = None
        self._timer: asyncio.Handle | None = None
        self._due_ns = 0
        self._rests_until_ns = 0
        self._restarting: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self._stopped = True
        self._scripted: list[asyncio.TimerHandle] = []
        self._count = 0
        self._connections: dict[Connection, None] = {}
        self._per_address: Counter[str] = Counter()
        self._subscribers: dict[str, dict[Connection, None]] = {}
        self._all_gone: asyncio.Event = asyncio.Event()

    # ── life ──────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Open the market and listen.

        Raises OSError if the port is taken, ConfigError if a recording is unusable.
        """
        async with self._changing:
            self._stopped = False
            await self._begin()

    async def _begin(self) -> None:
        tls = tls_context(self.config.tls_cert, self.config.tls_key)
        self.market = await self._make_market()
        self._rests_until_ns = 0
        self.faults.attach(self._cut, self._deliver, self._restart_soon)
        self._server = await ws_create_server(
            self._accept,
            self.config.host,
            self.port,
            ssl=tls,
            enable_auto_pong=False,
            max_frame_size=self.config.limits.message_bytes,
            logger_name="venue",
        )
        self.port = self._server.sockets[0].getsockname()[1]
        log.info("venue listening url=%s", self.url)
        if not self._scripted:
            loop = asyncio.get_running_loop()
            self._scripted = [
                loop.call_later(fault.after_s, self.faults.run, fault)
                for fault in self.config.faults
            ]
        self._plan()

    async def _make_market(self) -> Market:
        if self.config.replay is not None:
            # Reading a recording through takes a while: not on the loop.
            return await asyncio.to_thread(Replay, self.config.replay)
        exchange = Exchange(self.config, self.now_ns(), secrets.token_hex(8))
        if self.journal is not None:
            exchange.keep(self.journal, self.now_ns)
        return exchange

    async def restart(self, reason: str = "server restarting") -> None:
        """Begin again on the same port: 4004 to everybody, and nothing is kept.

        Faults to come are forgotten too. Nothing happens to a venue that was stopped.
        """
        async with self._changing:
            if self._stopped:
                return
            await self._end(RESTARTING, reason)
            self.faults.clear()
            await self._begin()

    def _restart_soon(self) -> None:
        """Restart for a FaultPlan, which cannot wait; one at a time."""
        if self._restarting is None or self._restarting.done():
            self._restarting = asyncio.get_running_loop().create_task(self.restart())
            self._restarting.add_done_callback(tell_of_failure)

    async def stop(self) -> None:
        """Close every connection with 1001, then stop listening."""
        async with self._changing:
            self._stopped = True
            for timer in self._scripted:
                timer.cancel()
            await self._end(GOING_AWAY, "going away")
        if self.journal is not None:
            self.journal.flush()

    async def _end(self, code: int, reason: str) -> None:
        if self._server is None:
            return
        market = self._open_market()
        if isinstance(market, Exchange):
            market.shut_down(self.now_ns(), f"The venue is shutting down: {reason}.")
            self._deliver(market.take())
        server, self._server = self._server, None
        server.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for connection in list(self._connections):
            connection.close(code, reason)
        if self._connections:
            self._all_gone.clear()
            # Connections abort themselves at the deadline of the close.
            try:
                await asyncio.wait_for(self._all_gone.wait(), 2 * CLOSE_DEADLINE_S)
            except TimeoutError:
                log.error("connections did not end count=%d", len(self._connections))
                for connection in list(self._connections):
                    connection.abort()
        await server.wait_closed()
        log.info("venue stopped url=%s", self.url)

    async def __aenter__(self) -> "Venue":
        """Start it."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop it."""
        await self.stop()

    @property
    def url(self) -> str:
        """The base URL, to which an endpoint's path is appended."""
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        return f"{'wss' if self.config.tls_cert else 'ws'}://{host}:{self.port}"

    @property
    def credentials(self) -> tuple[str, str]:
        """The key and the secret of the first account, for a client to be tested."""
        key = self._keys[0]
        return key.api_key, key.secret.reveal().decode()

    def halt(self, symbol: str) -> None:
        """Take no more orders in *symbol*, and tell everybody."""
        self._exchange().halt(symbol, self.now_ns())
        self.acted()

    def resume(self, symbol: str) -> None:
        """Take orders in *symbol* again, and tell everybody."""
        self._exchange().resume(symbol, self.now_ns())
        self.acted()

    def _exchange(self) -> Exchange:
        market = self._open_market()
        if not isinstance(market, Exchange):
            raise ValueError("a recording takes no orders")
        return market

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def now_ns(self) -> int:
        """Return the venue's time, ns since the epoch."""
        return time.monotonic_ns() + self._epoch_ns

    # ── handshake ─────────────────────────────────────────────────────────────────

    def _accept(self, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        """Answer an upgrade; picows would tell the peer the text of an exception."""
        try:
            return self._judge(request)
        except Exception:
            log.exception("handshake failed")
            return refuse(500, b"internal error")

    def _judge(self, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        if self._server is None:
            # It began before the end: who joined now would never be sent away.
            return refuse(503, b"not available")
        path, _, query = request.path.decode("latin-1").partition("?")
        if path not in ENDPOINTS:
            return refuse(404, b"not found")
        if request.method != b"GET":
            return refuse(405, b"method not allowed")
        headers = request.headers
        host = headers.get("Host", "")
        if not self._knows_host(host):
            return refuse(403, b"host not allowed")
        origin = headers.get("Origin")
        if origin is not None and not self._allows_origin(origin, host):
            return refuse(403, b"origin not allowed")
        # Browsers may send "keep-alive, Upgrade"; picows wants the one word.
        tokens = headers.get("Connection", "").lower().split(",")
        if "upgrade" in (token.strip() for token in tokens):
            headers["Connection"] = "Upgrade"
        binary = parse_qs(query).get("frames") == ["binary"]
        return WSUpgradeResponseWithListener(
            WSUpgradeResponse.create_101_response(), self._listener(path, binary)
        )

    def _knows_host(self, host: str) -> bool:
        """Refuse the names that DNS rebinding would bring to a loopback server."""
        if self.config.host not in LOOPBACK:
            return True
        name = host_in(f"//{host}")
        allowed = [known.lower() for known in self.config.allowed_hosts]
        return name in LOOPBACK or name in allowed

    def _allows_origin(self, origin: str, host: str) -> bool:
        """Programs send no origin; a page must be ours or on the list."""
        try:
            ours = urlsplit(origin).netloc == host
        except ValueError:
            return False
        return ours or origin in self.config.allowed_origins

    def _listener(self, endpoint: str, binary: bool) -> Listener:
        def connect(wire: PicowsWire) -> Connection:
            services = Services(
                self.config, self._open_market(), self._access, self.faults
            )
            gateway = Gateway(services, endpoint, wire.address, self.now_ns())
            connection = Connection(self, self.config, gateway, wire)
            connection.binary = binary
            if self.journal is not None:
                self.journal.note(
                    "open",
                    self.now_ns(),
                    c=connection.number,
                    endpoint=endpoint,
                    address=connection.address,
                )
            return connection

        return Listener(connect)

    def _open_market(self) -> Market:
        if self.market is None:
            raise RuntimeError("the venue has not been started")
        return self.market

    # ── hub ───────────────────────────────────────────────────────────────────────

    @property
    def patient(self) -> bool:
        """Whether the market waits for slow clients instead of losing them."""
        return self._open_market().patient

    def joined(self, connection: Connection) -> bool:
        """Count a new connection; False if its address has too many."""
        self._count += 1
        connection.number = self._count
        self._connections[connection] = None
        self._per_address[connection.address] += 1
        limit = self.config.limits.connections_per_address
        log.info(
            "connected address=%s connections=%d",
            connection.address,
            len(self._connections),
        )
        admitted = self._access.admit_handshake(connection.address, self.now_ns())
        return admitted and self._per_address[connection.address] <= limit

    def left(self, connection: Connection) -> None:
        """Forget a connection that is gone."""
        if connection not in self._connections:
            return
        del self._connections[connection]
        if self.journal is not None:
            self.journal.note("close", self.now_ns(), c=connection.number)
        self._per_address[connection.address] -= 1
        if not self._per_address[connection.address]:
            del self._per_address[connection.address]
        if not self._connections:
            self._all_gone.set()
        log.info(
            "disconnected address=%s connections=%d",
            connection.address,
            len(self._connections),
        )
        self._plan()

    def attach(self, connection: Connection, channel: str) -> list[bytes]:
        """Subscribe a connection; return what the channel begins with."""
        opening = self._open_market().open(channel, self.now_ns())
        opening = self.faults.opening(channel, opening)
        self._subscribers.setdefault(channel, {})[connection] = None
        self._plan()
        return opening

    def detach(self, connection: Connection, channel: str) -> None:
        """Send a connection nothing more on a channel."""
        subscribers = self._subscribers.get(channel)
        if subscribers is None or connection not in subscribers:
            return
        del subscribers[connection]
        if not subscribers:
            del self._subscribers[channel]
            self._open_market().release(channel)

    def drained(self) -> None:
        """Hear that a connection can take more."""
        self._plan()

    def acted(self) -> None:
        """Tell at once what a request brought about."""
        pushes = self._open_market().take()
        if pushes:
            self._deliver(pushes)
        # Also without a message: a ticker may be held back, a candle begun.
        self._plan()

    def evict(self, members: list[Member]) -> None:
        """Close connections that were silent for too long."""
        for connection in list(self._connections):
            if connection.gateway in members:
                connection.close(GOING_AWAY, "heartbeat timeout")

    # ── pump ──────────────────────────────────────────────────────────────────────

    def _plan(self) -> None:
        """Call _pump() when the market next has something to say."""
        if self._server is None or self.market is None:
            return
        waits = self.market.patient and self._congested()
        due_ns = None if waits else self.market.due_ns()
        if due_ns is not None:
            due_ns = max(due_ns, self._rests_until_ns)
        if self._timer is not None:
            if due_ns == self._due_ns:
                return
            self._timer.cancel()
            self._timer = None
        if due_ns is None:
            return
        self._due_ns = due_ns
        loop = asyncio.get_running_loop()
        delay_ns = due_ns - self.now_ns()
        if delay_ns <= 0:
            self._timer = loop.call_soon(self._pump)
        else:
            self._timer = loop.call_later(delay_ns / NS_PER_S, self._pump)

    def _congested(self) -> bool:
        """Tell whether a subscriber does not keep up; a connection without one may."""
        return any(connection.paused for connection in self._connections)

    def _pump(self) -> None:
        """Let time pass in the market, and send what that brings."""
        self._timer = None
        try:
            self._deliver(self._open_market().advance(self.now_ns()))
        except Exception:
            log.exception("market failed")
            for connection in list(self._connections):
                connection.close(1011, "internal error")
            # Not at once: a market that fails again would leave no time for anything.
            self._rests_until_ns = self.now_ns() + FAILED_NS
        self._plan()

    def _deliver(self, pushes: list[Push]) -> None:
        """Queue each message for its subscribers, framed once; then write."""
        if self.faults.active:
            pushes = self.faults.filter(pushes)
        for channel, payload, snapshot in pushes:
            subscribers = self._subscribers.get(channel)
            if not subscribers:
                continue
            frame = text_frame(payload)
            for connection in subscribers:
                connection.queue(frame, snapshot)
                if self.journal is not None:
                    self.journal.outbound(connection.number, payload, self.now_ns())
        for connection in list(self._connections):
            connection.flush()

    def _cut(self, code: int | None, reason: str) -> None:
        """Close, or with no code abort, every connection: for a FaultPlan."""
        for connection in list(self._connections):
            if code is None:
                connection.abort()
            else:
                connection.close(code, reason)


def host_in(url: str) -> str | None:
    """Return the host of a URL, None for what is none."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def tell_of_failure(task: "asyncio.Task[None]") -> None:
    """Log why a restart that nobody waits for did not succeed."""
    if not task.cancelled() and task.exception() is not None:
        log.error("restart failed", exc_info=task.exception())


def refuse(status: int, body: bytes) -> WSUpgradeResponseWithListener:
    """Make an HTTP answer instead of an upgrade; its text is constant."""
    response = WSUpgradeResponse.create_error_response(status, body)
    return WSUpgradeResponseWithListener(response, None)


def key_of(account: AccountConfig) -> Key:
    """Return the key of an account, its secret from wherever it is.

    ConfigError if it is not there. This is a shell: it may look at the environment.
    """
    if account.secret_file:
        return Key(account.api_key, Secret.from_file(account.secret_file), account.id)
    text = account.secret or os.environ.get(account.secret_env, "")
    if not text:
        raise ConfigError(f"environment variable {account.secret_env} is not set")
    return Key(account.api_key, Secret(text), account.id)


def tls_context(cert: str, key: str) -> ssl.SSLContext | None:
    """Return the context of a certificate and its key, None without them.

    ConfigError for a key that others can read, and for files that do not go together.
    """
    if not cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        mode = stat.S_IMODE(os.stat(key).st_mode)
        if mode & 0o077:
            raise ConfigError(f"tls_key {key} has mode {mode:#o}, others can read it")
        context.load_cert_chain(cert, key)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ConfigError(f"tls_cert {cert}, tls_key {key}: {why.lower()}") from None
    return context

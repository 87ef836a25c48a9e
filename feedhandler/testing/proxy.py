"""A TCP proxy in front of a WebSocket server, that does what networks do.

And more: it knows the frames of RFC 6455, and loses, repeats or spoils single messages.
"""

import asyncio
import logging
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import urlsplit

from feedhandler.testing.connection import After, Connection, Nth, Script, Seen
from feedhandler.testing.faults import Faults
from feedhandler.testing.lane import DirectedLane, Direction
from feedhandler.testing.thread import LoopThread, Running

__all__ = [
    "After",
    "Connection",
    "FaultProxy",
    "Happened",
    "Nth",
    "RunningProxy",
    "Seen",
]

log = logging.getLogger("feedhandler.testing")

T = TypeVar("T")

LOG_ENTRIES = 100_000
ACCEPT_AGAIN_S = 0.1
BACKLOG = 128
PORTS = {"ws": 80, "wss": 443}


class Happened(NamedTuple):
    """A fault that did happen. *at_ns* is of time.monotonic_ns().

    *connection* counts from 1, and is 0 for the proxy as a whole. *direction* is "up",
    "down", or "" for both.
    """

    at_ns: int
    connection: int
    direction: str
    kind: str
    detail: dict[str, Any]


class FaultProxy:
    """Stands between clients and *target_url*, and faults when it is told to.

    ``async with FaultProxy(venue.url) as proxy: connect(proxy.url + path)``

    *up* are the faults of what clients say, *down* of what they are told. A *script* is
    run for each connection: pairs of a trigger and what to do with the Connection then;
    a message that triggers has not been passed yet. With a wss target the bytes cannot
    be read: faults of frames are a ValueError. The loop's thread only.
    """

    def __init__(self, target_url: str, script: Script = ()) -> None:
        target = urlsplit(target_url)
        if target.scheme not in PORTS or not target.hostname:
            raise ValueError(f"{target_url!r} is not a ws or wss URL")
        self.sealed = ""
        if target.scheme == "wss":
            self.sealed = f"{target_url} is TLS: faults of frames need a ws target"
            if any(not isinstance(trigger, After) for trigger, _ in script):
                raise ValueError(self.sealed)
        self.script = script
        self.up = Faults(lambda: self._lanes("up"), self.sealed)
        self.down = Faults(lambda: self._lanes("down"), self.sealed)
        self.counts: Counter[str] = Counter()
        self._scheme = target.scheme
        self._path = target.path.rstrip("/")
        self._host = target.hostname
        self._port = target.port or PORTS[target.scheme]
        self._log: deque[Happened] = deque(maxlen=LOG_ENTRIES)
        self._more = asyncio.Event()
        self._reserved: socket.socket | None = None
        self._listening: socket.socket | None = None
        self._again: asyncio.TimerHandle | None = None
        self._connections: dict[Connection, asyncio.Task[None]] = {}
        self._number = 0
        self.port = 0

    # ── life ──────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Listen on a free port of 127.0.0.1."""
        if self._reserved is not None:
            raise RuntimeError("the proxy was started already")
        self._reserved = bound(0)
        self.port = self._reserved.getsockname()[1]
        self._listen()

    async def stop(self) -> None:
        """End every connection, and stop to listen."""
        self._close_listener()
        tasks = list(self._connections.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None

    async def __aenter__(self) -> Self:
        """Start it."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop it."""
        await self.stop()

    # ── what a user asks ──────────────────────────────────────────────────────────

    @property
    def url(self) -> str:
        """The target's URL, with the proxy's address."""
        return f"{self._scheme}://127.0.0.1:{self.port}{self._path}"

    @property
    def log(self) -> list[Happened]:
        """What happened, the last 100,000 entries; *counts* has all, by kind."""
        return list(self._log)

    @property
    def connections(self) -> list[Connection]:
        """The connections that are open."""
        return list(self._connections)

    async def happened(self, kind: str, count: int = 1) -> None:
        """Wait until a kind of fault has happened so many times."""
        while self.counts[kind] < count:
            self._more.clear()
            await self._more.wait()

    def reset(self) -> None:
        """End every connection with RST to both sides."""
        for connection in self.connections:
            connection.reset()

    def blackhole(self) -> None:
        """Swallow everything in both directions; see Faults.blackhole()."""
        self.up.blackhole()
        self.down.blackhole()

    def stall(self) -> None:
        """Let nothing move in either direction; see Faults.stall()."""
        self.up.stall()
        self.down.stall()

    def refuse(self) -> None:
        """Refuse new connections, as if nobody listened; the port stays ours."""
        if self._listening is not None:
            self.note("refuse", {})
            self._close_listener()

    def heal(self) -> None:
        """Turn every fault off: the connections' own, and refuse() too."""
        for connection in self.connections:
            connection.heal()
        self.up.heal()
        self.down.heal()
        if self._reserved is not None and self._listening is None:
            self._listen()

    # ── for its connections ───────────────────────────────────────────────────────

    def note(
        self, kind: str, detail: dict[str, Any], direction: str = "", number: int = 0
    ) -> None:
        """Write a line of the log."""
        entry = Happened(time.monotonic_ns(), number, direction, kind, detail)
        self._log.append(entry)
        self.counts[kind] += 1
        self._more.set()

    def _lanes(self, direction: Direction) -> Iterable[DirectedLane]:
        return [
            lane
            for connection in self._connections
            for lane in connection.lanes
            if lane.name == direction
        ]

    def _listen(self) -> None:
        self._listening = bound(self.port)
        self._listening.listen(BACKLOG)
        self._watch()

    def _watch(self) -> None:
        if self._listening is not None:
            loop = asyncio.get_running_loop()
            loop.add_reader(self._listening, self._accept, self._listening)

    def _close_listener(self) -> None:
        if self._again is not None:
            self._again.cancel()
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
            self._listening = None

    def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            client, _ = listening.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            # No descriptors left, most likely: do not turn in circles until there are.
            log.warning("cannot accept error=%s", error)
            loop.remove_reader(listening)
            self._again = loop.call_later(ACCEPT_AGAIN_S, self._watch)
            return
        client.setblocking(False)
        self._number += 1
        connection = Connection(self, self._number)
        task = loop.create_task(connection.run(client, self._host, self._port))
        self._connections[connection] = task
        task.add_done_callback(lambda _: self._gone(connection, client))

    def _gone(self, connection: Connection, client: socket.socket) -> None:
        del self._connections[connection]
        # Closed already, unless the task was cancelled before it began.
        client.close()


def bound(port: int) -> socket.socket:
    """Return a socket of a port of 127.0.0.1, which sockets of ours may share."""
    # asyncio sets TCP_NODELAY only where the protocol is named.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return sock


class RunningProxy(Running):
    """A FaultProxy on a thread of its own; its methods may be called from any thread.

    ``with RunningProxy(venue.url) as proxy: connect(proxy.url + "/ws/market-data")``
    """

    def __init__(self, target_url: str, script: Script = ()) -> None:
        self._thread = LoopThread("feedhandler-proxy")
        try:
            self._proxy = self._thread.call(lambda: FaultProxy(target_url, script))
            self._thread.wait(self._proxy.start())
        except BaseException:
            self._thread.end()
            raise

    @property
    def url(self) -> str:
        """The target's URL, with the proxy's address."""
        return self._proxy.url

    @property
    def log(self) -> list[Happened]:
        """What happened."""
        return self.do(lambda proxy: proxy.log)

    def do(self, act: Callable[[FaultProxy], T]) -> T:
        """Run *act* with the proxy on its own thread, and return what it returns.

        ``proxy.do(lambda p: p.down.drop(type="orderbook_update"))``
        """
        return self._thread.call(lambda: act(self._proxy))

    def happened(self, kind: str, count: int = 1, timeout_s: float = 30.0) -> None:
        """Wait until a kind of fault has happened so often; TimeoutError if not."""

        async def wait() -> None:
            async with asyncio.timeout(timeout_s):
                await self._proxy.happened(kind, count)

        self._thread.wait(wait(), timeout_s + 1.0)

    def reset(self) -> None:
        """End every connection with RST to both sides."""
        self.do(FaultProxy.reset)

    def blackhole(self) -> None:
        """Swallow everything in both directions; connections stay."""
        self.do(FaultProxy.blackhole)

    def refuse(self) -> None:
        """Refuse new connections."""
        self.do(FaultProxy.refuse)

    def heal(self) -> None:
        """Turn every fault off."""
        self.do(FaultProxy.heal)

    def stop(self) -> None:
        """End every connection, and the thread."""
        self._thread.finish(self._proxy.stop)

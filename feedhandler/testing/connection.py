"""One client's connection through the proxy, and the script that runs on each."""

import asyncio
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import product
from typing import Any, NamedTuple, Protocol, Unpack

from feedhandler.testing.faults import End, Faults, Match, Wanted
from feedhandler.testing.frames import Message
from feedhandler.testing.lane import DirectedLane, Direction

__all__ = ["After", "Connection", "Nth", "Script", "Seen"]

log = logging.getLogger("feedhandler.testing")

READ_BYTES = 64 * 1024
GRACE_S = 1.0
LINGER_0 = struct.pack("ii", 1, 0)


class After(NamedTuple):
    """So many seconds after a client has connected."""

    delay_s: float


class Nth(NamedTuple):
    """The n-th message or control frame of a direction, from 1."""

    direction: Direction
    number: int


class Seen:
    """The first message of a direction that matches."""

    def __init__(self, direction: Direction, **wanted: Unpack[Wanted]) -> None:
        self.direction = direction
        self.match = Match(wanted)


Trigger = After | Nth | Seen
Script = Sequence[tuple[Trigger, Callable[["Connection"], object]]]


class Proxy(Protocol):
    """What a connection needs of the proxy around it."""

    up: Faults
    down: Faults
    sealed: str
    script: Script

    def note(
        self, kind: str, detail: dict[str, Any], direction: str = "", number: int = 0
    ) -> None:
        """Write a line of the log."""


class Connection:
    """A client and its connection to the target; *up* and *down* are its own faults."""

    def __init__(self, proxy: Proxy, number: int) -> None:
        self.number = number
        self.up = Faults(lambda: self._of("up"), proxy.sealed)
        self.down = Faults(lambda: self._of("down"), proxy.sealed)
        self.lanes: list[DirectedLane] = []
        self._proxy = proxy
        self._script = list(proxy.script)
        self._ending: asyncio.Future[End] = asyncio.get_running_loop().create_future()

    def reset(self) -> None:
        """End it with RST to both sides."""
        if not self.is_over:
            self.note("reset", {})
            self.finish(End.RESET)

    def blackhole(self) -> None:
        """Swallow everything in both directions; see Faults.blackhole()."""
        self.up.blackhole()
        self.down.blackhole()

    def stall(self) -> None:
        """Let nothing move in either direction; see Faults.stall()."""
        self.up.stall()
        self.down.stall()

    def heal(self) -> None:
        """Turn the faults of its own off."""
        self.up.heal()
        self.down.heal()

    # ── for the proxy ─────────────────────────────────────────────────────────────

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or is about to."""
        return self._ending.done()

    @property
    def is_scripted(self) -> bool:
        """Whether lines of the script wait for messages."""
        return bool(self._script)

    def finish(self, end: End) -> None:
        """Have it ended."""
        if not self.is_over:
            self._ending.set_result(end)

    def note(self, kind: str, detail: dict[str, Any], direction: str = "") -> None:
        """Write a line of the log."""
        self._proxy.note(kind, detail, direction, self.number)

    def pass_unseen(self) -> None:
        """Hear that what follows are no frames."""
        for lane in self.lanes:
            lane.pass_unseen()

    def trigger(self, direction: Direction, message: Message) -> None:
        """Run the lines of the script that wait for a message, before it is passed."""
        due = [line for line in self._script if is_met(line[0], direction, message)]
        for line in due:
            self._script.remove(line)
            line[1](self)

    async def run(self, client: socket.socket, host: str, port: int) -> None:
        """Serve the client until one of them ends it, or a fault; raises nothing."""
        await self._guard(lambda: self._run(client, host, port))

    async def _run(self, client: socket.socket, host: str, port: int) -> None:
        try:
            reader, writer = await asyncio.open_connection(
                sock=client, limit=READ_BYTES
            )
        except BaseException:
            client.close()
            raise
        end, writers = End.CLOSE, [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection(
                host, port, limit=READ_BYTES
            )
            writers.append(far_writer)
            self._connect("up", reader, far_writer)
            self._connect("down", far_reader, writer)
            end = await self._serve()
            if end is End.CLOSE:
                await self._say_goodbye()
        except OSError as error:
            self.note("unreachable", {"error": str(error)})
            end = End.RESET
        finally:
            for lane in self.lanes:
                lane.forget()
            # First all of them, then wait: a second cancellation must not leave one.
            for each in writers:
                let_go(each, end)
            for each in writers:
                with suppress(OSError):
                    await each.wait_closed()

    def _connect(
        self,
        direction: Direction,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        # With no mark to reach, drain() waits until the kernel has everything.
        writer.transport.set_write_buffer_limits(high=0)
        own, all_of_them = (
            (self.up, self._proxy.up)
            if direction == "up"
            else (self.down, self._proxy.down)
        )
        lane = DirectedLane(
            self,
            direction,
            (own, all_of_them),
            reader,
            writer,
            bool(self._proxy.sealed),
        )
        self.lanes.append(lane)

    async def _serve(self) -> End:
        loop = asyncio.get_running_loop()
        timers = [
            loop.call_later(trigger.delay_s, self._call, act)
            for trigger, act in self._script
            if isinstance(trigger, After)
        ]
        self._script = [each for each in self._script if not isinstance(each[0], After)]
        # A task that is cancelled before it begins never calls what it is to do.
        tasks = [
            loop.create_task(self._guard(partial(work, lane)))
            for work, lane in product((self._pump, self._drain), self.lanes)
        ]
        try:
            return await self._ending
        finally:
            for timer in timers:
                timer.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pump(self, lane: DirectedLane) -> None:
        try:
            while data := await lane.reader.read(READ_BYTES):
                lane.take(data)
                await lane.pipe.room()
        except OSError:
            lane.end(End.RESET)
        else:
            lane.end(End.EOF)

    async def _drain(self, lane: DirectedLane) -> None:
        end = await lane.pipe.run()
        lane.ended = True
        if end is not End.EOF or all(each.ended for each in self.lanes):
            self.finish(end)

    def _call(self, act: Callable[["Connection"], object]) -> None:
        """Run a line of the script; what it raises is the end of this connection."""
        try:
            act(self)
        except Exception as error:
            self._fail(error)

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except OSError:
            self.finish(End.RESET)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        log.error("connection=%d failed", self.number, exc_info=error)
        self.note("error", {"error": repr(error)})
        self.finish(End.RESET)

    async def _say_goodbye(self) -> None:
        """Send FIN to both, and read until they have ended too, but not for long."""
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(GRACE_S):
                for lane in self.lanes:
                    lane.writer.write_eof()
                await asyncio.gather(*(read_all(lane.reader) for lane in self.lanes))

    def _of(self, direction: Direction) -> Iterator[DirectedLane]:
        return (lane for lane in self.lanes if lane.name == direction)


def is_met(trigger: Trigger, direction: Direction, message: Message) -> bool:
    """Tell whether a message is what a line of the script waits for."""
    match trigger:
        case Nth():
            return trigger == (direction, message.number)
        case Seen():
            return trigger.direction == direction and trigger.match.wants(message)
    return False


async def read_all(reader: asyncio.StreamReader) -> None:
    """Read until the end."""
    while await reader.read(READ_BYTES):
        pass


def let_go(writer: asyncio.StreamWriter, end: End) -> None:
    """Close a socket, with RST if that is the end."""
    if end is End.RESET:
        # One that its peer has reset may be closed already.
        with suppress(OSError):
            writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0
            )
    writer.transport.abort()

"""Orders from a process beside the handler: an engine's side of its command channel.

Imports neither asyncio nor picows. Nothing here waits for an answer: those come in the
feed's private streams, by client order id. docs/commands.md says what is promised.
"""

import contextlib
import os
import socket
import stat
import struct
import time
from collections.abc import Callable
from typing import Literal, Self

from feedhandler import shm
from feedhandler.client_ids import ClientIds
from feedhandler.command import (
    SIDES,
    TIMES_IN_FORCE,
    TYPES,
    Command,
    CommandWriter,
    CursorReader,
    Published,
    problem_of,
)
from feedhandler.commands import bell_of
from feedhandler.errors import ChannelFull, HandlerGone, RingAbsent, RingBusy, RingError
from feedhandler.records import CommandKind
from feedhandler.ring import Reader
from feedhandler.segment import Origin
from feedhandler.shm import AttachedSegment, OwnedSegment, Status

__all__ = ["Trader"]

CAPACITY = 1024
DEADLINE_S = 1.0
TIMEOUT_S = 1.0

_WATCH_NS = shm.HEARTBEAT_NS
_NAP_S = 0.001
_TRIES = 4
_NAN = float("nan")
# As COMMAND in records.
_RECORD = struct.Struct("<QQqqBBBB4x32s32s32sddd32x")

Side = Literal["buy", "sell"]
OrderType = Literal["market", "limit", "stop", "stop_limit"]
TimeInForce = Literal["gtc", "ioc", "fok", "day"]


class Trader:
    """The one engine of this process that gives commands to the handler of *name*.

    Opened when it is made: HandlerGone if no handler takes its channel within
    *timeout_s*, RingBusy if this process has a trader of that feed already. After
    HandlerGone the next call looks for a handler again. Not for two threads, nor for a
    forked child, which may open one of its own.
    """

    def __init__(
        self,
        name: str,
        *,
        directory: str | os.PathLike[str] = shm.DIRECTORY,
        capacity: int = CAPACITY,
        timeout_s: float = TIMEOUT_S,
        open_orders: Callable[..., Reader] | None = None,
    ) -> None:
        self._name = name
        self._directory = directory
        self._capacity = capacity
        self._timeout_s = timeout_s
        self._open_orders = open_orders
        self._pid = os.getpid()
        self._stream = f"commands-{self._pid}"
        self._ids = ClientIds()
        self._expired: list[Command] = []
        self._closed = False
        self._channel: _Channel | None = None
        self._channel = self._connect()

    # ── what is asked for ─────────────────────────────────────────────────────────────

    def submit(
        self,
        symbol: str,
        side: Side,
        type: OrderType,
        quantity: float,
        *,
        price: float | None = None,
        stop_price: float | None = None,
        time_in_force: TimeInForce | None = None,
        client_id: str | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> str:
        """Ask for a new order; return its client order id, a new one if none is given.

        This and all that follow return when the command is in the channel: ChannelFull
        or HandlerGone, and it is not, nor will be; ValueError for what makes no sense.
        A handler that does not come to it within *deadline_s*, 60 at most, answers
        EXPIRED and never sends it.
        """
        order_id = client_id or self._ids.next()
        self._give(
            CommandKind.SUBMIT,
            deadline_s,
            client_id=order_id,
            symbol=symbol,
            side=_code(SIDES, side, "side"),
            type=_code(TYPES, type, "type"),
            tif=_code(TIMES_IN_FORCE, time_in_force, "time_in_force"),
            quantity=quantity,
            price=price,
            stop_price=stop_price,
        )
        return order_id

    def modify(
        self,
        client_id: str = "",
        *,
        order_id: str = "",
        quantity: float | None = None,
        price: float | None = None,
        stop_price: float | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """Ask for another total quantity, price or stop price of an order."""
        self._give(
            CommandKind.MODIFY,
            deadline_s,
            client_id=client_id,
            order_id=order_id,
            quantity=quantity,
            price=price,
            stop_price=stop_price,
        )

    def cancel(
        self,
        client_id: str = "",
        *,
        order_id: str = "",
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """Ask for an order to be taken out; *order_id* for one that is not ours."""
        self._give(
            CommandKind.CANCEL, deadline_s, client_id=client_id, order_id=order_id
        )

    def cancel_all(self, symbol: str = "", *, deadline_s: float = DEADLINE_S) -> str:
        """Ask for all orders to be taken out, or all of *symbol*; return a name for it.

        By that name, in the place of a client order id, it is answered if it expires.
        """
        name = self._ids.next()
        self._give(CommandKind.CANCEL_ALL, deadline_s, client_id=name, symbol=symbol)
        return name

    def resolve(self, client_id: str, *, deadline_s: float = DEADLINE_S) -> None:
        """Ask to be told again what an order is by now, say after HandlerGone."""
        self._give(CommandKind.RESOLVE, deadline_s, client_id=client_id)

    # ── what came of it ───────────────────────────────────────────────────────────────

    def expired(self) -> list[Command]:
        """Return, once, the commands that a handler left behind.

        They were never taken, and never will be: an order whose cancel is among them
        may well live. What was taken may have been carried out or not: resolve() tells.
        """
        self._check_process()
        if self._channel is not None:
            self._watch(self._channel, time.monotonic_ns())
        expired, self._expired = self._expired, []
        return expired

    def orders(
        self,
        start: Literal["new", "oldest"] | int = "new",
        on_lap: Literal["half", "latest"] = "half",
    ) -> Reader:
        """Open the stream of order events, in which the answers come."""
        if self._open_orders is None:
            raise ValueError("trader was not made by MarketData.trader()")
        return self._open_orders(start, on_lap)

    @property
    def is_connected(self) -> bool:
        """Whether there was a handler when we last looked."""
        return self._channel is not None

    def close(self) -> None:
        """Say goodbye: what is in the channel is still carried out, if in time."""
        if self._closed:
            return
        self._closed = True
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def __enter__(self) -> Self:
        """Return itself; leaving the block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    # ── inside ────────────────────────────────────────────────────────────────────────

    def _give(
        self,
        kind: CommandKind,
        deadline_s: float,
        *,
        client_id: str,
        order_id: str = "",
        symbol: str = "",
        side: int = 0,
        type: int = 0,
        tif: int = 0,
        quantity: float | None = None,
        price: float | None = None,
        stop_price: float | None = None,
    ) -> None:
        if self._closed:
            raise ValueError("trader is closed")
        self._check_process()
        if not 0 <= deadline_s <= 60:
            raise ValueError(f"deadline_s is {deadline_s}, not 0 to 60")
        channel = self._channel = self._channel or self._connect()
        now_ns = time.monotonic_ns()
        sent_ns = now_ns + channel.offset_ns
        record = _RECORD.pack(
            0,
            channel.writer_epoch,
            sent_ns + int(deadline_s * 1e9),
            sent_ns,
            kind,
            side,
            type,
            tif,
            _text(client_id, "client_id"),
            _text(order_id, "order_id"),
            _text(symbol, "symbol"),
            _NAN if quantity is None else quantity,
            _NAN if price is None else price,
            _NAN if stop_price is None else stop_price,
        )
        problem = problem_of(record)
        if problem:
            raise ValueError(problem)
        self._watch(channel, now_ns)
        if self._channel is None:
            raise HandlerGone(self._name, f"it is {channel.status.value}")
        published = channel.writer.publish_record(record, now_ns)
        if published == Published.SENT_ASLEEP:
            channel.ring()
        elif published == Published.FULL:
            raise ChannelFull(self._capacity)
        elif published != Published.SENT:
            self._lose(channel)
            broken = published == Published.BROKEN
            raise HandlerGone(
                self._name, "its cursor is none" if broken else "it does not beat"
            )

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise ValueError(f"trader belongs to process {self._pid}, open another one")

    def _watch(self, channel: "_Channel", now_ns: int) -> None:
        """Notice now and then that the handler's process is gone."""
        if now_ns >= channel.watch_ns:
            channel.watch_ns = now_ns + _WATCH_NS
            channel.look()
            if channel.status not in (Status.LIVE, Status.STALLED):
                self._lose(channel)

    def _lose(self, channel: "_Channel") -> None:
        """Take back what the handler did not take, and let go of it."""
        self._expired += channel.writer.revoke(self._stream, channel.offset_ns)
        self._channel = None
        channel.close()

    def _connect(self) -> "_Channel":
        """Make a channel, and wait for a handler to take it."""
        origin = self._board_origin()
        now_ns = announced_ns = time.monotonic_ns()
        end_ns = now_ns + int(self._timeout_s * 1e9)
        channel = _Channel(
            self._name, self._stream, self._directory, self._capacity, origin
        )
        try:
            while not channel.is_taken():
                if now_ns >= announced_ns:
                    announced_ns = now_ns + _WATCH_NS
                    channel.announce()
                if now_ns >= end_ns:
                    raise HandlerGone(
                        self._name, f"it did not come in {self._timeout_s:g} s"
                    )
                time.sleep(_NAP_S)
                now_ns = time.monotonic_ns()
        except BaseException:
            channel.close()
            raise
        return channel

    def _board_origin(self) -> Origin:
        """Return the epoch and the clock of the handler that lives now."""
        try:
            with shm.attach(self._name, "board", directory=self._directory) as board:
                status = board.status()
                if status not in (Status.LIVE, Status.STALLED):
                    raise HandlerGone(self._name, f"its board is {status.value}")
                return board.meta.origin
        except RingAbsent:
            raise HandlerGone(self._name, "there is no board") from None


class _Channel:
    """The channel to one life of a handler: what we write, and what it writes."""

    def __init__(
        self,
        name: str,
        stream: str,
        directory: str | os.PathLike[str],
        capacity: int,
        handler: Origin,
    ) -> None:
        self.writer_epoch = handler.epoch
        self.offset_ns = handler.created_realtime_ns - handler.created_monotonic_ns
        self.watch_ns = 0
        self.status = Status.LIVE
        self._name = name
        self._directory = directory
        self._cursor_stream = stream.replace("commands", "cursor")
        self._cursor: AttachedSegment | None = None
        self._bell: socket.socket | None = None
        self._owned = _create(name, stream, CommandWriter.size_for(capacity), directory)
        try:
            self.writer = CommandWriter(
                self._owned.buffer, capacity, handler.epoch, self._owned.origin
            )
            self._owned.publish()
        except BaseException:
            self._owned.close()
            raise

    def announce(self) -> None:
        """Tell the handler of our pid; it looks around by itself too, every second."""
        if self._bell is None:
            self._bell = self._connect()
        if self._bell is not None:
            with contextlib.suppress(OSError):
                self._bell.send(str(os.getpid()).encode())

    def _connect(self) -> socket.socket | None:
        bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        bell.setblocking(False)
        try:
            with bell_of(self._name, self._directory) as address:
                found = os.stat(address, follow_symlinks=False)
                if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
                    raise RingError(f"{address} is not a socket of ours")
                bell.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            bell.close()
            return None
        except BaseException:
            bell.close()
            raise
        return bell

    def is_taken(self) -> bool:
        """Say whether the handler has a cursor for this channel by now."""
        try:
            cursor = shm.attach(
                self._name, self._cursor_stream, directory=self._directory
            )
        except RingAbsent:
            return False
        try:
            reader = CursorReader(cursor.buffer)
            is_ours = reader.channel_epoch == self._owned.origin.epoch
            reader.release()
            if is_ours and cursor.meta.origin.epoch == self.writer_epoch:
                self.writer.follow(cursor.buffer)
                self._cursor = cursor
                return True
        except BaseException:
            cursor.close()
            raise
        # One that a handler before left for a process of this number.
        cursor.close()
        return False

    def look(self) -> None:
        """Ask the kernel and the handler's page about its process."""
        if self._cursor is not None:
            self.status = self._cursor.status()

    def ring(self) -> None:
        """Wake the handler. Where that fails, its next beat sees the command."""
        if self._bell is not None:
            with contextlib.suppress(OSError):
                self._bell.send(b"\0")
                self.writer.woke()

    def close(self) -> None:
        self.writer.release()
        self._owned.close()
        if self._cursor is not None:
            self._cursor.close()
        if self._bell is not None:
            self._bell.close()


def _create(
    name: str, stream: str, size: int, directory: str | os.PathLike[str]
) -> OwnedSegment:
    for _ in range(_TRIES - 1):
        # A handler that clears up after us holds the lock for a moment.
        with contextlib.suppress(RingBusy):
            return shm.create(name, stream, size, directory=directory)
        time.sleep(_NAP_S)
    return shm.create(name, stream, size, directory=directory)


def _code(words: tuple[str | None, ...], word: str | None, what: str) -> int:
    try:
        return words.index(word)
    except ValueError:
        raise ValueError(
            f"{what} is {word!r}, not one of {', '.join(filter(None, words))}"
        ) from None


def _text(text: str, what: str) -> bytes:
    encoded = text.encode("ascii", "replace")
    if len(encoded) > 32:
        raise ValueError(f"{what} is {text!r}, not 32 characters or less")
    return encoded

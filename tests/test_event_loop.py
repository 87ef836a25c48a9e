"""The loop that reads by itself, and forgets nothing of asyncio."""

import asyncio
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from feedhandler.event_loop import FeedEventLoop, Pump
from tests.loops import eventually

SECONDS = 10.0
RESET = struct.pack("ii", 1, 0)


Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=[False, True], ids=["block", "spin"])
def run(request: pytest.FixtureRequest) -> Run:
    def run(work: Coroutine[Any, Any, Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(SECONDS):
                return await work

        with asyncio.Runner(
            loop_factory=lambda: FeedEventLoop(request.param)
        ) as runner:
            return runner.run(bounded())

    return run


def pump() -> Pump:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, FeedEventLoop)
    return loop.pump


class Reader(asyncio.BufferedProtocol):
    """Keeps what came, and how the connection ended."""

    def __init__(self, room: int = 64) -> None:
        self.room = bytearray(room)
        self.data = bytearray()
        self.lost: list[Exception | None] = []
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self.room)

    def buffer_updated(self, nbytes: int) -> None:
        self.data += self.room[:nbytes]

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


async def connected(made: type[Reader] = Reader) -> tuple[Reader, socket.socket]:
    """Return a protocol whose socket the pump reads, and the other end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        loop = asyncio.get_running_loop()
        _, reader = await loop.create_connection(made, *server.getsockname())
        peer, _ = server.accept()
    assert pump().take(reader.transport)
    return reader, peer


def test_what_comes_is_read_in_order_and_not_by_the_selector(run: Run):
    sent = bytes(range(256)) * 64

    async def work() -> int:
        reader, peer = await connected()
        with peer:
            peer.sendall(sent)
            await eventually(lambda: len(reader.data) == len(sent), "all of it")
            assert reader.data == sent
            assert not reader.transport.is_reading()
        await eventually(lambda: reader.lost, "the end")
        return pump().reads

    assert run(work()) == len(sent) // 64


def test_sockets_are_read_by_turns(run: Run):
    async def work() -> None:
        pairs = [await connected() for _ in range(5)]
        for number, (_, peer) in enumerate(pairs):
            peer.sendall(bytes([number]) * 640)
        await eventually(
            lambda: all(len(reader.data) == 640 for reader, _ in pairs), "all of them"
        )
        for number, (reader, peer) in enumerate(pairs):
            assert set(reader.data) == {number}
            peer.close()
        await eventually(lambda: all(reader.lost for reader, _ in pairs), "the ends")

    run(work())


@pytest.mark.parametrize("way", ["FIN", "RST"])
def test_a_socket_that_ends_is_ended_by_asyncio(run: Run, way: str):
    async def work() -> None:
        reader, peer = await connected()
        other, other_peer = await connected()
        peer.sendall(b"last words")
        await eventually(lambda: reader.data, "what was said before")
        if way == "RST":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        peer.close()
        await eventually(lambda: reader.lost, "the end")
        other_peer.sendall(b"still here")
        await eventually(lambda: other.data == b"still here", "the other one")
        other_peer.close()
        await eventually(lambda: other.lost, "the other's end")
        assert reader.data == b"last words"
        assert reader.transport.is_closing()

    run(work())


def test_a_protocol_that_raises_loses_its_connection_alone(run: Run):
    class Broken(Reader):
        def buffer_updated(self, nbytes: int) -> None:
            raise ValueError("no taste for this")

    async def work() -> None:
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: told.append(context["exception"])
        )
        broken, peer = await connected(Broken)
        sound, other = await connected()
        with peer, other:
            peer.sendall(b"x")
            await eventually(lambda: broken.lost, "the end of one")
            other.sendall(b"y")
            await eventually(lambda: sound.data == b"y", "the other one")
            sound.transport.close()
            await eventually(lambda: sound.lost, "its end")
        assert [str(error) for error in told] == ["no taste for this"]

    run(work())


def test_a_connection_that_was_closed_is_read_no_more(run: Run):
    class Done(Reader):
        def buffer_updated(self, nbytes: int) -> None:
            super().buffer_updated(nbytes)
            self.transport.abort()

    async def work() -> None:
        first, peer = await connected(Done)
        with peer:
            descriptor = first.transport.get_extra_info("socket").fileno()
            peer.sendall(b"x" * 640)
            await eventually(lambda: first.lost, "the end")
            assert len(first.data) == 64
        # The next socket may have the same number, and is somebody else's.
        with socket.socket() as unrelated:
            assert unrelated.fileno() <= descriptor
        second, peer = await connected()
        with peer:
            peer.sendall(b"y")
            await eventually(lambda: second.data == b"y", "the next one")
        await eventually(lambda: second.lost, "its end")
        assert len(first.data) == 64

    run(work())


def test_timers_and_callbacks_run_while_data_never_ends(run: Run):
    async def work() -> None:
        reader, peer = await connected()
        ended = threading.Event()

        def flood() -> None:
            with peer:
                while not ended.is_set():
                    peer.sendall(b"x" * 4096)

        flooding = threading.Thread(target=flood)
        flooding.start()
        try:
            await eventually(lambda: reader.data, "data")
            start = time.monotonic()
            for _ in range(10):
                await asyncio.sleep(0.01)
                await asyncio.sleep(0)
            assert time.monotonic() - start < 2.0
            before = len(reader.data)
            await eventually(lambda: len(reader.data) > before, "more data")
        finally:
            ended.set()
            reader.transport.abort()
            await asyncio.to_thread(flooding.join)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", lambda _: None)  # the peer is reset
        run(work())


def test_another_thread_and_a_signal_get_through(run: Run):
    async def work() -> None:
        _, peer = await connected()
        loop = asyncio.get_running_loop()
        assert await asyncio.to_thread(lambda: 7) == 7
        heard = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, heard.set)
        threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        await heard.wait()
        loop.remove_signal_handler(signal.SIGUSR1)
        peer.close()

    run(work())


def test_ctrl_c_ends_it(run: Run):
    async def work() -> None:
        _, peer = await connected()
        with peer:
            threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start()
            await asyncio.sleep(SECONDS)

    with pytest.raises(KeyboardInterrupt):
        run(work())


def test_what_is_encrypted_or_over_already_is_left_to_the_selector(run: Run):
    class Encrypted:
        def is_closing(self) -> bool:
            return False

        def get_extra_info(self, name: str) -> Any:
            return {"sslcontext": object()}.get(name)

    async def work() -> None:
        assert not pump().take(Encrypted())  # type: ignore[arg-type]
        reader, peer = await connected()
        with peer:
            reader.transport.abort()
            assert not pump().take(reader.transport)
            await eventually(lambda: reader.lost, "the end")

    run(work())


# ── driven by its caller ──────────────────────────────────────────────────────────────


def test_a_turn_waits_for_nothing_and_does_what_is_due():
    loop = FeedEventLoop()
    done: list[str] = []
    try:
        reader, peer = loop.run_until_complete(connected())
        while loop.turn():
            pass
        loop.call_later(0.02, done.append, "timer")
        loop.call_soon(done.append, "callback")
        assert loop.turn()
        assert done == ["callback"]
        peer.sendall(b"data")
        end = time.monotonic() + SECONDS
        while done != ["callback", "timer"] or not reader.data:
            assert time.monotonic() < end
            loop.turn()
        assert reader.data == b"data"
        peer.close()
        while not reader.lost:
            assert time.monotonic() < end
            loop.turn()
        start = time.monotonic()
        turns = [loop.turn() for _ in range(100)]
        assert time.monotonic() - start < 1.0
        assert not any(turns[-50:])
    finally:
        loop.close()


def turn_until_it_raises(loop: FeedEventLoop) -> None:
    for _ in range(1_000):
        loop.turn()


def test_a_turn_within_a_running_loop_is_refused(run: Run):
    spun = FeedEventLoop()
    try:
        reader, peer = spun.run_until_complete(connected())

        async def work() -> None:
            with peer:
                peer.sendall(b"x")
                with pytest.raises(RuntimeError, match="running"):
                    turn_until_it_raises(spun)

        asyncio.run(work())
        assert reader.data == b""
        reader.transport.abort()
        spun.run_until_complete(asyncio.sleep(0))
    finally:
        spun.close()

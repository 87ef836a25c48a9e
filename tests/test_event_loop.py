"""The loop that reads by itself, and forgets nothing of asyncio."""

import asyncio
import gc
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


@pytest.mark.parametrize("mode", [False, True], ids=["block", "spin"])
def test_ctrl_c_is_heard_with_no_timer_to_wake_anybody(mode: bool):
    async def work() -> None:
        _, peer = await connected()
        with peer:
            threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start()
            # The far one is for the test to end in any case.
            await asyncio.sleep(SECONDS)

    start = time.monotonic()
    with (
        pytest.raises(KeyboardInterrupt),
        asyncio.Runner(loop_factory=lambda: FeedEventLoop(mode)) as runner,
    ):
        runner.run(work())
    assert time.monotonic() - start < SECONDS / 2


def test_a_transport_that_somebody_resumes_is_the_selectors_again(run: Run):
    class Moving(Reader):
        """Has each read go to another place, as a buffer that grows does."""

        def buffer_updated(self, nbytes: int) -> None:
            super().buffer_updated(nbytes)
            self.room = bytearray(64)

    sent = bytes(range(256)) * 4

    async def work() -> None:
        reader, peer = await connected(Moving)
        with peer:
            peer.sendall(b"first")
            await eventually(lambda: reader.data == b"first", "what the pump reads")
            reads = pump().reads
            reader.transport.resume_reading()
            for at in range(0, len(sent), 64):
                peer.sendall(sent[at : at + 64])
                await eventually(
                    lambda: len(reader.data) >= 5 + at + 64,  # noqa: B023
                    "what the selector reads",
                )
            assert reader.data == b"first" + sent
            assert pump().reads == reads
        await eventually(lambda: reader.lost, "the end")

    run(work())


def test_a_transport_may_be_resumed_from_within_its_own_read(run: Run):
    class Resuming(Reader):
        def buffer_updated(self, nbytes: int) -> None:
            super().buffer_updated(nbytes)
            self.transport.resume_reading()

    async def work() -> None:
        first, peer = await connected(Resuming)
        second, other = await connected()
        with peer, other:
            for _ in range(3):
                before = len(first.data), len(second.data)
                peer.sendall(b"x")
                other.sendall(b"y")
                await eventually(
                    lambda: (len(first.data), len(second.data)) > before,  # noqa: B023
                    "both",
                )
            await eventually(lambda: second.data == b"yyy", "the other")
            await eventually(lambda: first.data == b"xxx", "the one")
        await eventually(lambda: first.lost and second.lost, "the ends")

    run(work())


def test_what_is_paused_or_was_taken_already_is_not_taken(run: Run):
    async def work() -> None:
        reader, peer = await connected()
        with peer:
            assert not pump().take(reader.transport)
            peer.sendall(b"once")
            await eventually(lambda: reader.data, "what was sent")
            assert reader.data == b"once"
        await eventually(lambda: reader.lost, "the end")

    run(work())


def test_more_sockets_than_are_read_directly_are_left_to_the_selector(run: Run):
    async def work() -> None:
        loop = asyncio.get_running_loop()
        peers, readers = [], []
        for _ in range(130):
            near, far = socket.socketpair()
            _, reader = await loop.create_connection(Reader, sock=near)
            peers.append(far)
            readers.append(reader)
        taken = [pump().take(reader.transport) for reader in readers]
        assert taken == [True] * 128 + [False] * 2
        for number, peer in enumerate(peers):
            peer.sendall(bytes([number]))
        await eventually(lambda: all(reader.data for reader in readers), "all of them")
        assert [reader.data[0] for reader in readers] == list(range(130))
        assert pump().reads == 128
        for peer in peers:
            peer.close()
        await eventually(lambda: all(reader.lost for reader in readers), "the ends")

    run(work())


class Untakable(Reader):
    """Has no room when the pump asks first."""

    rooms = 0

    def get_buffer(self, sizehint: int) -> memoryview:
        self.rooms += 1
        return memoryview(self.room)[: 0 if self.rooms == 1 else None]


def test_a_transport_that_cannot_be_taken_is_left_as_it_was(run: Run):
    async def work() -> None:
        other, other_peer = await connected()
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as server, other_peer:
            _, reader = await loop.create_connection(Untakable, *server.getsockname())
            peer, _ = server.accept()
            with peer, pytest.raises(BufferError):
                pump().take(reader.transport)
            peer.close()
            await eventually(lambda: reader.lost, "its end, by the selector")
            other_peer.sendall(b"sound")
            await eventually(lambda: other.data == b"sound", "the other one")
        await eventually(lambda: other.lost, "the other's end")

    run(work())


def test_a_room_may_be_any_buffer(run: Run):
    class Plain(Reader):
        def get_buffer(self, sizehint: int) -> Any:
            return self.room

    async def work() -> None:
        reader, peer = await connected(Plain)
        with peer:
            peer.sendall(b"data")
            await eventually(lambda: reader.data == b"data", "what was sent")
        await eventually(lambda: reader.lost, "the end")

    run(work())


def test_what_a_protocol_is_cancelled_with_ends_its_connection_alone(run: Run):
    class Cancelled(Reader):
        def buffer_updated(self, nbytes: int) -> None:
            raise asyncio.CancelledError

    async def work() -> None:
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: told.append(context["exception"])
        )
        reader, peer = await connected(Cancelled)
        with peer:
            peer.sendall(b"x")
            await eventually(lambda: reader.lost, "the end")
        assert [type(error) for error in told] == [asyncio.CancelledError]

    run(work())


def test_stop_from_within_a_read_stops_the_loop():
    class Stopping(Reader):
        def buffer_updated(self, nbytes: int) -> None:
            super().buffer_updated(nbytes)
            asyncio.get_running_loop().stop()

    loop = FeedEventLoop()
    try:
        reader, peer = loop.run_until_complete(connected(Stopping))
        timer = loop.call_later(SECONDS / 2, loop.stop)
        with peer:
            peer.sendall(b"x")
            start = time.monotonic()
            loop.run_forever()
            assert time.monotonic() - start < SECONDS / 4
        assert reader.data == b"x"
        timer.cancel()
        reader.transport.abort()
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        loop.close()


def test_a_descriptor_taken_by_somebody_else_ends_its_connection_alone(run: Run):
    async def work() -> None:
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: told.append(context["exception"])
        )
        reader, peer = await connected()
        sound, other = await connected()
        with peer, other, open(os.devnull) as nothing:
            # No socket any more, and nothing that an epoll takes.
            descriptor = reader.transport.get_extra_info("socket").fileno()
            os.dup2(nothing.fileno(), descriptor)
            other.sendall(b"x")
            await eventually(lambda: reader.lost, "the end")
            other.sendall(b"y")
            await eventually(lambda: sound.data == b"xy", "the other one")
        await eventually(lambda: sound.lost, "its end")
        assert told == []

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
        end = time.monotonic() + SECONDS
        while not reader.data and time.monotonic() < end:
            spun.turn()
        assert reader.data == b"x"  # was not read, to be lost then
        reader.transport.abort()
        spun.run_until_complete(asyncio.sleep(0))
    finally:
        spun.close()


class Calling(Reader):
    """Does *work* when it has data."""

    def buffer_updated(self, nbytes: int) -> None:
        super().buffer_updated(nbytes)
        self.work()

    def work(self) -> None:
        raise NotImplementedError


def ended(loop: FeedEventLoop, *readers: Reader) -> None:
    """Close what is open, and the loop."""
    for reader in readers:
        reader.transport.abort()
    loop.run_until_complete(asyncio.sleep(0.001))
    loop.close()


def turned(loop: FeedEventLoop, probe: Callable[[], Any], pause_s: float = 0.0) -> None:
    """Turn until *probe* is true."""
    end = time.monotonic() + SECONDS
    while not probe():
        assert time.monotonic() < end
        loop.turn()
        time.sleep(pause_s)


def test_a_turn_within_a_turn_is_refused_and_loses_nothing():
    refused: list[str] = []
    loop = FeedEventLoop()

    class Turning(Calling):
        def work(self) -> None:
            try:
                loop.turn()
            except RuntimeError as error:
                refused.append(str(error))

    first, peer = loop.run_until_complete(connected(Turning))
    second, other = loop.run_until_complete(connected(Turning))
    with peer, other:
        peer.sendall(b"x" * 640)
        other.sendall(b"y" * 640)
        turned(loop, lambda: len(first.data) == len(second.data) == 640)
        assert len(refused) == 20
        ended(loop, first, second)


def test_a_room_is_asked_for_again_after_an_interrupt():
    class Interrupted(Calling):
        def work(self) -> None:
            self.room = bytearray(64)
            if len(self.data) == 64:
                raise KeyboardInterrupt

    loop = FeedEventLoop()
    reader, peer = loop.run_until_complete(connected(Interrupted))
    with peer:
        peer.sendall(b"x" * 64)
        with pytest.raises(KeyboardInterrupt):
            turned(loop, lambda: False)
        peer.sendall(b"y" * 64)
        turned(loop, lambda: len(reader.data) == 128)
        assert reader.data == b"x" * 64 + b"y" * 64
        ended(loop, reader)


def test_a_connection_closed_in_anothers_callback_gets_no_more_data():
    loop = FeedEventLoop()
    pair: list[Reader] = []

    class Closing(Calling):
        def work(self) -> None:
            for reader in pair:
                if reader is not self:
                    reader.transport.abort()

    first, peer = loop.run_until_complete(connected(Closing))
    second, other = loop.run_until_complete(connected(Closing))
    pair += [first, second]
    with peer, other:
        peer.sendall(b"x")
        other.sendall(b"y")
        turned(loop, lambda: first.lost or second.lost)
        assert len(first.data) + len(second.data) == 1
        ended(loop, first, second)


def test_a_connection_that_ended_while_the_loop_ran_is_read_no_more():
    loop = FeedEventLoop()
    reader, peer = loop.run_until_complete(connected())

    async def lost() -> int:
        descriptor: int = reader.transport.get_extra_info("socket").fileno()
        reader.transport.abort()
        await asyncio.sleep(0)
        assert reader.lost
        return descriptor

    foreign, far = socket.socketpair()
    descriptor = loop.run_until_complete(lost())
    with peer, foreign, far:
        # The number is somebody else's now.
        os.dup2(foreign.fileno(), descriptor)
        try:
            far.sendall(b"not yours")
            for _ in range(100):
                loop.turn()
            assert foreign.recv(64, socket.MSG_DONTWAIT) == b"not yours"
        finally:
            os.close(descriptor)
        assert reader.data == b""
        loop.close()


def test_who_turns_slowly_has_what_is_ready_done_at_each_turn():
    loop = FeedEventLoop()
    done: list[int] = []
    loop.run_until_complete(asyncio.sleep(0))
    near, far = socket.socketpair()
    with near, far:
        loop.add_reader(near, lambda: done.append(near.recv(1)[0]))
        for number in range(5):
            far.sendall(bytes([number]))
            time.sleep(0.001)
            loop.turn()
            assert len(done) == number + 1
        loop.remove_reader(near)
    loop.close()


def test_a_loop_that_was_closed_reads_nothing():
    loop = FeedEventLoop()
    reader, peer = loop.run_until_complete(connected())
    with peer:
        loop.close()
        peer.sendall(b"x")
        for _ in range(3):
            with pytest.raises(RuntimeError, match="closed"):
                loop.turn()
        assert reader.data == b""
        # Nothing here keeps the transport, of which asyncio then complains.
        del reader
        with pytest.warns(ResourceWarning) as warned:
            gc.collect()
        assert any("unclosed transport" in str(one.message) for one in warned)


def test_a_turn_of_another_thread_is_refused_while_one_is_done():
    refused: list[str] = []
    loop = FeedEventLoop()

    def intrude() -> None:
        try:
            loop.turn()
        except RuntimeError as error:
            refused.append(str(error))

    class Threaded(Calling):
        def work(self) -> None:
            intruder = threading.Thread(target=intrude)
            intruder.start()
            intruder.join()

    reader, peer = loop.run_until_complete(connected(Threaded))
    with peer:
        peer.sendall(b"x")
        turned(loop, lambda: reader.data)
        assert refused == ["a loop is running already"]
        ended(loop, reader)


def test_callbacks_without_end_keep_no_socket_from_its_turn():
    loop = FeedEventLoop()
    ran: list[None] = []

    def again() -> None:
        ran.append(None)
        loop.call_soon(again)

    pairs = [loop.run_until_complete(connected()) for _ in range(3)]
    loop.call_soon(again)
    for _, peer in pairs:
        peer.sendall(b"x" * 640)
    for _ in range(1000):
        loop.turn()
    assert [len(reader.data) for reader, _ in pairs] == [640] * 3
    assert len(ran) >= 1000
    for _, peer in pairs:
        peer.close()
    ended(loop, *(reader for reader, _ in pairs))

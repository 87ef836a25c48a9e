"""The fault proxy: transparent without a fault, and each fault exactly as asked for."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedhandler.testing import (
    After,
    FaultProxy,
    FixedGap,
    MultiGap,
    Nth,
    RandomGap,
    RunningProxy,
    RunningVenue,
    Seen,
)
from feedhandler.testing.connection import LINGER_0, Connection
from feedhandler.testing.frames import FrameReader, encode
from feedhandler.testing.lane import MESSAGE_BYTES
from feedhandler.venue import build as venue_config
from tests.loops import SECONDS, eventually, run
from tests.rawpeer import CLOSE, CONTINUATION, PING, TEXT
from tests.test_frames import FRAMES, MASK, sliced

Json = dict[str, Any]


@pytest.mark.parametrize(
    "make",
    [
        lambda: FixedGap(1, 0),
        lambda: MultiGap(4, 4, 1),
        lambda: RandomGap(1.1, 1),
        lambda: FaultProxy("http://127.0.0.1:1"),
        lambda: FaultProxy("ws://127.0.0.1:1").down.bandwidth(0),
        lambda: FaultProxy("ws://127.0.0.1:1").down.drop(count=0),
        lambda: FaultProxy("ws://127.0.0.1:1").down.corrupt(flip=0),
    ],
)
def test_a_fault_that_cannot_be_is_an_error(make):
    with pytest.raises(ValueError, match=r"gap|probability|URL|bytes|happen|flip"):
        make()


# ── an echo behind the proxy ──────────────────────────────────────────────────────────

UPGRADE = b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"
ANSWER = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


class Echo:
    """Answers an upgrade, and sends back whatever bytes it then gets."""

    def __init__(self, answer: bytes = ANSWER) -> None:
        self.url = ""
        self.ends: list[str] = []
        self.got = bytearray()
        self.writers: list[asyncio.StreamWriter] = []
        self._answer = answer

    async def _serve(self, reader: Any, writer: Any) -> None:
        self.writers.append(writer)
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self._answer)
            while data := await reader.read(65_536):
                self.got += data
                writer.write(data)
                await writer.drain()
            self.ends.append("FIN")
        except ConnectionResetError:
            self.ends.append("RST")
        except asyncio.IncompleteReadError:
            self.ends.append("early FIN")
        finally:
            writer.close()

    async def __aenter__(self) -> "Echo":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"ws://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self.writers:
            writer.close()
        await eventually(lambda: len(self.ends) == len(self.writers), "the echo")


class Raw:
    """A client that reads and writes bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader = reader
        self.writer = writer

    def say(self, *payloads: Any) -> None:
        """Send messages as a client: masked."""
        for payload in payloads:
            self.writer.write(told(payload))

    async def hear(self, count: int) -> list[Any]:
        """Return the payloads of the next messages, as JSON where they are."""
        return [await self.frame() for _ in range(count)]

    async def frame(self) -> Any:
        head = await self.reader.readexactly(2)
        size = head[1] & 0x7F
        assert size < 126
        rest = await self.reader.readexactly(size + (4 if head[1] & 0x80 else 0))
        (found,) = FrameReader(1 << 20).feed(head + rest)
        try:
            return json.loads(found.payload)
        except ValueError:
            return found.payload

    async def end(self) -> str:
        """Return how the connection ended, after what was left."""
        try:
            await self.reader.read()
        except ConnectionResetError:
            return "RST"
        return "FIN"


def told(payload: Any, opcode: int = TEXT, fin: bool = True) -> bytes:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return encode(fin << 7 | opcode, data, MASK)


def numbered(count: int) -> list[Json]:
    return [{"data": {"sequence": n}, "type": "t", "id": str(n)} for n in range(count)]


def sequences(messages: list[Any]) -> list[int]:
    return [message["data"]["sequence"] for message in messages]


@asynccontextmanager
async def dialled(proxy: FaultProxy, upgraded: bool = True) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        if upgraded:
            writer.write(UPGRADE)
            assert await reader.readexactly(len(ANSWER)) == ANSWER
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()


async def round_trip() -> None:
    """Let the loop turn as often as a message needs there and back, beside the test."""
    async with Echo() as echo, FaultProxy(echo.url) as proxy, dialled(proxy) as client:
        client.say({"id": "1"})
        assert await client.hear(1) == [{"id": "1"}]


Scene = Callable[[FaultProxy, Raw, Echo], Awaitable[None]]


def echoing(scene: Scene, script: Any = ()) -> None:
    """Run a scene with an echo, a proxy before it and a client of that."""

    async def work() -> None:
        async with (
            Echo() as echo,
            FaultProxy(echo.url, script) as proxy,
            dialled(proxy) as client,
        ):
            await scene(proxy, client, echo)

    run(work)


def kinds(proxy: FaultProxy) -> list[str]:
    return [entry.kind for entry in proxy.log]


@given(FRAMES, st.lists(st.integers(0, 1 << 20), max_size=6), st.booleans())
@settings(max_examples=15, deadline=None)
def test_without_a_fault_the_same_bytes_come_out(frames, cuts, watched):
    data = b"".join(frames)

    async def scene(proxy: FaultProxy, client: Raw, echo: Echo) -> None:
        if watched:
            proxy.up.drop(type="no such")
            proxy.down.drop(type="no such")
        for piece in sliced(data, cuts):
            client.writer.write(piece)
            await asyncio.sleep(0)
        client.writer.write_eof()
        back = await client.reader.read()
        if watched:
            # Control frames overtake the fragments of a message that is looked at.
            assert len(back) == len(data)
            assert sorted(back) == sorted(data)
        else:
            assert back == data
        assert proxy.log == []

    echoing(scene)


def test_what_is_no_upgrade_passes_unseen():
    async def work() -> None:
        answer = b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"
        async with (
            Echo(answer) as echo,
            FaultProxy(echo.url) as proxy,
            dialled(proxy, upgraded=False) as client,
        ):
            proxy.down.drop(count=None)
            client.writer.write(UPGRADE + b"\x81\x7f half a frame")
            expected = answer + b"\x81\x7f half a frame"
            assert await client.reader.readexactly(len(expected)) == expected

    run(work)


def test_a_message_that_is_too_large_to_keep_passes_unseen_and_is_told():
    large = bytes(MESSAGE_BYTES)

    async def scene(proxy: FaultProxy, client: Raw, echo: Echo) -> None:
        proxy.up.drop(count=None, number=range(3, 9))
        proxy.down.drop(count=None, number=range(3, 9))
        whole = told(large) + told(large, fin=False) + told(b"x", CONTINUATION)
        client.writer.write(whole)
        client.writer.write_eof()
        assert await client.reader.read() == whole
        assert proxy.counts["oversize"] == 4

    echoing(scene)


def test_nobody_there_is_a_reset_and_told():
    async def work() -> None:
        async with FaultProxy("ws://127.0.0.1:1") as proxy:
            async with dialled(proxy, upgraded=False) as client:
                assert await client.end() == "RST"
            assert kinds(proxy) == ["unreachable"]

    run(work)


def test_a_proxy_that_stops_at_any_moment_leaves_nothing():
    async def work() -> None:
        for turns in range(12):
            async with Echo() as echo:
                async with FaultProxy(echo.url) as proxy:
                    _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
                    writer.write(UPGRADE)
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    if turns % 2:
                        proxy.reset()
                assert proxy.connections == []
                writer.transport.abort()

    run(work)


# ── bytes ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.req("F-10")
def test_latency_makes_bytes_late_and_keeps_their_order():
    async def scene(proxy: FaultProxy, client: Raw, echo: Echo) -> None:
        loop = asyncio.get_running_loop()
        proxy.down.latency(0.05, 0.02, seed=3)
        began = loop.time()
        client.say(*numbered(20))
        assert sequences(await client.hear(20)) == list(range(20))
        assert loop.time() - began >= 0.03
        (entry,) = proxy.log
        assert (entry.kind, entry.direction, entry.connection) == ("latency", "down", 1)
        assert entry.detail == {"delay_s": 0.05, "jitter_s": 0.02, "seed": 3}

    echoing(scene)


def test_what_is_late_comes_when_the_latency_ends():
    async def scene(proxy: FaultProxy, client: Raw, echo: Echo) -> None:
        fault = proxy.down.latency(3600.0)
        client.say({"id": "1"})
        await proxy.happened("latency")
        proxy.down.end(fault)
        assert await client.hear(1) == [{"id": "1"}]

    echoing(scene)


@pytest.mark.req("F-11", "I-17")
def test_bandwidth_holds_the_source_back():
    async def scene(proxy: FaultProxy, client: Raw, echo: Echo) -> None:
        loop = asyncio.get_running_loop()
        proxy.up.bandwidth(100_000)
        began = loop.time()
        payload = bytes(20_000)
        client.say(payload)
        await eventually(lambda: len(echo.got) > len(payload), "the bytes")
        assert loop.time() - began >= 0.18
        assert kinds(proxy) == ["bandwidth"]
        proxy.heal()

    echoing(scene)


@pytest.mark.req("I-17")
def test_a_stall_keeps_no_more_than_its_bound_and_loses_nothing():
    size = 60_000
    count = 400

    async def scene(proxy: FaultProxy, client: Raw, echo: Echo) -> None:
        proxy.up.stall()
        for _ in range(count):
            client.say(bytes(size))
        await proxy.happened("stall")
        # What the proxy and the kernel do not take stays with us.
        transport = client.writer.transport
        seen = [0]

        def settled() -> bool:
            seen.append(transport.get_write_buffer_size())
            return len(seen) > 50 and len(set(seen[-50:])) == 1

        await eventually(settled, "the back-pressure")
        assert transport.get_write_buffer_size() > count * size // 2
        lane = proxy.connections[0].lanes[0]
        assert lane.pipe._held_bytes < 512 * 1024
        assert echo.got == b""
        proxy.heal()
        back = asyncio.create_task(client.end())
        client.writer.write_eof()
        await eventually(lambda: len(echo.got) == count * (size + 8), "all of it")
        assert await back == "FIN"

    echoing(scene)


@pytest.mark.req("F-13")
@pytest.mark.parametrize("size", [1, 7])
def test_slices_are_the_same_messages(size):
    async def scene(proxy: FaultProxy, client: Raw, echo: Echo) -> None:
        pieces: list[int] = []
        proxy.down.slicer(size)
        client.say(*numbered(5))
        expected = b"".join(told(message) for message in numbered(5))
        back = b""
        while len(back) < len(expected):
            piece = await client.reader.read(65_536)
            pieces.append(len(piece))
            back += piece
        assert back == expected
        assert len(pieces) > 5
        assert kinds(proxy) == ["slicer"]

    echoing(scene)


@pytest.mark.req("F-15")
@pytest.mark.parametrize(("reset", "end"), [(False, "FIN"), (True, "RST")])
def test_a_limit_cuts_after_exactly_so_many_bytes(reset, end):
    async def scene(proxy: FaultProxy, client: Raw, echo: Echo) -> None:
        proxy.up.limit_data(13, reset=reset)
        client.say(b"four", b"four", b"four")
        assert await client.end() == end
        await eventually(lambda: echo.ends, "the end")
        assert echo.got == (told(b"four") * 3)[:13]
        assert echo.ends == [end]
        assert proxy.log[0].detail["size_bytes"] == 13

    echoing(scene)


def test_a_connection_that_was_cut_ends_with_no_reset_for_what_is_still_said():
    async def scene(proxy: FaultProxy, client: Raw, echo: Echo) -> None:
        proxy.down.cut(0, number=1)
        client.say({"id": "1"})
        assert await client.end() == "FIN"
        await round_trip()
        client.say({"id": "2"})
        client.writer.write_eof()
        await eventually(lambda: proxy.connections == [], "the connection to go")
        assert not client.reader.exception()
        assert echo.ends == ["FIN"]

    echoing(scene)


def test_a_client_that_reads_late_gets_everything():
    size = 200_000

    async def scene(proxy: FaultProxy, client: Raw, echo: Echo) -> None:
        down = proxy.connections[0].lanes[1]
        for sock, option in (
            (down.writer.get_extra_info("socket"), socket.SO_SNDBUF),
            (client.writer.get_extra_info("socket"), socket.SO_RCVBUF),
        ):
            sock.setsockopt(socket.SOL_SOCKET, option, 4096)
        client.say(bytes(size))
        client.writer.write_eof()
        await eventually(down.reader.at_eof, "the echo to have said it all")
        await round_trip()
        assert len(await client.reader.read()) == size + 14

    echoing(scene)


@pytest.mark.req("F-08", "F-09")
def test_a_blackhole_swallows_whole_frames_and_the_end():
    async def scene(proxy: FaultProxy, client: Raw, echo: Echo) -> None:
        hole = proxy.up.blackhole()
        client.say({"id": "lost"})
        await proxy.happened("blackhole")
        proxy.up.end(hole)
        client.say({"id": "1"})
        assert await client.hear(1) == [{"id": "1"}]
        proxy.blackhole()
        client.writer.write_eof()
        client_end = asyncio.create_task(client.end())
        (connection,) = proxy.connections
        await eventually(connection.lanes[0].reader.at_eof, "the end")
        await round_trip()
        assert echo.ends == []
        assert not client_end.done()
        proxy.heal()
        assert await client_end == "FIN"
        assert [entry.direction for entry in proxy.log] == ["up"]

    echoing(scene)


@pytest.mark.req("F-06")
def test_a_reset_reaches_both_sides():
    async def scene(proxy: FaultProxy, client: Raw, echo: Echo) -> None:
        proxy.reset()
        assert await client.end() == "RST"
        await eventually(lambda: echo.ends, "the echo's end")
        assert echo.ends == ["RST"]
        await eventually(lambda: proxy.connections == [], "the connection to go")
        proxy.reset()
        assert kinds(proxy) == ["reset"]

    echoing(scene)


@pytest.mark.req("F-06")
def test_a_reset_of_one_side_is_told_to_the_other():
    async def scene(proxy: FaultProxy, client: Raw, echo: Echo) -> None:
        client.writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0
        )
        client.writer.transport.abort()
        await eventually(lambda: echo.ends, "the echo's end")
        assert echo.ends == ["RST"]

    echoing(scene)


@pytest.mark.req("F-07")
def test_half_a_close_ends_one_direction_and_the_other_goes_on():
    async def scene(proxy: FaultProxy, client: Raw, echo: Echo) -> None:
        proxy.down.half_close()
        assert await client.end() == "FIN"
        client.say({"id": "still heard"})
        await eventually(lambda: echo.got == told({"id": "still heard"}), "the rest")
        assert kinds(proxy) == ["half_close"]
        client.writer.write_eof()
        await eventually(lambda: proxy.connections == [], "the connection to go")
        assert echo.ends == ["FIN"]

    echoing(scene)


@pytest.mark.req("F-16")
def test_a_slow_close_tells_the_end_later():
    async def scene(proxy: FaultProxy, client: Raw, echo: Echo) -> None:
        proxy.up.slow_close(3600.0)
        client.say({"id": "1"})
        client.writer.write_eof()
        assert await client.hear(1) == [{"id": "1"}]
        await proxy.happened("slow_close")
        assert echo.ends == []
        proxy.heal()
        assert await client.end() == "FIN"
        assert echo.ends == ["FIN"]

    echoing(scene)


@pytest.mark.req("F-01")
def test_new_connections_are_refused_and_the_port_is_kept():
    async def scene(proxy: FaultProxy, client: Raw, echo: Echo) -> None:
        port = proxy.port
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises(OSError, match="in use"), socket.socket() as thief:
            thief.bind(("127.0.0.1", port))
        client.say({"id": "an old one"})
        assert await client.hear(1) == [{"id": "an old one"}]
        proxy.heal()
        async with dialled(proxy) as another:
            another.say({"id": "a new one"})
            assert await another.hear(1) == [{"id": "a new one"}]
        assert (kinds(proxy), proxy.port) == (["refuse"], port)

    echoing(scene)


def test_a_fault_of_one_connection_is_not_another_s():
    async def scene(proxy: FaultProxy, client: Raw, echo: Echo) -> None:
        async with dialled(proxy) as other:
            first, second = proxy.connections
            first.down.drop(count=None)
            second.blackhole()
            second.heal()
            client.say({"id": "1"})
            other.say({"id": "2"})
            assert await other.hear(1) == [{"id": "2"}]
            await proxy.happened("drop")
            assert {entry.connection for entry in proxy.log} == {first.number}

    echoing(scene)


# ── frames ────────────────────────────────────────────────────────────────────────────


def heard_after(act: Callable[[FaultProxy], object], count: int, *said: Any) -> Any:
    """Say messages after a fault was asked for: return what came back, and the log."""
    result: list[Any] = []

    async def scene(proxy: FaultProxy, client: Raw, echo: Echo) -> None:
        act(proxy)
        client.say(*(said or numbered(6)))
        result.extend([await client.hear(count), proxy.log])

    echoing(scene)
    return result


@pytest.mark.parametrize(
    ("wanted", "lost"),
    [
        ({}, [0]),
        ({"count": 2, "after": 1}, [1, 2]),
        ({"number": 3}, [2]),
        ({"number": range(2, 4), "count": None}, [1, 2]),
        ({"sequence": 4}, [4]),
        ({"sequence": range(3, 9), "count": None}, [3, 4, 5]),
        ({"id": ("2", "5"), "count": None}, [2, 5]),
        ({"type": "t", "id": "5"}, [5]),
        ({"where": lambda m: m["data"]["sequence"] % 2, "count": None}, [1, 3, 5]),
    ],
)
@pytest.mark.parametrize("direction", ["up", "down"])
def test_exactly_the_messages_asked_for_are_dropped(wanted, lost, direction):
    kept = [n for n in range(6) if n not in lost]
    heard, log = heard_after(
        lambda proxy: getattr(proxy, direction).drop(**wanted), len(kept)
    )

    assert sequences(heard) == kept
    assert [entry.detail["sequence"] for entry in log] == lost
    assert {(entry.kind, entry.direction) for entry in log} == {("drop", direction)}
    assert [entry.detail["number"] for entry in log] == [n + 1 for n in lost]


@pytest.mark.req("F-36")
def test_a_message_is_sent_twice_or_more_often():
    heard, log = heard_after(lambda p: p.down.duplicate(copies=2, sequence=1), 8)

    assert sequences(heard) == [0, 1, 1, 1, 2, 3, 4, 5]
    assert [(entry.kind, entry.detail["copies"]) for entry in log] == [("duplicate", 2)]


@pytest.mark.req("F-37")
def test_a_message_changes_places_with_the_next_that_matches():
    heard, log = heard_after(lambda p: p.down.swap(id=("1", "4")), 6)

    assert sequences(heard) == [0, 2, 3, 4, 1, 5]
    (entry,) = log
    assert (entry.kind, entry.detail["sequence"]) == ("swap", 4)
    assert entry.detail["with"]["sequence"] == 1


def test_a_message_that_found_no_other_comes_at_the_end_and_is_not_told():
    async def scene(proxy: FaultProxy, client: Raw, echo: Echo) -> None:
        proxy.up.swap(id="0")
        client.say(*numbered(2))
        assert sequences(await client.hear(1)) == [1]
        client.writer.write_eof()
        assert sequences(await client.hear(1)) == [0]
        assert proxy.log == []

    echoing(scene)


@pytest.mark.req("F-38")
def test_a_late_message_is_overtaken_and_comes():
    heard, log = heard_after(lambda p: p.down.delay(0.02, sequence=2), 6)

    assert sequences(heard) == [0, 1, 3, 4, 5, 2]
    assert [(entry.kind, entry.detail["s"]) for entry in log] == [("delay", 0.02)]


def test_what_is_late_comes_at_once_when_healed():
    async def scene(proxy: FaultProxy, client: Raw, echo: Echo) -> None:
        proxy.down.delay(3600.0, count=2)
        client.say(*numbered(3))
        assert sequences(await client.hear(1)) == [2]
        proxy.heal()
        assert sequences(await client.hear(2)) == [0, 1]

    echoing(scene)


@pytest.mark.req("F-42")
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_digit_is_corrupted_in_a_frame_that_stays_valid(direction):
    said = {"data": {"bids": [[150.0, 2]], "sequence": 7}}
    heard, log = heard_after(
        lambda p: getattr(p, direction).corrupt(1, behind=b'"bids": [['), 1, said
    )

    assert heard == [{"data": {"bids": [[140.0, 2]], "sequence": 7}}]
    assert [entry.kind for entry in log] == ["corrupt"]


def test_what_cannot_be_corrupted_or_truncated_passes_untold():
    def act(proxy: FaultProxy) -> None:
        proxy.down.corrupt(behind=b"asks")
        proxy.down.corrupt(offset=1000)
        proxy.down.truncate(1000)

    heard, log = heard_after(act, 6)

    assert sequences(heard) == list(range(6))
    assert log == []


@pytest.mark.req("F-30")
def test_a_payload_is_truncated_with_its_length():
    heard, log = heard_after(lambda p: p.up.truncate(8, number=1), 2, {"a": 12345}, [1])

    assert heard == [b'{"a": 12', [1]]
    assert log[0].detail["kept_bytes"] == 8


@pytest.mark.req("F-41")
def test_a_payload_is_rewritten():
    def negative(payload: bytes) -> bytes:
        return payload.replace(b'"sequence": ', b'"sequence": -')

    heard, _ = heard_after(lambda p: p.down.rewrite(negative, sequence=3), 6)

    assert sequences(heard) == [0, 1, 2, -3, 4, 5]


@pytest.mark.req("F-15")
def test_a_message_is_cut_at_every_byte():
    whole = told({"id": "é"})

    async def work() -> None:
        async with Echo() as echo, FaultProxy(echo.url) as proxy:
            for size in range(len(whole)):
                proxy.down.cut(size, id="é")
                async with dialled(proxy) as client:
                    client.say({"id": "before"}, {"id": "é"})
                    expected = told({"id": "before"}) + whole[:size]
                    assert await client.reader.read() == expected
            cuts = [entry.detail["after_bytes"] for entry in proxy.log]
            assert cuts == list(range(len(whole)))

    run(work)


@pytest.mark.req("F-24")
def test_a_message_in_fragments_meets_faults_as_one():
    parts = [
        told(b'{"id":', fin=False),
        told(b"p", PING),
        told(b' "x"', CONTINUATION, fin=False),
        told(b"}", CONTINUATION),
    ]

    async def scene(proxy: FaultProxy, client: Raw, echo: Echo) -> None:
        proxy.up.corrupt(behind=b'"id": "', flip=0x20, id="x")
        client.writer.write(b"".join(parts) + told({"id": "end"}))
        assert await client.hear(3) == [b"p", {"id": "X"}, {"id": "end"}]
        assert proxy.log[0].detail["number"] == 2

    echoing(scene)


def test_late_messages_do_not_come_into_the_middle_of_another():
    async def scene(proxy: FaultProxy, client: Raw, echo: Echo) -> None:
        fault = proxy.up.delay(3600.0)
        client.say({"id": "late"})
        await proxy.happened("delay")
        assert fault.is_spent
        client.writer.write(told(b'{"id":', fin=False))
        assert await client.hear(1) == [b'{"id":']
        proxy.heal()
        client.writer.write(told(b'"x"}', CONTINUATION) + told({"id": "next"}))
        assert await client.hear(3) == [b'"x"}', {"id": "late"}, {"id": "next"}]

    echoing(scene)


def test_a_close_frame_can_be_lost_too():
    async def scene(proxy: FaultProxy, client: Raw, echo: Echo) -> None:
        proxy.up.drop(number=2)
        client.writer.write(
            told({"id": "1"}) + told(b"\x03\xe8", CLOSE) + told({"id": "2"})
        )
        assert await client.hear(2) == [{"id": "1"}, {"id": "2"}]
        assert proxy.log[0].detail == {"number": 2, "opcode": CLOSE}

    echoing(scene)


def test_a_fault_can_be_turned_off():
    async def scene(proxy: FaultProxy, client: Raw, echo: Echo) -> None:
        swap = proxy.up.swap(id="0")
        drop = proxy.up.drop(count=None, id="1")
        client.say(*numbered(3))
        assert sequences(await client.hear(1)) == [2]
        proxy.up.end(swap)
        proxy.up.end(drop)
        client.say(*numbered(2))
        assert sequences(await client.hear(3)) == [0, 0, 1]
        assert drop.happened == 1

    echoing(scene)


# ── scripts ───────────────────────────────────────────────────────────────────────────


def test_a_script_runs_on_each_connection():
    script = [
        (Nth("up", 2), lambda c: c.up.drop()),
        (Seen("down", id="3"), lambda c: c.down.duplicate()),
        (Seen("up", id="5"), Connection.reset),
    ]

    async def work() -> None:
        async with Echo() as echo, FaultProxy(echo.url, script) as proxy:
            for _ in range(2):
                async with dialled(proxy) as client:
                    client.say(*numbered(5))
                    assert sequences(await client.hear(5)) == [0, 2, 3, 3, 4]
                    client.say(*numbered(6))
                    assert await client.end() == "RST"
            assert kinds(proxy) == ["drop", "duplicate", "reset"] * 2
            assert [entry.connection for entry in proxy.log] == [1, 1, 1, 2, 2, 2]
            times = [entry.at_ns for entry in proxy.log]
            assert times == sorted(times)

    run(work)


def test_a_script_acts_after_a_time():
    async def scene(proxy: FaultProxy, client: Raw, echo: Echo) -> None:
        assert await client.end() == "RST"
        assert kinds(proxy) == ["reset"]

    echoing(scene, [(After(0.02), Connection.reset)])


@pytest.mark.req("F-102")
@pytest.mark.parametrize("trigger", [Nth("up", 1), After(0.01)], ids=repr)
def test_what_a_script_raises_ends_its_connection_and_no_other(trigger, caplog):
    def act(connection: Connection) -> None:
        if connection.number == 2:
            raise RuntimeError("a test's own mistake")
        connection.note("fine", {})

    async def scene(proxy: FaultProxy, client: Raw, echo: Echo) -> None:
        async with dialled(proxy) as other:
            other.say({"id": "1"})
            assert await other.end() == "RST"
            client.say({"id": "1"})
            assert await client.hear(1) == [{"id": "1"}]
            await proxy.happened("fine")
            errors = [entry for entry in proxy.log if entry.kind == "error"]
            assert [entry.connection for entry in errors] == [2]

    echoing(scene, [(trigger, act)])
    assert "a test's own mistake" in caplog.text


# ── wss ───────────────────────────────────────────────────────────────────────────────


def test_a_wss_target_takes_faults_of_bytes_and_refuses_those_of_frames():
    async def work() -> None:
        async with Echo() as echo:
            url = echo.url.replace("ws:", "wss:") + "/base"
            async with FaultProxy(url, [(After(3600.0), print)]) as proxy:
                assert proxy.url == f"wss://127.0.0.1:{proxy.port}/base"
                for refused in (proxy.down.drop, proxy.up.swap):
                    with pytest.raises(ValueError, match="is TLS: faults of frames"):
                        refused()
                async with dialled(proxy) as client:
                    proxy.down.slicer(1)
                    client.writer.write(b"\x16\x03\x01 no frame at all")
                    back = await client.reader.readexactly(19)
                    assert back == b"\x16\x03\x01 no frame at all"
                    await proxy.happened("slicer")
                    connection = proxy.connections[0]
                    with pytest.raises(ValueError, match="is TLS"):
                        connection.down.drop()
            with pytest.raises(ValueError, match="is TLS"):
                FaultProxy(url, [(Nth("up", 1), print)])

    run(work)


# ── on a thread ───────────────────────────────────────────────────────────────────────


def test_a_proxy_on_a_thread_serves_and_ends():
    before = threading.active_count()
    with RunningVenue(venue_config(port=0)) as venue:
        with RunningProxy(venue.url) as proxy:
            proxy.do(lambda p: p.down.cut(3, reset=True, number=1))
            port = int(proxy.url.rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port), SECONDS) as client:
                client.sendall(
                    b"GET /ws/market-data HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                    b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Version: 13\r\n"
                    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
                )
                client.sendall(told({"action": "pong", "id": "1", "data": {}}))
                proxy.reset()
                proxy.blackhole()
                proxy.refuse()
                proxy.heal()
                proxy.happened("reset", timeout_s=SECONDS)
            assert proxy.log[0].kind == "reset"
            with pytest.raises(TimeoutError):
                proxy.happened("never", timeout_s=0.01)
        proxy.stop()

    assert threading.active_count() == before


def test_a_proxy_that_cannot_be_leaves_no_thread():
    before = threading.active_count()
    with pytest.raises(ValueError, match="not a ws or wss URL"):
        RunningProxy("tcp://127.0.0.1:1")

    assert threading.active_count() == before

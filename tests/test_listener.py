"""The client's listener against a peer that sends whatever bytes it likes."""

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from feedhandler.backoff import Backoff
from feedhandler.connection import Connection
from feedhandler.reconnect import Reconnect
from feedhandler.records import Flags
from feedhandler.session import State
from tests.feeds import AAPL, SOUND, Feed, book
from tests.rawpeer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Peer,
    Server,
    close_frame,
    frame,
)

LIMIT = 4096
SECONDS = 10.0
SNAPSHOT = json.dumps(book("orderbook", 100, *SOUND)).encode()
UPDATE = json.dumps(book("orderbook_update", 101, [(150.0, 7.0)], [])).encode()
SHRUG = frame(TEXT, {"type": "novel"})


def run(
    script: Callable[[Peer], Awaitable[Any]],
    max_message_bytes: int = LIMIT,
    **options: Any,
) -> Feed:
    """Let a feed meet *script* once, and return it as it is when both are done."""
    once = Reconnect(Backoff(attempts=0))
    feed = Feed(AAPL, opened=False, reconnect=once, **options)
    done: list[bool] = []

    async def whole(peer: Peer) -> None:
        await script(peer)
        done.append(True)

    async def meet() -> None:
        async with Server(whole) as server, asyncio.timeout(SECONDS):
            connection = Connection(
                server.url,
                feed.session,
                lambda: feed.happened.extend(feed.session.take_events()),
                max_message_bytes=max_message_bytes,
                close_timeout_s=0.2,
            )
            running = asyncio.ensure_future(connection.run())
            while not running.done():
                connection.tick()
                await asyncio.wait([running], timeout=0.02)
            running.result()
            feed.reason = connection.failed  # type: ignore[attr-defined]

    asyncio.run(meet())
    assert done, "the peer did not get to the end of its script"
    return feed


async def live(peer: Peer) -> None:
    await peer.subscribed()
    await peer.send(frame(TEXT, SNAPSHOT))


async def synchronise(peer: Peer) -> None:
    """Return when the client has worked off everything that was sent."""
    await peer.send(frame(PING, b"sync"))
    while await peer.receive() != (PONG, b"sync"):
        pass


# ── messages and fragments ────────────────────────────────────────────────────────────


@pytest.mark.req("BP-21", "A-31")
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_text_and_binary_frames_carry_the_same(opcode: int):
    async def script(peer: Peer) -> None:
        await peer.subscribed()
        await peer.send(frame(opcode, SNAPSHOT), frame(opcode, UPDATE))
        await synchronise(peer)

    feed = run(script)

    assert [quote.sequence for quote in feed.quotes()] == [100, 101, 101]
    assert feed.counter("malformed") == 0


@pytest.mark.req("F-24", "F-25")
@pytest.mark.parametrize("size", [1, 7, 100])
def test_fragments_are_put_together_with_pings_between_them(size: int):
    pieces = [SNAPSHOT[i : i + size] for i in range(0, len(SNAPSHOT), size)]

    async def script(peer: Peer) -> None:
        await peer.subscribed()
        for number, piece in enumerate(pieces):
            await peer.send(
                frame(
                    CONTINUATION if number else TEXT, piece, number == len(pieces) - 1
                ),
                frame(PING, b"%d" % number),
            )
        for number in range(len(pieces)):
            assert await peer.receive() == (PONG, b"%d" % number)
        await peer.send(frame(TEXT, UPDATE))
        await synchronise(peer)

    feed = run(script)

    assert feed.book().sequence == 101
    assert feed.counter("malformed") == 0


@pytest.mark.req("F-24")
def test_empty_fragments_are_fragments():
    async def script(peer: Peer) -> None:
        await peer.subscribed()
        await peer.send(
            frame(TEXT, b"", fin=False),
            frame(CONTINUATION, SNAPSHOT, fin=False),
            frame(CONTINUATION, b""),
        )
        await synchronise(peer)

    assert run(script).book().sequence == 100


@pytest.mark.req("F-25")
def test_a_character_may_be_cut_by_a_fragment():
    cut = SNAPSHOT[:-1] + ',"note":"é"}'.encode()

    async def script(peer: Peer) -> None:
        await peer.subscribed()
        await peer.send(frame(TEXT, cut[:-3], fin=False), frame(CONTINUATION, cut[-3:]))
        await synchronise(peer)

    assert run(script).counter("malformed") == 0


@pytest.mark.req("F-13", "F-15")
def test_bytes_may_come_one_at_a_time():
    async def script(peer: Peer) -> None:
        await peer.subscribed()
        for byte in frame(TEXT, SNAPSHOT) + frame(TEXT, UPDATE):
            await peer.send(bytes([byte]))
            await asyncio.sleep(0)
        await synchronise(peer)

    feed = run(script)

    assert [quote.sequence for quote in feed.quotes()][:2] == [100, 101]


@pytest.mark.req("F-15")
@pytest.mark.parametrize("cut", range(1, len(frame(TEXT, UPDATE)), 9))
def test_half_a_message_is_no_message(cut: int):
    async def script(peer: Peer) -> None:
        await live(peer)
        await peer.send(frame(TEXT, UPDATE)[:cut])
        peer.writer.write_eof()
        await peer.gone()

    feed = run(script)

    assert feed.book().sequence == 100
    assert [quote.flags & 3 for quote in feed.quotes()] == [Flags.LIVE, Flags.STALE]
    assert "1006" in feed.reason


BREACHES = {
    "a continuation of nothing": frame(CONTINUATION, b"x"),
    "a text inside a message": frame(TEXT, b"{", fin=False) + SHRUG,
    "a reserved bit": frame(TEXT, b"{}", rsv=4),
    "another reserved bit": frame(BINARY, b"{}", rsv=2),
    "the last reserved bit": frame(TEXT, b"{}", rsv=1),
    "a reserved bit on a ping": frame(PING, b"", rsv=4),
    "a reserved bit on a close": frame(CLOSE, b"\x03\xe8", rsv=4),
    "a reserved opcode": frame(3, b"x"),
    "a reserved control opcode": frame(11, b"x"),
    "a masked frame": frame(TEXT, b"{}", masked=True),
    "a long ping": frame(PING, b"x" * 126),
    "a fragmented ping": frame(PING, b"x", fin=False),
}


@pytest.mark.req("I-23")
@pytest.mark.parametrize("breach", BREACHES.values(), ids=list(BREACHES))
def test_a_breach_leaves_no_exception_that_nobody_asked_for(breach: bytes, caplog):
    async def script(peer: Peer) -> None:
        await live(peer)
        await peer.send(breach)
        assert await peer.close_code() == 1002

    run(script)
    gc.collect()

    assert [record.name for record in caplog.records if record.name == "asyncio"] == []


@pytest.mark.req("F-23", "F-24", "A-47")
@pytest.mark.parametrize("breach", BREACHES.values(), ids=list(BREACHES))
def test_a_breach_of_the_websocket_protocol_is_answered_with_1002(breach: bytes):
    async def script(peer: Peer) -> None:
        await live(peer)
        await peer.send(breach, frame(TEXT, UPDATE))
        assert await peer.close_code() == 1002

    feed = run(script)

    assert feed.book().sequence == 100
    assert feed.quotes()[-1].flags & Flags.STALE
    assert "1002" in feed.reason


@pytest.mark.req("F-16", "LC-05")
def test_a_peer_that_does_not_answer_our_close_frame_is_left_all_the_same():
    async def script(peer: Peer) -> None:
        await live(peer)
        await peer.send(frame(TEXT, b"{}", rsv=4))
        assert await peer.close_code() == 1002
        await peer.gone()

    feed = run(script)

    assert feed.session.state == State.FAILED


# ── size ──────────────────────────────────────────────────────────────────────────────


def padded(size: int, message: bytes = UPDATE) -> bytes:
    return message[:-1] + b" " * (size - len(message)) + b"}"


@pytest.mark.req("F-26")
def test_a_message_of_exactly_the_limit_is_taken():
    async def script(peer: Peer) -> None:
        await live(peer)
        await peer.send(frame(TEXT, padded(LIMIT)))
        await synchronise(peer)

    assert run(script).book().sequence == 101


def fragmented(payload: bytes, size: int) -> bytes:
    pieces = [payload[i : i + size] for i in range(0, len(payload), size)]
    last = len(pieces) - 1
    return b"".join(
        frame(CONTINUATION if n else TEXT, piece, n == last)
        for n, piece in enumerate(pieces)
    )


@pytest.mark.req("F-24", "F-26")
@pytest.mark.parametrize(
    "oversized",
    [
        frame(TEXT, padded(LIMIT + 1)),
        frame(TEXT, padded(4 * LIMIT)),
        fragmented(padded(LIMIT + 1), LIMIT),
        fragmented(padded(LIMIT + 1), 1000),
        fragmented(padded(40 * LIMIT), 1000),
        fragmented(padded(4 * LIMIT), 2 * LIMIT),
    ],
    ids=["frame", "large frame", "limit + 1", "fragments", "many", "large fragments"],
)
def test_a_message_over_the_limit_is_dropped_and_the_books_are_resynced(oversized):
    async def script(peer: Peer) -> None:
        await live(peer)
        await peer.send(oversized)
        request = await peer.message()
        assert request["action"] == "subscribe"
        assert request["data"]["channels"] == [AAPL]
        await peer.send(frame(TEXT, SNAPSHOT), frame(TEXT, UPDATE))
        await synchronise(peer)

    feed = run(script)
    flags = [quote.flags for quote in feed.quotes()]

    assert feed.counter("malformed") == 1
    assert flags[1] == Flags.STALE | Flags.GAP
    assert flags[2] & Flags.LIVE
    assert feed.book().sequence == 101


@pytest.mark.req("F-26")
@pytest.mark.parametrize(
    "head",
    [
        frame(TEXT, b"x" * (4 * LIMIT + 1))[:100],
        bytes([0x81, 127]) + (2**63).to_bytes(8, "big"),
        bytes([0x81, 127]) + (2**63 - 1).to_bytes(8, "big"),
        bytes([0x81, 127]) + (2**31).to_bytes(8, "big"),
    ],
    ids=["over 4x", "2**63", "2**63 - 1", "2**31"],
)
def test_a_frame_far_over_the_limit_ends_the_connection_at_its_header(head):
    async def script(peer: Peer) -> None:
        await live(peer)
        await peer.send(head)
        assert await peer.close_code() in (1002, 1009)

    feed = run(script)

    assert feed.quotes()[-1].flags & Flags.STALE


SPOILT = UPDATE[:-1] + b',"x":"\xff"}'


@pytest.mark.req("F-25", "A-36")
@pytest.mark.parametrize(
    "spoilt",
    [
        frame(TEXT, SPOILT),
        frame(BINARY, SPOILT),
        frame(TEXT, SPOILT[:40], False) + frame(CONTINUATION, SPOILT[40:]),
        frame(BINARY, SPOILT[:40], False) + frame(CONTINUATION, SPOILT[40:]),
    ],
    ids=["text", "binary", "text in fragments", "binary in fragments"],
)
def test_what_is_not_utf8_makes_the_books_stale_and_is_answered_with_1007(spoilt):
    async def script(peer: Peer) -> None:
        await live(peer)
        await peer.send(spoilt, frame(TEXT, UPDATE))
        assert await peer.receive() == (CLOSE, b"\x03\xeftext is not UTF-8")

    feed = run(script)

    assert feed.book().sequence == 100
    assert feed.counter("malformed") == 1
    assert feed.quotes()[-1].flags & Flags.STALE
    assert "1007" in feed.reason


@pytest.mark.req("F-25")
@pytest.mark.parametrize("cut", [b"\xff", b"\xc0\xaf", b"\xf4\x90"])
def test_a_fragment_that_no_other_can_make_utf8_again_is_answered_at_once(cut: bytes):
    async def script(peer: Peer) -> None:
        await live(peer)
        await peer.send(frame(TEXT, b'{"x":"' + cut, fin=False))
        assert await peer.close_code() == 1007

    assert run(script).counter("malformed") == 1


# ── pings ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.req("F-27")
@pytest.mark.parametrize("payload", [b"", b"x", bytes(range(125))])
def test_a_ping_is_answered_with_its_payload(payload: bytes):
    async def script(peer: Peer) -> None:
        await peer.subscribed()
        await peer.send(frame(PONG, b"unsolicited"), frame(PING, payload))
        assert await peer.receive() == (PONG, payload)

    run(script)


@pytest.mark.req("HB-03")
def test_a_heartbeat_is_answered_with_a_pong_message():
    async def script(peer: Peer) -> None:
        await peer.subscribed()
        await peer.send(frame(TEXT, {"type": "heartbeat"}))
        assert (await peer.message())["action"] == "pong"

    run(script)


# ── one read ──────────────────────────────────────────────────────────────────────────


@pytest.mark.req("F-14")
def test_one_read_has_one_receive_time():
    updates = [
        frame(TEXT, book("orderbook_update", 101 + i, [(150.0, float(i + 1))], []))
        for i in range(20)
    ]

    async def script(peer: Peer) -> None:
        await live(peer)
        await synchronise(peer)
        await peer.send(*updates)
        await synchronise(peer)

    stamps = {quote.recv_ns for quote in run(script).quotes()[1:21]}

    assert len(stamps) == 1


def update(sequence: int) -> bytes:
    levels = [(150.0, float(sequence))]
    message = book("orderbook_update", sequence, levels, [])
    return frame(TEXT, json.dumps(message).encode())


def test_with_last_in_read_every_read_ends_with_its_quotes():
    async def script(peer: Peer) -> None:
        await live(peer)
        await synchronise(peer)
        for sequence in range(101, 121, 2):
            # Nothing waits for the next tick.
            await peer.send(update(sequence), update(sequence + 1))
            await synchronise(peer)

    feed = run(script, last_in_read=True)
    quotes = [quote for quote in feed.quotes() if quote.flags & Flags.LIVE]

    assert [quote.sequence for quote in quotes] == [*range(100, 121, 2)]
    assert feed.counter("conflated") == 10


@pytest.mark.req("I-03")
def test_with_last_in_read_a_close_frame_overtakes_what_came_before_it():
    async def script(peer: Peer) -> None:
        await live(peer)
        await synchronise(peer)
        await peer.send(update(101), update(102), close_frame(1000))

    feed = run(script, last_in_read=True)

    assert [(quote.sequence, quote.flags & Flags.LIVE) for quote in feed.quotes()] == [
        (100, Flags.LIVE), (102, 0),
    ]  # fmt: skip
    assert feed.counter("conflated") == 2


@pytest.mark.req("F-51", "BP-06")
def test_what_one_read_lost_is_asked_for_once():
    async def script(peer: Peer) -> None:
        await live(peer)
        await peer.send(
            *(
                frame(TEXT, book("orderbook_update", sequence, [], []))
                for sequence in (105, 107, 109)
            ),
            frame(TEXT, b"{"),
        )
        assert (await peer.message())["data"]["channels"] == [AAPL]
        await peer.send(frame(PING, b"end"))
        assert await peer.receive() == (PONG, b"end")

    assert run(script).counter("resyncs") == 1


# ── closing ───────────────────────────────────────────────────────────────────────────


@pytest.mark.req("CN-02", "LC-05", "F-21")
@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 3000, 4000, 4004, 4999])
def test_a_close_frame_is_echoed_and_reported_with_code_and_reason(code: int):
    async def script(peer: Peer) -> None:
        await live(peer)
        await peer.send(close_frame(code, b"restarting"))
        assert await peer.close_code() == code
        assert await peer.gone() == b""

    feed = run(script)

    assert feed.reason == f"closed with {code} restarting"
    assert feed.quotes()[-1].flags & 3 == Flags.STALE
    states = [event.detail["to"] for event in feed.events("state")]
    assert states[:4] == ["open", "subscribed", "closing", "closed"]


@pytest.mark.req("F-22", "A-36")
@pytest.mark.parametrize(
    "code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535]
)
def test_a_code_that_may_not_be_on_the_wire_is_an_abnormal_closure(code: int):
    async def script(peer: Peer) -> None:
        await live(peer)
        await peer.send(close_frame(code, b""))
        assert await peer.close_code() == 1002

    feed = run(script)

    assert "1006" in feed.reason or "1002" in feed.reason
    assert feed.quotes()[-1].flags & Flags.STALE


@pytest.mark.req("F-22")
@pytest.mark.parametrize(
    "payload", [b"", b"\x03", b"\x03\xe8\xff\xfe", b"\x0f\xa4\xc3"]
)
def test_a_close_frame_without_code_or_with_a_bad_reason_ends_the_connection(payload):
    async def script(peer: Peer) -> None:
        await live(peer)
        await peer.send(frame(CLOSE, payload))
        await peer.close_code()
        await peer.gone()

    feed = run(script)

    assert feed.session.state == State.FAILED
    assert feed.quotes()[-1].flags & Flags.STALE


@pytest.mark.req("F-28")
def test_nothing_after_a_close_frame_is_used():
    async def script(peer: Peer) -> None:
        await live(peer)
        await peer.send(
            close_frame(1001),
            frame(TEXT, UPDATE),
            frame(PING, b"?"),
            frame(TEXT, b"{"),
            close_frame(4000),
        )
        assert await peer.receive() == (CLOSE, b"\x03\xe9")
        assert await peer.gone() == b""

    feed = run(script)

    assert feed.book().sequence == 100
    assert feed.counter("malformed") == 0


@pytest.mark.req("F-28")
@pytest.mark.parametrize("behind", [close_frame(1000), b"\x83\x00", b"\x81\x80"])
def test_a_breach_right_behind_a_close_frame_does_not_hide_its_code(behind: bytes):
    async def script(peer: Peer) -> None:
        await live(peer)
        await peer.send(close_frame(4004, b"restarting"), behind)
        await peer.gone()

    feed = run(script)

    assert feed.reason == "closed with 4004 restarting"
    assert feed.counter("malformed") == 0


@pytest.mark.req("CC-03", "F-06", "F-07")
@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_connection_that_just_ends_is_1006_and_stale_at_once(how: str):
    async def script(peer: Peer) -> None:
        await live(peer)
        await synchronise(peer)
        if how == "fin":
            peer.writer.write_eof()
            await peer.gone()
        else:
            peer.reset()

    feed = run(script)

    assert "1006" in feed.reason
    assert feed.quotes()[-1].flags & 3 == Flags.STALE
    assert feed.session.state == State.FAILED


def test_a_session_that_gives_up_leaves_without_waiting():
    async def script(peer: Peer) -> None:
        await peer.message()
        refusal = {"code": "internal_error", "request_id": "sub-1"}
        await peer.send(frame(TEXT, {"type": "error", "data": refusal}))
        await peer.gone()

    feed = run(script)

    assert "internal_error" in feed.reason

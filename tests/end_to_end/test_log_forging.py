"""A venue that writes our log for us: it cannot begin a line, nor move a cursor."""

import asyncio
import contextlib
import logging
import re
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from typing import Any

import pytest

from feedhandler.config import FeedConfig, build
from feedhandler.errors import ConnectionFailed
from feedhandler.handler import FeedHandler
from tests.end_to_end.processes import unique
from tests.feeds import SOUND, TIME_MS, book
from tests.rawpeer import TEXT, Peer, Server, close_frame, frame

SECONDS = 20.0
FORGED = "\r\n2026-01-01 00:00:00 ERROR forged \x1b[2J\x1b]0;title\x07\x9b31m\u202e"
LINE = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ [A-Z]+ [a-z.]+ \S.*|feedhandler: .*"
)


def evil(text: str = "") -> str:
    return f"{text}{FORGED}"


def trade() -> dict[str, Any]:
    data = {"symbol": "AAPL", "price": 1.0, "size": 1.0, "side": "buy"}
    data |= {"trade_id": "\x1b[2J\n\x9bX", "trade_time": TIME_MS}
    return {"type": "trade", "channel": "trades:AAPL", "data": data}


def forgeries(request_id: str) -> list[bytes]:
    """Messages with the text wherever one has room for text."""
    error = {
        "code": evil("internal_error"), "message": evil("no"),
        "request_id": evil(), "request_action": evil("subscribe"),
    }  # fmt: skip
    refused = {
        "code": "rate_limit_exceeded", "message": evil("slow down AAPL"),
        "request_id": request_id, "request_action": "subscribe", "retry_after": 1,
    }  # fmt: skip
    named = book("orderbook", 1, *SOUND, symbol=evil("AAPL"))
    elsewhere = book("orderbook_update", 2, *SOUND, channel=evil("orderbook:AAPL:10"))
    return [
        frame(TEXT, message)
        for message in (
            {"type": "error", "data": error, "timestamp": TIME_MS},
            {"type": "error", "data": refused, "timestamp": TIME_MS, "id": request_id},
            {"type": "error", "data": refused, "timestamp": TIME_MS, "id": evil()},
            {"type": evil("orderbook"), "data": {}},
            {"type": "heartbeat", "data": {"interval": evil()}},
            named,
            elsewhere,
            evil("this is no JSON"),
        )
    ]


async def forge(peer: Peer) -> None:
    request = await peer.subscribed()
    await peer.send(
        frame(TEXT, book("orderbook", 1, *SOUND)),
        frame(TEXT, trade()),
        *forgeries(request["id"]),
        close_frame(1008, evil("because").encode()),
    )
    await peer.gone()


async def refuse_the_request(peer: Peer) -> None:
    request = await peer.message()
    error = {"code": evil("permission_denied"), "message": evil("not you")}
    error |= {"request_id": request["id"], "request_action": "subscribe"}
    answer = {"type": "error", "data": error, "timestamp": TIME_MS, "id": request["id"]}
    await peer.send(frame(TEXT, answer))
    await peer.gone()


async def refuse_to_upgrade(peer: Peer) -> None:
    await peer.reader.readuntil(b"\r\n\r\n")
    head = f"HTTP/1.1 403 {evil('No').replace(chr(10), ' ')}\nX-A: \x1b[2J\r\n\r\n"
    await peer.send(head.encode())


def config(url: str) -> FeedConfig:
    return build(
        {
            "url": url,
            "shm": {"name": unique("forged"), "capacity": 64, "instruments": 8},
            "limits": {"reconnect_attempts": 0},
            "instruments": [{"symbol": "AAPL"}],
        }
    )


@pytest.mark.req("SEC-05")
@pytest.mark.parametrize(
    ("script", "upgrade"),
    [(forge, True), (refuse_the_request, True), (refuse_to_upgrade, False)],
    ids=["messages", "refusal", "upgrade"],
)
def test_nothing_of_the_wire_begins_a_line_of_the_log(
    caplog: pytest.LogCaptureFixture, script: Any, upgrade: bool
):
    failures: list[ConnectionFailed] = []

    async def run() -> None:
        async with (
            asyncio.timeout(SECONDS),
            Server(script, upgrade) as server,
            FeedHandler(config(server.base_url)) as feed,
        ):
            with pytest.raises(ConnectionFailed) as raised:
                await feed.wait()
            failures.append(raised.value)

    with caplog.at_level(logging.DEBUG, "feedhandler"):
        asyncio.run(run())

    lines = [r.getMessage() for r in caplog.records if r.name.startswith("feedhandler")]
    assert lines
    assert [line for line in lines if not line.isprintable()] == []
    assert str(failures[0]).isprintable()
    if upgrade:
        assert "forged" in str(failures[0])
        assert sum("forged" in line for line in lines) > 1


@contextlib.asynccontextmanager
async def program(*arguments: str) -> AsyncIterator[Process]:
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "feedhandler", "--log-level", "debug", *arguments,
        stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    try:
        yield running
    finally:
        if running.returncode is None:
            running.terminate()
            await running.wait()


@pytest.mark.req("SEC-05")
def test_the_programs_write_whole_lines_of_their_own_whatever_the_venue_says():
    read = asyncio.Event()

    async def wait_and_forge(peer: Peer) -> None:
        request = await peer.subscribed()
        await peer.send(frame(TEXT, book("orderbook", 1, *SOUND)), frame(TEXT, trade()))
        await read.wait()
        await peer.send(*forgeries(request["id"]))
        await peer.send(close_frame(1008, evil("because").encode()))
        await peer.gone()

    async def run() -> tuple[str, str, int | None]:
        name = unique("forged")
        async with asyncio.timeout(SECONDS), Server(wait_and_forge) as server:
            options = ("--url", server.base_url, "--symbol", "AAPL", "--shm", name)
            async with program("run", *options) as feed:
                assert feed.stdout is not None
                assert (await feed.stdout.readline()).startswith(b"feed ")
                tail = ("--stream", "trades", "--start", "oldest", "--count", "1")
                async with program("tail", name, *tail) as tailing:
                    printed, _ = await tailing.communicate()
                read.set()
                _, told = await feed.communicate()
        return printed.decode(), told.decode(), feed.returncode

    printed, told, code = asyncio.run(run())

    assert code == 3
    assert printed.startswith("AAPL ")
    assert printed.endswith("BUY\n")
    assert printed[:-1].isprintable()
    assert "\\x1b[2J\\n" in printed
    lines = told.removesuffix("\n").split("\n")
    assert lines[-1].startswith("feedhandler: connection to ws://127.0.0.1:")
    assert "forged" in lines[-1]
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert [line for line in lines if not line.isprintable()] == []

"""The client's side as an echo: every class of it but the codec's answer is shipped."""

import asyncio
from types import ModuleType
from typing import Any

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from feedhandler.backoff import Backoff
from feedhandler.connection import Connection
from feedhandler.counters import Counters
from feedhandler.reconnect import Reconnect
from feedhandler.session import Session, State
from feedhandler.sink import PythonSink
from feedhandler.throttle import Throttle
from feedhandler.tracker import COUNTERS, HISTOGRAMS

LARGE_BYTES = 32 << 20
TICK_S = 0.1
MINUTE_NS = 60_000_000_000


class EchoConnection(Connection):
    """One connection that sends back what it gets; over when it is."""

    def __init__(self, echo: ModuleType, url: str) -> None:
        page = bytearray(Counters.size_for(len(COUNTERS), len(HISTOGRAMS)))
        session = Session(
            echo.EchoCodec(),
            PythonSink(),
            Counters(page, COUNTERS, HISTOGRAMS),
            Throttle(45, MINUTE_NS),
            Throttle(180, MINUTE_NS),
            reconnect=Reconnect(Backoff(attempts=0)),
        )
        self.listener_type = echo.EchoListener
        super().__init__(
            url,
            session,
            self._happened,
            max_message_bytes=LARGE_BYTES,
        )

    def _happened(self) -> None:
        """Do not reconnect: a case is over when its connection is."""
        self.session.take_events()
        if self.state == State.CLOSED:
            self.session.end(0)

    async def meet(self) -> None:
        """Be connected once, with the time passing that deadlines need."""
        running = asyncio.ensure_future(self.run())
        while not running.done():
            await asyncio.wait([running], timeout=TICK_S)
            self.tick()
        running.result()


class Asker(WSListener):
    """Takes the one message that the suite has on what is not a case."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = b""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        else:
            self.answer = frame.get_payload_as_bytes()
            transport.disconnect()


async def ask(url: str) -> bytes:
    transport, listener = await ws_connect(Asker, url)
    await transport.wait_disconnected()
    assert isinstance(listener, Asker)
    return listener.answer


async def run_cases(echo: ModuleType, server: Any, parallel: int) -> None:
    """Meet every case that *server* has, some at a time, and have it end the run."""
    base = f"ws://127.0.0.1:{server.port}"
    numbers = iter(range(1, int(await ask(f"{base}/getCaseCount")) + 1))

    async def work() -> None:
        for number in numbers:
            url = f"{base}/runCase?case={number}&agent=feedhandler"
            await EchoConnection(echo, url).meet()

    await asyncio.gather(*(work() for _ in range(parallel)))
    await ask(f"{base}/updateReports?agent=feedhandler")

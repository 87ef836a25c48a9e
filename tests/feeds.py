"""A session with everything around it that a test looks at, in virtual time."""

import json
from typing import Any

from feedhandler.backoff import Backoff
from feedhandler.codec import Codec, MsgspecCodec
from feedhandler.counters import Counters, CountersReader
from feedhandler.reconnect import Reconnect
from feedhandler.records import Flags
from feedhandler.session import Session
from feedhandler.sink import PythonSink
from feedhandler.throttle import Throttle
from feedhandler.tracker import COUNTERS, HISTOGRAMS, Action, Event, TrackedBook

SECOND_NS = 1_000_000_000
MINUTE_NS = 61 * SECOND_NS
START_NS = 1_000 * SECOND_NS
AAPL = "orderbook:AAPL:10"
TIME_MS = 1_625_097_600_000

Levels = list[tuple[float, float]]


class Recorder(PythonSink):
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.quotes: list[Any] = []
        self.trades: list[Any] = []
        self.tickers: list[Any] = []
        self.candles: list[Any] = []

    def quote(self, event: Any) -> None:
        self.quotes.append(event)

    def trade(self, event: Any) -> None:
        self.trades.append(event)

    def ticker(self, event: Any) -> None:
        self.tickers.append(event)

    def candle(self, event: Any) -> None:
        self.candles.append(event)


class Feed:
    """A Session, its sink, its counters and a clock that moves when it is told to.

    The venue answers pings at once, unless *pongs* is false, and requests for channels
    if *answers* is true. No other feed has its *codec*.
    """

    def __init__(
        self,
        *channels: str,
        sink: Any = None,
        codec: Codec | None = None,
        subscribes: int = 45,
        opened: bool = True,
        pongs: bool = True,
        answers: bool = False,
        **options: Any,
    ) -> None:
        options.setdefault(
            "reconnect", Reconnect(Backoff(jitter=0), retry_forever=True)
        )
        self.sink = Recorder() if sink is None else sink
        self.page = bytearray(Counters.size_for(len(COUNTERS), len(HISTOGRAMS)))
        self.now_ns = START_NS
        self.pongs = pongs
        self.answers = answers
        self.pings = 0
        self.session = Session(
            codec or MsgspecCodec(),
            self.sink,
            Counters(self.page, COUNTERS, HISTOGRAMS),
            Throttle(subscribes, MINUTE_NS),
            Throttle(180, MINUTE_NS),
            **options,
        )
        self.wire: list[dict[str, Any]] = []
        self.happened: list[Event] = []
        for number, channel in enumerate(channels):
            self.session.add(channel, number)
        if opened:
            self.open()

    # ── what the venue and time do ────────────────────────────────────────────────────

    def open(self) -> int:
        self.session.connecting(self.now_ns)
        return self._take(self.session.opened(self.now_ns))

    def close(self) -> None:
        self.session.closed(self.now_ns)
        self._take(0)

    def receive(self, message: Any) -> int:
        """Take a message as the bytes, the text or the object that it is."""
        if isinstance(message, str):
            message = message.encode()
        elif not isinstance(message, bytes):
            message = wire_text(message)
        return self._take(self.session.receive(message, self.now_ns))

    def snapshot(
        self,
        sequence: int,
        bids: Levels,
        asks: Levels,
        channel: str = AAPL,
        **more: Any,
    ) -> int:
        return self.receive(book("orderbook", sequence, bids, asks, channel, **more))

    def update(
        self,
        sequence: int,
        bids: Levels = (),  # type: ignore[assignment]
        asks: Levels = (),  # type: ignore[assignment]
        channel: str = AAPL,
        **more: Any,
    ) -> int:
        return self.receive(
            book("orderbook_update", sequence, bids, asks, channel, **more)
        )

    def answer(
        self, request: dict[str, Any] | None = None, status: str = "success"
    ) -> int:
        """Answer a request, the last one by default, as the venue does."""
        request = request or self.wire[-1]
        return self.receive(
            {
                "type": "subscription_response",
                "data": {"status": status, "channels": request["data"]["channels"]},
                "timestamp": TIME_MS,
                "id": request["id"],
            }
        )

    def authenticated(self, **fields: Any) -> int:
        """Answer the last authenticate: yes, unless *fields* say otherwise."""
        request = next(m for m in self.wire[::-1] if m["action"] == "authenticate")
        answer = {"status": "success", "data": {"status": "success"}} | fields
        stamps = {"timestamp": TIME_MS, "id": request["id"]}
        return self.receive({"type": "auth_response"} | stamps | answer)

    def refuse(
        self,
        code: str,
        message: str = "",
        request: dict[str, Any] | None = None,
        **more: Any,
    ) -> int:
        request = request or self.wire[-1]
        return self.receive(
            {
                "type": "error",
                "data": {
                    "code": code,
                    "message": message,
                    "request_id": request["id"],
                    "request_action": request["action"],
                    **more,
                },
                "timestamp": TIME_MS,
                "id": request["id"],
            }
        )

    def heartbeat(self) -> int:
        return self.receive({"type": "heartbeat", "data": {"interval": 30000}})

    def pass_s(self, seconds: float) -> None:
        self.now_ns += round(seconds * SECOND_NS)

    def collect(self) -> int:
        return self._take(self.session.collect(self.now_ns))

    def tick(self, after_s: float = 0.0) -> int:
        self.pass_s(after_s)
        return self._take(self.session.tick(self.now_ns))

    def _take(self, actions: int) -> int:
        said = [json.loads(message) for message in self.session.take_outbox()]
        self.wire += said
        for message in said:
            if self.answers and message["action"] in ("subscribe", "unsubscribe"):
                self.answer(message)
        if actions & Action.PING:
            self.pings += 1
            if self.pongs:
                self.session.pong(self.session.ping_payload, self.now_ns)
        self.happened += self.session.take_events()
        return actions & ~Action.PING

    # ── what can be seen ──────────────────────────────────────────────────────────────

    def sent(self) -> list[dict[str, Any]]:
        """What was put on the wire since the last call."""
        self._take(0)
        taken, self.wire = self.wire, []
        return taken

    def asked(self) -> list[tuple[str, list[str]]]:
        """The requests put on the wire since the last call, as action and channels."""
        return [
            (message["action"], message["data"]["channels"])
            for message in self.sent()
            if message["action"] in ("subscribe", "unsubscribe")
        ]

    def events(self, *kinds: str) -> list[Event]:
        """What happened since the last call, as far as it is of *kinds*."""
        taken, self.happened = self.happened, []
        return [event for event in taken if not kinds or event.kind in kinds]

    def ends(self) -> list[Event]:
        """The events of connections that ended, and what follows."""
        self._take(0)
        return self.events("closed", "reconnect", "failed")

    def failures(self) -> list[Event]:
        self._take(0)
        return self.events("failed")

    def quotes(self) -> list[Any]:
        """The quotes given to the sink since the last call."""
        taken, self.sink.quotes = self.sink.quotes, []
        return taken

    def counter(self, name: str) -> int:
        return CountersReader(self.page).values()[name]

    def book(self, channel: str = AAPL) -> TrackedBook:
        found = self.session.routes[channel].book
        assert found is not None
        return found

    @property
    def flags(self) -> Flags:
        return Flags(self.book().flags)


def live_feed(*channels: str, sequence: int = 100, **options: Any) -> Feed:
    """A feed whose order books are LIVE at *sequence*, with nothing left to look at."""
    feed = Feed(*(channels or (AAPL,)), **options)
    if not feed.answers:
        feed.answer()
    for channel in channels or (AAPL,):
        if channel.startswith("orderbook:"):
            feed.snapshot(sequence, *SOUND, channel=channel)
    feed.sent()
    feed.events()
    if isinstance(feed.sink, Recorder):
        feed.quotes()
    return feed


def wire_text(message: Any) -> bytes:
    """Write a message as venues do: without a space between its values."""
    return json.dumps(message, separators=(",", ":")).encode()


SOUND: tuple[Levels, Levels] = (
    [(150.0, 500.0), (149.95, 1000.0)],
    [(150.05, 300.0), (150.1, 800.0)],
)


def book(
    kind: str,
    sequence: int,
    bids: Levels,
    asks: Levels,
    channel: str = AAPL,
    symbol: str | None = None,
    timestamp: int = TIME_MS,
) -> dict[str, Any]:
    return {
        "type": kind,
        "data": {
            "symbol": channel.split(":")[1] if symbol is None else symbol,
            "bids": [list(level) for level in bids],
            "asks": [list(level) for level in asks],
            "sequence": sequence,
        },
        "channel": channel,
        "timestamp": timestamp,
    }

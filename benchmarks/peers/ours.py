"""The feed handler: a Session as shipped, its ring and its board."""

from time import monotonic_ns

from benchmarks import harness
from benchmarks.peers import Best, Handle, Instrument
from feedhandler.publisher import Publisher
from feedhandler.records import QUOTE
from feedhandler.ring import Reader, Ring


class Ours:
    """A Session with a codec, and a reader of its ring in the same process."""

    def __init__(self, instruments: list[Instrument], codec: str) -> None:
        memory = bytearray(Ring.size_for(QUOTE, harness.CAPACITY))
        made = harness.segments()
        quotes = Ring(memory, QUOTE, harness.CAPACITY)
        made.publisher = Publisher(quotes, made.trades, made.board)
        channels = [each.channel for each in instruments]
        self.session = harness.session_of(channels, harness.CODECS[codec](), into=made)
        self.reader = Reader(memory, QUOTE)

    def handle(self) -> Handle:
        """Return a function that feeds a message and reads its record from the ring.

        Both through Python; a consumer would do the second in a process of its own.
        """
        receive, fill, clock = self.session.receive, self.reader.fill, monotonic_ns
        bid, bid_size, ask, ask_size = (
            self.reader.columns[name].item
            for name in ("bid_price", "bid_size", "ask_price", "ask_size")
        )

        def handle(payload: bytes) -> Best:
            receive(payload, clock())
            fill()
            return (bid(0), bid_size(0)), (ask(0), ask_size(0))

        return handle

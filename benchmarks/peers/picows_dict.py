"""picows, msgspec and a dict a side, in pure Python.

The best price is kept; a side is looked through for it only when it was removed.
"""

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from benchmarks.peers import Best, GapError, Handle, Instrument, Watch
from benchmarks.peers.messages import Snapshot, decode

HIGHEST = float("inf")


class Book:
    """Two sides and their best prices, and the sequence that they are of."""

    __slots__ = ("asks", "best_ask", "best_bid", "bids", "sequence")

    def __init__(self) -> None:
        self.bids: dict[float, float] = {}
        self.asks: dict[float, float] = {}
        self.best_bid, self.best_ask = 0.0, HIGHEST
        self.sequence = 0


def start(instruments: list[Instrument]) -> Handle:
    books = {each.channel: Book() for each in instruments}

    def handle(payload: bytes | memoryview) -> Best:
        message = decode(payload)
        data = message.data
        book = books[message.channel]
        if type(message) is Snapshot:
            bids = book.bids = dict(data.bids)
            asks = book.asks = dict(data.asks)
            best_bid = max(bids, default=0.0)
            best_ask = min(asks, default=HIGHEST)
        else:
            if data.sequence != book.sequence + 1:
                raise GapError(message.channel, book.sequence + 1, data.sequence)
            bids, asks = book.bids, book.asks
            best_bid, best_ask = book.best_bid, book.best_ask
            for price, size in data.bids:
                if size:
                    bids[price] = size
                    # A call of max() costs more.
                    if price > best_bid:  # noqa: PLR1730
                        best_bid = price
                else:
                    bids.pop(price, None)
            for price, size in data.asks:
                if size:
                    asks[price] = size
                    if price < best_ask:  # noqa: PLR1730
                        best_ask = price
                else:
                    asks.pop(price, None)
            if best_bid not in bids:
                best_bid = max(bids, default=0.0)
            if best_ask not in asks:
                best_ask = min(asks, default=HIGHEST)
        book.best_bid, book.best_ask = best_bid, best_ask
        book.sequence = data.sequence
        try:
            return (best_bid, bids[best_bid]), (best_ask, asks[best_ask])
        except KeyError:
            return None

    return handle


class Listener(WSListener):  # type: ignore[misc]
    """Hand over every message but the first, from the buffer that it was read into."""

    def __init__(self, request: str, handle: Handle, count: int, watch: Watch) -> None:
        self.request = request.encode()
        self.handle = handle
        self.left = count
        self.watch = watch
        self.best: Best = None
        self.is_subscribed = False

    def on_ws_connected(self, transport: WSTransport) -> None:
        transport.send(WSMsgType.TEXT, self.request)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is not WSMsgType.TEXT:
            return
        if not self.is_subscribed:
            self.is_subscribed = True
            self.watch.begin()
            return
        self.best = self.handle(frame.get_payload_as_memoryview())
        self.left -= 1
        if not self.left:
            self.watch.end()
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()


async def follow(
    url: str, request: str, handle: Handle, count: int, watch: Watch
) -> Best:
    """Subscribe, and hand over what comes."""
    transport, listener = await ws_connect(
        lambda: Listener(request, handle, count, watch), url
    )
    await transport.wait_disconnected()
    return listener.best

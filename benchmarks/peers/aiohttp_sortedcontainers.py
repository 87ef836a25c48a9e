"""aiohttp, msgspec and sortedcontainers."""

from aiohttp import ClientSession
from sortedcontainers import SortedDict

from benchmarks.peers import Best, GapError, Handle, Instrument, Watch
from benchmarks.peers.messages import Snapshot, decode


class Book:
    """Two sides, lowest price first, and the sequence that they are of."""

    __slots__ = ("asks", "bids", "sequence")

    def __init__(self) -> None:
        self.bids, self.asks = SortedDict(), SortedDict()
        self.sequence = 0


def start(instruments: list[Instrument]) -> Handle:
    books = {each.channel: Book() for each in instruments}

    def handle(payload: bytes) -> Best:
        message = decode(payload)
        data = message.data
        book = books[message.channel]
        if type(message) is Snapshot:
            bids = book.bids = SortedDict(data.bids)
            asks = book.asks = SortedDict(data.asks)
        else:
            if data.sequence != book.sequence + 1:
                raise GapError(message.channel, book.sequence + 1, data.sequence)
            bids, asks = book.bids, book.asks
            for price, size in data.bids:
                if size:
                    bids[price] = size
                elif price in bids:
                    del bids[price]
            for price, size in data.asks:
                if size:
                    asks[price] = size
                elif price in asks:
                    del asks[price]
        book.sequence = data.sequence
        try:
            return bids.peekitem(-1), asks.peekitem(0)
        except IndexError:
            return None

    return handle


async def follow(
    url: str, request: str, handle: Handle, count: int, watch: Watch
) -> Best:
    """Subscribe, and hand over what comes, as bytes that nobody looked at."""
    async with (
        ClientSession() as session,
        session.ws_connect(
            url, compress=0, max_msg_size=0, decode_text=False
        ) as socket,
    ):
        await socket.send_str(request)
        await socket.receive()
        watch.begin()
        receive = socket.receive
        for _ in range(count):
            best = handle((await receive()).data)
        watch.end()
    return best

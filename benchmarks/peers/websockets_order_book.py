"""`websockets`, orjson and order-book."""

from order_book import OrderBook
from orjson import loads
from websockets.asyncio.client import connect

from benchmarks.peers import Best, GapError, Handle, Instrument, Watch


class Book:
    """An OrderBook's sides, and the sequence that they are of."""

    __slots__ = ("asks", "bids", "book", "sequence")

    def __init__(self) -> None:
        self.book = OrderBook()
        self.bids, self.asks = self.book.bids, self.book.asks
        self.sequence = 0


def start(instruments: list[Instrument]) -> Handle:
    books = {each.channel: Book() for each in instruments}

    def handle(payload: bytes) -> Best:
        message = loads(payload)
        data = message["data"]
        sequence = data["sequence"]
        book = books[message["channel"]]
        bids, asks = book.bids, book.asks
        if message["type"] == "orderbook_update":
            if sequence != book.sequence + 1:
                raise GapError(message["channel"], book.sequence + 1, sequence)
            for price, size in data["bids"]:
                if size:
                    bids[price] = size
                elif price in bids:
                    del bids[price]
            for price, size in data["asks"]:
                if size:
                    asks[price] = size
                elif price in asks:
                    del asks[price]
        else:
            book.book.bids = dict(data["bids"])
            book.book.asks = dict(data["asks"])
        book.sequence = sequence
        try:
            return bids.index(0), asks.index(0)
        except IndexError:
            return None

    return handle


async def follow(
    url: str, request: str, handle: Handle, count: int, watch: Watch
) -> Best:
    """Subscribe, and hand over what comes, as bytes that nobody looked at."""
    async with connect(url, compression=None, max_queue=1_024, max_size=None) as socket:
        await socket.send(request)
        await socket.recv()
        watch.begin()
        receive = socket.recv
        for _ in range(count):
            best = handle(await receive(False))
        watch.end()
    return best

"""Who takes part, with the packages that each needs, and what it does not do."""

from benchmarks.peers import Peer

PEERS = {
    "websockets + orjson + order-book": Peer(
        "websockets_order_book",
        {"websockets": "websockets", "orjson": "orjson", "order-book": "order_book"},
        "TODO",
        over_a_socket=True,
    ),
    "aiohttp + msgspec + sortedcontainers": Peer(
        "aiohttp_sortedcontainers",
        {
            "aiohttp": "aiohttp",
            "msgspec": "msgspec",
            "sortedcontainers": "sortedcontainers",
        },
        "TODO",
        over_a_socket=True,
    ),
    "picows + msgspec + dict": Peer(
        "picows_dict",
        {"picows": "picows", "msgspec": "msgspec"},
        "TODO",
        over_a_socket=True,
    ),
    "cryptofeed": Peer(
        "cryptofeed_feed",
        {"cryptofeed": "cryptofeed"},
        "TODO",
    ),
    "cryptofeed, lean": Peer(
        "cryptofeed_feed",
        {"cryptofeed": "cryptofeed"},
        "TODO",
        start="start_lean",
    ),
    "nautilus_trader": Peer(
        "nautilus_book",
        {"nautilus_trader": "nautilus_trader", "msgspec": "msgspec"},
        "TODO",
        start="start_deltas",
    ),
    "nautilus_trader, lean": Peer(
        "nautilus_book",
        {"nautilus_trader": "nautilus_trader", "msgspec": "msgspec"},
        "TODO",
    ),
}

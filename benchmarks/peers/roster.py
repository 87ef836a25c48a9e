"""Who takes part, with the packages that each needs, and what it does not do.

What a row takes, bench_peers.py tries; the rest of what is said of a library was looked
up in the versions that README.md names.
"""

from benchmarks.peers import Peer

SIGNS = ("negative prices", "negative sizes")

PEERS = {
    "websockets + orjson + order-book": Peer(
        "websockets_order_book",
        {"websockets": "websockets", "orjson": "orjson", "order-book": "order_book"},
        takes=(*SIGNS, "texts for sizes"),
        over_a_socket=True,
    ),
    "aiohttp + msgspec + sortedcontainers": Peer(
        "aiohttp_sortedcontainers",
        {
            "aiohttp": "aiohttp",
            "msgspec": "msgspec",
            "sortedcontainers": "sortedcontainers",
        },
        takes=SIGNS,
        over_a_socket=True,
    ),
    "picows + msgspec + dict": Peer(
        "picows_dict",
        {"picows": "picows", "msgspec": "msgspec"},
        takes=SIGNS,
        over_a_socket=True,
    ),
    "cryptofeed": Peer(
        "cryptofeed_feed",
        {"cryptofeed": "cryptofeed"},
        takes=(*SIGNS, "texts for sizes", "NaN"),
    ),
    "cryptofeed, lean": Peer(
        "cryptofeed_feed",
        {"cryptofeed": "cryptofeed"},
        takes=(*SIGNS, "texts for sizes", "NaN"),
        start="start_lean",
    ),
    "nautilus_trader": Peer(
        "nautilus_book",
        {"nautilus_trader": "nautilus_trader", "msgspec": "msgspec"},
        takes=("negative prices",),
        start="start_deltas",
    ),
    "nautilus_trader, lean": Peer(
        "nautilus_book",
        {"nautilus_trader": "nautilus_trader", "msgspec": "msgspec"},
        takes=("negative prices",),
    ),
}

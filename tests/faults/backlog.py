"""A venue whose slow clients fall behind within a second."""

import socket

from feedhandler.venue import Venue, VenueConfig
from feedhandler.venue.config import LimitsConfig, SymbolConfig
from feedhandler.venue.connection import HIGH_WATER_BYTES
from feedhandler.venue.exchange import Exchange

OUTBOUND_BYTES = 16 * 1024
KERNEL_BYTES = 32 * 1024
# What trade() may add before the venue looks how much it keeps.
TURN_BYTES = 64 * 1024
MOST_KEPT_BYTES = HIGH_WATER_BYTES + OUTBOUND_BYTES + TURN_BYTES
STEPS = 16

CONFIG = VenueConfig(
    port=0,
    symbols=[SymbolConfig(name="AAPL", previous_close=150.0)],
    limits=LimitsConfig(outbound_bytes=OUTBOUND_BYTES),
)


def trade(venue: Venue) -> None:
    """Let the traders trade, out of turn."""
    assert isinstance(venue.market, Exchange)
    for trader in venue.market._traders * STEPS:
        trader.step(venue.now_ns())
    venue.acted()


def keep_little(venue: Venue) -> None:
    """Have the kernel keep little of what the venue's next clients do not read."""
    for sock in venue._server.sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)


def kept_bytes(venue: Venue) -> int:
    """Return what the venue keeps for all of its clients."""
    return sum(connection._wire.buffered() for connection in venue._connections)

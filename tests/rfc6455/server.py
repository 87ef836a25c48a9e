"""The venue's server side as an echo: every class of it but the gateway is shipped."""

from feedhandler.venue.config import LimitsConfig, TradersConfig, VenueConfig
from feedhandler.venue.connection import Connection
from feedhandler.venue.gateway import Effect, Pong, Send
from feedhandler.venue.server import Listener, PicowsWire, Venue

# Cases send messages of 16 MiB, and the same in frames of 64 bytes.
LARGE_BYTES = 32 << 20
MANY = 1_000_000


def config(message_bytes: int = LARGE_BYTES) -> VenueConfig:
    """A venue that has nothing to say and takes what the cases send."""
    limits = LimitsConfig(
        message_bytes=message_bytes,
        outbound_bytes=16 * LARGE_BYTES,
        connections_per_address=MANY,
        handshakes_per_minute=MANY,
    )
    return VenueConfig(port=0, limits=limits, traders=TradersConfig(enabled=False))


class EchoGateway:
    """Answers a message with itself, in a frame of its kind."""

    subscriptions = ()

    def __init__(self) -> None:
        self.connection: Connection

    def receive(self, payload: bytes, now_ns: int) -> list[Effect]:
        self.connection.binary = self.connection._text is None
        return [Send(payload)]

    def ping(self, payload: bytes, now_ns: int) -> list[Effect]:
        return [Pong(payload)]

    def pong(self, now_ns: int) -> list[Effect]:
        return []

    def due_ns(self) -> int:
        return 1 << 62

    def tick(self, now_ns: int) -> list[Effect]:
        return []

    def left(self) -> None:
        pass


class EchoVenue(Venue):
    """A venue whose connections echo; *gateway* makes one for each."""

    gateway = EchoGateway

    def _listener(self, endpoint: str, binary: bool) -> Listener:
        def connect(wire: PicowsWire) -> Connection:
            gateway = self.gateway()
            gateway.connection = Connection(self, self.config, gateway, wire)
            return gateway.connection

        return Listener(connect)

"""The messages as a user of msgspec would declare them: what a book needs, no more."""

import msgspec


class Data(msgspec.Struct, gc=False):
    """The levels of a message, and its number."""

    bids: list[tuple[float, float]]
    asks: list[tuple[float, float]]
    sequence: int


class Snapshot(msgspec.Struct, tag_field="type", tag="orderbook", gc=False):
    channel: str
    data: Data


class Update(msgspec.Struct, tag_field="type", tag="orderbook_update", gc=False):
    channel: str
    data: Data


decode = msgspec.json.Decoder(Snapshot | Update).decode

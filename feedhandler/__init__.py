"""Low-latency WebSocket feed handler: books you can trust, in shared memory.

Names are imported when they are first used: a consumer that only calls attach() loads
neither asyncio nor picows.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from feedhandler.client import TradingClient
    from feedhandler.config import FeedConfig, Instrument
    from feedhandler.consumer import MarketData, attach
    from feedhandler.embed import get_include
    from feedhandler.errors import FeedError
    from feedhandler.feed import Feed
    from feedhandler.handler import FeedHandler
    from feedhandler.records import Flags, TradeFlags, flag_names, trade_flag_names
    from feedhandler.secret import Secret
    from feedhandler.sink import PythonSink, Sink
    from feedhandler.tracker import Event, TrackedBook

__all__ = [
    "Event",
    "Feed",
    "FeedConfig",
    "FeedError",
    "FeedHandler",
    "Flags",
    "Instrument",
    "MarketData",
    "PythonSink",
    "Secret",
    "Sink",
    "TrackedBook",
    "TradeFlags",
    "TradingClient",
    "attach",
    "flag_names",
    "get_include",
    "trade_flag_names",
]

_HOMES = {
    "Event": "tracker",
    "Feed": "feed",
    "FeedConfig": "config",
    "FeedError": "errors",
    "FeedHandler": "handler",
    "Flags": "records",
    "Instrument": "config",
    "MarketData": "consumer",
    "PythonSink": "sink",
    "Secret": "secret",
    "Sink": "sink",
    "TrackedBook": "tracker",
    "TradeFlags": "records",
    "TradingClient": "client",
    "attach": "consumer",
    "flag_names": "records",
    "get_include": "embed",
    "trade_flag_names": "records",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module (PEP 562)."""
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported yet or not."""
    return sorted(set(globals()) | set(__all__))

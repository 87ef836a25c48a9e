"""The reference venue: the server side of the API, a program of its own.

``async with Venue(build(port=0)) as venue: connect(venue.url + "/ws/trading")``
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from feedhandler.venue.config import VenueConfig, build, load
    from feedhandler.venue.faults import FaultPlan
    from feedhandler.venue.journal import Journal
    from feedhandler.venue.server import Venue

__all__ = ["FaultPlan", "Journal", "Venue", "VenueConfig", "build", "load"]

_HOMES = {
    "FaultPlan": "faults",
    "Journal": "journal",
    "Venue": "server",
    "VenueConfig": "config",
    "build": "config",
    "load": "config",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: an engine needs no server."""
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value

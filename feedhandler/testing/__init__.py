"""For tests of trading engines: a venue, a network that fails, and a pytest plugin."""

from feedhandler.testing.gaps import FixedGap, Gaps, MultiGap, RandomGap
from feedhandler.testing.proxy import (
    After,
    FaultProxy,
    Happened,
    Nth,
    RunningProxy,
    Seen,
)
from feedhandler.testing.venue import RunningVenue

__all__ = [
    "After",
    "FaultProxy",
    "FixedGap",
    "Gaps",
    "Happened",
    "MultiGap",
    "Nth",
    "RandomGap",
    "RunningProxy",
    "RunningVenue",
    "Seen",
]

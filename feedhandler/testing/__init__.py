"""For tests of trading engines: a venue to test against, and a pytest plugin."""

from feedhandler.testing.venue import RunningVenue

__all__ = ["RunningVenue"]

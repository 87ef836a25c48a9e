"""The pytest plugin: a reference venue for anybody's tests.

Override ``feedhandler_venue_config`` to have another one::

    @pytest.fixture
    def feedhandler_venue_config():
        return feedhandler.venue.build(port=0, heartbeat_s=0.5)
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from feedhandler.testing.venue import RunningVenue

if TYPE_CHECKING:
    from feedhandler.venue import VenueConfig

__all__ = ["feedhandler_venue", "feedhandler_venue_config"]


@pytest.fixture
def feedhandler_venue_config() -> "VenueConfig":
    """The configuration of ``feedhandler_venue``: a free port, one account."""
    from feedhandler.venue import build

    return build(port=0)


@pytest.fixture
def feedhandler_venue(
    feedhandler_venue_config: "VenueConfig",
) -> Iterator[RunningVenue]:
    """A reference venue for this test, running on a thread of its own."""
    with RunningVenue(feedhandler_venue_config) as venue:
        yield venue

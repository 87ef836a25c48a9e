"""A reference venue on a thread of its own, for tests that have no loop or another."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from feedhandler.testing.thread import LoopThread, Running

if TYPE_CHECKING:
    from feedhandler.venue import Venue, VenueConfig

__all__ = ["RunningVenue"]

T = TypeVar("T")


class RunningVenue(Running):
    """A venue that runs until stop(); its methods may be called from any thread.

    ``with RunningVenue(config) as venue: connect(venue.url + "/ws/market-data")``
    """

    def __init__(self, config: "VenueConfig") -> None:
        # Here, not above: pytest imports plugins in every run of everybody's tests.
        from feedhandler.venue import Venue

        self._thread = LoopThread("feedhandler-venue")
        self._venue = Venue(config)
        try:
            self._thread.wait(self._venue.start())
        except BaseException:
            self._thread.end()
            raise

    @property
    def url(self) -> str:
        """The base URL, to which an endpoint's path is appended."""
        return self._venue.url

    @property
    def credentials(self) -> tuple[str, str]:
        """The key and the secret of the first account."""
        return self._venue.credentials

    def do(self, act: "Callable[[Venue], T]") -> T:
        """Run *act* with the venue on its own thread, and return what it returns.

        ``venue.do(lambda v: v.faults.skip("orderbook:AAPL:10"))``
        """
        return self._thread.call(lambda: act(self._venue))

    def restart(self) -> None:
        """Restart it on its port: 4004 to everybody, and nothing is kept."""
        self._thread.wait(self._venue.restart())

    def stop(self) -> None:
        """Close every connection with 1001, and end it."""
        self._thread.finish(self._venue.stop)

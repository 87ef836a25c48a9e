"""A reference venue on a thread of its own, for tests that have no loop or another."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from feedhandler.venue import Venue, VenueConfig

__all__ = ["RunningVenue"]

T = TypeVar("T")
DEADLINE_S = 30.0


class RunningVenue:
    """A venue that runs until stop(); its methods may be called from any thread.

    ``with RunningVenue(config) as venue: connect(venue.url + "/ws/market-data")``
    """

    def __init__(self, config: "VenueConfig") -> None:
        # Here, not above: pytest imports plugins in every run of everybody's tests.
        from feedhandler.venue import Venue

        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="feedhandler-venue", daemon=True
        )
        self._thread.start()
        self._venue = Venue(config)
        try:
            self._await(self._venue.start())
        except BaseException:
            self._end()
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

        async def run() -> T:
            return act(self._venue)

        return self._await(run())

    def restart(self) -> None:
        """Restart it on its port: 4004 to everybody, and nothing is kept."""
        self._await(self._venue.restart())

    def stop(self) -> None:
        """Close every connection with 1001, and end it."""
        if self._thread.is_alive():
            try:
                self._await(self._venue.stop())
            finally:
                self._end()

    def __enter__(self) -> Self:
        """Return itself; leaving the block stops it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE_S)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_S)
        self._loop.close()

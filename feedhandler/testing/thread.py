"""An event loop on a thread of its own, for tests that have none or another."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

__all__ = ["LoopThread", "Running"]

T = TypeVar("T")
DEADLINE_S = 30.0


class LoopThread:
    """A loop that runs until end(); everything may be called from any other thread."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name=name, daemon=True
        )
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether end() has not been called."""
        return self._thread.is_alive()

    def wait(self, work: Coroutine[Any, Any, T], timeout_s: float = DEADLINE_S) -> T:
        """Run a coroutine there, and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    def call(self, act: Callable[[], T]) -> T:
        """Call a function there, and return what it returns."""

        async def run() -> T:
            return act()

        return self.wait(run())

    def finish(self, stop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Stop what runs there, then end; nothing if it has ended."""
        if self.is_alive:
            try:
                self.wait(stop())
            finally:
                self.end()

    def end(self) -> None:
        """End the loop and the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_S)
        self._loop.close()


class Running:
    """What runs on a thread until stop(), which leaving a block calls."""

    def stop(self) -> None:
        """End it."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        """Return itself; leaving the block stops it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()

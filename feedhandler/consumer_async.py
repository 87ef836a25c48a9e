"""A stream of records as an asyncio iterator, for consumers that have a loop anyway.

The waiting is done in a thread of its own, without the GIL; whoever needs no loop is
quicker with Stream.wait() and poll().
"""

import asyncio
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Protocol, Self

import numpy.typing as npt

from feedhandler.shm import Status

__all__ = ["Records", "records"]

# How long a cancelled or closed iterator may have to wait for its thread.
SLICE_S = 0.05

Strategy = Literal["adaptive", "spin", "block"]


class Stream(Protocol):
    """What is needed of a consumer.Stream."""

    @property
    def status(self) -> Status:
        """What is known about the writer."""

    def poll(self, max: int = ...) -> npt.NDArray[Any]:
        """Return what is new."""

    def take_one(self) -> npt.NDArray[Any]:
        """Return a record that a dead writer had no time to count."""

    def wait(self, timeout: float | None = ..., strategy: Strategy = ...) -> bool:
        """Wait for something to poll."""


def records(
    stream: Stream,
    *,
    max: int = 4096,
    strategy: Strategy = "adaptive",
    until: Collection[Status] = (Status.CLOSED, Status.DEAD),
) -> "Records":
    """Iterate over the batches of *stream*, numpy arrays of *max* records at most.

    Ends when all is read and the writer is in one of the states *until*; with none it
    goes on with the writer's successor. The stream is the iterator's until it ends or
    is closed; a cancelled ``anext`` loses nothing and may be called again.
    """
    return Records(stream, max, strategy, until)


class Records:
    """The iterator that records() makes; see there.

    Its one thread exists from the first wait to the end, or to aclose(), or until the
    iterator is forgotten.
    """

    def __init__(
        self, stream: Stream, max: int, strategy: Strategy, until: Collection[Status]
    ) -> None:
        self._stream = stream
        self._max = max
        self._strategy: Strategy = strategy
        self._until = frozenset(until)
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="feedhandler-records")
        self._waiting: asyncio.Future[bool] | None = None
        self._ended = False

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> npt.NDArray[Any]:
        """Return the next batch, as soon as there is one."""
        # A stream that is never empty must not keep the loop from its other work.
        await asyncio.sleep(0)
        while True:
            try:
                await self._rest()
                batch = self._next()
            except Exception:
                self._end()
                raise
            if batch is None:
                self._end()
                raise StopAsyncIteration
            if len(batch):
                return batch
            self._waiting = asyncio.get_running_loop().run_in_executor(
                self._helper, self._stream.wait, SLICE_S, self._strategy
            )

    async def aclose(self) -> None:
        """Give the stream back and end the thread; takes 50 ms at most."""
        self._ended = True
        try:
            await self._rest()
        finally:
            self._end()

    async def __aenter__(self) -> Self:
        """Return itself; leaving the block closes it."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.aclose()

    def _next(self) -> npt.NDArray[Any] | None:
        """Return what there is, which may be nothing; None when nothing more comes."""
        if self._ended:
            return None
        batch = self._stream.poll(self._max)
        if len(batch) or self._stream.status not in self._until:
            return batch
        # Published after the poll; or complete, but not counted by a writer that died.
        batch = self._stream.poll(self._max)
        if not len(batch):
            batch = self._stream.take_one()
        return batch if len(batch) else None

    def _end(self) -> None:
        """End the thread, which is idle by now."""
        self._ended = True
        self._helper.shutdown()

    async def _rest(self) -> None:
        """Let the thread finish, even if cancelled: a stream is not for two threads."""
        cancelled: asyncio.CancelledError | None = None
        while self._waiting is not None and not self._waiting.done():
            try:
                await asyncio.wait([self._waiting])
            except asyncio.CancelledError as error:
                cancelled = error
        waiting, self._waiting = self._waiting, None
        if cancelled is not None:
            raise cancelled
        if waiting is not None:
            waiting.result()

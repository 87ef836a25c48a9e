"""Run a scenario on a loop of its own, and look whether it leaves anything."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

SECONDS = 10.0


async def eventually(
    probe: Callable[[], Any], what: str, seconds: float = SECONDS
) -> Any:
    try:
        async with asyncio.timeout(seconds):
            while not (found := probe()):
                await asyncio.sleep(0.001)
            return found
    except TimeoutError:
        raise AssertionError(f"waited {seconds} s for {what}") from None


def run(work: Callable[[], Awaitable[None]], seconds: float = 6 * SECONDS) -> None:
    """Run *work*, after which no task, descriptor or error may be left."""

    async def bounded() -> None:
        loop = asyncio.get_running_loop()
        failures: list[Any] = []
        loop.set_exception_handler(lambda _, context: failures.append(context))
        async with asyncio.timeout(seconds):
            await work()
        await eventually(
            lambda: asyncio.all_tasks() == {asyncio.current_task()}, "tasks to end"
        )
        assert failures == []

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(bounded())
    assert len(os.listdir("/proc/self/fd")) == before

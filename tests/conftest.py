"""What holds for every test: nothing is left in shared memory; the loop it runs on."""

import asyncio
import os
from collections.abc import Iterator

import pytest

from feedhandler.spin import SpinEventLoop


class _Spinning(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> SpinEventLoop:
        return SpinEventLoop()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--loop", choices=("block", "spin"), default="block")


def pytest_configure(config: pytest.Config) -> None:
    """With --loop=spin, have what a test runs in asyncio run on the loop that spins."""
    if config.getoption("--loop") == "spin":
        asyncio.set_event_loop_policy(_Spinning())


@pytest.fixture(autouse=True, scope="session")
def _no_segment_is_left_behind() -> Iterator[None]:
    before = set(os.listdir("/dev/shm"))
    yield
    ours = {
        entry for entry in set(os.listdir("/dev/shm")) - before if entry[:3] == "fh-"
    }
    mine = {entry for entry in ours if str(os.getpid()) in entry}
    assert mine == set()

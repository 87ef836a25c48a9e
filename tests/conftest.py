"""What holds for every test: nothing is left in shared memory; the loop it runs on."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from feedhandler.event_loop import FeedEventLoop


class _Policy(asyncio.DefaultEventLoopPolicy):
    def __init__(self, spin: bool) -> None:
        super().__init__()
        self.spin = spin

    def new_event_loop(self) -> FeedEventLoop:
        return FeedEventLoop(self.spin)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--loop", choices=("asyncio", "block", "spin"), default="asyncio")


def pytest_configure(config: pytest.Config) -> None:
    """Have what a test runs in asyncio run on a loop that reads sockets by itself.

    And hear of Ctrl-C, which a shell has its background jobs ignore, and theirs.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    loop = config.getoption("--loop")
    if loop != "asyncio":
        asyncio.set_event_loop_policy(_Policy(loop == "spin"))


@pytest.fixture(autouse=True, scope="session")
def _no_segment_is_left_behind() -> Iterator[None]:
    before = set(os.listdir("/dev/shm"))
    yield
    ours = {
        entry for entry in set(os.listdir("/dev/shm")) - before if entry[:3] == "fh-"
    }
    mine = {entry for entry in ours if str(os.getpid()) in entry}
    assert mine == set()

"""What holds for every test: nothing is left in shared memory."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def _no_segment_is_left_behind() -> Iterator[None]:
    before = set(os.listdir("/dev/shm"))
    yield
    ours = {
        entry for entry in set(os.listdir("/dev/shm")) - before if entry[:3] == "fh-"
    }
    mine = {entry for entry in ours if str(os.getpid()) in entry}
    assert mine == set()

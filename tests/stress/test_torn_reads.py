"""No torn record, by the ring's primitives and by the ring itself; mutants do tear."""

import itertools
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest

from feedhandler.records import QUOTE
from feedhandler.ring import Ring

HERE = Path(__file__).parent
ATOMIC = HERE.parents[1] / "feedhandler" / "atomic.pxd"
COMPILER = shutil.which("gcc")
MEMORY = "/dev/shm"

MILLION = 1_000_000


class Counts(NamedTuple):
    """Of one reader."""

    accepted: int
    torn: int
    lost: int
    wrong: int


class Run(NamedTuple):
    published: int
    slot: Counts
    bulk: Counts


@pytest.fixture(scope="session")
def torn(tmp_path_factory):
    """A function that runs torn.c, with the C of atomic.pxd, and prints its numbers."""
    if COMPILER is None:
        pytest.skip("there is no gcc to build torn.c with")
    folder = tmp_path_factory.mktemp("torn")
    blocks = re.findall(r'    """\n(.*?)\n    """', ATOMIC.read_text(), re.DOTALL)
    (folder / "atomic.h").write_text(textwrap.dedent(blocks[0]))
    programs = {words: folder / f"torn-{words}" for words in (8, 16)}
    for words, program in programs.items():
        subprocess.run(
            [COMPILER, "-O3", "-std=gnu11", "-Wall", "-Wextra", "-Werror",
             f"-DFH_WORDS={words}", f"-I{folder}", "-o", program,
             HERE / "torn.c"],
            check=True,
        )  # fmt: skip

    def run(mode: str, capacity: int, seconds: float, words: int = 16) -> Run:
        with tempfile.NamedTemporaryFile(dir=MEMORY) as ring:
            answer = subprocess.run(
                [programs[words], mode, f"{capacity}", f"{seconds}", ring.name],
                check=True, capture_output=True, text=True, timeout=seconds + 30,
            )  # fmt: skip
        published, *counts = map(int, answer.stdout.split())
        result = Run(published, Counts(*counts[:4]), Counts(*counts[4:]))
        print(f"\n{mode} words={words} capacity={capacity} {published=}", end=" ")
        print(f"slot={result.slot} bulk={result.bulk}")
        return result

    return run


@pytest.mark.req("F-79", "F-86")
@pytest.mark.parametrize(
    ("capacity", "seconds", "words"),
    [(2, 0.5, 16), (8, 0.5, 16), (64, 2, 16), (64, 1, 8), (1024, 0.5, 16)],
)
def test_no_accepted_record_is_torn(torn, capacity, seconds, words):
    run = torn("shipped", capacity, seconds, words)

    assert run.published > 10_000
    for counts in (run.slot, run.bulk):
        assert counts.accepted > 1000
        assert counts.torn == counts.wrong == 0


@pytest.mark.parametrize(("mode", "reader"), [("no-busy-mark", 0), ("off-by-one", 1)])
def test_a_mutant_does_tear(torn, mode, reader):
    # Enough by far on two free processors; a busy machine gets more time.
    assert any(torn(mode, 64, 1.5)[1 + reader].torn for _ in range(10))


@pytest.mark.stress
def test_no_record_of_a_hundred_million_is_torn(torn):
    accepted = {"slot": 0, "bulk": 0}
    for _ in range(40):
        for capacity, words in itertools.product((2, 8, 64, 1024), (8, 16)):
            run = torn("shipped", capacity, 10, words)
            for name, counts in (("slot", run.slot), ("bulk", run.bulk)):
                assert counts.torn == counts.wrong == 0
                accepted[name] += counts.accepted
        if min(accepted.values()) >= 100 * MILLION:
            break
    print(f"\naccepted {accepted}, torn 0")

    assert sum(accepted.values()) >= 100 * MILLION


WRITER = """
    import os, sys
    import numpy as np
    from feedhandler.records import QUOTE
    from feedhandler.ring import Ring
    from feedhandler.segment import Mapping

    size = Ring.size_for(QUOTE, int(sys.argv[2]))
    with open(sys.argv[1], "r+b") as file:
        mapping = Mapping(file.fileno(), size, writable=True)
    ring = Ring(mapping, QUOTE, int(sys.argv[2]))
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    words = np.zeros((8192, 8), np.uint64)
    words[:] = np.arange(8192, dtype=np.uint64)[:, None] * np.uint64(1000)
    words += np.arange(8, dtype=np.uint64)
    print("writing", flush=True)
    while True:
        ring.publish_records(words)
"""

READER = """
    import os, sys, time
    import numpy as np
    from feedhandler.records import QUOTE
    from feedhandler.ring import Reader

    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    buffer = np.memmap(sys.argv[1], np.uint8, "r")
    bulk = Reader(buffer, QUOTE)
    slots = Reader(buffer, QUOTE, on_lap="latest")
    torn, columns = 0, np.arange(1, 8, dtype=np.uint64)
    end = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < end:
        for records in (bulk.poll(), slots.take_one(), bulk.poll()):
            words = records.view(np.uint64).reshape(-1, 8)
            number = (words[:, :1] - np.uint64(1)) % np.uint64(8192)
            torn += int((words[:, 1:] != number * np.uint64(1000) + columns).sum())
            assert (np.diff(words[:, 0].astype(np.int64)) == 1).all()
        for reader in (bulk, slots):
            assert reader.received + reader.lost == reader.position - reader.start
    print(bulk.received, bulk.lost, slots.received, slots.lost, torn)
"""


def read_real_ring(path: str, capacity: int, seconds: float) -> list[int]:
    """Let two processes share a Ring; return the reader's numbers."""
    Path(path).write_bytes(bytes(Ring.size_for(QUOTE, capacity)))
    python = [sys.executable, "-c"]
    writer = subprocess.Popen(
        [*python, textwrap.dedent(WRITER), path, str(capacity)], stdout=subprocess.PIPE
    )
    try:
        assert writer.stdout.readline() == b"writing\n"
        answer = subprocess.run(
            [*python, textwrap.dedent(READER), path, str(seconds)],
            check=True, stdout=subprocess.PIPE, timeout=seconds + 30,
        )  # fmt: skip
    finally:
        writer.kill()
        writer.communicate()
    numbers = [int(number) for number in answer.stdout.split()]
    print(f"\ncapacity={capacity} bulk={numbers[:2]} slot={numbers[2:4]}", end=" ")
    print(f"torn={numbers[4]}")
    return numbers


@pytest.mark.stress
@pytest.mark.parametrize("capacity", [64, 1024, 65_536])
def test_the_real_ring_tears_nothing_in_a_minute(capacity):
    with tempfile.NamedTemporaryFile(dir=MEMORY) as ring:
        bulk, _, slot, _, torn = read_real_ring(ring.name, capacity, 20.0)

    assert torn == 0
    assert bulk > 100_000
    assert slot > 1000

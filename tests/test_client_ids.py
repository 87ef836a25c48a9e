"""Client order ids: no two are the same, whoever makes them."""

import os
import subprocess
import sys

import pytest

from feedhandler.client_ids import ClientIds, is_client_id

GIVE = """
from feedhandler.client_ids import ClientIds
ids = ClientIds()
print("\\n".join([ids.next() for _ in range(250_000)]))
"""

FORK = """
import os
from feedhandler.client_ids import ClientIds
ids = ClientIds()
ids.next()
if os.fork():
    os.wait()
print(ids.next(), flush=True)
"""


def run(code):
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.req("SEC-28")
def test_no_two_processes_give_the_same_id():
    given_out = []
    for process in [run(GIVE) for _ in range(4)]:
        with process:
            given_out += process.stdout.read().split()

    assert len(set(given_out)) == 1_000_000


@pytest.mark.req("SEC-28")
def test_a_fork_gives_other_ids_than_its_parent():
    with run(FORK) as process:
        one, other = process.stdout.read().split()

    assert one != other


@pytest.mark.req("SEC-28", "A-16")
def test_an_id_fits_into_the_venue_and_into_a_record():
    ids = ClientIds()
    given_out = [ids.next() for _ in range(3)]
    ids._count = 10**15 - 2

    for text in (*given_out, ids.next()):
        assert len(text) <= 32
        assert is_client_id(text)
    assert len(set(given_out)) == 3
    assert str(os.getpid()) not in given_out[0]


@pytest.mark.parametrize("bad", ["", "a b", "x" * 65, "schön", "a\n"])
@pytest.mark.req("A-16")
def test_what_the_venue_would_refuse_is_no_client_id(bad):
    assert not is_client_id(bad)

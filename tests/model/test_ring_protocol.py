"""The ring's protocol in every execution that C11 allows, and each step's necessity."""

import pytest

from tests.model.memory_model import Protocol, bulk_reader, check, slot_reader
from tests.model.wake_model import Wake, lost_wake_up

SHIPPED = Protocol()

# One step less than what is shipped, and the reader that is deceived then.
WEAKENED = {
    "no busy mark, slot": (slot_reader, {"busy": False}, "torn"),
    "relaxed busy mark, slot": (slot_reader, {"busy_release": False}, "is gone"),
    "relaxed busy mark, bulk": (bulk_reader, {"busy_release": False}, "torn"),
    "no writer fence, slot": (slot_reader, {"writer_fence": False}, "torn"),
    "no writer fence, bulk": (bulk_reader, {"writer_fence": False}, "torn"),
    "no reader fence, slot": (slot_reader, {"reader_fence": False}, "torn"),
    "no reader fence, bulk": (bulk_reader, {"reader_fence": False}, "torn"),
    "one record too many, bulk": (bulk_reader, {"bound": 1}, "torn"),
    "head once a batch, slot": (slot_reader, {"head_every": 2}, "is gone"),
    "head once a batch, bulk": (bulk_reader, {"head_every": 2}, "torn"),
    "relaxed seq, slot": (slot_reader, {"seq_release": False}, "torn"),
    "relaxed head, bulk": (bulk_reader, {"head_release": False}, "torn"),
    "relaxed first look, slot": (slot_reader, {"seq_acquire": False}, "torn"),
    "trust in the second look, slot": (
        slot_reader,
        {"trust_unacquired": True},
        "is gone",
    ),
}


@pytest.mark.req("F-79")
@pytest.mark.parametrize("reader", [slot_reader, bulk_reader])
def test_the_shipped_protocol_never_deceives_a_reader(reader):
    verdict = check(SHIPPED, reader, calls=2)

    assert verdict.problem == ""
    assert verdict.positions > 50


@pytest.mark.req("F-79")
@pytest.mark.parametrize("name", WEAKENED)
def test_every_step_of_the_protocol_is_needed(name):
    reader, change, problem = WEAKENED[name]
    verdict = check(SHIPPED._replace(**change), reader, calls=2)

    assert problem in verdict.problem


@pytest.mark.stress
@pytest.mark.parametrize("reader", [slot_reader, bulk_reader])
@pytest.mark.parametrize(
    ("capacity", "words", "records", "calls"),
    [(2, 3, 7, 3), (2, 1, 9, 4), (4, 1, 9, 2)],
)
def test_larger_rings_never_deceive_a_reader(reader, capacity, words, records, calls):
    protocol = Protocol(capacity=capacity, words=words, records=records)
    verdict = check(protocol, reader, calls)
    print(f"\n{reader.__name__} {protocol[:3]}: {verdict.positions} positions")

    assert verdict.problem == ""


@pytest.mark.parametrize(
    "protocol", [Wake(), Wake(gated=True, fenced=True)], ids=["shipped", "gated"]
)
def test_no_wake_up_is_lost(protocol):
    states, path = lost_wake_up(protocol)

    assert path == []
    assert states > 100


@pytest.mark.parametrize(
    "change",
    [{"word_read_first": False}, {"bump": False}, {"wake_after_bump": False},
     {"gated": True}],
    ids="-".join,
)  # fmt: skip
def test_a_weaker_wake_up_is_lost(change):
    _, path = lost_wake_up(Wake(**change))

    assert path[-1].reader == "asleep"
    assert path[-1].head > path[-1].cursor

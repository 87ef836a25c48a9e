"""From the reference to the protocol's words, from each requirement to its tests."""

import json
import re
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from feedhandler.backoff import Backoff
from feedhandler.protocol import channels, limits, messages
from feedhandler.protocol.codes import CLOSE_ACTIONS, CloseAction, ErrorCode
from tests.marks import marked_tests, read

TESTS = Path(__file__).parent
REFERENCE = TESTS / "reference"

# ── the reference's words ─────────────────────────────────────────────────────────────

VOCABULARY = json.loads((REFERENCE / "vocabulary.json").read_text())
STRUCTS = {
    kind.__struct_config__.tag: kind
    for union in (messages.ClientMessage, messages.ServerMessage)
    for kind in get_args(union)
}
SHOWN = VOCABULARY["client"] | VOCABULARY["server"]
# The reference has an action for a batch, and no answer to it.
EXTENSIONS = {"batch_response"}

PRESCRIBED = {
    "reconnect if needed": {CloseAction.BACKOFF},
    "reconnect": {CloseAction.RECONNECT},
    "reconnect with backoff": {CloseAction.BACKOFF, CloseAction.COOL_DOWN},
    "check request format and authentication": {CloseAction.STOP},
    "check credentials": {CloseAction.STOP},
    "check subscription parameters": {CloseAction.RESUBSCRIBE_ONCE},
    "close other connections": {CloseAction.WAIT},
}


def fields_of(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the keys of a Struct's JSON and their types."""
    config = struct.__struct_config__
    tag = {config.tag_field: str} if config.tag_field else {}
    return tag | {
        field.encode_name: field.type for field in msgspec.structs.fields(struct)
    }


def struct_at(message: str, place: str) -> type[msgspec.Struct]:
    """Find the Struct at a *place* such as ``data`` or ``data.operations[submit]``."""
    struct = STRUCTS[message]
    for key, items, tag in re.findall(r"(\w+)(\[(\w*)\])?", place):
        if key == "message":
            continue
        kind = fields_of(struct)[key]
        if items:
            (kind,) = get_args(kind)
        choices = [
            choice
            for choice in get_args(kind) or (kind,)
            if isinstance(choice, msgspec.StructMeta)
            and tag in ("", choice.__struct_config__.tag)
        ]
        assert len(choices) == 1, f"{message} {place}"
        struct = choices[0]
    return struct


def shown_objects() -> list[Any]:
    return [
        pytest.param(message, place, keys, id=f"{message}-{place}")
        for message, places in SHOWN.items()
        for place, keys in places.items()
    ]


def test_the_protocol_has_the_messages_of_the_reference_and_one_more():
    ours = {kind.__struct_config__.tag for kind in get_args(messages.ClientMessage)}

    assert ours == VOCABULARY["client"].keys()
    assert STRUCTS.keys() - SHOWN.keys() == EXTENSIONS
    assert SHOWN.keys() <= STRUCTS.keys()


@pytest.mark.parametrize(("message", "place", "keys"), shown_objects())
def test_a_message_has_every_key_that_the_reference_shows(message, place, keys):
    assert set(keys) <= fields_of(struct_at(message, place)).keys()


@pytest.mark.req("MF-02", "MF-05")
def test_every_message_has_the_keys_of_its_envelope_and_no_others():
    client, server = (
        set(VOCABULARY["envelopes"][side]) for side in ("client", "server")
    )
    for kind in get_args(messages.ClientMessage):
        assert fields_of(kind).keys() == client
    for kind in get_args(messages.ServerMessage):
        status = {"status", "message"} if kind is messages.AuthResponse else set()
        assert {"type", "data"} <= fields_of(kind).keys() <= server | status
    assert fields_of(messages.Envelope).keys() == client


@pytest.mark.parametrize("place", VOCABULARY["values"])
def test_a_value_that_the_reference_shows_is_one(place):
    message, inside, key = place.split("/")
    kind = fields_of(struct_at(message, inside))[key]

    for value in VOCABULARY["values"][place]:
        assert msgspec.convert(value, kind) == value
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(["no text"], kind)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (messages.Side, "sides"),
        (messages.OrderType, "order_types"),
        (messages.TimeInForce, "times_in_force"),
    ],
)
def test_an_order_has_the_choices_of_the_reference(ours, theirs):
    assert list(get_args(ours)) == VOCABULARY[theirs]


@pytest.mark.req("CD-08")
def test_the_intervals_are_those_of_the_reference():
    ours = {name: ms // 1000 for name, ms in channels.INTERVAL_MS.items()}

    assert ours == VOCABULARY["intervals"]


def test_the_endpoints_are_those_of_the_reference():
    private = {
        endpoint: not set(kinds) <= set(channels.PUBLIC_KINDS)
        for endpoint, kinds in channels.CHANNELS_BY_ENDPOINT.items()
    }

    assert list(channels.ENDPOINTS) == list(VOCABULARY["endpoints"])
    assert private == VOCABULARY["endpoints"]


@pytest.mark.req("SB-10")
def test_the_channels_are_those_of_the_reference():
    served = set(chain.from_iterable(channels.CHANNELS_BY_ENDPOINT.values()))

    assert served == VOCABULARY["channels"].keys()
    for kind, shown in VOCABULARY["channels"].items():
        channel = channels.parse_channel(shown["example"])
        parts = [
            part for part in ("symbol", "depth", "interval") if channel._asdict()[part]
        ]
        assert channel.kind == kind
        assert parts == shown["parts"]
        assert channels.format_channel(channel) == shown["example"]
        for message in shown["messages"]:
            assert "channel" in fields_of(STRUCTS[message])


@pytest.mark.req("ER-01")
def test_the_error_codes_are_those_of_the_reference():
    assert list(ErrorCode) == VOCABULARY["error_codes"]


@pytest.mark.parametrize("code", VOCABULARY["close_codes"])
@pytest.mark.req("I-19")
def test_a_close_code_has_the_action_that_the_reference_prescribes(code):
    prescribed = VOCABULARY["close_codes"][code]

    assert CLOSE_ACTIONS[int(code)] in PRESCRIBED[prescribed]


def test_the_limits_are_those_of_the_reference():
    shown = VOCABULARY["limits"]
    backoff = Backoff()

    assert shown["per_minute"] == limits.PER_MINUTE
    assert shown["connections_per_key"] == limits.CONNECTIONS_PER_KEY
    assert shown["subscriptions_per_connection"] == limits.SUBSCRIPTIONS_PER_CONNECTION
    assert shown["heartbeat_s"] == limits.HEARTBEAT_S
    assert shown["heartbeat_timeout_s"] == limits.HEARTBEAT_TIMEOUT_S
    assert shown["answer_timeout_s"] == limits.ANSWER_TIMEOUT_S
    assert backoff.attempts == shown["reconnect_attempts"]
    assert backoff.base_ns == shown["reconnect_delay_ms"] * 1_000_000


# ── the requirements ──────────────────────────────────────────────────────────────────

SECTIONS = tomllib.loads((REFERENCE / "requirements.toml").read_text())
REQUIREMENTS = {
    id_: row for section in SECTIONS.values() for id_, row in section.items()
}
# Faults, security, invariants and the answers to what the reference leaves open.
FAMILIES = {"F": 102, "SEC": 33, "I": 26, "A": 50}
MARKED = marked_tests(TESTS)

# What has to be met and no test shows yet. It may only shrink.
# These are the trading client's.
PENDING: set[str] = set()


def shown_ids() -> set[str]:
    """Return the ids of tests that are expected to pass."""
    return set(chain.from_iterable(test.ids for test in MARKED if test.shown))


def owed_ids() -> set[str]:
    return {id_ for id_, (who, _) in REQUIREMENTS.items() if who in ("C", "V", "B")}


def exists(id_: str) -> bool:
    family, _, number = id_.partition("-")
    if family not in FAMILIES:
        return id_ in REQUIREMENTS
    return (
        re.fullmatch(r"\d{2,3}", number) is not None
        and id_ == f"{family}-{int(number):02}"
        and 1 <= int(number) <= FAMILIES[family]
    )


def test_the_requirements_are_whole():
    whose = {who for who, _ in REQUIREMENTS.values()}

    assert len(REQUIREMENTS) == sum(map(len, SECTIONS.values())) == 236
    assert whose == {"C", "V", "B", "-"}
    assert all(0 < len(title) <= 60 for _, title in REQUIREMENTS.values())


def test_what_has_to_be_met_is_shown_by_a_test_or_pending():
    assert sorted(owed_ids() - shown_ids() - PENDING) == []


def test_what_is_pending_has_no_test_yet():
    assert sorted(PENDING & shown_ids()) == []
    assert sorted(PENDING - owed_ids()) == []


def test_a_test_has_three_ids_at_most():
    crowded = [
        f"{test.where} {sorted(case)}"
        for test in MARKED
        for case in test.cases
        if len(case) > 3
    ]

    assert crowded == []


def test_a_test_has_no_id_that_does_not_exist():
    unknown = {
        f"{test.where} {id_}" for test in MARKED for id_ in test.ids if not exists(id_)
    }

    assert sorted(unknown) == []


@pytest.mark.parametrize("id_", ["F-103", "F-0", "F-1", "A-051", "I-", "P-01", "XX-01"])
def test_an_id_outside_its_family_does_not_exist(id_):
    assert not exists(id_)


# ── the reader of marks ───────────────────────────────────────────────────────────────

SAMPLE = """
TABLE = {"a": "C-01", "b": "C-02"}
CASES = [pytest.param(1, marks=pytest.mark.req("B-01")), 2]
NOT_YET = pytest.mark.xfail(strict=True)

def made():
    return [pytest.param(name, marks=pytest.mark.req(TABLE[name])) for name in "ab"]

@pytest.mark.req("A-01", "A-02")
@pytest.mark.parametrize("x", CASES)
def test_one(x): ...

class TestMany:
    @pytest.mark.parametrize("x", made())
    @NOT_YET
    async def test_two(self, x): ...

@given(st.integers())
def test_three(number): ...

def helper(): ...
"""


def test_marks_are_read_from_tests_and_from_their_params():
    one, two, three = read(SAMPLE, "sample.py")

    assert one.where == "sample.py::test_one"
    assert one.cases == [{"A-01", "A-02"}, {"A-01", "A-02", "B-01"}]
    assert one.shown
    assert two.cases == [set(), {"C-01"}, {"C-02"}]
    assert not two.shown
    assert three.ids == set()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ('@pytest.mark.req("A-01")\ndef helper(): ...', "on no test"),
        ("@pytest.mark.req(ID)\ndef test_it(): ...", "no literal"),
    ],
)
def test_a_mark_that_shows_nothing_is_an_error(source, reason):
    with pytest.raises(ValueError, match=rf"sample\.py:1: .*{reason}"):
        read(source, "sample.py")

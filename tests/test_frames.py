"""Frames cut out of a stream: the same bytes, whatever the pieces they came in."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedhandler.testing.faults import Match
from feedhandler.testing.frames import Frame, FrameReader, Message, encode

MASK = b"\x12\x34\x56\x78"

FRAMES = st.lists(
    st.builds(
        lambda opcode, payload, fin, mask: encode(fin << 7 | opcode, payload, mask),
        st.sampled_from([0x0, 0x1, 0x2, 0x8, 0x9, 0xA, 0x3, 0x41]),
        st.binary(max_size=200)
        | st.sampled_from([125, 126, 127, 65_535, 65_536]).map(bytes),
        st.booleans(),
        st.sampled_from([b"", MASK, b"\0\0\0\0"]),
    ),
    max_size=8,
)


def sliced(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(places)]


@given(FRAMES, st.lists(st.integers(0, 1 << 20), max_size=20))
@settings(max_examples=80, deadline=None)
def test_frames_come_out_whole_whatever_the_pieces_they_came_in(frames, cuts):
    reader = FrameReader(1 << 20)
    found = [
        each for piece in sliced(b"".join(frames), cuts) for each in reader.feed(piece)
    ]

    assert [each.raw for each in found] == frames
    assert reader.rest() == b""


@given(FRAMES, st.lists(st.integers(0, 1 << 20), max_size=20), st.integers(2, 300))
@settings(max_examples=80, deadline=None)
def test_frames_that_are_too_large_pass_in_pieces(frames, cuts, most):
    reader = FrameReader(most)
    data = b"".join(frames)
    found = [each for piece in sliced(data, cuts) for each in reader.feed(piece)]

    assert b"".join(each.raw for each in found) == data
    whole = [each.raw for each in found if isinstance(each, Frame)]
    assert whole == [each for each in frames if len(each) <= most]
    assert not reader.in_unseen


@given(st.binary(max_size=70_000), st.sampled_from([b"", MASK]), st.binary(max_size=9))
@settings(max_examples=50, deadline=None)
def test_a_payload_is_unmasked_and_another_masked_alike(payload, mask, other):
    (found,) = FrameReader(1 << 20).feed(encode(0x81, payload, mask))
    message = Message([found], 1)

    assert message.payload == payload
    (changed,) = FrameReader(1 << 20).feed(message.with_payload(other))
    assert (changed.payload, changed.mask, changed.fin) == (other, mask, True)


@pytest.mark.parametrize(
    "payload",
    [b"[1]", b"{", b"\xff", b"[" * 100_000, b'{"data":{"sequence":true}}', b""],
    ids=["list", "open", "bytes", "deep", "true", "empty"],
)
def test_what_is_no_message_has_no_sequence_and_matches_nothing(payload):
    message = Message(FrameReader(1 << 20).feed(encode(0x81, payload)), 1)

    assert message.sequence is None
    assert not Match({"type": "orderbook_update"}).wants(message)
    assert not Match({"sequence": range(10)}).wants(message)
    assert Match({"number": 1}).wants(message)


def test_a_word_that_no_message_has_is_an_error():
    with pytest.raises(TypeError, match="no serial to match"):
        Match({"serial": 1})

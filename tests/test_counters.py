"""Counters and histograms: names, buckets, percentiles."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedhandler.counters import Counters, CountersReader, Histogram
from feedhandler.errors import RingInvalid
from feedhandler.records import QUOTE
from feedhandler.ring import Ring
from feedhandler.segment import read_meta

NAMES = ["frames", "gaps", "resyncs"]


def new_counters(
    counters=NAMES, histograms=("decode", "publish")
) -> tuple[bytearray, Counters]:
    buffer = bytearray(Counters.size_for(len(counters), len(histograms)))
    return buffer, Counters(buffer, counters, histograms)


def observed(*values: int) -> Histogram:
    buffer, counters = new_counters()
    for value in values:
        counters.observe("decode", value)
    return CountersReader(buffer).histogram("decode")


def test_any_reader_can_list_and_read_the_names():
    buffer, counters = new_counters()
    counters.increment("gaps")
    counters.increment("gaps", 41)
    counters.assign("resyncs", 7)
    reader = CountersReader(bytes(buffer))

    assert reader.values() == {"frames": 0, "gaps": 42, "resyncs": 7}
    assert list(reader.values()) == NAMES
    assert reader.histogram_names == ["decode", "publish"]


def test_values_are_where_the_meta_page_says():
    buffer, counters = new_counters()
    counters.increment("gaps", 5)
    counters.observe("publish", 70)
    offset = read_meta(buffer).slots_offset
    page = offset + 64 + 9280

    assert offset == 0x3000
    assert buffer[0x2040:0x2080] == b"gaps".ljust(64, b"\0")
    assert struct.unpack_from("<3Q", buffer, offset) == (0, 5, 0)
    assert struct.unpack_from("<Q", buffer, page) == (70,)
    assert struct.unpack_from("<Q", buffer, page + 64 + 8 * (32 + 35)) == (1,)


def test_a_counter_wraps_at_64_bits():
    buffer, counters = new_counters()
    counters.assign("gaps", 2**64 - 1)
    counters.increment("gaps", 2)

    assert CountersReader(buffer).values()["gaps"] == 1


def test_unknown_names_are_key_errors():
    buffer, counters = new_counters()

    for call in (counters.increment, CountersReader(buffer).histogram):
        with pytest.raises(KeyError, match="nothing"):
            call("nothing")


@pytest.mark.parametrize("name", ["", "A", "a b", "a" * 64, "9a", "é", "a\n"])
def test_names_follow_one_grammar(name):
    with pytest.raises(ValueError, match="name is"):
        new_counters([name])


def test_names_are_unique():
    with pytest.raises(ValueError, match="not unique"):
        new_counters(["decode"])


def test_there_may_be_none():
    buffer, _ = new_counters([], [])

    assert CountersReader(buffer).values() == {}


def test_a_released_writer_counts_nothing():
    buffer, counters = new_counters()
    counters.release()
    before = bytes(buffer)
    counters.increment("gaps")
    counters.observe("decode", 5)

    assert buffer == before


def test_an_empty_histogram_has_no_percentiles():
    empty = observed()

    assert (empty.count, empty.max, empty.percentile(99)) == (0, 0, 0)


def test_small_values_are_exact():
    for value in range(64):
        assert observed(value).percentile(50) == value


def test_a_value_beyond_the_range_is_counted_and_its_size_is_kept():
    histogram = observed(1, 2**40, 2**62)

    assert histogram.count == 3
    assert histogram.max == histogram.percentile(100) == 2**62


def test_a_negative_value_counts_as_zero():
    histogram = observed(-5)

    assert (histogram.count, histogram.max, histogram.percentile(100)) == (1, 0, 0)


def test_a_percentile_outside_0_to_100_is_refused():
    for wrong in (-1, 101, math.nan):
        with pytest.raises(ValueError, match="percentile is"):
            observed(1).percentile(wrong)


@given(
    st.lists(st.integers(0, 2**40 - 1), min_size=1, max_size=50),
    st.sampled_from([0, 1, 50, 90, 99, 99.9, 100]),
)
def test_a_percentile_is_at_most_a_32nd_above_the_truth(values, percent):
    """The model: sort the values and take the one of that rank."""
    rank = max(1, math.ceil(percent * len(values) / 100))
    truth = sorted(values)[rank - 1]
    histogram = observed(*values)

    assert truth <= histogram.percentile(percent) <= truth + truth / 32
    assert histogram.max == max(values)
    assert histogram.count == len(values)


@given(st.lists(st.integers(0, 2**41)), st.lists(st.integers(0, 2**41)))
def test_merging_is_observing_both_and_subtracting_undoes_it(first, second):
    both = observed(*first, *second)

    assert observed(*first).merge(observed(*second)) == both
    rest = both.subtract(observed(*first))
    assert rest.count == len(second)
    assert rest.max <= both.max
    for percent in (0, 50, 100):
        exact = observed(*second).percentile(percent)
        assert exact <= rest.percentile(percent) <= max(exact * 33 / 32, both.max)


@pytest.mark.req("F-84")
def test_a_segment_that_has_no_counters_is_refused():
    buffer = bytearray(Ring.size_for(QUOTE, 64))
    Ring(buffer, QUOTE, 64)

    with pytest.raises(RingInvalid, match="not that of counters"):
        CountersReader(buffer)

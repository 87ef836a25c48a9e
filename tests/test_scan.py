"""Whatever the bytes are: with the scanner, all is as it is with msgspec alone."""

import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from decimal import Decimal
from random import Random
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedhandler.codec import MsgspecCodec, ScanCodec
from feedhandler.counters import CountersReader
from tests.compiled import MISSING, ROOT, compiled
from tests.feeds import Feed
from tests.hot_messages import decimal, message, mutated, truncated
from tests.recordings import FOLDER, SMALL, Recording, recordings

HOT = (b'{"type":"orderbook"', b'{"type":"orderbook_update"', b'{"type":"trade"')
CASES = 1_000_000
SHARES = [(1, 0.0), (2, 0.001), (3, 0.05)]
SHORT = 1500
# Larger than any frame of a recording.
LARGEST = 2 << 20

UPDATE = (
    b'{"type":"orderbook_update","data":{"symbol":"AAPL","bids":[[149.5,7]],"asks":[],'
    b'"sequence":1},"channel":"orderbook:AAPL:10","timestamp":1625097600000}'
)
SNAPSHOT = UPDATE.replace(b"_update", b"")
TRADE = (
    b'{"type":"trade","data":{"symbol":"AAPL","price":150.25,"size":100,"side":"buy",'
    b'"trade_id":"t-1","trade_time":1625097600000},"channel":"trades:AAPL",'
    b'"timestamp":1625097600000}'
)


def texts_of(recording: Recording) -> list[bytes]:
    return [line for line in recording.lines() if len(line) < SHORT]


SMALL_RECORDING = Recording(SMALL / "engine.jsonl.gz")
FRAMES = [*texts_of(SMALL_RECORDING)[::5], UPDATE, SNAPSHOT, TRADE]


# ── what is hot, from the session that it reaches ─────────────────────────────────────


def scanned(payload: bytes) -> int:
    """Return how many messages were scanned when a session has taken *payload*."""
    codec = ScanCodec()
    Feed("orderbook:AAPL:10", "trades:AAPL", codec=codec).receive(payload)
    return codec.scanned


@pytest.mark.parametrize("payload", [UPDATE, SNAPSHOT, TRADE])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"AAPL", b""), (b"AAPL", b"AAP"), (b"AAPL", b"a symbol of twenty-six so"),
        (b"AAPL", b"\x7f~ !#$"), (b"1625097600000", b"0"), (b"buy", b"sell"),
        (b"1625097600000", b"%d" % (2**43 - 1)), (b'"sequence":1', b'"sequence":0'),
        (b'"sequence":1', b'"sequence":%d' % (2**53 - 1)), (b"149.5", b"0.000001"),
        (b"[149.5,7]", b""), (b"[149.5,7]", b"[1,2],[3,4],[5,6]"), (b",7]", b",0]"),
        (b",7]", b",0.0]"), (b"149.5", b"%d" % 2**53), (b"149.5", b"0.900719925474099"),
    ],
)  # fmt: skip
def test_what_venues_send_is_scanned(payload, old, new):
    assert scanned(payload.replace(old, new)) == 1


@pytest.mark.parametrize("payload", [UPDATE, SNAPSHOT, TRADE])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b',"timestamp":1625097600000', b""), (b"{", b"{ "), (b"}", b" }"),
        (b":", b": "), (b"1625097600000}", b"%d}" % 2**43), (b"AAPL", b"\\u0041APL"),
        (b"1625097600000}", b"01}"), (b"1625097600000}", b"1.0}"),
        (b"1625097600000}", b"1e3}"), (b"1625097600000}", b"-0}"),
        (b"AAPL", b"\xc3\xa9"), (b"AAPL", b"AA\\/PL"),
        (b"AAPL", b"AA\nPL"), (b"AAPL", b"AA\x1fPL"), (b"AAPL", b'AA\\"PL'),
        (b"00}", b"00}}"), (b"1625097600000}", b"1625097600000}\n"),
        (b'{"type"', b'\xef\xbb\xbf{"type"'), (b"AAPL", b"AA\x00PL"),
        (b"AAPL", b"AA\x80PL"), (b"channel", b"canhnel"), (b"symbol", b"Symbol"),
    ],
)  # fmt: skip
def test_what_differs_by_a_byte_is_left_to_msgspec(payload, old, new):
    assert payload.replace(old, new) != payload
    assert scanned(payload.replace(old, new)) == 0


@pytest.mark.parametrize(
    ("number", "hot"),
    [
        ("0", False), ("0.0", False), ("9007199254740993", False), ("1", True),
        ("9007199254740992", True), ("900719925474099.3", False), ("00.5", False),
        ("12345678901234567", False), ("1234567890.1234567", False), ("01", False),
        ("0.123456789012345", True), ("0.1234567890123456", False), ("1.", False),
        (".5", False), ("1e2", False), ("1.5E2", False), ("-1", False), ("+1", False),
        ("0.000000000000001", True), ("1000000000000000", True), ("1.50", True),
    ],
)  # fmt: skip
def test_a_price_is_scanned_if_its_digits_fit_a_double(number, hot):
    text = number.encode()
    trade = TRADE.replace(b"150.25", text)
    update = UPDATE.replace(b"149.5", text)
    feed = Feed("trades:AAPL", codec=ScanCodec())
    feed.receive(trade)

    assert scanned(trade) == scanned(update) == hot
    if hot:
        (taken,) = feed.sink.trades
        assert taken.price.hex() == float(number).hex()


# ── both codecs behind sessions ───────────────────────────────────────────────────────


def exactly(value: Any) -> Any:
    """Return *value* with its floats as hex digits."""
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, (tuple, list)):
        return [exactly(item) for item in value]
    return value


def seen(feed: Feed, actions: list[int]) -> dict[str, Any]:
    """Return all that can be seen of a feed."""
    sink = feed.sink
    return {
        "actions": actions,
        "events": [repr(event) for event in feed.events()],
        "wire": feed.sent(),
        "counters": CountersReader(feed.page).values(),
        "records": exactly([sink.quotes, sink.trades, sink.tickers, sink.candles]),
        "books": {
            name: exactly([route.book.sequence, int(route.book.flags)])
            + exactly([route.book.bids(), route.book.asks()])
            for name, route in feed.session.routes.items()
            if route.book is not None
        },
    }


def lives(channels: Iterable[str], payloads: list[bytes]) -> Iterator[dict[str, Any]]:
    """Give what is seen of two feeds with a codec each that had the same payloads."""
    for codec in (ScanCodec(), MsgspecCodec()):
        feed = Feed(*channels, codec=codec, answers=True, subscribes=10**6)
        actions = []
        for payload in payloads:
            actions.append(feed.receive(payload))
            feed.pass_s(0.001)
            actions.append(feed.collect())
        yield seen(feed, actions) | {"codec": codec}


def faulty(random: Random, lines: list[bytes], share: float) -> list[bytes]:
    """Return *lines* of which a share is spoilt, left out, or repeated."""
    spoilt = []
    for line in lines:
        fate = random.random()
        if fate < share / 2:
            spoilt.append(mutated(random, [line]))
        elif fate < share:
            spoilt += [line] * random.choice((0, 2))
        else:
            spoilt.append(line)
    return spoilt


def compare_lives(recording: Recording, random: Random, share: float) -> int:
    """Let two feeds live through a recording with faults; return what was scanned."""
    channels = [name for names in recording.channels().values() for name in names]
    ours, expected = lives(channels, faulty(random, recording.lines(), share))
    count = ours.pop("codec").scanned
    del expected["codec"]

    assert ours == expected
    return count


@pytest.mark.req("F-30", "OB-12")
@pytest.mark.parametrize("share", [0.0, 0.02])
def test_two_sessions_see_the_same_in_a_recording_with_faults(share):
    assert compare_lives(SMALL_RECORDING, Random(7), share) > 2500


# ── both codecs, call by call ─────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def witness(tmp_path_factory) -> ModuleType:
    if MISSING:
        pytest.skip(f"not installed: {', '.join(MISSING)}")
    return compiled(ROOT / "tests" / "witness.pyx", tmp_path_factory.mktemp("witness"))


@pytest.fixture(scope="session")
def twins(witness) -> Any:
    return witness.Twins(LARGEST)


@given(random=st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
@pytest.mark.req("F-30")
def test_messages_of_the_grammar_mean_the_same_to_both(twins, random):
    payload = message(random)

    assert twins.agree(payload), (payload, twins.told())


@given(random=st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
@pytest.mark.req("F-30")
def test_spoilt_frames_mean_the_same_to_both(twins, random):
    payload = mutated(random, FRAMES)

    assert twins.agree(payload), (payload, twins.told())


@given(payload=st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_bytes_of_any_kind_mean_the_same_to_both(twins, payload):
    assert twins.agree(payload)
    assert twins.agree(UPDATE[:45] + payload + UPDATE[-40:])


@pytest.mark.parametrize("frame", [UPDATE, SNAPSHOT, TRADE])
@pytest.mark.req("F-30")
def test_every_byte_in_every_place_means_the_same_to_both(twins, frame):
    for place in range(len(frame)):
        for byte in range(256):
            payload = frame[:place] + bytes([byte]) + frame[place + 1 :]
            assert twins.agree(payload), (payload, twins.told())


def everything_recorded() -> list[Recording]:
    here = [] if SMALL == FOLDER else [SMALL_RECORDING]
    return here + recordings()


@pytest.mark.parametrize("recording", everything_recorded(), ids=repr)
@pytest.mark.req("F-30", "OB-12", "TR-02")
def test_every_hot_message_of_a_recording_is_scanned(twins, recording):
    before = twins.scan.scanned
    lines = recording.lines()

    assert [line for line in lines if not twins.agree(line)] == []
    assert twins.scan.scanned - before == sum(line.startswith(HOT) for line in lines)


# ── numbers ───────────────────────────────────────────────────────────────────────────


def is_exact(digits: bytes) -> bool:
    return len(digits) <= 16 and int(digits) <= 2**53


def check_numbers(twins: Any, random: Random, count: int) -> int:
    """Scan *count* decimal texts; compare with Python; return how many were hot."""
    hot = 0
    for _ in range(count // 50):
        texts = [decimal(random, random.randint(1, 16)) for _ in range(50)]
        digits = [text.replace(b".", b"") for text in texts]
        taken = [t for t, d in zip(texts, digits, strict=True) if is_exact(d)]
        # Sizes, since zero is no price.
        levels = b",".join(b"[1,%b]" % text for text in taken)
        sizes = twins.numbers(UPDATE.replace(b"[149.5,7]", levels))[1::2]
        hot += len(taken)
        assert [size.hex() for size in sizes] == [float(text).hex() for text in taken]
    return hot


@pytest.mark.req("F-50")
def test_a_scanned_number_is_the_double_that_python_reads(twins):
    assert check_numbers(twins, Random(3), 20_000) > 15_000


@given(
    value=st.integers(0, 2**53) | st.integers(2**53 - 50, 2**53),
    decimals=st.integers(0, 15),
)
def test_a_scanned_number_is_its_decimal_rounded_once(twins, value, decimals):
    text = format(Decimal(value).scaleb(-decimals), "f").encode()
    (_, size) = twins.numbers(UPDATE.replace(b",7]", b",%b]" % text)) or (0, None)

    # A zero before the point is a digit too.
    if size is None:
        assert len(text.replace(b".", b"")) > 16
    else:
        assert size.hex() == (value / 10**decimals).hex() == float(text).hex()


# ── memory ────────────────────────────────────────────────────────────────────────────

EDGES = """
import sys
from pathlib import Path
from tests.compiled import loaded
from tests.hot_messages import truncated

twins = loaded(Path(sys.argv[1])).Twins()
if len(sys.argv) > 2:
    twins.touch(int(sys.argv[2]))
for line in sys.stdin.buffer:
    frame = line.rstrip()
    for payload in (*truncated(frame), frame):
        assert twins.agree(payload), (payload, twins.told())
print(twins.scan.scanned)
"""


def at_the_edges(witness: ModuleType, *beyond: str) -> subprocess.CompletedProcess:
    """Scan truncated frames in a process of its own: a byte beyond them ends it."""
    return subprocess.run(
        [sys.executable, "-c", EDGES, witness.__file__, *beyond],
        cwd=ROOT,
        input=b"\n".join([UPDATE, SNAPSHOT, TRADE, *FRAMES[:8]]),
        capture_output=True,
        check=False,
    )


@pytest.mark.req("F-30")
def test_no_byte_before_or_behind_a_payload_is_read(witness):
    done = at_the_edges(witness)

    assert (done.returncode, done.stderr) == (0, b"")
    assert int(done.stdout) > 11


@pytest.mark.parametrize("beyond", ["-1", "0"])
def test_a_byte_beside_the_memory_of_a_payload_cannot_be_read(witness, beyond):
    assert at_the_edges(witness, beyond).returncode in (-signal.SIGSEGV, -signal.SIGBUS)


def test_many_levels_after_few_and_few_after_many_are_read(twins):
    for count in (0, 1, 16, 17, 33, 34, 35, 5000, 3, 0):
        levels = b",".join(b"[%d.5,%d]" % (price + 1, price) for price in range(count))
        for side in (b'"bids":[[149.5,7]]', b'"asks":[]'):
            payload = UPDATE.replace(side, side[:8] + levels + b"]")
            before = twins.scan.scanned

            assert twins.agree(payload)
            assert twins.scan.scanned == before + 1


# ── a million ─────────────────────────────────────────────────────────────────────────


@pytest.mark.stress
@pytest.mark.req("F-30")
def test_a_million_payloads_mean_the_same_to_both(twins):
    random = Random(20_211)
    frames = [
        text for recording in everything_recorded() for text in texts_of(recording)
    ]
    frames = random.sample(frames, min(len(frames), 5000))
    cut = random.sample(frames, 200)
    sources: dict[str, Iterator[bytes]] = {
        "truncated": (payload for frame in cut for payload in truncated(frame)),
        "of the grammar": (message(random) for _ in range(CASES // 2)),
        "mutated": iter(lambda: mutated(random, frames), None),
    }
    cases = 0
    differ: list[bytes] = []
    print()
    for name, source in sources.items():
        before, first = twins.scan.scanned, cases
        for payload in source:
            cases += 1
            if not twins.agree(payload):
                differ.append(payload)
            if cases == CASES:
                break
        hot = twins.scan.scanned - before
        print(
            f"{name}: {cases - first} cases, {hot} scanned, {len(differ)} differ so far"
        )
    print(f"{cases} cases, {len(differ)} differ")

    assert differ[:3] == []
    assert cases == CASES


@pytest.mark.stress
@pytest.mark.req("F-50")
def test_two_million_scanned_numbers_are_those_that_python_reads(twins):
    hot = check_numbers(twins, Random(11), 2_000_000)
    print(f"\n{hot} numbers, none differs")

    assert hot > 1_500_000


@pytest.mark.stress
@pytest.mark.req("F-30", "OB-12")
@pytest.mark.parametrize("recording", everything_recorded(), ids=repr)
def test_two_sessions_see_the_same_in_every_recording_with_faults(recording):
    hot = sum(compare_lives(recording, Random(n), share) for n, share in SHARES)
    print(f"\n{recording}: {hot} scanned by a session, none differs")

    assert hot

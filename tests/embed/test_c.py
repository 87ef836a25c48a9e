"""The C header: compiled as C and C++, equal to the package, safe to attach with."""

import contextlib
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import feedhandler
from feedhandler import board, counters, records, ring, segment, shm
from feedhandler.board import Board
from feedhandler.counters import Counters
from feedhandler.errors import FeedError
from feedhandler.order import Cause, Operation, Order
from feedhandler.orders import Orders
from feedhandler.private import Moment, PrivatePublisher
from feedhandler.protocol.messages import OrderData
from feedhandler.records import CANDLE, QUOTE, TICKER
from feedhandler.ring import Reader, Ring
from feedhandler.shm import Status

HERE = Path(__file__).parent
README = HERE.parents[1] / "README.md"
CAPACITY = 1024

RECORDS = {
    name: getattr(records, name)
    for name in (
        "QUOTE",
        "TRADE",
        "ORDER_EVENT",
        "FILL",
        "ACCOUNT",
        "NOTICE",
        "COMMAND",
    )
}
# What the header puts before the names of an enum that has no prefix of its own.
ENUMS = {
    records.Flags: "FH_QUOTE_",
    records.TradeFlags: "FH_TRADE_",
    records.PrivateFlags: "FH_",
    records.OrderSide: "FH_",
    records.OrderType: "FH_",
    records.TimeInForce: "FH_",
    records.OrderStatus: "FH_",
    records.OrderOperation: "FH_",
    records.PendingFlags: "FH_",
    records.EventCause: "FH_",
    records.EventReason: "FH_",
    records.AccountKind: "FH_",
    records.NoticeKind: "FH_",
    records.CommandKind: "FH_",
    segment.StreamKind: "FH_",
    segment.WriterState: "FH_WRITER_",
}


@pytest.fixture
def consumer(build) -> Path:
    return build(HERE / "consumer.c")


@pytest.fixture
def feed(tmp_path) -> Iterator[tuple[Path, Ring]]:
    """A ring of quotes with a writer, in a directory of its own."""
    size = Ring.size_for(QUOTE, CAPACITY)
    with shm.create("md", "quotes", size, directory=tmp_path) as owned:
        written = Ring(owned.buffer, QUOTE, CAPACITY, owned.origin)
        owned.publish()
        yield tmp_path, written
        written.release()


def quotes(count: int, first: int = 0) -> np.ndarray:
    """Make records whose every field tells the record's number."""
    made = np.zeros(count, QUOTE)
    for name in QUOTE.names[1:]:
        made[name] = np.arange(first, first + count) % 60_000
    return made


def run(program: Path, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def parsed(lines: list[str]) -> list[tuple]:
    kinds = [int] * 6 + [float] * 4
    return [
        tuple(kind(word) for kind, word in zip(kinds, line.split(), strict=True))
        for line in lines
    ]


def start_consumer(consumer: Path, directory: Path) -> subprocess.Popen:
    """Start a consumer that has read one quote."""
    child = subprocess.Popen(
        [consumer, "md", "1000000", directory, "oldest"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline().startswith("1 ")
    return child


def test_the_header_is_in_the_package():
    assert Path(feedhandler.get_include(), "feedhandler.h").is_file()


def test_the_offsets_are_those_of_the_package(build, tmp_path):
    layouts = {
        "fh_meta_page": segment.struct_layout()["MetaPage"],
        "fh_live_page": segment.struct_layout()["LivePage"],
        **{
            f"fh_{name.lower()}": layout
            for name, layout in records.struct_layout().items()
        },
    }
    expected, prints = [], []
    for struct_name, layout in layouts.items():
        for field, offset in layout.items():
            place = f"offsetof(struct {struct_name}, {field})"
            # A trade has a field "size" too: there, "itemsize" is that of the struct.
            if field == "itemsize" or (field == "size" and "itemsize" not in layout):
                place = f"sizeof(struct {struct_name})"
            prints.append(f'printf("{struct_name}.{field} %zu\\n", {place});')
            expected.append(f"{struct_name}.{field} {offset}")
    source = tmp_path / "layout.c"
    body = "\n".join(prints)
    source.write_text(f'#include "feedhandler.h"\nint main(void)\n{{\n{body}\n}}\n')

    assert run(build(source)).stdout.splitlines() == expected
    assert len(expected) > 60


def test_the_header_can_be_used_beside_the_c_of_the_interfaces(build, tmp_path):
    verbatim = [
        textwrap.dedent(block)
        for name in ("atomic", "clock", "segment")
        for block in re.findall(
            r'cdef extern from \*:\n    """\n(.*?)"""',
            Path(feedhandler.__file__).with_name(f"{name}.pxd").read_text(),
            re.DOTALL,
        )
    ]
    source = tmp_path / "beside.c"
    text = ['#include "feedhandler.h"', *verbatim, "int main(void)\n{\nreturn 0;\n}\n"]
    source.write_text("\n".join(text))

    assert len(verbatim) == 3
    assert run(build(source)).returncode == 0


def test_the_schemas_are_those_of_the_package(build, tmp_path):
    source = tmp_path / "schemas.c"
    source.write_text(
        '#include "feedhandler.h"\n'
        "int main(void)\n{\n"
        + "".join(
            f'printf("%s\\n%llx\\n", FH_{name}_SCHEMA, FH_{name}_SCHEMA_HASH);\n'
            for name in RECORDS
        )
        + 'printf(FH_BOARD_SCHEMA "\\n", 10, 1024, 864);\n'
        'printf(FH_COUNTERS_SCHEMA "\\n", 24, 1, 192);\n'
        "}\n"
    )
    texts = [ring.schema_of(dtype) for dtype in RECORDS.values()]

    assert run(build(source)).stdout.splitlines() == [
        *(line for text in texts for line in (text, f"{segment.schema_hash(text):x}")),
        board.schema_of(1024, 10),
        counters.schema_of(24, 1),
    ]


@pytest.mark.parametrize("mode", ["next", "poll"])
def test_a_c_consumer_reads_what_python_wrote(consumer, feed, mode):
    directory, written = feed
    made = quotes(700)
    made["bid_price"] += 0.1
    written.publish_records(made)
    made["seq"] = np.arange(1, 701)
    done = run(consumer, "md", 700, directory, "oldest", "half", mode)
    *lines, summary = done.stdout.splitlines()

    assert done.returncode == 0, done.stderr
    assert parsed(lines) == made.tolist()
    assert summary.startswith("received 700 lost 0 position 700 ")


@pytest.mark.parametrize("mode", ["next", "poll"])
@pytest.mark.parametrize(("on_lap", "kept"), [("half", CAPACITY // 2), ("latest", 1)])
def test_a_lapped_c_consumer_counts_its_loss_exactly(
    consumer, feed, on_lap, kept, mode
):
    directory, written = feed
    total = 3 * CAPACITY + 5
    written.publish_records(quotes(total))
    done = run(consumer, "md", kept, directory, 7, on_lap, mode)
    *lines, summary = done.stdout.splitlines()

    assert [line[0] for line in parsed(lines)] == list(
        range(total - kept + 1, total + 1)
    )
    assert summary.startswith(
        f"received {kept} lost {total - kept - 7} position {total} "
    )


@pytest.mark.parametrize("mode", ["next", "poll"])
def test_a_c_consumer_one_record_short_of_a_lap_loses_nothing(consumer, feed, mode):
    directory, written = feed
    written.publish_records(quotes(CAPACITY - 1))
    done = run(consumer, "md", CAPACITY - 1, directory, 0, "half", mode)

    assert f"received {CAPACITY - 1} lost 0 " in done.stdout


@pytest.mark.req("F-79")
def test_the_oldest_record_of_a_full_ring_is_for_slot_readers_only(consumer, feed):
    directory, written = feed
    written.publish_records(quotes(CAPACITY))
    slots = run(consumer, "md", CAPACITY, directory, 0, "half", "next")
    bulk = run(consumer, "md", CAPACITY // 2, directory, 0, "half", "poll")

    assert f"received {CAPACITY} lost 0 " in slots.stdout
    assert f"received {CAPACITY // 2} lost {CAPACITY // 2} " in bulk.stdout


@pytest.mark.parametrize(
    ("words", "mode", "count"),
    [
        ({0x2000 + 2 * 64: 1 << 63 | 3}, "next", 2),
        ({0x2000 + 3 * 64: 1 << 63 | 4}, "next", 3),
        ({0x1000: 2}, "poll", 2),
        ({0x1000: 2}, "next", 3),
        ({0x1000: 0}, "poll", 0),
        ({0x1000: 1 << 63}, "poll", 0),
        ({0x2000: 99}, "next", 0),
    ],
)
def test_c_sees_what_is_complete_whatever_its_writer_died_in(
    consumer, tmp_path, words, mode, count
):
    raw = as_bytes(3)
    for place, word in words.items():
        struct.pack_into("<Q", raw, place, word)
    write(tmp_path / "fh-md.quotes", raw)
    done = run(consumer, "md", 5, tmp_path, 0, "half", mode)
    *lines, summary = done.stdout.splitlines()

    assert [line[0] for line in parsed(lines)] == list(range(1, count + 1))
    assert summary == f"received {count} lost 0 position {count} DEAD"


WRITER = """
    import sys, time
    import numpy as np
    from feedhandler import shm
    from feedhandler.records import QUOTE
    from feedhandler.ring import Ring

    capacity = int(sys.argv[3])
    size = Ring.size_for(QUOTE, capacity)
    owned = shm.create("md", "quotes", size, directory=sys.argv[1])
    ring = Ring(owned.buffer, QUOTE, capacity, owned.origin)
    owned.publish()
    made = np.zeros(60_000, QUOTE)
    for name in QUOTE.names[1:]:
        made[name] = np.arange(60_000)
    ring.publish_records(made)
    print("ready", flush=True)
    while sys.argv[2] == "on":
        ring.heartbeat(time.monotonic_ns())
        ring.publish_records(made)
    time.sleep(60)
"""


def start_writer(
    directory: Path, goes_on: str, capacity: int = CAPACITY
) -> subprocess.Popen:
    script = textwrap.dedent(WRITER)
    child = subprocess.Popen(
        [sys.executable, "-c", script, directory, goes_on, str(capacity)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "ready\n"
    return child


@pytest.mark.req("F-76", "F-79", "F-86")
@pytest.mark.parametrize("mode", ["next", "poll"])
@pytest.mark.parametrize("capacity", [64, 1024])
def test_no_record_is_torn_for_c_under_a_writer_at_full_speed(
    build, tmp_path, capacity, mode
):
    stress = build(HERE / "stress.c")
    writer = start_writer(tmp_path, "on", capacity)
    total: Counter[str] = Counter()
    try:
        # On a busy machine the two may hardly meet: again, until they have.
        for _ in range(10):
            words = run(stress, tmp_path, "md", mode, 500).stdout.split()
            total.update(dict(zip(words[::2], map(int, words[1::2]), strict=True)))
            if total["lost"] > 0 and total["raw"] > 0:
                break
    finally:
        writer.kill()
        writer.communicate()

    assert (total["torn"], total["disorder"]) == (0, 0)
    assert total["got"] + total["lost"] == total["moved"]
    assert total["got"] > 1000
    assert total["lost"] > 0
    # The same memory without the checks does tear: the test has power.
    assert total["raw"] > 0


def test_c_sees_that_a_writer_died(consumer, tmp_path):
    writer = start_writer(tmp_path, "off")
    writer.kill()
    writer.communicate()
    done = run(consumer, "md", 100_000, tmp_path, "oldest")

    assert done.stdout.splitlines()[-1] == "received 1023 lost 0 position 60000 DEAD"


def test_c_sees_that_a_writer_said_goodbye(consumer, tmp_path):
    size = Ring.size_for(QUOTE, CAPACITY)
    with shm.create("md", "quotes", size, directory=tmp_path) as owned:
        written = Ring(owned.buffer, QUOTE, CAPACITY, owned.origin)
        written.publish_records(quotes(1))
        owned.publish()
        child = start_consumer(consumer, tmp_path)
        written.publish_records(quotes(1, first=1))
        written.release()
    out, _ = child.communicate(timeout=10)

    assert out.splitlines()[-1] == "received 2 lost 0 position 2 CLOSED"


def test_c_sees_that_the_name_belongs_to_another_segment(consumer, feed):
    directory, written = feed
    written.publish_records(quotes(1))
    child = start_consumer(consumer, directory)
    shutil.copy(directory / "fh-md.quotes", directory / "other")
    (directory / "other").rename(directory / "fh-md.quotes")
    out, _ = child.communicate(timeout=10)

    assert out.splitlines()[-1] == "received 1 lost 0 position 1 SUPERSEDED"


def spoil(offset: int, form: str, *values):
    return lambda raw: struct.pack_into(form, raw, offset, *values)


BAD = {
    "an empty file": (lambda raw: raw.clear(), "too short"),
    "half a page": (lambda raw: raw.__delitem__(slice(2048, None)), "too short"),
    "truncated": (lambda raw: raw.__delitem__(slice(-4096, None)), "size that its"),
    "too long": (lambda raw: raw.extend(bytes(4096)), "size that its"),
    "wrong magic": (spoil(0x000, "<Q", 0x0200474E49524846), "magic"),
    "wrong abi": (spoil(0x008, "<H", 2), "layout version"),
    "wrong byte order": (spoil(0x00C, ">I", 0x01020304), "byte order"),
    "a new flag": (spoil(0x010, "<I", 0x10000), "must understand"),
    "kind 9": (spoil(0x014, "<I", 9), "stream kind"),
    "another kind": (spoil(0x014, "<I", 2), "stream kind"),
    "no epoch": (spoil(0x018, "<Q", 0), "epoch"),
    "capacity 3": (spoil(0x020, "<Q", 3), "capacity"),
    "capacity 32": (spoil(0x020, "<Q", 32), "capacity"),
    "capacity 2^63": (spoil(0x020, "<Q", 1 << 63), "capacity"),
    "a larger capacity": (spoil(0x020, "<Q", 2 * CAPACITY), "size that its"),
    "slots of 65": (spoil(0x028, "<I", 65), "multiple of 64"),
    "slots of 0": (spoil(0x028, "<I", 0), "multiple of 64"),
    "wider slots": (spoil(0x020, "<QI", CAPACITY // 2, 128), "multiple of 64"),
    "records of 72": (spoil(0x02C, "<I", 72), "do not fit"),
    "records of 56": (spoil(0x02C, "<I", 56), "do not fit"),
    "slots past the end": (spoil(0x030, "<Q", 1 << 40), "page inside"),
    "slots a page later": (spoil(0x030, "<Q", 0x3000), "size that its"),
    "slots off a page": (spoil(0x030, "<Q", 0x2040), "page inside"),
    "slots at -4096": (spoil(0x030, "<Q", 2**64 - 4096), "page inside"),
    "slots in the live page": (spoil(0x030, "<Q", 0x1000), "page inside"),
    "file_size of 2^64-1": (spoil(0x038, "<Q", 2**64 - 1), "size that its"),
    "another hash": (spoil(0x040, "<Q", 1), "schema"),
    "a long schema": (spoil(0x048, "<I", 4000), "schema"),
    "another schema": (spoil(0x203, "<c", b"S"), "schema"),
}


def as_bytes(count: int = 5) -> bytearray:
    raw = bytearray(Ring.size_for(QUOTE, CAPACITY))
    written = Ring(raw, QUOTE, CAPACITY)
    written.publish_records(quotes(count))
    written.release()
    return raw


def write(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    path.chmod(0o600)
    return path


@pytest.mark.req("F-84", "SEC-19")
@pytest.mark.parametrize("what", BAD)
def test_c_refuses_a_bad_header(consumer, tmp_path, what):
    change, reason = BAD[what]
    raw = as_bytes()
    write(tmp_path / "fh-md.quotes", raw)
    good = run(consumer, "md", 5, tmp_path, "oldest")
    change(raw)
    write(tmp_path / "fh-md.quotes", raw)
    done = run(consumer, "md", 5, tmp_path, "oldest")

    assert (good.returncode, len(good.stdout.splitlines())) == (0, 6)
    assert (done.returncode, done.stdout) == (1, "")
    assert reason in done.stderr


@pytest.mark.req("F-84", "SEC-19")
def test_no_header_of_any_bytes_crashes_a_c_consumer(consumer, tmp_path):
    rng = random.Random(11)
    original = as_bytes()
    accepted = 0
    for _ in range(150):
        raw = bytearray(original)
        for _ in range(rng.randint(1, 3)):
            place = rng.choice([rng.randrange(0x80), rng.randrange(0x1200)])
            raw[place] = rng.choice([0, 1, 0x80, 0xFF, rng.randrange(256)])
        path = write(tmp_path / "fh-md.quotes", raw)
        try:
            with shm.attach("md", "quotes", directory=tmp_path) as attached:
                Reader(attached.buffer, QUOTE).release()
            trusted = True
        except FeedError:
            trusted = False
        done = run(consumer, "md", 3, tmp_path, "oldest")
        path.unlink()
        accepted += trusted

        assert done.returncode == (0 if trusted else 1), done.stderr
    assert 10 < accepted < 140


@pytest.mark.req("SEC-19")
def test_c_refuses_files_that_others_could_change(consumer, tmp_path):
    path = tmp_path / "fh-md.quotes"
    real = write(tmp_path / "real", as_bytes())

    path.symlink_to(real)
    assert "not a regular file" in run(consumer, "md", 1, tmp_path).stderr
    path.unlink()
    os.mkfifo(path)
    assert "not a regular file" in run(consumer, "md", 1, tmp_path).stderr
    path.unlink()
    path.mkdir()
    assert "not a regular file" in run(consumer, "md", 1, tmp_path).stderr
    path.rmdir()
    os.link(real, path)
    assert "more than one link" in run(consumer, "md", 1, tmp_path).stderr
    real.unlink()
    path.chmod(0o620)
    assert "others than its owner" in run(consumer, "md", 1, tmp_path).stderr
    path.unlink()
    assert "no such segment" in run(consumer, "md", 1, tmp_path).stderr
    for name in ("", "../md", "a.b", "-md", "m" * 49):
        assert "name is not one" in run(consumer, name, 1, tmp_path).stderr


def test_c_reads_the_board_and_the_counters(build, tmp_path):
    inspect = build(HERE / "inspect.c")
    made = quotes(1, first=7)
    made["instrument"] = 1
    ticker, candle = np.zeros(1, TICKER), np.zeros(1, CANDLE)
    ticker["instrument"], ticker["last_price"] = 1, 10.5
    candle["close"] = 11.5
    names = ["messages", "gaps"], ["frame_to_ring", "other"]
    with (
        shm.create("md", "board", Board.size_for(100, 3), directory=tmp_path) as first,
        shm.create(
            "md", "counters", Counters.size_for(2, 2), directory=tmp_path
        ) as two,
    ):
        table = Board(first.buffer, 100, 3, first.origin)
        for symbol in ("AAPL", "BTC-USD"):
            table.add(symbol)
        bids = [(99.5, 1.0), (99.0, 2.0), (98.0, 3.0), (97.0, 4.0)]
        table.write_quote(made, 1 << 40, 5, bids=bids, asks=[(100.5, 9.0)])
        table.write_ticker(ticker)
        table.write_candle(1, "15m", candle)
        first.publish()
        counted = Counters(two.buffer, *names, two.origin)
        counted.increment("gaps", 42)
        counted.observe("other", 1000)
        counted.observe("other", 77)
        two.publish()
        done = run(inspect, tmp_path, "md", "BTC-USD", "gaps", "other")
        unknown = run(inspect, tmp_path, "md", "MSFT", "gaps", "other")
        uncounted = run(inspect, tmp_path, "md", "AAPL", "other", "other")
        # Neither is the other, though both are of the generic kind.
        shutil.copy(first.path, tmp_path / "fh-x.counters")
        shutil.copy(two.path, tmp_path / "fh-y.board")
        shutil.copy(first.path, tmp_path / "fh-x.board")
        crossed = run(inspect, tmp_path, "x", "AAPL", "gaps", "other")
        swapped = run(inspect, tmp_path, "y", "AAPL", "gaps", "other")
        origin = first.origin
        table.release()
        counted.release()
    offset = origin.created_realtime_ns - origin.created_monotonic_ns

    assert done.stdout.splitlines() == [
        f"LIVE locked 1 gaps 0 offset {offset}",
        f"BTC-USD 1 of 2 status 1 sequence {1 << 40} epoch 5",
        "quote 7 7 7 7",
        "ticker 10.5 candle 11.5",
        "bid 99.5 1",
        "bid 99 2",
        "bid 98 3",
        "ask 100.5 9",
        "gaps 42",
        "other count 2 max 1000",
    ]
    assert "MSFT: unknown instrument" in unknown.stdout
    assert "other: unknown counter" in uncounted.stdout
    assert "counters: schema is not the one wanted" in crossed.stdout
    assert "board: schema is not the one wanted" in swapped.stdout


def test_every_word_of_an_enum_is_that_of_the_package(build, tmp_path):
    words = {
        f"{prefix}{member.name}": int(member)
        for enum, prefix in ENUMS.items()
        for member in enum
    }
    source = tmp_path / "words.c"
    prints = "".join(f'printf("%d\\n", (int){word});\n' for word in words)
    source.write_text(f'#include "feedhandler.h"\nint main(void)\n{{\n{prints}}}\n')

    printed = [int(line) for line in run(build(source)).stdout.split()]
    assert dict(zip(words, printed, strict=True)) == words
    assert len(words) > 40


# The functions that name a word, and what the package puts before it.
NAMING = {
    "fh_side_text": (records.OrderSide, "side_"),
    "fh_order_type_text": (records.OrderType, "type_"),
    "fh_time_in_force_text": (records.TimeInForce, "tif_"),
    "fh_order_status_text": (records.OrderStatus, "status_"),
    "fh_order_operation_text": (records.OrderOperation, "operation_"),
    "fh_event_cause_text": (records.EventCause, "cause_"),
    "fh_event_reason_text": (records.EventReason, "reason_"),
    "fh_account_kind_text": (records.AccountKind, ""),
    "fh_notice_kind_text": (records.NoticeKind, ""),
    "fh_private_flag_text": (records.PrivateFlags, ""),
    "fh_pending_flag_text": (records.PendingFlags, ""),
}


def test_every_private_word_has_its_name(build, tmp_path):
    expected, prints = [], []
    for function, (enum, prefix) in NAMING.items():
        numbers = [int(member) for member in enum]
        for number in (*numbers, 200):
            prints.append(f'printf("{function} {number} %s\\n", {function}({number}));')
        names = [member.name.lower().removeprefix(prefix) for member in enum]
        pairs = zip((*numbers, 200), (*names, "unknown"), strict=True)
        expected += [f"{function} {number} {name}" for number, name in pairs]
    source = tmp_path / "names.c"
    body = "\n".join(prints)
    source.write_text(f'#include "feedhandler.h"\nint main(void)\n{{\n{body}\n}}\n')

    assert run(build(source)).stdout.splitlines() == expected
    assert len(expected) > 60


@pytest.mark.parametrize("status", records.OrderStatus)
def test_c_knows_when_an_order_is_over(build, tmp_path, status):
    source = tmp_path / "over.c"
    source.write_text(
        '#include "feedhandler.h"\n#include <stdlib.h>\n'
        "int main(int argc, char **argv)\n{\n"
        "return argc > 1 ? fh_order_is_over(atoi(argv[1])) : 2;\n}\n"
    )
    over = run(build(source), int(status)).returncode

    assert over == (status >= records.OrderStatus.FILLED)


def test_c_ends_a_text_that_fills_its_field(build, tmp_path):
    source = tmp_path / "ends.c"
    source.write_text(
        """
        #include "feedhandler.h"
        int main(void)
        {
            static struct fh_fill fill;
            char text[sizeof fill.fee_currency + 1];
            memcpy(fill.fee_currency, "EIGHTLNG", sizeof fill.fee_currency);
            puts(fh_copy_text(text, fill.fee_currency, sizeof fill.fee_currency));
            memcpy(fill.symbol, "AAPL", 4);
            char symbol[sizeof fill.symbol + 1];
            puts(fh_copy_text(symbol, fill.symbol, sizeof fill.symbol));
            return 0;
        }
        """
    )

    assert run(build(source)).stdout == "EIGHTLNG\nAAPL\n"


PRIVATE = {
    "orders": ("ORDER_EVENTS", "order_event", "order_id", "remaining"),
    "fills": ("FILLS", "fill", "trade_id", "fee"),
    "account": ("ACCOUNTS", "account", "name", "available"),
    "notices": ("NOTICES", "notice", "id", "threshold"),
}


@pytest.mark.parametrize("stream", PRIVATE)
def test_c_reads_a_private_stream_and_takes_no_other_for_it(build, tmp_path, stream):
    """Each stream bound as each kind: the schema tells them apart."""
    binds = "".join(
        f"""
        printf("%d ", fh_ring_bind(&ring, &segment, FH_{kind}, FH_START_OLDEST, 0));
        """
        for kind, *_ in PRIVATE.values()
    )
    kind, struct_name, text, number = PRIVATE[stream]
    source = tmp_path / f"{stream}.c"
    source.write_text(
        f"""
        #include "feedhandler.h"
        int main(int argc, char **argv)
        {{
            static struct fh_segment segment;
            static struct fh_{struct_name} record;
            struct fh_ring ring;
            if (argc < 2 || fh_attach(&segment, argv[1], "md", "{stream}", FH_ONLY_ME))
                return 1;
            {binds}
            if (fh_ring_bind(&ring, &segment, FH_{kind}, FH_START_OLDEST, FH_LAP_HALF))
                return 1;
            while (fh_ring_next(&ring, &record) == FH_RECORD)
                printf("%.*s %g ", (int)sizeof record.{text}, record.{text},
                       record.{number});
            return 0;
        }}
        """
    )
    dtype = {"orders": "ORDER_EVENT", "fills": "FILL", "account": "ACCOUNT"}
    made = np.zeros(2, RECORDS[dtype.get(stream, "NOTICE")])
    made[text] = [b"one", b"another"]
    made[number] = [1.5, 2.5]
    size = Ring.size_for(made.dtype, 64)
    with shm.create("md", stream, size, directory=tmp_path) as owned:
        written = Ring(owned.buffer, made.dtype, 64, owned.origin)
        written.publish_records(made)
        owned.publish()
        done = run(build(source), tmp_path)
        written.release()
    *bound, _, _, _, _ = done.stdout.split()

    assert done.returncode == 0
    assert [code == "0" for code in bound] == [name == stream for name in PRIVATE]
    assert done.stdout.endswith("one 1.5 another 2.5 ")


def test_c_tells_in_words_what_was_told_of_an_order(build, tmp_path):
    source = tmp_path / "words_of_orders.c"
    source.write_text(
        """
        #include "feedhandler.h"
        int main(int argc, char **argv)
        {
            static struct fh_segment segment;
            static struct fh_order_event order;
            char id[sizeof order.order_id + 1];
            struct fh_ring ring;
            if (argc < 2 || fh_attach(&segment, argv[1], "md", "orders", FH_ONLY_ME))
                return 1;
            if (fh_ring_bind(&ring, &segment, FH_ORDER_EVENTS, FH_START_OLDEST, 0))
                return 1;
            while (fh_ring_next(&ring, &order) == FH_RECORD)
                printf("%s %s %s %s %s %s %g %d %d\\n",
                       fh_copy_text(id, order.order_id, sizeof order.order_id),
                       fh_order_status_text(order.status),
                       fh_event_cause_text(order.cause),
                       fh_order_operation_text(order.operation),
                       fh_event_reason_text(order.reason),
                       fh_pending_flag_text(order.pending & FH_MODIFY_PENDING),
                       order.price, order.flags >> 8, fh_order_is_over(order.status));
            return 0;
        }
        """
    )
    orders = Orders()
    order = orders.submitted(
        OrderData("AAPL", "buy", "limit", 1.0, 150.5, client_order_id="c"), 1
    )
    with contextlib.ExitStack() as stack:
        rings = {}
        for stream, dtype in records.PRIVATE_STREAMS.items():
            size = Ring.size_for(dtype, 64)
            owned = shm.create("md", stream, size, directory=tmp_path)
            stack.enter_context(owned)
            rings[stream] = Ring(owned.buffer, dtype, 64, owned.origin)
            stack.callback(rings[stream].release)
            owned.publish()
        publisher = PrivatePublisher(
            *rings.values(),
            instrument_of=lambda symbol: records.NO_INSTRUMENT,
            moment=lambda: Moment(1, 3),
        )
        publisher.on_order(order, Cause.SENT, None, None, 0, False)
        orders.asked(order, Operation.MODIFY, "r-1", 2)
        code = "insufficient_funds"
        publisher.on_order(order, Cause.REFUSED, Operation.CANCEL, code, 0, False)
        unsent = Order(OrderData("AAPL", "buy", "limit", 1.0, 150.5), "d")
        publisher.on_order(unsent, Cause.GUARDED, Operation.SUBMIT, None, 0, False)
        done = run(build(source), tmp_path)

    assert done.stdout.splitlines() == [
        " pending sent none none unknown 150.5 3 0",
        " pending refused cancel insufficient_funds modify_pending 150.5 3 0",
        " rejected guarded submit none unknown 150.5 3 1",
    ]


def test_python_reads_a_ring_that_c_writes(build, tmp_path):
    program = build(HERE / "writer.c")
    with subprocess.Popen(
        [program, tmp_path, "c", "64", "1000"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout.readline() == "ready\n"
        with shm.attach("c", "quotes", directory=tmp_path) as attached:
            oldest = Reader(attached.buffer, QUOTE, start="oldest")
            lapped = Reader(attached.buffer, QUOTE, start=0)
            expected = quotes(63, first=937)
            expected["seq"] = np.arange(938, 1001)
            assert oldest.poll().tolist() == expected.tolist()
            assert lapped.poll()["seq"].tolist() == list(range(969, 1001))
            assert lapped.lost == 1000 - 32
            assert attached.status() in (Status.LIVE, Status.STALLED)
            writer.stdin.close()
            assert writer.wait(10) == 0
            assert attached.status() is Status.CLOSED
            oldest.release()
            lapped.release()

    assert list(tmp_path.iterdir()) == []


def test_the_c_of_the_readme_compiles(build, tmp_path):
    (code,) = re.findall(r"```c\n(.*?)```", README.read_text(), re.DOTALL)
    source = tmp_path / "readme.c"
    source.write_text(code)

    assert run(build(source)).returncode in (0, 1)
    assert len([line for line in code.splitlines() if line.strip()]) <= 20

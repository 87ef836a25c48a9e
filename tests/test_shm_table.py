"""What ``feedhandler shm`` tells of live, dead and damaged segments, and removes."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager

import pytest

from feedhandler import shm
from feedhandler.cli import main
from feedhandler.counters import Counters
from feedhandler.records import QUOTE
from feedhandler.ring import Ring
from feedhandler.shm_table import READERS, watch

MEMORY, USAGE = 4, 2


@contextmanager
def writing(directory, name="md"):
    """Write a ring and counters of the feed *name* from this process."""
    origin = shm.origin(name)
    size = Ring.size_for(QUOTE, 64)
    with (
        shm.create(name, "quotes", size, directory=directory, origin=origin) as quotes,
        shm.create(
            name,
            "counters",
            Counters.size_for(1, 1),
            directory=directory,
            origin=origin,
        ) as page,
    ):
        ring = Ring(quotes.buffer, QUOTE, 64, quotes.origin)
        counters = Counters(page.buffer, ["messages"], ["decode_ns"], page.origin)
        quotes.publish()
        page.publish()
        yield ring, counters
        ring.release()
        counters.release()


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(["shm", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def lines_of(out: str) -> dict[str, dict]:
    return {line["stream"]: line for line in map(json.loads, out.splitlines())}


def test_a_list_tells_state_lock_records_and_age(tmp_path, capsys):
    with writing(tmp_path) as (ring, _):
        ring.publish_records(bytes(64 * 7))
        ring.heartbeat(time.monotonic_ns())
        code, out, _ = run(
            capsys, "ls", "--json", "--seconds", "0.01", "--directory", str(tmp_path)
        )
    found = lines_of(out)

    assert code == 0
    assert list(found) == ["counters", "quotes"]
    assert (found["quotes"]["state"], found["quotes"]["locked"]) == ("LIVE", True)
    assert (found["quotes"]["records"], found["quotes"]["rate"]) == (7, 0.0)
    assert 0 <= found["quotes"]["heartbeat_age_s"] < 5
    assert found["quotes"]["pid"] == os.getpid()
    assert found["counters"]["records"] is None


def test_a_rate_is_what_was_published_between_two_looks(tmp_path):
    with writing(tmp_path) as (ring, _):

        def publish(seconds: float) -> None:
            ring.publish_records(bytes(64 * 500))
            time.sleep(seconds)

        quotes = watch(0.05, str(tmp_path), publish)[1]

    assert quotes.rate is not None
    # Never more than 500 in 50 ms; a busy machine only makes it less.
    assert 0 < quotes.rate <= 500 / 0.05


def test_a_new_writer_between_two_looks_has_no_rate(tmp_path):
    with writing(tmp_path) as (ring, _):
        ring.publish_records(bytes(64 * 60))
        successor = []

        def restart(_: float) -> None:
            (tmp_path / "fh-md.quotes").unlink()
            size = Ring.size_for(QUOTE, 64)
            with open(tmp_path / "other", "w+b") as file:
                file.write(bytes(size))
            buffer = bytearray(size)
            Ring(buffer, QUOTE, 64, shm.origin("md")).release()
            (tmp_path / "other").write_bytes(buffer)
            (tmp_path / "other").chmod(0o600)
            (tmp_path / "other").rename(tmp_path / "fh-md.quotes")
            successor.append(True)

        quotes = watch(0.0, str(tmp_path), restart)[1]

    assert successor == [True]
    assert quotes.rate is None


def test_readers_are_said_not_to_be_countable(tmp_path, capsys):
    with writing(tmp_path):
        for arguments in (["ls"], ["stat", "md"]):
            _, out, _ = run(
                capsys, *arguments, "--seconds", "0.01", "--directory", str(tmp_path)
            )

            assert READERS in " ".join(out.split())


def test_stat_has_every_counter_and_percentile(tmp_path, capsys):
    with writing(tmp_path) as (_, counters):
        counters.increment("messages", 41)
        counters.observe("decode_ns", 700)
        place = ["--seconds", "0.01", "--directory", str(tmp_path)]
        code, out, _ = run(capsys, "stat", "md", "--json", *place)
        _, text, _ = run(capsys, "stat", "md", *place)
    told = json.loads(out)

    assert code == 0
    assert told["counters"] == {"messages": 41}
    assert told["histograms"]["decode_ns"]["count"] == 1
    assert 700 <= told["histograms"]["decode_ns"]["p50"] <= 722
    assert [segment["stream"] for segment in told["segments"]] == ["counters", "quotes"]
    assert "messages" in text
    assert "decode_ns" in text


def test_a_feed_that_is_not_there_is_one_clear_line(tmp_path, capsys):
    place = ["--directory", str(tmp_path)]
    for arguments in (
        ["stat", "md", "--seconds", "0.01", *place],
        ["rm", "md", *place],
    ):
        code, out, err = run(capsys, *arguments)

        assert (code, out) == (MEMORY, "")
        assert err.startswith("feedhandler: no segment of a feed 'md'")
        assert err.count("\n") == 1


def test_a_live_writer_keeps_its_segments(tmp_path, capsys):
    with writing(tmp_path):
        code, out, err = run(capsys, "rm", "md", "--directory", str(tmp_path))

        assert (code, out) == (MEMORY, "")
        assert "has another writer" in err
        assert (tmp_path / "fh-md.quotes").exists()


DYING = """
    import sys, time
    from feedhandler import shm
    from feedhandler.records import QUOTE
    from feedhandler.ring import Ring

    size = Ring.size_for(QUOTE, 64)
    owned = []
    for stream in ("quotes", "other"):
        owned.append(shm.create("md", stream, size, directory=sys.argv[1]))
        Ring(owned[-1].buffer, QUOTE, 64, owned[-1].origin)
        owned[-1].publish()
    print("up", flush=True)
    time.sleep(60)
"""


@pytest.mark.req("F-76")
def test_what_a_killed_writer_left_is_listed_as_dead_and_removed(tmp_path, capsys):
    place = ["--directory", str(tmp_path)]
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(DYING), str(tmp_path)],
        stdout=subprocess.PIPE,
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"up\n"
        writer.send_signal(signal.SIGKILL)
    _, out, _ = run(capsys, "ls", "--json", "--seconds", "0.01", *place)
    states = {stream: line["state"] for stream, line in lines_of(out).items()}
    one, first, _ = run(capsys, "rm", "md", "--stream", "other", *place)
    left = sorted(os.listdir(tmp_path))
    all_, rest, _ = run(capsys, "rm", "md", *place)

    assert states == {"other": "DEAD", "quotes": "DEAD"}
    assert (one, first) == (0, "removed fh-md.other\n")
    assert "fh-md.quotes" in left
    assert (all_, rest) == (0, "removed fh-md.quotes\n")
    assert os.listdir(tmp_path) == []


def test_a_damaged_segment_is_listed_with_its_problem(tmp_path, capsys):
    (tmp_path / "fh-md.quotes").write_bytes(bytes(8192))
    (tmp_path / "fh-md.quotes").chmod(0o600)
    place = ["--seconds", "0.01", "--directory", str(tmp_path)]
    _, out, _ = run(capsys, "ls", "--json", *place)
    code, text, _ = run(capsys, "ls", *place)

    assert "magic" in lines_of(out)["quotes"]["problem"]
    assert code == 0
    assert "unreadable" in text


def test_an_empty_folder_has_no_segments(tmp_path, capsys):
    code, out, _ = run(capsys, "ls", "--seconds", "0.01", "--directory", str(tmp_path))

    assert code == 0
    assert "no segments" in out


def test_shm_alone_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as left:
        main(["shm"])

    assert left.value.code == USAGE
    assert "COMMAND" in capsys.readouterr().err

"""The commands, as a user runs them: two terminals, a killed process, a wrong key."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from feedhandler.consumer import attach
from feedhandler.credentials import SECRET_VARIABLE
from tests.certificates import authority, issued
from tests.end_to_end.processes import (
    Program,
    attached,
    left_behind,
    program,
    unique,
    until,
    venue,
)
from tests.rawpeer import Peer, Server


def feedhandler(*arguments: str, seconds: float = 30.0) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "feedhandler", *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def run_feed(url: str, name: str, *more: str) -> tuple[str, ...]:
    return ("run", "--url", url, "--symbol", "AAPL", "--shm", name, *more)


def one_line(text: str) -> bool:
    return text.count("\n") == 1 and "Traceback" not in text


# ── the demo ──────────────────────────────────────────────────────────────────────────


def test_the_demo_runs_three_processes_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
):
    # Of whoever looks at it: the venue of the demo knows no account of his.
    monkeypatch.setenv(SECRET_VARIABLE, "somebody's secret")
    with program("demo", "--seconds", "3") as demo:
        assert demo.process.stdout is not None
        summary = demo.process.stdout.read()

        assert demo.process.wait(10) == 0
        assert demo.errors() == ""
        assert left_behind(f"demo-{demo.process.pid}") == []
    assert int(re.search(r"messages +(\d+)", summary)[1]) > 100
    published, read = re.search(
        r"quotes +(\d+) published, (\d+) read", summary
    ).groups()
    assert published == read
    assert re.search(r"lost +0\b", summary)
    assert re.search(r"gaps +0\b", summary)
    assert re.search(r"frame to ring +p50 [\d.]+ us +p99 [\d.]+ us", summary)
    assert re.search(r"frame to consumer +p50 [\d.]+ us +p99 [\d.]+ us", summary)


# ── a venue that dies ─────────────────────────────────────────────────────────────────


@pytest.mark.req("I-03", "RC-07", "CC-03")
def test_a_killed_venue_is_stale_within_a_second_and_live_again_when_it_is_back():
    name = unique("killed")
    with venue() as (first, url), program(*run_feed(url, name)) as feed:
        port = url.rsplit(":", 1)[1]
        with attached(name) as market:
            until(lambda: market.is_live("AAPL"), "a live book")
            quotes = market.quotes()
            with program("tail", name, "--json") as tail:
                assert json.loads(tail.line())["flags"] == ["LIVE"]

                first.process.send_signal(signal.SIGKILL)
                killed_at = time.monotonic()
                until(lambda: not market.is_live("AAPL"), "the book to be stale", 1.0)

                line: dict = {}
                while "STALE" not in line.get("flags", ()):
                    line = json.loads(tail.line())
                assert time.monotonic() - killed_at < 1.0
                assert line["symbol"] == "AAPL"
                assert line["bid_price"] > 0  # the last good price stays readable

            with venue(port=int(port)):
                until(lambda: market.is_live("AAPL"), "the book to be live again")
                epoch = market.top("AAPL").session_epoch
            assert epoch > 1
            flags = [int(q["flags"]) & 0xFF for q in quotes.poll(1 << 20)]
            changes = [f for f, g in zip(flags, [None, *flags], strict=False) if f != g]
            assert changes.count(0x02) >= 1  # STALE and nothing else
            assert feed.process.poll() is None


@pytest.mark.req("EX-04", "F-91")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_feed_cleanly_within_two_seconds(number: int):
    name = unique("signal")
    with venue() as (_, url), program(*run_feed(url, name)) as feed:
        with attached(name) as market:
            until(lambda: market.is_live("AAPL"), "a live book")
            quotes = market.quotes()
            began = time.monotonic()

            code = feed.end(number)

            assert time.monotonic() - began < 2.0
            assert code == (130 if number == signal.SIGINT else 0)
            last = quotes.poll(1 << 20)[-1]
            assert int(last["flags"]) & 0xFF == 0x02  # STALE
            assert market.status().state == "CLOSED"
        assert left_behind(name) == []


@pytest.mark.req("EX-04", "F-91")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_feed_at_once(number: int):
    """The venue answers no close frame: the first one would take a second."""
    name = unique("twice")
    with (
        venue() as (server, url),
        program(*run_feed(url, name)) as feed,
        attached(name) as market,
    ):
        until(lambda: market.is_live("AAPL"), "a live book")
        server.process.send_signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            feed.process.send_signal(number)
            until(lambda: not market.is_live("AAPL"), "the feed to begin to end")
            assert feed.process.poll() is None
            code = feed.end(number)
            assert time.monotonic() - began < 1.0
            assert code == 128 + number
        finally:
            server.process.send_signal(signal.SIGCONT)
    with program("shm", "rm", name) as remover:
        assert remover.process.wait(10) == 0
    assert left_behind(name) == []


@pytest.mark.req("EX-04")
def test_a_venue_that_answers_no_close_frame_is_left_within_two_seconds():
    name = unique("mute")
    with venue() as (server, url), program(*run_feed(url, name)) as feed:
        with attached(name) as market:
            until(lambda: market.is_live("AAPL"), "a live book")
            server.process.send_signal(signal.SIGSTOP)
            try:
                began = time.monotonic()
                assert feed.end() == 0
                assert time.monotonic() - began < 2.0
                assert market.status().state == "CLOSED"
            finally:
                server.process.send_signal(signal.SIGCONT)
        assert left_behind(name) == []


def test_a_killed_feed_is_dead_to_its_readers_and_its_successor_takes_over():
    name = unique("dead")
    with venue() as (_, url):
        with program(*run_feed(url, name)) as feed:
            market = attached(name)
            until(lambda: market.is_live("AAPL"), "a live book")
            quotes = market.quotes()
            feed.process.kill()
            feed.process.wait()
        assert until(
            lambda: market.status().state == "DEAD", "the feed to be dead", 1.0
        )
        assert not market.is_live("AAPL")
        with program(*run_feed(url, name)) as successor:
            until(lambda: market.is_live("AAPL"), "the successor")
            until(
                lambda: quotes.poll().size and quotes.resets == 1, "the reader to move"
            )
            successor.end()
        market.close()
    assert left_behind(name) == []


# ── what goes wrong at the start ──────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("run", "--config", "/nonexistent.toml"), 2, "no such file"),
        (("run",), 2, "no instruments"),
        (("run", "--url", "http://x", "--symbol", "AAPL"), 2, "ws://"),
        (("run", "--url", "ws://10.0.0.1", "--symbol", "AAPL"), 2, "plaintext"),
        (("run", "--url", "ws://127.0.0.1:1", "--symbol", "../x"), 2, "'../x'"),
        (("run", "--url", "ws://127.0.0.1:1", "--symbol", "aapl"), 2, "'aapl'"),
        (("tail", "nobody-has-this-name"), 4, "no segment"),
        (("venue", "--config", "/nonexistent.toml"), 2, "/nonexistent.toml"),
        (("venue", "--replay", "/nonexistent.jsonl.gz"), 2, "/nonexistent.jsonl.gz"),
        (("venue", "--loop"), 2, "--replay"),
    ],
)
def test_a_mistake_is_one_line_and_its_exit_code(arguments, code, words):
    done = feedhandler(*arguments)

    assert done.returncode == code, done.stderr
    assert one_line(done.stderr)
    assert words in done.stderr
    assert done.stdout == ""


def test_an_unknown_key_names_the_key_and_what_was_expected(tmp_path: Path):
    config = tmp_path / "feed.toml"
    config.write_text("[shm]\ncapasity = 64\n")

    done = feedhandler("run", "--config", str(config))

    assert done.returncode == 2
    assert one_line(done.stderr)
    assert "shm.capasity: unknown key; expected name, capacity" in done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[calendar]\nopens = '09:00'\n", "opens without closes"),
        (
            "[[accounts]]\nid = 'house'\napi_key = 'k'\nsecret = 's'\n",
            "'house' is open already",
        ),
    ],
)
def test_a_venue_that_could_not_run_is_one_line(tmp_path: Path, text: str, words: str):
    config = tmp_path / "venue.toml"
    config.write_text(text)

    done = feedhandler("venue", "--config", str(config))

    assert done.returncode == 2
    assert one_line(done.stderr)
    assert words in done.stderr


def test_a_port_in_use_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = feedhandler("venue", "--port", str(taken.getsockname()[1]))

    assert done.returncode == 1
    assert one_line(done.stderr)
    assert "address already in use" in done.stderr.lower()


@pytest.mark.req("RC-02", "RC-06", "F-01")
def test_a_venue_that_is_not_there_ends_in_exit_code_3(tmp_path: Path):
    name = unique("absent")
    config = tmp_path / "feed.toml"
    config.write_text(
        f'url = "ws://127.0.0.1:1"\n[shm]\nname = "{name}"\n'
        "[limits]\nreconnect_base_s = 0.001\nreconnect_attempts = 3\n"
        '[[instruments]]\nsymbol = "AAPL"\n'
    )

    done = feedhandler("run", "--config", str(config))

    assert done.returncode == 3
    assert "after 4 attempts" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert left_behind(name) == []


def impatient(tmp_path: Path, url: str, *more: str) -> str:
    """A configuration that gives up at once."""
    config = tmp_path / "feed.toml"
    lines = [
        f'url = "{url}"', *more, f'[shm]\nname = "{unique("secure")}"\ncapacity = 64',
        "[limits]\nreconnect_base_s = 0.001\nreconnect_attempts = 1",
        '[[instruments]]\nsymbol = "AAPL"\n',
    ]  # fmt: skip
    config.write_text("\n".join(lines))
    return str(config)


@pytest.mark.req("F-04", "EP-05", "SEC-01")
def test_a_feed_over_tls_trusts_the_named_authority_and_no_other(tmp_path: Path):
    ours = authority(tmp_path)
    cert, key = issued(tmp_path, "venue", ours)
    with venue("--cert", cert, "--key", key) as (_, url):
        refused = feedhandler("run", "--config", impatient(tmp_path, url))
        trusting = impatient(tmp_path, url, f'ca_file = "{ours.cert}"')
        with (
            program("run", "--config", trusting) as feed,
            attached(unique("secure")) as market,
        ):
            until(lambda: market.is_live("AAPL"), "a live book")
            feed.end()

    assert refused.returncode == 3
    assert "certificate" in refused.stderr.splitlines()[-1]
    assert "Traceback" not in refused.stderr


@pytest.mark.req("F-04")
def test_a_venue_that_hangs_up_in_the_tls_handshake_is_told_in_lines(tmp_path: Path):
    async def run() -> tuple[int | None, str]:
        async def hang_up(peer: Peer) -> None:
            await peer.reader.read(1)

        async with Server(hang_up, upgrade=False) as server:
            url = server.base_url.replace("ws", "wss", 1)
            feed = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "feedhandler",
                "run", "--config", impatient(tmp_path, url),
                stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            _, told = await asyncio.wait_for(feed.communicate(), 30)
            return feed.returncode, told.decode()

    code, told = asyncio.run(run())

    assert code == 3
    assert "Traceback" not in told
    assert re.fullmatch(
        ".* reconnect url=.*\n.* failed url=.*\nfeedhandler: connection to .*\n", told
    ), told


@pytest.mark.req("F-87")
def test_a_second_feed_of_the_same_name_is_refused():
    name = unique("busy")
    with venue() as (_, url), program(*run_feed(url, name)) as first:
        first.line()

        done = feedhandler(*run_feed(url, name))

        assert done.returncode == 4
        assert one_line(done.stderr)
        assert first.process.poll() is None


@pytest.mark.req("F-83")
def test_no_room_for_the_rings_is_one_line_and_nothing_is_left(tmp_path: Path):
    name = unique("full")
    config = tmp_path / "feed.toml"
    config.write_text(
        f'url = "ws://127.0.0.1:1"\n[shm]\nname = "{name}"\n'
        '[[instruments]]\nsymbol = "AAPL"\n'
    )
    script = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "from feedhandler.cli import main\n"
        f"sys.exit(main(['run', '--config', {str(config)!r}]))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 4, done.stderr
    assert one_line(done.stderr)
    assert left_behind(name) == []


def test_tail_prints_trades_as_text_and_counts():
    name = unique("trades")
    with venue() as (_, url), program(*run_feed(url, name)) as feed:
        attached(name).close()

        done = feedhandler("tail", name, "--stream", "trades", "--count", "3")

        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert len(lines) == 3
        assert all(
            re.match(r"AAPL +\S+ +[\d.]+ @ [\d.]+ +(BUY|SELL)$", x) for x in lines
        )
        feed.end()


def test_tail_whose_reader_has_gone_ends_quietly():
    name = unique("pipe")
    with venue() as (_, url), program(*run_feed(url, name)):
        attached(name).close()
        tail = Program("tail", name, "--json")
        assert tail.process.stdout is not None
        tail.line()
        tail.process.stdout.close()

        assert tail.process.wait(10) == 0
        assert tail.errors() == ""
        assert tail.process.stderr is not None
        tail.process.stderr.close()


def test_a_feed_by_that_name_can_be_attached_from_the_package():
    name = unique("api")
    with (
        venue() as (_, url),
        program(*run_feed(url, name, "--channel", "ticker")) as feed,
    ):
        with attached(name) as market:
            until(lambda: market.ticker("AAPL"), "a ticker")
            ticker = market.ticker("AAPL")
            assert ticker.low <= ticker.last_price <= ticker.high
        feed.end()
    with pytest.raises(Exception, match="no segment"):
        attach(name)

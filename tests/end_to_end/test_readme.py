"""The README's code, as printed."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from feedhandler.cli import VENUE_VARIABLE
from tests.end_to_end.processes import program, venue

README = Path(__file__).parents[2] / "README.md"
PORT = 8765


def blocks() -> list[str]:
    """Return the programs; a test of the reader's own engine is none."""
    found = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    return [block for block in found if block.startswith("import ")]


def port_is_free() -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            return False
    return True


def printed(program: str) -> str:
    """Run a program of the page, which must end well, and return what it prints."""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.skipif(not port_is_free(), reason=f"port {PORT} of the README is in use")
def test_the_code_of_the_readme_runs_as_printed(monkeypatch: pytest.MonkeyPatch):
    embed, poll, trade, consume, iterate = blocks()
    monkeypatch.setenv(VENUE_VARIABLE, "demo-secret")
    with venue(port=PORT):
        trading = printed(trade)
        assert re.match(r"accepted o-\d+\n", trading)
        assert "Balance(currency='USD'" in trading
        quotes = re.findall(r"^0 [\d.]+ [\d.]+$", printed(poll), re.MULTILINE)
        assert len(quotes) >= 10
        feed = subprocess.Popen(
            [sys.executable, "-u", "-c", embed], stdout=subprocess.PIPE, text=True
        )
        assert feed.stdout is not None
        for line in feed.stdout:
            if line.startswith("True"):
                break
        iterating = subprocess.Popen(
            [sys.executable, "-c", iterate], stdout=subprocess.PIPE, text=True
        )
        reader = printed(consume)
        rest = feed.stdout.read()
        feed.stdout.close()

        batches, _ = iterating.communicate(timeout=30)
        assert feed.wait(30) == 0
        assert rest.count("True") >= 3
        lines = reader.splitlines()
        assert any(re.match(r"AAPL [\d.]+ True$", line) for line in lines)
        assert lines[-1] == "CLOSED lost 0"
        assert iterating.returncode == 0
        assert re.match(r"\d+ [\d.]+\n", batches)


def test_the_commands_of_the_readme_exist():
    commands = set(
        re.findall(
            r"`?feedhandler (demo|venue|run|tail|shm|order)\b", README.read_text()
        )
    )

    with program("--help") as shown:
        assert shown.process.wait(10) == 0
        assert shown.process.stdout is not None
        text = shown.process.stdout.read()
    assert commands == {"demo", "venue", "run", "tail", "shm", "order"}
    assert all(re.search(rf"^ +{command} ", text, re.MULTILINE) for command in commands)


def test_the_blocks_keep_to_their_length():
    embed, poll, trade, consume, iterate = blocks()

    assert len([x for x in embed.splitlines() if x.strip()]) <= 20
    assert len([x for x in poll.splitlines() if x.strip()]) <= 12
    assert len([x for x in trade.splitlines() if x.strip()]) <= 22
    assert len([x for x in consume.splitlines() if x.strip()]) <= 10
    assert len([x for x in iterate.splitlines() if x.strip()]) <= 10

"""Engines and feeds killed with commands in flight: none unanswered, none doubled."""

import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from feedhandler.cli import VENUE_VARIABLE
from tests.end_to_end.processes import Program, attached, left_behind, unique, until

KEY, SECRET = "demo-key", "an engine's secret"
VENUE = """
[limits]
orders_per_minute = 1000000
authentication_per_minute = 1000000
[traders]
enabled = false
"""
FEED = """
url = "{url}"
[credentials]
api_key = "{key}"
secret_file = "{secret}"
[limits]
orders_per_minute = 1000000
[shm]
name = "{name}"
private_capacity = 65536
[trading]
commands = true
[[instruments]]
symbol = "AAPL"
"""
ENDS = ("unsent", "expired", "absent", "told")


class Engine:
    """An engine's process, and all the lines that it said."""

    def __init__(self, name: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.engine", name],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def count(self, word: str) -> int:
        return sum(line.split()[0] == word for line in list(self.lines))

    def ids(self, *words: str) -> set[str]:
        pairs = (line.split() for line in self.lines)
        return {pair[1] for pair in pairs if len(pair) == 2 and pair[0] in words}

    def finish(self) -> None:
        self.process.wait(40)
        self._reading.join()
        assert self.process.stderr is not None
        errors = self.process.stderr.read()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        assert "Traceback" not in errors, errors


class Floor:
    """A venue, a feed that takes commands, and an engine that gives them."""

    def __init__(self, folder: Path) -> None:
        self.name = unique("killed")
        self.journal = folder / "journal"
        secret, config = folder / "secret", folder / "venue.toml"
        secret.touch(0o600)
        secret.write_text(SECRET)
        config.write_text(VENUE)
        self.venue = Program(
            "venue", "--port", "0", "--config", str(config),
            "--log", str(self.journal),
        )  # fmt: skip
        url = self.venue.line().split()[-1]
        self.config = folder / "feed.toml"
        self.config.write_text(
            FEED.format(url=url, key=KEY, secret=secret, name=self.name)
        )
        self.engines: list[Engine] = []
        self.start_feed()
        self.start_engine()

    def start_feed(self) -> None:
        self.feed = Program("run", "--config", str(self.config))
        self.feed.line()

    def start_engine(self) -> None:
        with attached(self.name) as market:
            until(lambda: market.status().state.name == "LIVE" or None, "the feed")
        self.engine = Engine(self.name)
        self.engines.append(self.engine)
        until(lambda: self.engine.count("told") or None, "an order that is told")

    def kill_feed(self) -> None:
        settled = self.engine.count("settled")
        self.feed.end(9)
        close(self.feed)
        self.start_feed()
        until(
            lambda: self.engine.count("settled") > settled or None,
            "what was in flight to be settled",
        )

    def kill_engine(self) -> None:
        self.engine.process.kill()
        self.engine.finish()
        self.start_engine()

    def end(self) -> None:
        self.engine.process.terminate()
        self.engine.finish()
        assert self.feed.end() == 0
        self.venue.end()
        for program in (self.feed, self.venue):
            close(program)

    def sent(self) -> Counter[str]:
        """The client order ids of all submits that reached the venue."""
        found: Counter[str] = Counter()
        for line in self.journal.read_text().splitlines():
            note = json.loads(line)
            if note["k"] == "in" and "submit_order" in note["m"]:
                found[json.loads(note["m"])["data"]["client_order_id"]] += 1
        return found


def close(program: Program) -> None:
    for stream in (program.process.stdout, program.process.stderr):
        if stream is not None:
            stream.close()


@pytest.mark.req("I-08", "F-72", "F-74")
@pytest.mark.parametrize(
    "rounds", [4, pytest.param(100, marks=pytest.mark.stress)], ids=str
)
def test_who_is_killed_leaves_no_command_unanswered_and_none_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int
):
    monkeypatch.setenv(VENUE_VARIABLE, SECRET)
    chance = random.Random(rounds)
    floor = Floor(tmp_path)
    for number in range(rounds):
        time.sleep(chance.uniform(0.02, 0.3))
        (floor.kill_engine if number % 2 else floor.kill_feed)()
    floor.end()

    sent, killed = floor.sent(), floor.engines[:-1]
    assert [name for name, count in sent.items() if count > 1] == []
    given = {name for engine in floor.engines for name in engine.ids("giving")}
    assert set(sent) <= given
    last = floor.engines[-1]
    assert last.lines[-1] == "end 0"
    assert last.ids("gave") <= last.ids(*ENDS)
    for engine in floor.engines:
        # What is answered is so: not sent, or known to the venue.
        assert not engine.ids("unsent", "expired", "absent") & set(sent)
        assert engine.ids("told") <= set(sent)
    # Of an engine that was killed, what was open at the end has nobody to hear of it.
    assert len(killed) == rounds // 2
    assert left_behind(floor.name) == []
    counts = {word: sum(e.count(word) for e in floor.engines) for word in ENDS}
    print(f"{rounds} kills, {len(given)} commands, {len(sent)} sent: {counts}")

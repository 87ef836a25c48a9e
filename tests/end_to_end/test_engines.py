"""An engine beside the feed: a process without a key, which trades through it."""

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from feedhandler.cli import VENUE_VARIABLE
from tests.end_to_end.processes import (
    Program,
    attached,
    left_behind,
    program,
    unique,
    until,
    venue,
)

KEY, SECRET = "demo-key", "an engine's secret"
CONFIG = """
url = "{url}"
[credentials]
api_key = "{key}"
secret_file = "{secret}"
[shm]
name = "{name}"
wake = true
[trading]
commands = true
max_quantity = 100
[[instruments]]
symbol = "AAPL"
"""
ENGINE = """
import json, sys, time
import feedhandler
from feedhandler.records import EventCause, OrderStatus

with feedhandler.attach(sys.argv[1]) as market, market.trader() as trader:
    answers = trader.orders()
    def hear(client_id, status):
        told = []
        while True:
            assert answers.wait(timeout=10), (told, status)
            for event in answers.poll():
                if event["client_id"].decode() != client_id:
                    continue
                told.append(EventCause(event["cause"]).name)
                if OrderStatus(event["status"]).name == status:
                    return told
    first = trader.submit("AAPL", "buy", "limit", 10, price=100.0)
    live = hear(first, "ACCEPTED")
    trader.modify(first, price=101.0)
    trader.cancel(first)
    canceled = hear(first, "CANCELED")
    large = hear(trader.submit("AAPL", "buy", "limit", 101, price=100.0), "REJECTED")
    filled = hear(trader.submit("AAPL", "buy", "market", 10), "FILLED")
    trader.resolve(first)
    print(json.dumps([live, canceled, large, filled, hear(first, "CANCELED")]))
"""


@contextmanager
def trading_feed(folder: Path) -> Iterator[tuple[str, Program]]:
    """Run a venue and a feed that takes commands; lend its name and its process."""
    name = unique("engines")
    secret = folder / "secret"
    secret.touch(0o600)
    secret.write_text(SECRET)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VENUE_VARIABLE, SECRET)
        with venue() as (_, url):
            config = folder / "feed.toml"
            config.write_text(CONFIG.format(url=url, key=KEY, secret=secret, name=name))
            with program("run", "--config", str(config)) as feed:
                with attached(name) as market:
                    until(lambda: market.is_live("AAPL") or None, "a live book")
                yield name, feed


@pytest.mark.req("I-08", "OR-01")
def test_an_engine_without_a_key_trades_through_the_feed(tmp_path: Path):
    with trading_feed(tmp_path) as (name, feed):
        time.sleep(0.5)
        engine = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(ENGINE), name],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert engine.returncode == 0, engine.stderr
        live, canceled, large, filled, told_again = json.loads(engine.stdout)
        assert live[0] == "CAUSE_SENT"
        assert set(live[1:]) <= {"CAUSE_ACK", "CAUSE_UPDATE"}
        assert canceled[-1] in ("CAUSE_ACK", "CAUSE_UPDATE")
        assert large == ["CAUSE_GUARDED"]
        assert "CAUSE_FILL" in filled
        assert told_again == ["CAUSE_UPDATE"]
        with attached(name) as market:
            until(lambda: market.counters()["commands"] == 6 or None, "six commands")
            assert market.counters()["commands_refused"] == 0
        feed.process.terminate()
        assert feed.process.wait(10) == 0
        assert left_behind(name) == []
        assert not os.path.exists(f"/dev/shm/.fh-{name}.wake")

"""A whole run, with every log as loud as it gets, leaves no secret anywhere."""

import asyncio
import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from picows import ws_connect

from feedhandler.credentials import KEY_VARIABLE, SECRET_VARIABLE
from feedhandler.protocol.channels import TRADING
from feedhandler.protocol.signature import sign
from feedhandler.testing import RunningProxy
from tests.clients import Client
from tests.end_to_end.processes import attached, unique, until
from tests.secrets_scan import find

# As the command, but nothing that it says of a logger's level is heard.
LOUD = """
import logging, sys
class Loud(logging.Logger):
    def __init__(self, name, level=0):
        super().__init__(name, 1)
    def setLevel(self, level):
        pass
logging.setLoggerClass(Loud)
from feedhandler.cli import main
sys.exit(main(["--log-level", "debug", *sys.argv[1:]]))
"""
SIGNATURE = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
STOP_S = 5.0


class Run:
    """Programs that run in a folder, and all that they leave there and elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[subprocess.Popen[bytes]] = []
        self.artefacts: dict[str, bytes] = {}

    def start(self, name: str, *arguments: str, typed: str = "") -> None:
        with (
            open(self.folder / f"{name}.out", "wb") as out,
            open(self.folder / f"{name}.err", "wb") as err,
        ):
            process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", "-c", LOUD, *arguments],
                stdin=subprocess.PIPE, stdout=out, stderr=err,
                env={
                    variable: value for variable, value in os.environ.items()
                    if variable not in (KEY_VARIABLE, SECRET_VARIABLE)
                },
            )  # fmt: skip
        self.running.append(process)
        assert process.stdin is not None
        process.stdin.write(typed.encode())
        process.stdin.close()

    def line(self, name: str) -> str:
        """Wait for a program's first line."""
        path = self.folder / f"{name}.out"
        until(lambda: b"\n" in path.read_bytes(), f"a line of {name}")
        return path.read_text().splitlines()[0]

    def done(self, name: str, *arguments: str) -> None:
        """Run a program to its end."""
        self.start(name, *arguments)
        assert self.running[-1].wait(20) == 0, (self.folder / f"{name}.err").read_text()

    def look(self, feed: str) -> None:
        """Keep what can be seen of it while it runs: by ps, and in shared memory."""
        for process in self.running:
            if process.poll() is None:
                for file in ("cmdline", "environ"):
                    path = Path(f"/proc/{process.pid}/{file}")
                    self.artefacts[str(path)] = path.read_bytes()
        for path in Path("/dev/shm").glob(f"fh-{feed}.*"):
            self.artefacts[str(path)] = path.read_bytes()

    def end(self) -> None:
        """End what runs, the last first, and keep what was written."""
        for process in reversed(self.running):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for path in self.folder.iterdir():
            if path.suffix in (".out", ".err", ".ndjson"):
                self.artefacts[path.name] = path.read_bytes()


@contextlib.contextmanager
def run_in(folder: Path) -> Iterator[Run]:
    run = Run(folder)
    try:
        yield run
    finally:
        run.end()


def configure(folder: Path, name: str, key: str, secret: str) -> None:
    (folder / "secret").write_text(secret)
    (folder / "secret").chmod(0o600)
    (folder / "venue.toml").write_text(
        f'port = 0\n[[accounts]]\nid = "acc"\napi_key = "{key}"\n'
        f'secret_file = "{folder / "secret"}"\nbalances = {{ USD = 100000 }}\n'
    )
    (folder / "feed.toml").write_text(
        f'[credentials]\napi_key = "{key}"\n'
        f'[shm]\nname = "{name}"\ncapacity = 1024\ninstruments = 16\n'
        '[[instruments]]\nsymbol = "AAPL"\n'
    )


async def trade(url: str, key: str, secret: str) -> None:
    """Authenticate and submit an order; and once more, with a signature too many."""
    for right in (True, False):
        _, client = await ws_connect(Client, url + TRADING)
        assert isinstance(client, Client)
        now_ms = time.time_ns() // 1_000_000
        signed = secret.encode() if right else b"not the secret"
        answer = await client.ask(
            "authenticate",
            api_key=key,
            signature=sign(key, signed, now_ms),
            timestamp=now_ms,
        )
        assert (answer["status"] == "success") is right
        if right:
            order = {"symbol": "AAPL", "side": "buy", "type": "limit", "quantity": 1}
            answer = await client.ask("submit_order", **order, price=1.0)
            assert answer["type"] == "order_response"
            client.transport.disconnect()
        await client.gone()


@pytest.mark.req("I-18", "SEC-05", "SEC-03")
def test_nothing_that_a_run_leaves_has_a_secret_a_signature_or_the_key(tmp_path: Path):
    name = unique("quiet")
    key, secret = f"key-{secrets.token_hex(12)}", f"{secrets.token_urlsafe(18)}/+%&"
    configure(tmp_path, name, key, secret)
    told: list[dict[str, Any]] = []

    with run_in(tmp_path) as run:
        journal = str(tmp_path / "journal.ndjson")
        run.start(
            "venue", "venue", "--config", str(tmp_path / "venue.toml"), "--log", journal
        )
        with RunningProxy(run.line("venue").split()[-1]) as proxy:
            # It never matches; it hears what every client says.
            proxy.do(lambda p: p.up.drop(count=None, where=told.append))
            feed = ("--config", str(tmp_path / "feed.toml"))
            run.start(
                "feed", "run", *feed, "--url", proxy.url, "--secret-stdin",
                typed=f"{secret}\n",
            )  # fmt: skip
            with attached(name) as market:
                until(lambda: market.is_live("AAPL"), "a live book")
            asyncio.run(trade(proxy.url, key, secret))
            run.look(name)
            run.done(
                "tail", "tail", name, "--json", "--start", "oldest", "--count", "9"
            )
            run.done("stat", "shm", "stat", name, "--json", "--seconds", "0.01")
            run.done("show", "config", "show", *feed)
            run.end()

    signatures = [
        message["data"]["signature"]
        for message in told
        if message["action"] == "authenticate"
    ]
    needles = {"secret": secret, "key": key} | {
        f"signature {number}": text for number, text in enumerate(signatures)
    }
    found = {
        artefact: shown
        for artefact, content in run.artefacts.items()
        if (shown := find(content, needles))
    }
    assert found == {}
    assert_it_was_all_there(run, signatures)


def assert_it_was_all_there(run: Run, signatures: list[str]) -> None:
    """Or its silence would say nothing: the logs were loud, and a run took place."""
    assert len(signatures) >= 2
    assert len(set(signatures)) == len(signatures)
    artefacts = run.artefacts
    for logged in (artefacts["feed.err"], artefacts["venue.err"]):
        assert b" Level 9 picows." in logged
        assert SIGNATURE.findall(logged) == []
    journal = artefacts["journal.ndjson"]
    assert journal.count(b'"authenticate\\",\\"data\\":\\"***\\"') == len(signatures)
    assert b"submit_order" in journal
    assert artefacts["tail.out"].count(b"\n") == 9
    assert b"frame_to_ring_ns" in artefacts["stat.out"]
    assert b'api_key = "key-\xe2\x80\xa6"' in artefacts["show.out"]
    assert sum(artefact.endswith("/cmdline") for artefact in artefacts) == 2
    assert sum(artefact.startswith("/dev/shm/") for artefact in artefacts) >= 4

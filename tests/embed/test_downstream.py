"""A project that is compiled against the package, as its users do it."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import feedhandler
from feedhandler import abi
from tests.recordings import SMALL

HERE = Path(__file__).parent
INSTALLED = Path(feedhandler.__file__).parent

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("Cython") is None,
        reason="no Cython here",
    ),
    pytest.mark.skipif(
        shutil.which("cc") is None and shutil.which("gcc") is None,
        reason="no C compiler here",
    ),
]

# What benchmarks/harness.py does, with a strategy in front of the publisher.
FEED = """
    import gzip, json, sys
    from feedhandler.board import Board
    from feedhandler.codec import MsgspecCodec
    from feedhandler.counters import Counters
    from feedhandler.publisher import Publisher
    from feedhandler.records import QUOTE, TRADE
    from feedhandler.ring import Ring
    from feedhandler.session import Session
    from feedhandler.sink import Tee
    from feedhandler.throttle import Throttle
    from feedhandler.tracker import COUNTERS, HISTOGRAMS
    from strategy import Strategy, record_sizes

    with gzip.open(sys.argv[1]) as file:
        messages = [line.rstrip(b"\\n") for line in file]
    quotes = Ring(bytearray(Ring.size_for(QUOTE, 131072)), QUOTE, 131072)
    trades = Ring(bytearray(Ring.size_for(TRADE, 131072)), TRADE, 131072)
    board = Board(bytearray(Board.size_for(64, 10)), 64, 10)
    strategy = Strategy(fail_at=int(sys.argv[2]))
    publisher = Publisher(quotes, trades, board)
    errors = []
    session = Session(
        MsgspecCodec(),
        strategy if sys.argv[3] == "sink" else Tee(strategy, publisher, errors.append),
        Counters(
            bytearray(Counters.size_for(len(COUNTERS), len(HISTOGRAMS))),
            COUNTERS, HISTOGRAMS,
        ),
        Throttle(45, 61_000_000_000),
        Throttle(180, 61_000_000_000),
    )
    symbols = {}
    for channel in dict.fromkeys(json.loads(m)["channel"] for m in messages):
        symbol = channel.split(":")[1]
        if symbol not in symbols:
            symbols[symbol] = board.add(symbol)
        session.add(channel, symbols[symbol])
    session.opened(1)
    session.take_outbox()
    for number, message in enumerate(messages):
        session.receive(message, number + 2)
    print(json.dumps({
        "seen": [strategy.quotes, strategy.trades],
        "published": [quotes.published, trades.published],
        "live": strategy.live,
        "deepest": strategy.deepest,
        "errors": [str(error) for error in errors],
        "sizes": record_sizes(),
    }))
"""


def run(*arguments, cwd: Path, path: list[Path]) -> subprocess.CompletedProcess:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "CFLAGS": "-O0",
    }
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def build(folder: Path, path: list[Path]) -> Path:
    """Build a copy of the project in *folder*, with *path* to find packages on."""
    shutil.copytree(HERE / "downstream", folder)
    done = run("setup.py", "-q", "build_ext", "--inplace", cwd=folder, path=path)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("downstream") / "project"
    return build(folder, [INSTALLED.parent])


def feed(project: Path, how: str, fail_at: int = 0) -> dict:
    done = run(
        "-W",
        "error",
        "-c",
        textwrap.dedent(FEED),
        SMALL / "engine.jsonl.gz",
        fail_at,
        how,
        cwd=project,
        path=[project, INSTALLED.parent],
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_strategy_before_the_publisher_sees_all_that_is_published(project):
    told = feed(project, "tee")

    assert told["seen"] == told["published"]
    assert told["seen"][0] > 100
    assert told["seen"][1] > 0
    assert told["live"] > 100
    assert told["deepest"] > 1
    assert told["errors"] == []


def test_a_strategy_alone_sees_the_same(project):
    told = feed(project, "sink")

    assert told["seen"] == feed(project, "tee")["seen"]
    assert told["published"] == [0, 0]


def test_a_strategy_that_raises_keeps_no_quote_from_the_ring(project):
    told = feed(project, "tee", fail_at=5)

    assert told["seen"] == told["published"]
    assert told["errors"] == ["quote 5 is not to my liking"]


def test_the_header_and_the_pxd_are_of_one_record(project):
    assert feed(project, "tee")["sizes"] == [64, 64]


def test_a_strategy_built_against_another_abi_is_refused(tmp_path):
    other = tmp_path / "other"
    for path in INSTALLED.rglob("*.pxd"):
        copy = other / path.relative_to(INSTALLED.parent)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(
            re.sub(r"\bABI = \d+", f"ABI = {abi.number() + 1}", path.read_text())
        )
    # Cython takes the first .pxd on the path; Python passes over a folder without code.
    project = build(tmp_path / "project", [other, INSTALLED.parent])
    done = run("-c", "import strategy", cwd=project, path=[project, INSTALLED.parent])

    assert done.returncode == 1
    assert (
        f"ImportError: built against feedhandler ABI {abi.number() + 1}, "
        f"but {abi.number()} is installed" in done.stderr
    )

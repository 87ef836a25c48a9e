"""A thousand lives of clients and a venue: each with faults, none with a wrong."""

import os
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import pytest

from feedhandler.session import TRANSITIONS
from tests.sim.faults import KINDS
from tests.sim.life import LEAST_MESSAGES, Report, live
from tests.sim.rules import CLOSE_CODES, STATES

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SEEDS = range(1_000)
MORE_SEEDS = range(1_000, 11_000)
CACHE = "sim/failing_seeds"


@dataclass
class Lives:
    """What many lives had in them."""

    failed: dict[int, list[str]] = field(default_factory=dict)
    faults: set[str] = field(default_factory=set)
    close_codes: set[int] = field(default_factory=set)
    transitions: set[tuple[str, str]] = field(default_factory=set)
    poor: list[Report] = field(default_factory=list)
    count: int = 0
    messages: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0

    def add(self, report: Report) -> None:
        if report.failures:
            self.failed[report.seed] = report.failures
        if not report.faults or report.messages < LEAST_MESSAGES:
            self.poor.append(report)
        self.faults.update(report.faults)
        self.close_codes |= report.close_codes
        self.transitions |= report.transitions
        self.count += 1
        self.messages += report.messages
        self.seconds += report.seconds
        self.slowest_s = max(self.slowest_s, report.settled_s)

    def story(self) -> str:
        """Say how to live again what failed."""
        return "\n".join(
            f"python -m tests.sim {seed}  # {failures[0]}"
            for seed, failures in self.failed.items()
        )


def kept_seeds(config: pytest.Config) -> list[int]:
    """The seeds that failed on this machine, and those that are kept for all."""
    lines = (HERE / "seeds.txt").read_text().splitlines()
    kept = [int(line.split()[0]) for line in lines if line[:1] != "#"]
    return [*failing(config), *kept]


def failing(config: pytest.Config) -> list[int]:
    seeds: list[int] = [] if config.cache is None else config.cache.get(CACHE, [])
    return seeds


def live_all(seeds: range, config: pytest.Config) -> Lives:
    """Live the kept seeds, then all others; remember which of them failed."""
    lives = Lives()
    wanted = list(dict.fromkeys([*kept_seeds(config), *seeds]))
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        for report in pool.map(live, wanted, chunksize=10):
            lives.add(report)
    if config.cache is not None:
        config.cache.set(CACHE, list(lives.failed))
    return lives


@pytest.fixture(scope="module")
def lives(pytestconfig: pytest.Config) -> Lives:
    return live_all(SEEDS, pytestconfig)


@pytest.mark.req("I-01", "I-13", "I-19")
def test_no_life_has_a_wrong_in_it(lives: Lives) -> None:
    assert lives.failed == {}, lives.story()


def test_every_life_has_a_fault_and_some_messages(lives: Lives) -> None:
    assert lives.count >= len(SEEDS)
    assert lives.poor == []


def test_every_kind_of_fault_happens(lives: Lives) -> None:
    assert lives.faults == set(KINDS)


@pytest.mark.req("CC-11", "A-36")
def test_every_close_code_comes(lives: Lives) -> None:
    assert lives.close_codes >= set(CLOSE_CODES)


@pytest.mark.req("LC-07")
def test_every_transition_of_a_session_happens_and_no_other(lives: Lives) -> None:
    table = {
        (state.name.lower(), after.name.lower())
        for state, events in TRANSITIONS.items()
        for after in events.values()
    }

    assert lives.transitions == table == STATES


@pytest.mark.req("I-24")
@pytest.mark.parametrize("seed", [3, 141, 2718])
def test_a_seed_is_one_life_here_and_in_another_process(seed: int) -> None:
    first = live(seed)

    assert live(seed).log_hash == first.log_hash
    assert live(seed + 1).log_hash != first.log_hash
    for hash_seed in ("1", "4242"):
        script = f"from tests.sim.life import live; print(live({seed}).log_hash)"
        told = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        assert told.stdout.strip() == first.log_hash


CLOCKS = re.compile(
    r"^\s*(?:import|from) (?:time|datetime|asyncio|secrets|uuid|os|threading)\b"
    r"|\brandom\.(?:seed|getrandbits)\(|\bimport random\b",
    re.MULTILINE,
)


@pytest.mark.req("I-24")
def test_a_life_has_no_other_clock_and_no_other_chance() -> None:
    for path in HERE.glob("*.py"):
        if not path.name.startswith("test_"):
            assert CLOCKS.findall(path.read_text()) == [], path.name
    assert CLOCKS.search("import time\n")


@pytest.mark.req("I-22", "I-24", "I-20")
def test_a_life_can_be_lived_again_from_the_command_line() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "tests.sim", "3", "--verbose"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )

    lines = told.stdout.splitlines()
    assert lines[-1].startswith("seed 3: ")
    assert live(3).log_hash[:16] in lines[-1]
    assert sum(" gets " in line for line in lines) > LEAST_MESSAGES / 2


@pytest.mark.stress
@pytest.mark.req("I-03", "I-14", "I-22")
def test_ten_thousand_lives_have_no_wrong_in_them(pytestconfig: pytest.Config) -> None:
    lives = live_all(MORE_SEEDS, pytestconfig)

    print(
        f"{lives.count} lives, {lives.seconds / 3600:.0f} virtual hours, "
        f"{lives.messages} messages, {len(lives.failed)} failures, "
        f"settled within {lives.slowest_s:.0f} s"
    )
    assert lives.failed == {}, lives.story()
    assert lives.poor == []

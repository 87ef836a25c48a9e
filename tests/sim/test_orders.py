"""Lives of order desks: whatever is cut off, no order is there twice, none is lost."""

import os

import pytest

from tests.sim.order_broken import BROKEN, made
from tests.sim.order_faults import LIVES, OTHERS, live, live_with
from tests.sim.order_life import CELLS, Report
from tests.sim.orders import WITHIN_S, live_all, print_life, table

SEEDS = range(4)
MORE_SEEDS = range(100, 200)
TRIES = 60


def wrong(reports: list[Report]) -> str:
    """Say how to live again what failed, or took too long."""
    return "\n".join(
        f"python -m tests.sim.orders --life '{r.what}' --seed {r.seed}"
        f"  # {r.resolved_s:.1f} s {r.failures[:1]}"
        for r in reports
        if r.failures or (r.resolved_s > WITHIN_S and not r.limited)
    )


@pytest.fixture(scope="module")
def reports() -> list[Report]:
    return live_all(LIVES, SEEDS, 0)


@pytest.mark.req("F-63", "I-08", "I-09")
@pytest.mark.parametrize("cell", CELLS)
def test_wherever_it_is_cut_an_operation_happens_once_or_not_at_all(
    reports: list[Report], cell: str
) -> None:
    lives = [report for report in reports if report.what == cell]

    assert wrong(lives) == ""
    assert len(lives) == len(SEEDS)
    assert sum(report.doubted for report in lives) > 0
    assert sum(report.duplicates + report.early for report in lives) == 0


OF_OTHERS = [
    pytest.param("F-58", marks=pytest.mark.req("F-58", "A-19")),
    pytest.param("F-64", marks=pytest.mark.req("F-64", "A-19")),
    pytest.param("F-65", marks=pytest.mark.req("F-65", "I-11")),
    pytest.param("F-67", marks=pytest.mark.req("F-67", "I-11")),
    pytest.param("F-68", marks=pytest.mark.req("F-68", "A-20")),
    pytest.param("F-69", marks=pytest.mark.req("F-69", "A-18")),
    pytest.param("F-70", marks=pytest.mark.req("F-70", "I-14")),
    pytest.param("F-71", marks=pytest.mark.req("F-71", "I-08")),
    pytest.param("F-72", marks=pytest.mark.req("F-72", "I-08")),
    pytest.param("F-73", marks=pytest.mark.req("F-73", "A-49")),
    pytest.param("F-74", marks=pytest.mark.req("F-74", "I-08")),
    pytest.param("F-75", marks=pytest.mark.req("F-75", "I-09")),
    pytest.param("kill", marks=pytest.mark.req("SEC-26", "I-14")),
]


@pytest.mark.parametrize("what", OF_OTHERS)
def test_what_else_goes_wrong_with_orders_leaves_none_unknown(
    reports: list[Report], what: str
) -> None:
    lives = [report for report in reports if report.what == what]

    assert wrong(lives) == ""
    assert len(lives) == len(SEEDS)
    assert min(report.orders for report in lives) > 0


def test_every_other_fault_has_its_life() -> None:
    assert [case.values for case in OF_OTHERS] == [(what,) for what in OTHERS]


@pytest.mark.req("I-08", "I-09", "I-10")
@pytest.mark.parametrize("what", BROKEN)
def test_a_desk_is_caught_that(what: str) -> None:
    parts, life, invariant = BROKEN[what]
    for seed in range(TRIES):
        failures = live_with(life, seed, made(**parts)).failures
        if any(failure.startswith(invariant) for failure in failures):
            # It is the desk that is wrong, and not its life.
            assert live(life, seed).failures == []
            return
    pytest.fail(f"{TRIES} lives, and nobody was blamed for {invariant}")


@pytest.mark.req("I-24")
@pytest.mark.parametrize("what", ["batch d", "F-73"])
def test_a_seed_is_one_life_of_a_desk(what: str) -> None:
    first = live(what, 5)

    assert live(what, 5).log_hash == first.log_hash
    assert live(what, 6).log_hash != first.log_hash


@pytest.mark.req("I-24")
def test_a_life_of_a_desk_can_be_lived_again_and_read(
    capsys: pytest.CaptureFixture[str], reports: list[Report]
) -> None:
    assert print_life("submit c", 1) == 0

    told = capsys.readouterr().out
    assert "strikes c" in told
    assert '"action":"submit_order"' in told
    assert table(reports).count("\n") == len(LIVES) + 2


@pytest.mark.stress
@pytest.mark.req("F-63", "F-72", "I-10")
def test_a_hundred_lives_of_each_kind_have_no_wrong_in_them() -> None:
    lives = live_all(LIVES, MORE_SEEDS, os.cpu_count())

    print(table(lives))
    assert wrong(lives) == ""
    assert len(lives) == len(LIVES) * len(MORE_SEEDS)

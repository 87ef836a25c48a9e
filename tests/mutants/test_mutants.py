"""Test the tests: what is broken on purpose is noticed."""

import pytest

from tests.mutants.__main__ import line
from tests.mutants.bench import ROOT, Outcome, judge_all
from tests.mutants.catalogue import MUTANTS, SYNC, Mutant

THROTTLE = "feedhandler/throttle.py"
OF_THROTTLE = "test_throttle.py::test_a_limit_that_is_none_is_refused"
# Those that are made at once, and some of what is compiled in a second.
QUICK = [*SYNC[:5], *(mutant for mutant in MUTANTS if not mutant.is_compiled)]


def judged(mutants: list[Mutant]) -> dict[str, Outcome]:
    outcomes = judge_all(mutants, lambda outcome: print(line(outcome)))
    return {outcome.mutant.name: outcome for outcome in outcomes}


def test_every_mutant_has_a_name_of_its_own():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_can_be_made_and_its_test_is_there(mutant: Mutant):
    text = (ROOT / mutant.file).read_text()

    assert mutant.apply(text) != text
    file, _, name = mutant.test.partition("::")
    assert f"def {name}(" in (ROOT / "tests" / file).read_text()


def test_a_mutant_that_cannot_be_made_says_so():
    mutant = Mutant("gone", THROTTLE, "no such text", "", OF_THROTTLE)

    with pytest.raises(ValueError, match="0 times"):
        mutant.apply((ROOT / THROTTLE).read_text())


def test_a_quick_mutant_is_caught_and_a_harmless_one_is_not():
    harmless = Mutant("harmless", THROTTLE, "until_ns)", "until_ns, 0)", OF_THROTTLE)
    broken = Mutant("broken", THROTTLE, "class Throttle:", "class:", OF_THROTTLE)
    outcomes = judged([*QUICK, harmless, broken])

    no_trial, survivor = outcomes.pop("broken"), outcomes.pop("harmless")
    assert survivor.caught_by is survivor.problem is None
    assert no_trial.caught_by is None
    assert "SyntaxError" in (no_trial.problem or "")
    assert [line(o) for o in outcomes.values() if not o.caught_by] == []


@pytest.mark.stress
def test_every_mutant_is_caught():
    outcomes = judged(MUTANTS)

    assert [line(o) for o in outcomes.values() if not o.caught_by] == []

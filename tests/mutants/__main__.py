"""Try mutants and say who caught them: all of them, or those with NAMES in theirs."""

import argparse
import sys
import time

from tests.mutants.bench import Outcome, Useless, judge_all
from tests.mutants.catalogue import MUTANTS


def line(outcome: Outcome) -> str:
    """Return what became of a mutant, on one line of the table."""
    verdict = outcome.caught_by or ("NO TRIAL" if outcome.problem else "SURVIVED")
    return f"{outcome.seconds:5.1f} s  {outcome.mutant.name:<48}  {verdict}"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description=__doc__
    )
    parser.add_argument("names", nargs="*", help="parts of the names of mutants")
    wanted = parser.parse_args().names
    chosen = [m for m in MUTANTS if not wanted or any(w in m.name for w in wanted)]
    if not chosen:
        parser.error(f"no mutant is named {' or '.join(wanted)}")
    began = time.monotonic()
    try:
        outcomes = judge_all(chosen, lambda outcome: print(line(outcome), flush=True))
    except Useless as error:
        print(error, file=sys.stderr)
        return 2
    for outcome in outcomes:
        if outcome.problem:
            print(f"\n{outcome.mutant.name}: {outcome.problem}")
    caught = sum(outcome.caught_by is not None for outcome in outcomes)
    print(f"\n{caught} of {len(chosen)} caught in {time.monotonic() - began:.0f} s")
    return 0 if caught == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())

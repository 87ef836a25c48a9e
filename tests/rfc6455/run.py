"""Run the Autobahn cases: ``python -m tests.rfc6455.run server|client [CASE …]``.

Needs kosoku, which has the cases, and for the client Cython and a C compiler. Exits
with 1 if a case was not OK and KNOWN does not name it.
"""

import argparse
import asyncio
import contextlib
import logging
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import kosoku

from feedhandler.protocol.channels import MARKET_DATA
from tests.compiled import compiled
from tests.rfc6455.client import run_cases
from tests.rfc6455.server import EchoVenue, config

HERE = Path(__file__).parent
COMPRESSION = ["12.*", "13.*"]
VERDICTS = ("OK", "NON-STRICT", "INFORMATIONAL", "FAILED")
PARALLEL = 8
LIMIT_S = 300.0

# What docs/rfc6455.md explains, for both roles.
KNOWN = {
    "4.1.3": "NON-STRICT",
    "4.1.4": "NON-STRICT",
    "4.1.5": "NON-STRICT",
    "4.2.3": "NON-STRICT",
    "4.2.4": "NON-STRICT",
    "4.2.5": "NON-STRICT",
    "6.4.3": "NON-STRICT",
    "6.4.4": "NON-STRICT",
    "7.1.2": "FAILED",
    "7.1.6": "INFORMATIONAL",
    "7.13.1": "INFORMATIONAL",
    "7.13.2": "INFORMATIONAL",
}


def verdict(result: Any) -> str:
    """Give one word for both halves of a result, the messages and the close."""
    found = {result.behavior.value, result.behavior_close.value}
    for word in ("OK", "NON-STRICT", "INFORMATIONAL"):
        if found <= {word, "OK"}:
            return word
    return "FAILED"


def unexpected(results: Iterable[Any]) -> dict[str, str]:
    """Return what was not OK and is not KNOWN, or is worse than it says.

    Cases with a race in them are now and then better.
    """
    found = {result.case_id: verdict(result) for result in results}
    return {
        case: word
        for case, word in found.items()
        if word not in ("OK", KNOWN.get(case))
    }


async def run_server(cases: Sequence[str] | None) -> list[Any]:
    """Let the suite be a client of the venue."""
    async with EchoVenue(config()) as venue:
        url = venue.url + MARKET_DATA
        try:
            return await kosoku.run_fuzzingclient(
                url, cases, COMPRESSION, concurrency=PARALLEL
            )
        except kosoku.FailureError as failure:
            return failure.results


async def run_client(cases: Sequence[str] | None) -> list[Any]:
    """Let the suite be the venue of a client."""
    with tempfile.TemporaryDirectory() as folder:
        echo = compiled(HERE / "echo.pyx", Path(folder))
        async with kosoku.run_fuzzingserver(cases, COMPRESSION, port=0) as server:
            await run_cases(echo, server, PARALLEL)
            try:
                return await server.get_result()
            except kosoku.FailureError as failure:
                return failure.results


ROLES = {"server": run_server, "client": run_client}


def run(role: str, cases: Sequence[str] | None = None) -> list[Any]:
    """Run *cases*, all by default, and return their results in order."""

    async def limited() -> list[Any]:
        async with asyncio.timeout(LIMIT_S):
            return await ROLES[role](cases)

    with quiet():
        return asyncio.run(limited())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Log nothing: each breach in the cases would be a line."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def table(results: Iterable[Any]) -> list[tuple[str, Counter[str]]]:
    """Count the verdicts of each group of cases, and of all."""
    groups: dict[str, Counter[str]] = {}
    for result in results:
        group = result.case_id.partition(".")[0]
        groups.setdefault(group, Counter())[verdict(result)] += 1
    rows = sorted(groups.items(), key=lambda row: int(row[0]))
    return [*rows, ("all", sum(groups.values(), Counter()))]


def report(results: Sequence[Any]) -> None:
    print(f"{'group':5}", *(f"{word:>13}" for word in VERDICTS))
    for group, counts in table(results):
        print(f"{group:5}", *(f"{counts[word]:13}" for word in VERDICTS))
    for result in results:
        word = verdict(result)
        if word != "OK":
            known = "" if KNOWN.get(result.case_id) == word else "  UNEXPECTED"
            print(f"{result.case_id} {word}: {result.result_close}{known}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.rfc6455.run")
    parser.add_argument("role", choices=list(ROLES))
    parser.add_argument("cases", nargs="*", help="such as 7.* or 9.1.1; default: all")
    arguments = parser.parse_args()
    results = run(arguments.role, arguments.cases or None)
    report(results)
    return 1 if unexpected(results) or not results else 0


if __name__ == "__main__":
    sys.exit(main())

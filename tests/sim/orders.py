"""``python -m tests.sim.orders [--seeds N] [--write]``: count lives of order desks.

``python -m tests.sim.orders --life 'submit c' --seed 7`` prints the log of one.
"""

import argparse
import statistics
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tests.sim.order_faults import LIVES, live
from tests.sim.order_life import CELLS, Report
from tests.sim.world import SECOND, START_NS

__all__ = ["WITHIN_S", "live_all", "table"]

PAGE = Path(__file__).parents[2] / "benchmarks" / "reliability.md"
BEGIN, END = "<!-- orders: begin -->", "<!-- orders: end -->"
WITHIN_S = 10.5
"""From the new connection until all is known: ten seconds and some beats."""
CUTS = {
    "a": "before the bytes leave",
    "b": "received, not processed",
    "c": "processed, answer not sent",
    "d": "answer sent, not received",
}
NAMES = {
    "F-58": "our loop is stuck",
    "F-64": "answer after 11 s, or never",
    "F-65": "answers and fills twice",
    "F-67": "cancel meets a fill",
    "F-68": "modify meets a fill",
    "F-69": "batch broken off inside",
    "F-70": "venue's limit met by a stranger",
    "F-71": "internal_error, done or not",
    "F-72": "100 orders in flight",
    "F-73": "venue restarts",
    "F-74": "client killed, another adopts",
    "F-75": "channels told again and again",
    "kill": "kill switch around a cut",
}
HEAD = (
    "| what | when | lives | orders | of them in doubt | duplicates "
    "| unknown after 10 s | fills wrong | let out early | known again, s: p50 | max "
    "| with a limit met: lives | max |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
)


def live_all(kinds: Iterable[str], seeds: range, workers: int | None) -> list[Report]:
    """Live every life with every seed: by so many processes, 0 for this one alone."""
    wanted = [(what, seed) for what in kinds for seed in seeds]
    if workers == 0:
        return [live(what, seed) for what, seed in wanted]
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        return list(pool.map(live, *zip(*wanted, strict=True), chunksize=10))


def row(what: str, reports: list[Report]) -> str:
    """Write the reports of one life as a line."""
    operation, _, point = what.partition(" ")
    name, when = (operation, CUTS[point]) if point else (NAMES[what], what)
    free = [report.resolved_s for report in reports if not report.limited]
    bound = [report.resolved_s for report in reports if report.limited]
    sums = [
        sum(getattr(report, field) for report in reports)
        for field in ("orders", "doubted", "duplicates", "unknown", "fills", "early")
    ]
    p50 = f"{statistics.median(free):.1f} | {max(free):.1f}" if free else "- | -"
    most = f"{len(bound)} | {max(bound):.1f}" if bound else "0 | -"
    counts = " | ".join(f"{count:,}" for count in sums)
    return f"| {name} | {when} | {len(reports)} | {counts} | {p50} | {most} |\n"


def table(reports: list[Report]) -> str:
    """Write all reports, by what their lives were about."""
    text = HEAD
    for what in LIVES:
        of_it = [report for report in reports if report.what == what]
        if of_it:
            text += row(what, of_it)
    return text


def print_life(what: str, seed: int) -> int:
    """Live one life, and print all that happened in it."""
    life = LIVES[what](what, seed)
    report = life.run()
    for time_ns, who, what_happened, detail in life.world.log:
        at_s = (time_ns - START_NS) / SECOND
        told = "" if detail is None else detail
        print(f"{at_s:12.6f} {who:10} {what_happened:12} {told}")
    for failure in report.failures:
        print(f"FAILED {failure}")
    return bool(report.failures)


def main() -> int:
    """Live them all, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.orders")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--write", action="store_true", help="into reliability.md")
    parser.add_argument("--life", choices=LIVES)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if asked.life:
        return print_life(asked.life, asked.seed)
    reports = live_all(LIVES, range(asked.seeds), None)
    text = table(reports)
    print(text)
    failed = [report for report in reports if report.failures]
    for report in failed:
        print(f"FAILED --life '{report.what}' --seed {report.seed}: {report.failures}")
    if asked.write:
        before, rest = PAGE.read_text().split(BEGIN)
        after = rest.split(END)[1]
        cells = sum(report.what in CELLS for report in reports)
        note = (
            f"{cells:,} lives of the sixteen cuts and {len(reports) - cells:,} others, "
            f"seeds 0 to {asked.seeds - 1}; {len(failed)} failed."
        )
        PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n{note}\n\n{END}{after}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())

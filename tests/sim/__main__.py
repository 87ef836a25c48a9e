"""``python -m tests.sim SEED [--verbose]``: live a life again, and print its log."""

import argparse

from tests.sim.life import Life
from tests.sim.world import SECOND, START_NS


def main() -> None:
    """Live it, and say what was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim")
    parser.add_argument("seed", type=int)
    parser.add_argument("--verbose", action="store_true", help="print every message")
    asked = parser.parse_args()
    life = Life(asked.seed)
    report = life.run()
    for time_ns, who, what, detail in life.world.log:
        if asked.verbose or who in ("fault", "judge") or what in ("state", "ended"):
            at_s = (time_ns - START_NS) / SECOND
            print(f"{at_s:12.6f} {who:10} {what:12} {'' if detail is None else detail}")
    print(
        f"seed {report.seed}: {report.messages} messages, {report.seconds:.0f} s, "
        f"settled in {report.settled_s:.0f} s, faults {', '.join(report.faults)}, "
        f"log {report.log_hash[:16]}"
    )
    for failure in report.failures:
        print(f"FAILED {failure}")
    raise SystemExit(bool(report.failures))


if __name__ == "__main__":
    main()

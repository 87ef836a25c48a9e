"""A feed handler that notes when it had published each quote.

``python -m benchmarks.wire_handler CONFIG STAMPS COUNT``: what ``feedhandler run
--config CONFIG`` does, by the same code, but with a publisher that stamps the first
COUNT quotes (loops.StampingPublisher); STAMPS gets them when the feed has ended.
"""

import sys
from pathlib import Path
from typing import Any

from benchmarks import harness
from feedhandler import cli, handler
from feedhandler.segments import Segments


def stamping(count: int, made: list[Any]) -> type[Segments]:
    """Return Segments whose publisher stamps *count* quotes, and is put into *made*."""
    publisher_type = harness.built_loops().StampingPublisher

    class Stamping(Segments):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.publisher = publisher_type(self.quotes, self.trades, self.board)
            self.publisher.reserve(count)
            made.append(self.publisher)

    return Stamping


def main(config: str, stamps: str, count: str) -> int:
    made: list[Any] = []
    handler.Segments = stamping(int(count), made)  # type: ignore[misc]
    code = cli.main(["--log-level", "error", "run", "--config", config])
    if made:
        Path(stamps).write_bytes(made[0].stamps())
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

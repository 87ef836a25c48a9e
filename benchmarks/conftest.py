"""Print the benchmarks' own tables after the tests."""

from collections.abc import Iterator

import pytest

ROWS = pytest.StashKey[list[str]]()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Lines to print when all is done."""
    rows: list[str] = []
    yield rows
    request.config.stash.setdefault(ROWS, []).extend(rows)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the benchmarks reported."""
    rows = terminalreporter.config.stash.get(ROWS, [])
    if rows:
        terminalreporter.section("feedhandler")
        for row in rows:
            terminalreporter.write_line(row)

"""Draw the states of a session; ``python -m tests.diagram`` redraws the page."""

import re
from pathlib import Path

from feedhandler.session import TRANSITIONS

PAGE = Path(__file__).parents[1] / "ARCHITECTURE.md"
DRAWN = re.compile(r"```mermaid\nstateDiagram-v2\n.*?```\n", re.DOTALL)


def diagram() -> str:
    """Return the diagram as Markdown, one line for each row of the table."""
    lines = [f"    [*] --> {next(iter(TRANSITIONS)).name}"]
    for state, row in TRANSITIONS.items():
        ends = [
            f"    {state.name} --> {new.name}: {event}" for event, new in row.items()
        ]
        lines += ends or [f"    {state.name} --> [*]"]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```", ""])


if __name__ == "__main__":
    PAGE.write_text(DRAWN.sub(diagram(), PAGE.read_text()))

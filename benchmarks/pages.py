"""Tables that benchmarks write into pages, each between its marks."""

from pathlib import Path


def write(path: Path, name: str, text: str) -> None:
    """Put *text* between ``<!-- name: begin -->`` and ``<!-- name: end -->``."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, rest = path.read_text().split(begin)
    _, after = rest.split(end)
    path.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}")

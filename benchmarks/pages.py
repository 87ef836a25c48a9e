"""Figures in the pages: a benchmark writes its own where the page has the place."""

from pathlib import Path


def write(path: Path, name: str, text: str) -> None:
    """Put *text* between the two markers of *name* in the page at *path*.

    Raises ValueError for a page that has not both of them, once.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    page = path.read_text()
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"{path.name} has no place for {name!r}")
    before, rest = page.split(begin)
    _, after = rest.split(end)
    path.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}")

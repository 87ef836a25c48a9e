"""What ``feedhandler shm`` shows: the segments of this machine and who writes them.

Readers map a segment read-only and leave no trace in it, so they cannot be counted; the
output says so rather than show a zero.
"""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from feedhandler import shm
from feedhandler.counters import CountersReader
from feedhandler.errors import RingAbsent, RingError
from feedhandler.segment import SegmentFlags, StreamKind
from feedhandler.shm import Listing, Status

__all__ = ["Watched", "show_feed", "show_list", "watch"]

READERS = "readers map a segment read-only and cannot be counted"
LOCKED = (Status.LIVE, Status.STALLED)
PERCENTILES = (50, 99, 99.9)
NS_PER_S = 1_000_000_000


class Watched(NamedTuple):
    """A segment, and how many records a second it had between two looks."""

    listing: Listing
    rate: float | None


def watch(
    seconds: float,
    directory: str = shm.DIRECTORY,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Watched]:
    """Look at every segment twice, *seconds* apart."""
    before = {
        listing.path: (listing, time.monotonic_ns())
        for listing in shm.list_segments(directory)
    }
    sleep(seconds)
    return [
        Watched(listing, _rate(listing, *before.get(listing.path, (listing, 0))))
        for listing in shm.list_segments(directory)
    ]


def _rate(now: Listing, before: Listing, before_ns: int) -> float | None:
    """Return records a second; None where they are not counted or not of one writer."""
    if now.meta is None or now.live is None or before.live is None:
        return None
    if before.meta is None or before.meta.origin.epoch != now.meta.origin.epoch:
        return None
    elapsed_ns = time.monotonic_ns() - before_ns
    if not _is_ring(now) or before_ns == 0:
        return None
    return (now.live.head - before.live.head) * NS_PER_S / elapsed_ns


def show_list(watched: Sequence[Watched], as_json: bool) -> None:
    """Print a line for each segment."""
    if as_json:
        for each in watched:
            print(json.dumps(_fields(each), separators=(",", ":")))
        return
    table = Table(title_justify="left")
    for heading in ("feed", "stream", "state", "lock"):
        table.add_column(heading)
    for heading in ("records", "rate/s", "beat", "size", "pid"):
        table.add_column(heading, justify="right")
    for each in watched:
        table.add_row(*_cells(each), style=_style(each.listing))
    console = Console()
    console.print(table if watched else "no segments")
    console.print(Text(READERS, style="dim"))


def _cells(each: Watched) -> list[str]:
    fields = _fields(each)
    if each.listing.problem:
        name, stream = each.listing.name, each.listing.stream
        return [name, stream, f"unreadable: {each.listing.problem}"]
    beat_s = fields["heartbeat_age_s"]
    return [
        fields["feed"],
        fields["stream"],
        fields["state"],
        "held" if fields["locked"] else "free",
        "-" if fields["records"] is None else f"{fields['records']:,}",
        "-" if fields["rate"] is None else f"{fields['rate']:,.0f}",
        "-" if beat_s is None else _age(beat_s),
        _size(fields["bytes"]),
        str(fields["pid"]),
    ]


def _fields(each: Watched) -> dict[str, Any]:
    """Turn a segment into plain values; None where it does not apply."""
    listing = each.listing
    fields: dict[str, Any] = {
        "feed": listing.name,
        "stream": listing.stream,
        "bytes": listing.size_bytes,
        "problem": listing.problem or None,
    }
    if listing.meta is None or listing.live is None or listing.status is None:
        return fields
    origin = listing.meta.origin
    beat_ns = listing.live.heartbeat_mono_ns
    return fields | {
        "state": str(listing.status),
        "locked": listing.status in LOCKED,
        "records": listing.live.head if _is_ring(listing) else None,
        "rate": None if each.rate is None else round(each.rate, 1),
        "heartbeat_age_s": (
            None if beat_ns == 0 else (time.monotonic_ns() - beat_ns) / NS_PER_S
        ),
        "capacity": listing.meta.capacity,
        "record_bytes": listing.meta.record_size,
        "gaps": listing.live.session_gap_count,
        "wakes": bool(listing.meta.flags & SegmentFlags.WAKE),
        "pid": origin.pid,
        "uid": origin.uid,
        "epoch": f"{origin.epoch:016x}",
        "created_ns": origin.created_realtime_ns,
        "version": origin.version,
    }


def show_feed(name: str, watched: Sequence[Watched], as_json: bool) -> None:
    """Print all that the segments of the feed *name* say; RingAbsent if it has none."""
    mine = [each for each in watched if each.listing.name == name]
    if not mine:
        raise RingAbsent(f"no segment of a feed {name!r}; is its feed handler running?")
    counters, histograms = _counted(mine)
    if as_json:
        segments = [_fields(each) for each in mine]
        print(
            json.dumps(
                {
                    "feed": name,
                    "readers": READERS,
                    "segments": segments,
                    "counters": counters,
                    "histograms": histograms,
                },
                separators=(",", ":"),
            )
        )
        return
    console = Console()
    console.print(_details(name, mine))
    if counters:
        console.print(_counter_table(counters))
    if histograms:
        console.print(_histogram_table(histograms))
    console.print(Text(READERS, style="dim"))


def _details(name: str, mine: Sequence[Watched]) -> Table:
    """Make a column of each segment of a feed."""
    columns = [_fields(each) for each in mine]
    table = Table(title=f"feed {name}", title_justify="left")
    table.add_column("")
    for column in columns:
        table.add_column(column["stream"], justify="right")
    keys = dict.fromkeys(key for column in columns for key in column)
    for key in keys:
        if key not in ("feed", "stream"):
            table.add_row(key, *(_text(column.get(key)) for column in columns))
    return table


def _text(value: Any) -> Text:
    if value is None:
        return Text("-")
    return Text(f"{value:.3f}" if isinstance(value, float) else str(value))


def _counted(
    mine: Sequence[Watched],
) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """Return the counters and histograms of a feed, if they can be read."""
    for each in mine:
        if each.listing.stream != "counters" or each.listing.problem:
            continue
        directory = each.listing.path.parent
        try:
            with shm.attach(each.listing.name, "counters", directory=directory) as page:
                reader = CountersReader(page.buffer)
                try:
                    return reader.values(), _summaries(reader)
                finally:
                    reader.release()
        except RingError:
            break
    return {}, {}


def _summaries(reader: CountersReader) -> dict[str, dict[str, int]]:
    found = {}
    for name in reader.histogram_names:
        histogram = reader.histogram(name)
        if histogram.count:
            found[name] = {
                "count": histogram.count,
                **{f"p{p:g}": histogram.percentile(p) for p in PERCENTILES},
                "max": histogram.max,
            }
    return found


def _counter_table(counters: dict[str, int]) -> Table:
    table = Table(title="counters", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in counters.items():
        table.add_row(name, f"{value:,}")
    return table


def _histogram_table(histograms: dict[str, dict[str, int]]) -> Table:
    table = Table(title="histograms", title_justify="left")
    table.add_column("name")
    for heading in next(iter(histograms.values())):
        table.add_column(heading, justify="right")
    for name, summary in histograms.items():
        table.add_row(name, *(f"{value:,}" for value in summary.values()))
    return table


def _is_ring(listing: Listing) -> bool:
    """Tell whether head counts records: of a board it counts symbols."""
    if listing.meta is None:
        return False
    return listing.meta.kind != StreamKind.GENERIC or listing.meta.schema.startswith(
        "["
    )


def _style(listing: Listing) -> str:
    if listing.problem:
        return "red"
    return "" if listing.status is Status.LIVE else "yellow"


def _age(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:,.0f} s"


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.0f} KiB"

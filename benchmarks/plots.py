"""Draw what the benchmarks left in build/benchmarks: ``python -m benchmarks.plots``.

Latencies from wire.npz, which has an array of ns for each row, named such as
"spin msgspec ring" or "floor spinning"; curves from scale.json. What is not there is
said, and the rest drawn. PNGs in benchmarks/plots.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

ROOT = Path(__file__).parent.parent
DATA = ROOT / "build/benchmarks"
PLOTS = ROOT / "benchmarks/plots"

DPI = 110
WIDTH, HEIGHT = 6.4, 3.6
GREY, INK = "#777777", "#222222"
# Told apart by those who see no red or no green.
COLOURS = {"floor": GREY, "msgspec": "#0072b2", "scan": "#d55e00"}
LINES = {"ring": "-", "consumer": (0, (4, 2))}

FLOORS = {"spin": "floor spinning", "block": "floor blocking"}
TITLES = {
    "spin": "One way from the sender, loop that spins",
    "block": "One way from the sender, loop that sleeps",
}
# As the tail is drawn: the share of messages that took longer.
SHARES = (0.5, 0.1, 0.01, 0.001, 0.0001)
MOST_SHARE = 0.999
# Fewer say nothing about the tail.
FEWEST = 10

Rows = Mapping[str, np.ndarray]
Points = list[dict[str, float]]


class Chart(NamedTuple):
    """A chart of scale.json: its curves, by the name of each."""

    title: str
    x: str
    y: str
    curves: dict[str, str]
    scale: float = 1e-3
    is_log: bool = False


US = "us of processor a message"
CHARTS = {
    "instruments": Chart(
        "Cost of a message, books drawn by lot",
        "instruments in one session", US, {"instruments": ""}, is_log=True,
    ),
    "depth": Chart(
        "Cost of a message, deeper books",
        "levels of a side", US,
        {"depth, top": "at the top", "depth, any": "at any level"}, is_log=True,
    ),
    "connections": Chart(
        "Cost of a message over sockets, the same in all",
        "connections", US,
        {"connections, steady": "steady", "connections, flat out": "flat out"},
    ),
    "rate": Chart(
        "Over sockets, flat out, the same in all",
        "connections", "thousand messages a second", {"connections, rate": ""},
    ),
    "readers": Chart(
        "Cost of a message to the writer, as others read",
        "readers that spin on the other processor", US, {"readers": ""},
    ),
}  # fmt: skip
STYLES: tuple[Any, ...] = ("-", (0, (4, 2)))


# ── drawing ───────────────────────────────────────────────────────────────────────────


def new_figure(height: float = HEIGHT) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(WIDTH, height), layout="constrained")
    strip(axes)
    return figure, axes


def strip(axes: Axes) -> None:
    """Leave what carries something."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)
    axes.tick_params(colors=INK, labelsize=8, which="both", length=3, color=GREY)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(fontsize=9, color=INK)


def title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=10, color=INK)


def plainly(value: float, _: int = 0) -> str:
    return f"{value:,.12g}"


def round_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2, 3, 5 and 7 and their tens from *low* to *high*."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    return [
        digit * 10.0**power
        for power in powers
        for digit in (1, 2, 3, 5, 7)
        if low <= digit * 10.0**power <= high
    ]


def label_ends(axes: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """Write each curve's name at its end (x, y, text, colour), none over another."""
    axes.figure.canvas.draw()
    step = 11 * DPI / 72
    placed = -np.inf
    for x, y, text, colour in sorted(ends, key=lambda end: end[1]):
        _, height = axes.transData.transform((x, y))
        wanted = max(height, placed + step)
        placed = wanted
        axes.annotate(
            text, (x, y), (6, (wanted - height) * 72 / DPI),
            textcoords="offset points", color=colour, fontsize=8,
            verticalalignment="center", annotation_clip=False,
        )  # fmt: skip


def save(figure: Figure, name: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    # Without the program's version in it, the same figures make the same file.
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    plt.close(figure)
    return path


# ── latencies ─────────────────────────────────────────────────────────────────────────


def rows_of(rows: Rows, mode: str) -> dict[str, np.ndarray]:
    """Return the rows to draw of a mode: the floor, then ring and consumer, in us."""
    names = [
        name
        for name in rows
        if name == FLOORS[mode]
        or (name.startswith(f"{mode} ") and name.split()[-1] in LINES)
    ]
    names.sort(key=lambda name: name != FLOORS[mode])
    return {name: np.asarray(rows[name]) / 1000 for name in names if len(rows[name])}


def look_of(name: str) -> tuple[str, Any]:
    """Return colour and line of a row."""
    words = name.split()
    colour = next((COLOURS[word] for word in words if word in COLOURS), INK)
    return colour, LINES.get(words[-1], "-")


def draw_tail(rows: dict[str, np.ndarray], mode: str) -> Figure:
    """Draw percentiles, with the tail as wide as the rest."""
    figure, axes = new_figure()
    axes.set(xscale="log", yscale="log")
    lows, highs, ends = [], [], []
    longest = max(len(times) for times in rows.values())
    last = min(SHARES[1], FEWEST / longest)
    for name, times in rows.items():
        # Log-spaced, as they are drawn: of many points most would lie on each other.
        shares = np.geomspace(MOST_SHARE, max(last, FEWEST / len(times)), 200)
        quantiles = np.quantile(times, 1 - shares)
        colour, line = look_of(name)
        axes.plot(shares, quantiles, color=colour, linestyle=line, linewidth=1.4)
        ends.append((shares[-1], quantiles[-1], short(name, mode), colour))
        lows.append(quantiles[0])
        highs.append(quantiles[-1])
    low, high = min(lows) * 0.9, max(highs) * 1.1
    axes.set(xlim=(1, last), ylim=(low, high), xlabel="percentile", ylabel="us")
    ticks = [share for share in SHARES if share >= last]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: plainly(100 - 100 * x)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(FixedLocator(round_ticks(low, high)))
    axes.yaxis.set_major_formatter(FuncFormatter(plainly))
    axes.yaxis.set_minor_locator(NullLocator())
    title(axes, TITLES[mode])
    label_ends(axes, ends)
    return figure


def draw_histograms(rows: dict[str, np.ndarray], mode: str) -> Figure:
    """Draw a histogram for each row, all by the same axis, with its median."""
    figure, several = plt.subplots(
        len(rows), 1, sharex=True, squeeze=False, layout="constrained",
        figsize=(WIDTH, 0.9 + 0.55 * len(rows)),
    )  # fmt: skip
    low = min(np.quantile(times, 0.001) for times in rows.values()) * 0.9
    high = max(np.quantile(times, 0.999) for times in rows.values()) * 1.1
    bins = np.geomspace(low, high, 120)
    for axes, (name, times) in zip(several[:, 0], rows.items(), strict=True):
        strip(axes)
        axes.grid(visible=False)
        axes.spines["left"].set_visible(False)
        colour, _ = look_of(name)
        counts, _ = np.histogram(times, bins)
        axes.stairs(counts, bins, fill=True, color=colour, alpha=0.8)
        median = np.median(times)
        axes.axvline(median, color=INK, linewidth=0.8)
        axes.text(
            1, 0.9, f"{median:,.1f}", transform=axes.transAxes, fontsize=8, color=INK,
            horizontalalignment="right", verticalalignment="top",
        )  # fmt: skip
        axes.set(xscale="log", xlim=(low, high), yticks=[])
        axes.set_ylabel(
            short(name, mode), rotation=0, fontsize=8, color=colour,
            horizontalalignment="right", verticalalignment="center",
        )  # fmt: skip
    bottom = several[-1, 0]
    bottom.xaxis.set_major_locator(FixedLocator(round_ticks(low, high)))
    bottom.xaxis.set_major_formatter(FuncFormatter(plainly))
    bottom.xaxis.set_minor_locator(NullLocator())
    bottom.set_xlabel("us, medians on the right; without the slowest in a thousand")
    title(several[0, 0], TITLES[mode])
    return figure


def short(name: str, mode: str) -> str:
    """Return a row's name without what the title says."""
    return "C, recv()" if name == FLOORS[mode] else name.removeprefix(f"{mode} ")


def draw_latencies(rows: Rows, folder: Path = PLOTS) -> list[Path]:
    """Draw the modes that there are; say which there are not."""
    made = []
    for mode in FLOORS:
        chosen = rows_of(rows, mode)
        if not chosen:
            print(f"not drawn: no rows of {mode!r} in the data")
            continue
        made.append(save(draw_tail(chosen, mode), f"latency-{mode}", folder))
        made.append(save(draw_histograms(chosen, mode), f"histogram-{mode}", folder))
    return made


# ── curves ────────────────────────────────────────────────────────────────────────────


def draw_chart(chart: Chart, codecs: dict[str, dict[str, Points]]) -> Figure | None:
    """Draw the curves of all codecs: medians, and between which extremes they lie."""
    figure, axes = new_figure()
    ends, highest = [], 0.0
    places: set[float] = set()
    for codec, curves in codecs.items():
        for (curve, what), style in zip(chart.curves.items(), STYLES, strict=False):
            points = curves.get(curve, [])
            if not points:
                continue
            x, median, low, high = (
                np.array([point[key] for point in points])
                for key in ("x", "median", "min", "max")
            )
            colour = COLOURS.get(codec, INK)
            y = median * chart.scale
            axes.fill_between(
                x, low * chart.scale, high * chart.scale,
                color=colour, alpha=0.12, linewidth=0,
            )  # fmt: skip
            axes.plot(x, y, color=colour, linestyle=style, marker="o", markersize=3)
            ends.append((x[-1], y[-1], f"{codec} {what}".strip(), colour))
            highest = max(highest, y.max())
            places.update(x.tolist())
    if not ends:
        plt.close(figure)
        return None
    if chart.is_log:
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted(places)))
    axes.xaxis.set_major_formatter(FuncFormatter(plainly))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(plainly))
    # From nothing, so that twice as high is twice as much; a bad minute may go over.
    axes.set(ylim=(0, highest * 1.3), xlabel=chart.x, ylabel=chart.y)
    title(axes, chart.title)
    label_ends(axes, ends)
    return figure


def draw_curves(data: dict[str, Any], folder: Path = PLOTS) -> list[Path]:
    """Draw the charts that there are; say which there are not."""
    codecs = {codec: each["curves"] for codec, each in data["codecs"].items()}
    made = []
    for name, chart in CHARTS.items():
        figure = draw_chart(chart, codecs)
        if figure is None:
            print(f"not drawn: no points of {name!r} in the data")
            continue
        made.append(save(figure, f"scale-{name}", folder))
    return made


def main() -> int:
    made: list[Path] = []
    wire, scale = DATA / "wire.npz", DATA / "scale.json"
    if wire.exists():
        with np.load(wire) as rows:
            made += draw_latencies(dict(rows))
    else:
        print(
            f"not drawn: {wire.name} is not there, from benchmarks.bench_wire_to_ring"
        )
    if scale.exists():
        made += draw_curves(json.loads(scale.read_text()))
    else:
        print(f"not drawn: {scale.name} of bench_scale is not there")
    for path in made:
        print(f"{path.relative_to(ROOT)}, {path.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

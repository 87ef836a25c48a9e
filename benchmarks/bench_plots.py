"""Whether plots.py draws what it is given; nothing is measured here."""

from pathlib import Path

import numpy as np
import pytest

plots = pytest.importorskip("benchmarks.plots", reason="matplotlib is not installed")

MOST_BYTES = 100_000


def rows() -> dict[str, np.ndarray]:
    """Return times as they come: a narrow middle, and a long tail."""
    rng = np.random.default_rng(1)
    floor = (8_000 * rng.lognormal(0, 0.2, 27_000)).astype(np.int64)
    made = {"floor spinning": floor}
    for codec, more_ns in (("msgspec", 3_000), ("scan", 1_500)):
        for what, later_ns in (("read", 0), ("ring", 1_000), ("consumer", 4_000)):
            made[f"spin {codec} {what}"] = floor + more_ns + later_ns
    return made


def scale() -> dict:
    curve = [{"x": x, "median": 700, "min": 650, "max": 900} for x in (1, 10, 100)]
    curves = {name: curve for chart in plots.CHARTS.values() for name in chart.curves}
    return {"codecs": {"msgspec": {"curves": curves}, "scan": {"curves": curves}}}


def test_latencies_are_drawn_and_a_mode_without_any_is_told(tmp_path: Path, capsys):
    made = plots.draw_latencies(rows(), tmp_path)

    assert [path.name for path in made] == ["latency-spin.png", "histogram-spin.png"]
    assert all(0 < path.stat().st_size < MOST_BYTES for path in made)
    assert "no rows of 'block'" in capsys.readouterr().out


def test_every_curve_is_drawn(tmp_path: Path):
    made = plots.draw_curves(scale(), tmp_path)

    assert [path.stem for path in made] == [f"scale-{name}" for name in plots.CHARTS]
    assert all(0 < path.stat().st_size < MOST_BYTES for path in made)


def test_the_same_figures_make_the_same_file(tmp_path: Path):
    once = plots.draw_curves(scale(), tmp_path / "once")
    again = plots.draw_curves(scale(), tmp_path / "again")

    assert [path.read_bytes() for path in once] == [path.read_bytes() for path in again]

"""The medians as bars, one small chart for each condition and job. Needs matplotlib (``pip install '.[bench]'``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from .report import figure, grouped
from .result import Result

COLUMNS = 4
WIDTH, HEIGHT = 4.2, 1.9  # inches of one chart
OURS, OTHER = "#c2410c", "#94a3b8"


def draw(results: Sequence[Result], path: Path) -> None:
    """path: its suffix says which format, .svg or .png. Raises ImportError without matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = grouped(results)
    rows = -(-len(groups) // COLUMNS)
    sheet, axes = pyplot.subplots(rows, COLUMNS, figsize=(COLUMNS * WIDTH, rows * HEIGHT), squeeze=False)
    for axis in axes.flat:
        axis.set_visible(False)
    for axis, ((link, job), by_tool) in zip(axes.flat, groups.items(), strict=False):
        axis.set_visible(True)
        tools = list(by_tool)[::-1]
        sizes = [by_tool[tool][0].size for tool in tools]
        times = [median(r.seconds for r in by_tool[tool]) for tool in tools]
        lengths = [size / t / 1e6 if size else t for size, t in zip(sizes, times, strict=True)]
        bars = axis.barh(tools, lengths, color=[OURS if tool == "s3fsx" else OTHER for tool in tools])
        axis.bar_label(bars, [figure(t, s) for t, s in zip(times, sizes, strict=True)], padding=3, fontsize=7)
        unit = "MB/s, more is better" if sizes[0] else "s, less is better"
        axis.set_title(f"{job}, {link} ({unit})", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.margins(x=0.25)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    sheet.tight_layout()
    sheet.savefig(path)
    pyplot.close(sheet)

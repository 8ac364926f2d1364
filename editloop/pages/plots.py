"""The shared style sheet of EditLoop's pages, and plots as inline SVG that follow its light and dark colours.

Each plot returns an `<svg>` element, which templates do not escape, or None when there is nothing to draw. Plots are
drawn in marker colours, which are then replaced by the page's CSS variables.
"""

import io
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("ink", "soft", "grid", "card", "blue", "violet", "green", "amber", "red")
"""The page's CSS variables."""
MARKERS = tuple(f"#01020{k}" for k in range(1, 1 + len(COLOURS)))
"""The marker colours of COLOURS, which no drawing contains by chance."""
INK, SOFT, GRID, CARD, BLUE, VIOLET, GREEN, AMBER, RED = MARKERS


class IntervalRow(NamedTuple):
    """One row of an interval plot: a figure with its 95 % interval."""

    label: str
    value: float | None
    interval: tuple[float, float] | None
    colour: str
    shown: str
    """The figure as text, at the right end of the row."""


class Curve(NamedTuple):
    """One panel of `curves`: a quantity over training steps."""

    title: str
    steps: Sequence[float]
    values: Sequence[float]
    colour: str
    dots: bool = False
    """Draw every value as a dot (few evaluations) instead of a smoothed line (many steps)."""
    percent: bool = False
    """Values are shares; the axis shows them in percent."""
    band: Sequence[tuple[float, float]] = ()
    """95 % intervals, one per value, shaded behind the dots. Empty: none."""


class Line(NamedTuple):
    """One line of `trend`, or one group of `bars`: a value per step, None where it is missing."""

    label: str
    values: Sequence[float | None]
    colour: str
    intervals: Sequence[tuple[float, float] | None] = ()
    """95 % intervals, one per value. Empty: none."""


class Layer(NamedTuple):
    """One layer of a histogram: the values of one kind."""

    label: str
    values: Any
    """Finite numbers, (N,)."""
    colour: str


class ReferenceLine(NamedTuple):
    """A vertical reference line across an interval plot."""

    at: float
    label: str


def page_style() -> str:
    """Return the style sheet that the pages share."""
    return (Path(__file__).parent / "page.css").read_text()


def finite_or_none(value: Any) -> float | None:
    """Return `value` where it is a finite int or float, else None, so that a missing figure never reads as zero.

    Args:
        value: Anything. Booleans and texts give None.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def intervals(
    name: str,
    rows: Sequence[IntervalRow],
    limits: tuple[float, float],
    marks: Sequence[ReferenceLine] = (),
    ticks: Callable[[float], str] = "{:.1f}".format,
) -> Markup | None:
    """Plot figures as dots with their 95 % intervals, one per row. Rows without a value are left out.

    Args:
        name: Name of the drawing, unique on its page: the ids inside the SVG derive from it.
        rows: The rows, top to bottom.
        limits: Left and right end of the horizontal axis.
        marks: Vertical reference lines.
        ticks: Formats a tick of the horizontal axis.

    Returns:
        The `<svg>` element, or None where no row has a value.
    """
    rows = [row for row in rows if row.value is not None]
    if not rows:
        return None
    top, bottom = (0.3 if marks else 0.1), 0.3
    height = top + bottom + 0.56 * len(rows)

    def draw(figure: "Figure") -> None:
        axes = figure.subplots(
            gridspec_kw={"left": 0.03, "right": 0.96, "top": 1 - top / height, "bottom": bottom / height}
        )
        behind = {"facecolor": CARD, "edgecolor": "none", "pad": 1.5}
        for row_index, row in enumerate(reversed(rows)):
            if row.interval is not None:
                bar: dict[str, Any] = {"color": row.colour, "linewidth": 5, "alpha": 0.35, "solid_capstyle": "round"}
                axes.plot(row.interval, (row_index, row_index), **bar)
            assert row.value is not None  # such rows are left out
            axes.plot(row.value, row_index, "o", color=row.colour, markersize=9, clip_on=False)
            style: dict[str, Any] = {"color": INK, "fontsize": 10, "bbox": behind}
            axes.text(limits[0], row_index + 0.25, row.label, ha="left", **style)
            axes.text(limits[1], row_index + 0.25, row.shown, weight="bold", ha="right", **style)
        for mark in marks:
            axes.axvline(mark.at, color=SOFT, linewidth=1, linestyle=(0, (3, 3)), zorder=0)
            axes.text(mark.at, len(rows) - 0.2, mark.label, color=SOFT, fontsize=8.5, ha="center", va="bottom")
        axes.set_xlim(*limits)
        axes.set_ylim(-0.35, len(rows) - 0.25)
        axes.set_yticks([])
        axes.xaxis.set_major_formatter(lambda value, _: ticks(value))
        _plain(axes, grid=False)
        axes.spines["left"].set_visible(False)

    return _svg(name, (5.4, height), draw)


def curves(name: str, panels: Sequence[Curve]) -> Markup | None:
    """Plot panels side by side. Values that are not drawn as dots are drawn faint under their running mean.

    Args:
        name: Name of the drawing, unique on its page.
        panels: The panels, left to right. Empty ones are left out.

    Returns:
        The `<svg>` element, or None where no panel has values.
    """
    panels = [panel for panel in panels if len(panel.values) > 0]
    if not panels:
        return None

    def draw(figure: "Figure") -> None:
        margins = {"left": 0.055, "right": 0.99, "top": 0.86, "bottom": 0.15, "wspace": 0.24}
        grid = figure.subplots(1, len(panels), squeeze=False, gridspec_kw=margins)[0]
        for axes, panel in zip(grid, panels, strict=True):
            if panel.band:
                low, high = zip(*panel.band, strict=True)
                axes.fill_between(panel.steps, low, high, color=panel.colour, alpha=0.16, linewidth=0)
            if panel.dots:
                axes.plot(panel.steps, panel.values, "o-", color=panel.colour, linewidth=1.6, markersize=5)
            else:
                smooth = running_mean(panel.values, max(1, len(panel.values) // 12))
                axes.plot(panel.steps, panel.values, color=panel.colour, linewidth=1, alpha=0.3)
                axes.plot(panel.steps, smooth, color=panel.colour, linewidth=2)
            axes.set_title(panel.title, fontsize=10, color=INK, loc="left", pad=8)
            axes.locator_params(axis="x", nbins=5, integer=True)
            axes.locator_params(axis="y", nbins=5)
            if panel.percent:
                axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
            else:
                axes.ticklabel_format(axis="y", style="plain", useOffset=False)
            if min(*panel.values, *(low for low, _ in panel.band), 0) == 0:
                axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))
            _plain(axes)

    return _svg(name, (11.4, 2.7), draw)


def trend(name: str, steps: Sequence[str], lines: Sequence[Line], zero: bool = False) -> Markup | None:
    """Plot lines over named steps, with their intervals and a label at the right end of each line.

    Args:
        name: Name of the drawing, unique on its page.
        steps: Names of the steps, left to right.
        lines: The lines, with one value per step. Lines without any value are left out.
        zero: Draw the zero line.

    Returns:
        The `<svg>` element, or None with fewer than two steps or no value.
    """
    lines = [line for line in lines if any(value is not None for value in line.values)]
    if not lines or len(steps) < 2:
        return None

    def draw(figure: "Figure") -> None:
        axes = figure.subplots(gridspec_kw={"left": 0.09, "right": 0.8, "top": 0.95, "bottom": 0.14})
        ends = []
        for offset, line in enumerate(lines):
            measured = [(at, value) for at, value in enumerate(line.values) if value is not None]
            shift = 0.06 * (offset - (len(lines) - 1) / 2) if line.intervals else 0.0
            axes.plot(
                [at + shift for at, _ in measured], [y for _, y in measured], "o-", color=line.colour, markersize=5
            )
            for at, ends_of in enumerate(line.intervals):
                if ends_of is not None:
                    axes.plot((at + shift,) * 2, ends_of, color=line.colour, linewidth=4, alpha=0.3)
            ends.append((measured[-1][1], line))
        low, high = axes.get_ylim()
        ends.sort(key=lambda end: end[0])
        for height, (_, line) in zip(_apart([end for end, _ in ends], low, high), ends, strict=True):
            axes.text(len(steps) - 0.85, height, line.label, color=line.colour, fontsize=9, va="center")
        axes.set_ylim(low, high)
        if zero:
            axes.axhline(0, color=SOFT, linewidth=1, linestyle=(0, (3, 3)), zorder=0)
        axes.set_xlim(-0.2, len(steps) - 0.9)
        axes.set_xticks(range(len(steps)), steps)
        _plain(axes)

    return _svg(name, (5.4, max(2.6, 0.24 * len(lines) + 1)), draw)


def _apart(heights: Sequence[float], low: float, high: float) -> list[float]:
    """Move labels apart so that they do not overlap, each near its own height.

    Args:
        heights: Wanted heights, sorted.
        low: Lower end of the axis. With too many labels some fall below it.
        high: Upper end of the axis; no label is above it.
    """
    room = 0.075 * (high - low)
    placed: list[float] = []
    for height in heights:
        placed.append(max([height, *(below + room for below in placed[-1:])]))
    for at in reversed(range(len(placed))):
        placed[at] = min(placed[at], high if at == len(placed) - 1 else placed[at + 1] - room)
    return placed


def bars(name: str, steps: Sequence[str], groups: Sequence[Line], limit: float) -> Markup | None:
    """Plot bars around zero: one cluster per step, one bar per group.

    Args:
        name: Name of the drawing, unique on its page.
        steps: Names of the steps, left to right.
        groups: The groups, with one value per step. A missing value gets no bar.
        limit: The vertical axis reaches at least this far up and down.

    Returns:
        The `<svg>` element, or None without steps or groups.
    """
    if not steps or not groups:
        return None
    width = 0.7 / len(groups)

    def draw(figure: "Figure") -> None:
        axes = figure.subplots(gridspec_kw={"left": 0.11, "right": 0.98, "top": 0.85, "bottom": 0.12})
        for offset, group in enumerate(groups):
            places = [at + (offset - (len(groups) - 1) / 2) * width for at in range(len(steps))]
            present = [(at, value) for at, value in zip(places, group.values, strict=True) if value is not None]
            axes.bar([at for at, _ in present], [value for _, value in present], width * 0.9, color=group.colour)
            axes.text(offset / len(groups), 1.06, group.label, color=group.colour, fontsize=9, transform=axes.transAxes)
        reach = max([limit, *(1.1 * abs(value or 0.0) for group in groups for value in group.values)])
        axes.set_ylim(-reach, reach)
        axes.set_xticks(range(len(steps)), steps)
        axes.axhline(0, color=SOFT, linewidth=1)
        _plain(axes)

    return _svg(name, (5.4, 2.4), draw)


def histogram(name: str, layers: Sequence[Layer], bins: int) -> Markup | None:
    """Plot a histogram whose layers are stacked in each bar.

    Args:
        name: Name of the drawing, unique on its page.
        layers: The layers, bottom to top. Empty ones are left out.
        bins: Number of bars over the range of all values.

    Returns:
        The `<svg>` element, or None where no layer has values.
    """
    layers = [layer for layer in layers if len(layer.values)]
    if not layers:
        return None

    def draw(figure: "Figure") -> None:
        axes = figure.subplots(gridspec_kw={"left": 0.1, "right": 0.98, "top": 0.87, "bottom": 0.12})
        colours = [layer.colour for layer in layers]
        axes.hist([layer.values for layer in layers], bins=bins, stacked=True, color=colours)
        for index, layer in enumerate(layers):
            axes.text(index / 4, 1.05, layer.label, color=layer.colour, fontsize=9, transform=axes.transAxes)
        _plain(axes)

    return _svg(name, (5.4, 2.8), draw)


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """Return the mean of each value and those before it in a window. No later value enters.

    Args:
        values: The values, in order.
        width: Size of the window; at the start it holds fewer values.

    Returns:
        As many means as there are values.
    """
    return [math.fsum(values[max(0, k - width + 1) : k + 1]) / min(k + 1, width) for k in range(len(values))]


def series(rows: Any, key: str) -> tuple[list[float], list[float]]:
    """Return the steps and values of one key in a list of records. Records without a finite value are left out.

    Args:
        rows: Records like {"step": 3, "loss": 0.5}. Without "step" a record's position counts. Anything but a list
            counts as empty.
        key: The key to read.

    Returns:
        The steps and the values.
    """
    points = [
        (step, value)
        for index, row in enumerate(rows if isinstance(rows, list) else [])
        if isinstance(row, dict)
        and (value := finite_or_none(row.get(key))) is not None
        and (step := finite_or_none(row.get("step", index))) is not None
    ]
    return [step for step, _ in points], [value for _, value in points]


def _plain(axes: "Axes", *, grid: bool = True) -> None:
    axes.tick_params(colors=SOFT, labelsize=8.5, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)
    if grid:
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)


def _svg(name: str, inches: tuple[float, float], draw: Callable[["Figure"], None]) -> Markup:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure = Figure(figsize=inches)
        FigureCanvasSVG(figure)
        figure.patch.set_alpha(0)
        draw(figure)
        for axes in figure.axes:
            axes.patch.set_alpha(0)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    # In a page a drawing's style sheet and group ids would affect the rest of it; the page sets size and font.
    drawing = re.sub(r"<(metadata|style)\b.*?</\1>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r'<g id="[^"]*"', "<g", drawing)
    drawing = re.sub(r"font-family: [^;]*; ", "", drawing)
    drawing = re.sub(r'<svg (.*?)width="[^"]*" height="[^"]*"', r'<svg class="plot" \1', drawing, count=1)
    for colour, variable in zip(MARKERS, COLOURS, strict=True):
        drawing = drawing.replace(colour, f"var(--{variable})")
    return Markup(drawing)

"""Write best-of-N curves: best-of-n.json for programs, best-of-n.md and page.html for people."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from editloop.content import write_file, write_json
from editloop.evaluation.best_of_n.curve import CurvePoint, best_of_curve
from editloop.evaluation.best_of_n.sampling import SampledEdits
from editloop.evaluation.editors import ORACLE
from editloop.pages.plots import BLUE, GREEN, RED, VIOLET, Line, trend
from editloop.pages.templates import render

COUNTS = (1, 2, 4, 8, 16)
"""Default values of N."""
COLOURS = (BLUE, VIOLET, RED)

BestOfCurves = dict[str, list[CurvePoint]]
"""Points of each judge's curve, by judge."""


def best_of_curves(sampled: SampledEdits, counts: Sequence[int], *, seed: int = 0) -> BestOfCurves:
    """Compute each judge's curve: the share of right edits among its best of N, for each N.

    Args:
        sampled: The edits with their scores.
        counts: The values of N.
        seed: Seed of the bootstrap.

    Returns:
        The curves by judge, the oracle's first.

    Raises:
        EditLoopError: An N is larger than the number of edits per task.
    """
    return {
        name: best_of_curve(scores, sampled.right, counts, sampled.clusters, seed=seed)
        for name, scores in sampled.scores.items()
    }


def write_best_of(sampled: SampledEdits, curves: BestOfCurves, folder: Path, facts: dict[str, Any]) -> None:
    """Write the three files.

    Args:
        sampled: The edits with their scores.
        curves: The curves.
        folder: An existing folder to write into.
        facts: What the page and the JSON say beside the curves.
    """
    missing = {name: int((scores != scores).sum()) for name, scores in sampled.scores.items()}
    report = {
        **facts,
        "tasks": len(sampled.right),
        "made": sampled.right.shape[1],
        "missing": missing,
        "curves": {name: [point._asdict() for point in points] for name, points in curves.items()},
    }
    write_json(folder / "best-of-n.json", report)
    write_file(folder / "best-of-n.md", curves_table(curves))
    page = render(
        Path(__file__).with_name("best_of_n_page.html.j2"),
        report=report,
        facts=facts,
        curves=curves,
        shown=format_point,
        picture=_picture(curves) or "",
    )
    write_file(folder / "page.html", page)


def curves_table(curves: BestOfCurves) -> str:
    """Return the curves as a Markdown table: percent of right edits, with intervals.

    Args:
        curves: The curves; all have the same values of N.
    """
    counts = [point.best_of for point in next(iter(curves.values()))]
    lines = [f"| best by | {' | '.join(f'N = {count}' for count in counts)} |", "|---" * (1 + len(counts)) + "|"]
    lines += [f"| {name} | {' | '.join(format_point(point) for point in points)} |" for name, points in curves.items()]
    return "\n".join(lines) + "\n"


def format_point(point: CurvePoint) -> str:
    """Format a point, such as "62.1 % (58.0 to 66.1)".

    Args:
        point: The point; its value is a share, 0..1.
    """
    ends = "" if point.ends is None else f" ({100 * point.ends[0]:.1f} to {100 * point.ends[1]:.1f})"
    return f"{100 * point.value:.1f} %{ends}"


def _picture(curves: BestOfCurves) -> Markup | None:
    colours = {ORACLE: GREEN}
    lines = []
    for name, points in curves.items():
        colour = colours.setdefault(name, COLOURS[(len(colours) - 1) % len(COLOURS)])
        ends = [None if point.ends is None else (100 * point.ends[0], 100 * point.ends[1]) for point in points]
        lines.append(Line(name, [100 * point.value for point in points], colour, ends))
    return trend("best-of-n", [str(point.best_of) for point in next(iter(curves.values()))], lines)

"""Renders the report of the claims as an HTML page and as a Markdown document."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from editloop.pages.plots import (
    AMBER,
    BLUE,
    GREEN,
    RED,
    SOFT,
    VIOLET,
    IntervalRow,
    Line,
    ReferenceLine,
    intervals,
    trend,
)
from editloop.pages.templates import render

CHIPS = {"held": "good", "not held": "bad", "undecided": "wait", "not measured": ""}
COLOURS = {"held": GREEN, "not held": RED, "undecided": AMBER, "not measured": SOFT}
LINES = (GREEN, BLUE, VIOLET)


def claims_page(report: Mapping[str, Any]) -> str:
    """Return the report as a self-contained HTML page.

    Args:
        report: The report of `write_claims`.
    """
    return render(
        Path(__file__).with_name("claims_page.html.j2"),
        found=report,
        took=costs_sentence(report),
        chips=CHIPS,
        forests={claim["number"]: _forest(claim) or "" for claim in report["claims"]},
        plots={claim["number"]: _plot(claim) or "" for claim in report["claims"]},
    )


def claims_document(report: Mapping[str, Any]) -> str:
    """Return the report as a complete Markdown page, like `docs/claims.md`.

    Args:
        report: The report of `write_claims`.
    """
    return f"""# The papers' claims, at laptop scale

`editloop claims` measures them on drawn scenes with tiny models, {_seeds(report["seeds"])}, against an oracle that
knows every right result. Held: the 95 % interval over seeds (Student's t, paired) of every bold difference lies above
zero. Not held: that of one lies below. Undecided: neither. The other differences are shown beside and decide nothing.

{claims_table(report)}
{"".join(f"{claim['number']}. {claim['how']}" + chr(10) for claim in report["claims"])}
{costs_sentence(report)}
"""


def claims_table(report: Mapping[str, Any]) -> str:
    """Return the claims as a Markdown table: verdict, and each contrast with its interval.

    Args:
        report: The report of `write_claims`.
    """
    lines = ["| | claim | verdict | what was measured (95 % interval over seeds) |", "|---|---|---|---|"]
    for claim in report["claims"]:
        cells = "<br>".join(
            f"{contrast['label']}: "
            f"{'**' if contrast['decides'] else ''}{contrast['shown']}{'**' if contrast['decides'] else ''}"
            for contrast in claim["contrasts"]
        )
        seeds = f"{claim['verdict']} ({_seeds(claim['seeds'])})" if claim["seeds"] else claim["verdict"]
        lines.append(f"| {claim['number']} | {claim['says']} | {seeds} | {cells} |")
    return "\n".join(lines) + "\n"


def costs_sentence(report: Mapping[str, Any]) -> str:
    """Return a sentence with the number of pieces, their total time and their total processor time.

    Args:
        report: The report of `write_claims`.
    """
    clock, work = (
        sum(cost["seeds"] * cost[name] for cost in report["took"]) for name in ("seconds", "processor_seconds")
    )
    count = sum(cost["seeds"] for cost in report["took"])
    return f"{count} pieces took {clock / 60:.0f} minutes, one after the other, and {work / 60:.0f} of a processor."


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"


def _forest(claim: Mapping[str, Any]) -> Markup | None:
    """Plot of a claim's contrasts with their intervals, times 100; None if none was measured."""
    measured_contrasts = [contrast for contrast in claim["contrasts"] if contrast["mean"] is not None]
    if not measured_contrasts:
        return None
    ends = [100 * abs(end) for contrast in measured_contrasts for end in (contrast["mean"], *(contrast["ci95"] or ()))]
    reach = 1.05 * max(2.0, *ends)
    rows = [
        IntervalRow(
            contrast["label"],
            100 * contrast["mean"],
            (100 * contrast["ci95"][0], 100 * contrast["ci95"][1]) if contrast["ci95"] else None,
            COLOURS[claim["verdict"]] if contrast["decides"] else SOFT,
            f"{100 * contrast['mean']:+.1f}",
        )
        for contrast in measured_contrasts
    ]
    return intervals(
        f"claim-{claim['number']}", rows, (-reach, reach), [ReferenceLine(0.0, "no difference")], "{:+.0f}".format
    )


def _plot(claim: Mapping[str, Any]) -> Markup | None:
    """Plot of a claim's lines along `places`, times 100."""
    lines = [
        Line(
            trace["label"],
            [None if point["mean"] is None else 100 * point["mean"] for point in trace["points"]],
            colour,
            [(100 * point["ci95"][0], 100 * point["ci95"][1]) if point["ci95"] else None for point in trace["points"]],
        )
        for trace, colour in zip(claim["traces"], LINES, strict=False)
    ]
    return trend(f"claim-{claim['number']}-plot", claim["places"], lines)

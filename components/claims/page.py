"""What was found of the claims, as a page and as a table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from infra.plots import AMBER, BLUE, GREEN, RED, SOFT, VIOLET, Estimate, Line, Mark, intervals, page_style, trend

CHIPS = {"held": "good", "not held": "bad", "undecided": "wait", "not measured": ""}
COLOURS = {"held": GREEN, "not held": RED, "undecided": AMBER, "not measured": SOFT}
LINES = (GREEN, BLUE, VIOLET)


def claims_page(found: Mapping[str, Any]) -> str:
    """One self-contained HTML page of what `claims.json` holds."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("claims_page.html.j2").render(
        found=found,
        style=Markup(page_style()),
        took=took(found),
        chips=CHIPS,
        forests={claim["number"]: Markup(_forest(claim) or "") for claim in found["claims"]},
        plots={claim["number"]: Markup(_plot(claim) or "") for claim in found["claims"]},
    )


def document(found: Mapping[str, Any]) -> str:
    """The same as a Markdown page of its own, as `docs/claims.md`."""
    return f"""# The papers' claims, at laptop scale

`editloop claims` measures them on drawn scenes with tiny models, {_seeds(found["seeds"])}, against an oracle that
knows every right result. Held: the 95 % interval over seeds (Student's t, paired) of every bold difference lies above
zero. Not held: that of one lies below. Undecided: neither. The other differences are shown beside and decide nothing.

{table(found)}
{"".join(f"{claim['number']}. {claim['how']}" + chr(10) for claim in found["claims"])}
{took(found)}
"""


def table(found: Mapping[str, Any]) -> str:
    """The claims as a Markdown table: verdict, and each contrast with its interval."""
    lines = ["| | claim | verdict | what was measured (95 % interval over seeds) |", "|---|---|---|---|"]
    for claim in found["claims"]:
        cells = "<br>".join(
            f"{one['label']}: {'**' if one['decides'] else ''}{one['shown']}{'**' if one['decides'] else ''}"
            for one in claim["contrasts"]
        )
        seeds = f"{claim['verdict']} ({_seeds(claim['seeds'])})" if claim["seeds"] else claim["verdict"]
        lines.append(f"| {claim['number']} | {claim['says']} | {seeds} | {cells} |")
    return "\n".join(lines) + "\n"


def took(found: Mapping[str, Any]) -> str:
    """What all of it took, in a sentence."""
    clock, work = (sum(one["seeds"] * one[name] for one in found["took"]) for name in ("seconds", "processor_seconds"))
    count = sum(one["seeds"] for one in found["took"])
    return f"{count} pieces took {clock / 60:.0f} minutes, one after the other, and {work / 60:.0f} of a processor."


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"


def _forest(claim: Mapping[str, Any]) -> str | None:
    """Contrasts with their intervals around zero, in hundredths."""
    known = [one for one in claim["contrasts"] if one["mean"] is not None]
    if not known:
        return None
    ends = [100 * abs(end) for one in known for end in (one["mean"], *(one["ci95"] or ()))]
    reach = 1.05 * max(2.0, *ends)
    rows = [
        Estimate(
            one["label"],
            100 * one["mean"],
            (100 * one["ci95"][0], 100 * one["ci95"][1]) if one["ci95"] else None,
            COLOURS[claim["verdict"]] if one["decides"] else SOFT,
            f"{100 * one['mean']:+.1f}",
        )
        for one in known
    ]
    return intervals(f"claim-{claim['number']}", rows, (-reach, reach), [Mark(0.0, "no difference")], "{:+.0f}".format)


def _plot(claim: Mapping[str, Any]) -> str | None:
    """A claim's figure along its places, in hundredths."""
    lines = [
        Line(
            one["label"],
            [None if point["mean"] is None else 100 * point["mean"] for point in one["points"]],
            colour,
            [(100 * point["ci95"][0], 100 * point["ci95"][1]) if point["ci95"] else None for point in one["points"]],
        )
        for one, colour in zip(claim["traces"], LINES, strict=False)
    ]
    return trend(f"claim-{claim['number']}-plot", claim["places"], lines)

"""HTML page of an online RL training: its state, scores with intervals, what the guards measure, contact sheets."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from editloop.pages.plots import AMBER, BLUE, GREEN, VIOLET, Curve, curves, finite_or_none
from editloop.pages.templates import render


class MeasureRow(NamedTuple):
    """A measure as the page shows it."""

    name: str
    title: str
    says: str
    """What to look for in the measure."""


MEASURES = (
    MeasureRow("kl", "distance to the base", "Grows as the editor learns; without bound it leaves what it could do."),
    MeasureRow(
        "ratio", "probability ratio", "Flow-GRPO: near 1. Far below 1, the clip never acts and updates are biased."
    ),
    MeasureRow("clipped", "share clipped", "Flow-GRPO: 0 for ever says that updates are too small, near 1 too large."),
    MeasureRow("silent_groups", "groups without spread", "They teach nothing: harder tasks, or more members."),
    MeasureRow("missing", "rewards missing in training", "What the judge could not score; these edits are left out."),
    MeasureRow("reward_missing", "rewards missing here", "Of the held-out tasks."),
    MeasureRow(
        "preservation", "left alone outside the edit", "1: all of it. Falls where the editor repaints pictures."
    ),
    MeasureRow("diversity", "diversity within a group", "Falls towards 0 where all edits of a task become one."),
    MeasureRow(
        "grid_texture", "texture on the patch grid", "Rises where the network paints patterns that a reward likes."
    ),
    MeasureRow("noise_dots", "noise dots", "Share of pixels that stick out alone: too much noise in stochastic steps."),
)
A_ROW = 4
"""Number of panels side by side."""


def training_page(
    evaluations: Sequence[Mapping[str, Any]], watching: Sequence[str], pictures: Mapping[str, Path]
) -> str:
    """Return a self-contained HTML page.

    Args:
        evaluations: Records of evaluations.json, at least one.
        watching: Names of the watching judges, from which the editor does not learn.
        pictures: PNG files of the contact sheets, by caption.
    """
    filters = {"figure": _figure}
    flat_records = [_flat(record) for record in evaluations]
    colours = dict.fromkeys(watching, GREEN) | {"reward": BLUE}
    ordered = dict.fromkeys(("reward", *watching, "oracle", "right"))
    scores = [name for name in ordered if any(name in flat_record for flat_record in flat_records)]
    panels = [_panel(flat_records, name, _title(name, watching), colours.get(name, VIOLET)) for name in scores]
    panels.append(_panel(flat_records, "practised", "reward while practising", BLUE))
    guards = [_panel(flat_records, row.name, row.title, AMBER) for row in MEASURES]
    first, last = flat_records[0], flat_records[-1]
    return render(
        Path(__file__).with_name("training_page.html.j2"),
        filters,
        last=last,
        best=evaluations[-1]["best_iteration"],
        stopped=evaluations[-1].get("stopped", ""),
        watching=watching,
        scores=[(name, _title(name, watching), first.get(name), last.get(name), _span(last, name)) for name in scores],
        score_plots=_plots("scores", panels),
        guard_plots=_plots("guards", guards),
        measures=[
            (row, first.get(row.name), last.get(row.name)) for row in MEASURES if _is_measured(flat_records, row.name)
        ],
        pictures={
            caption: f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
            for caption, path in pictures.items()
        },
    )


def _flat(record: Mapping[str, Any]) -> dict[str, float]:
    training = {"practised" if name == "reward" else name: value for name, value in record["training"].items()}
    figures: dict[str, float] = {"step": record["step"]} | training | record["figures"]
    return figures


def _is_measured(records: Sequence[Mapping[str, float]], name: str) -> bool:
    return any(finite_or_none(record.get(name)) is not None for record in records)


def _title(name: str, watching: Sequence[str]) -> str:
    title = {"reward": "reward (it teaches)", "right": "share of right edits"}.get(name, name.removeprefix("watch_"))
    return f"{title} (it watches)" if name in watching else title


def _panel(records: Sequence[Mapping[str, float]], name: str, title: str, colour: str) -> Curve:
    measured = [record for record in records if finite_or_none(record.get(name)) is not None]
    has_band = all(f"{name}_low" in record and f"{name}_high" in record for record in measured)
    band = [(record[f"{name}_low"], record[f"{name}_high"]) for record in measured] if has_band else []
    steps, values = [record["step"] for record in measured], [record[name] for record in measured]
    return Curve(title, steps, values, colour, dots=True, percent=name == "right", band=band)


def _plots(name: str, panels: Sequence[Curve]) -> list[Markup]:
    """Return SVG rows of A_ROW panels at most. Panels without a value are left out."""
    drawn = [panel for panel in panels if len(panel.values)]
    rows = [drawn[start : start + A_ROW] for start in range(0, len(drawn), A_ROW)]
    return [Markup(curves(f"{name}-{index}", row) or "") for index, row in enumerate(rows)]


def _span(record: Mapping[str, float], name: str) -> str:
    ends = [finite_or_none(record.get(f"{name}_{side}")) for side in ("low", "high")]
    return "" if None in ends else f"{_figure(ends[0])} to {_figure(ends[1])}"


def _figure(value: Any) -> str:
    figure = finite_or_none(value)
    if figure is None:
        return "not measured"
    return f"{figure:.3f}" if abs(figure) >= 0.01 or figure == 0 else f"{figure:.2e}"

"""The page of an RL training: how it stands and why, curves with intervals, what the guards saw, contact sheets."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from infra.plots import AMBER, BLUE, GREEN, VIOLET, Curve, curves, number, page_style


class Row(NamedTuple):
    """A measure as the page shows it."""

    name: str
    title: str
    says: str
    """What to look for in it."""


MEASURES = (
    Row("kl", "distance to the base", "Grows as the editor learns; without bound it leaves what it could do."),
    Row("ratio", "probability ratio", "Flow-GRPO: near 1. Far below 1, the clip never acts and updates are biased."),
    Row("clipped", "share clipped", "Flow-GRPO: 0 for ever says that updates are too small, near 1 too large."),
    Row("silent_groups", "groups without spread", "They teach nothing: harder tasks, or more members."),
    Row("missing", "rewards missing in training", "What the judge could not score; these edits are left out."),
    Row("reward_missing", "rewards missing here", "Of the held-out tasks."),
    Row("preservation", "left alone outside the edit", "1: all of it. Falls where the editor repaints pictures."),
    Row("diversity", "diversity within a group", "Falls towards 0 where all edits of a task become one."),
    Row("grid_texture", "texture on the patch grid", "Rises where the network paints patterns that a reward likes."),
    Row("noise_dots", "noise dots", "Share of pixels that stick out alone: too much noise in stochastic steps."),
)
A_ROW = 4
"""Panels side by side."""


def training_page(
    evaluations: Sequence[Mapping[str, Any]], watching: Sequence[str], pictures: Mapping[str, Path],
) -> str:  # fmt: skip
    """One self-contained HTML page.

    evaluations: records of evaluations.json, at least one. watching: names of the judges that do not teach. pictures:
    PNG files by caption.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["figure"] = _figure
    told = [_flat(record) for record in evaluations]
    colours = dict.fromkeys(watching, GREEN) | {"reward": BLUE}
    ordered = dict.fromkeys(("reward", *watching, "oracle", "right"))
    scores = [name for name in ordered if any(name in one for one in told)]
    panels = [_panel(told, name, _title(name, watching), colours.get(name, VIOLET)) for name in scores]
    panels.append(_panel(told, "practised", "reward while practising", BLUE))
    guards = [_panel(told, row.name, row.title, AMBER) for row in MEASURES]
    return environment.get_template("training_page.html.j2").render(
        style=Markup(page_style()),
        last=told[-1],
        best=evaluations[-1]["best_iteration"],
        stopped=evaluations[-1].get("stopped", ""),
        watching=watching,
        scores=[
            (name, _title(name, watching), told[0].get(name), told[-1].get(name), _span(told[-1], name))
            for name in scores
        ],
        score_plots=_plots("scores", panels),
        guard_plots=_plots("guards", guards),
        measures=[(row, told[0].get(row.name), told[-1].get(row.name)) for row in MEASURES if _known(told, row.name)],
        pictures={
            caption: f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
            for caption, path in pictures.items()
        },
    )


def _flat(record: Mapping[str, Any]) -> dict[str, float]:
    training = {"practised" if name == "reward" else name: value for name, value in record["training"].items()}
    return {"step": record["step"]} | training | record["figures"]


def _known(told: Sequence[Mapping[str, float]], name: str) -> bool:
    return any(number(one.get(name)) is not None for one in told)


def _title(name: str, watching: Sequence[str]) -> str:
    title = {"reward": "reward (it teaches)", "right": "share of right edits"}.get(name, name.removeprefix("watch_"))
    return f"{title} (it watches)" if name in watching else title


def _panel(told: Sequence[Mapping[str, float]], name: str, title: str, colour: str) -> Curve:
    known = [one for one in told if number(one.get(name)) is not None]
    whole = all(f"{name}_low" in one and f"{name}_high" in one for one in known)
    band = [(one[f"{name}_low"], one[f"{name}_high"]) for one in known] if whole else []
    steps, values = [one["step"] for one in known], [one[name] for one in known]
    return Curve(title, steps, values, colour, dots=True, percent=name == "right", band=band)


def _plots(name: str, panels: Sequence[Curve]) -> list[Markup]:
    """SVG rows of A_ROW panels at most; panels without a value are left out."""
    drawn = [panel for panel in panels if len(panel.values)]
    rows = [drawn[start : start + A_ROW] for start in range(0, len(drawn), A_ROW)]
    return [Markup(curves(f"{name}-{place}", row) or "") for place, row in enumerate(rows)]


def _span(one: Mapping[str, float], name: str) -> str:
    ends = [number(one.get(f"{name}_{side}")) for side in ("low", "high")]
    return "" if None in ends else f"{_figure(ends[0])} to {_figure(ends[1])}"


def _figure(value: Any) -> str:
    found = number(value)
    if found is None:
        return "not measured"
    return f"{found:.3f}" if abs(found) >= 0.01 or found == 0 else f"{found:.2e}"

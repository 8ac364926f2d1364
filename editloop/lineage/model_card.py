"""Model cards: what a model is, what it learnt from, what was measured, and its limits."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jinja2 import Environment

from editloop.lineage.promotion_pages import MAX_DESCRIPTION, markdown_cell

KINDS = {
    "edit-reward": "A reward model (EditReward): it gives each edit a score and its uncertainty, axis by axis.",
    "edit-score": "A reward model (EditScore): it writes its reasons for an edit, and scores an axis from them.",
    "editor": "An image editor: it changes a picture as an instruction says. A reward model taught it, by RL on "
    "its scores or by the edits that it chose, or experts did, by their pairs.",
}
LIMITS = {
    "edit-reward": (
        "Scores order edits of the same picture and instruction; between tasks they are not comparable.",
        "They tell whom these annotators would side with. Not whether a picture is safe, lawful or true.",
        "Figures hold for the suites above and pictures like theirs; on others measure first.",
    ),
    "editor": (
        "It was tuned towards one reward model or some experts, and may have learnt what these overrate.",
        "Figures hold for held-out tasks like those above; on others measure first.",
    ),
}
PAGES = Environment(keep_trailing_newline=True)
PAGES.filters["cell"] = markdown_cell
CARD = PAGES.from_string(
    """# {{ name | cell }}: {{ gate.verdict | string | cell }}

{{ what }}

## What the gate said: {{ gate.verdict | string | cell }}
{% for reason in gate.reasons %}
- {{ reason | string | cell }}
{%- endfor %}

## Measured

| figure | value | 95 % interval |
|---|---|---|
{%- for figure in figures %}
| {{ figure.name | cell }} | {{ figure.value }} | {{ figure.interval }} |
{%- endfor %}

## Where it comes from

| link | value |
|---|---|
{%- for link in chain %}
| {{ link.name | cell }} | {% if link.address %}[{{ link.value | cell }}]({{ link.address }})\
{% else %}{{ link.value | cell }}{% endif %} |
{%- endfor %}

## Limits
{% for limit in limits %}
- {{ limit }}
{%- endfor %}

{% if training %}
## Training
{% for key, value in training.items() %}
- {{ key | cell }}: {{ value | string | cell }}
{%- endfor %}
{% endif %}"""
)


TRAINING = ("base", "base_sha256", "editor", "preset", "algorithm", "seed")
"""Facts of a model's manifest that its card lists, besides the settings of the training."""


class Link(NamedTuple):
    """A row of the card's table of origins."""

    name: str
    value: str
    address: str = ""
    """Address on MLflow's pages; empty for none."""


class CardFigure(NamedTuple):
    """A measured figure as text."""

    name: str
    value: str
    interval: str
    """The 95 % interval; "—" for none."""


def model_card(
    name: str,
    kind: str,
    gate: Mapping[str, Any],
    report: Mapping[str, Any],
    chain: list[Link],
    training: Mapping[str, Any],
) -> str:
    """Return a model's card in Markdown.

    Args:
        name: Name in the registry.
        kind: "edit-reward", "edit-score" or "editor".
        gate: Content of gate.json.
        report: Content of benchmark.json or evaluation.json.
        chain: Where the model comes from, in the order to show.
        training: Settings of the training by name; empty leaves the section out.
    """
    return CARD.render(
        name=name,
        what=KINDS[kind],
        gate=gate,
        figures=card_figures(report),
        chain=chain,
        limits=LIMITS.get(kind, LIMITS["edit-reward"]),
        training=training,
    )


def training_settings(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a model's training that its card lists, by name.

    Args:
        facts: Facts of the model's manifest.
    """
    return {key: facts[key] for key in TRAINING if key in facts} | (facts.get("training") or {})


def card_figures(report: Mapping[str, Any]) -> list[CardFigure]:
    """Return the figures of a report that are plain numbers or missing (None), in its order.

    The interval of a figure NAME is the report's NAME_ci95 or ci95_NAME. `ci95` belongs to the main figure:
    accuracy_oracle, or uplift where the report has no accuracy_oracle.

    Args:
        report: Content of benchmark.json or evaluation.json.
    """
    main = "accuracy_oracle" if "accuracy_oracle" in report else "uplift"
    intervals = {}
    for key, value in report.items():
        if "ci95" in key and isinstance(value, list):
            name = key.removesuffix("_ci95").removeprefix("ci95_")
            intervals[main if name == "ci95" else name] = value
            intervals[f"accuracy_{name}"] = intervals[f"spearman_{name}"] = value
    return [
        CardFigure(key.replace("_", " "), _number(value), " to ".join(map(_number, intervals.get(key) or [])) or "—")
        for key, value in report.items()
        if value is None or isinstance(value, int | float)
    ]


def truncate_card(card: str, full_card: str) -> str:
    """Return the card within MLflow's limit on descriptions.

    A card that is cut ends with a note that says where the full one is.

    Args:
        card: The card in Markdown.
        full_card: Where the full card is, for the note.
    """
    if len(card) <= MAX_DESCRIPTION:
        return card
    note = f"\n\n… the whole card: {full_card}"
    return card[: MAX_DESCRIPTION - len(note)].rpartition("\n")[0] + note


def _number(value: Any) -> str:
    if value is None:
        return "not measured"
    return f"{value:.3f}" if isinstance(value, float) else str(value)

"""HTML page of a training on pairs."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from editloop.pages.plots import AMBER, BLUE, GREEN, RED, SOFT, VIOLET, Curve, curves, series
from editloop.pages.templates import render

SHEET = "contact-sheet.png"
"""File of the contact sheet in the training's output."""


def dpo_page(history: Mapping[str, Any], facts: Mapping[str, Any], sheet: Path) -> str:
    """Return a self-contained HTML page with the training's curves and its contact sheet.

    Args:
        history: Content of training.json: `steps` and `evaluations`, at least one of each.
        facts: Facts of the editor's manifest.
        sheet: PNG file of the contact sheet, which may be missing.
    """
    steps, evaluations = history["steps"], history["evaluations"]

    def measured(title: str, name: str, colour: str, *, percent: bool = False) -> Curve:
        return Curve(title, *series(evaluations, name), colour, dots=True, percent=percent)

    rows = [
        [
            Curve("loss of the batches", *series(steps, "loss"), BLUE),
            measured("loss on held-out pairs", "loss", GREEN),
            measured("distance to the base", "distance", AMBER),
            Curve("learning rate", *series(steps, "learning_rate"), SOFT),
        ],
        [
            measured("accuracy, held-out pairs", "accuracy", GREEN, percent=True),
            measured("accuracy, training pairs", "accuracy_train", BLUE, percent=True),
            measured("margin, held-out pairs", "margin", GREEN),
            measured("margin, training pairs", "margin_train", BLUE),
        ],
        [
            measured("error at preferred edits, change", "preferred_change", VIOLET),
            measured("error at rejected edits, change", "rejected_change", RED),
        ],
    ]
    return render(
        Path(__file__).with_name("dpo_page.html.j2"),
        facts=facts,
        steps=len(steps),
        first=evaluations[0],
        best=min(evaluations, key=lambda evaluation: evaluation["loss"]),
        pictures=[curves(f"dpo-{index}", row) or "" for index, row in enumerate(rows)],
        sheet=f"data:image/png;base64,{base64.b64encode(sheet.read_bytes()).decode()}" if sheet.is_file() else "",
    )

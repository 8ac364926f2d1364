"""HTML page of a supervised fine-tuning."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from editloop.pages.plots import BLUE, GREEN, SOFT, Curve, curves, series
from editloop.pages.templates import render


def sft_page(history: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Return a self-contained HTML page with the training's curves.

    Args:
        history: Content of training.json: `steps` and `evaluations`, at least one of each.
        facts: Facts of the editor's manifest.
    """
    steps, evaluations = history["steps"], history["evaluations"]
    panels = [
        Curve("loss of the batches", *series(steps, "loss"), BLUE),
        Curve("loss on held-out tasks", *series(evaluations, "loss"), GREEN, dots=True),
        Curve("learning rate", *series(steps, "learning_rate"), SOFT),
    ]
    first, best = evaluations[0], min(evaluations, key=lambda evaluation: evaluation["loss"])
    return render(
        Path(__file__).with_name("sft_page.html.j2"),
        facts=facts,
        steps=len(steps),
        first=first,
        best=best,
        picture=curves("sft", panels) or "",
    )

"""Plots learning curves."""

from pathlib import Path
from typing import Any

import numpy as np

COLOURS = {"random": "#8a8f98", "active": "#2563eb", "diverse": "#d97706"}


def plot_curves(result: dict[str, Any], path: Path) -> None:
    """Plot the curves of each strategy: a thin line for each seed, and the mean with its standard error.

    Args:
        result: The result of `learning_curves`.
        path: The image file to write; its folder is made where it does not exist.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes, judgements = figure.subplots(), result["judgements"]
    for strategy, rows in result["accuracy"].items():
        values, colour = np.array(rows), COLOURS[strategy]
        mean, error = values.mean(axis=0), values.std(axis=0, ddof=min(1, len(values) - 1)) / np.sqrt(len(values))
        axes.plot(judgements, values.T, color=colour, linewidth=0.6, alpha=0.35)
        axes.plot(judgements, mean, color=colour, linewidth=2, marker="o", markersize=4, label=strategy)
        axes.fill_between(judgements, mean - error, mean + error, color=colour, alpha=0.18, linewidth=0)
    axes.set_title(
        "Judgements saved on the way to random choice's accuracy:\n" + "; ".join(saving_phrases(result)), fontsize=10
    )
    axes.set_xlabel("judgements (one candidate rated by one expert)")
    axes.set_ylabel("clear held-out pairs in the right order")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def saving_phrases(result: dict[str, Any]) -> list[str]:
    """Return a phrase for each strategy: the share of judgements saved, with its interval.

    Args:
        result: The result of `learning_curves`.
    """
    return [
        f"{strategy} {saving['mean']:.0%} (95 % {saving['ci95'][0]:.0%} to {saving['ci95'][1]:.0%}, "
        f"{saving['seeds']} seeds)"
        for strategy, saving in result["saving"].items()
    ]

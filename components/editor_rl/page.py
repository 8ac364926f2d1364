"""The RL run's page in the KFP UI: reward, distance from the base, and the oracle where there is one."""

import base64
import io
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt


def curves_page(curves: dict[str, Any]) -> str:
    """HTML with one plot a curve; `curves` is {"steps": [{"step", name: value}], "evaluations": [...]}."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6))
    steps = [entry["step"] for entry in curves["steps"]]
    for axis, name in zip(axes, ("reward", "kl"), strict=False):
        axis.plot(steps, [entry[name] for entry in curves["steps"]], linewidth=0.8)
        axis.set_title({"reward": "reward of the rollouts", "kl": "distance from the base editor"}[name])
    for name in ("reward", "oracle", "right"):
        points = [(entry["step"], entry[name]) for entry in curves["evaluations"] if name in entry]
        if points:
            axes[2].plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    axes[2].set_title("evaluation on fixed tasks")
    axes[2].legend()
    for axis in axes:
        axis.set_xlabel("iteration")
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    picture = base64.b64encode(buffer.getvalue()).decode()
    return (
        '<!doctype html><meta charset="utf-8"><title>Editor RL</title><h1 style="font:2rem system-ui">Editor RL</h1>'
        f'<img alt="Curves of reward, distance and evaluations" src="data:image/png;base64,{picture}">'
    )

"""Pictures of fixed held-out tasks, one row a task: source, base, tuned, wanted."""

import base64
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from jinja2 import Template
from numpy.typing import NDArray
from PIL import Image

COLUMNS = ("source", "base", "tuned", "wanted")

PAGE = Template(
    """<!doctype html><meta charset="utf-8"><title>Editor evaluation</title>
<style>body{font:16px/1.5 system-ui;margin:2rem;max-width:60rem}td,th{padding:.3rem .8rem;text-align:left}</style>
<h1>Editor evaluation: {{ gate.verdict }}</h1>{% for reason in gate.reasons %}<p>{{ reason }}</p>{% endfor %}
<table><tr><th>task</th><th>base</th><th>tuned</th></tr>{% for kind, share in report.by_task.items() %}
<tr><td>{{ kind }}</td><td>{{ "%.3f" | format(share.base) }}</td><td>{{ "%.3f" | format(share.tuned) }}</td></tr>
{% endfor %}</table><img alt="Source, base, tuned and wanted pictures" src="data:image/png;base64,{{ sheet }}">""",
    autoescape=True,
)


def contact_sheet(instructions: list[str], pictures: dict[str, NDArray[np.uint8]]) -> Image.Image:
    """A picture of N tasks in two halves side by side; `pictures[column]` is uint8 (N, side, side, 3)."""
    half = (len(instructions) + 1) // 2
    figure, axes = plt.subplots(half, 2 * len(COLUMNS), figsize=(14, 1.75 * half + 0.3), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for index, instruction in enumerate(instructions):
        row, offset = index % half, len(COLUMNS) * (index // half)
        for place, column in enumerate(COLUMNS):
            axis = axes[row, offset + place]
            axis.imshow(pictures[column][index], interpolation="nearest")
            if row == 0:
                axis.set_title(column, fontsize=11, fontweight="bold", pad=6)
        axes[row, offset].text(0, -0.06, instruction[:70], transform=axes[row, offset].transAxes, fontsize=9, va="top")
    figure.subplots_adjust(left=0.01, right=0.99, top=0.92, bottom=0.05, hspace=0.3, wspace=0.05)
    figure.canvas.draw()
    image = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])
    plt.close(figure)
    return image


def evaluation_page(report: dict[str, Any], gate: dict[str, Any], sheet: Path) -> str:
    """HTML of the verdict, the shares by kind of task and the contact sheet."""
    return PAGE.render(report=report, gate=gate, sheet=base64.b64encode(sheet.read_bytes()).decode())

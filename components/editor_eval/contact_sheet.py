"""Pictures of fixed held-out tasks, one row a task: source, base, tuned, wanted."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLUMNS = ("source", "base", "tuned", "wanted")


def contact_sheet(instructions: list[str], pictures: dict[str, NDArray[np.uint8]]) -> Image.Image:
    """A picture of N tasks in two halves side by side; `pictures[column]` is uint8 (N, side, side, 3).

    Columns that are not there (`wanted`, where no right result is known) are left out.
    """
    half = (len(instructions) + 1) // 2
    columns = [column for column in COLUMNS if column in pictures]
    figure, axes = plt.subplots(half, 2 * len(columns), figsize=(14, 1.75 * half + 0.3), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for index, instruction in enumerate(instructions):
        row, offset = index % half, len(columns) * (index // half)
        for place, column in enumerate(columns):
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

"""Deterministic sampling: Euler steps of the probability-flow equation, for tasks of different sizes."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from editloop.data.picture_size import Picture, resized
from editloop.models.editors.protocol import Conditioning, Editor
from editloop.models.editors.settings import Size

BATCH = 64
"""Edits made together, at most."""


def working_picture(editor: Editor, image: Image.Image, area: int | None = None) -> Picture:
    """Return an image as the editor takes it: RGB, at the size that the editor works at for this source.

    Args:
        editor: The editor.
        image: The source.
        area: As in `Editor.size_for`.
    """
    return resized(image, editor.size_for(image.size[1], image.size[0], area))


def group_by_size(pictures: Sequence[Picture]) -> dict[Size, list[int]]:
    """Return the indices of images by their (height, width): those that can go into one batch.

    Args:
        pictures: The images. Indices of one size keep their order.
    """
    indices_by_size: dict[Size, list[int]] = {}
    for index, picture in enumerate(pictures):
        indices_by_size.setdefault((picture.shape[0], picture.shape[1]), []).append(index)
    return indices_by_size


@torch.no_grad()
def integrate(
    editor: Editor, x: Tensor, condition: Conditioning, sigmas: Tensor, guidance: float | None = None
) -> Tensor:
    """Take Euler steps from one noise level to the next.

    Args:
        editor: The editor.
        x: Latents (B, S, C) at the first noise level.
        condition: The B encoded tasks.
        sigmas: Noise levels (steps + 1,), falling.
        guidance: As in `Editor.velocity`.

    Returns:
        Latents (B, S, C) at the last noise level.
    """
    for sigma, following in pairwise(sigmas.to(x.device)):
        x = x + (following - sigma) * editor.velocity(x, sigma.expand(len(x)), condition, guidance)
    return x


@torch.no_grad()
def edit(
    editor: Editor,
    instructions: Sequence[str],
    sources: Sequence[Picture] | NDArray[np.uint8],
    *,
    seeds: Sequence[int],
    steps: int = 8,
    guidance: float | None = None,
) -> list[Picture]:
    """Make one edit of each task, each of its source's size.

    The noise of an edit depends only on its own seed, not on the batch.

    Args:
        editor: The editor.
        instructions: One instruction a task.
        sources: One image a task, at the size that `working_picture` gives. Sizes may differ from task to task.
        seeds: One seed a task.
        steps: Denoising steps.
        guidance: As in `Editor.velocity`.

    Returns:
        The edits, uint8 (height, width, 3), in the tasks' order.

    Examples:
        >>> import editloop, numpy as np
        >>> editor = editloop.open_editor("tiny-editor", device="cpu")
        >>> source = np.full((32, 32, 3), 128, np.uint8)
        >>> (edited,) = editloop.edit(editor, ["move the red square to the left"], [source], seeds=[0], steps=2)
        >>> edited.shape
        (32, 32, 3)
    """
    edits_by_index: dict[int, Picture] = {}
    for size, places in group_by_size(list(sources)).items():
        for start in range(0, len(places), BATCH):
            part = places[start : start + BATCH]
            condition = editor.encode([instructions[at] for at in part], np.stack([sources[at] for at in part]))
            noise = torch.cat([editor.noise(1, size, torch.Generator().manual_seed(seeds[at])) for at in part])
            x = integrate(editor, noise, condition, editor.sigmas(steps, size), guidance)
            edits_by_index |= dict(zip(part, editor.decode(x, size), strict=True))
    return [edits_by_index[index] for index in range(len(edits_by_index))]

"""Deterministic sampling: Euler steps of the probability-flow equation, tasks of any sizes."""

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


def working_picture(editor: Editor, image: Image.Image) -> Picture:
    """A picture as the editor sees it: RGB at the size that the editor works at for a source of its shape."""
    return resized(image, editor.size_for(image.size[1], image.size[0]))


def group_by_size(pictures: Sequence[Picture]) -> dict[Size, list[int]]:
    """Places of pictures by their (height, width), in the pictures' order: what can go into one batch."""
    indices_by_size: dict[Size, list[int]] = {}
    for index, picture in enumerate(pictures):
        indices_by_size.setdefault((picture.shape[0], picture.shape[1]), []).append(index)
    return indices_by_size


@torch.no_grad()
def integrate(
    editor: Editor, x: Tensor, condition: Conditioning, sigmas: Tensor, guidance: float | None = None
) -> Tensor:
    """Euler steps from latents x (B, S, C) at sigmas[0] to sigmas[-1]; guidance as in `Editor.velocity`."""
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
    """One edit a task, each of its source's size; the noise of each depends on its own seed, not on the batch.

    `sources`: pictures at sizes that `size_for` gives (`working_picture`), which may differ from task to task.
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

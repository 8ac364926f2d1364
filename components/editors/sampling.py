"""Noise levels and deterministic sampling: Euler steps of the probability-flow equation."""

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.editors.kontext import Conditioning, KontextEditor

BATCH = 64


def noise_levels(steps: int) -> Tensor:
    """Noise levels (steps + 1,) from 1 down to 0: those of FlowMatchEulerDiscreteScheduler with shift 1.

    The scheduler spaces its steps from 1 to 1/steps; equal to linear from 1 to 0.
    """
    return torch.linspace(1, 0, steps + 1)


@torch.no_grad()
def integrate(editor: KontextEditor, x: Tensor, condition: Conditioning, sigmas: Tensor) -> Tensor:
    """Euler steps from latents x (B, S, C) at sigmas[0] to sigmas[-1]."""
    for sigma, following in pairwise(sigmas):
        x = x + (following - sigma) * editor.velocity(x, sigma.expand(len(x)), condition)
    return x


@torch.no_grad()
def edit(
    editor: KontextEditor, instructions: list[str], sources: NDArray[np.uint8], *, seeds: list[int], steps: int = 8
) -> NDArray[np.uint8]:
    """One edit a task, uint8 (B, side, side, 3); the noise of each depends on its own seed, not on the batch."""
    pictures = []
    for start in range(0, len(instructions), BATCH):
        part = slice(start, start + BATCH)
        condition = editor.encode(instructions[part], sources[part])
        noise = torch.cat([editor.noise(1, torch.Generator().manual_seed(seed)) for seed in seeds[part]])
        pictures.append(editor.decode(integrate(editor, noise, condition, noise_levels(steps))))
    return np.concatenate(pictures)

"""What every editor takes and gives: encode a task, velocity at a noise level, decode; adapter on or off.

Latents are packed: (B, S, C), one row a patch of the picture. Noise levels (sigma) run from 1, noise, to 0, a picture;
x(sigma) = (1 - sigma) picture + sigma noise, and the velocity is noise - picture.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from editloop.models.editors.settings import EditorSettings, Size


@dataclass(frozen=True)
class Conditioning:
    """B encoded tasks of one size: what the velocity depends on besides latents and noise level."""

    size: Size
    """(height, width) in pixels of the source pictures, and so of the edits."""
    parts: dict[str, Tensor]
    """By the editor's own names, each (B, ...): text, source latents, what else it wants."""

    def __len__(self) -> int:
        return len(next(iter(self.parts.values())))

    def select(self, index: Tensor) -> "Conditioning":
        """The tasks at `index` (N,), long; repeats allowed."""
        return Conditioning(self.size, {name: part[index.to(part.device)] for name, part in self.parts.items()})

    def to(self, device: torch.device | str) -> "Conditioning":
        """The same on another device."""
        return Conditioning(self.size, {name: part.to(device) for name, part in self.parts.items()})


def join_conditions(conditions: Sequence[Conditioning]) -> Conditioning:
    """Conditionings of one size as one, their rows in order.

    Texts of several lengths are padded with zeros at their ends, and so is the mask that an editor keeps of them.
    """
    parts = {name: [condition.parts[name] for condition in conditions] for name in conditions[0].parts}
    longest = {name: max(part.shape[1] for part in each) for name, each in parts.items() if each[0].ndim > 1}
    padded = {
        name: torch.cat([_padded(part, longest[name]) if name in longest else part for part in each])
        for name, each in parts.items()
    }
    return Conditioning(conditions[0].size, padded)


def _padded(part: Tensor, length: int) -> Tensor:
    """(B, L, ...) to (B, length, ...)."""
    if part.shape[1] == length:
        return part
    return torch.cat([part, part.new_zeros(len(part), length - part.shape[1], *part.shape[2:])], dim=1)


class Editor(Protocol):
    """An image editor that is trained by its velocity. `open_editor` opens one."""

    settings: EditorSettings
    network: torch.nn.Module
    """What is trained: the transformer. DeepSpeed wraps it; `velocity` calls it."""
    bf16: bool
    """Whether `velocity` multiplies in bfloat16 (autocast); its result is float32 all the same."""

    @property
    def device(self) -> torch.device:
        """Where the network lies; latents and conditionings must lie there too."""
        ...

    def size_for(self, height: int, width: int) -> Size:
        """The size that a source picture of this size in pixels is worked at: its shape kept, whole patches."""
        ...

    def sigmas(self, steps: int, size: Size) -> Tensor:
        """Noise levels (steps + 1,) from 1 to 0, shifted as the pipeline's own scheduler does at this size."""
        ...

    def encode(self, instructions: Sequence[str], sources: NDArray[np.uint8]) -> Conditioning:
        """Encode B tasks. `sources`: uint8 (B, height, width, 3) at a size that `size_for` gave."""
        ...

    def latents(self, pictures: NDArray[np.uint8]) -> Tensor:
        """Latents (B, S, C) of pictures, uint8 (B, height, width, 3)."""
        ...

    def noise(self, count: int, size: Size, generator: torch.Generator) -> Tensor:
        """Standard normal latents (count, S, C), drawn on the CPU whatever the device: a seed is a seed anywhere."""
        ...

    def velocity(self, x: Tensor, sigma: Tensor, condition: Conditioning, guidance: float | None = None) -> Tensor:
        """Velocity, float32 (B, S, C), at latents x (B, S, C) and noise levels sigma (B,).

        guidance: how strongly the instruction is followed, in the editor's own kind; None takes `settings.guidance`.
        Where the network embeds it, any number is one pass; where it compares with a negative instruction, above 1 is
        two passes and 1 is one.
        """
        ...

    def decode(self, x: Tensor, size: Size) -> NDArray[np.uint8]:
        """Pictures uint8 (B, height, width, 3) of latents (B, S, C)."""
        ...

    def add_adapter(self, rank: int, alpha: int, targets: Sequence[str] | None = None) -> list[torch.nn.Parameter]:
        """Freeze the network and put LoRA beside the layers whose names end in `targets` (None: the settings').

        Returns what is left to train. EditLoopError where the network has no layer of such a name.
        """
        ...

    def train_whole(self) -> list[torch.nn.Parameter]:
        """Make every weight of the network trainable; a frozen copy is kept for `base`. Returns the weights."""
        ...

    def base(self) -> AbstractContextManager[None]:
        """Within the block the editor answers as it did before any training."""
        ...

    def save(self, folder: Path) -> None:
        """Write the pipeline as `from_pretrained` reads it, safetensors, the adapter merged; training may go on."""
        ...

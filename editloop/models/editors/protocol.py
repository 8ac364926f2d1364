"""The interface of an editor: encode a task, compute the velocity at a noise level, decode the latents.

Latents are packed: (B, S, C), one row per patch of the image. Noise levels (sigma) run from 1, noise, to 0, an image:
x(sigma) = (1 - sigma) image + sigma noise, and the velocity is noise - image.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from editloop.models.editors.settings import EditorSettings, Size


@dataclass(frozen=True)
class Conditioning:
    """B encoded tasks of one size: the input of the velocity besides latents and noise level."""

    size: Size
    """(height, width) in pixels of the sources, and so of the edits."""
    parts: dict[str, Tensor]
    """Text, source latents and what else the editor needs, each (B, ...), by names that the editor chooses."""
    references: tuple[Size, ...] = ()
    """(height, width) in pixels of the reference images, in order: the same for all tasks."""

    def __len__(self) -> int:
        return len(next(iter(self.parts.values())))

    def select(self, index: Tensor) -> "Conditioning":
        """Return the tasks at some indices.

        Args:
            index: Indices (N,), long. Repeats are allowed.
        """
        return replace(self, parts={name: part[index.to(part.device)] for name, part in self.parts.items()})

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Conditioning":
        """Return the conditioning on another device.

        Args:
            device: The target device.
            dtype: Type of the parts, except for masks; None leaves each in its own.
        """
        parts = {
            name: part.to(device, dtype if part.is_floating_point() else None) for name, part in self.parts.items()
        }
        return replace(self, parts=parts)


def join_conditions(conditions: Sequence[Conditioning]) -> Conditioning:
    """Join conditionings of one size into one, with their tasks in order.

    Texts of different lengths are padded at the end with zeros, and so are their masks. Images are not: the sizes of
    sources and references are the same in all.

    Args:
        conditions: At least one conditioning; all have one size, the same sizes of references, and the same parts.
    """
    parts = {name: [condition.parts[name] for condition in conditions] for name in conditions[0].parts}
    longest = {name: max(part.shape[1] for part in each) for name, each in parts.items() if each[0].ndim > 1}
    padded = {
        name: torch.cat([_padded(part, longest[name]) if name in longest else part for part in each])
        for name, each in parts.items()
    }
    return replace(conditions[0], parts=padded)


def _padded(part: Tensor, length: int) -> Tensor:
    """Pad a part (B, L, ...) with zeros to (B, length, ...)."""
    if part.shape[1] == length:
        return part
    return torch.cat([part, part.new_zeros(len(part), length - part.shape[1], *part.shape[2:])], dim=1)


class Editor(Protocol):
    """An image editor that is trained by its velocity. `open_editor` opens one."""

    settings: EditorSettings
    bf16: bool
    """Whether `velocity` computes under bfloat16 autocast. Its result is float32 either way."""

    @property
    def network(self) -> torch.nn.Module:
        """The module that is trained: the transformer. DeepSpeed wraps it, and `velocity` calls it."""

    @property
    def most_references(self) -> int:
        """Most reference images of a task, besides its source; 0 where the editor takes one source."""

    @property
    def device(self) -> torch.device:
        """Device of the network. Latents and conditionings must be on it too."""

    def size_for(self, height: int, width: int, area: int | None = None) -> Size:
        """Return the (height, width) at which the editor works on a source: whole patches, about the same aspect ratio.

        Args:
            height: The source's height in pixels.
            width: The source's width in pixels.
            area: Pixels of the result, about; None takes `settings.area` or `settings.sizes`.
        """

    def instruction_fault(self, instruction: str) -> str:
        """Return why the editor cannot take an instruction, or an empty text. `encode` raises an error for such a one.

        Args:
            instruction: The instruction.
        """

    def encoders_at_hand(self) -> AbstractContextManager[None]:
        """Have the text encoders and the codec on the device within the block, for several calls of `encode`."""

    def sigmas(self, steps: int, size: Size) -> Tensor:
        """Return noise levels (steps + 1,) from 1 to 0, shifted as the pipeline's own scheduler does at this size.

        Args:
            steps: Denoising steps.
            size: (height, width) of the edit in pixels.
        """

    def encode(
        self,
        instructions: Sequence[str],
        sources: NDArray[np.uint8],
        references: Sequence[NDArray[np.uint8]] = (),
    ) -> Conditioning:
        """Encode B tasks.

        Args:
            instructions: The B instructions.
            sources: uint8 (B, height, width, 3) at a size that `size_for` gave.
            references: One array for each reference image of the tasks, image 2 first: uint8 (B, height, width, 3),
                each at a size that `size_for` gave for it.

        Raises:
            EditLoopError: There are more references than `most_references`.
        """

    def latents(self, pictures: NDArray[np.uint8]) -> Tensor:
        """Encode images as latents (B, S, C).

        Args:
            pictures: uint8 (B, height, width, 3).
        """

    def noise(self, count: int, size: Size, generator: torch.Generator) -> Tensor:
        """Return standard normal latents (count, S, C).

        They are drawn on the CPU, so that a seed gives the same noise on every device.

        Args:
            count: Number of edits.
            size: (height, width) of the edits in pixels.
            generator: CPU generator to draw from.
        """

    def velocity(self, x: Tensor, sigma: Tensor, condition: Conditioning, guidance: float | None = None) -> Tensor:
        """Return the velocity, float32 (B, S, C).

        A network that embeds guidance takes one pass at any scale. One that compares with a negative instruction takes
        two passes where the scale is above 1, and one pass at 1.

        Args:
            x: Latents (B, S, C).
            sigma: Noise levels (B,), 0..1.
            condition: The B encoded tasks.
            guidance: Guidance scale, in the editor's own kind of guidance; None takes `settings.guidance`.
        """

    def decode(self, x: Tensor, size: Size) -> NDArray[np.uint8]:
        """Decode latents to images, uint8 (B, height, width, 3).

        Args:
            x: Latents (B, S, C).
            size: (height, width) in pixels.
        """

    def add_adapter(self, rank: int, alpha: int, targets: Sequence[str] | None = None) -> list[torch.nn.Parameter]:
        """Freeze the network and add LoRA to the linear layers whose names end in `targets`.

        Args:
            rank: Rank of the adapter.
            alpha: Scale of the adapter's output: alpha / rank.
            targets: Endings of layer names; None takes `settings.targets`.

        Returns:
            The parameters to train.

        Raises:
            EditLoopError: The network has no linear layer with one of the endings.
        """

    def train_whole(self, *, with_base: bool = True) -> list[torch.nn.Parameter]:
        """Make every weight of the network trainable and return the weights.

        Args:
            with_base: Whether to keep the weights' present values for `base`, which take as much memory again.
        """

    def compile_blocks(self) -> None:
        """Compile the network's repeated blocks with torch.compile."""

    def merged(self) -> AbstractContextManager[None]:
        """Let passes without gradient go faster within the block, where the weights do not change. Not for `base`."""

    def base(self) -> AbstractContextManager[None]:
        """Let the editor compute velocities as it did before training, within the block."""

    def save(self, folder: Path) -> None:
        """Write the pipeline in safetensors, as `from_pretrained` reads it, with the adapter merged.

        Training can continue afterwards.

        Args:
            folder: The folder to write.
        """

"""Base class of editors over diffusers pipelines: the adapter, the frozen base, sizes, noise levels and saving.

A new editor is a subclass in its own file; `docs/editors.md` explains how to write one.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from numpy.typing import NDArray
from peft import LoraConfig
from torch import Tensor, nn

from editloop.errors import EditLoopError
from editloop.models.backbones.spreading import local_part
from editloop.models.editors.adapted_linear import ADAPTER, AdaptedLinear
from editloop.models.editors.network_files import PartReader
from editloop.models.editors.on_demand import OnDemandParts
from editloop.models.editors.protocol import Conditioning
from editloop.models.editors.settings import SETTINGS, EditorSettings, Size
from editloop.models.editors.text_limits import TextLimits

if TYPE_CHECKING:
    from diffusers.models.modeling_utils import ModelMixin

NETWORK, CODEC = "transformer", "vae"
"""Names of the trained network and of the codec among a pipeline's parts."""
SOURCE_PATH_KEY = "_name_or_path"
"""Key under which diffusers records, in each configuration, the folder that a part was read from."""


class PipelineEditor(TextLimits, ABC):
    """An `Editor` over a pipeline with a `transformer`, a `vae` and a flow-matching Euler scheduler."""

    patch: ClassVar[int] = 2
    """Height and width of a packed latent, in latent pixels."""
    rounding: ClassVar[int] = 1
    """`size_for` rounds heights and widths to multiples of this many packed latents."""
    sources_after_first: ClassVar[int] = 0
    """Most reference images of a task that `encode` and `velocity` take, besides its source."""
    text_encoders: ClassVar[tuple[str, ...]] = ("text_encoder",)
    """Names of the pipeline's parts that encode instructions."""

    def __init__(self, pipeline: Any, settings: EditorSettings, on_demand: OnDemandParts | None = None):
        """Wrap a pipeline.

        Args:
            pipeline: The diffusers pipeline, on its device.
            settings: Settings for this pipeline's class.
            on_demand: The parts that are not on the device all the time; None where all are.

        Raises:
            EditLoopError: The scheduler is not a FlowMatchEulerDiscreteScheduler.
        """
        if not isinstance(pipeline.scheduler, FlowMatchEulerDiscreteScheduler):
            raise EditLoopError(
                f"{type(pipeline).__name__}: its scheduler is {type(pipeline.scheduler).__name__}; training follows "
                "FlowMatchEulerDiscreteScheduler. Put that one into the pipeline's folder."
            )
        self.pipeline = pipeline
        self.settings = settings
        self.on_demand = on_demand or OnDemandParts(pipeline, {}, torch.device("cpu"))
        self.network: ModelMixin = pipeline.transformer
        self.multiple: int = pipeline.vae_scale_factor * self.patch
        """Height and width of a packed latent, in pixels."""
        self.bf16 = False
        self._initial: list[Tensor] = []
        """Values that the weights had before all of them were trained; empty with an adapter."""

    @staticmethod
    @abstractmethod
    def preset(index: dict[str, Any]) -> str:
        """Return the name of the preset for a pipeline whose folder has no settings.

        Args:
            index: Content of the pipeline's `model_index.json`.
        """

    @classmethod
    def pipeline_class(cls) -> Any:
        """Return the pipeline's class, for editors of other packages whose pipeline is none of diffusers' own."""
        raise EditLoopError(
            f"{cls.__name__}: diffusers has no pipeline of its name; the editor must return it from `pipeline_class`."
        )

    @classmethod
    def parts(cls, folder: Path) -> dict[str, Any]:
        """Return parts of the pipeline, by name, that need another loader than `from_pretrained`.

        Args:
            folder: The pipeline's folder.
        """
        return {}

    @classmethod
    def readers(cls, folder: Path) -> dict[str, PartReader]:
        """Return how to read modules of the pipeline, by name, whose class is none of diffusers or transformers.

        Args:
            folder: The pipeline's folder.
        """
        return {}

    @abstractmethod
    def encode(
        self,
        instructions: Sequence[str],
        sources: NDArray[np.uint8],
        references: Sequence[NDArray[np.uint8]] = (),
    ) -> Conditioning:
        """Encode B tasks. What the text encoders do is within `self.on_demand.on_device(self.text_encoders)`.

        Args:
            instructions: The B instructions.
            sources: uint8 (B, height, width, 3) at a size that `size_for` gave.
            references: For each reference image, image 2 first, uint8 (B, height, width, 3) at a size that `size_for`
                gave.

        Returns:
            The conditioning. Its parts have the names that the editor chooses.
        """

    @abstractmethod
    def velocity(self, x: Tensor, sigma: Tensor, condition: Conditioning, guidance: float | None = None) -> Tensor:
        """Return the velocity, float32 (B, S, C).

        Args:
            x: Packed latents (B, S, C).
            sigma: Noise levels (B,), 0..1.
            condition: The B encoded tasks.
            guidance: Guidance scale; None takes `settings.guidance`.
        """

    @abstractmethod
    def to_latents(self, pixels: Tensor) -> Tensor:
        """Encode pixels as packed latents (B, S, C).

        Args:
            pixels: (B, 3, height, width) in -1..1.
        """

    @abstractmethod
    def to_pixels(self, x: Tensor, size: Size) -> Tensor:
        """Decode packed latents to pixels (B, 3, height, width), about -1..1.

        Args:
            x: Packed latents (B, S, C).
            size: (height, width) in pixels.
        """

    @property
    def most_references(self) -> int:
        """Most reference images of a task, besides its source."""
        most = self.settings.most_references
        return self.sources_after_first if most is None else min(most, self.sources_after_first)

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return next(self.network.parameters()).device

    def shift(self, steps: int, tokens: int) -> float:
        """Return mu, the shift of the pipeline's own noise levels: linear in the number of packed latents.

        Args:
            steps: Denoising steps. Not used here; some pipelines' mu depends on them.
            tokens: Packed latents of the edit.
        """
        config = self.pipeline.scheduler.config
        slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
        return float(config.base_shift + (tokens - config.base_image_seq_len) * slope)

    def size_for(self, height: int, width: int, area: int | None = None) -> Size:
        """Return the size at which the editor works on a source.

        It is the one of the settings' sizes with the nearest aspect ratio or, where they name none, about `area` pixels
        in the source's own aspect ratio.

        Args:
            height: The source's height in pixels.
            width: The source's width in pixels.
            area: Pixels of the result, about; one of the settings' sizes is scaled to it. None takes them as they are.
        """
        if self.settings.sizes:
            height, width = min(self.settings.sizes, key=lambda size: abs(size[1] / size[0] - width / height))
            if area is None:
                return height, width
        scale = ((area or self.settings.area) / (height * width)) ** 0.5
        unit = self.multiple * self.rounding
        rounded = [max(1, round(side * scale / unit)) * unit for side in (height, width)]
        return rounded[0], rounded[1]

    def grid(self, size: Size) -> tuple[int, int]:
        """Return rows and columns of packed latents of an image.

        Args:
            size: (height, width) in pixels.
        """
        return size[0] // self.multiple, size[1] // self.multiple

    @contextmanager
    def encoders_at_hand(self) -> Iterator[None]:
        """Have the text encoders and the codec on the device within the block, for several calls of `encode`."""
        with self.on_demand.on_device([*self.text_encoders, CODEC]):
            yield

    def sigmas(self, steps: int, size: Size) -> Tensor:
        """Return noise levels (steps + 1,) from 1 to 0, as the pipeline sets them at this size.

        Args:
            steps: Denoising steps.
            size: (height, width) of the edit in pixels.
        """
        scheduler = self.pipeline.scheduler
        rows, columns = self.grid(size)
        # with use_flow_sigmas FLUX.2 leaves the spacing to the scheduler
        spaced = None if scheduler.config.get("use_flow_sigmas") else np.linspace(1.0, 1 / steps, steps)
        scheduler.set_timesteps(steps, sigmas=spaced, mu=self.shift(steps, rows * columns))
        sigmas: Tensor = scheduler.sigmas.clone()
        return sigmas

    def noise(self, count: int, size: Size, generator: torch.Generator) -> Tensor:
        """Return standard normal packed latents (count, S, C), drawn on the CPU and moved to the editor's device.

        Args:
            count: Number of edits.
            size: (height, width) of the edits in pixels.
            generator: CPU generator to draw from.
        """
        rows, columns = self.grid(size)
        return torch.randn(count, rows * columns, self.network.config.in_channels, generator=generator).to(self.device)

    @torch.no_grad()
    def latents(self, pictures: NDArray[np.uint8]) -> Tensor:
        """Encode images as packed latents (B, S, C), float32.

        Args:
            pictures: uint8 (B, height, width, 3).

        Raises:
            EditLoopError: The height or width is not a multiple of `multiple`.
        """
        height, width = pictures.shape[1:3]
        if height % self.multiple or width % self.multiple:
            raise EditLoopError(
                f"a picture of {width}x{height} pixels: this editor works at multiples of {self.multiple}. Resize it "
                "to what `size_for` gives."
            )
        pixels = torch.tensor(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
        with self.on_demand.on_device([CODEC]):
            codec = next(self.pipeline.vae.parameters())
            return self.to_latents(pixels.to(codec.device, codec.dtype)).float()

    def source_grids(self, condition: Conditioning) -> list[tuple[int, int]]:
        """Return rows and columns of packed latents of each source image, in order.

        Args:
            condition: The encoded tasks.
        """
        return [self.grid(size) for size in (condition.size, *condition.references)]

    @torch.no_grad()
    def decode(self, x: Tensor, size: Size) -> NDArray[np.uint8]:
        """Decode packed latents to images, uint8 (B, height, width, 3).

        Args:
            x: Packed latents (B, S, C).
            size: (height, width) in pixels.
        """
        with self.on_demand.on_device([CODEC]):
            pixels = self.to_pixels(x.to(next(self.pipeline.vae.parameters()).dtype), size).float()
        return ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()

    def answer(self, x: Tensor, source: Tensor, text: Tensor, **inputs: Any) -> Tensor:
        """Run the network and return its output at `x`, float32 (B, S, C).

        It computes under bfloat16 autocast where `bf16` is set.

        Args:
            x: Packed latents (B, S, C).
            source: Packed latents (B, S', C) of the sources, which follow `x` in the sequence.
            text: Encoded instructions (B, L, width).
            **inputs: Further inputs of this network.
        """
        dtype = self.network.dtype
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            output: Tensor = self.network(
                hidden_states=torch.cat([x, source], dim=1).to(dtype),
                encoder_hidden_states=text.to(dtype),
                **inputs,
                return_dict=False,
            )[0]
        return output[:, : x.shape[1]].float()

    def guidance_or_default(self, guidance: float | None) -> float:
        """Return the guidance scale to use.

        Args:
            guidance: The scale asked for; None takes `settings.guidance`.
        """
        return self.settings.guidance if guidance is None else guidance

    def adapter_layers(self, targets: Sequence[str] | None = None) -> list[str]:
        """Return the names of the linear layers that an adapter goes to, sorted.

        Args:
            targets: Endings of layer names; None takes `settings.targets`.

        Raises:
            EditLoopError: `targets` is empty, or no linear layer has one of the endings.
        """
        endings = self.settings.targets if targets is None else tuple(targets)
        linear = [name for name, module in self.network.named_modules() if isinstance(module, nn.Linear)]
        layers_by_ending = {
            end: [name for name in linear if name == end or name.endswith(f".{end}")] for end in endings
        }
        missing = [end for end, names in layers_by_ending.items() if not names]
        if missing or not layers_by_ending:
            ends = sorted({".".join(part for part in name.split(".")[-2:] if not part.isdigit()) for name in linear})
            raise EditLoopError(
                f"{type(self.network).__name__} has no linear layer of the asked name: {', '.join(missing) or 'none'}. "
                f"Name ends of its layers: {', '.join(ends)}."
            )
        return sorted({name for names in layers_by_ending.values() for name in names})

    def add_adapter(self, rank: int, alpha: int, targets: Sequence[str] | None = None) -> list[nn.Parameter]:
        """Freeze the network and add a float32 LoRA adapter to its linear layers whose names end in `targets`.

        Args:
            rank: Rank of the adapter.
            alpha: Scale of the adapter's output: alpha / rank.
            targets: Endings of layer names; None takes `settings.targets`.

        Returns:
            The adapter's parameters.

        Raises:
            EditLoopError: `targets` is empty, or no linear layer has one of the endings.
        """
        layers = self.adapter_layers(targets)
        self.network.requires_grad_(False)
        config = LoraConfig(r=rank, lora_alpha=alpha, init_lora_weights="gaussian", target_modules=layers)
        config._register_custom_module({nn.Linear: AdaptedLinear})
        self.network.add_adapter(config, ADAPTER)
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        for parameter in trained:
            parameter.data = parameter.data.float()  # PEFT takes the layers' type, but bfloat16 loses small updates
        return trained

    def train_whole(self, *, with_base: bool = True) -> list[nn.Parameter]:
        """Make every weight of the network trainable and return the weights.

        Args:
            with_base: Whether to keep the weights' present values for `base`, which take as much memory again. Of
                weights that are spread over ranks each rank keeps its part.
        """
        trained = list(self.network.requires_grad_(True).parameters())
        self._initial = [local_part(weight).detach().clone() for weight in trained] if with_base else []
        return trained

    def compile_blocks(self) -> None:
        """Compile the network's repeated blocks with torch.compile; the first passes through them then take a minute.

        Call it after `add_adapter` or `train_whole`. It needs a C++ compiler on a CPU and Triton on a GPU.
        """
        self.network.compile_repeated_blocks(fullgraph=True, dynamic=True)

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Let passes without gradient run without the adapter's layers within the block: it is added to their weights.

        The sum is made anew from the frozen weights each time, and these come back afterwards, so that nothing drifts.
        In bfloat16 the adapter stays beside its layers: the sum would be rounded to 8 bits, and a young adapter lost.
        """
        layers = [layer for layer in self.network.modules() if isinstance(layer, AdaptedLinear)]
        if self.bf16 or self.network.dtype != torch.float32 or not layers:
            yield
            return
        weights = [layer.base_layer.weight for layer in layers]
        frozen = [weight.data for weight in weights]
        for layer, weight in zip(layers, weights, strict=True):
            weight.data = layer.merged_weight()
        self.network.disable_adapters()
        try:
            yield
        finally:
            self.network.enable_adapters()
            for weight, data in zip(weights, frozen, strict=True):
                weight.data = data

    @contextmanager
    def base(self) -> Iterator[None]:
        """Let the frozen editor compute velocities within the block. It does not go into a block of `merged`."""
        adapted = hasattr(self.network, "peft_config")
        if adapted:
            self.network.disable_adapters()
        self._exchange_initial()
        try:
            yield
        finally:
            self._exchange_initial()
            if adapted:
                self.network.enable_adapters()

    def _exchange_initial(self) -> None:
        """Exchange the values of weights that are all trained with those they had before. A second call restores."""
        for index, weight in enumerate(self.network.parameters() if self._initial else ()):
            part = local_part(weight)
            part.data, self._initial[index] = self._initial[index], part.data

    def save(self, folder: Path) -> None:
        """Write the pipeline, with the adapter merged, and its settings. Training can continue afterwards.

        The folders that parts were read from are not written, so that the same editor is the same bytes on every
        machine.

        Args:
            folder: The folder to write.
        """
        for name in self.on_demand.unread:
            self.on_demand.read(name)
        self.pipeline.register_modules(transformer=self._merged())
        try:
            self.pipeline.save_pretrained(folder, safe_serialization=True)
        finally:
            self.pipeline.register_modules(transformer=self.network)
        for path in (folder / "model_index.json", *folder.glob("*/config.json")):
            config = json.loads(path.read_text())
            if config.pop(SOURCE_PATH_KEY, None) is not None:
                path.write_text(json.dumps(config, indent=2) + "\n")
        (folder / SETTINGS).write_text(self.settings.model_dump_json(indent=1, exclude_defaults=True) + "\n")

    @torch.no_grad()
    def _merged(self) -> nn.Module:
        """Return the network with the adapter merged into plain layers.

        Layers without an adapter share their weights with the network.
        """
        if not hasattr(self.network, "peft_config"):
            return self.network
        weights = {
            name.replace(".base_layer.", "."): weight
            for name, weight in self.network.state_dict().items()
            if ".lora_" not in name
        }
        for name, layer in self.network.named_modules():
            if isinstance(layer, AdaptedLinear):
                weights[f"{name}.weight"] = layer.merged_weight()
        network_class: Any = type(self.network)
        with torch.device("meta"):
            plain: nn.Module = network_class.from_config(self.network.config)
        plain.load_state_dict(weights, assign=True)
        return plain

"""FLUX Kontext as the loop sees an editor: encode a task, velocity at a noise level, decode; adapter on or off.

The parts are those of `diffusers.FluxKontextPipeline`; sampling with them equals the pipeline's own call (tested).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from diffusers import FluxKontextPipeline
from numpy.typing import NDArray
from peft import LoraConfig
from torch import Tensor

from components.editors.codec import PatchCodec
from infra.errors import EditLoopError

ADAPTER = "editloop"
TINY_TEXT_TOKENS = 12


@dataclass(frozen=True)
class Conditioning:
    """Encoded tasks: what the velocity depends on besides the latents. B tasks, L text and S source tokens."""

    prompt: Tensor
    """(B, L, text width)"""
    pooled: Tensor
    """(B, pooled width)"""
    source: Tensor
    """(B, S, channels): packed latents of the source image."""

    def __len__(self) -> int:
        return len(self.prompt)

    def select(self, index: Tensor) -> "Conditioning":
        """The tasks at `index` (long or slice of N): N rows, repeats allowed."""
        return Conditioning(self.prompt[index], self.pooled[index], self.source[index])


class KontextEditor:
    """A FLUX Kontext pipeline at one square picture size (that of its codec's `sample_size`)."""

    def __init__(self, pipeline: FluxKontextPipeline):
        self.pipeline = pipeline
        self.transformer = pipeline.transformer
        self.side: int = pipeline.vae.config.sample_size
        self.rows: int = self.side // (pipeline.vae_scale_factor * 2)
        self.channels: int = self.transformer.config.in_channels
        self.tiny = isinstance(pipeline.vae, PatchCodec)
        if not self.tiny:
            self.text_tokens = 512
        else:
            self.text_tokens = TINY_TEXT_TOKENS
        ids = pipeline._prepare_latent_image_ids(1, self.rows, self.rows, "cpu", torch.float32)
        source_ids = ids.clone()
        source_ids[..., 0] = 1
        self.image_ids = torch.cat([ids, source_ids])
        self.bf16 = False
        """Whether `velocity` multiplies in bfloat16 (autocast); its result is float32 all the same."""

    @classmethod
    def load(cls, editor: str | Path) -> "KontextEditor":
        """Open a pipeline folder, or an editor that ships with EditLoop by its name (`tiny-editor`)."""
        folder = shipped_editor(str(editor)) or Path(editor)
        if not (folder / "model_index.json").is_file():
            raise EditLoopError(
                f"editor {str(editor)!r}: not a shipped editor and no diffusers pipeline folder (model_index.json is "
                "missing). Give `tiny-editor` or a folder written by save_pretrained."
            )
        linear = _codec_config(folder).get("_class_name") == PatchCodec.__name__
        parts = {"vae": PatchCodec.from_pretrained(folder / "vae")} if linear else {}
        pipeline = FluxKontextPipeline.from_pretrained(
            folder, **parts, torch_dtype=torch.float32, local_files_only=True
        )
        pipeline.set_progress_bar_config(disable=True)
        return cls(pipeline)

    def save(self, folder: Path) -> None:
        """Write the whole pipeline, adapter merged in, as safetensors below `folder`."""
        if hasattr(self.transformer, "peft_config"):
            self.transformer.fuse_lora(adapter_names=[ADAPTER])
            self.transformer.unload_lora()
        self.pipeline.save_pretrained(folder, safe_serialization=True)

    @torch.no_grad()
    def encode(self, instructions: Sequence[str], sources: NDArray[np.uint8]) -> Conditioning:
        """Encode B tasks. `sources` is uint8 (B, side, side, 3)."""
        prompt, pooled, _ = self.pipeline.encode_prompt(
            list(instructions), None, device=torch.device("cpu"), max_sequence_length=self.text_tokens
        )
        return Conditioning(prompt, pooled, self.latents(sources))

    @torch.no_grad()
    def latents(self, pictures: NDArray[np.uint8]) -> Tensor:
        """Packed latents (B, S, channels) of pictures, uint8 (B, side, side, 3)."""
        pixels = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
        latents = self.pipeline._encode_vae_image(pixels, generator=None)
        return self.pipeline._pack_latents(latents, *latents.shape)

    def velocity(self, x: Tensor, sigma: Tensor, condition: Conditioning) -> Tensor:
        """Model output at latents x (B, S, channels) and noise levels sigma (B,), 1 = noise, 0 = picture."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            out = self.transformer(
                hidden_states=torch.cat([x, condition.source], dim=1),
                timestep=sigma,
                pooled_projections=condition.pooled,
                encoder_hidden_states=condition.prompt,
                txt_ids=torch.zeros(condition.prompt.shape[1], 3),
                img_ids=self.image_ids,
                return_dict=False,
            )[0]
        return out[:, : x.shape[1]].float()

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        """Standard normal packed latents (count, S, channels)."""
        return torch.randn(count, self.rows**2, self.channels, generator=generator)

    @torch.no_grad()
    def decode(self, x: Tensor) -> NDArray[np.uint8]:
        """Pictures uint8 (B, side, side, 3) of packed latents (B, S, channels)."""
        codec = self.pipeline.vae
        latents = self.pipeline._unpack_latents(x, self.side, self.side, self.pipeline.vae_scale_factor)
        pixels = codec.decode(latents / codec.config.scaling_factor + codec.config.shift_factor, return_dict=False)[0]
        return ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()

    def add_adapter(self, rank: int, alpha: int) -> list[torch.nn.Parameter]:
        """Freeze the editor, add LoRA to its attention and feed-forward layers; returns what is left to train."""
        self.pipeline.transformer.requires_grad_(False)
        targets = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]
        targets += ["proj_mlp", "proj_out", "net.0.proj", "net.2"]
        self.transformer.add_adapter(
            LoraConfig(r=rank, lora_alpha=alpha, init_lora_weights="gaussian", target_modules=targets), ADAPTER
        )
        return [parameter for parameter in self.transformer.parameters() if parameter.requires_grad]

    @contextmanager
    def base(self) -> Iterator[None]:
        """Within the block the adapter is off: the frozen editor answers."""
        self.transformer.disable_adapters()
        try:
            yield
        finally:
            self.transformer.enable_adapters()


def shipped_editor(name: str) -> Path | None:
    """Folder of an editor that ships with the package, or None if there is none of that name."""
    folder = Path(str(files("components.editors"))) / "weights" / name
    return folder if "/" not in name and (folder / "model_index.json").is_file() else None


def _codec_config(folder: Path) -> dict[str, object]:
    return dict(PatchCodec.load_config(folder / "vae"))

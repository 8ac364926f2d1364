"""Base of pipelines that diffusers does not have: their parts, and opening and saving them in the released layout."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, FlowMatchEulerDiscreteScheduler, ModelMixin
from transformers import Qwen2_5_VLForConditionalGeneration

from editloop.models.backbones.weight_files import survey_weights
from editloop.models.editors.network_files import network_outline, read_network
from editloop.models.editors.qwen_processor import PictureProcessor


class OwnPipeline(DiffusionPipeline):
    """A transformer of ours, FLUX.1's codec, and Qwen2.5-VL as text encoder. It holds the parts; an editor samples."""

    network_class: ClassVar[type[ModelMixin]]
    """The transformer's class."""
    text_encoder_name: ClassVar[str] = "text_encoder"
    """The release's name of the text encoder."""
    published: ClassVar[Mapping[str, tuple[str, str]]]
    """Library and class of parts as the release's `model_index.json` names them, where its names are not ours."""

    def register(self, **parts: Any) -> None:
        """Keep the parts by the release's names.

        Args:
            **parts: All parts. Those that are not needed may be None.
        """
        self.register_modules(**parts)
        vae = parts["vae"]
        self.vae_scale_factor: int = 2 ** (len(vae.config.block_out_channels) - 1)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, dtype: torch.dtype, **options: Any) -> Self:  # type: ignore[override]
        """Open the pipeline from a released folder. Nothing is fetched, and no file but safetensors is read as weights.

        Args:
            folder: The folder.
            dtype: Type of the weights.
            **options: Parts that are opened already, by name. Others are not used: diffusers' options of that name.

        Raises:
            EditLoopError: A weight of the transformer is missing, surplus, of the wrong shape or not finite.
        """
        folder, encoder = Path(folder), cls.text_encoder_name
        parts = {name: options[name] for name in ("vae", encoder) if name in options}
        if "vae" not in parts:
            parts["vae"] = AutoencoderKL.from_pretrained(
                folder / "vae", torch_dtype=dtype, local_files_only=True, use_safetensors=True
            )
        if encoder not in parts:
            parts[encoder] = read_text_encoder(folder / encoder, dtype)
        network = read_network(cls.network_class, folder / "transformer", dtype)
        return cls(transformer=network, **parts, **cls._light_parts(folder))

    @classmethod
    def outline(cls, folder: Path) -> Self:
        """Open the pipeline without a text encoder, its transformer and codec on the meta device.

        Args:
            folder: The folder.
        """
        return cls(
            transformer=network_outline(cls.network_class, cls.network_class.load_config(folder / "transformer")),
            vae=network_outline(AutoencoderKL, AutoencoderKL.load_config(folder / "vae")),
            **{cls.text_encoder_name: None},
            **cls._light_parts(folder),
        )

    @classmethod
    def _light_parts(cls, folder: Path) -> dict[str, Any]:
        return {
            "scheduler": FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler"),
            "processor": PictureProcessor.from_folder(folder / "processor"),
        }

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Write the pipeline in the released layout.

        Args:
            save_directory: The folder to write.
            **options: As diffusers' own.
        """
        super().save_pretrained(save_directory, **options)
        path = Path(save_directory) / "model_index.json"
        index = json.loads(path.read_text())
        index |= {name: list(entry) for name, entry in self.published.items()}
        path.write_text(json.dumps(index, indent=2) + "\n")


def read_text_encoder(folder: Path, dtype: torch.dtype) -> Qwen2_5_VLForConditionalGeneration:
    """Read Qwen2.5-VL for use as a text encoder.

    Args:
        folder: Its folder.
        dtype: Type of the weights.

    Raises:
        EditLoopError: A file of weights is broken, pickled or lost.
    """
    survey_weights(folder)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        folder, dtype=dtype, local_files_only=True, use_safetensors=True
    )
    encoder: Qwen2_5_VLForConditionalGeneration = model.eval().requires_grad_(False)
    return encoder

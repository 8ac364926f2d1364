"""Base of pipelines that diffusers does not have: how their parts are read, joined and saved in the released layout."""

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Self

from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from editloop.models.editors.network_files import PartReader, network_outline, read_network, read_network_config
from editloop.models.editors.qwen_processor import PictureProcessor


class OwnPipeline(DiffusionPipeline):
    """A transformer of ours, FLUX.1's codec, and Qwen2.5-VL as text encoder. It holds the parts; an editor samples."""

    network_class: ClassVar[type[ModelMixin]]
    """The transformer's class."""
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
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike[str] | None, **parts: Any) -> Self:
        """Join parts that were read. Nothing is read here.

        Args:
            pretrained_model_name_or_path: Not used: diffusers' argument.
            **parts: The parts, and options of diffusers that are not used.
        """
        names, _ = cls._get_signature_keys(cls)
        return cls(**{name: parts[name] for name in names})

    @classmethod
    def light_parts(cls, folder: Path) -> dict[str, Any]:
        """Read the parts without weights.

        Args:
            folder: A released folder, or one that was saved.
        """
        return {
            "scheduler": FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler", local_files_only=True),
            "processor": PictureProcessor.from_folder(folder / "processor"),
        }

    @classmethod
    def readers(cls, folder: Path) -> dict[str, PartReader]:
        """Return how the transformer is read.

        Args:
            folder: A released folder, or one that was saved.
        """
        return {
            "transformer": PartReader(
                lambda dtype, device: read_network(cls.network_class, folder / "transformer", dtype, device),
                lambda: network_outline(
                    cls.network_class, read_network_config(cls.network_class, folder / "transformer")
                ),
            )
        }

    def save_pretrained(self, save_directory: str | PathLike[str], *args: Any, **options: Any) -> None:
        """Write the pipeline in the released layout.

        Args:
            save_directory: The folder to write.
            *args: As diffusers' own.
            **options: As diffusers' own.
        """
        super().save_pretrained(save_directory, *args, **options)
        path = Path(save_directory) / "model_index.json"
        index = json.loads(path.read_text())
        index |= {name: list(entry) for name, entry in self.published.items()}
        path.write_text(json.dumps(index, indent=2) + "\n")

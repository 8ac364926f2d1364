"""EditScore: a vision-language model that answers questions about an edit with reasons and scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from components.backbones.placement import placement
from components.backbones.prefix_tree import last_hidden
from components.backbones.tree_attention import follow_trees
from components.edit_score import checkpoints
from components.edit_score.adapters import merge_adapter, read_adapter
from components.edit_score.checkpoints import base_folder
from components.edit_score.rows import Packed, Row, RowMaker, packed
from components.edit_score.settings import EditScoreSettings
from infra.content import read_manifest


class EditScoreModel(nn.Module):
    """A Qwen2.5-VL or Qwen3-VL that generates, with the questions that it answers."""

    def __init__(self, backbone: Any, tokenizer: PreTrainedTokenizerBase, settings: EditScoreSettings):
        """backbone: Qwen2_5_VLForConditionalGeneration or Qwen3VLForConditionalGeneration."""
        super().__init__()
        self.backbone, self.tokenizer = backbone, tokenizer
        self.set_settings(settings)
        follow_trees(backbone.model)

    @classmethod
    def load(
        cls, model: str | Path, device: str | None = None, dtype: torch.dtype | None = None,
        base: str | Path | None = None,
    ) -> "EditScoreModel":  # fmt: skip
        """Open a model's folder or shipped name; its digests are checked, and those of its base where it is an adapter.

        device: None takes the first GPU, or else the CPU. dtype: None takes bfloat16 on a GPU, float32 on a CPU. base:
        where the adapter's base lies now, if not where it lay when the adapter was made.
        """
        folder = base_folder(model)
        place, kind = placement(device, dtype)
        settings = checkpoints.read_settings(folder)
        if not (folder / checkpoints.BASE).is_file():
            return cls(*checkpoints.open_base(folder, kind)).to(place).eval()
        read_manifest(folder, check=True)
        opened = checkpoints.open_base(checkpoints.referenced_base(folder, base), kind)
        loaded = cls(opened.backbone.to(place), opened.tokenizer, settings)
        merge_adapter(loaded.backbone, read_adapter(folder / "adapter"))
        return loaded.eval()

    @classmethod
    def from_base(
        cls, base: str | Path, settings: EditScoreSettings | None = None, device: str | None = None,
        dtype: torch.dtype | None = None,
    ) -> "EditScoreModel":  # fmt: skip
        """A base's weights (a folder or shipped name, or a released checkpoint's folder) with questions of one's own.

        settings: None keeps those of an EditScore folder, and takes the published ones for a checkpoint. How pictures
        are scaled is the base's.
        """
        place, kind = placement(device, dtype)
        opened = checkpoints.open_base(base_folder(base), kind)
        scale = opened.settings.model_dump(include={"image_mean", "image_std"})
        asked = opened.settings if settings is None else settings.model_copy(update=scale)
        return cls(opened.backbone, opened.tokenizer, asked).to(place).eval()

    @classmethod
    def with_adapter(
        cls, base: str | Path, adapter: Path, settings: EditScoreSettings | None = None, device: str | None = None,
        dtype: torch.dtype | None = None, base_name: str | None = None,
    ) -> "EditScoreModel":  # fmt: skip
        """A base with a released LoRA adapter (PEFT's folder, safetensors) added to its weights.

        base_name: what model the base's folder holds, as the adapter's config names it, where the folder does not tell.
        EditLoopError for an adapter of another base.
        """
        read = read_adapter(adapter)
        checkpoints.check_base_name(read, base_folder(base), base_name)
        model = cls.from_base(base, settings, device, dtype)
        merge_adapter(model.backbone, read)
        return model

    def save(self, folder: Path, facts: dict[str, object], extra: dict[str, object] | None = None) -> None:
        """Write a model's folder with whole weights, manifest last; `extra` = {file name: JSON value} beside them."""
        checkpoints.save_whole(folder, self.backbone, self.tokenizer, self.settings, facts, extra or {})

    def set_settings(self, settings: EditScoreSettings) -> None:
        """Ask and answer by other settings from now on."""
        self.settings, self.rows = settings, RowMaker(self.backbone.config, self.tokenizer, settings)

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    def collate(self, rows: Sequence[Row]) -> Packed:
        """The rows as one sequence, on the CPU."""
        return packed(rows, self.rows.marks)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits (M, vocabulary) of the M answer tokens of a batch, row after row."""
        return self.logits(last_hidden(self.backbone.model, batch)[batch["before"]])

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., width) -> (..., vocabulary)"""
        found: Tensor = self.backbone.lm_head(hidden)
        return found

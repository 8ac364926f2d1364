"""EditScore: a vision-language model that answers questions about an edit with reasons and scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from editloop.content import read_manifest
from editloop.models.backbones.placement import placement
from editloop.models.backbones.prefix_tree import last_hidden
from editloop.models.backbones.tree_attention import enable_tree_attention
from editloop.models.edit_score import checkpoints
from editloop.models.edit_score.adapters import apply_adapter, read_adapter
from editloop.models.edit_score.checkpoints import base_folder
from editloop.models.edit_score.rows import PackedRows, PromptRow, RowMaker, pack_rows
from editloop.models.edit_score.settings import EditScoreSettings


class EditScoreModel(nn.Module):
    """A Qwen2.5-VL or Qwen3-VL that generates, with the questions that it answers."""

    def __init__(self, backbone: Any, tokenizer: PreTrainedTokenizerBase, settings: EditScoreSettings):
        """backbone: Qwen2_5_VLForConditionalGeneration or Qwen3VLForConditionalGeneration."""
        super().__init__()
        self.backbone, self.tokenizer = backbone, tokenizer
        self.set_settings(settings)
        enable_tree_attention(backbone.model)

    @classmethod
    def load(
        cls,
        model: str | Path,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        base: str | Path | None = None,
    ) -> "EditScoreModel":
        """Open a model's folder or shipped name; its digests are checked, and those of its base where it is an adapter.

        device: None takes the first GPU, or else the CPU. dtype: None takes bfloat16 on a GPU, float32 on a CPU. base:
        where the adapter's base lies now, if not where it lay when the adapter was made.
        """
        folder = base_folder(model)
        target_device, target_dtype = placement(device, dtype)
        settings = checkpoints.read_settings(folder)
        if not (folder / checkpoints.BASE).is_file():
            return cls(*checkpoints.open_base(folder, target_dtype)).to(target_device).eval()
        read_manifest(folder, check=True)
        opened = checkpoints.open_base(checkpoints.resolve_base(folder, base), target_dtype)
        loaded = cls(opened.backbone.to(target_device), opened.tokenizer, settings)
        apply_adapter(loaded.backbone, read_adapter(folder / "adapter"))
        return loaded.eval()

    @classmethod
    def from_base(
        cls,
        base: str | Path,
        settings: EditScoreSettings | None = None,
        device: str | None = None,
        dtype: torch.dtype | None = None,
    ) -> "EditScoreModel":
        """A base's weights (a folder or shipped name, or a released checkpoint's folder) with questions of one's own.

        settings: None keeps those of an EditScore folder, and takes the published ones for a checkpoint. How pictures
        are scaled is the base's.
        """
        target_device, target_dtype = placement(device, dtype)
        opened = checkpoints.open_base(base_folder(base), target_dtype)
        scale = opened.settings.model_dump(include={"image_mean", "image_std"})
        model_settings = opened.settings if settings is None else settings.model_copy(update=scale)
        return cls(opened.backbone, opened.tokenizer, model_settings).to(target_device).eval()

    @classmethod
    def with_adapter(
        cls,
        base: str | Path,
        adapter: Path,
        settings: EditScoreSettings | None = None,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        base_name: str | None = None,
    ) -> "EditScoreModel":
        """A base with a released LoRA adapter (PEFT's folder, safetensors) added to its weights.

        base_name: what model the base's folder holds, as the adapter's config names it, where the folder does not tell.
        EditLoopError for an adapter of another base.
        """
        lora = read_adapter(adapter)
        checkpoints.check_base_name(lora, base_folder(base), base_name)
        model = cls.from_base(base, settings, device, dtype)
        apply_adapter(model.backbone, lora)
        return model

    def save(self, folder: Path, facts: dict[str, object], extra: dict[str, object] | None = None) -> None:
        """Write a model's folder with whole weights, manifest last; `extra` = {file name: JSON value} beside them."""
        checkpoints.save_full_model(folder, self.backbone, self.tokenizer, self.settings, facts, extra or {})

    def set_settings(self, settings: EditScoreSettings) -> None:
        """Ask and answer by other settings from now on."""
        self.settings, self.rows = settings, RowMaker(self.backbone.config, self.tokenizer, settings)

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    def collate(self, rows: Sequence[PromptRow]) -> PackedRows:
        """The rows as one sequence, on the CPU."""
        return pack_rows(rows, self.rows.marks)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits (M, vocabulary) of the M answer tokens of a batch, row after row."""
        return self.logits(last_hidden(self.backbone.model, batch)[batch["before"]])

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., width) -> (..., vocabulary)"""
        logits: Tensor = self.backbone.lm_head(hidden)
        return logits

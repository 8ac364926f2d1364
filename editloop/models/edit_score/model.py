"""EditScore: a vision-language model that answers questions about an edit with reasons and scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from editloop.content import complete_folder
from editloop.models.backbones.placement import check_model_folder, placement
from editloop.models.backbones.prefix_tree import last_hidden
from editloop.models.backbones.spreading import Spread
from editloop.models.backbones.tree_attention import enable_tree_attention
from editloop.models.backbones.vision_attention import enable_segment_attention
from editloop.models.edit_score import checkpoints
from editloop.models.edit_score.adapters import apply_adapter, read_adapter
from editloop.models.edit_score.checkpoints import base_folder
from editloop.models.edit_score.rows import PackedRows, PromptRow, RowMaker, pack_rows
from editloop.models.edit_score.settings import EditScoreSettings
from editloop.models.judge_protocol import warn_of_substitute, wording_facts


class EditScoreModel(nn.Module):
    """A generating Qwen2.5-VL or Qwen3-VL, together with the questions that it answers."""

    def __init__(self, backbone: Any, tokenizer: PreTrainedTokenizerBase, settings: EditScoreSettings):
        """Join a backbone and its questions, and switch the backbone to tree and segment attention.

        Args:
            backbone: Qwen2_5_VLForConditionalGeneration or Qwen3VLForConditionalGeneration.
            tokenizer: The backbone's tokenizer.
            settings: The questions, and how they are answered.
        """
        super().__init__()
        self.backbone, self.tokenizer = backbone, tokenizer
        self.set_settings(settings)
        enable_tree_attention(backbone.model)
        enable_segment_attention(backbone.model)

    @classmethod
    def load(
        cls,
        model: str | Path,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        base: str | Path | None = None,
        spread: Spread | None = None,
    ) -> "EditScoreModel":
        """Open a model after checking its files against its manifest. The base of an adapter is checked too.

        Args:
            model: The folder, or the name of a shipped model.
            device: None takes the first GPU, or the CPU where there is none.
            dtype: Type of the weights. None takes bfloat16 on a GPU, float32 on a CPU.
            base: Folder or shipped name of an adapter's base; None takes the one that the model's folder names.
            spread: Where each rank of a job keeps its part of the weights; None: this process has them whole.

        Returns:
            The model, in evaluation mode, with an adapter merged.

        Raises:
            EditLoopError: There is no model, its files are missing or changed, or the base is not the adapter's.
        """
        folder = base_folder(model)
        target_device, target_dtype = placement(device, dtype)
        settings = checkpoints.read_settings(folder)
        warn_of_substitute(settings, folder)
        is_adapter = (folder / checkpoints.BASE).is_file()
        if is_adapter:
            check_model_folder(folder)
        weights = checkpoints.resolve_base(folder, base) if is_adapter else folder
        opened = checkpoints.open_base(weights, target_dtype, spread=spread)
        loaded = cls(opened.backbone, opened.tokenizer, settings)
        if not spread:
            loaded.to(target_device)
        if is_adapter:
            apply_adapter(loaded.backbone, read_adapter(folder / "adapter"))
        return loaded.eval()

    @classmethod
    def from_base(
        cls,
        base: str | Path,
        settings: EditScoreSettings | None = None,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        spread: Spread | None = None,
    ) -> "EditScoreModel":
        """Open a base's weights with other questions.

        Args:
            base: Folder or shipped name of an EditScore model with whole weights, or the folder of a released
                checkpoint.
            settings: The questions. None takes those of an EditScore model, and the published ones for a released
                checkpoint. The image normalisation is always the base's.
            device: None takes the first GPU, or the CPU where there is none.
            dtype: Type of the weights. None takes bfloat16 on a GPU, float32 on a CPU.
            spread: Where each rank of a job keeps its part of the weights; None: this process has them whole.

        Returns:
            The model, in evaluation mode.

        Raises:
            EditLoopError: The base cannot be loaded.
        """
        target_device, target_dtype = placement(device, dtype)
        opened = checkpoints.open_base(base_folder(base), target_dtype, spread=spread)
        scale = opened.settings.model_dump(include={"image_mean", "image_std"})
        model_settings = opened.settings if settings is None else settings.model_copy(update=scale)
        loaded = cls(opened.backbone, opened.tokenizer, model_settings)
        return (loaded if spread else loaded.to(target_device)).eval()

    def save(self, folder: Path, facts: dict[str, object], extra: dict[str, object] | None = None) -> None:
        """Write a model's folder with whole weights, manifest last.

        Args:
            folder: The folder to write. An existing one is replaced.
            facts: Stored in the manifest.
            extra: JSON values by file name, written beside the weights.
        """
        with complete_folder(folder, wording_facts(self.settings) | facts) as out:
            self.backbone.save_pretrained(out / "backbone", safe_serialization=True)
            self.tokenizer.save_pretrained(out / "tokenizer")
            checkpoints.write_settings(out, self.settings, extra or {})

    def set_settings(self, settings: EditScoreSettings) -> None:
        """Replace the settings.

        Args:
            settings: The questions, and how they are answered from now on.
        """
        self.settings, self.rows = settings, RowMaker(self.backbone.config, self.tokenizer, settings)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        device: torch.device = next(self.backbone.parameters()).device
        return device

    def collate(self, rows: Sequence[PromptRow]) -> PackedRows:
        """Pack rows into one sequence, on the CPU.

        Args:
            rows: Prompts, with or without answers.
        """
        return pack_rows(rows, self.rows.marks)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the logits of the M answer tokens of a batch, (M, vocabulary), row after row.

        Args:
            batch: The tensors that `collate` makes of rows with answers, on the model's device.
        """
        return self.logits(last_hidden(self.backbone.model, batch)[batch["before"]])

    def logits(self, hidden: Tensor) -> Tensor:
        """Apply the output layer to hidden states.

        Args:
            hidden: (..., width).

        Returns:
            The logits, (..., vocabulary).
        """
        logits: Tensor = self.backbone.lm_head(hidden)
        return logits

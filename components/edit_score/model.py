"""EditScore: a vision-language model that answers questions about an edit with reasons and scores."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from components.backbones.prefix_tree import last_hidden
from components.backbones.tree_attention import follow_trees
from components.edit_score.rows import Packed, Row, RowMaker, packed
from components.edit_score.settings import EditScoreSettings


class EditScoreModel(nn.Module):
    """A Qwen2.5-VL or Qwen3-VL that generates, with the questions that it answers."""

    def __init__(self, backbone: Any, tokenizer: PreTrainedTokenizerBase, settings: EditScoreSettings):
        """backbone: Qwen2_5_VLForConditionalGeneration or Qwen3VLForConditionalGeneration."""
        super().__init__()
        self.backbone, self.tokenizer, self.settings = backbone, tokenizer, settings
        self.rows = RowMaker(backbone.config, tokenizer, settings)
        follow_trees(backbone.model)

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

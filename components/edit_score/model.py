"""EditScore: a vision-language model that answers questions about an edit with reasons and scores."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from components.backbones.pictures import encode_pictures
from components.edit_score.rows import IGNORED, Row, RowMaker, collate
from components.edit_score.settings import EditScoreSettings


class EditScoreModel(nn.Module):
    """A Qwen2.5-VL or Qwen3-VL that generates, with the questions that it answers."""

    def __init__(self, backbone: Any, tokenizer: PreTrainedTokenizerBase, settings: EditScoreSettings):
        """backbone: Qwen2_5_VLForConditionalGeneration or Qwen3VLForConditionalGeneration."""
        super().__init__()
        self.backbone, self.tokenizer, self.settings = backbone, tokenizer, settings
        self.rows = RowMaker(backbone.config, tokenizer, settings)

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    def collate(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Tensors of the rows, on the CPU."""
        return collate(rows, self.backbone.model, int(self.tokenizer.pad_token_id))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits (M, vocabulary) of the M answer tokens of a batch made by `collate`, row after row."""
        hidden = self.read(batch, use_cache=False).last_hidden_state
        return self.backbone.lm_head(hidden[:, :-1][batch["targets"][:, 1:] != IGNORED])

    def read(self, batch: dict[str, Tensor], **more: Any) -> Any:
        """The backbone's output for a batch; every distinct picture goes through the vision tower once."""
        names = ("pixel_values", "image_grid_thw", "image_of")
        return self.backbone.model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], position_ids=batch["position_ids"],
            mm_encoder_outputs=encode_pictures(self.backbone.model, *(batch[name] for name in names)), **more,
        )  # fmt: skip

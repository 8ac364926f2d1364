"""EditScore: a vision-language model that answers questions about an edit with reasons and scores."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from components.edit_score.rows import IGNORED, Row, RowMaker, collate
from components.edit_score.settings import EditScoreSettings


class EditScoreModel(nn.Module):
    """A Qwen2.5-VL or Qwen3-VL for generation, with the questions that it answers."""

    def __init__(self, backbone: Any, tokenizer: PreTrainedTokenizerBase, settings: EditScoreSettings):
        """`backbone`: Qwen2_5_VLForConditionalGeneration or Qwen3VLForConditionalGeneration."""
        super().__init__()
        self.backbone, self.tokenizer, self.settings = backbone, tokenizer, settings
        self.rows = RowMaker(tokenizer, settings)

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    def collate(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Tensors of the rows, on the CPU."""
        return collate(rows, self.backbone.model, self.tokenizer, self.settings)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits (M, vocabulary) of the M answer tokens of a batch, row after row."""
        hidden = self.hidden(batch).last_hidden_state
        return self.backbone.lm_head(hidden[:, :-1][batch["targets"][:, 1:] != IGNORED])

    def hidden(self, batch: dict[str, Tensor], **more: Any) -> Any:
        """The language model's output for a batch; every distinct image goes through the vision tower once."""
        seen = self.backbone.model.get_image_features(batch["pixel_values"], batch["image_grid_thw"], return_dict=True)
        order = batch["images"].tolist()
        seen.pooler_output = [seen.pooler_output[index] for index in order]
        if getattr(seen, "deepstack_features", None) is not None:
            seen.deepstack_features = [[layer[index] for index in order] for layer in seen.deepstack_features]
        return self.backbone.model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], position_ids=batch["position_ids"],
            mm_encoder_outputs={"image": seen}, **more,
        )  # fmt: skip

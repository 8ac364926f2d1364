"""Supervised fine-tuning's loss: the answer's tokens, given the question and the pictures."""

from collections.abc import Sequence

import torch
from torch import Tensor

from editloop.models.edit_score.model import EditScoreModel
from editloop.models.edit_score.rows import PromptRow


def sft_loss(model: EditScoreModel, rows: Sequence[PromptRow]) -> Tensor:
    """Mean cross-entropy (nats) over the answers' tokens of rows that have one; a scalar with gradient."""
    batch = {name: value.to(model.device) for name, value in model.collate(rows).tensors.items()}
    return answer_loss(model(batch), batch["targets"])


def answer_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The same from the model's logits (M, vocabulary) and a batch's targets (M,)."""
    return torch.nn.functional.cross_entropy(logits.float(), targets)

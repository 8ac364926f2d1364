"""Loss of supervised fine-tuning: cross-entropy of the answer's tokens, given the question and the images."""

from collections.abc import Sequence

import torch
from torch import Tensor

from editloop.models.edit_score.model import EditScoreModel
from editloop.models.edit_score.rows import PromptRow


def sft_loss(model: EditScoreModel, rows: Sequence[PromptRow]) -> Tensor:
    """Return the mean cross-entropy (nats) over the answers' tokens, a scalar with gradient.

    Args:
        model: The model to train.
        rows: Prompts with their answers. Rows without an answer do not count.
    """
    batch = {name: value.to(model.device) for name, value in model.collate(rows).tensors.items()}
    return answer_loss(model(batch), batch["targets"])


def answer_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy (nats) over the answers' tokens, a scalar.

    Args:
        logits: The model's logits at these tokens, (M, vocabulary).
        targets: Token ids of the answers, (M,).
    """
    return torch.nn.functional.cross_entropy(logits.float(), targets)

"""Loss of supervised fine-tuning: cross-entropy of the answer's tokens, given the question and the images."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from editloop.models.edit_score.model import EditScoreModel
from editloop.models.edit_score.rows import PromptRow


def sft_loss(model: EditScoreModel, rows: Sequence[PromptRow]) -> Float[Tensor, ""]:
    """Return the mean cross-entropy (nats) over the answers' tokens, with gradient.

    Args:
        model: The model to train.
        rows: Prompts with their answers. Rows without an answer do not count.
    """
    batch = {name: value.to(model.device) for name, value in model.collate(rows).tensors.items()}
    return answer_loss(model(batch), batch["targets"])


def answer_loss(logits: Float[Tensor, "tokens vocabulary"], targets: Int[Tensor, " tokens"]) -> Float[Tensor, ""]:
    """Return the mean cross-entropy (nats) over the answers' tokens.

    Args:
        logits: The model's logits at these tokens.
        targets: Token ids of the answers.
    """
    return torch.nn.functional.cross_entropy(logits.float(), targets)

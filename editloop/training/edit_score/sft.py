"""Loss of supervised fine-tuning: cross-entropy of the answer's tokens, given the question and the images."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def answer_loss(logits: Float[Tensor, "tokens vocabulary"], targets: Int[Tensor, " tokens"]) -> Float[Tensor, ""]:
    """Return the mean cross-entropy (nats) over the answers' tokens.

    Args:
        logits: The model's logits at these tokens.
        targets: Token ids of the answers.
    """
    return torch.nn.functional.cross_entropy(logits.float(), targets)

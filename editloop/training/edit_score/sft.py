"""Loss of supervised fine-tuning: cross-entropy of the answer's tokens, given the question and the images."""

import torch
from torch import Tensor


def answer_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy (nats) over the answers' tokens, a scalar.

    Args:
        logits: The model's logits at these tokens, (M, vocabulary).
        targets: Token ids of the answers, (M,).
    """
    return torch.nn.functional.cross_entropy(logits.float(), targets)

"""Where a model is used, and in what type, where nobody says."""

import torch


def placement(
    device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> tuple[torch.device, torch.dtype]:
    """Device and type of the weights of a model that is used, not trained.

    Args:
        device: None takes the first GPU, or else the CPU.
        dtype: None takes bfloat16 on a GPU, float32 on a CPU.
    """
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return target, dtype or (torch.float32 if target.type == "cpu" else torch.bfloat16)

"""Default device and dtype of a model that is used for inference."""

import torch


def placement(
    device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> tuple[torch.device, torch.dtype]:
    """Return device and dtype of a model that is used, not trained.

    Args:
        device: None takes the first GPU, or the CPU where there is none.
        dtype: None takes bfloat16 on a GPU, float32 on a CPU.
    """
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return target, dtype or (torch.float32 if target.type == "cpu" else torch.bfloat16)

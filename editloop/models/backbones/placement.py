"""How a process opens a model: its default device and dtype, and whether it checks the model's files."""

import os
from pathlib import Path

import torch

from editloop.content import read_manifest


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


def check_model_folder(folder: Path) -> None:
    """Compare the files of a model's folder with its manifest.

    Of a training's processes on one machine only the first does: an error there ends the training on all ranks.

    Args:
        folder: The model's folder.

    Raises:
        EditLoopError: The folder is not complete, or a file was changed, removed or added.
    """
    read_manifest(folder, check=os.environ.get("LOCAL_RANK", "0") == "0")

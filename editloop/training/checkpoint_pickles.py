"""Read DeepSpeed's files of a checkpoint without running code that somebody put into them.

    python -m editloop.training.checkpoint_pickles --input_folder FOLDER --output_folder FOLDER

The command writes a checkpoint in DeepSpeed's universal form.

DeepSpeed writes its states with pickle and reads them with everything that pickle can do. A manifest does not help
where a checkpoint comes from a bucket: whoever can write there writes the manifest too. So PyTorch's restricted reader
is forced, which makes tensors and plain values, and of classes only those in `state_classes`.
"""

import pickle
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from editloop.environment import environment_variables
from editloop.errors import EditLoopError

RESTRICTED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
"""PyTorch's variable that makes every `torch.load` restricted, also one that asks for the opposite."""

GLOBAL = re.compile(r"GLOBAL (\S+)")
"""The function or class that the restricted reader refuses, in its message."""


def state_classes() -> list[Any]:
    """Return the classes that DeepSpeed's states hold. Making one runs none of the file's own code."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]


@contextmanager
def restricted_pickles(checkpoint: Path) -> Iterator[None]:
    """Restrict every `torch.load` of the block to tensors, plain values and `state_classes`.

    Args:
        checkpoint: The checkpoint that is read, for the message.

    Raises:
        EditLoopError: A file holds something else. Nothing of it was run.
    """
    with environment_variables(**{RESTRICTED: "1"}), torch.serialization.safe_globals(state_classes()):
        try:
            yield
        except pickle.UnpicklingError as error:
            raise EditLoopError(
                f"{checkpoint}: holds more than a training's state ({_unexpected(error)}); it was not run. Find out "
                "who wrote it, and delete it to go on at the one before."
            ) from None


def _unexpected(error: pickle.UnpicklingError) -> str:
    """Return what the restricted reader met, from its long message."""
    match = GLOBAL.search(str(error))
    return match[1] if match else "no pickle that can be read"


def main() -> None:
    """Write a checkpoint in the universal form, with the arguments of DeepSpeed's own program."""
    from deepspeed.checkpoint import ds_to_universal

    arguments = ds_to_universal.parse_arguments()
    with restricted_pickles(Path(arguments.input_folder)):
        ds_to_universal.main(arguments)


if __name__ == "__main__":
    try:
        main()
    except EditLoopError as error:
        sys.exit(str(error))

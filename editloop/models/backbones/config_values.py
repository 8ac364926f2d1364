"""Checks of a configuration file before a model is made of it."""

import json
from pathlib import Path

from editloop.errors import EditLoopError
from editloop.text_file import file_bytes

LAYER_COUNTS = frozenset(
    {
        *("num_hidden_layers", "depth", "num_layers", "num_single_layers", "num_refiner_layers"),
        *("num_decoder_layers", "encoder_layers", "decoder_layers", "n_layer"),
    }
)
"""Keys of a configuration that say how many layers are made."""
MAX_LAYERS = 1000
"""Most layers of a model that is opened. The largest of those that are read here have about a hundred; a folder that
asks for millions would take all memory before its weights are looked at."""


def check_config_values(path: Path) -> None:
    """Refuse a configuration of quantised weights or of too many layers, at any depth of the file.

    Args:
        path: The file, in JSON.

    Raises:
        EditLoopError: It is such a configuration, or cannot be read.
    """
    try:
        values = json.loads(file_bytes(path))
        _check(values, path)
    except (OSError, ValueError, RecursionError) as error:
        raise EditLoopError(f"{path}: cannot be read as JSON ({error}). Take the one that was published.") from None


def _check(values: object, path: Path) -> None:
    if not isinstance(values, dict):
        return
    if values.get("quantization_config"):
        raise EditLoopError(
            f"{path}: quantization_config says that the weights are quantised. Take the checkpoint that was not."
        )
    for key in LAYER_COUNTS & values.keys():
        if isinstance(values[key], int | float) and not 0 <= values[key] <= MAX_LAYERS:
            raise EditLoopError(
                f"{path}: {key} is {values[key]:,}; a model of at most {MAX_LAYERS:,} layers is opened. Take the "
                "configuration that the checkpoint was published with."
            )
    for value in values.values():
        _check(value, path)

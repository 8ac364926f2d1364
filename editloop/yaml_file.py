"""YAML files of settings that a user writes: one reader, one line for a file that cannot be read."""

from pathlib import Path
from typing import Any

import yaml

from editloop.errors import EditLoopError


def read_yaml(path: Path) -> Any:
    """The value in a YAML file.

    Raises:
        EditLoopError: There is no such file, or it is not YAML in UTF-8.
    """
    try:
        return yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise EditLoopError(f"{path}: cannot be read ({error.strerror}). Give a YAML file.") from error
    except yaml.YAMLError as error:
        raise EditLoopError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())}). Correct it.") from error

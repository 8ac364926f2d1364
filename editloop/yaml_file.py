"""Reader of the YAML settings files that users write. A file that cannot be read gives a one-line error."""

from pathlib import Path
from typing import Any

import yaml

from editloop.errors import EditLoopError


def read_yaml(path: Path) -> Any:
    """Return the value in a YAML file.

    Args:
        path: The file to read.

    Raises:
        EditLoopError: The file does not exist, or is not valid YAML in UTF-8.
    """
    try:
        return yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise EditLoopError(f"{path}: cannot be read ({error.strerror}). Give a YAML file.") from error
    except yaml.YAMLError as error:
        raise EditLoopError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())}). Correct it.") from error

"""YAML settings: one reader, one way to find a preset, one format of messages for all files that users write."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from editloop.errors import EditLoopError, there_are

Model = TypeVar("Model", bound=BaseModel)

LONGEST_VALUE = 80
"""Characters of a value in a message."""


class FrozenModel(BaseModel):
    """Values that do not change, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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


def read_settings(model: type[Model], path: Path, kind: str, **overrides: Any) -> Model:
    """Read settings from a YAML file and check them.

    Args:
        model: Class of the settings.
        path: The file.
        kind: What the file is, for messages: `preset`, `gate`.
        **overrides: Values that take the place of the file's.

    Raises:
        EditLoopError: The file cannot be read, or its values are not valid; one line that names every fault.
    """
    values = read_yaml(path)
    if values is None:  # an empty file
        values = {}
    if isinstance(values, dict):
        values |= overrides
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(setting_faults(error, model))
        raise EditLoopError(f"{kind} {path}: {faults}. Correct the file.") from None


def setting_faults(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Describe each fault of settings as `key=value: rule`, the key by its path.

    Args:
        error: What pydantic found.
        model: Class of the settings, for the nearest name of a key that does not exist.
    """
    return [_fault(details, model) for details in error.errors()]


def shorten(value: object) -> str:
    """Return a value as text of one line and bearable length.

    Args:
        value: The value.
    """
    text = value if isinstance(value, str) and value.isprintable() and value.strip() else repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def preset_names(folder: Path) -> list[str]:
    """Return the names of the presets in a folder, sorted.

    Args:
        folder: Folder of NAME.yaml files.
    """
    return sorted(path.stem for path in folder.glob("*.yaml"))


def find_preset(name: str, folder: Path, kind: str) -> Path:
    """Find a preset by its name, or by the path of a YAML file.

    Args:
        name: The name of a shipped preset, or a path: with a slash in it, or ending in .yaml or .yml.
        folder: Folder of the shipped presets.
        kind: What it is, for messages: `preset`, `gate`.

    Raises:
        EditLoopError: There is neither.
    """
    is_path = "/" in name or name.endswith((".yaml", ".yml"))
    path = Path(name) if is_path else folder / f"{name}.yaml"
    if not path.is_file():
        raise EditLoopError(f"{kind} {name!r}: no such file or name; {there_are(name, preset_names(folder))}")
    return path


def _fault(details: Any, model: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in details["loc"] if part != "[key]")
    message = details["msg"].removeprefix("Value error, ")
    if details["type"] == "missing":
        return f"{key}: missing"
    if details["type"] == "extra_forbidden":
        nearest = get_close_matches(str(details["loc"][-1]), _keys(model), n=1)
        return f"{key}: unknown key" + (f" (did you mean {nearest[0]}?)" if nearest else "")
    return f"{key}={shorten(details['input'])}: {message}" if key else message


def _keys(model: type[BaseModel]) -> list[str]:
    """Names of the fields of settings and of the settings inside."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        keys.append(name)
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys += _keys(inner)
    return keys

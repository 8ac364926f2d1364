"""YAML settings: one reader, one way to find a preset, one format of messages for all files that users write."""

import json
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from editloop.errors import EditLoopError, there_are
from editloop.text_file import read_text_file

Model = TypeVar("Model", bound=BaseModel)

LONGEST_VALUE = 80
"""Characters of a value in a message."""
MOST_FAULTS = 50
"""Faults of settings that are named; the others are counted."""
LARGEST_YAML = 2**18
"""Bytes of the largest YAML file: about two seconds to read."""
DEEPEST = 32
"""Most levels of settings inside each other: an honest file has a handful."""
MOST_VALUES = 100_000
"""Most values of a text, aliases counted as often as they are used: a short text can name itself a billion times."""


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
    return parse_yaml(read_text_file(path, LARGEST_YAML), str(path))


def parse_yaml(text: str, source: str) -> Any:
    """Return the value of a YAML text that a person wrote.

    Args:
        text: The text.
        source: Where it comes from, for the message.

    Raises:
        EditLoopError: The text is not valid YAML, nests deeper than DEEPEST, or stands for more than MOST_VALUES.
    """
    try:
        return yaml.load(text, _BoundedLoader)  # a SafeLoader
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number or a date that is none
        raise EditLoopError(
            f"{source}: cannot be read as YAML ({' '.join(str(error).split())}). Correct it."
        ) from error


def parse_json(text: str, source: str) -> Any:
    """Return the value of a JSON text that a person wrote.

    Args:
        text: The text.
        source: Where it comes from, for the message.

    Raises:
        EditLoopError: The text is not JSON, or nests deeper than Python reads.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise EditLoopError(f"{source}: not JSON ({error}). Correct it.") from error
    except RecursionError:
        raise EditLoopError(f"{source}: too many levels of JSON inside each other. Correct it.") from None


class _BoundedLoader(yaml.SafeLoader):
    """A safe loader that refuses what would take the machine's memory or Python's stack."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.YAMLError(f"more than {DEEPEST} levels inside each other")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _count_values(node, {}) > MOST_VALUES:
            raise yaml.YAMLError(f"aliases that stand for more than {MOST_VALUES} values")
        return node


def _count_values(node: yaml.Node, counts: dict[int, int]) -> int:
    """Return the number of values of a node, those behind an alias counted each time. `counts` has those known."""
    if id(node) not in counts:
        counts[id(node)] = MOST_VALUES + 1  # what a node that contains itself comes to
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        counts[id(node)] = 1 + sum(_count_values(part, counts) for part in parts)
    return counts[id(node)]


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
    return validate_settings(model, values, f"{kind} {path}", "Correct the file.")


def validate_settings(model: type[Model], values: Any, source: str, advice: str) -> Model:
    """Check the values of settings.

    Args:
        model: Class of the settings.
        values: The values by key.
        source: Where they come from, for the message.
        advice: What to do about a fault, as a sentence.

    Raises:
        EditLoopError: A value is missing, unknown or not valid; one line that names every fault.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise EditLoopError(f"{source}: {'; '.join(setting_faults(error, model))}. {advice}") from None


def setting_faults(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Describe each fault of settings as `key=value: rule`, the key by its path.

    Args:
        error: What pydantic found.
        model: Class of the settings, for the nearest name of a key that does not exist.
    """
    named = [_fault(details, model) for details in error.errors()[:MOST_FAULTS]]
    return [*named, *([f"and {more:,} faults more"] if (more := error.error_count() - MOST_FAULTS) > 0 else [])]


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


def is_preset_path(name: str) -> bool:
    """Return whether a preset is named by the path of a file: with a slash in it, or ending in .yaml or .yml.

    Args:
        name: The preset as a user wrote it.
    """
    return "/" in name or name.endswith((".yaml", ".yml"))


def find_preset(name: str, folder: Path, kind: str) -> Path:
    """Find a preset by its name, or by the path of a YAML file.

    Args:
        name: The name of a shipped preset, or a path, see `is_preset_path`.
        folder: Folder of the shipped presets.
        kind: What it is, for messages: `preset`, `gate`.

    Raises:
        EditLoopError: There is neither.
    """
    path = Path(name) if is_preset_path(name) else folder / f"{name}.yaml"
    if not path.is_file():
        raise EditLoopError(f"{kind} {name!r}: no such file or name; {there_are(name, preset_names(folder))}")
    return path


def _fault(details: Any, model: type[BaseModel]) -> str:
    key, member = _key_path(details["loc"], model)
    message = details["msg"].removeprefix("Value error, ")
    if details["type"] == "missing":
        return f"{key}: missing"
    if details["type"] == "extra_forbidden":
        nearest = _nearest_key(key, model)
        return f"{key}: unknown key" + (f" for {member}" if member else "") + nearest
    if details["type"] == "model_attributes_type":
        message = "Input should be a mapping of keys"
    if details["type"] == "union_tag_not_found":
        return f"{key}.{_discriminator(details)}: missing"
    if details["type"] == "union_tag_invalid":
        choices = details["ctx"]["expected_tags"].replace("', '", "' or '")
        return f"{key}.{_discriminator(details)}={shorten(details['ctx']['tag'])}: Input should be {choices}"
    return f"{key}={shorten(details['input'])}: {message}" if key else message


def _discriminator(details: Any) -> str:
    name: str = details["ctx"]["discriminator"]
    return name.strip("'")


def _key_path(location: Sequence[Any], model: type[BaseModel]) -> tuple[str, str]:
    """Return the path of a key in the file, and the name of the union's member that it belongs to, or "".

    Where a key holds one of several settings, pydantic puts the member's name behind it. The file does not have that.
    """
    names: list[str] = []
    member, classes = "", [model]
    parts = iter(part for part in location if part != "[key]")
    for part in parts:
        names.append(str(part))
        field = next((owner.model_fields[part] for owner in classes if part in owner.model_fields), None)
        classes = _settings_classes(field.annotation) if field else []
        if field and field.discriminator:
            member = str(next(parts, ""))
    return ".".join(names), member


def _nearest_key(key: str, model: type[BaseModel]) -> str:
    """Return a question that names the key most like one that does not exist; empty where none is like it."""
    paths = _key_paths(model)
    if key in paths:  # of another member of a union
        return ""
    parent, _, name = key.rpartition(".")
    siblings = [path.rpartition(".")[2] for path in paths if path.rpartition(".")[0] == parent]
    elsewhere = {path.rpartition(".")[2]: path for path in reversed(paths)}
    nearest = get_close_matches(name, siblings, n=1)
    nearest = nearest or [elsewhere[match] for match in get_close_matches(name, elsewhere, n=1)]
    return f" (did you mean {nearest[0]}?)" if nearest else ""


def _key_paths(model: type[BaseModel]) -> list[str]:
    """Return the paths of all keys of settings, those of the settings inside too."""
    paths: list[str] = []
    for name, field in model.model_fields.items():
        paths.append(name)
        inner_paths = [path for inner in _settings_classes(field.annotation) for path in _key_paths(inner)]
        paths += [f"{name}.{path}" for path in inner_paths]
    return paths


def _settings_classes(annotation: Any) -> list[type[BaseModel]]:
    """Return the settings that a field may hold: none, one class, or the members of a union."""
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    if isinstance(annotation, UnionType) or get_origin(annotation) is Union:
        return [inner for part in get_args(annotation) for inner in _settings_classes(part)]
    return []

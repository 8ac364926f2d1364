"""Editors, judges and suites of other packages, found by their entry points.

A package declares them in its pyproject.toml:

    [project.entry-points."editloop.judges"]
    brightness = "our_package:open_brightness"

Nothing of a plug-in is imported before its name is used.
"""

from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from editloop.errors import EditLoopError

Group = Literal["editloop.editors", "editloop.judges", "editloop.suites"]


def plugin_names(group: Group) -> tuple[str, ...]:
    """Return the names that installed packages declare in a group, sorted.

    Args:
        group: What they are names of.
    """
    return tuple(sorted(entry_points(group=group).names))


def load_plugin(group: Group, name: str) -> Any:
    """Return what a package declares under a name; None where none does.

    Args:
        group: What it is a name of.
        name: The name.

    Raises:
        EditLoopError: Two packages declare the name, or it cannot be imported.
    """
    declared = sorted(set(entry_points(group=group, name=name)), key=lambda entry: entry.value)
    if not declared:
        return None
    if len(declared) > 1:
        owners = ", ".join(f"{_package(entry)} ({entry.value})" for entry in declared)
        raise EditLoopError(f"{group} {name}: declared by {owners}. Uninstall all but one.")
    try:
        return declared[0].load()
    except Exception as error:  # whatever the package does at its import
        raise EditLoopError(
            f"{group} {name}: {declared[0].value} of {_package(declared[0])} cannot be imported "
            f"({type(error).__name__}: {error}). Mend or uninstall the package."
        ) from error


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "an unknown package"

"""Names of the suites. The module imports little, so that settings can check names without opening a suite."""

from editloop.plugins import plugin_names

SUITES = (
    "editscore-bench",
    "editreward-bench",
    "genai-bench",
    "aurora-bench",
    "imagenhub",
    "editreward-compass",
    "mmrb2-edit",
    "heldout",
    "scenes",
)
"""Names of the suites that ship with EditLoop."""


def suite_names() -> tuple[str, ...]:
    """Return the names of all suites: those that ship with EditLoop, then those of plug-ins."""
    return (*SUITES, *plugin_names("editloop.suites"))

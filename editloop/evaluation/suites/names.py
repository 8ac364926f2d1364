"""Names of the suites: light, so that settings can check them without opening one."""

from editloop.plugins import plugin_names

SUITES = ("editscore-bench", "editreward-bench", "genai-bench", "aurora-bench", "imagenhub", "heldout", "scenes")
"""Those that ship."""


def suite_names() -> tuple[str, ...]:
    """Return the names of all suites: those that ship, then those of other packages."""
    return (*SUITES, *plugin_names("editloop.suites"))

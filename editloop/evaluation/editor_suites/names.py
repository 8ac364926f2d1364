"""Names of the benchmarks of editors. The module imports nothing, so that settings can check names."""

EDITOR_SUITE_NAMES = ("gedit-bench", "imgedit-bench", "edit-compass")

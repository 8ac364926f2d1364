"""Names of the suites: light, so that settings can check them without opening one."""

SUITES = ("editscore-bench", "editreward-bench", "genai-bench", "aurora-bench", "imagenhub", "heldout", "scenes")

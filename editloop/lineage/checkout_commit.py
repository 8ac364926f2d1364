"""The git commit of the project's own code."""

import subprocess
from pathlib import Path


def checkout_commit() -> str | None:
    """Return the commit of the git checkout around this code; None outside a checkout.

    "+changes" follows the commit where tracked files differ from it.
    """
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        completed = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=False)
        return completed.stdout.strip() if completed.returncode == 0 else ""

    commit = git("rev-parse", "HEAD")
    return (commit + ("+changes" if git("status", "--porcelain", "-uno") else "")) if commit else None

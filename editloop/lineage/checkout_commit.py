"""Which commit of the project's own code runs."""

import subprocess
from pathlib import Path


def checkout_commit() -> str | None:
    """Commit of the git checkout around this code, with "+changes" where files differ from it; None outside of one."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        completed = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=False)
        return completed.stdout.strip() if completed.returncode == 0 else ""

    commit = git("rev-parse", "HEAD")
    return (commit + ("+changes" if git("status", "--porcelain", "-uno") else "")) if commit else None

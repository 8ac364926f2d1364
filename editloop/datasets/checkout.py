"""A working folder of the dataset repository that nobody else writes to meanwhile."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import FileLock

from editloop.datasets.git_command import git, git_succeeds
from editloop.errors import EditLoopError

INDEX_LOCK_SECONDS = 10.0
"""How long to wait for a person's git command to end."""


@dataclass(frozen=True)
class Checkout:
    """A working folder, and whether it is a clone whose commits must be pushed."""

    folder: Path
    is_clone: bool

    def push(self) -> bool:
        """Push the branch of a clone; a repository that is a folder needs no push.

        Returns:
            False where somebody else pushed meanwhile. Then the folder is at their state, with their tags: do the
            change again.

        Raises:
            EditLoopError: git refuses for another reason.
        """
        if not self.is_clone:
            return True
        try:
            git(self.folder, "push", "--quiet", "origin", "HEAD")
        except EditLoopError:
            git(self.folder, "fetch", "--quiet", "--tags", "origin")
            upstream = f"refs/remotes/origin/{git(self.folder, 'symbolic-ref', '--short', 'HEAD')}"
            if not git(self.folder, "for-each-ref", upstream) or git_succeeds(
                self.folder, "merge-base", "--is-ancestor", upstream, "HEAD"
            ):
                raise
            git(self.folder, "reset", "--quiet", "--hard", upstream)
            return False
        return True

    def push_tag(self, tag: str) -> None:
        """Push a tag of a clone; where somebody else set it meanwhile, theirs takes its place."""
        if not self.is_clone:
            return
        reference = f"refs/tags/{tag}"
        try:
            git(self.folder, "push", "--quiet", "origin", reference)
        except EditLoopError:
            if not git(self.folder, "ls-remote", "origin", reference):
                raise
            git(self.folder, "fetch", "--quiet", "--force", "origin", f"{reference}:{reference}")


def is_url(repo: str) -> bool:
    """Whether a repository's name is an address rather than a folder here."""
    return "://" in repo or repo.startswith("git@")


def is_repository(repo: str) -> bool:
    """Whether there is a git repository in this folder: one of its own, a worktree or a submodule."""
    return (Path(repo) / ".git").exists()


@contextmanager
def checkout(repo: str) -> Iterator[Checkout]:
    """A working folder of the repository: the folder itself, locked against other writers, or a clone of an address."""
    if is_url(repo):
        with tempfile.TemporaryDirectory(prefix="editloop-dataset-") as temporary:
            git(Path(temporary), "clone", "--quiet", "--origin", "origin", repo, "repo")
            yield Checkout(Path(temporary) / "repo", is_clone=True)
        return
    folder = Path(repo).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        locked = FileLock(folder.parent / f".{folder.name}.lock").acquire()
    except OSError as error:
        raise EditLoopError(
            f"dataset repository {folder}: {error}. EDITLOOP_DATASET_REPO must be a git address, or a folder that you "
            "may write to, beside which a lock can be put."
        ) from error
    with locked:
        if is_repository(repo):
            _wait_for_index(folder)
        yield Checkout(folder, is_clone=False)


def _wait_for_index(folder: Path) -> None:
    """Wait for whoever holds git's index; remove its lock where that process was killed."""
    index_lock = Path(git(folder, "rev-parse", "--absolute-git-dir")) / "index.lock"
    deadline = time.monotonic() + INDEX_LOCK_SECONDS
    while index_lock.exists():
        holder = _index_holder(folder, index_lock)
        if holder is None:
            index_lock.unlink(missing_ok=True)
        elif time.monotonic() > deadline:
            raise EditLoopError(
                f"dataset repository {folder}: process {holder.pid} ({holder.name()}) is changing it and has not ended "
                f"for {INDEX_LOCK_SECONDS:g} s. Let it end, then try again."
            )
        else:
            time.sleep(0.1)


def _index_holder(folder: Path, index_lock: Path) -> psutil.Process | None:
    """The living process that may have made the index's lock: a git that works in the folder, or one that has the lock
    open."""
    for process in psutil.process_iter():
        try:
            is_git_here = process.name() == "git" and Path(process.cwd()).is_relative_to(folder.resolve())
            if is_git_here or any(Path(file.path) == index_lock for file in process.open_files()):
                return process
        except psutil.Error:
            continue  # it ended, or it is another user's
    return None

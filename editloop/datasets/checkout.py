"""Exclusive working folders of the dataset repository."""

import re
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

SCP_ADDRESS = re.compile(r"[\w.+-]+@[\w.-]+:")
"""Beginning of an address in scp's form, such as git@HOST:PATH."""
PLAIN_FILES = ("--config", "core.symlinks=false")
"""Options of a clone in which links are small text files: one that leads out of the clone would be written through."""
INDEX_LOCK_SECONDS = 10.0
"""How long to wait for another git command in the folder, such as a person's."""


@dataclass(frozen=True)
class Checkout:
    """A working folder. Commits in a clone must be pushed."""

    folder: Path
    is_clone: bool

    def push(self) -> bool:
        """Push the branch of a clone. A repository that is a folder needs no push.

        Returns:
            False where somebody else pushed in the meantime. The working folder is then reset to their state, with
            their tags, and the caller must make its change again.

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
        """Push a tag of a clone. Where somebody else has set the tag in the meantime, theirs replaces the local one.

        Args:
            tag: The tag.

        Raises:
            EditLoopError: git refuses for another reason.
        """
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
    """Return whether a repository is named by a git address rather than a local folder.

    Args:
        repo: Folder or git address.
    """
    return "://" in repo or SCP_ADDRESS.match(repo) is not None


def is_repository(repo: str) -> bool:
    """Return whether a folder is the top of a git working tree: a repository, a worktree or a submodule.

    Args:
        repo: The folder.
    """
    return (Path(repo) / ".git").exists()


@contextmanager
def checkout(repo: str) -> Iterator[Checkout]:
    """Yield a working folder of a repository: the local folder, locked against other writers, or a temporary clone.

    Args:
        repo: Folder or git address. A missing folder is created, but without a repository in it.

    Raises:
        EditLoopError: The address cannot be cloned, the folder cannot be created or locked, or another process holds
            its git index for longer than INDEX_LOCK_SECONDS.
    """
    if is_url(repo):
        with tempfile.TemporaryDirectory(prefix="editloop-dataset-") as temporary:
            git(Path(temporary), "clone", "--quiet", "--origin", "origin", *PLAIN_FILES, "--", repo, "repo")
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
    """Wait until no process holds git's index lock. Remove a lock whose process was killed."""
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
    """Return the running process that may hold the index lock, or None.

    That is a git process that works in the folder, or any process that has the lock file open.
    """
    for process in psutil.process_iter():
        try:
            is_git_here = process.name() == "git" and Path(process.cwd()).is_relative_to(folder.resolve())
            if is_git_here or any(Path(file.path) == index_lock for file in process.open_files()):
                return process
        except psutil.Error:
            continue  # it has ended, or belongs to another user
    return None

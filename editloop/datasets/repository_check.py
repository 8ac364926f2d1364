"""Whether the dataset repository will take a version, asked before people are: a version comes after their answers."""

import tempfile
from pathlib import Path

from editloop.datasets.checkout import checkout, is_repository, is_url
from editloop.datasets.git_command import git, git_succeeds
from editloop.errors import EditLoopError
from editloop.object_storage import is_address

PROBE_BRANCH = "refs/heads/editloop-probe"
"""Branch whose push is tried and not done."""


def check_dataset_repository(repo: str, remote: str | None) -> None:
    """Check that a version could be committed to the dataset repository, and its content be stored. No version is made.

    A folder must be writable, with room beside it for a lock, and be on a branch; a missing one is made, empty. An
    address must take a push: the log-in is tried, hooks of the server are not. A remote in object storage is not tried.

    Args:
        repo: Folder or git address of the repository.
        remote: The DVC remote: a folder or s3://...; None where it is not set.

    Raises:
        EditLoopError: The repository or the remote would refuse.
    """
    if is_url(repo):
        _check_push(repo)
    else:
        _check_folder(repo)
    if remote is not None and not is_address(remote):
        _check_writable("dataset remote", Path(remote), "EDITLOOP_DATASET_REMOTE")


def _check_push(address: str) -> None:
    with tempfile.TemporaryDirectory(prefix="editloop-dataset-") as temporary:
        folder = Path(temporary)
        git(folder, "init", "--quiet")
        commit = git(folder, "commit-tree", git(folder, "write-tree"), "-m", "probe")
        git(folder, "push", "--quiet", "--dry-run", "--", address, f"{commit}:{PROBE_BRANCH}")


def _check_folder(repo: str) -> None:
    with checkout(repo) as work:
        folder = work.folder
        _check_writable("dataset repository", folder, "EDITLOOP_DATASET_REPO")
        if not is_repository(repo):
            if (folder / "HEAD").is_file() and (folder / "objects").is_dir():
                raise EditLoopError(
                    f"dataset repository {folder}: a bare repository. Give its address, "
                    f"EDITLOOP_DATASET_REPO={folder.as_uri()}, or a folder with a working tree."
                )
            return
        if not git_succeeds(folder, "symbolic-ref", "--quiet", "HEAD"):
            raise EditLoopError(
                f"dataset repository {folder}: its HEAD is detached, so a version would be on no branch. Check out a "
                "branch there: `git switch NAME`."
            )
        unmerged = git(folder, "ls-files", "--unmerged")
        if unmerged:
            raise EditLoopError(f"dataset repository {folder}: a merge is not finished there. Finish or abort it.")


def _check_writable(name: str, folder: Path, variable: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise EditLoopError(
            f"{name} {folder}: cannot be written to ({error.strerror}). Correct {variable} or the folder's permissions."
        ) from error

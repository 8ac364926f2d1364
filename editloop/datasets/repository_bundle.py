"""The dataset repository's history in one file, a git bundle, and a repository made of it elsewhere.

The content of its versions is not in it: that is in the DVC remote, which a copy of the repository is told anew.
"""

import tempfile
from pathlib import Path

from editloop.datasets.checkout import checkout, is_repository, is_url
from editloop.datasets.git_command import git
from editloop.errors import EditLoopError

BRANCHES, TAGS = "refs/heads/*:refs/heads/*", "refs/tags/*:refs/tags/*"


def bundle_repository(repo: str, bundle: Path) -> bool:
    """Write all branches and tags of the dataset repository to a file. Writers wait meanwhile.

    Args:
        repo: Folder or git address of the repository.
        bundle: The file to write.

    Returns:
        False where there is no repository yet, or nothing in it; nothing is written then.

    Raises:
        EditLoopError: git refuses; the message quotes it.
    """
    if is_url(repo):
        with tempfile.TemporaryDirectory(prefix="editloop-dataset-") as temporary:
            git(Path(temporary), "clone", "--quiet", "--bare", repo, "repo.git")
            return _bundle(Path(temporary) / "repo.git", bundle)
    if not is_repository(repo):
        return False
    with checkout(repo) as work:
        return _bundle(work.folder, bundle)


def unbundle_repository(bundle: Path, repo: str, remote: str) -> None:
    """Make a repository of a bundle, whose DVC remote is where the versions' content is now.

    Args:
        bundle: A file of `bundle_repository`.
        repo: Folder, missing or empty, or git address of a repository without branches.
        remote: The DVC remote: a folder or s3://... Where the bundle names another, a commit changes that.

    Raises:
        EditLoopError: The repository has a history already, or git refuses.
    """
    with tempfile.TemporaryDirectory(prefix="editloop-dataset-") as temporary:
        source = Path(temporary) / "bundled.git"
        git(Path(temporary), "clone", "--quiet", "--bare", str(bundle.absolute()), source.name)
        if is_url(repo):
            if git(source, "ls-remote", repo):
                raise EditLoopError(f"dataset repository {repo}: is not empty. Give an empty one.")
            git(source, "push", "--quiet", repo, BRANCHES, TAGS)
        else:
            folder = Path(repo).absolute()
            if is_repository(repo):
                raise EditLoopError(f"dataset repository {folder}: is there already. Give a missing folder.")
            folder.mkdir(parents=True, exist_ok=True)
            git(folder, "init", "--quiet")
            git(folder, "fetch", "--quiet", "--update-head-ok", source.as_uri(), BRANCHES, TAGS)
            git(folder, "symbolic-ref", "HEAD", git(source, "symbolic-ref", "HEAD"))
            git(folder, "reset", "--quiet", "--hard")
    point_at_remote(repo, remote)


def point_at_remote(repo: str, remote: str) -> None:
    """Commit another DVC remote to the dataset repository, where it names another one.

    Args:
        repo: Folder or git address of the repository.
        remote: The DVC remote: a folder or s3://...

    Raises:
        EditLoopError: git or DVC refuses; the message quotes it.
    """
    from editloop.datasets import dvc_store

    is_pushed = False
    while not is_pushed:
        with checkout(repo) as work:
            prepared = dvc_store.prepare(work.folder, remote)
            git(work.folder, "add", "--force", "--", *prepared)
            if not git(work.folder, "status", "--porcelain", "--", *prepared):
                return
            git(work.folder, "commit", "--quiet", "--message", "The DVC remote is elsewhere now", "--", *prepared)
            is_pushed = work.push()


def _bundle(folder: Path, bundle: Path) -> bool:
    if not git(folder, "for-each-ref", "--count=1"):
        return False
    git(folder, "bundle", "create", "--quiet", str(bundle.absolute()), "HEAD", "--branches", "--tags")
    return True

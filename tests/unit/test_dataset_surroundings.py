"""The dataset repository on anybody's machine: the user's git and DVC settings, the repository's own, odd paths."""

import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from dvc.logger import LoggerHandler

from editloop.datasets.repository import fetch_dataset
from editloop.datasets.versions import versions
from editloop.datasets.withdrawal import Withdrawal, add_withdrawal, read_withdrawals
from editloop.errors import EditLoopError
from tests.dataset_repositories import commit_text, make_shared, run_git

HOSTILE_GIT = """
[user]
    useConfigOnly = true
[commit]
    gpgSign = true
    template = {home}/missing
    cleanup = scissors
[tag]
    gpgSign = true
    forceSignAnnotated = true
    sort = -refname
[push]
    gpgSign = true
    default = nothing
[gpg]
    program = /bin/false
[core]
    hooksPath = {home}/hooks
    excludesFile = {home}/everything
    attributesFile = {home}/attributes
    autocrlf = true
    safecrlf = true
    pager = /bin/false
    quotePath = false
[init]
    defaultBranch = someone
    defaultObjectFormat = sha256
    defaultRefFormat = reftable
    templateDir = {home}/template
[clone]
    defaultRemoteName = upstream
[fetch]
    pruneTags = true
    prune = true
[color]
    ui = always
[column]
    ui = always
[grep]
    lineNumber = true
[safe]
    bareRepository = explicit
[status]
    short = true
    branch = true
[i18n]
    commitEncoding = ISO-8859-1
    logOutputEncoding = ISO-8859-1
"""
HOSTILE_DVC = """
[core]
    remote = elsewhere
    autostage = true
    no_scm = true
    site_cache_dir = /dev/null/cache
    hardlink_lock = true
[cache]
    dir = /dev/null/cache
    type = symlink
[remote "elsewhere"]
    url = s3://elsewhere
[remote "store"]
    endpointurl = http://127.0.0.1:9
"""
HOOKS = ("pre-commit", "commit-msg", "post-commit", "pre-push", "post-checkout", "prepare-commit-msg")


@pytest.fixture
def hostile_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder whose settings of git and DVC would stop or change everything."""
    home = tmp_path / "home"
    for folder in (home / "hooks", home / "template" / "hooks"):
        make_hooks(folder)
    (home / "everything").write_text("*\n")
    (home / "attributes").write_text("* text eol=crlf\n")
    (home / ".gitconfig").write_text(HOSTILE_GIT.format(home=home))
    for name in ("git/ignore", "dvc/config"):
        (home / ".config" / name).parent.mkdir(parents=True)
    (home / ".config" / "git" / "ignore").write_text("*\n")
    (home / ".config" / "dvc" / "config").write_text(HOSTILE_DVC)
    for name, value in {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "DVC_SITE_CACHE_DIR": "/dev/null/cache",
        "DVC_GLOBAL_CONFIG_DIR": str(home / ".config" / "dvc"),
        "DVC_SYSTEM_CONFIG_DIR": str(home / ".config" / "dvc"),
        "GIT_DIR": str(home / "nowhere"),
        "GIT_INDEX_FILE": str(home / "index"),
        "GIT_AUTHOR_NAME": "somebody",
        "LANG": "de_DE.UTF-8",
        "LANGUAGE": "de",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("GIT_CONFIG_GLOBAL", raising=False)
    return home


def make_hooks(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in HOOKS:
        (folder / name).write_text("#!/bin/sh\necho refused >&2\nexit 1\n")
        (folder / name).chmod(0o755)


def person_git(repo: Path, *arguments: str) -> str:
    """git in a folder with plain settings, whatever the test's environment says."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    plain |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", "-c", "user.name=x", "-c", "user.email=x@x", *arguments]
    return subprocess.run(command, cwd=repo, env=plain, check=True, capture_output=True, text=True).stdout.strip()


def state_of(repo: Path, tag: str) -> list[str]:
    """The branch, what is in the version's commit, who made it, and what the tag says."""
    return [
        person_git(repo, "symbolic-ref", "HEAD"),
        person_git(repo, "rev-parse", f"{tag}^{{tree}}"),
        person_git(repo, "log", "-1", "--format=%an %ae %cn %ce %B", tag),
        person_git(repo, "for-each-ref", "--format=%(contents) %(taggername)", f"refs/tags/{tag}"),
    ]


@pytest.mark.parametrize("is_address", [False, True])
def test_the_users_settings_of_git_and_dvc_change_nothing(
    tmp_path: Path, is_address: bool, request: pytest.FixtureRequest
) -> None:
    """The same version, to the byte, as with plain settings; and it can be fetched."""

    def commit(repo: Path) -> list[str]:
        version = commit_text(tmp_path, "pärs", repo=repo.as_uri() if is_address else str(repo))
        withdrawal = Withdrawal(kind="task", name="t1", reason="asked", at="2026-01-05T00:00:00Z")
        add_withdrawal(version["repo"], withdrawal)
        assert read_withdrawals(version["repo"]) == [withdrawal]
        assert [row.tag for row in versions(version["repo"])] == [version["tag"]]
        fetch_dataset(version, tmp_path / f"back-{repo.name}")
        return state_of(repo, version["tag"])

    repositories = [tmp_path / "plain", tmp_path / "hostile"]
    for repo in repositories if is_address else ():
        repo.mkdir()
        person_git(repo, "init", "--bare", "--quiet", "--initial-branch", "main")
    plain = commit(repositories[0])
    request.getfixturevalue("hostile_home")
    assert commit(repositories[1]) == plain
    assert plain[2].startswith("EditLoop editloop@localhost EditLoop editloop@localhost pairs\n\nsha256: ")


def test_broken_settings_of_the_users_dvc_do_not_stop_it(tmp_path: Path, hostile_home: Path) -> None:
    (hostile_home / ".config" / "dvc" / "config").write_text("[[[ broken")
    fetch_dataset(commit_text(tmp_path, "one"), tmp_path / "back")


def test_the_repositorys_own_hooks_ignore_rules_and_settings_do_not_stop_it(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    repo.mkdir()
    run_git(repo, "init", "--quiet")
    make_hooks(repo / ".git" / "hooks")
    for name, value in {"commit.gpgSign": "true", "gpg.program": "/bin/false", "core.autocrlf": "true"}.items():
        run_git(repo, "config", name, value)
    (repo / ".gitignore").write_text("*.json\n*.dvc\n/preferences")
    (repo / ".dvc").mkdir()
    (repo / ".dvc" / "config").write_text("[core]\n    autostage = true\n[cache]\n    type = symlink\n")
    version = commit_text(tmp_path, "one")
    assert [row.sha256 for row in versions(str(repo))] == [version["sha256"]]
    clone = {**version, "repo": repo.as_uri()}
    fetch_dataset(clone, tmp_path / "back")
    assert (repo / ".gitignore").read_text().splitlines() == ["*.json", "*.dvc", "/preferences"]
    assert run_git(repo, "status", "--porcelain") == ""


@pytest.mark.parametrize("kind", ["worktree", "submodule"])
def test_a_repository_may_be_a_worktree_or_a_submodule(tmp_path: Path, kind: str) -> None:
    main, repo = tmp_path / "main", tmp_path / "linked"
    main.mkdir()
    run_git(main, "init", "--quiet")
    run_git(main, "commit", "--quiet", "--allow-empty", "--message", "first")
    if kind == "worktree":
        run_git(main, "worktree", "add", "--quiet", "-b", "data", str(repo))
    else:
        source, repo = tmp_path / "source", main / "data"
        source.mkdir()
        run_git(source, "init", "--quiet")
        run_git(source, "commit", "--quiet", "--allow-empty", "--message", "first")
        run_git(main, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(source), "data")
    version = commit_text(tmp_path, "one", repo=str(repo))
    withdrawal = Withdrawal(kind="task", name="t1", reason="asked", at="2026-01-05T00:00:00Z")
    add_withdrawal(str(repo), withdrawal)
    assert [row.tag for row in versions(str(repo))] == [version["tag"]]
    assert read_withdrawals(str(repo)) == [withdrawal]
    fetch_dataset(version, tmp_path / "back")


def test_paths_may_hold_any_characters(tmp_path: Path) -> None:
    base = tmp_path / "rüns 数 %20 $y #1 [a]"
    base.mkdir()
    version = commit_text(base, "one")
    fetch_dataset(version, base / "back")
    fetch_dataset({**version, "repo": (base / "repo").as_uri()}, base / "back of a clone")
    assert str(base / "remote") in (base / "repo" / ".dvc" / "config").read_text(encoding="utf-8")


def test_what_dvc_was_told_of_the_remote_stays(tmp_path: Path) -> None:
    """In the repository's own configuration, which people edit with `dvc remote modify`."""
    commit_text(tmp_path, "one")
    config = tmp_path / "repo" / ".dvc" / "config"
    with config.open("a") as stream:
        stream.write("    jobs = 2\n")
    commit_text(tmp_path, "two")
    assert "jobs = 2" in config.read_text()


def test_what_a_person_has_staged_or_changed_is_not_committed(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    commit_text(tmp_path, "one")
    (repo / "notes").write_text("mine")
    run_git(repo, "add", "notes")
    version = commit_text(tmp_path, "two")
    assert "notes" not in run_git(repo, "show", "--name-only", "--format=", version["tag"])
    assert run_git(repo, "status", "--porcelain") == "A  notes"


def test_a_refusal_is_one_line_with_the_tools_words(tmp_path: Path) -> None:
    (tmp_path / "remote").write_text("a file where the remote's folder should be")
    with pytest.raises(
        EditLoopError, match=r"dataset repository .*/repo: dvc push preferences: .*(exists|directory)"
    ) as error:
        commit_text(tmp_path, "one")
    assert "\n" not in str(error.value)
    assert run_git(tmp_path / "repo", "tag") == ""
    with pytest.raises(EditLoopError, match=r"git clone .*://\*\*\*@127.0.0.1:9/x.git") as error:
        versions("http://user:secret@127.0.0.1:9/x.git")
    assert "secret" not in str(error.value)


def test_a_repository_that_cannot_be_a_folder_is_an_error_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for repo in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(EditLoopError, match=f"dataset repository {repo}: .*EDITLOOP_DATASET_REPO must be"):
            commit_text(tmp_path, "one", repo=str(repo))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_a_repository_of_somebody_else_is_used_where_the_user_told_git_to_trust_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = commit_text(tmp_path, "one")
    for path in (tmp_path / "repo", *(tmp_path / "repo").rglob("*")):
        os.chown(path, 12345, 12345)
    with pytest.raises(EditLoopError, match=r"safe\.directory"):
        fetch_dataset(version, tmp_path / "back")
    (tmp_path / "gitconfig").write_text(f"[safe]\n    directory = {tmp_path / 'repo'}\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    fetch_dataset(version, tmp_path / "back")


def test_a_commit_leaves_nothing_behind(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No open file, temporary folder, output, wrapped stream or handler that prints."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    stdout, environment = sys.stdout, dict(os.environ)
    address = make_shared(tmp_path)
    fetch_dataset(commit_text(tmp_path, "zero", repo=address), tmp_path / "zero")
    opened = len(os.listdir("/proc/self/fd"))
    for text in ("one", "two", "three"):
        fetch_dataset(commit_text(tmp_path, text, repo=address), tmp_path / text)
    assert len(os.listdir("/proc/self/fd")) == opened
    assert os.listdir(tmp_path / "temporary") == []
    assert sys.stdout is stdout
    assert dict(os.environ) == environment
    assert capfd.readouterr() == ("", "")
    assert not [handler for handler in logging.getLogger("dvc").handlers if isinstance(handler, LoggerHandler)]


@pytest.mark.parametrize("before", ["", "import colorama; colorama.init(); ", "import dvc.logger, dvc.cli; "])
def test_dvc_leaves_the_standard_output_as_it_is(before: str) -> None:
    """Also where colorama wrapped another one before, as in a program that loaded DVC for itself."""
    loading = "import editloop.datasets.dvc_store; assert sys.stdout is out, sys.stdout; print('printed')"
    code = f"import io, sys; {before}out = sys.stdout = io.StringIO(); {loading}; assert out.getvalue() == 'printed\\n'"
    subprocess.run([sys.executable, "-c", code], check=True)

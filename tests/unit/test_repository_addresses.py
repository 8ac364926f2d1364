"""Addresses and records of dataset repositories that git would take for an option, a command, or a way out."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from editloop.content import complete_folder
from editloop.datasets.checkout import checkout
from editloop.datasets.repository import (
    DatasetOrigin,
    DatasetVersion,
    commit_dataset,
    fetch_dataset,
    read_version,
)
from editloop.datasets.repository_check import check_dataset_repository
from editloop.datasets.versions import versions
from editloop.errors import EditLoopError
from tests.dataset_repositories import run_git


def open_checkout(address: str) -> None:
    with checkout(address):
        pass


def fetch(address: str) -> None:
    version = DatasetVersion(dvc_rev="a" * 40, tag=f"preferences-{'a' * 12}", sha256="a" * 64, repo=address)
    fetch_dataset(version, Path("fetched"))


OPENERS: dict[str, Callable[[str], Any]] = {
    "checkout": open_checkout,
    "versions": versions,
    "preflight": lambda address: check_dataset_repository(address, None),
    "fetch": fetch,
}


@pytest.fixture(autouse=True)
def careless_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with a repository that options could name, and a user whose settings allow every transport."""
    monkeypatch.chdir(tmp_path)
    run_git(tmp_path, "init", "--quiet", "--bare", "repo")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".gitconfig").write_text(
        '[protocol "ext"]\n\tallow = always\n[protocol "fd"]\n\tallow = always\n'
    )
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize(
    "address",
    [
        "--upload-pack=touch {0};://x",
        "--receive-pack=touch {0};://x",
        "--exec=touch {0};://x",
        "-u touch {0};://x",
        "--config=core.sshCommand=touch {0};://x",
        "--output={0}://x",
        "ext::sh -c touch% {0} ://x",
        "fd::17://x",
        "ssh://-oProxyCommand=touch {0}/x",
    ],
)
def test_no_address_is_an_option_or_a_command(opener: str, address: str, tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    with pytest.raises(EditLoopError) as caught:
        OPENERS[opener](address.format(planted))
    message = str(caught.value)
    assert not planted.exists()
    assert len(message.splitlines()) == 1
    assert "unknown option" not in message
    assert "usage:" not in message, "git read it as an option"


GOOD = {"dvc_rev": "a" * 40, "tag": f"preferences-{'b' * 12}", "sha256": "c" * 64, "repo": "repo"}
BROKEN: dict[str, Any] = {
    "a list": [],
    "a number": 17,
    "nested": {"dvc_rev": {"a": [1]}, "tag": 3, "sha256": None, "repo": []},
    "a tag that is a path": GOOD | {"tag": f"../../planted-{'b' * 12}"},
    "a tag that is a pattern": GOOD | {"tag": "*"},
    "a tag that is an option": GOOD | {"tag": "--column"},
    "a commit that is an option": GOOD | {"dvc_rev": "--all"},
    "a commit of two lines": GOOD | {"dvc_rev": f"{'a' * 40}\nHEAD"},
    "a short sha256": GOOD | {"sha256": "c"},
    "an address with a NUL": GOOD | {"repo": "re\0po"},
    "no address": {key: value for key, value in GOOD.items() if key != "repo"},
}


@pytest.mark.parametrize("record", BROKEN)
def test_a_versions_record_is_four_texts_of_their_form(record: str, tmp_path: Path) -> None:
    (tmp_path / "version.json").write_text(json.dumps(BROKEN[record]))
    with pytest.raises(EditLoopError, match="not a version file") as caught:
        read_version(tmp_path / "version.json")
    assert str(caught.value).isprintable()
    with pytest.raises(EditLoopError, match="The record of a dataset's version has"):
        fetch_dataset(BROKEN[record], tmp_path / "fetched")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_is_no_version_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "version.json").write_bytes(content)
    with pytest.raises(EditLoopError, match="not a version file"):
        read_version(tmp_path / "version.json")


def committed(folder: Path) -> DatasetVersion:
    """A dataset of one file in a repository and a remote below the folder."""
    with complete_folder(folder / "data") as data:
        (data / "rows.parquet").write_bytes(b"rows")
    origin = DatasetOrigin(
        annotators=("ada",), task_ids=(), images=(), judgements_sha256="d" * 64, candidates_sha256="e" * 64
    )
    address, remote = str(folder / "team"), str(folder / "remote")
    return commit_dataset(folder / "data", repo=address, remote=remote, message="one", origin=origin)


@pytest.mark.parametrize("name", ["{0}/planted", "../../../../../../../../../../../..{0}/planted", "../planted"])
def test_a_remote_that_names_paths_outside_writes_nothing_there(name: str, tmp_path: Path) -> None:
    """Whoever writes to the bucket replaces the list of a version's files, which DVC does not compare."""
    version = committed(tmp_path)
    (listing,) = (tmp_path / "remote").rglob("*.dir")
    entries = json.loads(listing.read_text())
    listing.chmod(0o644)
    listing.write_text(json.dumps([*entries, entries[0] | {"relpath": name.format(tmp_path)}]))
    for cached in (tmp_path / "team" / ".dvc" / "cache").rglob("*.dir"):
        cached.unlink()
    before = {path for path in tmp_path.rglob("*") if ".dvc" not in path.parts}
    with suppress(EditLoopError):  # DVC leaves some such names out, and fails for others
        fetch_dataset(version, tmp_path / "fetched")
    after = {path for path in tmp_path.rglob("*") if ".dvc" not in path.parts}
    assert {path.relative_to(tmp_path).parts[0] for path in after - before} <= {"fetched"}
    assert {path.name for path in (tmp_path / "fetched").rglob("*")} <= {"manifest.json", "rows.parquet"}


def test_a_shard_that_was_replaced_together_with_its_manifest_is_refused(tmp_path: Path) -> None:
    """The attacker writes to the bucket: another shard, a manifest that is right for it, and DVC's list of both."""
    version = committed(tmp_path)
    with complete_folder(tmp_path / "evil") as data:
        (data / "rows.parquet").write_bytes(b"evil rows")
    forged = commit_dataset(
        tmp_path / "evil", repo=str(tmp_path / "other"), remote=str(tmp_path / "forged"), message="one"
    )
    assert forged["sha256"] != version["sha256"]
    (listing,) = (tmp_path / "remote").rglob("*.dir")
    (forged_listing,) = (tmp_path / "forged").rglob("*.dir")
    listing.chmod(0o644)
    listing.write_bytes(forged_listing.read_bytes())
    for path in (tmp_path / "forged").rglob("*"):
        target = tmp_path / "remote" / path.relative_to(tmp_path / "forged")
        if path.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    for cached in (tmp_path / "team" / ".dvc" / "cache").rglob("*.dir"):
        cached.unlink()
    with pytest.raises(EditLoopError, match=f"holds {forged['sha256']}, not {version['sha256']}"):
        fetch_dataset(version, tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


def test_links_of_a_cloned_repository_lead_nowhere(tmp_path: Path) -> None:
    """Whoever writes to the dataset repository makes `.dvc` a link into the folder of whoever commits to it."""
    victim, source = tmp_path / "victim", tmp_path / "shared"
    victim.mkdir()
    run_git(tmp_path, "init", "--quiet", "--initial-branch", "main", str(source))
    os.symlink(victim, source / ".dvc")
    run_git(source, "add", ".dvc")
    run_git(source, "commit", "--quiet", "--message", "a link")
    with checkout(source.as_uri()) as work:
        assert not (work.folder / ".dvc").is_symlink()
    with complete_folder(tmp_path / "data") as data:
        (data / "rows.parquet").write_bytes(b"rows")
    with pytest.raises(EditLoopError):
        commit_dataset(tmp_path / "data", repo=source.as_uri(), remote=str(tmp_path / "remote"), message="one")
    assert not list(victim.iterdir())


@pytest.mark.parametrize("scheme", ["http", "https", "ssh", "webdav", "gdrive", "remote"])
def test_a_remote_of_the_repositorys_choice_is_a_folder_or_a_bucket(scheme: str, tmp_path: Path) -> None:
    """Whoever writes to the repository, or names another in a version's record, could have any host asked."""
    version = committed(tmp_path)
    config = tmp_path / "team" / ".dvc" / "config"
    config.write_text(config.read_text().replace(f"url = {tmp_path}/remote", f"url = {scheme}://127.0.0.1:9/x"))
    with pytest.raises(EditLoopError, match=f"remote store is at {scheme}://127.0.0.1:9/x. A remote is a folder or"):
        fetch_dataset(version, tmp_path / "fetched")


def test_dvcs_own_cache_is_nobodys_else(tmp_path: Path) -> None:
    """It holds pickles (diskcache, CVE-2025-69872), and the repository's settings may name a folder for it."""
    version = committed(tmp_path)
    config = tmp_path / "team" / ".dvc" / "config"
    config.write_text(config.read_text().replace("[core]", f"[core]\n    site_cache_dir = {tmp_path}/planted"))
    fetch_dataset(version, tmp_path / "fetched")
    with complete_folder(tmp_path / "data") as data:
        (data / "rows.parquet").write_bytes(b"more rows")
    address, remote = str(tmp_path / "team"), str(tmp_path / "remote")
    commit_dataset(tmp_path / "data", repo=address, remote=remote, message="two")
    assert not (tmp_path / "planted").exists()


OUTPUT = "outs:\n- md5: {0}\n  path: preferences\n"
POINTERS = {
    "cut short": "outs:\n- md5: 0123",
    "empty": "",
    "a list": "[]",
    "a number": "17",
    "an import of an address": f"deps:\n- path: http://127.0.0.1:9/x\n{OUTPUT}",
    "an import of a repository": f"deps:\n- path: x\n  repo:\n    url: --upload-pack=x\n{OUTPUT}",
    "another folder": "outs:\n- md5: {0}\n  path: ../../planted\n",
    "a remote of its own": f"{OUTPUT}  remote: http://127.0.0.1:9/x\n",
    "two": f"{OUTPUT}- md5: {{0}}\n  path: x\n",
    "objects": "outs: !!python/object/apply:os.mkdir [planted]\n",
}


@pytest.mark.parametrize("pointer", POINTERS)
def test_a_pointer_says_which_content_and_nothing_else(pointer: str, tmp_path: Path) -> None:
    """Whoever writes to the repository, or names another in a version's record, writes it."""
    version = committed(tmp_path)
    folder, tag = tmp_path / "team", version["tag"]
    (folder / "preferences.dvc").write_text(POINTERS[pointer].format("a" * 32 + ".dir"))
    run_git(folder, "commit", "--quiet", "--all", "--message", "another pointer")
    run_git(folder, "tag", "--force", "--annotate", tag, "--message", version["sha256"])
    version["dvc_rev"] = run_git(folder, "rev-list", "-n", "1", tag)
    with pytest.raises(EditLoopError, match=r"preferences\.dvc is not a pointer to preferences and its content"):
        fetch_dataset(version, tmp_path / "fetched")
    assert not (tmp_path / "planted").exists()

"""Folders that appear whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from editloop import content
from editloop.content import complete_folder, file_digests, new_folder, read_manifest, write_manifest
from editloop.errors import EditLoopError
from editloop.object_folders import put_folder


def test_a_folder_replaces_another_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with complete_folder(tmp_path / "folder", {"content": text}) as out:
            (out / text).write_text(text)
    assert set(read_manifest(tmp_path / "folder", check=True)["files"]) == {"new"}
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_what_was_there_stays_where_the_new_folder_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").write_text("old")
    rename = Path.rename

    def fails(path: Path, target: Path) -> Path:
        if (path / "new").exists():
            raise OSError("the disk is away")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="the disk is away"), new_folder(tmp_path / "folder") as out:
        (out / "new").write_text("new")
    assert _files(tmp_path) == ["folder", "folder/old"]


def test_an_interrupt_right_after_the_last_rename_leaves_the_new_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    rename = Path.rename

    def interrupted(path: Path, target: Path) -> None:
        rename(path, target)
        if (target / "new").exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "folder") as out:
        (out / "new").write_text("new")
    assert _files(tmp_path) == ["folder", "folder/new"]


def test_what_is_renamed_is_on_the_disk_before_and_the_new_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    replace, rename, fsync, settle = Path.replace, Path.rename, os.fsync, content.settle_files

    def synced(handle: int) -> None:
        calls.append("names" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", lambda path, target: calls.append("replace") or replace(path, target))
    monkeypatch.setattr(Path, "rename", lambda path, target: calls.append("rename") or rename(path, target))
    monkeypatch.setattr(content, "settle_files", lambda folder: calls.append("files") or settle(folder))
    content.write_file(tmp_path / "file", "new")
    assert calls == ["file", "replace", "names"]
    calls.clear()
    with new_folder(tmp_path / "folder") as out:
        (out / "new").write_text("new")
    assert calls == ["files", "rename", "names"]


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("link", ["secret", "part/secret"])
def test_a_link_out_of_a_folder_is_no_part_of_it(link: str, tmp_path: Path) -> None:
    """Else a stranger's folder would have a file of whoever takes it stored and uploaded."""
    (tmp_path / "id_rsa").write_text("a private key")
    folder = tmp_path / "folder"
    (folder / "part").mkdir(parents=True)
    (folder / "own.txt").write_text("own")
    (folder / "linked.txt").symlink_to("own.txt")
    assert sorted(file_digests(folder)) == ["linked.txt", "own.txt"]
    (folder / link).symlink_to(tmp_path / "id_rsa")
    for call in (file_digests, lambda path: write_manifest(path, {}), lambda path: put_folder(path, "s3://bucket/x")):
        with pytest.raises(EditLoopError, match="secret: a link out of"):
            call(folder)


def test_links_of_the_hubs_cache_are_files(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--x" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--x" / "blobs").mkdir()
    (tmp_path / "models--x" / "blobs" / "1").write_text("weights")
    (snapshot / "model.safetensors").symlink_to("../../blobs/1")
    assert list(file_digests(snapshot)) == ["model.safetensors"]

"""Folders that appear whole or not at all."""

from pathlib import Path

import pytest

from editloop.content import complete_folder, new_folder, read_manifest


def test_a_folder_replaces_another_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with complete_folder(tmp_path / "folder", {"content": content}) as out:
            (out / content).write_text(content)
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
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["folder", "folder/old"]

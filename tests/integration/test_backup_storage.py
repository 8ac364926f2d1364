"""Back-ups in object storage, and of what is there."""

import os
import re
import signal
import time
from pathlib import Path

import pytest

from editloop.content import write_file
from editloop.errors import EditLoopError
from editloop.object_storage import ObjectFolder
from infra.backup import back_up_stores
from infra.backup_folder import content_name, list_backups, read_backup, thin_out
from infra.backup_parts import Part
from infra.file_store import FolderStore
from infra.restore import restore_stores
from tests.command_line import EditLoop
from tests.machine_folder import make_machine
from tests.s3_server import BUCKET


def test_a_machine_is_backed_up_to_a_bucket_and_comes_back(
    s3_environment: dict[str, str], tmp_path: Path, editloop: EditLoop
) -> None:
    machine, address = make_machine(tmp_path / "machine"), f"s3://{BUCKET}/{tmp_path.name}/backups"
    pictures = ObjectFolder(f"s3://{BUCKET}/{tmp_path.name}/pictures")
    pictures.write("key/b.png", b"a picture in the bucket")
    there = {"EDITLOOP_PICTURES": pictures.address}
    made = editloop("backup", "--services", str(machine), "--to", address, "--name", "one", "--with-secrets", **there)
    assert made.returncode == 0, made.stderr
    assert re.search(r"^one: \d+ files, .* MB, of which .* MB are new", made.stdout)
    listed = editloop("backup", "--list", "--to", address).stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["name", "one"]
    arguments = ("restore", "one", "--from", address, "--services", str(tmp_path / "new"), "--no-verify")
    assert "EDITLOOP_PICTURES: not set to an s3:// address" in editloop(*arguments).stderr
    assert "pictures: is not empty" in editloop(*arguments, **there).stderr
    assert not (tmp_path / "new").exists()
    elsewhere = ObjectFolder(f"{pictures.address}-2")
    assert editloop(*arguments, EDITLOOP_PICTURES=elsewhere.address).returncode == 0
    assert elsewhere.read("key/b.png") == b"a picture in the bucket"
    assert (tmp_path / "new/services/pictures/key/a.png").read_text() == "a picture"


def test_objects_are_read_again_where_they_changed_and_only_then(
    s3_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = f"s3://{BUCKET}/{tmp_path.name}"
    source, store = ObjectFolder(f"{root}/edits"), ObjectFolder(f"{root}/backups")
    write_file(tmp_path / "dump", "a dump")
    store.upload({"one/mlflow.dump": tmp_path / "dump"})
    for name in ("a", "b"):
        source.write(name, name.encode())
    parts = [Part("stores/edits", source.address)]
    assert back_up_stores(parts, None, store, "one").backup.dumps.keys() == {"mlflow.dump"}
    source.write("b", b"B")
    fetched: list[str] = []
    download = ObjectFolder.download

    def noted(self: ObjectFolder, names: list[str], target: Path) -> None:
        fetched.extend(names)
        download(self, names, target)

    with monkeypatch.context() as patched:
        patched.setattr(ObjectFolder, "download", noted)
        back_up_stores(parts, None, store, "two")
    assert fetched == ["b"]
    assert thin_out(store, 1) == ["one"]
    assert not [name for name in store.names() if name.startswith("one/")]
    target = ObjectFolder(f"{root}/restored")
    restore_stores(store, "two", [Part("stores/edits", target.address)], None, None)
    assert (target.read("a"), target.read("b")) == (b"a", b"B")

    damaged = content_name(read_backup(store, "two").files["stores/edits/a"].sha256)
    store.write(damaged, b"another")
    again = ObjectFolder(f"{root}/again")
    with pytest.raises(EditLoopError, match=f"{damaged} is damaged"):
        restore_stores(store, "two", [Part("stores/edits", again.address)], None, None)
    assert not again.names()
    assert [*list_backups(store)] == ["two"]


@pytest.mark.parametrize(
    ("command", "stopped_in", "told"),
    [
        ("backup", "infra.backup.bundle_repository", "no back-up was made; the same call begins anew"),
        ("restore", "infra.restore._put", "nothing was changed"),
    ],
)
def test_a_stopped_call_says_what_follows(
    command: str, stopped_in: str, told: str, tmp_path: Path, editloop: EditLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, target = make_machine(tmp_path / "machine"), tmp_path / "new"
    arguments = ["--services", str(machine), "--to", str(tmp_path / "backups"), "--name", "one", "--with-secrets"]
    if command == "restore":
        assert editloop("backup", *arguments).returncode == 0
        arguments = ["one", "--from", str(tmp_path / "backups"), "--services", str(target)]

    def interrupt(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr(stopped_in, interrupt)
    ended = editloop(command, *arguments)
    assert (ended.returncode, ended.stderr.splitlines()) == (130, [ended.stderr.strip()])
    assert ended.stderr.startswith(f"editloop: stopped; {told}")
    assert {path.name for path in tmp_path.iterdir()} == {"machine", "backups"}
    assert [*list_backups(FolderStore(tmp_path / "backups"))] == ([] if command == "backup" else ["one"])

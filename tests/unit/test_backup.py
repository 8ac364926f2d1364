"""Back-ups of made-up folders: what is in them, what the next one stores, what is refused."""

import errno
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from threading import Event, Thread

import pytest

from editloop.content import complete_folder, sha256_bytes
from editloop.datasets.repository import commit_dataset, fetch_dataset
from editloop.errors import EditLoopError
from infra import backup as making
from infra.backup import back_up_services, back_up_stores, dump_database
from infra.backup_folder import Backup, content_name, list_backups, present_content, read_backup, thin_out, write_backup
from infra.backup_parts import DATABASE_FILES, Part
from infra.file_store import FolderStore, open_store
from infra.restore import check_backup, restore_services
from infra.settings import LocalServiceSettings
from tests.machine_folder import TABLES, make_machine


def make_version(folder: Path, text: str) -> dict[str, str]:
    """A version of the folder's dataset repository."""
    with complete_folder(folder / "built") as built:
        (built / "rows.parquet").write_text(text)
    places = {"repo": str(folder / "dataset"), "remote": str(folder / "dataset-remote")}
    return dict(commit_dataset(folder / "built", **places, message=text))


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    return make_machine(tmp_path / "machine")


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "backups")


def secrets_of(machine: Path, tmp_path: Path) -> Path:
    kept = tmp_path / "kept"
    kept.mkdir(exist_ok=True)
    for name in ("credentials.json", "signing-key.pem"):
        (kept / name).write_bytes((machine / "services" / name).read_bytes())
    return kept


def back_up(machine: Path, store: FolderStore, name: str = "one", *, with_secrets: bool = False) -> Backup:
    return back_up_services(machine, store, name, with_secrets=with_secrets).backup


def test_what_belongs_to_a_machine_comes_back_and_paths_lead_to_the_new_place(
    machine: Path, store: FolderStore, tmp_path: Path
) -> None:
    version = make_version(machine, "first")
    backup = back_up(machine, store)
    assert not [path for path in backup.files if path.startswith(("secrets/", "work/cache", "work/services"))]
    assert "services/mlflow.log" not in backup.files
    target = tmp_path / "new" / "demo"
    restore_services(store, "one", target, secrets=secrets_of(machine, tmp_path))
    for name in ("pictures/key/a.png", "verify-key.pem", "signing-key.pem", "mlflow/artifacts/1/weights.safetensors"):
        assert (target / "services" / name).read_bytes() == (machine / "services" / name).read_bytes()
    assert (target / "steps/one/weights.safetensors").read_text() == "weights"
    for file, tables in TABLES.items():
        with closing(sqlite3.connect(target / "services" / file)) as connection:
            for table in tables:
                (value,) = connection.execute(f"SELECT * FROM {table.split()[0]}").fetchone()
                assert value == str((machine if file.endswith("auth.db") else target) / "steps" / "one")
    fetch_dataset({**version, "repo": (target / "dataset").as_uri()}, tmp_path / "fetched")  # type: ignore[typeddict-item]
    assert (tmp_path / "fetched" / "rows.parquet").read_text() == "first"
    make_version(target, "second")


def test_log_ins_are_in_it_where_that_is_asked_and_nobody_else_reads_it(
    machine: Path, store: FolderStore, tmp_path: Path
) -> None:
    assert "secrets/signing-key.pem" in back_up(machine, store, with_secrets=True).files
    modes = {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in store.root.rglob("*") if path.name != "lock"}
    assert modes == {0}
    restore_services(store, "one", tmp_path / "new")
    assert (tmp_path / "new/services/signing-key.pem").stat().st_mode & 0o077 == 0


def test_a_dump_is_of_one_moment_while_others_write(tmp_path: Path) -> None:
    database, stop = tmp_path / "busy.db", Event()
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("CREATE TABLE pairs (a, b)")

    def write() -> None:
        with closing(sqlite3.connect(database)) as connection:
            number = 0
            while not stop.is_set():
                number += 1
                with connection:
                    connection.execute("INSERT INTO pairs VALUES (?, 0)", [number])
                    connection.execute("UPDATE pairs SET b = ?", [number])

    writer = Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            dump_database(database, tmp_path / f"{number}.db")
    finally:
        stop.set()
        writer.join()
    for number in range(5):
        with closing(sqlite3.connect(tmp_path / f"{number}.db")) as connection:
            last, lowest, highest = connection.execute("SELECT max(a), min(b), max(b) FROM pairs").fetchone()
            assert last == lowest == highest


def test_databases_are_read_before_what_they_name(
    machine: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def dump(database: Path, target: Path) -> None:
        order.append(database.name)
        dump_database(database, target)
        with (machine / "services/pictures/key/later.png").open("w") as late:  # written after the database was read
            late.write("named by nobody yet")

    def bundle(repo: str, target: Path) -> bool:
        order.append("repository")
        assert len(order) == len(DATABASE_FILES) + 1
        return False

    monkeypatch.setattr(making, "dump_database", dump)
    monkeypatch.setattr(making, "bundle_repository", bundle)
    assert "services/pictures/key/later.png" in back_up(machine, store).files
    assert order == ["mlflow.db", "auth.db", "label_studio.sqlite3", "repository"]


def test_a_damaged_database_is_no_backup(machine: Path, store: FolderStore) -> None:
    database = machine / "services/mlflow/mlflow.db"
    database.write_bytes(database.read_bytes()[:2000] + b"\xff" * 4000)
    with pytest.raises(EditLoopError, match=r"mlflow\.db: (is damaged|cannot be backed up)"):
        back_up(machine, store)
    assert not list_backups(store)


def test_the_next_one_stores_what_is_new_and_reads_what_changed(machine: Path, store: FolderStore) -> None:
    first = back_up_services(machine, store, "one", with_secrets=False)
    weights = {path: file.sha256 for path, file in first.backup.files.items() if path.endswith("weights.safetensors")}
    assert len(weights) == 2
    assert len(set(weights.values())) == 1
    (machine / "services/pictures/key/b.png").write_text("another")
    (machine / "services/pictures/key/a.png").unlink()
    (machine / "steps/one/weights.safetensors").write_text("changed")
    touched = machine / "services/mlflow/artifacts/1/weights.safetensors"
    os.utime(touched, ns=(1, 1))
    second = back_up_services(machine, store, "two", with_secrets=False)
    assert second.new_bytes == len("another") + len("changed")
    assert second.backup.files["work/steps/one/weights.safetensors"].sha256 == sha256_bytes(b"changed")
    assert read_backup(store, "one").files["services/pictures/key/a.png"].sha256 in present_content(store)
    assert [*list_backups(store)] == ["one", "two"]
    check_backup(store, "one")
    assert thin_out(store, 1) == ["one"]
    assert [*list_backups(store)] == ["two"]
    assert present_content(store) == {file.sha256 for file in second.backup.files.values()}
    check_backup(store, "two")


def test_what_is_cut_off_is_no_backup_and_the_same_call_begins_anew(
    machine: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(making, "bundle_repository", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            back_up(machine, store)
    assert not list_backups(store)
    back_up(machine, store)
    with pytest.raises(EditLoopError, match=r"one: is a back-up already\. Choose another name by --name"):
        back_up(machine, store)


def test_content_that_another_call_deleted_meanwhile_is_noticed(
    machine: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(machine, store)
    (digest,) = {file.sha256 for path, file in read_backup(store, "one").files.items() if path.endswith(".png")}

    def bundle(repo: str, target: Path) -> bool:
        store.delete([content_name(digest)])
        return False

    monkeypatch.setattr(making, "bundle_repository", bundle)
    with pytest.raises(EditLoopError, match="1 files were deleted while back-up two was made"):
        back_up(machine, store, "two")


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("../one", "no name of a back-up"),
        ("content", "no name of a back-up"),
        ("two", "no back-up 'two'; there are one"),
    ],
)
def test_names_are_checked(machine: Path, store: FolderStore, name: str, fault: str) -> None:
    back_up(machine, store)
    with pytest.raises(EditLoopError, match=fault):
        check_backup(store, name)


def test_databases_of_another_version_are_migrated_before_they_appear(
    machine: Path, store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = back_up(machine, store, with_secrets=True)
    write_backup(store, "one", backup.model_copy(update={"versions": {**backup.versions, "mlflow": "3.0.0"}}))
    target, migrated = tmp_path / "new", list[str]()

    def migrate(name: str, settings: LocalServiceSettings, folder: Path) -> None:
        assert (folder / "mlflow.db").is_file()
        assert not target.exists()
        migrated.append(name)

    monkeypatch.setattr("infra.restore.migrate_databases", migrate)
    restore_services(store, "one", target)
    assert migrated == ["mlflow"]

    def refuse(name: str, settings: LocalServiceSettings, folder: Path) -> None:
        raise EditLoopError("Can't locate revision")

    monkeypatch.setattr("infra.restore.migrate_databases", refuse)
    with pytest.raises(
        EditLoopError, match=r"mlflow [\d.]+ cannot take over the databases of mlflow 3\.0\.0.*revision"
    ):
        restore_services(store, "one", tmp_path / "another")
    assert not (tmp_path / "another").exists()


def test_a_full_disk_is_one_line_and_leaves_nothing(
    machine: Path, store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(machine, store, with_secrets=True)

    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr("shutil.copyfile", full)
    for attempt in (
        lambda: restore_services(store, "one", tmp_path / "new"),
        lambda: back_up(machine, store, "two"),
    ):
        (machine / "steps/one/more").write_text("more")
        with pytest.raises(EditLoopError, match=r"No space left on device.*[Ff]ree space"):
            attempt()
    assert not (tmp_path / "new").exists()
    assert [*list_backups(store)] == ["one"]


@pytest.mark.parametrize("path", ["work/../../out", "/etc/out", "work//out"])
def test_a_path_that_leads_out_of_a_backup_is_refused(
    machine: Path, store: FolderStore, tmp_path: Path, path: str
) -> None:
    backup = back_up(machine, store, with_secrets=True)
    file = backup.files["services/verify-key.pem"]
    write_backup(store, "one", backup.model_copy(update={"files": {**backup.files, path: file}}))
    with pytest.raises(EditLoopError, match=r"one/manifest\.json: is damaged"):
        restore_services(store, "one", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("address", ["s3://", "s3:///", "s3:///prefix"])
def test_an_address_without_a_bucket_is_refused(address: str) -> None:
    with pytest.raises(EditLoopError, match=r"no address in object storage\. Write it as s3://BUCKET/PREFIX"):
        open_store(address)


def test_places_that_hold_each_other_are_refused(machine: Path, store: FolderStore) -> None:
    with pytest.raises(EditLoopError, match="lies in"):
        back_up(machine, FolderStore(machine / "backups"))
    with pytest.raises(EditLoopError, match="has no services"):
        back_up(machine / "services", store)
    with pytest.raises(EditLoopError, match="overlaps with"):
        back_up_stores([Part("stores/edits", str(store.root.parent))], None, store, "one")

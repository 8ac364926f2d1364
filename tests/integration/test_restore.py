"""A loop's state backed up while its services run, and restored on an empty machine, where every lineage holds."""

import io
import re
import shutil
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import httpx
import pytest

from editloop.content import sha256_file
from infra.backup_folder import Backup, content_name, read_backup
from infra.file_store import FolderStore
from infra.services import start_services, stop_services
from pipelines.cli import main
from pipelines.environment import local_environment
from tests.command_line import EditLoop
from tests.prepared_loop import EDITOR, REWARD, environment, prepare, train, tune

pytestmark = pytest.mark.timeout(600)


class BackedUp(NamedTuple):
    """What is left of a machine that is gone."""

    folder: Path
    """The folder of its services; it is not there any more."""
    backups: Path
    secrets: Path
    """The log-ins and the private key, kept elsewhere."""
    picture: str
    """A picture of the campaign, as Label Studio's pages name it."""
    tasks: int

    @property
    def backup(self) -> Backup:
        """The manifest of its back-up `before`."""
        return read_backup(FolderStore(self.backups), "before")

    def content(self, path: str) -> Path:
        """Where the content of a file of the back-up lies."""
        return self.backups / content_name(self.backup.files[path].sha256)


def call(*arguments: str) -> str:
    """What the command line prints in this process, outside a test."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(printed):
        patched.delenv("MLFLOW_TRACKING_URI", raising=False)
        patched.setattr("sys.argv", ["editloop", *arguments])
        try:
            status = main()
        except SystemExit as ended:
            status = ended.code
    assert not status, printed.getvalue()
    return printed.getvalue()


@pytest.fixture(scope="module")
def backed_up(tmp_path_factory: pytest.TempPathFactory) -> BackedUp:
    root = tmp_path_factory.mktemp("machine")
    folder, backups, secrets = root / "old" / "demo", root / "backups", root / "secrets"
    home = folder / "services"
    try:
        services = start_services(home)
        with environment(services.environment | local_environment(folder)):
            loop = prepare(folder / "turn", tasks=6)
            train(loop, loop["dataset"], loop["version.json"], loop["model"])
            tune(loop)
        picture = next((home / "pictures").rglob("*.png"))
        call("backup", "--services", str(folder), "--to", str(backups), "--name", "before")
    finally:
        stop_services(home)
    secrets.mkdir()
    for name in ("credentials.json", "annotators.json", "signing-key.pem"):
        shutil.copyfile(home / name, secrets / name)
    shutil.rmtree(folder)
    return BackedUp(folder, backups, secrets, picture.relative_to(home / "pictures").as_posix(), loop.campaign.tasks)


@pytest.fixture(scope="module")
def restored(backed_up: BackedUp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder of the new machine, whose services stay up after the restore, and what the restore printed."""
    folder = tmp_path_factory.mktemp("new") / "elsewhere"
    kept = ("--secrets", str(backed_up.secrets))
    try:
        with patch("infra.services.stop_services"):
            printed = call("restore", "before", "--from", str(backed_up.backups), "--services", str(folder), *kept)
        yield folder, printed
    finally:
        stop_services(folder / "services")


def test_every_lineage_holds_on_the_new_machine(restored: tuple[Path, str]) -> None:
    _, printed = restored
    for model in (REWARD, EDITOR):
        assert re.search(rf"^✓ models:/{model}@champion: \d+ links hold$", printed, re.MULTILINE), printed
    assert "✗" not in printed


def test_people_find_their_work_there(restored: tuple[Path, str], backed_up: BackedUp) -> None:
    home = restored[0] / "services"
    assert [(home / name).stat().st_mode & 0o077 for name in ("credentials.json", ".")] == [0, 0]
    service = start_services(home).label_studio
    assert service is not None
    header = {"Authorization": f"Token {service.secret}"}
    picture = httpx.get(f"{service.url}/data/local-files/?d={backed_up.picture}", headers=header, timeout=60)
    assert (picture.status_code, picture.content[1:4]) == (200, b"PNG")
    (project,) = httpx.get(f"{service.url}/api/projects/", headers=header, timeout=60).json()["results"]
    assert project["finished_task_number"] == backed_up.tasks


def test_a_folder_in_use_is_not_replaced(restored: tuple[Path, str], backed_up: BackedUp, editloop: EditLoop) -> None:
    folder, _ = restored
    marker = folder / "turn" / "marker"
    marker.write_text("mine")
    arguments = ("restore", "before", "--from", str(backed_up.backups), "--services", str(folder), "--no-verify")
    secrets = ("--secrets", str(backed_up.secrets))
    assert "label-studio and mlflow run there" in editloop(*arguments, *secrets, "--overwrite").stderr
    stop_services(folder / "services")
    assert "is not empty" in editloop(*arguments, *secrets).stderr
    assert marker.is_file()
    assert editloop(*arguments, *secrets, "--overwrite").returncode == 0
    assert not marker.exists()


@pytest.mark.parametrize("fault", ["flipped", "missing", "manifest"])
def test_a_damaged_backup_is_refused_before_anything_changes(
    backed_up: BackedUp, editloop: EditLoop, tmp_path: Path, fault: str
) -> None:
    path = next(path for path in backed_up.backup.files if path.startswith("work/dataset-remote/"))
    file = backed_up.backups / "before" / "manifest.json" if fault == "manifest" else backed_up.content(path)
    kept = file.read_bytes()
    place = kept.index(b'"size": ') + 8 if fault == "manifest" else len(kept) // 2
    if fault == "missing":
        file.unlink()
    else:
        file.write_bytes(kept[:place] + bytes([kept[place] ^ 1]) + kept[place + 1 :])
    target = tmp_path / "new"
    try:
        for more in ((), ("--check",)):
            arguments = (
                "--from",
                str(backed_up.backups),
                "--services",
                str(target),
                "--secrets",
                str(backed_up.secrets),
            )
            ended = editloop("restore", "before", *arguments, *more)
            word = "is missing" if fault == "missing" else "is damaged"
            assert (ended.returncode, word in ended.stderr, len(ended.stderr.splitlines())) == (1, True, 1), ended
            assert file.name in ended.stderr
            assert not list(tmp_path.iterdir())
    finally:
        file.write_bytes(kept)


def test_log_ins_and_the_private_key_are_not_in_it_and_are_asked_for(
    backed_up: BackedUp, editloop: EditLoop, tmp_path: Path
) -> None:
    secret = {sha256_file(path) for path in backed_up.secrets.iterdir()}
    assert not secret & {file.sha256 for file in backed_up.backup.files.values()}
    ended = editloop("restore", "before", "--from", str(backed_up.backups), "--services", str(tmp_path / "new"))
    assert ended.returncode == 1
    assert "holds no log-ins and no private key" in ended.stderr
    assert not (tmp_path / "new").exists()

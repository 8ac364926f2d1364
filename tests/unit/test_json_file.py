"""A damaged file of EditLoop's own is told in one line that names it and what to do."""

from collections.abc import Callable
from pathlib import Path

import pytest

from annotation.campaigns.accounts import read_accounts
from annotation.campaigns.campaign import read_campaign
from editloop.content import complete_folder
from editloop.errors import EditLoopError
from editloop.json_file import read_json_record
from editloop.models.edit_score.checkpoints import read_settings
from editloop.scoring.resuming import locked_folder
from editloop.settings_file import FrozenModel
from infra.services import services_status
from infra.settings import ServiceSettings

DAMAGE = {
    "cut off": b'{"label-studio": {"port": 1',
    "a list": b"[]\n",
    "another object": b'{"mlflow": {"port": "x"}}',
    "no text": b"\x00\xff\xfe",
    "deep": b"[" * 5000,
    "empty": b"",
}


class Point(FrozenModel):
    x: int


def _accounts(folder: Path, damage: bytes) -> Path:
    (folder / "annotators.json").write_bytes(damage)
    read_accounts(ServiceSettings(annotators_file=folder / "annotators.json"))
    return folder / "annotators.json"


def _credentials(folder: Path, damage: bytes) -> Path:
    (folder / "credentials.json").write_bytes(damage)
    services_status(folder)
    return folder / "credentials.json"


def _campaign(folder: Path, damage: bytes) -> Path:
    with complete_folder(folder / "campaign") as out:
        (out / "campaign.json").write_bytes(damage)
    read_campaign(folder / "campaign")
    return folder


def _edit_score(folder: Path, damage: bytes) -> Path:
    (folder / "editscore.json").write_bytes(damage)
    read_settings(folder)
    return folder


def _scores(folder: Path, damage: bytes) -> Path:
    (folder / "judge.json").write_bytes(damage)
    with locked_folder(folder, "judge.json", {"judge": 1}, f"{folder} holds scores", "remove it"):
        pass
    return folder


READERS = {
    "annotators.json": _accounts,
    "credentials.json": _credentials,
    "campaign.json": _campaign,
    "editscore.json": _edit_score,
    "judge.json": _scores,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize(("name", "read"), READERS.items(), ids=READERS)
def test_a_damaged_file_is_named_in_one_line(
    name: str, read: Callable[[Path, bytes], Path], damage: bytes, tmp_path: Path
) -> None:
    with pytest.raises(EditLoopError) as raised:
        read(tmp_path, damage)
    assert "\n" not in str(raised.value)
    assert name in str(raised.value) or name == "judge.json"


def test_a_sound_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "point.json").write_text('{"x": 3}')
    assert read_json_record(tmp_path / "point.json", Point, "Restore it.").x == 3
    (tmp_path / "point.json").write_text('{"y": 3}')
    with pytest.raises(EditLoopError, match=r"point\.json: no Point \(.*\)\. Restore it\."):
        read_json_record(tmp_path / "point.json", Point, "Restore it.")

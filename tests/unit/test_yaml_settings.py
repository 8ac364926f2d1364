"""YAML files that users write: a file that is no settings is an error that names it, whatever it holds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from annotation.campaigns.campaign_settings import read_campaign_settings
from editloop.errors import EditLoopError
from editloop.evaluation.gates.settings import read_gate
from editloop.models.editors.settings import SETTINGS, read_own_settings
from editloop.settings_file import read_yaml
from editloop.training.editor_rl.settings import read_rl_preset
from editloop.training.editor_sft.settings import read_sft_preset
from editloop.training.presets import load_preset
from pipelines.settings import read_params

READERS: dict[str, Callable[[Path], Any]] = {
    "any": read_yaml,
    "campaign": read_campaign_settings,
    "editor": lambda path: read_own_settings(path.parent),
    "editor_rl": lambda path: read_rl_preset(str(path)),
    "editor_sft": lambda path: read_sft_preset(str(path)),
    "gate": lambda path: read_gate(str(path)),
    "params": read_params,
    "reward": lambda path: load_preset(str(path)),
}
NO_YAML = {
    "picture": (b"\x89PNG\r\n\x1a\n\xff\xfe", "line 1 is not UTF-8"),
    "broken": (b"a: [1", "cannot be read as YAML"),
    "control characters": (b"a: \x07", "line 1 has the control character"),
}
NO_SETTINGS = {"a list": b"- 1\n", "a number": b"7\n", "a word": b"seven\n"}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("content", NO_YAML)
def test_a_file_that_is_no_yaml_is_one_line(reader: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / SETTINGS
    data, reason = NO_YAML[content]
    path.write_bytes(data)
    with pytest.raises(EditLoopError, match=reason) as raised:
        READERS[reader](path)
    assert str(path) in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("reader", [name for name in READERS if name != "any"])
@pytest.mark.parametrize("content", NO_SETTINGS)
def test_yaml_that_holds_no_keys_is_an_error(reader: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / SETTINGS
    path.write_bytes(NO_SETTINGS[content])
    with pytest.raises(EditLoopError, match=str(path)):
        READERS[reader](path)


def test_a_missing_file_and_a_folder_are_one_line(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "gone.yaml", "cannot be read \\(No such file"), (tmp_path, "a folder")):
        with pytest.raises(EditLoopError, match=f"{path}: {reason}"):
            read_yaml(path)

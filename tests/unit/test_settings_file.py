"""One message for every fault of a settings file, whoever reads it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from editloop.errors import EditLoopError
from editloop.evaluation.gates.settings import read_gate
from editloop.models.editors.settings import SETTINGS, read_editor_preset, read_own_settings
from editloop.training.editor_rl.settings import read_rl_preset
from editloop.training.editor_sft.settings import read_sft_preset
from editloop.training.presets import load_preset
from pipelines.settings import read_params

READERS: dict[str, Callable[[Path], object]] = {
    "reward preset": lambda path: load_preset(str(path)),
    "RL preset": lambda path: read_rl_preset(str(path)),
    "fine-tuning preset": lambda path: read_sft_preset(str(path)),
    "editor preset": lambda path: read_editor_preset(str(path)),
    "editor's own settings": lambda path: read_own_settings(path.parent),
    "gate": lambda path: read_gate(str(path)),
    "parameters": read_params,
}


FAULTY = {"unknown key": "stepz: 3\n", "list": "[1, 2]\n", "no YAML": "a: [\n", "empty": ""}
NEEDS_NOTHING = ("RL preset", "empty")
"""Every setting of online RL has a default."""


@pytest.mark.parametrize(
    ("reader", "text"), [(reader, text) for reader in READERS for text in FAULTY if (reader, text) != NEEDS_NOTHING]
)
def test_a_faulty_file_is_one_line_that_names_it(reader: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / (SETTINGS if reader == "editor's own settings" else "ours.yaml")
    path.write_text(FAULTY[text])
    with pytest.raises(EditLoopError) as raised:
        READERS[reader](path)
    (line,) = str(raised.value).splitlines()
    assert str(path) in line
    assert "pydantic" not in line


@pytest.mark.parametrize(
    ("read", "names"),
    [(load_preset, "editreward-tiny"), (read_rl_preset, "flow-grpo"), (read_sft_preset, "tiny"), (read_gate, "reward")],
)
def test_a_name_that_is_not_there_is_answered_with_those_that_are(read: Callable[[str], object], names: str) -> None:
    with pytest.raises(
        EditLoopError, match=rf"'{names[:-1]}x': no such file or name; there are .*Did you mean {names}"
    ):
        read(f"{names[:-1]}x")


def test_a_value_names_its_key_and_its_rule(tmp_path: Path) -> None:
    (tmp_path / "ours.yaml").write_text("members: many\nlearning_rat: 1\n")
    with pytest.raises(EditLoopError) as raised:
        read_rl_preset(str(tmp_path / "ours.yaml"))
    assert "members=many: Input should be a valid integer" in str(raised.value)
    assert "learning_rat: unknown key (did you mean learning_rate?)" in str(raised.value)

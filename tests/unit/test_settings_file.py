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


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("algorithm: {name: ppo}", "algorithm.name=ppo: Input should be 'nft' or 'flow-grpo'"),
        ("algorithm: {beta: 2}", "algorithm.name: missing"),
        ("algorithm: nft", "algorithm=nft: Input should be a mapping of keys"),
        ("algorithm: {name: nft, window: 3}", "algorithm.window: unknown key for nft"),
        ("algorithm: {name: flow-grpo, beta: 2}", "algorithm.beta: unknown key for flow-grpo"),
        ("algorithm: {name: nft, bet: 2}", "algorithm.bet: unknown key for nft (did you mean beta?)"),
        ("algorithm: {name: nft, beta: 0}", "algorithm.beta=0: Input should be greater than 0"),
        ("window: 3", "window: unknown key (did you mean algorithm.window?)"),
        ("stop: {erro: 0.1}", "stop.erro: unknown key (did you mean error?)"),
        ("keep: 4\nscale: group", "keep: unknown key; scale: unknown key"),
        ("clip: 1", "clip: unknown key"),
    ],
)
def test_faults_in_the_settings_of_an_rl_algorithm_are_one_line(text: str, faults: str, tmp_path: Path) -> None:
    path = tmp_path / "ours.yaml"
    path.write_text(text)
    with pytest.raises(EditLoopError) as raised:
        read_rl_preset(str(path))
    assert str(raised.value) == f"preset {path}: {faults}. Correct the file."


def test_earlier_names_of_training_settings_are_unknown_keys(tmp_path: Path) -> None:
    path = tmp_path / "ours.yaml"
    path.write_text("training: {steps: 3, learning_rate: 0.1, clip: 1.0, keep: 2}")
    with pytest.raises(EditLoopError, match=r"training\.clip: unknown key; training\.keep: unknown key\. Correct"):
        read_sft_preset(str(path))

"""What an RL training refuses before its processes start: each with the thing, the rule and the next step."""

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from components.editor_rl.declaration import EditorRlParameters
from components.editor_rl.stage import run_editor_rl
from editloop.content import read_manifest
from editloop.data.edits_file import EditRow
from editloop.data.picture_file import load_image, upright_size
from editloop.errors import EditLoopError
from editloop.models.editors.opening import find_editor, open_editor, outline_editor
from editloop.settings_file import preset_names
from editloop.training.editor_rl.algorithm_settings import FlowGrpoSettings, NftSettings
from editloop.training.editor_rl.preflight import check_job
from editloop.training.editor_rl.reward_source import RewardSource, champion_reward_source
from editloop.training.editor_rl.settings import PRESETS, RlSettings, read_rl_preset
from tests.tiny_editors import KINDS, write_tiny_editor

REWARD = Path(str(files("editloop.models.edit_reward"))) / "weights" / "tiny-reward"
TEACHER = RewardSource(str(REWARD), "edit-reward", str(read_manifest(REWARD)["sha256"]), REWARD)


@pytest.fixture
def rows(tmp_path: Path) -> list[EditRow]:
    path = tmp_path / "picture.png"
    Image.new("RGB", (32, 32)).save(path)
    return [EditRow(f"row {at}", "edit", "make it red", path, path if at % 2 else None) for at in range(4)]


def check(rows: list[EditRow], editor: str | Path = "tiny-editor", **told: Any) -> None:
    settings = RlSettings(**{name: value for name, value in told.items() if name not in ("watch", "processes")})
    check_job(rows, rows, find_editor(str(editor)), TEACHER, settings, told.get("watch", []), told.get("processes", 2))


def test_what_can_be_trained_passes(rows: list[EditRow]) -> None:
    check(rows, watch=["tiny-score"])
    check(rows[1::2], watch=["oracle"])
    check(rows, targets=("to_q", "add_k_proj"))


def test_an_adapter_for_layers_that_are_not_there(rows: list[EditRow]) -> None:
    with pytest.raises(EditLoopError, match=r"no linear layer of the asked name: to_z\. Name ends.*attn\.to_q"):
        check(rows, targets=("to_q", "to_z"))
    check(rows, adapter=None)


def test_a_training_on_smaller_pictures_than_the_rewards_is_refused(rows: list[EditRow]) -> None:
    with pytest.raises(EditLoopError, match=r"trained on pictures of 32x32, the editor makes 16x16"):
        check(rows, area=256)


def test_an_editor_of_another_resolution_than_the_reward(rows: list[EditRow], tmp_path: Path) -> None:
    editor = write_tiny_editor("kontext", tmp_path / "editor")
    with pytest.raises(EditLoopError, match=r"edit-reward: trained on pictures of 32x32, the editor makes \d+x\d+"):
        check(rows, editor)


@pytest.mark.parametrize(
    ("watch", "said"),
    [
        ("oracle", "2 held-out tasks have no `target`, 'row 0' first"),
        ("tiny-reward", "it is the judge that teaches"),
        ("no-such-judge", "no such model"),
    ],
)
def test_who_cannot_watch(rows: list[EditRow], watch: str, said: str) -> None:
    with pytest.raises(EditLoopError, match=said):
        check(rows, watch=[watch])


def test_fewer_tasks_than_processes(rows: list[EditRow]) -> None:
    with pytest.raises(EditLoopError, match="4 tasks to practise for 5 processes"):
        check(rows, processes=5)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"members": 1}, "a group of one has no order; use 2 or more"),
        (
            {"algorithm": {"name": "flow-grpo"}, "sampling_steps": 3},
            "window_range 4 is longer than the trajectory of 3 steps",
        ),
        ({"best_members": 9}, "best_members 9 is above members 8"),
        ({"algorithm": {"name": "nft", "shared_noise": True}}, r"algorithm\.shared_noise: unknown key for nft\."),
        ({"guidance_scale": 3}, r"guidance_scale: unknown key \(did you mean guidance\?\)"),
    ],
)
def test_settings_that_cannot_work(told: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "ours.yaml"
    path.write_text(yaml.safe_dump(told))
    with pytest.raises(EditLoopError, match=rf"preset .*ours\.yaml: .*{said}"):
        read_rl_preset(str(path))


def test_a_preset_that_is_not_there_and_a_group_of_one_end_the_stage_before_anything_else(tmp_path: Path) -> None:
    with pytest.raises(EditLoopError, match=r"preset 'huge': no such file or name; there are .*tiny"):
        run_editor_rl(tmp_path / "nothing", tmp_path / "output", EditorRlParameters(preset="huge"))
    with pytest.raises(EditLoopError, match="a group of one has no order"):
        run_editor_rl(tmp_path / "nothing", tmp_path / "output", EditorRlParameters(members=1))


def test_the_page_tells_every_preset_and_every_setting() -> None:
    page = (Path(__file__).parents[2] / "docs" / "online-rl.md").read_text()
    heads = ("| preset |", "| key |", "| key of `nft` |", "| key of `flow-grpo` |")
    presets, settings, nft, grpo = (page[page.index(head) :].partition("\n")[2].split("\n\n")[0] for head in heads)
    assert keys(presets) == set(preset_names(PRESETS))
    assert keys(settings) == set(RlSettings.model_fields)
    assert keys(nft) | {"name"} == set(NftSettings.model_fields)
    assert keys(grpo) | {"name"} == set(FlowGrpoSettings.model_fields)
    for name in preset_names(PRESETS):
        assert read_rl_preset(name, seed=7).seed == 7


def keys(table: str) -> set[str]:
    """What the first column of a table names."""
    return {name for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(.*?)`", cell)}


@pytest.mark.parametrize("reward", ["models:/edit-reward@challenger", "tiny-reward"])
def test_only_a_champion_may_teach(reward: str) -> None:
    with pytest.raises(EditLoopError, match="only a registered champion may teach"):
        champion_reward_source(reward)


@pytest.mark.parametrize("kind", KINDS)
def test_an_outline_knows_what_the_editor_knows(kind: str, tmp_path: Path) -> None:
    folder = write_tiny_editor(kind, tmp_path / kind)
    outline, editor = outline_editor(folder), open_editor(folder)
    assert outline.size_for(100, 150) == editor.size_for(100, 150)
    assert outline.adapter_layers() == editor.adapter_layers()
    assert all(weight.is_meta for weight in outline.network.parameters())


@pytest.mark.parametrize("turned", [1, 3, 6, 8, 9])
def test_the_size_of_a_turned_photo_is_that_of_the_picture(turned: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = turned
    Image.new("RGB", (40, 20)).save(tmp_path / "photo.jpg", exif=exif)
    picture = load_image(tmp_path / "photo.jpg")
    assert upright_size(tmp_path / "photo.jpg") == (picture.height, picture.width)

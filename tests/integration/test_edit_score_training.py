"""EditScore trained by the stage on two processes: whole by ZeRO-2, an adapter by ZeRO-3, from a teacher's rows."""

import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from components.reward.declaration import RewardParameters
from components.reward.stage import run_reward
from editloop.models.edit_score.model import EditScoreModel
from editloop.models.judge_protocol import EditGroup
from editloop.scoring.opening import open_judge
from editloop.training.edit_score.distillation import import_distillation_rows
from editloop.training.presets import load_preset
from tests.edit_score_models import tiny_score

pytestmark = [pytest.mark.floats, pytest.mark.usefixtures("forked_ranks")]
COLOURS = {"red": (230, 20, 20), "blue": (20, 20, 230)}


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """Edits that made all of a grey picture red, as was asked, or blue."""
    folder = tmp_path_factory.mktemp("taught")
    rows = []
    for key in range(56):
        grey = np.full((16, 16, 3), 60 + 2 * key, np.uint8)
        Image.fromarray(grey).save(folder / f"{key}.png")
        for name, colour in COLOURS.items():
            made = np.full((16, 16, 3), colour, np.uint8) + np.uint8(key % 20)
            Image.fromarray(made).save(folder / f"{key}-{name}.png")
            points = [25, 25] if name == "red" else [0, 5]
            rows.append(
                {
                    "key": str(key),
                    "instruction": "red",
                    "source": f"{key}.png",
                    "edit": f"{key}-{name}.png",
                    "editor": name,
                    "sc": points,
                    "pq": points,
                }
            )
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    import_distillation_rows(folder / "rows.jsonl", folder / "taught")
    return folder / "taught"


WAYS = {
    "whole": {"zero_stage": 2, "epochs": 2},
    "adapter": {"zero_stage": 3, "adapter": {"rank": 8, "alpha": 32}, "epochs": 1},
}


@pytest.mark.parametrize("how", WAYS.values(), ids=list(WAYS))
def test_a_teacher_is_learnt_from_and_the_folder_judges(taught, tmp_path, how):
    base = tiny_score(reasoning=False, pictures="paired", least_mass=0)  # embeddings say little as yet
    for parameter in base.parameters():
        parameter.data.div_(3)
    base.save(tmp_path / "base", {})
    preset = load_preset("editscore-tiny").model_dump(mode="json", exclude={"loss", "target"})
    preset["training"] |= {"learning_rate": 1e-2, "batch": 16} | how
    (tmp_path / "preset.yaml").write_text(yaml.safe_dump(preset))
    figures = run_reward(
        taught,
        tmp_path / "model",
        RewardParameters(preset=str(tmp_path / "preset.yaml"), base=str(tmp_path / "base"), processes=2),
    )
    assert figures["validation_loss"] < figures["validation_loss_before"]
    if "adapter" not in how:  # which is trained for fewer epochs, ZeRO-3 takes its time
        assert figures["validation_accuracy"] > 0.9
    judge = open_judge(str(tmp_path / "model"), device="cpu")
    edits = [np.full((16, 16, 3), COLOURS[name], np.uint8) for name in ("blue", "red")]
    ((wrong, right),) = judge.judge([EditGroup("red", np.full((16, 16, 3), 128, np.uint8), edits)])
    assert right.overall > wrong.overall
    if "adapter" in how:
        model, bare = EditScoreModel.load(tmp_path / "model", "cpu"), EditScoreModel.load(tmp_path / "base", "cpu")
        changed = {
            name
            for (name, one), other in zip(model.named_parameters(), bare.parameters(), strict=True)
            if not torch.equal(one, other)
        }
        assert changed
        assert all("language_model" in name and name.endswith("_proj.weight") for name in changed)

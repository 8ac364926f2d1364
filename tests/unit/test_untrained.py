"""The untrained model that every reward gate shows: which one it is, and how it judges."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from editloop.content import complete_folder, read_manifest
from editloop.errors import EditLoopError
from editloop.evaluation.untrained import QUESTIONS, first_base, open_untrained
from editloop.models.edit_score.judge import EditScoreJudge
from editloop.models.edit_score.model import EditScoreModel
from editloop.scoring.opening import find_local
from tests.edit_score_models import plain_inputs, some_groups, tiny_score, write_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("base") / "Qwen-tiny")


def named_base(folder: Path, base: str) -> Path:
    """A model's folder of which only the base is of interest."""
    with complete_folder(folder, {"base": base}) as out:
        (out / "reward.json").write_text("{}")
    return folder


def test_a_plain_model_judges_by_the_digits_of_its_first_token(checkpoint: Path) -> None:
    """Axis by axis against Hugging Face's own forward pass: the expected digit, 0..5, on a scale of 0 to 10."""
    judge = open_untrained(str(checkpoint), device="cpu").judge
    group = some_groups()[0]
    model = EditScoreModel.from_base(checkpoint, QUESTIONS, "cpu")
    plain = tiny_score()
    plain.set_settings(model.settings)
    for edit, score in enumerate(judge.judge([group])[0]):
        assert not score.missing
        rows = plain.rows.points(plain.rows.ask(group)[edit])
        for row, axis in zip(rows, judge.axes, strict=True):
            with torch.no_grad():
                logits = plain.backbone(**plain_inputs(plain, row)).logits[0, -1]
            chances = logits[plain.rows.digits()].double().softmax(-1).numpy()
            assert score.axes[axis].mean == pytest.approx(float(chances @ np.arange(6)) * 2, abs=1e-3)


def test_it_is_named_and_has_a_version_of_weights_and_questions(checkpoint: Path, tmp_path: Path) -> None:
    one = open_untrained(str(checkpoint), device="cpu")
    assert (one.name, one.judge.name) == ("Qwen-tiny", "untrained-Qwen-tiny")
    assert EditScoreJudge.name == "edit-score"
    shutil.copytree(checkpoint, tmp_path / "other")
    config = json.loads((tmp_path / "other" / "generation_config.json").read_text())
    (tmp_path / "other" / "generation_config.json").write_text(json.dumps(config | {"note": 1}))
    other = open_untrained(str(tmp_path / "other"), device="cpu")
    assert len({one.judge.version, other.judge.version}) == 2
    assert one.judge.version == open_untrained(str(checkpoint), device="cpu").judge.version


def test_the_line_of_trainings_is_followed_to_its_beginning(checkpoint: Path, tmp_path: Path) -> None:
    first = named_base(tmp_path / "first", str(checkpoint))
    second = named_base(tmp_path / "second", str(first))
    assert first_base(str(second)) == first_base(str(checkpoint)) == checkpoint
    assert open_untrained(str(second), device="cpu").name == "Qwen-tiny"


def test_a_line_that_began_with_a_judge_has_it_as_it_is() -> None:
    untrained = open_untrained("tiny-reward", device="cpu")
    assert untrained.name == "tiny-reward"
    assert untrained.judge.version == read_manifest(find_local("tiny-reward").folder)["sha256"]


def test_what_cannot_be_followed_is_one_line(tmp_path: Path) -> None:
    lost = named_base(tmp_path / "lost", str(tmp_path / "gone"))
    with pytest.raises(EditLoopError, match="gone: no such model"):
        open_untrained(str(lost))
    circle = named_base(tmp_path / "circle", str(tmp_path / "circle"))
    with pytest.raises(EditLoopError, match="its bases run in a circle"):
        first_base(str(circle))


def test_a_model_without_an_output_layer_cannot_judge(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(find_local("tiny-reward").folder / "backbone", folder)
    shutil.copytree(find_local("tiny-reward").folder / "tokenizer", folder, dirs_exist_ok=True)
    with pytest.raises(EditLoopError, match="lm_head"):
        open_untrained(str(folder), device="cpu")

"""The untrained model that every reward gate shows: which one it is, and how it judges."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from components.benchmark import stage
from components.benchmark.declaration import BenchmarkParameters
from editloop.content import complete_folder, read_manifest
from editloop.errors import EditLoopError
from editloop.evaluation.untrained import QUESTIONS, first_base, open_untrained
from editloop.lineage import registry
from editloop.models.edit_reward.model import RewardModel
from editloop.models.edit_score.judge import EditScoreJudge
from editloop.models.edit_score.model import EditScoreModel
from editloop.scoring.opening import find_local
from editloop.studies.comparison.world import scenes_dataset
from tests.edit_score_models import plain_inputs, some_groups, tiny_score


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny vision-language model as it is published: nothing but Hugging Face's files."""
    folder = tmp_path_factory.mktemp("base") / "Qwen-tiny"
    model = tiny_score()
    model.backbone.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


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


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "dataset"
    scenes_dataset(folder, tasks=24, seed=0)
    return folder


@pytest.fixture
def trained(checkpoint: Path, tmp_path: Path) -> Path:
    """A reward model whose training began with the checkpoint."""
    RewardModel.load("tiny-reward", device="cpu").save(tmp_path / "model", {"base": str(checkpoint)})
    return tmp_path / "model"


def benchmarked(dataset: Path, model: Path, output: Path, **keys: object) -> tuple[dict, dict, str]:
    """benchmark.json, gate.json and page of a model, by a gate with more keys."""
    (output.parent / "gate.yaml").write_text(
        json.dumps({"name": "ours", "suites": [{"suite": "heldout", "minimum": 1}]} | keys)
    )
    parameters = BenchmarkParameters(gate=str(output.parent / "gate.yaml"))
    stage.run_benchmark(dataset, model, output, parameters)
    report, gate = (json.loads((output / name).read_text()) for name in ("benchmark.json", "gate.json"))
    return report, gate, (output / "page.html").read_text()


def test_a_gate_shows_the_model_the_champion_and_the_untrained_model(
    dataset: Path, trained: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion = find_local("tiny-reward").folder
    monkeypatch.setattr(registry, "resolve_model", lambda model: champion)
    keys = {"within_editor": {"least": -0.99, "minimum": 1}, "baseline": {"least_gain": -0.99, "minimum": 1}}
    report, gate, page = benchmarked(dataset, trained, tmp_path / "out", **keys)
    baseline, within = gate["requirements"]["baseline"], gate["requirements"]["within_editor"]
    assert baseline["figures"].keys() == {"new", "old", "untrained"}
    assert baseline["figures"]["new"] == baseline["figures"]["old"] == report["accuracy_labels"], "the same weights"
    assert baseline["figures"]["untrained"] == report["accuracy_labels_untrained"]
    assert baseline["names"] == {"untrained": "Qwen-tiny"}
    assert baseline["units"] == report["pairs"]
    assert within["figures"] == {"new": report["within_editor"], "old": report["within_editor"]}
    assert within["units"] == report["within_editor_groups"] > 1
    assert (baseline["verdict"], within["verdict"]) == ("promote", "promote")
    assert "untrained: Qwen-tiny" in page
    data = gate["data"]
    assert data["dataset_sha256"] == read_manifest(dataset)["sha256"]
    assert data["suites"] == [
        {
            "suite": "heldout",
            "required": True,
            "folder": "",
            "sha256": json.loads((tmp_path / "out/suites/heldout/report.json").read_text())["suite_sha256"],
            "units": report["pairs"],
        }
    ]
    assert data["judges"]["new"]["version"] == read_manifest(trained)["sha256"]
    assert data["judges"]["old"]["version"] == read_manifest(champion)["sha256"]
    assert data["judges"]["untrained"]["version"] == open_untrained(str(checkpoint), device="cpu").judge.version


def test_an_untrained_model_that_is_gone_is_said_and_one_that_a_gate_names_must_be_there(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion = find_local("tiny-reward").folder
    monkeypatch.setattr(registry, "resolve_model", lambda model: champion)
    first = tmp_path / "first"
    RewardModel.load("tiny-reward", device="cpu").save(first, {"base": str(tmp_path / "gone")})
    model = tmp_path / "model"
    RewardModel.load("tiny-reward", device="cpu").save(model, {"base": str(first)})
    report, gate, _ = benchmarked(dataset, model, tmp_path / "out")
    assert report["accuracy_labels_untrained"] is None
    assert gate["reasons"][-1].startswith("the untrained backbone was not measured:")
    assert "gone: no such model" in gate["reasons"][-1]
    with pytest.raises(EditLoopError, match="nowhere: no such model"):
        benchmarked(dataset, model, tmp_path / "again", baseline={"base": str(tmp_path / "nowhere")})
    assert not (tmp_path / "again").exists()
    report, _, _ = benchmarked(dataset, model, tmp_path / "named", baseline={"base": "tiny-reward"})
    assert report["accuracy_labels_untrained"] == report["accuracy_labels"]

"""Stage benchmark on small real models: champion and untrained model beside the new one, and the data on record."""

import json
from pathlib import Path

import pytest

from components.benchmark import stage
from components.benchmark.declaration import BenchmarkParameters
from editloop.content import read_manifest
from editloop.errors import EditLoopError
from editloop.evaluation.suites.opening import open_suite
from editloop.evaluation.untrained import open_untrained
from editloop.lineage import registry
from editloop.models.edit_reward.model import RewardModel
from editloop.scoring.opening import find_local
from editloop.studies.comparison.world import scenes_dataset
from tests.edit_score_models import write_checkpoint

SAMPLE = Path(__file__).parents[1] / "parity" / "suites" / "editreward-compass"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("base") / "Qwen-tiny")


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


def test_models_of_two_kinds_are_compared_on_what_both_were_asked(
    dataset: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EditReward has no consistency: of eight pairs the gate compares six."""
    monkeypatch.setattr(registry, "resolve_model", lambda model: find_local("tiny-score").folder)
    compass = {"suite": "editreward-compass", "data": str(SAMPLE), "minimum": 1}
    _, gate, page = benchmarked(dataset, trained, tmp_path / "out", suites=[compass])
    (suite,) = gate["suites"]
    assert (suite["units"], {row["slice"] for row in suite["slices"]}) == (6, {"IA", "VQ"})
    assert gate["data"]["suites"][0]["sha256"] == open_suite("editreward-compass", SAMPLE).sha256
    assert gate["data"]["suites"][0]["folder"] == str(SAMPLE)
    assert gate["reasons"][-1] == (
        "the untrained backbone was not measured: gate ours has no suite heldout (shown, without a say)."
    )
    assert str(SAMPLE) in page

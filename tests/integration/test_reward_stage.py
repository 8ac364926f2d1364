"""The reward stage on two processes: what it saves is what it measured, its curves arrive, MLflow may be away."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open

from components.reward.declaration import RewardParameters
from components.reward.stage import run_reward
from editloop.content import read_manifest
from editloop.datasets.preference_groups import read_groups
from editloop.lineage import tracking
from editloop.lineage.step import run_step
from editloop.models.edit_reward.model import RewardModel
from editloop.studies.comparison.world import scenes_dataset
from editloop.training.edit_reward.group_loss import group_loss
from editloop.training.edit_reward.train import pad_groups, unflatten_scores
from editloop.training.metric_log import send_metrics
from editloop.training.presets import load_preset
from infra.services import Services
from pipelines.catalogue import STAGES

pytestmark = pytest.mark.usefixtures("forked_ranks")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "dataset"
    scenes_dataset(folder, tasks=20, seed=0)
    return folder


def preset(place: Path, **training: Any) -> Path:
    """The tiny preset with other training settings, as a file."""
    told = load_preset("editreward-tiny").model_dump(mode="json", exclude_unset=True)
    told["training"] |= {"epochs": 2, **training}
    (place / "preset.yaml").write_text(yaml.safe_dump(told))
    return place / "preset.yaml"


def remeasured(model: Path, dataset: Path) -> float:
    """Validation loss of a saved model, without the training's code around it."""
    groups = list(read_groups(dataset, "validation"))
    ratings, valid, weights = pad_groups(groups)
    scores = unflatten_scores(RewardModel.load(model).score(groups), valid)
    return float(group_loss(scores.mu, scores.log_sigma, ratings, valid, weights, "expected-log")[0])


@pytest.mark.parametrize(
    "training",
    [
        {"zero_stage": 2},
        {"zero_stage": 3, "gradient_checkpointing": True, "adapter": {"rank": 4, "alpha": 8}, "backbone_share": 1.0},
    ],
    ids=["ZeRO-2, all weights", "ZeRO-3, an adapter"],
)
def test_what_is_saved_is_what_was_measured_best_and_its_curves_are_in_the_stages_run(
    mlflow_environment: Services, dataset: Path, tmp_path: Path, training: dict[str, Any]
) -> None:
    path, output = preset(tmp_path, **training), tmp_path / "model"
    found = run_step(
        STAGES["reward"],
        pipeline_run="test",
        inputs={"dataset": dataset},
        outputs={"output": output},
        parameters={"preset": str(path), "processes": 2, "seed": 1},
    )
    assert found["validation_loss"] < found["validation_loss_before"]
    assert remeasured(output, dataset) == pytest.approx(found["validation_loss"], abs=2e-5)
    with safe_open(output / "backbone" / "model.safetensors", "pt") as weights:
        assert not [name for name in weights.keys() if "lora" in name]  # noqa: SIM118
    facts = read_manifest(output, check=True)["facts"]
    assert facts["dataset_sha256"] == read_manifest(dataset)["sha256"]
    assert facts["base"] == "tiny-reward"
    calibration = RewardModel.load(output).settings.calibration
    assert calibration.candidates > 0
    assert not list((tmp_path / ".unfinished").iterdir())
    api, run = tracking.client(), tracking.find_producer_run("reward", str(read_manifest(output)["sha256"]))
    losses = api.get_metric_history(run, "curve_loss")
    assert sorted(one.step for one in losses) == list(range(1, int(found["steps"]) + 1))
    assert next(one.value for one in losses if one.step == found["steps"]) == pytest.approx(found["loss"])
    assert api.get_run(run).data.params["training.zero_stage"] == str(training["zero_stage"])


def test_mlflow_away_costs_a_training_nothing_and_gets_its_curves_later(
    mlflow_environment: Services, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tracking.stage_run("reward", "train-reward", "away", {"dataset": dataset}, {}) as run:
        with monkeypatch.context() as gone:
            gone.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
            gone.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
            gone.setenv("EDITLOOP_MLFLOW_PATIENCE", "0")
            found = run_reward(dataset, tmp_path / "model", RewardParameters(preset=str(preset(tmp_path)), epochs=1))
        read_manifest(tmp_path / "model", check=True)
        (folder,) = (tmp_path / ".unfinished").iterdir()
        assert not tracking.client().get_metric_history(run.run_id, "curve_loss")
        send_metrics(folder)
        sent = tracking.client().get_metric_history(run.run_id, "curve_loss")
    assert [one.step for one in sorted(sent, key=lambda one: one.step)] == list(range(1, int(found["steps"]) + 1))


def test_new_weights_and_order_follow_from_the_seed(dataset: Path, tmp_path: Path) -> None:
    """Equal but for rounding: on some processors MKL's sums depend on where an array lies in memory."""
    path = preset(tmp_path)
    made = [tmp_path / name for name in ("one", "two", "other")]
    for folder, seed in zip(made, (1, 1, 2), strict=True):
        run_reward(dataset, folder, RewardParameters(preset=str(path), epochs=1, seed=seed, processes=1))
    first, same, other = (
        [step["loss"] for step in json.loads((folder / "training.json").read_text())["steps"]] for folder in made
    )
    assert same == pytest.approx(first, rel=1e-4)
    assert other != pytest.approx(first, rel=1e-2)
    assert torch.isfinite(RewardModel.load(made[0]).score(read_groups(dataset, "test")[:2]).mu).all()

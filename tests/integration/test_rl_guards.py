"""A reward that can be cheated is caught in the real trainer, and what is kept is the best; an honest one runs on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from annotation.simulation.scenes import write_edits
from components.editor_rl.settings import RlJob, RlSettings
from infra.launch import launch

SETTINGS = RlSettings(
    iterations=15, tasks=6, members=4, steps=4, rank=8, alpha=16, learning_rate=6e-3, kl=0.0, evaluate_every=3,
    evaluation_tasks=40, checkpoint_every=50,
)  # fmt: skip


def train(folder: Path, reward: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    write_edits(folder / "edits", 160, 5)
    job = RlJob(
        edits=folder / "edits", output=folder / "output", editor="tiny-editor", rewards={reward: 1.0},
        watch=["oracle"], settings=SETTINGS, checkpoints=folder / "checkpoints",
    )  # fmt: skip
    (folder / "job.json").write_text(job.model_dump_json())
    launch("tests.planted_training", [str(folder / "job.json")], processes=1)
    return tuple(json.loads((folder / "output" / f"{name}.json").read_text()) for name in ("training", "evaluations"))  # type: ignore[return-value]


def test_a_reward_that_likes_bright_pictures_is_caught_and_the_best_editor_is_kept(tmp_path: Path) -> None:
    training, seen = train(tmp_path, "planted:brightness")
    assert "The reward rises while oracle falls" in training["reason"]
    assert len(training["steps"]) < SETTINGS.iterations
    assert training["evaluations"][-1]["oracle"] < training["evaluations"][0]["oracle"] - 0.02
    assert seen[-1]["best_iteration"] == max(seen, key=lambda one: np.mean(one["scores"]["oracle"]))["step"]
    page = (tmp_path / "output" / "page.html").read_text()
    assert training["reason"][:40] in page
    sheet = np.asarray(Image.open(tmp_path / "output" / "worst.png"))
    assert sheet.std() > 10
    assert (tmp_path / "output" / "editor" / "model_index.json").is_file()


def test_an_honest_reward_runs_to_its_end(tmp_path: Path) -> None:
    training, seen = train(tmp_path, "planted:closeness")
    assert training["reason"] == ""
    assert len(training["steps"]) == SETTINGS.iterations
    assert [one["stopped"] for one in seen] == [""] * len(seen)
    assert seen[-1]["figures"]["reward"] == pytest.approx(training["evaluations"][-1]["reward"])

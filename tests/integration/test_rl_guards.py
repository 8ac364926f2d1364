"""A reward that can be cheated is caught in the real trainer, and what is kept is the best; an honest one runs on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from editloop.models.lora_settings import LoraSettings
from editloop.studies.world.scenes import write_edits
from editloop.training.editor_rl.algorithm_settings import NftSettings
from editloop.training.editor_rl.settings import RlJob, RlSettings
from tests.forked_ranks import run_ranks

pytestmark = pytest.mark.floats

ITERATIONS = {"brightness": 15, "closeness": 6}
"""By the reward that teaches."""
SETTINGS = RlSettings(
    tasks=6,
    members=4,
    sampling_steps=4,
    adapter=LoraSettings(rank=8, alpha=16),
    learning_rate=1.2e-2,
    algorithm=NftSettings(levels=1),
    kl=0.0,
    precision="fp32",
    evaluate_every=2,
    evaluation_tasks=40,
    checkpoint_every=50,
)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What each training left."""
    root = tmp_path_factory.mktemp("guards")
    write_edits(root / "edits", 160, 5)
    jobs = []
    for kind, iterations in ITERATIONS.items():
        job = RlJob(
            edits=root / "edits",
            output=root / kind,
            editor="tiny-editor",
            rewards={f"planted:{kind}": 1.0},
            watch=["oracle"],
            settings=SETTINGS.model_copy(update={"iterations": iterations}),
            checkpoints=root / f"{kind}-checkpoints",
        )
        jobs.append(root / f"{kind}.json")
        jobs[-1].write_text(job.model_dump_json())
    run_ranks("tests.planted_training", [str(job) for job in jobs], 1, root / "ranks.log")
    return {kind: root / kind for kind in ITERATIONS}


def read(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return tuple(json.loads((folder / f"{name}.json").read_text()) for name in ("training", "evaluations"))  # type: ignore[return-value]


def test_a_reward_that_likes_bright_pictures_is_caught_and_the_best_editor_is_kept(outputs: dict[str, Path]) -> None:
    folder = outputs["brightness"]
    training, seen = read(folder)
    assert "The reward rises while oracle falls" in training["reason"]
    assert len(training["steps"]) < ITERATIONS["brightness"]
    assert training["evaluations"][-1]["oracle"] < training["evaluations"][0]["oracle"] - 0.02
    assert seen[-1]["best_iteration"] == max(seen, key=lambda one: np.mean(one["scores"]["oracle"]))["step"]
    assert training["reason"][:40] in (folder / "page.html").read_text()
    sheet = np.asarray(Image.open(folder / "worst.png"))
    assert sheet.std() > 10
    assert (folder / "editor" / "model_index.json").is_file()


def test_an_honest_reward_runs_to_its_end(outputs: dict[str, Path]) -> None:
    training, seen = read(outputs["closeness"])
    assert training["reason"] == ""
    assert len(training["steps"]) == ITERATIONS["closeness"]
    assert [one["stopped"] for one in seen] == [""] * len(seen)
    assert seen[-1]["figures"]["reward"] == pytest.approx(training["evaluations"][-1]["reward"])

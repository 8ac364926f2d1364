"""Judges under ZeRO-3: opened, saved and calibrated without the whole base in any rank, and trained to equal losses."""

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

from editloop.datasets.preference_groups import read_groups
from editloop.models.edit_reward.model import RewardModel
from editloop.studies.comparison.world import scenes_dataset
from editloop.training.presets import load_preset
from editloop.training.reward_models import train_reward_model
from tests.forked_ranks import forked_launches
from tests.spread_judges import SETTINGS, measure, some_groups, write_base

SLACK = 1.3
"""Share of (part of the weights + largest tensor) that a rank may take at most."""


@pytest.mark.skipif(sys.platform != "linux", reason="a process forgets its peak through /proc")
def test_no_rank_has_the_whole_base_in_memory_and_the_scores_are_those_of_one_that_has(tmp_path: Path) -> None:
    peaks = measure(tmp_path)
    for rank in peaks:
        print({name: value for name, value in rank._asdict().items() if name != "scores"})
    assert all(rank.opened <= SLACK * (rank.shard + rank.largest) < 2 * rank.shard for rank in peaks)
    assert all(rank.saved <= SLACK * 2 * rank.largest for rank in peaks), "the tensor, and its copy to be written"
    torch.manual_seed(0)
    whole = RewardModel.from_base(tmp_path / "base", SETTINGS).eval()
    torch.testing.assert_close(torch.tensor(peaks[0].scores), whole.score(some_groups()).mu.flatten())
    saved = load_file(tmp_path / "out" / "backbone" / "model.safetensors")
    assert saved.keys() == whole.backbone.state_dict().keys()
    assert all(torch.equal(saved[name], value) for name, value in whole.backbone.state_dict().items())


def test_losses_and_models_are_those_of_stage_0_and_frozen_embeddings_stay(tmp_path: Path) -> None:
    base = tmp_path / "base"
    write_base(base, 64, 2)
    scenes_dataset(tmp_path / "dataset", tasks=20, seed=0)
    preset = load_preset("editreward-tiny").model_dump(mode="json", exclude_unset=True)
    preset["settings"] = SETTINGS.model_dump(mode="json", exclude_unset=True)
    histories, models = [], []
    with forked_launches():
        for stage in (0, 3):
            changes = {"zero_stage": stage, "epochs": 2, "frozen_embeddings": True, "backbone_share": 1.0}
            preset["training"] |= changes
            (tmp_path / "preset.yaml").write_text(yaml.safe_dump(preset))
            folder = tmp_path / f"stage-{stage}"
            train_reward_model(tmp_path / "dataset", folder, preset=str(tmp_path / "preset.yaml"), base=str(base))
            histories.append(json.loads((folder / "training.json").read_text()))
            models.append(RewardModel.load(folder))
    losses = [[step["loss"] for step in history["steps"]] for history in histories]
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)
    groups = read_groups(tmp_path / "dataset", "test")[:4]
    plain, spread = (model.score(groups).mu for model in models)
    torch.testing.assert_close(spread, plain, atol=5e-3, rtol=0)
    assert models[1].settings.calibration.candidates == models[0].settings.calibration.candidates > 0
    first = RewardModel.from_base(base, SETTINGS).backbone
    for model in models:
        changed = {
            name
            for (name, one), other in zip(model.backbone.named_parameters(), first.parameters(), strict=True)
            if not torch.equal(one, other)
        }
        assert "language_model.embed_tokens.weight" not in changed
        assert len(changed) > 20


def test_a_judge_over_two_processes_gives_the_answers_of_one() -> None:
    """In a process of its own: DeepSpeed changes PyTorch's linear layer for good where weights are spread."""
    call = [sys.executable, "-c", "from tests.spread_judges import print_answers; print_answers()"]
    done = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["spread"] == found["alone"]
    assert all(found["alone"][0])
    assert found["refused"]
    assert "can do so once" in found["again"]
    assert not psutil.pid_exists(found["other"])

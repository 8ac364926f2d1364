"""Real trainings of given sizes, in a process of their own, and the most memory each took.

python -m tests.measured_training cases.json    # prints [{"megabytes", "weights"}], above what was there before it
"""

import gc
import json
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from editloop.datasets.preference_groups import PreferenceGroup
from editloop.models.edit_reward.model import RewardModel
from editloop.models.edit_reward.settings import RewardSettings
from editloop.models.lora import add_adapter
from editloop.studies.tiny_models.backbone import byte_tokenizer, tiny_config
from editloop.training.distributed import start_rank
from editloop.training.edit_reward.train import RewardTrainingTask
from editloop.training.loop import train
from editloop.training.peak_memory import peak_megabytes
from editloop.training.presets import Preset
from editloop.training.reward_job import TrainingJob

INSTRUCTION = "Make the sky red."
SIDE = 64


def reward_model(width: int, layers: int, vision_layers: int, rubric: int) -> RewardModel:
    """A Qwen2.5-VL of this size, order `official`, with two rubrics of `rubric` tokens and 64 x 64 pictures."""
    from transformers import Qwen2_5_VLModel

    tokenizer = byte_tokenizer()
    config = tiny_config(
        "qwen2.5-vl", tokenizer, width=width, layers=layers, heads=width // 32, vision_layers=vision_layers
    )
    text = "{instruction} " + "x" * (rubric - len(INSTRUCTION) - 1)
    settings = RewardSettings(
        order="official", rubrics=(text, text), opening="", min_pixels=SIDE**2, max_pixels=SIDE**2
    )
    return RewardModel(Qwen2_5_VLModel(config), tokenizer, settings)


class Drawn(Sequence[PreferenceGroup]):
    """Groups of noise, all of one size."""

    def __init__(self, count: int, candidates: int, side: int = SIDE):
        self.count, self.candidates, self.side = count, candidates, side

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: Any) -> Any:
        rng = np.random.default_rng(place)
        pictures = rng.integers(0, 256, (self.candidates + 1, self.side, self.side, 3), dtype=np.uint8)
        names = tuple(f"c{one}" for one in range(self.candidates))
        return PreferenceGroup(
            task_id=f"t{place}",
            task_type="add",
            instruction=INSTRUCTION,
            candidates=names,
            editors=names,
            source=pictures[0],
            target=None,
            edits=pictures[1:],
            ratings=np.arange(2 * self.candidates, dtype=np.float32).reshape(-1, 2) % 4 + 1,
            weights=np.ones((self.candidates, self.candidates, 2), np.float32),
        )


def run(case: dict[str, Any]) -> int:
    """Train once; returns the model's weights."""
    preset = Preset.model_validate(case["preset"])
    model = reward_model(**case["model"])
    if preset.training.adapter:
        add_adapter(model.backbone, preset.training.adapter)
    with tempfile.TemporaryDirectory() as place:
        job = TrainingJob(
            dataset=Path(),
            output=Path(),
            checkpoints=Path(),
            base="",
            preset=preset,
            training=preset.training,
            facts={},
        )
        drawn = Drawn(2 * preset.training.batch, preset.load.candidates)
        lesson = RewardTrainingTask(model, {"train": drawn, "validation": Drawn(1, preset.load.candidates)}, job)  # type: ignore[dict-item]
        train(lesson, preset.training, Path(place), facts={})
    return sum(one.numel() for one in model.parameters())


def main(cases: list[dict[str, Any]]) -> None:
    """Train the first case, so that libraries have taken their memory, then measure the others."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    start_rank()
    run(cases[0])
    found = []
    for case in cases[1:]:
        gc.collect()
        before = psutil.Process().memory_info().rss / 2**20
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
        weights = run(case)
        found.append({"megabytes": peak_megabytes() - before, "weights": weights})
    print("found", json.dumps(found))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))

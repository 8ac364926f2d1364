"""The plan of memory against trainings that are really run."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from editloop.training.memory_plan import estimate_memory, trained_weights
from editloop.training.presets import Preset

TOP = Path(__file__).parents[2]
SIDE = 64
FRUGAL = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "2"}
"""Has the allocator give freed memory back, so that the peak is what is held, not what once was."""


def case(width: int, layers: int, rubric: int, batch: int, candidates: int, **training: Any) -> dict[str, Any]:
    """A training in fp32 on one process, and the model for it."""
    language = {
        "layers": layers,
        "width": width,
        "inner": 3 * width,
        "heads": width // 32,
        "key_value_heads": width // 32,
        "head_width": 32,
        "vocabulary": 264,
        "tied": True,
        "attention_bias": True,
    }
    vision = {"layers": 2, "width": width, "inner": 2 * width, "gated": True, "patch": 4}
    told = {"steps": 2, "batch": batch, "learning_rate": 1e-4, "precision": "fp32", "evaluate_every": 2}
    preset = {
        "model": "edit-reward",
        "base": "",
        "settings": {"order": "official"},
        "training": told | training,
        "load": {"candidates": candidates, "pixels": SIDE**2, "text_tokens": rubric},
        "architecture": {"language": language, "vision": vision},
    }
    return {"preset": preset, "model": {"width": width, "layers": layers, "vision_layers": 2, "rubric": rubric}}


CASES = {
    "tiny": case(64, 2, 120, 2, 2),
    "mid": case(256, 3, 120, 2, 2),
    "checkpointing": case(256, 3, 120, 4, 2, gradient_checkpointing=True),
    "adapter": case(256, 3, 120, 2, 2, adapter={"rank": 8, "alpha": 16}),
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    path = tmp_path_factory.mktemp("measured") / "cases.json"
    path.write_text(json.dumps([case(64, 1, 60, 1, 2, steps=1), *CASES.values()]))
    done = subprocess.run(
        [sys.executable, "-m", "tests.measured_training", str(path)],
        cwd=TOP,
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | FRUGAL,
    )
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("found")).partition(" ")[2])
    return dict(zip(CASES, found, strict=True))


@pytest.mark.skipif(sys.platform != "linux", reason="a process forgets its peak through /proc")
@pytest.mark.parametrize("name", CASES)
def test_the_plan_is_within_a_fifth_of_what_a_training_takes(measured: dict[str, dict[str, float]], name: str) -> None:
    preset = Preset.model_validate(CASES[name]["preset"])
    assert trained_weights(preset, preset.training)[0] == measured[name]["weights"]
    planned = estimate_memory(preset, preset.training, 1, size=4, fused=False).total / 2**20
    print(f"{name}: planned {planned:.0f} MB, measured {measured[name]['megabytes']:.0f}")
    assert planned == pytest.approx(measured[name]["megabytes"], rel=0.2)

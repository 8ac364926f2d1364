"""Each kind of editor learns by RL and by supervised fine-tuning, from a folder that `from_pretrained` reads."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from editloop.data.edits_file import read_edits
from editloop.models.editors.opening import open_editor
from editloop.training.editor_rl.settings import RlJob, read_rl_preset
from editloop.training.editor_sft.settings import SftJob, SftSettings, read_sft_preset
from tests.forked_ranks import run_ranks
from tests.tiny_editors import write_tiny_editor

GRPO = {"name": "flow-grpo", "window_range": 3}
TRAININGS = {
    "kontext": {"algorithm": {"name": "nft"}, "guidance": 2.5, "area": 1024},
    "qwen-edit-plus": {"algorithm": GRPO, "guidance": 3.0, "precision": "bf16", "gradient_checkpointing": True},
    "klein-base": {"algorithm": GRPO, "guidance": None, "adapter": None, "learning_rate": 1e-4},
    "omnigen2": {"algorithm": GRPO, "guidance": 4.0},
    "step1x-v1p2": {"algorithm": GRPO, "guidance": 6.0, "adapter": None, "learning_rate": 1e-4},
}
"""How each is trained by RL: both algorithms, guidance embedded and by two passes, an adapter and the whole network, in
half of the bytes, with recomputed blocks, and on smaller pictures than it is evaluated on."""
MEMORY = {"encoders": "on-demand", "encodings_gb": 0.0}
"""What a GPU would be spared: parts are read when they are used, and nothing encoded stays in memory."""
SHAPES = [(32, 64), (64, 32), (32, 64), (32, 64), (64, 32), (64, 32), (32, 64), (64, 32)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    edits = _edits(root / "edits")
    jobs = []
    for kind, told in TRAININGS.items():
        editor = str(write_tiny_editor(kind, root / kind))
        small = {"evaluation_tasks": 2, "evaluate_every": 3, "precision": "fp32", "seed": 1}
        settings = read_rl_preset("smallest", **small | MEMORY | told)
        rl = RlJob(
            edits=edits,
            output=root / f"{kind}-rl",
            editor=editor,
            rewards={"oracle": 1.0},
            settings=settings,
            checkpoints=root / f"{kind}-rl-checkpoints",
        )
        sft = SftJob(
            edits=edits,
            output=root / f"{kind}-sft",
            editor=editor,
            checkpoints=root / f"{kind}-sft-checkpoints",
            settings=SftSettings.model_validate(read_sft_preset("smallest").model_dump() | MEMORY | {"area": 1024}),
            facts={},
        )
        jobs.append({"rl": rl.model_dump(mode="json"), "sft": sft.model_dump(mode="json")})
    (root / "jobs.json").write_text(json.dumps(jobs))
    run_ranks("tests.editor_trainings", [str(root / "jobs.json")], 1, root / "ranks.log")
    return root


@pytest.mark.parametrize("way", ["rl", "sft"])
@pytest.mark.parametrize("kind", TRAININGS)
def test_three_steps_change_the_editor_and_stay_finite(trained: Path, kind: str, way: str) -> None:
    steps = json.loads((trained / f"{kind}-{way}" / "training.json").read_text())["steps"]
    assert len(steps) == 3
    losses = [step["loss"] for step in steps if "loss" in step]  # none where all edits are worth the same
    assert losses
    assert np.isfinite(losses).all()
    before, after = open_editor(trained / kind), open_editor(trained / f"{kind}-{way}" / "editor")
    encodings = list((trained / f"{kind}-{way}-checkpoints").glob("encodings/*/*.safetensors"))
    shapes = {tuple(load_file(path)["source"].shape) for path in encodings}
    area = 1024 if way == "sft" else TRAININGS[kind].get("area")
    rows, columns = before.grid(before.size_for(32, 64, area))
    assert len(encodings) > 3
    assert {shape[1] for shape in shapes} == {rows * columns}
    assert after.settings == before.settings
    old, new = before.network.state_dict(), after.network.state_dict()
    assert old.keys() == new.keys()
    assert all(bool(weight.isfinite().all()) for weight in new.values())
    assert sum(not torch.equal(old[name], new[name]) for name in old) > len(old) / 6
    for name, weight in before.pipeline.vae.state_dict().items():
        read_as = torch.bfloat16 if way == "rl" and TRAININGS[kind].get("precision") == "bf16" else weight.dtype
        assert torch.equal(weight.to(read_as), after.pipeline.vae.state_dict()[name].to(read_as))


SPREAD = ("kontext", "qwen-edit-plus", "klein-base")


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trainings of all weights by two ranks, that have them whole or a part of each."""
    root = tmp_path_factory.mktemp("spread")
    edits, preset = _edits(root / "edits"), read_sft_preset("smallest").model_dump()
    jobs = []
    for kind in SPREAD:
        editor = str(write_tiny_editor(kind, root / kind))
        for stage in (0, 3):
            training = preset["training"] | {"adapter": None, "zero_stage": stage, "gradient_checkpointing": stage == 3}
            job = SftJob(
                edits=edits,
                output=root / f"{kind}-{stage}",
                editor=editor,
                checkpoints=root / f"{kind}-{stage}-checkpoints",
                settings=SftSettings.model_validate(preset | MEMORY | {"training": training}),
                facts={},
            )
            jobs.append({"sft": job.model_dump(mode="json")})
    (root / "jobs.json").write_text(json.dumps(jobs))
    run_ranks("tests.editor_trainings", [str(root / "jobs.json")], 2, root / "ranks.log")
    return root


@pytest.mark.parametrize("kind", SPREAD)
def test_weights_spread_over_ranks_are_trained_and_saved_as_whole_ones(spread: Path, kind: str) -> None:
    whole, parts = ({**load_file(_network(spread / f"{kind}-{stage}" / "editor"))} for stage in (0, 3))
    before = load_file(_network(spread / kind))
    assert before.keys() == whole.keys() == parts.keys()
    moved = {name for name, weight in before.items() if (whole[name] - weight).abs().max() > 1e-5}
    assert len(moved) > len(before) / 2
    for name, weight in whole.items():
        torch.testing.assert_close(parts[name], weight, atol=2e-5, rtol=1e-3)
    losses = [
        [step["loss"] for step in json.loads((spread / f"{kind}-{stage}" / "training.json").read_text())["steps"]]
        for stage in (0, 3)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def _network(editor: Path) -> Path:
    return editor / "transformer" / "diffusion_pytorch_model.safetensors"


def _edits(folder: Path) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = []
    for place, (height, width) in enumerate(SHAPES):
        for name in ("source", "target"):
            picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(picture).save(folder / f"{name}-{place}.png")
        line = {"id": f"row-{place}", "instruction": "make the circle red" + " and blue" * (place % 3)}
        lines.append(line | {"source": f"source-{place}.png", "target": f"target-{place}.png"})
    (folder / "edits.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert len(read_edits(folder)) == len(SHAPES)
    return folder

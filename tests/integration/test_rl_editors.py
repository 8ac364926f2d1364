"""Each kind of editor learns by RL, on target edits and on pairs, from a folder that `from_pretrained` reads."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from editloop.data.edits_file import read_edits
from editloop.models.editors.opening import open_editor
from editloop.training.editor_dpo.settings import DpoJob, DpoSettings, read_dpo_preset
from editloop.training.editor_rl.settings import RlJob, read_rl_preset
from editloop.training.editor_sft.settings import SftJob, SftSettings, read_sft_preset
from tests.forked_ranks import run_ranks
from tests.pair_datasets import write_pairs
from tests.tiny_editors import KINDS, write_tiny_editor

GRPO = {"name": "flow-grpo", "window_range": 3}
TRAININGS = {
    "kontext": {"algorithm": {"name": "nft"}, "guidance": 2.5, "area": 1024},
    "kontext-undistilled": {"algorithm": {"name": "nft"}, "guidance": 2.5},
    "qwen-edit-plus": {"algorithm": GRPO, "guidance": 3.0, "precision": "bf16", "gradient_checkpointing": True},
    "qwen-edit-2511": {"algorithm": {"name": "nft"}, "guidance": 3.0},
    "flux2-dev": {"algorithm": GRPO, "guidance": 2.5},
    "klein-base": {"algorithm": GRPO, "guidance": None, "adapter": None, "learning_rate": 1e-4},
    "klein-distilled": {"algorithm": {"name": "nft"}, "guidance": None},
    "omnigen2": {"algorithm": GRPO, "guidance": 4.0},
    "step1x-v1p0": {"algorithm": {"name": "nft"}, "guidance": 6.0},
    "step1x-v1p1": {"algorithm": GRPO, "guidance": 6.0},
    "step1x-v1p2": {"algorithm": GRPO, "guidance": 6.0, "adapter": None, "learning_rate": 1e-4},
}
"""How each is trained by RL: both algorithms, guidance embedded and by two passes, an adapter and the whole network, in
half of the bytes, with recomputed blocks, and on smaller pictures than it is evaluated on."""
MEMORY = {"encoders": "on-demand", "encodings_gb": 0.0}
"""What a GPU would be spared: parts are read when they are used, and nothing encoded stays in memory."""
TEXT_OF_THE_LAST_BLOCK = (
    "attn.add_q_proj",
    "attn.norm_added_q",
    "attn.to_add_out",
    "txt_mlp.net.0.proj",
    "txt_mlp.net.2",
)
UNREAD = {
    kind: {f"transformer_blocks.1.{layer}" for layer in TEXT_OF_THE_LAST_BLOCK}
    for kind in ("qwen-edit-plus", "qwen-edit-2511")
}
"""Layers, by kind, that only make the text after the last block, which nothing reads: no training changes them."""
SHAPES = [(32, 64), (64, 32), (32, 64), (32, 64), (64, 32), (64, 32), (32, 64), (64, 32)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    edits, pairs = _edits(root / "edits"), write_pairs(root / "pairs", tasks=len(SHAPES), shapes=SHAPES)
    jobs = []
    for kind, changes in TRAININGS.items():
        editor = str(write_tiny_editor(kind, root / kind))
        small = {
            "tasks": 2,
            "evaluation_tasks": 2,
            "evaluate_every": 3,
            "checkpoint_every": 3,
            "precision": "fp32",
            "seed": 1,
        }
        settings = read_rl_preset("smallest", **small | MEMORY | changes)
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
        dpo = DpoJob(
            dataset=pairs,
            output=root / f"{kind}-dpo",
            editor=editor,
            checkpoints=root / f"{kind}-dpo-checkpoints",
            settings=_dpo_settings(changes),
            facts={},
        )
        jobs.append({name: job.model_dump(mode="json") for name, job in (("rl", rl), ("sft", sft), ("dpo", dpo))})
    (root / "jobs.json").write_text(json.dumps(jobs))
    run_ranks("tests.editor_trainings", [str(root / "jobs.json")], 1, root / "ranks.log")
    return root


def test_every_kind_of_editor_is_trained() -> None:
    assert set(TRAININGS) == set(KINDS)


def _dpo_settings(changes: dict[str, Any]) -> DpoSettings:
    """As an editor is trained by RL, as far as both have the settings; its loss falls within three steps."""
    preset = read_dpo_preset("smallest").model_dump()
    names = ("adapter", "precision", "gradient_checkpointing")
    preset["training"] |= {name: changes[name] for name in names if name in changes}
    told = {"area": 1024, "guidance": changes["guidance"] or 1.0, "beta": 1.0, "sft_weight": 100.0}
    return DpoSettings.model_validate(preset | MEMORY | told)


@pytest.mark.parametrize("way", ["rl", "sft", "dpo"])
@pytest.mark.parametrize("kind", TRAININGS)
def test_three_steps_change_the_editor_and_stay_finite(trained: Path, kind: str, way: str) -> None:
    steps = json.loads((trained / f"{kind}-{way}" / "training.json").read_text())["steps"]
    assert len(steps) == 3
    assert all(np.isfinite(step["loss"]) for step in steps)
    before, after = open_editor(trained / kind), open_editor(trained / f"{kind}-{way}" / "editor")
    encodings = list((trained / f"{kind}-{way}-checkpoints").glob("encodings/*/*.safetensors"))
    shapes = {tuple(parts["source"].shape) for parts in map(load_file, encodings) if "source" in parts}
    area = TRAININGS[kind].get("area") if way == "rl" else 1024
    rows, columns = before.grid(before.size_for(32, 64, area))
    assert len(encodings) >= 3
    assert {shape[1] for shape in shapes} == {rows * columns}
    assert after.settings == before.settings
    old, new = before.network.state_dict(), after.network.state_dict()
    assert old.keys() == new.keys()
    assert all(bool(weight.isfinite().all()) for weight in new.values())
    read_as = torch.bfloat16 if way != "sft" and TRAININGS[kind].get("precision") == "bf16" else torch.float32
    changed = {name for name, weight in old.items() if not torch.equal(weight.to(read_as).float(), new[name])}
    is_whole = way != "sft" and TRAININGS[kind].get("adapter", {}) is None
    trained_weights = set(old) if is_whole else {f"{layer}.weight" for layer in before.adapter_layers()}
    assert changed == _read_by_the_velocity(kind, trained_weights)
    for name, weight in before.pipeline.vae.state_dict().items():
        assert torch.equal(weight.to(read_as).float(), after.pipeline.vae.state_dict()[name].float())


SEVERAL_SOURCES = ("qwen-edit-plus", "klein-distilled", "omnigen2")


@pytest.fixture(scope="module")
def several_sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trainings by RL and on target edits, on tasks of one, two and three sources of several sizes."""
    root = tmp_path_factory.mktemp("sources")
    edits = _edits(root / "edits", references=[(), ((48, 48),), ((64, 32), (32, 64))])
    jobs = []
    for kind in SEVERAL_SOURCES:
        editor = str(write_tiny_editor(kind, root / kind))
        changes = {"tasks": 3, "evaluation_tasks": 2, "evaluate_every": 3, "checkpoint_every": 3, "precision": "fp32"}
        settings = read_rl_preset("smallest", **changes | MEMORY | TRAININGS[kind], seed=1)
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
            settings=SftSettings.model_validate(read_sft_preset("smallest").model_dump() | MEMORY),
            facts={},
        )
        jobs.append({"rl": rl.model_dump(mode="json"), "sft": sft.model_dump(mode="json")})
    (root / "jobs.json").write_text(json.dumps(jobs))
    run_ranks("tests.editor_trainings", [str(root / "jobs.json")], 1, root / "ranks.log")
    return root


@pytest.mark.parametrize("way", ["rl", "sft"])
@pytest.mark.parametrize("kind", SEVERAL_SOURCES)
def test_an_editor_is_trained_on_tasks_of_several_sources(several_sources: Path, kind: str, way: str) -> None:
    steps = json.loads((several_sources / f"{kind}-{way}" / "training.json").read_text())["steps"]
    assert len(steps) == 3
    assert all(np.isfinite(step["loss"]) for step in steps)
    before = open_editor(several_sources / kind)
    after = open_editor(several_sources / f"{kind}-{way}" / "editor").network.state_dict()
    assert any(not torch.equal(weight, after[name]) for name, weight in before.network.state_dict().items())
    encodings = list((several_sources / f"{kind}-{way}-checkpoints").glob("encodings/*/*.safetensors"))
    lengths = {
        sum(rows * columns for rows, columns in (before.grid(before.size_for(*size)) for size in sizes))
        for sizes in ([(32, 64)], [(32, 64), (48, 48)], [(32, 64), (64, 32), (32, 64)])
    }
    found = {load_file(file)["source"].shape[1] for file in encodings}
    assert len(found) >= 2
    assert found <= lengths if way == "rl" else found == lengths


SPREAD = ("kontext", "qwen-edit-2511", "flux2-dev")


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
    complete, joined = (load_file(_network(spread / f"{kind}-{stage}" / "editor")) for stage in (0, 3))
    before = load_file(_network(spread / kind))
    assert before.keys() == complete.keys() == joined.keys()
    changed = {name for name, weight in before.items() if (complete[name] - weight).abs().max() > 1e-5}
    assert changed == _read_by_the_velocity(kind, before)
    for name, weight in complete.items():
        torch.testing.assert_close(joined[name], weight, atol=2e-6, rtol=0)
    losses = [
        [step["loss"] for step in json.loads((spread / f"{kind}-{stage}" / "training.json").read_text())["steps"]]
        for stage in (0, 3)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def _read_by_the_velocity(kind: str, weights: Iterable[str]) -> set[str]:
    return {name for name in weights if name.rpartition(".")[0] not in UNREAD.get(kind, ())}


def _network(editor: Path) -> Path:
    return editor / "transformer" / "diffusion_pytorch_model.safetensors"


def _edits(folder: Path, references: Sequence[Sequence[tuple[int, int]]] = ((),)) -> Path:
    """Write rows whose references have the sizes of `references` in turn."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines: list[dict[str, Any]] = []
    for index, (height, width) in enumerate(SHAPES):
        for name in ("source", "target"):
            picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(picture).save(folder / f"{name}-{index}.png")
        line = {"id": f"row-{index}", "instruction": 'make the circle "red"' + " and blue" * (index % 3)}
        lines.append(line | {"source": f"source-{index}.png", "target": f"target-{index}.png"})
        names = [f"reference-{index}-{place}.png" for place in range(len(references[index % len(references)]))]
        for name, size in zip(names, references[index % len(references)], strict=True):
            Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / name)
        if names:
            lines[-1]["references"] = names
    (folder / "edits.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert len(read_edits(folder)) == len(SHAPES)
    return folder

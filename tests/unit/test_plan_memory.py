"""The plan of memory: ZeRO's own figures, and advice that fits."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from editloop.training.editor_architecture import ARCHITECTURES, editor_architecture_names
from editloop.training.memory_plan import USABLE_SHARE, estimate_memory, suggest_changes, trained_weights
from editloop.training.presets import load_preset, reward_presets
from pipelines.cli import app

GIB = 2**30


def test_zeros_stages_spread_what_the_paper_says() -> None:
    """16 bytes a weight on one GPU; with N: 4 + 12/N, 2 + 14/N, 16/N (arXiv 1910.02054, figure 1)."""
    preset = load_preset("editreward-qwen2.5-vl-7b")
    weights, _ = trained_weights(preset, preset.training)
    for stage, expected in ((1, 4 + 12 / 64), (2, 2 + 14 / 64), (3, 16 / 64)):
        found = estimate_memory(preset, preset.training.model_copy(update={"zero_stage": stage}), 64)
        assert (found.weights + found.gradients + found.optimiser) / weights == pytest.approx(expected)


def test_frozen_embeddings_have_no_gradients_and_no_states() -> None:
    preset = load_preset("editreward-qwen2.5-vl-7b")
    frozen = preset.training.model_copy(update={"zero_stage": 2, "frozen_embeddings": True})
    whole, less = (
        estimate_memory(preset, training, 8)
        for training in (frozen.model_copy(update={"frozen_embeddings": False}), frozen)
    )
    embeddings = preset.architecture.language.vocabulary * preset.architecture.language.width
    assert less.weights == whole.weights
    assert whole.gradients - less.gradients == pytest.approx(2 * embeddings / 8)
    assert whole.optimiser - less.optimiser == pytest.approx(12 * embeddings / 8)


@pytest.mark.parametrize("gpus", [1, 2, 8])
@pytest.mark.parametrize("name", reward_presets())
@pytest.mark.parametrize("room", [6 * GIB, 16 * GIB, 40 * GIB])
def test_what_the_plan_advises_fits(name: str, gpus: int, room: int) -> None:
    preset = load_preset(name)
    if estimate_memory(preset, preset.training, gpus).total <= USABLE_SHARE * room:
        return
    advice = suggest_changes(preset, preset.training, gpus, room)
    if advice is None:
        assert "72b" in name or room < 40 * GIB
        return
    changes: dict[str, Any] = {key: value for one in advice for key, value in yaml.safe_load(one).items()}
    changed = preset.training.model_validate(preset.training.model_dump() | changes)
    assert estimate_memory(preset, changed, gpus).total <= USABLE_SHARE * room


def test_the_published_trainings_fit_on_what_they_were_published_with() -> None:
    runner = CliRunner()
    for name in reward_presets():
        found = runner.invoke(app, ["plan", name, "--gpus", "16" if "72b" in name else "8"])
        assert found.exit_code == 0, found.output
        assert "fits:" in found.output
    short = runner.invoke(app, ["plan", "editreward-qwen2.5-vl-7b", "--gpus", "1"])
    assert short.exit_code == 1
    assert "it would with offload: optimizer" in short.output


def test_an_editor_is_planned_and_told_what_to_change() -> None:
    runner = CliRunner()
    editing = runner.invoke(app, ["plan", "flux-kontext", "--gpus", "1"])
    assert editing.exit_code == 0, editing.output
    large = runner.invoke(app, ["plan", "flux-kontext", "--rl", "tiny", "--gpus", "1", "--side", "1024"])
    assert large.exit_code == 1
    assert "it would with gradient_checkpointing: true" in large.output
    assert "128 edits" in large.output
    assert "11.90 B" in large.output
    tuning = runner.invoke(app, ["plan", "flux2-klein-4b", "--sft", "published", "--side", "512"])
    assert tuning.exit_code == 0, tuning.output
    none = runner.invoke(app, ["plan", "flux-kontext", "--sft", "published", "--gpu-memory", "16"])
    assert "no setting is enough" in none.output
    both = runner.invoke(app, ["plan", "flux-kontext", "--sft", "published", "--rl", "edit-r1"])
    assert "they are two trainings" in str(both.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["flux-kontxt"], "no such file or name; there are .*Did you mean flux-kontext"),
        (["none.yaml", "--rl", "edit-r1"], "no such file or name"),
        (["flux-kontext", "--units", "9"], "--units 9: flux-kontext is an editor"),
        (["editreward-tiny", "--side", "512"], "--side 512: editreward-tiny is a reward model"),
        (["editreward-tiny", "--rl", "edit-r1"], "--rl edit-r1: editreward-tiny is a reward model"),
    ],
)
def test_what_does_not_belong_to_a_model_is_refused(arguments: list[str], message: str) -> None:
    refused = CliRunner().invoke(app, ["plan", *arguments])
    assert re.search(message, str(refused.exception))


def test_an_editors_own_shape_is_planned_with_and_without_a_training(tmp_path: Path) -> None:
    shape = tmp_path / "ours.yaml"
    shape.write_text((ARCHITECTURES / "flux-kontext.yaml").read_text())
    for training in ([], ["--rl", "tiny", "--side", "256"]):
        planned = CliRunner().invoke(app, ["plan", str(shape), *training])
        assert "11.90 B" in planned.output


def test_everything_that_ships_says_where_it_fits_on_a_narrow_terminal() -> None:
    listed = CliRunner().invoke(app, ["plan"], env={"COLUMNS": "80"})
    assert listed.exit_code == 0, listed.output
    assert "…" not in listed.output
    for name in (*reward_presets(), *editor_architecture_names()):
        assert name in listed.output

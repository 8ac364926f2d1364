"""The plan of work, against counts by hand."""

import re

import pytest
from typer.testing import CliRunner

from editloop.training.editor_activations import edit_tokens
from editloop.training.editor_architecture import read_editor_architecture
from editloop.training.editor_plan import plan_editing, plan_training, rl_training
from editloop.training.editor_rl.settings import read_rl_preset
from editloop.training.memory_plan import pass_tokens, trained_weights
from editloop.training.presets import load_preset
from editloop.training.work_plan import rl_work, training_work
from pipelines.cli import app


def test_the_steps_of_a_million_rows() -> None:
    preset = load_preset("editscore-qwen2.5-vl-72b")
    plan = training_work(preset, preset.training, 16, 1_000_000)
    assert plan.steps == 3 * 1_000_000 / 64
    _, trained = trained_weights(preset, preset.training)
    assert plan.checkpoint == 14 * trained


def test_an_adapter_saves_the_gradients_of_the_weights_and_checkpointing_costs_a_pass() -> None:
    preset = load_preset("editscore-qwen2.5-vl-7b")
    plain = preset.training.model_copy(update={"gradient_checkpointing": False})
    repeated = preset.training.model_copy(update={"gradient_checkpointing": True})
    vision = preset.architecture.vision.weights(preset.architecture.language.width)
    weights, _ = trained_weights(preset, plain)
    tokens = pass_tokens(preset, 1)
    rows = training_work(preset, plain, 1, 6400).steps * plain.batch
    forward = 2.0 * tokens.language * (weights - vision) * rows
    tower = 2.0 * tokens.patches * vision * rows
    assert training_work(preset, plain, 1, 6400).operations == pytest.approx(2 * forward + tower)
    assert training_work(preset, repeated, 1, 6400).operations == pytest.approx(3 * forward + tower)


def test_traffic_follows_the_zero_stage() -> None:
    preset = load_preset("editreward-qwen2.5-vl-7b")
    weights, trained = trained_weights(preset, preset.training)
    _, passes = preset.training.accumulation(8, preset.training.batch)
    by_stage = {
        stage: training_work(preset, preset.training.model_copy(update={"zero_stage": stage}), 8, 1000).traffic
        for stage in (2, 3)
    }
    assert by_stage[2] == pytest.approx(7 / 8 * 2 * 2 * trained)
    assert by_stage[3] == pytest.approx(7 / 8 * (2 * 2 * weights * passes + 2 * trained))
    alone = training_work(preset, preset.training, 1, 1000)
    assert alone.traffic == 0


def test_an_iteration_of_online_rl() -> None:
    one_pass = read_editor_architecture("flux-kontext").model_copy(update={"weights": 10**9, "text_tokens": 488})
    assert edit_tokens(one_pass, 256**2).every == 1000
    nft = rl_work(read_rl_preset("edit-r1"), one_pass, 256**2)  # 288 edits, 6 steps, 5 levels; old policy, base
    assert nft == (288, 288 * 6 * 2e12, 288 * 5 * 4 * 2e12)
    two_passes = one_pass.model_copy(update={"passes": 2})
    grpo = rl_work(read_rl_preset("editscore-omnigen2"), two_passes, 256**2)  # each pass twice; the base compared
    assert grpo == (576, 576 * 20 * 2 * 2e12, 576 * 12 * 3 * 2 * 2e12)


def test_references_add_tokens_and_memory_of_their_own() -> None:
    shape, pixels = read_editor_architecture("flux2-dev"), 1024**2
    plain, more = edit_tokens(shape, pixels), edit_tokens(shape, pixels, references=2)
    assert more.image - plain.image == 2 * shape.image_tokens(pixels)
    assert more.text == plain.text
    without, two = (plan_editing(shape, pixels, 1, references=count) for count in (0, 2))
    assert two.sample > without.sample
    assert two.edits - without.edits == 2 * 2 * shape.image_tokens(pixels) * shape.latent
    settings = read_rl_preset("edit-r1")
    trained = [plan_training(shape, rl_training(settings, 8)._replace(references=count), 8, pixels) for count in (0, 2)]
    assert trained[1].update > trained[0].update
    assert trained[1].edits > trained[0].edits
    ratio = rl_work(settings, shape, pixels, 2).updates / rl_work(settings, shape, pixels).updates
    assert ratio == pytest.approx(more.every / plain.every)


def test_a_plan_counts_the_references_that_it_is_told() -> None:
    runner = CliRunner()
    for name in ("editreward-qwen2.5-vl-7b", "editscore-qwen3-vl-4b"):
        tokens = []
        for count in ("0", "3"):
            told = runner.invoke(app, ["plan", name, "--references", count])
            assert told.exit_code == 0, told.output
            tokens.append(int(re.search(r"of (\d+)", told.output.replace("\n", " ").partition("activations")[2])[1]))  # type: ignore[index]
        assert tokens[1] > tokens[0] + 100
    refused = runner.invoke(app, ["plan", "editreward-tiny", "--references", "1"])
    assert "--references 1: a model of `paired` pictures" in str(refused.exception)
    editing = runner.invoke(app, ["plan", "flux2-klein-4b", "--references", "2"])
    assert editing.exit_code == 0, editing.output

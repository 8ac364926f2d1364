"""Presets: all load, their settings are their models', and their architectures are the real classes' to the weight."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel, Qwen3VLConfig, Qwen3VLModel

from editloop.errors import EditLoopError
from editloop.models.edit_reward.settings import RewardSettings
from editloop.models.edit_score.settings import EditScoreSettings
from editloop.training.architecture import Architecture
from editloop.training.edit_reward import train
from editloop.training.edit_reward.losses import LOSSES
from editloop.training.presets import Preset, choose_base, load_preset, reward_presets
from editloop.training.reward_job import TrainingJob

PUBLISHED = {
    "editreward-qwen2.5-vl-7b": 8.29,
    "editreward-mimo-vl-7b": 8.31,
    "editreward-qwen3-vl-8b": 8.77,
    "editscore-qwen3-vl-4b": 4.44,
    "editscore-qwen3-vl-8b": 8.77,
    "editscore-qwen2.5-vl-7b": 8.29,
    "editscore-qwen2.5-vl-32b": 33.45,
    "editscore-qwen2.5-vl-72b": 73.41,
}
"""Billions of parameters of the bases, output over the vocabulary included."""


def real(shape: Architecture) -> torch.nn.Module:
    """The Hugging Face model of this shape, without memory for its weights."""
    text, seen = shape.language, shape.vision
    language = {
        "vocab_size": text.vocabulary,
        "hidden_size": text.width,
        "intermediate_size": text.inner,
        "num_hidden_layers": text.layers,
        "num_attention_heads": text.heads,
        "num_key_value_heads": text.key_value_heads,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    vision = {
        "depth": seen.layers,
        "hidden_size": seen.width,
        "intermediate_size": seen.inner,
        "out_hidden_size": text.width,
        "patch_size": seen.patch,
        "num_heads": 1,
    }
    with torch.device("meta"):
        if seen.gated:
            return Qwen2_5_VLModel(Qwen2_5_VLConfig(text_config=language, vision_config=vision))
        vision |= {"num_position_embeddings": seen.positions, "deepstack_visual_indexes": list(range(seen.deepstack))}
        language["head_dim"] = text.head_width
        return Qwen3VLModel(Qwen3VLConfig(text_config=language, vision_config=vision))


@pytest.mark.parametrize("name", reward_presets())
def test_a_preset_loads_and_its_shape_is_the_real_models(name: str) -> None:
    preset = load_preset(name)
    assert Preset.model_validate(preset.model_dump()) == preset
    if preset.model == "edit-score":
        EditScoreSettings(**preset.settings)
    elif not preset.ships:
        assert RewardSettings(**preset.settings).order == "official"
    assert preset.loss in LOSSES
    shape = preset.architecture
    assert sum(one.numel() for one in real(shape).parameters()) == shape.weights
    if name in PUBLISHED:
        assert (shape.weights + shape.output_weights) / 1e9 == pytest.approx(PUBLISHED[name], abs=0.006)


def test_every_published_backbone_has_a_preset() -> None:
    assert set(PUBLISHED) | {"editreward-tiny", "editscore-tiny"} == set(reward_presets())


def test_a_base_that_does_not_ship_must_be_given() -> None:
    preset = load_preset("editreward-qwen2.5-vl-7b")
    with pytest.raises(EditLoopError, match="Give your local folder"):
        choose_base(preset, "")
    assert choose_base(preset, "/models/qwen") == "/models/qwen"
    assert choose_base(load_preset("editreward-tiny"), "") == "tiny-reward"


def test_a_stages_own_words_take_the_presets_place() -> None:
    training = load_preset("editreward-tiny").changed(epochs=2, learning_rate=0.5, seed=3)
    assert (training.epochs, training.learning_rate, training.seed, training.batch) == (2, 0.5, 3, 8)
    assert load_preset("editreward-tiny").changed().epochs == 8


def test_a_wrong_name_or_file_is_an_error_with_the_names(tmp_path: Path) -> None:
    with pytest.raises(EditLoopError, match="there are editreward-mimo-vl-7b"):
        load_preset("editreward")
    (tmp_path / "mine.yaml").write_text("model: edit-reward\nepochs: 3\n")
    with pytest.raises(EditLoopError, match=r"(?s)mine\.yaml.*epochs"):
        load_preset(str(tmp_path / "mine.yaml"))
    whole = load_preset("editscore-tiny").model_dump() | {"loss": "bradley-terry"}
    with pytest.raises(ValidationError, match="only EditReward"):
        Preset.model_validate(whole)


def test_a_misspelt_loss_is_told_before_anything_is_opened():
    preset = load_preset("editreward-tiny").model_copy(update={"loss": "expected-lag"})
    job = TrainingJob.model_construct(preset=preset, base="no-such-model")
    with pytest.raises(EditLoopError, match=r"loss: expected-lag: no such loss; .* Did you mean expected-log\?"):
        train.main(job)

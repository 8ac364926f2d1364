"""A bare backbone in Hugging Face's layout becomes a reward model."""

import json

import numpy as np
import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen3VLForConditionalGeneration

from editloop.errors import EditLoopError
from editloop.models.edit_reward.model import RewardModel
from editloop.models.edit_reward.settings import RewardSettings
from editloop.models.judge_protocol import EditGroup
from editloop.studies.tiny_models.backbone import byte_tokenizer, tiny_config

pytestmark = pytest.mark.floats

CLASSES = {"qwen2.5-vl": Qwen2_5_VLForConditionalGeneration, "qwen3-vl": Qwen3VLForConditionalGeneration}
RUBRICS = ("told: {instruction}; done?", "told: {instruction}; and is it clean?")
SETTINGS = RewardSettings(rubrics=RUBRICS, min_pixels=1024, max_pixels=1024)
TOKENIZER = byte_tokenizer()


@pytest.fixture(scope="module")
def group():
    rng = np.random.default_rng(1)
    source, *edits = (rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((32, 32), (32, 32), (20, 60)))
    return EditGroup("make the roof red", source, edits)


@pytest.mark.parametrize("family", list(CLASSES))
@pytest.mark.parametrize("room", [0, 40])
def test_a_bare_backbone_gets_the_token_and_fresh_heads(family, room, group, tmp_path):
    """`room`: rows that the embedding has beyond the tokenizer's words, as Qwen's has."""
    bare = byte_tokenizer()
    bare._tokenizer.add_special_tokens([])
    words = json.loads(bare._tokenizer.to_str())
    reward = words["model"]["vocab"].pop("<|Reward|>")
    words["model"]["vocab"] = {word: place - (place > reward) for word, place in words["model"]["vocab"].items()}
    words["added_tokens"] = [
        one | {"id": one["id"] - (one["id"] > reward)}
        for one in words["added_tokens"]
        if one["content"] != "<|Reward|>"
    ]
    config = tiny_config(family, TOKENIZER)
    config.text_config.vocab_size = len(words["model"]["vocab"]) + room
    torch.manual_seed(0)
    CLASSES[family](config).save_pretrained(tmp_path / "bare")
    TOKENIZER.save_pretrained(tmp_path / "bare")
    (tmp_path / "bare" / "tokenizer.json").write_text(json.dumps(words))
    told = json.loads((tmp_path / "bare" / "tokenizer_config.json").read_text())
    for key in ("additional_special_tokens", "extra_special_tokens"):
        if key in told:
            told[key] = [one for one in told[key] if one != "<|Reward|>"]
    (tmp_path / "bare" / "tokenizer_config.json").write_text(json.dumps(told))
    (tmp_path / "bare" / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1] * 3, "image_std": [0.2] * 3})
    )

    with pytest.raises(EditLoopError, match="editloop judge add editreward"):
        RewardModel.load(tmp_path / "bare")
    made = RewardModel.from_base(tmp_path / "bare", SETTINGS).eval()
    assert made.settings.image_mean == (0.1, 0.1, 0.1)
    new = made.inputs.reward
    embedding = made.backbone.get_input_embeddings().weight
    assert new == len(words["model"]["vocab"])
    torch.testing.assert_close(embedding[new], embedding[:new].mean(dim=0))
    assert set(bare.all_special_ids) - {reward} <= {one + (one >= reward) for one in made.tokenizer.all_special_ids}
    made.save(tmp_path / "ours", {})
    assert torch.equal(RewardModel.load(tmp_path / "ours").score([group]).mu, made.score([group]).mu)


def test_nothing_there(tmp_path):
    with pytest.raises(EditLoopError, match="Give `tiny-reward` or a model's folder"):
        RewardModel.load(tmp_path)

"""Checkpoints in the released layout: scores are those of the plain Hugging Face model, and faults are told."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil, Qwen3VLForConditionalGeneration

from editloop.errors import EditLoopError
from editloop.models.backbones.checkpoints import FAMILIES
from editloop.models.edit_reward.checkpoints import is_released
from editloop.models.edit_reward.judge import RewardJudge
from editloop.models.edit_reward.model import RewardModel, reward_head
from editloop.models.edit_reward.settings import RewardSettings
from editloop.models.judge_protocol import EditGroup
from editloop.studies.tiny_models.backbone import byte_tokenizer, tiny_config

pytestmark = pytest.mark.floats

CLASSES = {"qwen2.5-vl": Qwen2_5_VLForConditionalGeneration, "qwen3-vl": Qwen3VLForConditionalGeneration}
RUBRICS = ("told: {instruction}; done?", "told: {instruction}; and is it clean?")
SETTINGS = RewardSettings(rubrics=RUBRICS, min_pixels=1024, max_pixels=1024)
TOKENIZER = byte_tokenizer()
PAD = TOKENIZER.convert_tokens_to_ids("<|image_pad|>")


def older_names(state):
    """Qwen's keys before its language model had a name of its own."""
    return {
        name.replace("model.language_model.", "model.").replace("model.visual.", "visual."): value
        for name, value in state.items()
    }


def write(folder, family, *, older=False, shards=1, output_layer=True, settings=SETTINGS):
    """A released checkpoint with random weights; returns the generator and the heads that it holds."""
    torch.set_num_threads(1)
    torch.manual_seed(3)
    model = CLASSES[family](tiny_config(family, TOKENIZER)).eval()
    heads = torch.nn.ModuleDict({f"head_{i}": reward_head(64) for i in range(2)}).eval()
    state = {
        name: value.contiguous() for name, value in model.state_dict().items() if output_layer or "lm_head" not in name
    }
    if "lm_head.weight" in state:
        state["lm_head.weight"] = state["lm_head.weight"].clone()
    state = older_names(state) if older else state
    state |= heads.state_dict(prefix="rm_heads.")
    folder.mkdir(parents=True)
    names = sorted(state)
    if shards == 1:
        save_file(state, folder / "model.safetensors")
    else:
        files = {f"model-{k + 1:05}-of-{shards:05}.safetensors": names[k::shards] for k in range(shards)}
        for name, keys in files.items():
            save_file({key: state[key] for key in keys}, folder / name)
        index = {"metadata": {}, "weight_map": {key: name for name, keys in files.items() for key in keys}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    model.config.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    if settings:
        (folder / "reward.json").write_text(settings.model_dump_json())
    return model, heads


@pytest.fixture(scope="module")
def group():
    rng = np.random.default_rng(1)
    source, *edits = (rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((32, 32), (32, 32), (20, 60)))
    return EditGroup("make the roof red", source, edits)


def plain_scores(model, heads, group):
    """(K, 2) mu and log sigma of one pass a candidate and axis, in the official order."""
    processor = Qwen2VLImageProcessorPil(
        patch_size=4,
        merge_size=2,
        temporal_patch_size=2,
        size={"shortest_edge": 1024, "longest_edge": 1024},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    found = []
    for edit in group.edits:
        seen = processor([group.source, edit], return_tensors="pt")
        pads = ["<|image_pad|>" * (int(grid.prod()) // 4) for grid in seen.image_grid_thw]
        pictures = "".join(f"<|vision_start|>{one}<|vision_end|>" for one in pads)
        for axis, rubric in enumerate(RUBRICS):
            text = f"<|im_start|>user\n{pictures}{rubric.replace('{instruction}', group.instruction)}<|Reward|>"
            ids = TOKENIZER(text, return_tensors="pt").input_ids
            hidden = model.model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=seen.pixel_values,
                image_grid_thw=seen.image_grid_thw,
                mm_token_type_ids=(ids == PAD).int(),
            ).last_hidden_state
            found.append(heads[f"head_{axis}"](hidden[0, -1]))
    return torch.stack(found).view(len(group.edits), 2, 2)


@pytest.mark.parametrize("family", list(CLASSES))
@pytest.mark.parametrize(("older", "shards", "output_layer"), [(False, 1, True), (True, 3, True), (False, 2, False)])
def test_scores_are_those_of_separate_passes_of_the_plain_model(family, older, shards, output_layer, group, tmp_path):
    model, heads = write(tmp_path / "released", family, older=older, shards=shards, output_layer=output_layer)
    loaded = RewardModel.load(tmp_path / "released")
    assert is_released(tmp_path / "released")
    with torch.no_grad():
        expected = plain_scores(model, heads, group)
    scores = loaded.score([group])
    torch.testing.assert_close(scores.mu, expected[..., 0], atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(scores.log_sigma, expected[..., 1], atol=2e-5, rtol=2e-5)
    judge = RewardJudge.load(tmp_path / "released", device="cpu")
    assert [one.axes["if"].mean for one in judge.judge([group])[0]] == pytest.approx(scores.mu[:, 0].tolist())


@pytest.mark.parametrize("family", list(CLASSES))
def test_a_released_checkpoint_saved_as_ours_scores_the_same(family, group, tmp_path):
    write(tmp_path / "released", family, older=True)
    loaded = RewardModel.load(tmp_path / "released")
    loaded.save(tmp_path / "ours", {})
    assert torch.equal(RewardModel.load(tmp_path / "ours").score([group]).mu, loaded.score([group]).mu)


def test_without_settings_of_its_own_a_checkpoint_has_the_published_ones(tmp_path):
    write(tmp_path / "released", "qwen2.5-vl", settings=None)
    found = RewardModel.load(tmp_path / "released").settings
    assert (found.order, found.min_pixels, found.max_pixels) == ("official", 448 * 448, 448 * 448)
    assert found.image_mean == FAMILIES["qwen2_5_vl"].image_mean


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

    with pytest.raises(EditLoopError, match="a bare backbone scores nothing"):
        RewardModel.load(tmp_path / "bare")
    assert not is_released(tmp_path / "bare")
    made = RewardModel.from_base(tmp_path / "bare", SETTINGS).eval()
    assert made.settings.image_mean == (0.1, 0.1, 0.1)
    new = made.inputs.reward
    embedding = made.backbone.get_input_embeddings().weight
    assert new == len(words["model"]["vocab"])
    torch.testing.assert_close(embedding[new], embedding[:new].mean(dim=0))
    assert set(bare.all_special_ids) - {reward} <= {one + (one >= reward) for one in made.tokenizer.all_special_ids}
    made.save(tmp_path / "ours", {})
    assert torch.equal(RewardModel.load(tmp_path / "ours").score([group]).mu, made.score([group]).mu)


class TestFaults:
    @pytest.fixture
    def released(self, tmp_path):
        write(tmp_path / "released", "qwen2.5-vl")
        return tmp_path / "released"

    def change(self, folder, **tensors):
        state = load_file(folder / "model.safetensors")
        for name, value in tensors.items():
            state.pop(name, None)
            if value is not None:
                state[name] = value
        save_file(state, folder / "model.safetensors")

    @pytest.mark.parametrize(
        ("key", "value", "told"),
        [
            ("model.language_model.norm.weight", None, r"missing language_model\.norm\.weight"),
            ("model.visual.merger.mlp.0.bias", None, r"missing visual\.merger"),
            ("rm_heads.head_1.5.bias", None, r"missing rm_heads\.head_1\.5\.bias"),
            ("model.language_model.extra.weight", torch.zeros(2), r"surplus language_model\.extra\.weight"),
            ("other.weight", torch.zeros(2), r"surplus other\.weight"),
            ("rm_heads.head_2.0.bias", torch.zeros(2), r"surplus rm_heads\.head_2"),
            (
                "rm_heads.head_0.0.weight",
                torch.zeros(1024, 63),
                r"of wrong shape rm_heads\.head_0\.0\.weight \(1024, 63\)",
            ),
            ("model.language_model.norm.weight", torch.zeros(63), r"of wrong shape language_model\.norm"),
        ],
    )
    def test_keys(self, released, key, value, told):
        self.change(released, **{key: value})
        with pytest.raises(EditLoopError, match=told):
            RewardModel.load(released)

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth"])
    def test_a_pickle_is_not_opened(self, released, name, tmp_path):
        class Bomb:
            def __reduce__(self):
                return (tmp_path.joinpath("exploded").touch, ())

        (released / name).write_bytes(pickle.dumps(Bomb()))
        assert RewardModel.load(released)
        (released / "model.safetensors").unlink()
        with pytest.raises(EditLoopError, match=f"pickled ones \\({name}"):
            RewardModel.load(released)
        assert not (tmp_path / "exploded").exists()

    def test_a_tokenizer_without_the_token(self, released):
        path = released / "tokenizer.json"
        words = json.loads(path.read_text())
        words["added_tokens"] = [one for one in words["added_tokens"] if one["content"] != "<|Reward|>"]
        path.write_text(json.dumps(words))
        told = json.loads((released / "tokenizer_config.json").read_text())
        for key in ("additional_special_tokens", "extra_special_tokens"):
            if key in told:
                told[key] = [one for one in told[key] if one != "<|Reward|>"]
        (released / "tokenizer_config.json").write_text(json.dumps(told))
        with pytest.raises(EditLoopError, match=r"no special token <\|Reward\|>"):
            RewardModel.load(released)

    def test_a_tokenizer_with_more_words_than_the_embedding(self, released):
        more = byte_tokenizer()
        words = json.loads(more._tokenizer.to_str())
        last = len(words["model"]["vocab"])
        words["model"]["vocab"]["<|Reward|>"] = last
        for one in words["added_tokens"]:
            one["id"] = last if one["content"] == "<|Reward|>" else one["id"]
        (released / "tokenizer.json").write_text(json.dumps(words))
        with pytest.raises(EditLoopError, match="tokenizer is another model's"):
            RewardModel.load(released)

    def test_a_broken_file(self, released):
        data = (released / "model.safetensors").read_bytes()
        (released / "model.safetensors").write_bytes(data[: len(data) // 2])
        for read in (RewardModel.load, is_released):
            with pytest.raises(EditLoopError, match="not a readable safetensors file"):
                read(released)

    def test_shards_that_disagree_with_their_index(self, tmp_path):
        write(tmp_path / "sharded", "qwen2.5-vl", shards=2)
        path = tmp_path / "sharded" / "model.safetensors.index.json"
        index = json.loads(path.read_text())
        first, second = sorted(set(index["weight_map"].values()))
        key = next(name for name, file in index["weight_map"].items() if file == first)
        path.write_text(json.dumps({"weight_map": index["weight_map"] | {key: second}}))
        with pytest.raises(EditLoopError, match="disagree"):
            RewardModel.load(tmp_path / "sharded")
        path.write_text(json.dumps({"weight_map": index["weight_map"] | {"model.more": first}}))
        with pytest.raises(EditLoopError, match=r"names model\.more"):
            RewardModel.load(tmp_path / "sharded")
        path.write_text(json.dumps(index))
        (tmp_path / "sharded" / second).unlink()
        with pytest.raises(EditLoopError, match=second):
            RewardModel.load(tmp_path / "sharded")
        path.write_text(json.dumps({"weight_map": index["weight_map"] | {key: "../elsewhere.safetensors"}}))
        with pytest.raises(EditLoopError, match="a file of that folder"):
            RewardModel.load(tmp_path / "sharded")

    def test_another_architecture(self, released):
        (released / "config.json").write_text(json.dumps({"model_type": "llama"}))
        with pytest.raises(EditLoopError, match="model_type 'llama'"):
            RewardModel.load(released)

    def test_code_of_its_own_is_not_run(self, released, tmp_path):
        config = json.loads((released / "config.json").read_text())
        config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}
        (released / "config.json").write_text(json.dumps(config))
        (released / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\n")
        with pytest.raises(EditLoopError, match="cannot be read"):
            RewardModel.load(released)
        assert not (tmp_path / "ran").exists()

    def test_nothing_there(self, tmp_path):
        with pytest.raises(EditLoopError, match="Give `tiny-reward` or a model folder"):
            RewardModel.load(tmp_path)

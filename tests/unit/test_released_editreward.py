"""A release of EditReward and its base become a judge's folder, whole and checked, or nothing is written."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from editloop.errors import EditLoopError
from editloop.models.edit_reward.model import RewardModel
from editloop.models.edit_reward.released import add_editreward
from editloop.models.edit_score.checkpoints import open_base
from tests.editreward_releases import FAMILIES, add_release, release_folder

EMBEDDING = "model.language_model.embed_tokens.weight"


class Release:
    """A copy of a fixture's release and base, to be changed."""

    def __init__(self, family: str, folder: Path):
        self.weights, self.base, self.out = folder / "release", folder / "base", folder / "judge"
        for name in ("release", "base"):
            shutil.copytree(release_folder(family) / name, folder / name)
        self.file = self.weights / "model.safetensors"

    def tensors(self):
        return load_file(self.file)

    def write(self, tensors, shards=1):
        if shards == 1:
            save_file(tensors, self.file)
            return
        self.file.unlink()
        names = [f"model-{k + 1:05}-of-{shards:05}.safetensors" for k in range(shards)]
        keys = {name: sorted(tensors)[k::shards] for k, name in enumerate(names)}
        for name in names:
            save_file({key: tensors[key] for key in keys[name]}, self.weights / name)
        self.write_index({key: name for name in names for key in keys[name]})

    def write_index(self, weight_map):
        (self.weights / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    def change_json(self, name, **values):
        path = self.base / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    def add(self, **options):
        return add_editreward(self.weights, self.base, self.out, **options)

    def assert_refused(self, match):
        with pytest.raises(EditLoopError, match=match) as refusal:
            self.add()
        assert "\n" not in str(refusal.value)
        assert not self.out.exists()


@pytest.fixture
def release(tmp_path):
    return Release("qwen2.5-vl", tmp_path)


def stored(folder):
    """The backbone's tensors as a judge's folder stores them."""
    return {
        key: value for path in (folder / "backbone").glob("*.safetensors") for key, value in load_file(path).items()
    }


@pytest.fixture(scope="module")
def added(tmp_path_factory):
    return {family: add_release(family, tmp_path_factory.mktemp("added") / family) for family in FAMILIES}


def older(tensors):
    return {
        key.replace("model.language_model.", "model.").replace("model.visual.", "visual."): value
        for key, value in tensors.items()
    }


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", ["older names", "sharded", "no output layer", "padded embedding", "one file"])
def test_every_form_of_a_release_gives_the_same_weights(family, case, added, tmp_path):
    release = Release(family, tmp_path)
    tensors = release.tensors()
    if case == "older names":
        tensors = older(tensors)
    if case == "no output layer":
        del tensors["lm_head.weight"]
    if case == "padded embedding":
        tensors[EMBEDDING] = torch.cat([tensors[EMBEDDING], torch.ones(16, 48, dtype=torch.bfloat16)])
    release.write(tensors, shards=3 if case == "sharded" else 1)
    weights = release.file if case == "one file" else release.weights
    add_editreward(weights, release.base, release.out)
    expected, written = stored(added[family]), stored(release.out)
    assert written.keys() == expected.keys()
    for key, value in expected.items():
        assert value.dtype == written[key].dtype == torch.bfloat16
        assert torch.equal(value, written[key]), key
    assert RewardModel.load(release.out)


def test_large_weights_are_written_in_files_of_limited_size(release, added):
    limit = 60_000
    release.add(shard_bytes=limit)
    files = sorted((release.out / "backbone").glob("*.safetensors"))
    assert len(files) > 2
    for path in files:
        with safe_open(path, framework="pt") as file:
            sizes = [file.get_tensor(key).nbytes for key in file.keys()]  # noqa: SIM118
        assert sum(sizes) <= limit or len(sizes) == 1
    whole, sharded = (RewardModel.load(folder).state_dict() for folder in (added["qwen2.5-vl"], release.out))
    assert all(torch.equal(value, sharded[key]) for key, value in whole.items())


def test_the_vocabulary_is_the_tokenizers_with_the_token(added):
    model = RewardModel.load(added["qwen2.5-vl"])
    assert model.backbone.get_input_embeddings().num_embeddings == len(model.tokenizer) == 264
    assert model.inputs.reward == 263


@pytest.mark.parametrize(
    ("family", "positions", "pixels", "opening"),
    [
        ("qwen2.5-vl", "flat", (448 * 448, 448 * 448), "<|im_start|>system\nYou judge edited pictures.<|im_end|>\n"),
        ("qwen3-vl", "mrope", (65_536, 16_777_216), ""),
    ],
)
def test_a_family_has_the_settings_of_its_release(family, positions, pixels, opening, tmp_path):
    settings = Release(family, tmp_path).add()
    assert settings.positions == positions
    assert (settings.min_pixels, settings.max_pixels) == pixels
    assert settings.opening == opening + "<|im_start|>user\n"


def test_weights_without_their_wording_are_marked(release, caplog, added):
    settings = release.add()
    assert settings.wording == "substitute"
    assert "no wording given" in caplog.records[0].message
    caplog.clear()
    RewardModel.load(release.out)
    assert "not the published ones" in caplog.records[0].message.replace("\n", " ")
    caplog.clear()
    assert RewardModel.load(added["qwen2.5-vl"]).settings.wording == "trained"
    assert not caplog.records


def test_a_processor_that_transformers_5_saved_is_read(tmp_path):
    release = Release("qwen3-vl", tmp_path)
    values = json.loads((release.base / "preprocessor_config.json").read_text())
    (release.base / "preprocessor_config.json").unlink()
    release.assert_refused("no file of its image processor")
    del values["min_pixels"], values["max_pixels"]
    values |= {"image_std": [0.25] * 3, "size": {"shortest_edge": 4096, "longest_edge": 8192}}
    (release.base / "processor_config.json").write_text(json.dumps({"image_processor": values}))
    settings = release.add()
    assert (settings.image_std, settings.min_pixels, settings.max_pixels) == ((0.25,) * 3, 4096, 8192)


def test_a_configuration_with_the_text_models_values_at_its_top_is_read(release, added):
    """As Qwen2.5-VL's was published."""
    values = json.loads((release.base / "config.json").read_text())
    text = values.pop("text_config")
    (release.base / "config.json").write_text(json.dumps(text | values | {"model_type": "qwen2_5_vl"}))
    release.add()
    whole, flat = (RewardModel.load(folder).state_dict() for folder in (added["qwen2.5-vl"], release.out))
    assert all(torch.equal(value, flat[key]) for key, value in whole.items())


def manifest_of_another_digest(folder):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sha256": "0" * 64}))


def manifest_that_is_no_json(folder):
    (folder / "manifest.json").write_text('{"files": ')


def manifest_that_lists_no_digests(folder):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": {}}))


def pipe_as_manifest(folder):
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")


def pipe_as_shard(folder):
    (folder / "backbone" / "model.safetensors").unlink()
    os.mkfifo(folder / "backbone" / "model.safetensors")


def pipe_as_heads(folder):
    (folder / "heads.safetensors").unlink()
    os.mkfifo(folder / "heads.safetensors")


def pickle_as_heads(folder):
    (folder / "heads.safetensors").write_bytes(pickle.dumps(Bomb(folder / "exploded")))


def changed_wording(folder):
    path = folder / "reward.json"
    path.write_text(path.read_text().replace("picture", "image"))


def shard_elsewhere(folder):
    shard = folder / "backbone" / "model.safetensors"
    (folder / "backbone" / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"norm.weight": "../../elsewhere.safetensors"}})
    )
    shard.rename(folder.parent / "elsewhere.safetensors")


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        (manifest_of_another_digest, "its sha256 is not that of the files"),
        (manifest_that_is_no_json, "cannot be read"),
        (manifest_that_lists_no_digests, "its sha256 is not that of the files"),
        (pipe_as_manifest, "no manifest.json"),
        (pipe_as_shard, "changed since it was written: backbone/model.safetensors"),
        (pipe_as_heads, "changed since it was written: heads.safetensors"),
        (pickle_as_heads, "changed since it was written: heads.safetensors"),
        (changed_wording, "changed since it was written: reward.json"),
        (shard_elsewhere, "changed since it was written"),
    ],
)
def test_a_model_that_was_broken_since_is_refused(release, fault, match):
    release.add()
    fault(release.out)
    with pytest.raises(EditLoopError) as refusal:
        RewardModel.load(release.out)
    assert match in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not (release.out / "exploded").exists()


def test_a_folder_that_is_no_model_is_not_replaced(release):
    release.out.mkdir()
    for name in ("notes.txt", "manifest.json"):
        (release.out / name).write_text("mine")
        with pytest.raises(EditLoopError, match="no reward model's folder"):
            release.add()
        assert (release.out / name).read_text() == "mine"


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("model.language_model.norm.weight", None, r"missing language_model\.norm\.weight"),
        ("model.visual.merger.mlp.0.bias", None, r"missing visual\.merger"),
        ("rm_heads.head_1.5.bias", None, r"missing rm_heads\.head_1\.5\.bias"),
        ("model.language_model.extra.weight", torch.zeros(2), r"surplus language_model\.extra\.weight"),
        ("rm_heads.head_2.0.bias", torch.zeros(2), r"surplus rm_heads\.head_2"),
        ("rm_heads.head_0.0.weight", torch.zeros(1024, 47), r"wrong shape rm_heads\.head_0\.0\.weight \(1024, 47\)"),
        ("model.language_model.norm.weight", torch.zeros(47), r"wrong shape language_model\.norm"),
        (EMBEDDING, torch.zeros(265, 48), "265 rows, and the base's tokenizer 264 tokens"),
        ("model.norm.weight", torch.zeros(48), "are one weight"),
        ("model.language_model.norm.weight", torch.full((48,), torch.nan), r"language_model\.norm\.weight has NaN"),
        ("rm_heads.head_0.5.bias", torch.tensor([0.0, torch.inf]), r"rm_heads\.head_0\.5\.bias has NaN or infinite"),
        ("model.language_model.norm.weight", torch.zeros(48, dtype=torch.int8), "of type I8, as quantised weights"),
    ],
)
def test_weights_that_do_not_fit(release, key, value, match):
    tensors = {name: tensor for name, tensor in release.tensors().items() if name != key}
    release.write(tensors | ({} if value is None else {key: value}))
    release.assert_refused(match)


def test_weights_without_heads(release):
    release.write({key: value for key, value in release.tensors().items() if not key.startswith("rm_heads.")})
    release.assert_refused("a bare backbone scores nothing")


class Bomb:
    """Would leave a file behind where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (self.path.touch, ())


def pickled(release):
    release.file.unlink()
    (release.weights / "model.pth").write_bytes(pickle.dumps(Bomb(release.weights / "exploded")))


def lfs_pointer(release):
    release.file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 16000000000\n")


def pipe(release):
    release.file.unlink()
    os.mkfifo(release.file)


def truncated(release):
    release.file.write_bytes(release.file.read_bytes()[:5000])


def lost_shard(release):
    release.write(release.tensors(), shards=3)
    (release.weights / "model-00002-of-00003.safetensors").unlink()


def pipe_among_shards(release):
    lost_shard(release)
    os.mkfifo(release.weights / "model-00002-of-00003.safetensors")


def shard_outside(release):
    release.write_index({"model.norm.weight": "../base/other.safetensors"})
    shutil.copy(release.file, release.base / "other.safetensors")


def shard_with_absolute_path(release):
    release.write_index({"model.norm.weight": str(release.file)})


def broken_index(release):
    (release.weights / "model.safetensors.index.json").write_text('{"weight_map": {"a"')


def index_without_map(release):
    (release.weights / "model.safetensors.index.json").write_text("[1]")


def disagreeing_index(release):
    release.write(release.tensors(), shards=2)
    path = release.weights / "model.safetensors.index.json"
    weight_map = json.loads(path.read_text())["weight_map"]
    release.write_index(
        weight_map
        | {EMBEDDING: "model-00001-of-00002.safetensors"}
        | {"lm_head.weight": "model-00001-of-00002.safetensors"}
    )


WEIGHTS_FAULTS = [
    (pickled, r"pickled ones \(model\.pth"),
    (lfs_pointer, "git-lfs pointer"),
    (pipe, "no plain file"),
    (truncated, "not a readable safetensors file"),
    (lost_shard, r"model-00002-of-00003\.safetensors missing"),
    (pipe_among_shards, "no plain file"),
    (shard_outside, r"names '\.\./base/other\.safetensors'; a shard is"),
    (shard_with_absolute_path, "a shard is"),
    (broken_index, "cannot be read as JSON"),
    (index_without_map, "no `weight_map`"),
    (disagreeing_index, "disagree"),
]


@pytest.mark.parametrize(("fault", "match"), WEIGHTS_FAULTS)
def test_files_that_are_no_weights(release, fault, match):
    fault(release)
    release.assert_refused(match)
    assert not (release.weights / "exploded").exists()


def quantised(release):
    release.change_json("config.json", quantization_config={"quant_method": "awq", "bits": 4})


def millions_of_layers(release):
    text = json.loads((release.base / "config.json").read_text())["text_config"]
    release.change_json("config.json", text_config=text | {"num_hidden_layers": 3_000_000})


def deep_vision(release):
    vision = json.loads((release.base / "config.json").read_text())["vision_config"]
    release.change_json("config.json", vision_config=vision | {"depth": 3_000_000})


def no_layers(release):
    text = json.loads((release.base / "config.json").read_text())["text_config"]
    release.change_json("config.json", text_config=text | {"num_hidden_layers": -1})


def words_for_numbers(release):
    text = json.loads((release.base / "config.json").read_text())["text_config"]
    release.change_json("config.json", text_config=text | {"hidden_size": "many"})


def impossible_heads(release):
    text = json.loads((release.base / "config.json").read_text())["text_config"]
    release.change_json("config.json", text_config=text | {"num_attention_heads": 0})


def another_model(release):
    (release.base / "config.json").write_text(json.dumps({"model_type": "llama"}))


def code_of_its_own(release):
    release.change_json("config.json", model_type="mine", auto_map={"AutoConfig": "mine.Config"})
    (release.base / "mine.py").write_text(f"open({str(release.base / 'ran')!r}, 'w')\nclass Config: pass\n")


def no_config(release):
    (release.base / "config.json").unlink()


CONFIG_FAULTS = [
    (quantised, "quantization_config says that the weights are quantised"),
    (millions_of_layers, "num_hidden_layers is 3,000,000; a model of at most 1,000 layers"),
    (deep_vision, "depth is 3,000,000"),
    (no_layers, "num_hidden_layers is -1"),
    (words_for_numbers, "its config cannot be read"),
    (impossible_heads, "makes no model"),
    (another_model, "model_type 'llama'"),
    (code_of_its_own, "its config cannot be read"),
    (no_config, "no config.json"),
]


def no_tokenizer(release):
    (release.base / "tokenizer.json").unlink()


def broken_tokenizer(release):
    (release.base / "tokenizer.json").write_text("{")


def no_template(release):
    (release.base / "chat_template.jinja").unlink()


def strange_template(release):
    (release.base / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content[2].text }}{% endfor %}")


def broken_template(release):
    (release.base / "chat_template.jinja").write_text("{% for %}")


def escaping_template(release):
    (release.base / "chat_template.jinja").write_text("{{ ''.__class__.__mro__[1].__subclasses__() }}")


def broken_processor(release):
    release.change_json("preprocessor_config.json", image_mean=[0.5])


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        *CONFIG_FAULTS,
        (no_tokenizer, "no tokenizer.json"),
        (broken_tokenizer, "its tokenizer cannot be read"),
        (no_template, "chat template cannot be rendered"),
        (strange_template, "writes two pictures and a text as"),
        (broken_template, "chat template cannot be rendered"),
        (escaping_template, "chat template cannot be rendered"),
        (broken_processor, "image_mean"),
    ],
)
def test_bases_that_cannot_be_used(release, fault, match):
    fault(release)
    release.assert_refused(match)
    assert not (release.base / "ran").exists()


@pytest.mark.parametrize(("fault", "match"), [*WEIGHTS_FAULTS, *CONFIG_FAULTS])
def test_a_base_is_refused_alike_where_it_is_opened(release, fault, match):
    release.write({key: value for key, value in release.tensors().items() if not key.startswith("rm_heads.")})
    fault(release)
    for path in release.weights.iterdir():
        path.rename(release.base / path.name)
    with pytest.raises(EditLoopError, match=match) as refusal:
        open_base(release.base, torch.float32)
    assert "\n" not in str(refusal.value)

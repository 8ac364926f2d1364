"""Folders of EditScore: what is saved scores the same, adapters are PEFT's, and what does not belong is refused."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from editloop.errors import EditLoopError
from editloop.models.edit_score import checkpoints
from editloop.models.edit_score.adapters import CONFIG, WEIGHTS, write_adapter
from editloop.models.edit_score.generation import next_token_probabilities
from editloop.models.edit_score.model import EditScoreModel
from editloop.models.edit_score.released import add_editscore
from editloop.models.lora import TARGET_MODULES, add_adapter
from editloop.models.lora_settings import LoraSettings
from tests.edit_score_models import CLASSES, plain_inputs, some_groups, tiny_score
from tests.editreward_releases import release_folder

pytestmark = pytest.mark.floats

LORA = LoraSettings(rank=3, alpha=6)
FAMILIES = ("qwen2.5-vl", "qwen3-vl")


def rows_of(model):
    return [row for group in some_groups() for asked in model.rows.ask(group) for row in asked]


def with_adapter(base, adapter_folder, base_name=None):
    """The base with the adapter, as the model's folder made of them has it."""
    folder = adapter_folder.with_name(f"{adapter_folder.name}-model")
    add_editscore(adapter_folder, base, folder, base_name=base_name)
    return EditScoreModel.load(folder)


def said(model):
    """(rows, vocabulary): what the model would say next, everywhere."""
    return next_token_probabilities(model, rows_of(model), range(len(model.tokenizer)))


def checkpoint(folder, family="qwen2.5-vl"):
    """A released checkpoint's layout: weights, tokenizer and image processor in one folder."""
    model = tiny_score(family)
    model.backbone.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    processor = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.3, 0.2, 0.1], "min_pixels": 64, "max_pixels": 1024}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    shutil.copyfile(release_folder(family) / "base" / "chat_template.jinja", folder / "chat_template.jinja")
    return model


def adapter(folder, family="qwen2.5-vl", base="team/base", **changes):
    """An adapter with weights of its own, as training writes it."""
    model = tiny_score(family)
    add_adapter(model.backbone, LORA)
    generator = torch.Generator().manual_seed(1)
    state = {
        name: 0.2 * torch.randn(value.shape, generator=generator)
        for name, value in model.backbone.named_parameters()
        if value.requires_grad
    }
    assert len(state) == 2 * 7 * 2  # A and B of seven layers in two blocks, none in the vision tower
    write_adapter(folder, state, LORA, base)
    if changes:
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(config | changes))
    return folder


def rewritten(folder, change):
    save_file(
        {key: value for name, one in load_file(folder / WEIGHTS).items() for key, value in change(name, one)},
        folder / WEIGHTS,
    )
    return folder


def test_a_saved_model_says_the_same_and_a_changed_file_is_refused(tmp_path):
    model = tiny_score(reasoning=False, top=10)
    model.save(tmp_path / "model", {"seed": 1}, {"training.json": {"steps": []}})
    again = EditScoreModel.load(tmp_path / "model")
    assert again.settings == model.settings
    assert torch.equal(said(again), said(model))
    with (tmp_path / "model" / "editscore.json").open("a") as settings:
        settings.write(" ")
    with pytest.raises(EditLoopError, match=r"editscore\.json"):
        EditScoreModel.load(tmp_path / "model")


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_on_its_base_says_what_peft_says(tmp_path, family):
    checkpoint(tmp_path / "base", family)
    adapter(tmp_path / "adapter", family)
    ours = with_adapter(tmp_path / "base", tmp_path / "adapter")
    assert ours.settings.image_mean == (0.4, 0.5, 0.6)
    theirs = PeftModel.from_pretrained(CLASSES[family].from_pretrained(tmp_path / "base"), tmp_path / "adapter")
    bare = EditScoreModel.from_base(tmp_path / "base")
    with torch.no_grad():
        for row in rows_of(ours)[:2]:
            expected = theirs(**plain_inputs(ours, row)).logits[0, -1].softmax(-1)
            found = next_token_probabilities(ours, [row], range(len(ours.tokenizer)))[0]
            torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-3)
            assert (next_token_probabilities(bare, [row], range(len(ours.tokenizer)))[0] - expected).abs().max() > 1e-2


def test_keys_of_older_classes_are_found(tmp_path):
    checkpoint(tmp_path / "base")
    adapter(tmp_path / "new")
    rewritten(adapter(tmp_path / "old"), lambda key, one: [(key.replace("language_model.", ""), one)])
    new, old = (with_adapter(tmp_path / "base", tmp_path / name) for name in ("new", "old"))
    assert torch.equal(said(new), said(old))


@pytest.mark.parametrize(
    "options", [{}, {"use_rslora": True}, {"exclude_modules": ["up_proj"]}, {"task_type": "FEATURE_EXTRACTION"}]
)
def test_adapters_as_peft_saves_them_are_read(tmp_path, options):
    """Every setting of this PEFT is in the file, those that change nothing too."""
    checkpoint(tmp_path / "base")
    torch.manual_seed(0)
    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": TARGET_MODULES} | options)
    model = get_peft_model(CLASSES["qwen2.5-vl"].from_pretrained(tmp_path / "base"), config).eval()
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.05)
    model.save_pretrained(tmp_path / "adapter")
    ours = with_adapter(tmp_path / "base", tmp_path / "adapter", base_name="base")
    row = rows_of(ours)[0]
    with torch.no_grad():
        expected = model(**plain_inputs(ours, row)).logits[0, -1].softmax(-1)
    found = next_token_probabilities(ours, [row], range(len(ours.tokenizer)))[0]
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-3)


def test_a_trained_folder_holds_its_adapter_and_names_its_base(tmp_path):
    base = tiny_score(temperature=0.5)
    base.save(tmp_path / "base", {})
    adapter(tmp_path / "adapter", base="base")
    checkpoints.save_adapter_model(
        tmp_path / "model", tmp_path / "adapter", str(tmp_path / "base"), base.settings, {}, {}
    )
    model = EditScoreModel.load(tmp_path / "model")
    assert not list((tmp_path / "model").rglob("model.safetensors"))
    model_said = said(model)
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(EditLoopError, match="neither a shipped name nor a folder"):
        EditScoreModel.load(tmp_path / "model")
    assert torch.equal(said(EditScoreModel.load(tmp_path / "model", base=tmp_path / "moved")), model_said)
    tiny_score(seed=5).save(tmp_path / "base", {})
    with pytest.raises(EditLoopError, match="was trained on"):
        EditScoreModel.load(tmp_path / "model")


@pytest.mark.parametrize("transformers", [4, 5])
def test_a_released_adapter_becomes_a_model_folder(tmp_path, transformers):
    checkpoint(tmp_path / "base")
    if transformers == 5:
        values = json.loads((tmp_path / "base" / "preprocessor_config.json").read_text())
        (tmp_path / "base" / "preprocessor_config.json").unlink()
        (tmp_path / "base" / "processor_config.json").write_text(json.dumps({"image_processor": values}))
    adapter(tmp_path / "adapter")
    add_editscore(tmp_path / "adapter", tmp_path / "base", tmp_path / "model")
    found = EditScoreModel.load(tmp_path / "model")
    assert found.settings.image_std == (0.3, 0.2, 0.1)


def _doubled(key, one):
    return [(key, torch.cat([one, one], dim=1 if "lora_A" in key else 0))]


WRONG = {
    "another name": (lambda folder: adapter(folder, base="team/other-7b"), "trained on 'team/other-7b'"),
    "another width": (lambda folder: rewritten(adapter(folder), _doubled), "the base's is"),
    "another rank": (lambda folder: adapter(folder, r=4), "says rank 4"),
    "a layer too many": (
        lambda folder: rewritten(
            adapter(folder), lambda key, one: [(key, one), (key.replace("layers.1.", "layers.2."), one.clone())]
        ),
        r"no linear layer .*layers\.2",
    ),
    "a layer too few": (
        lambda folder: rewritten(adapter(folder), lambda key, one: [] if "layers.1." in key else [(key, one)]),
        "layer 1 of the base gets nothing",
    ),
    "half a pair": (
        lambda folder: rewritten(
            adapter(folder), lambda key, one: [] if "0.mlp.up_proj.lora_B" in key else [(key, one)]
        ),
        "lora_A and lora_B",
    ),
    "surplus weights": (
        lambda folder: rewritten(adapter(folder), lambda key, one: [(key, one), (key + ".more", one.clone())]),
        "no LoRA weight",
    ),
    "targets it has not": (lambda folder: adapter(folder, target_modules=["q_proj", "gate_up_proj"]), "gate_up_proj"),
    "no plain LoRA": (lambda folder: adapter(folder, use_dora=True), "use_dora = True"),
    "a LoRA that begins at some tokens": (
        lambda folder: adapter(folder, alora_invocation_tokens=[5, 6]),
        "alora_invoc",
    ),
    "from no token on": (
        lambda folder: adapter(folder, alora_invocation_tokens=[]),
        r"alora_invocation_tokens = \[]",
    ),
    "a LoRA that changes its base": (
        lambda folder: adapter(folder, init_lora_weights="pissa"),
        "= pissa is not understood",
    ),
    "a setting that PEFT does not have yet": (lambda folder: adapter(folder, new_kind={"scale": 2}), "new_kind = "),
    "NaN": (
        lambda folder: rewritten(adapter(folder), lambda key, one: [(key, one * torch.nan)]),
        "has NaN or infinite",
    ),
    "a git-lfs pointer": (
        lambda folder: (adapter(folder) / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1"),
        "git-lfs pointer",
    ),
    "no LoRA": (lambda folder: adapter(folder, peft_type="IA3"), "IA3"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_an_adapter_of_another_base_is_refused_and_changes_nothing(tmp_path, wrong):
    checkpoint(tmp_path / "base")
    make, told = WRONG[wrong]
    make(tmp_path / "adapter")
    with pytest.raises(EditLoopError, match=told):
        add_editscore(tmp_path / "adapter", tmp_path / "base", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_broken_base_is_refused_where_the_adapter_is_brought_in(tmp_path):
    checkpoint(tmp_path / "base")
    adapter(tmp_path / "adapter")
    weights = tmp_path / "base" / "model.safetensors"
    stored = load_file(weights)
    key = next(key for key in stored if key.endswith("layers.0.mlp.up_proj.weight"))
    stored[key][0, 0] = torch.nan
    save_file(stored, weights, metadata={"format": "pt"})
    with pytest.raises(EditLoopError, match=r"up_proj\.weight has NaN"):
        with_adapter(tmp_path / "base", tmp_path / "adapter")


def test_a_base_under_another_name_is_taken_when_it_is_said(tmp_path):
    checkpoint(tmp_path / "weights")
    adapter(tmp_path / "adapter", base="Team/Base-8B")
    with pytest.raises(EditLoopError, match=r"base name 'Base-8B'"):
        with_adapter(tmp_path / "weights", tmp_path / "adapter")
    with_adapter(tmp_path / "weights", tmp_path / "adapter", base_name="base-8b")
    cached = tmp_path / "models--Team--Base-8B" / "snapshots"
    cached.mkdir(parents=True)
    (tmp_path / "weights").rename(cached / "0a1b")
    with_adapter(cached / "0a1b", tmp_path / "adapter")


def test_pickles_and_checkpoints_with_other_keys_are_refused(tmp_path):
    model = checkpoint(tmp_path / "base")
    adapter(tmp_path / "adapter")
    (tmp_path / "adapter" / WEIGHTS).rename(tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(EditLoopError, match=r"adapter_model\.bin, which can run code"):
        with_adapter(tmp_path / "base", tmp_path / "adapter")
    weights = tmp_path / "base" / "model.safetensors"
    stored = load_file(weights)
    lost = next(key for key in stored if key.endswith("layers.0.mlp.up_proj.weight"))
    for changed, told in (
        ({key: value for key, value in stored.items() if key != lost}, "missing"),
        (stored | {"model.more.weight": torch.zeros(1)}, "surplus"),
    ):
        save_file(changed, weights, metadata={"format": "pt"})
        with pytest.raises(EditLoopError, match=told):
            EditScoreModel.from_base(tmp_path / "base")
    torch.save(model.backbone.state_dict(), tmp_path / "base" / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(EditLoopError, match="pickle"):
        EditScoreModel.from_base(tmp_path / "base")
    with pytest.raises(EditLoopError, match="neither a shipped name"):
        EditScoreModel.load("no-such-model")

"""Released folders of editors whose pipeline diffusers does not have: opened whole, refused by name in one line."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from editloop.content import MANIFEST, read_manifest
from editloop.errors import EditLoopError
from editloop.models.editors import step1x_files
from editloop.models.editors.opening import add_editor, open_editor, outline_editor
from editloop.models.editors.settings import SETTINGS
from editloop.models.editors.step1x_text import paired_quotations, straight_quotations
from tests.tiny_editors import build_tiny_editor, write_tiny_editor

SOURCE = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)


DOUBLE = [
    *(
        f"{stream}_{part}"
        for stream in ("img", "txt")
        for part in ("mod.lin", "attn.qkv", "attn.proj", "mlp.0", "mlp.2")
    )
]
NORMS = [
    f"double_blocks.0.{stream}_attn.norm.{one}_norm.scale" for stream in ("img", "txt") for one in ("query", "key")
]
MODULES = [
    *("img_in", "txt_in", "time_in.in_layer", "time_in.out_layer", "vector_in.in_layer", "vector_in.out_layer"),
    *("final_layer.linear", "final_layer.adaLN_modulation.1"),
    *(f"double_blocks.0.{name}" for name in DOUBLE),
    *(f"single_blocks.0.{name}" for name in ("linear1", "linear2", "modulation.lin")),
]
RELEASED = [
    *(f"{module}.{kind}" for module in MODULES for kind in ("weight", "bias")),
    *NORMS,
    *(f"single_blocks.0.norm.{one}_norm.scale" for one in ("query", "key")),
]


def released_names(weights):
    """Weights of the network as its single file has them."""
    stored = {name: value for name, value in weights.items() if name.startswith("connector.")}
    for key in RELEASED:
        rows = 84  # whatever divides by 3 and by 7: only the names are used
        parts = step1x_files.network_weights(step1x_files.StoredTensor(None, key, (rows, 1), torch.float32))
        stored[key] = torch.cat([weights[name] for name in parts])
        if key.startswith("final_layer.adaLN"):
            stored[key] = torch.cat(stored[key].chunk(2)[::-1])
    return stored


@pytest.fixture
def single_files(tmp_path, monkeypatch):
    """A tiny editor as v1.0 and v1.1 were released, and the same in diffusers' layout."""
    saved = write_tiny_editor("step1x-v1p1", tmp_path / "saved")
    folder = tmp_path / "released"
    encoder = shutil.copytree(saved / "text_encoder", folder / step1x_files.TEXT_ENCODER)
    shutil.copytree(saved / "processor", encoder, dirs_exist_ok=True)
    weights = load_file(saved / "transformer" / "diffusion_pytorch_model.safetensors")
    save_file(released_names(weights), folder / "step1x-edit-v1p1-official.safetensors")
    shutil.copy(saved / "vae" / "diffusion_pytorch_model.safetensors", folder / step1x_files.CODEC)
    shutil.copy(saved / SETTINGS, folder / SETTINGS)
    sizes = json.loads((saved / "transformer" / "config.json").read_text())
    outline = step1x_files.network_outline
    codec = json.loads((saved / "vae" / "config.json").read_text())
    monkeypatch.setattr(
        step1x_files,
        "network_outline",
        lambda kind, config: outline(kind, codec if kind is step1x_files.AutoencoderKL else sizes),
    )
    # the codec's original names are diffusers' own to convert
    monkeypatch.setattr(step1x_files, "convert_ldm_vae_checkpoint", lambda checkpoint, config: dict(checkpoint))
    return folder


def velocity(editor):
    condition = editor.encode(["make the circle red"], SOURCE)
    x = editor.noise(1, (32, 32), torch.Generator().manual_seed(0))
    with torch.no_grad():
        return editor.velocity(x, torch.tensor([0.7]), condition, 3.0)


def test_step1x_is_read_from_its_single_file(single_files):
    saved, released = open_editor(single_files.parent / "saved"), open_editor(single_files, on_demand=True)
    assert released.on_demand.unread == ["text_encoder", "vae"]
    torch.testing.assert_close(velocity(released), velocity(saved))
    for name, weight in saved.network.state_dict().items():
        assert torch.equal(released.network.state_dict()[name], weight), name


def test_the_first_release_is_told_by_its_scale_factor_which_is_folded_in(single_files):
    file = single_files / "step1x-edit-v1p1-official.safetensors"
    (single_files / SETTINGS).unlink()
    assert outline_editor(single_files).settings.release == "v1.1"
    before = open_editor(single_files).network.state_dict()["connector.global_proj_out.weight"]
    save_file(load_file(file) | {"connector.scale_factor": torch.tensor([-0.5])}, file)
    editor = open_editor(single_files)
    assert editor.settings.release == "v1.0"
    assert torch.equal(editor.network.state_dict()["connector.global_proj_out.weight"], 0.5 * before)
    with pytest.raises(EditLoopError, match="have no `preamble`"):
        editor.encode(["make it red"], SOURCE)


def test_single_files_get_a_manifest_and_broken_ones_are_refused(single_files):
    file = single_files / "step1x-edit-v1p1-official.safetensors"
    add_editor(single_files)
    assert read_manifest(single_files, check=True)["facts"] == {"pipeline": "Step1XEditPipeline"}
    (single_files / MANIFEST).unlink()
    weights = load_file(file)
    save_file(weights | {"img_in.bias": weights["img_in.bias"] * torch.nan}, file)
    with pytest.raises(EditLoopError, match=r"img_in\.bias has NaN"):
        add_editor(single_files)
    renamed = {name.replace("txt_in.bias", "text_in.bias"): value for name, value in weights.items()}
    save_file(renamed, file)
    with pytest.raises(EditLoopError, match=r"missing context_embedder\.bias; surplus text_in\.bias") as refusal:
        open_editor(single_files)
    assert "\n" not in str(refusal.value)
    save_file(weights, single_files / "step1x-edit-other.safetensors")
    with pytest.raises(EditLoopError, match="2 files step1x-edit"):
        open_editor(single_files)
    (single_files / "step1x-edit-other.safetensors").unlink()
    (single_files / step1x_files.CODEC).unlink()
    with pytest.raises(EditLoopError, match=r"vae\.safetensors missing"):
        open_editor(single_files)


def test_a_network_of_other_shapes_is_refused_in_one_line(tmp_path):
    folder = write_tiny_editor("omnigen2", tmp_path / "editor")
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"text_feat_dim": 32}))
    with pytest.raises(EditLoopError, match=r"of wrong shape time_caption_embed.*\(64,\) for \(32,\)") as refusal:
        open_editor(folder)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("kind", ["omnigen2", "step1x-v1p2"])
def test_the_released_preamble_is_asked_for(kind):
    editor = build_tiny_editor(kind)
    editor.settings = editor.settings.model_copy(update={"preamble": ""})
    with pytest.raises(EditLoopError, match=r"have no `preamble`.*editor\.json"):
        editor.encode(["make it red"], SOURCE)
    if kind != "omnigen2":
        editor.settings = editor.settings.model_copy(update={"preamble": "make the red circle blue and move it"})
        with pytest.raises(EditLoopError, match=r"ends at token \d+, the release's at 6"):
            editor.encode(["make it red"], SOURCE)


def test_one_apostrophe_opens_a_quotation_to_the_end_in_the_first_releases():
    assert straight_quotations("the dog's", start=0) == [('the dog"', False), ("s", True)]
    assert straight_quotations("write \u201cab\u201d on", start=0) == [
        ('write "', False),
        ("a", True),
        ("b", True),
        ('" on', False),
    ]
    assert straight_quotations('a "b"', start=4) == [('a "b"', False)]


def test_later_only_double_quotes_that_are_closed_count():
    assert paired_quotations("the dog's") == [("the dog's", False)]
    assert paired_quotations('say "a b') == [('say "a b', False)]
    assert paired_quotations('say "a" and \u201cb\u201d') == [
        ('say "', False),
        ("a", True),
        ('" and \u201c', False),
        ("b", True),
        ("\u201d", False),
    ]


def test_quoted_characters_are_tokens_of_their_own_over_the_kept_text():
    editor = build_tiny_editor("step1x-v1p2")
    condition = editor.encode(['write "red" on it'], SOURCE)
    assert condition.parts["quoted"].sum() == len("red")
    assert bool(condition.parts["characters"][condition.parts["quoted"]].any())
    assert not condition.parts["characters"][~condition.parts["quoted"]].any()
    plain = editor.encode(["write red on it"], SOURCE)
    assert not plain.parts["quoted"].any()

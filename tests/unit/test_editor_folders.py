"""What is wrong with an editor's folder is named before a weight of it is read."""

import json
import os
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from editloop.content import MANIFEST, complete_folder, read_manifest
from editloop.errors import EditLoopError
from editloop.models.editors.opening import add_editor, find_editor, open_editor, outline_editor

NETWORK = "diffusion_pytorch_model.safetensors"


class Bomb:
    """Would leave a file behind where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (self.path.touch, ())


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(find_editor("tiny-editor"), tmp_path / "editor")


def pickled(folder, part, name):
    for path in (folder / part).glob("*.safetensors"):
        path.unlink()
    (folder / part / name).write_bytes(pickle.dumps(Bomb(folder.parent / "exploded")))


def change_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def pickled_network(folder):
    pickled(folder, "transformer", "diffusion_pytorch_model.bin")


def pickled_text_encoder(folder):
    pickled(folder, "text_encoder", "pytorch_model.bin")


def pipe(folder):
    (folder / "transformer" / NETWORK).unlink()
    os.mkfifo(folder / "transformer" / NETWORK)


def lfs_pointer(folder):
    (folder / "vae" / NETWORK).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")


def shard_outside(folder):
    index = {"weight_map": {"proj_out.weight": f"../vae/{NETWORK}"}}
    (folder / "transformer" / f"{NETWORK}.index.json").write_text(json.dumps(index))


def lost_shard(folder):
    index = {"weight_map": {"proj_out.weight": "diffusion_pytorch_model-00002-of-00002.safetensors"}}
    (folder / "transformer" / f"{NETWORK}.index.json").write_text(json.dumps(index))


def millions_of_layers(folder):
    change_json(folder / "transformer" / "config.json", num_layers=3_000_000)


def quantised(folder):
    change_json(folder / "transformer" / "config.json", quantization_config={"quant_method": "bitsandbytes"})


def part_outside(folder):
    change_json(folder / "model_index.json", **{"../elsewhere": ["diffusers", "AutoencoderKL"]})


def broken_index(folder):
    (folder / "model_index.json").write_text("{")


def index_of_nothing(folder):
    (folder / "model_index.json").write_text("[]")


@pytest.mark.parametrize("opener", [open_editor, outline_editor])
@pytest.mark.parametrize(
    ("fault", "match"),
    [
        (pickled_network, r"transformer: no safetensors weights, only pickled ones \(diffusion_pytorch_model\.bin\)"),
        (pickled_text_encoder, r"text_encoder: no safetensors weights, only pickled ones \(pytorch_model\.bin\)"),
        (pipe, "no plain file"),
        (lfs_pointer, "git-lfs pointer"),
        (shard_outside, "a shard is a .safetensors file of that folder"),
        (lost_shard, r"00002-of-00002\.safetensors missing"),
        (millions_of_layers, "num_layers is 3,000,000"),
        (quantised, "quantization_config"),
        (part_outside, r"names a part '\.\./elsewhere'"),
        (broken_index, "cannot be read as JSON"),
        (index_of_nothing, "no pipeline's parts"),
    ],
)
def test_a_folder_that_cannot_be_trusted_is_refused(folder, fault, match, opener):
    fault(folder)
    with pytest.raises(EditLoopError, match=match) as refusal:
        opener(folder)
    assert "\n" not in str(refusal.value)
    assert not (folder.parent / "exploded").exists()


def test_a_folder_with_a_manifest_is_checked_against_it(folder, tmp_path):
    with complete_folder(tmp_path / "trained") as trained:
        shutil.copytree(folder, trained, dirs_exist_ok=True)
    assert open_editor(tmp_path / "trained", device="cpu")
    change_json(tmp_path / "trained" / "editor.json", negative="blurred")
    with pytest.raises(EditLoopError, match=r"changed since it was written: editor\.json"):
        open_editor(tmp_path / "trained", device="cpu")


def test_a_downloaded_folder_gets_a_manifest_and_is_compared_with_it(folder):
    (folder / MANIFEST).unlink(missing_ok=True)
    sha256 = add_editor(folder)
    assert read_manifest(folder, check=True) == read_manifest(folder)
    assert read_manifest(folder)["sha256"] == sha256
    assert read_manifest(folder)["facts"] == {"pipeline": "FluxKontextPipeline"}
    change_json(folder / "editor.json", negative="blurred")
    with pytest.raises(EditLoopError, match=r"changed since it was written: editor\.json"):
        open_editor(folder, device="cpu")
    assert add_editor(folder) != sha256
    assert open_editor(folder, device="cpu")


def test_broken_weights_get_no_manifest(folder):
    (folder / MANIFEST).unlink(missing_ok=True)
    weights = load_file(folder / "transformer" / NETWORK)
    list(weights.values())[-1].view(-1)[0] = torch.nan
    save_file(weights, folder / "transformer" / NETWORK, {"format": "pt"})
    with pytest.raises(EditLoopError, match="has NaN or infinite values"):
        add_editor(folder)
    save_file(weights | {"extra": torch.zeros(2, dtype=torch.int8)}, folder / "transformer" / NETWORK)
    with pytest.raises(EditLoopError, match="is of type I8, as quantised weights are"):
        add_editor(folder)
    assert not (folder / MANIFEST).exists()

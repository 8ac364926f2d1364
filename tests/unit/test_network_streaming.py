"""Released networks are read a tensor at a time: never more in memory than the weights and one stored tensor."""

import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file

from editloop.models.editors import network_files
from editloop.models.editors.network_files import read_network
from editloop.models.editors.omnigen2_network import OmniGen2Transformer2DModel
from editloop.models.editors.step1x_files import read_released_network
from tests.tensor_memory import tensor_peak
from tests.unit.test_step1x_parity import CONFIG, write_release

SHARDS = "200KB"


def write_omnigen2(folder):
    """OmniGen2's network in many files; returns how it is read."""
    network = OmniGen2Transformer2DModel(
        in_channels=4,
        hidden_size=96,
        num_layers=4,
        num_refiner_layers=1,
        num_attention_heads=4,
        num_kv_heads=2,
        multiple_of=16,
        axes_dim_rope=(8, 8, 8),
        text_feat_dim=64,
    )
    network.save_pretrained(folder, max_shard_size=SHARDS)
    return lambda dtype: read_network(OmniGen2Transformer2DModel, folder, dtype, torch.device("cpu"))


def write_step1x(folder):
    """Step1X-Edit's network as one file in float32; returns how it is read."""
    file = write_release("v1.1", folder)
    save_file({name: weight.float() for name, weight in load_file(file).items()}, file)
    return lambda dtype: read_released_network(file, dtype, torch.device("cpu"), CONFIG)


@pytest.mark.parametrize("write", [write_omnigen2, write_step1x], ids=["folder of files", "single file"])
def test_a_network_is_read_a_tensor_at_a_time(tmp_path, monkeypatch, write):
    read, alive, most = write(tmp_path), weakref.WeakSet(), []
    plain = network_files.read_tensors

    def followed(stored):
        for name, tensor in plain(stored):
            alive.add(tensor)
            most.append(len(alive))
            yield name, tensor
            del tensor

    monkeypatch.setattr(network_files, "read_tensors", followed)
    network = read(torch.bfloat16)
    assert len(most) > 20
    assert max(most) <= 2, "the one before lives until the next is there"
    monkeypatch.undo()
    weights = sum(weight.nbytes for weight in network.parameters())
    largest = 2 * max(weight.nbytes for weight in network.parameters())  # as it is stored, in float32
    mapped = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    assert tensor_peak(lambda: read(torch.bfloat16)) - mapped < weights + 2 * largest < 2 * weights

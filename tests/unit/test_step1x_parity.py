"""Step1X-Edit's connector, transformer and sampling give what the published code gives, release by release."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from editloop.models.editors.step1x_files import read_released_network
from editloop.models.editors.step1x_network import Step1XEditTransformer2DModel

pytestmark = pytest.mark.floats

PARITY = Path(__file__).parents[1] / "parity"
FACTS, LATER = (json.loads((PARITY / f"step1x-{name}.json").read_text()) for name in ("v1", "v1p2"))
TENSORS, LATER_TENSORS = (load_file(PARITY / f"step1x-{name}.safetensors") for name in ("v1", "v1p2"))
CONFIG = LATER["configuration"]
WEIGHTS = {name.removeprefix("weight."): value for name, value in TENSORS.items() if name.startswith("weight.")}
TOLERANCE = 1e-4
"""Of a velocity: the last bit of an exponential differs between CPUs and is multiplied by the time, up to 1000."""


def write_release(release, folder):
    """The transformer's single file of a release, as it was published."""
    weights = dict(WEIGHTS)
    if release != "v1.0":
        del weights["connector.scale_factor"]
    save_file(weights, folder / f"step1x-edit-{release}.safetensors")
    return folder / f"step1x-edit-{release}.safetensors"


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("step1x")
    read = {
        release: read_released_network(write_release(release, folder), torch.float32, CONFIG)
        for release in ("v1.0", "v1.1")
    }
    later = Step1XEditTransformer2DModel(**CONFIG, enable_text_token_mapping=True)
    mapping = {f"text_token_mapping.{name}": LATER_TENSORS[f"weight.text_token_mapping.{name}"].float()
               for name in ("weight", "bias")}
    later.load_state_dict(read["v1.1"].state_dict() | mapping)
    return read | {"v1.2": later}


@torch.no_grad()
@pytest.mark.parametrize("release", ["v1.0", "v1.1"])
def test_connector_and_velocity_are_the_references(networks, release):
    network = networks[release]
    mask, time = TENSORS["in.mask"].bool(), TENSORS["in.timestep"]
    tokens, pooled = network.connector(TENSORS["in.embeddings"], 1000 * time, mask)
    torch.testing.assert_close(tokens, TENSORS[f"{release}.out.connector_tokens"], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(pooled, TENSORS[f"{release}.out.connector_pooled"], atol=1e-5, rtol=0)
    (velocity,) = network(
        torch.cat([TENSORS["in.noise_packed"], TENSORS["in.source_packed"]], dim=1),
        TENSORS["in.embeddings"],
        time,
        mask,
        TENSORS[f"in.image_ids.{release}"],
        torch.zeros(1, mask.shape[1], 3),
    )
    torch.testing.assert_close(velocity, TENSORS[f"{release}.out.velocity"], atol=TOLERANCE, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("padding", [0, 3])
def test_the_velocity_of_quoted_text_is_the_references(networks, padding):
    def padded(name):
        value = LATER_TENSORS[f"in.{name}"]
        return torch.cat([value, torch.zeros_like(value[:, :padding])], dim=1)

    ids = LATER_TENSORS["in.text_ids"][None]
    mask = torch.ones(1, ids.shape[1] + padding, dtype=torch.bool)
    mask[:, ids.shape[1] :] = False
    (velocity,) = networks["v1.2"](
        torch.cat([LATER_TENSORS["in.noise_packed"], LATER_TENSORS["in.source_packed"]], dim=1),
        padded("embeddings"),
        LATER_TENSORS["in.timestep"],
        mask,
        LATER_TENSORS["in.image_ids"],
        torch.cat([ids, torch.zeros_like(ids[:, :padding])], dim=1),
        padded("text_input_embeddings"),
        padded("quoted_mask").bool(),
        attend_padding=False,
    )
    torch.testing.assert_close(velocity, LATER_TENSORS["out.velocity"], atol=TOLERANCE, rtol=0)

"""Step1X-Edit's connector, transformer and sampling give what the published code gives, release by release."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from editloop.models.editors.protocol import Conditioning
from editloop.models.editors.sampling import integrate
from editloop.models.editors.settings import read_editor_preset
from editloop.models.editors.step1x import Step1XEditor, Step1XEditPipeline, image_positions, reduced
from editloop.models.editors.step1x_files import flux_scheduler, read_released_network
from editloop.models.editors.step1x_network import Step1XEditTransformer2DModel
from editloop.models.editors.step1x_text import text_positions
from tests.tiny_editors import tiny_codec

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
        release: read_released_network(write_release(release, folder), torch.float32, torch.device("cpu"), CONFIG)
        for release in ("v1.0", "v1.1")
    }
    later = Step1XEditTransformer2DModel(**CONFIG, enable_text_token_mapping=True)
    mapping = {
        f"text_token_mapping.{name}": LATER_TENSORS[f"weight.text_token_mapping.{name}"].float()
        for name in ("weight", "bias")
    }
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


@torch.no_grad()
def test_the_mapping_of_quoted_text_adds_what_the_references_adds(networks):
    network, mask = networks["v1.2"], torch.ones_like(LATER_TENSORS["in.quoted_mask"], dtype=torch.bool)
    time = 1000 * LATER_TENSORS["in.timestep"]
    tokens, pooled = network.connector(LATER_TENSORS["in.embeddings"], time, mask)
    torch.testing.assert_close(tokens, LATER_TENSORS["mid.connector_tokens"], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(pooled, LATER_TENSORS["mid.connector_pooled"], atol=1e-5, rtol=0)
    read = []
    hook = network.context_embedder.register_forward_pre_hook(lambda _module, inputs: read.append(inputs[0]))
    test_the_velocity_of_quoted_text_is_the_references(networks, 0)
    hook.remove()
    torch.testing.assert_close(read[0], LATER_TENSORS["mid.tokens_with_mapping"], atol=TOLERANCE, rtol=0)


def test_guidance_is_reduced_as_the_references():
    norms, factors = (torch.tensor(FACTS["rescale_factor"][name]).view(-1, 1) for name in ("norm", "factor"))
    difference = norms * torch.tensor([0.6, 0.0, -0.8])
    torch.testing.assert_close(reduced(difference), difference / factors, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["noise", "source"])
def test_latents_are_packed_as_the_references(networks, monkeypatch, name):
    editor, decoded = editor_of(networks, "v1.1"), []
    config = editor.pipeline.vae.config
    monkeypatch.setattr(editor.pipeline.vae, "decode", lambda x, **_: decoded.append(x) or (torch.zeros(2, 3, 32, 48),))
    editor.decode(TENSORS[f"in.{name}_packed"], (32, 48))
    latents = (decoded[0] - config.shift_factor) * config.scaling_factor
    torch.testing.assert_close(latents, TENSORS[f"in.{name}_latents"], atol=1e-5, rtol=1e-5)


def editor_of(networks, release, **settings):
    preset = read_editor_preset(f"step1x-edit-{release.replace('.', 'p')}")
    pipeline = Step1XEditPipeline(flux_scheduler(), tiny_codec(), None, None, networks[release])
    return Step1XEditor(pipeline, preset.model_copy(update=settings))


def trajectory(editor, noise, condition, steps, guidance):
    sigmas = editor.sigmas(steps, condition.size)
    states = [noise]
    for pair in pairwise(sigmas):
        states.append(integrate(editor, states[-1], condition, torch.stack(pair), guidance))
    return torch.cat(states)


@pytest.mark.parametrize("case", list(FACTS["cases"]))
def test_sampling_is_the_references(networks, case):
    facts, release = FACTS["cases"][case], FACTS["cases"][case]["version"]
    row = slice(facts.get("sample", 0), facts.get("sample", 0) + 1)
    threshold = 0.0 if "fork" in case else facts.get("truncate", 1.0)
    editor = editor_of(networks, release, text_tokens=10, rescale_above=threshold)
    parts = {
        "prompt": TENSORS["in.embeddings"][row],
        "prompt_mask": TENSORS["in.mask"][row].bool(),
        "negative": TENSORS["in.negative_embeddings"][row],
        "negative_mask": TENSORS["in.negative_mask"][row].bool(),
        "source": TENSORS["in.source_packed"][row],
    }
    guidance = 1.0 if "unguided" in case else facts["cfg"]
    states = trajectory(
        editor, TENSORS["in.noise_packed"][row], Conditioning((32, 48), parts), facts.get("steps", 4), guidance
    )
    torch.testing.assert_close(states, TENSORS[f"{case}.latents"], atol=5e-4, rtol=0)
    assert states.std() > 0.5
    if f"{case}.timesteps" in TENSORS:
        torch.testing.assert_close(editor.sigmas(4, (32, 48)), TENSORS[f"{case}.timesteps"], atol=2e-7, rtol=0)


@pytest.mark.parametrize("case", list(LATER["cases"]))
def test_sampling_with_quoted_text_is_the_references(networks, case):
    facts = LATER["cases"][case]
    editor = editor_of(networks, "v1.2", rescale_above=0.93 if facts.get("timesteps_truncate", 0) > 1 else 0.0)
    lengths = {name: LATER_TENSORS[f"in.{name}embeddings"].shape[1] for name in ("", "negative_")}
    parts = {
        "prompt": LATER_TENSORS["in.embeddings"],
        "prompt_mask": torch.ones(1, lengths[""], dtype=torch.bool),
        "places": LATER_TENSORS["in.text_ids"][None],
        "negative": LATER_TENSORS["in.negative_embeddings"],
        "negative_mask": torch.ones(1, lengths["negative_"], dtype=torch.bool),
        "places_negative": LATER_TENSORS["in.negative_text_ids"][None],
        "characters": LATER_TENSORS["in.text_input_embeddings"],
        "quoted": LATER_TENSORS["in.quoted_mask"].bool(),
        "source": LATER_TENSORS["in.source_packed"],
    }
    assert not LATER_TENSORS["in.negative_quoted_mask"].any()
    states = trajectory(
        editor, LATER_TENSORS["in.noise_packed"], Conditioning((32, 48), parts), facts["steps"], facts["guidance"]
    )
    torch.testing.assert_close(states, LATER_TENSORS[f"{case}.latents"], atol=5e-4, rtol=0)
    times = LATER_TENSORS[f"{case}.timesteps_1000"]
    torch.testing.assert_close(1000 * editor.sigmas(4, (32, 48))[:-1], times, atol=2e-4, rtol=0)


@pytest.mark.parametrize("release", ["v1.0", "v1.1", "v1.2"])
def test_positions_of_latents_are_the_references(release):
    ids = image_positions(4, 6, release, torch.device("cpu"))
    assert torch.equal(ids, TENSORS[f"in.image_ids.{release.replace('v1.2', 'v1p2')}"])


@pytest.mark.parametrize("index", range(len(LATER["positions"])))
def test_positions_of_text_over_the_picture_are_the_references(index):
    facts = LATER["positions"][index]
    before, after = facts["text tokens kept before the picture"], facts["text tokens after"]
    _, *patches = facts["grid_thw"]
    rows, columns = (side // 2 for side in patches)
    end = before + 1 + max(rows, columns)
    temporal = torch.tensor([*range(before + 1), *[before + 1] * (rows * columns), *range(end, end + after + 1)])
    is_picture = LATER_TENSORS[f"positions.{index}.is_vision"].bool()
    width, height = facts["size of the picture given to the text encoder (width, height)"]
    ids = text_positions(temporal, is_picture, (rows, columns), (height, width))
    torch.testing.assert_close(ids, LATER_TENSORS[f"positions.{index}.text_ids"], atol=2e-5, rtol=0)


def test_noise_levels_and_sizes_are_the_references(networks):
    editor = editor_of(networks, "v1.0")
    editor.multiple = 16
    sides = {"24 tokens": (4, 6), "1024 tokens": (32, 32), "4096 tokens": (64, 64), "256 tokens": (16, 16)}
    for name, expected in FACTS["schedules"].items():
        steps, tokens = name.split(", ")
        rows, columns = sides[tokens]
        sigmas = editor.sigmas(int(steps.split()[0]), (16 * rows, 16 * columns))
        torch.testing.assert_close(sigmas, torch.tensor(expected), atol=2e-7, rtol=0)
        assert sigmas[0] == 1
    for row in FACTS["size_rule"]:
        editor.settings = editor.settings.model_copy(update={"area": row["size_level"] ** 2})
        assert editor.size_for(row["height"], row["width"]) == (row["to_height"], row["to_width"])


COMPARED = (
    r"weight\..*",
    r"in\..*",
    r"v1\.[01]\.out\.(connector_tokens|connector_pooled|velocity)",
    r"out\.velocity",
    r"mid\.(connector_tokens|connector_pooled|tokens_with_mapping)",
    rf"({'|'.join(map(re.escape, (*FACTS['cases'], *LATER['cases'])))})\.(latents|timesteps|timesteps_1000)",
    r"positions\.\d\.(text_ids|is_vision)",
)
"""The fixtures' tensors that the tests above read."""
UNREAD = {"in.negative_text_input_embeddings"}
"""Nothing in the negative instruction is quoted, so that these are not added to anything."""


def test_no_case_and_no_tensor_of_the_fixtures_is_left_out():
    assert len(FACTS["cases"]) == 6
    assert len(LATER["cases"]) == 3
    assert len(LATER["positions"]) == 3
    assert {facts["version"] for facts in FACTS["cases"].values()} == {"v1.0", "v1.1"}
    names = {*TENSORS, *LATER_TENSORS} - UNREAD
    assert sorted(name for name in names if not any(re.fullmatch(one, name) for one in COMPARED)) == []

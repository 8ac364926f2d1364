"""OmniGen2's transformer and its sampling give what the published code gives, case by case."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file

from editloop.models.editors.omnigen2 import OmniGen2Editor, OmniGen2Pipeline, guide
from editloop.models.editors.omnigen2_network import OmniGen2Transformer2DModel, position_ids
from editloop.models.editors.protocol import Conditioning
from editloop.models.editors.sampling import integrate
from editloop.models.editors.settings import read_editor_preset
from tests.tiny_editors import tiny_codec

pytestmark = pytest.mark.floats

PARITY = Path(__file__).parents[1] / "parity"
FACTS = json.loads((PARITY / "omnigen2-transformer.json").read_text())
TENSORS = load_file(PARITY / "omnigen2-transformer.safetensors")
SAMPLING = json.loads((PARITY / "omnigen2-sampling.json").read_text())
STATES = load_file(PARITY / "omnigen2-sampling.safetensors")
CASES = {case: len(facts["text_lengths"]) for case, facts in FACTS["cases"].items()}
"""Samples of each case."""


@pytest.fixture(scope="module")
def network():
    torch.set_num_threads(1)
    network = OmniGen2Transformer2DModel(**FACTS["configuration"])
    weights = {name.removeprefix("weight."): value.float() for name, value in TENSORS.items() if "weight." in name}
    network.load_state_dict({name: weights[name] for name in network.state_dict()})
    return network


def patches(latents):
    """Patches (S, C) of latents (channels, height, width), pixels by row, column and channel."""
    channels, height, width = latents.shape
    return latents.view(channels, height // 2, 2, width // 2, 2).permute(1, 3, 2, 4, 0).reshape(-1, 4 * channels)


def grid(latents):
    return latents.shape[1] // 2, latents.shape[2] // 2


def sample(case, index):
    """Pictures of one sample: its noise and then its sources."""
    sources = sorted(name for name in TENSORS if name.startswith(f"{case}.in.source.{index}."))
    return [TENSORS[f"{case}.in.noise.{index}"], *(TENSORS[name] for name in sources)]


@pytest.mark.parametrize("padded", [True, False], ids=["text padded", "text cut"])
@pytest.mark.parametrize("case", CASES)
def test_the_velocity_is_the_references(network, case, padded):
    for index in range(CASES[case]):
        pictures = sample(case, index)
        mask = TENSORS[f"{case}.in.text_mask"][index : index + 1].bool()
        text = TENSORS[f"{case}.in.text"][index : index + 1]
        with torch.no_grad():
            (velocity,) = network(
                torch.cat([patches(one) for one in pictures])[None],
                text if padded else text[:, mask[0]],
                TENSORS[f"{case}.in.timestep"][index : index + 1],
                [grid(one) for one in pictures],
                mask if padded else None,
            )
        expected = patches(TENSORS[f"{case}.out.velocity.{index}"])
        torch.testing.assert_close(velocity[0], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_positions_are_the_references(case):
    for index in range(CASES[case]):
        length = FACTS["cases"][case]["text_lengths"][index]
        ids = position_ids(torch.tensor([length]), length, [grid(one) for one in sample(case, index)])
        assert torch.equal(ids[0].int(), TENSORS[f"{case}.mid.position_ids"][index, : ids.shape[1]])


@pytest.fixture(scope="module")
def editor(network):
    pipeline = OmniGen2Pipeline(network, tiny_codec(), FlowMatchEulerDiscreteScheduler(), None, None)
    editor = OmniGen2Editor(pipeline, read_editor_preset("omnigen2"))
    editor.multiple = 16
    return editor


def one_row(editor, index):
    """One row's negative encoding and its positive one with mask; the reference's batch had rows of their own."""
    negative = STATES["in.negative_text"][index : index + 1]
    editor.__dict__["negative"] = negative[:, STATES["in.negative_text_mask"][index].bool()]
    return STATES["in.text"][index : index + 1], STATES["in.text_mask"][index : index + 1].bool()


def trajectory(editor, case, index):
    """Latents (steps, S, C) of a task with one source, by the editor's own sampling."""
    facts, size = SAMPLING["cases"][case], (64, 96)
    prompt, mask = one_row(editor, index)
    source = patches(STATES[f"in.sources_one.{index}.0"])[None]
    condition = Conditioning(size, {"prompt": prompt, "prompt_mask": mask, "source": source})
    editor.settings = editor.settings.model_copy(
        update={"image_guidance": facts["image_guidance"], "guidance_range": tuple(facts["cfg_range"])}
    )
    sigmas = editor.sigmas(facts["steps"], size)
    torch.testing.assert_close(1 - sigmas[:-1], STATES[f"{case}.timesteps"], atol=2e-7, rtol=0)
    x, states = patches(STATES["in.noise"][index])[None], []
    for pair in pairwise(sigmas):
        x = integrate(editor, x, condition, torch.stack(pair), facts["text_guidance"])
        states.append(x[0])
    return torch.stack(states)


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("case", ["unguided", "text", "text_image", "text_image_range", "text_image_late"])
def test_sampling_is_the_references(editor, monkeypatch, case, index):
    passes = []
    forward = editor.network.forward
    monkeypatch.setattr(editor.network, "forward", lambda *args, **kwargs: passes.append(1) or forward(*args, **kwargs))
    states = trajectory(editor, case, index)
    expected = torch.stack([patches(state) for state in STATES[f"{case}.latents"][:, index]])
    torch.testing.assert_close(states, expected, atol=5e-5 if case == "unguided" else 2e-4, rtol=0)
    assert len(passes) == SAMPLING["cases"][case]["forwards"]


@torch.no_grad()
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("case", ["two_sources", "no_source"])
def test_sampling_with_other_numbers_of_sources_is_the_references(editor, case, index):
    facts = SAMPLING["cases"][case]
    text, mask = one_row(editor, index)
    text = text[:, mask[0]]
    sources = sorted(name for name in STATES if name.startswith(f"in.sources_two.{index}.") and case == "two_sources")
    pictures = [STATES[name] for name in sources]
    x = patches(STATES["in.noise"][index])[None]

    def answer(text, pictures):
        states = torch.cat([x, *(patches(one)[None] for one in pictures)], dim=1)
        return editor.network(states, text, 1 - sigma.view(1), [(4, 6), *(grid(one) for one in pictures)])[0]

    image_guidance = facts["image_guidance"]
    for step, (sigma, following) in enumerate(pairwise(editor.sigmas(facts["steps"], (64, 96)))):
        pictured = answer(editor.negative, pictures) if image_guidance > 1 else None
        velocity, against = answer(text, pictures), answer(editor.negative, [])
        x = x - (following - sigma) * guide(velocity, pictured, against, facts["text_guidance"], image_guidance)
        expected = patches(STATES[f"{case}.latents"][step, index])
        torch.testing.assert_close(x[0], expected, atol=2e-4, rtol=0)


def test_image_guidance_alone_is_none(editor):
    condition = Conditioning(
        (64, 96), {"prompt": torch.randn(1, 3, 20), "prompt_mask": torch.ones(1, 3, dtype=torch.bool)}
    )
    condition.parts["source"] = torch.randn(1, 24, 16)
    x, sigma = torch.randn(1, 24, 16), torch.tensor([0.4])
    editor.settings = editor.settings.model_copy(update={"image_guidance": 2.0})
    with torch.no_grad():
        alone = editor.velocity(x, sigma, condition, 1.0)
        editor.settings = editor.settings.model_copy(update={"image_guidance": 1.0})
        assert torch.equal(editor.velocity(x, sigma, condition, 1.0), alone)


def test_noise_levels_and_sizes_are_the_references(editor):
    for name, facts in SAMPLING["schedules"].items():
        if not name.startswith("latent"):
            continue
        side, steps = name.removeprefix("latent ").split(", ")
        height, width = (8 * int(one) for one in side.split("x"))
        sigmas = editor.sigmas(int(steps.split()[0]), (height, width))
        torch.testing.assert_close(1 - sigmas[:-1], torch.tensor(facts["timesteps"]), atol=2e-7, rtol=0)
    preset = read_editor_preset("omnigen2")
    for row in SAMPLING["size_rule"]:
        limits = {"area": row["max_pixels"], "longest_side": row["max_side"]}
        editor.settings = preset.model_copy(update=limits)
        expected = max(16, row["to_height"]), max(16, row["to_width"])
        assert editor.size_for(row["height"], row["width"]) == expected

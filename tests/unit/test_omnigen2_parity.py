"""OmniGen2's transformer and its sampling give what the published code gives, case by case."""

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from safetensors.torch import load_file

from editloop.models.editors.omnigen2 import OmniGen2Editor, OmniGen2Pipeline, guide
from editloop.models.editors.omnigen2_network import OmniGen2Transformer2DModel, position_ids
from editloop.models.editors.protocol import Conditioning
from editloop.models.editors.sampling import integrate, working_picture
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
EQUAL = {"image_only_is_ignored": "unguided"}
"""Cases of sampling that give what another one gives, whose latents are kept once."""
ONE_SOURCE = [case for case, facts in SAMPLING["cases"].items() if facts["sources"] == "sources_one"]
OTHER_SOURCES = [case for case in SAMPLING["cases"] if case not in ONE_SOURCE]
CODEC = {"scaling_factor": 0.3611, "shift_factor": 0.1159}
"""The released codec's."""


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


STAGES = {
    "time_embedding": r"time_caption_embed\.timestep_embedder",
    "text_embedded": r"time_caption_embed\.caption_embedder",
    "text_refined": r"context_refiner\.0",
    "source_refined": r"ref_image_refiner\.0",
    "noise_refined": r"noise_refiner\.0",
    "joint_after_layer0": r"layers\.0",
    "joint_after_layer1": r"layers\.1",
}
"""Modules whose outputs the fixtures have, by the name there."""


@pytest.mark.parametrize("case", CASES)
def test_what_each_stage_of_the_network_gives_is_the_references(network, case):
    outputs = {stage: [] for stage in STAGES}
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, stage=stage: outputs[stage].append(output))
        for name, module in network.named_modules()
        for stage, pattern in STAGES.items()
        if re.fullmatch(pattern, name)
    ]
    assert len(hooks) == len(STAGES)
    for index in range(CASES[case]):
        for kept in outputs.values():
            kept.clear()
        text = TENSORS[f"{case}.in.text"][index : index + 1, TENSORS[f"{case}.in.text_mask"][index].bool()]
        pictures = sample(case, index)
        states = torch.cat([patches(one) for one in pictures])[None]
        with torch.no_grad():
            network(states, text, TENSORS[f"{case}.in.timestep"][index : index + 1], [grid(one) for one in pictures])
        assert len(outputs["source_refined"]) == len(pictures) - 1
        for stage, kept in outputs.items():
            for number, output in enumerate(kept):
                name = f"{case}.mid.{stage}.{index}" + (f".{number}" if stage == "source_refined" else "")
                expected = TENSORS[f"{case}.mid.{stage}"][index] if stage == "time_embedding" else TENSORS[name]
                # the sum of a long row of float32 numbers about 30 in size, after a sinusoid of the time
                torch.testing.assert_close(output[0], expected, atol=1e-4, rtol=1e-4)
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("case", CASES)
def test_positions_are_the_references(case):
    for index in range(CASES[case]):
        length = FACTS["cases"][case]["text_lengths"][index]
        ids = position_ids(torch.tensor([length]), length, [grid(one) for one in sample(case, index)])
        assert torch.equal(ids[0].int(), TENSORS[f"{case}.mid.position_ids"][index, : ids.shape[1]])


@pytest.fixture(scope="module")
def editor(network):
    return editor_of(network, FlowMatchEulerDiscreteScheduler())


def editor_of(network, scheduler):
    codec = tiny_codec()
    codec.register_to_config(**CODEC)
    editor = OmniGen2Editor(OmniGen2Pipeline(network, codec, scheduler, None, None), read_editor_preset("omnigen2"))
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
    torch.testing.assert_close(1 - sigmas[:-1], STATES[f"{EQUAL.get(case, case)}.timesteps"], atol=2e-7, rtol=0)
    x, states = patches(STATES["in.noise"][index])[None], []
    for pair in pairwise(sigmas):
        x = integrate(editor, x, condition, torch.stack(pair), facts["text_guidance"])
        states.append(x[0])
    return torch.stack(states)


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("case", ONE_SOURCE)
def test_sampling_is_the_references(editor, monkeypatch, case, index):
    passes = []
    forward = editor.network.forward
    monkeypatch.setattr(editor.network, "forward", lambda *args, **kwargs: passes.append(1) or forward(*args, **kwargs))
    states = trajectory(editor, case, index)
    assert len(passes) == SAMPLING["cases"][case]["forwards"]
    case = EQUAL.get(case, case)
    expected = torch.stack([patches(state) for state in STATES[f"{case}.latents"][:, index]])
    torch.testing.assert_close(states, expected, atol=5e-5 if case == "unguided" else 2e-4, rtol=0)
    times = torch.cat([STATES[f"{case}.timesteps"], torch.ones(1)])
    before = torch.cat([patches(STATES["in.noise"][index])[None], states[:-1]])
    velocities = (states - before) / times.diff().view(-1, 1, 1)
    expected = torch.stack([patches(velocity) for velocity in STATES[f"{case}.velocity"][:, index]])
    torch.testing.assert_close(velocities, expected, atol=1e-4 if case == "unguided" else 3e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("case", OTHER_SOURCES)
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
        guided = guide(velocity, pictured, against, facts["text_guidance"], image_guidance)
        expected = patches(STATES[f"{case}.velocity"][step, index])
        torch.testing.assert_close(guided[0], expected, atol=3e-4, rtol=0)
        x = x - (following - sigma) * guided
        expected = patches(STATES[f"{case}.latents"][step, index])
        torch.testing.assert_close(x[0], expected, atol=2e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("index", [0, 1])
def test_the_editors_own_sampling_with_a_reference_is_the_references(editor, index):
    case = "two_sources"
    facts, (prompt, mask) = SAMPLING["cases"][case], one_row(editor, index)
    pictures = [STATES[name] for name in sorted(STATES) if name.startswith(f"in.sources_two.{index}.")]
    assert len(pictures) == 2
    size, reference = ((16 * rows, 16 * columns) for rows, columns in map(grid, pictures))
    source = torch.cat([patches(one) for one in pictures])[None]
    parts = {"prompt": prompt, "prompt_mask": mask, "source": source}
    editor.settings = editor.settings.model_copy(
        update={"image_guidance": facts["image_guidance"], "guidance_range": tuple(facts["cfg_range"])}
    )
    x = patches(STATES["in.noise"][index])[None]
    assert (size, reference) == ((64, 96), [(48, 80), (32, 32)][index])
    condition = Conditioning(size, parts, (reference,))
    for step, pair in enumerate(pairwise(editor.sigmas(facts["steps"], size))):
        x = integrate(editor, x, condition, torch.stack(pair), facts["text_guidance"])
        torch.testing.assert_close(x[0], patches(STATES[f"{case}.latents"][step, index]), atol=2e-4, rtol=0)


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
    unshifted = editor_of(editor.network, FlowMatchEulerDiscreteScheduler())
    unshifted.pipeline.scheduler.register_to_config(dynamic_time_shift=False)
    for name, facts in SAMPLING["schedules"].items():
        side, steps = name.split(", ")
        is_shifted = side != "dynamic_time_shift false"
        height, width = (8 * int(one) for one in side.removeprefix("latent ").split("x")) if is_shifted else (64, 96)
        sigmas = (editor if is_shifted else unshifted).sigmas(int(steps.split()[0]), (height, width))
        torch.testing.assert_close(1 - sigmas[:-1], torch.tensor(facts["timesteps"]), atol=2e-7, rtol=0)
    preset = read_editor_preset("omnigen2")
    for row in SAMPLING["size_rule"]:
        limits = {"area": row["max_pixels"], "longest_side": row["max_side"]}
        editor.settings = preset.model_copy(update=limits)
        expected = max(16, row["to_height"]), max(16, row["to_width"])
        assert editor.size_for(row["height"], row["width"]) == expected


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("case", [case for case in SAMPLING["cases"] if case not in EQUAL])
def test_what_the_codec_decodes_is_the_references(editor, monkeypatch, case, index):
    decoded = []
    monkeypatch.setattr(editor.pipeline.vae, "decode", lambda x, **_: decoded.append(x) or (torch.zeros(1, 3, 64, 96),))
    editor.decode(patches(STATES[f"{case}.latents"][-1, index])[None], (64, 96))
    torch.testing.assert_close(decoded[0][0], STATES[f"{case}.given_to_vae_decode"][index], atol=1e-5, rtol=1e-5)


def test_a_source_is_resized_and_scaled_as_the_references(editor, monkeypatch):
    seen = []
    monkeypatch.setattr(editor, "to_latents", lambda pixels: seen.append(pixels) or torch.zeros(1, 6, 16))
    monkeypatch.setattr(editor, "settings", read_editor_preset("omnigen2"))
    picture = working_picture(editor, Image.fromarray(STATES["picture.in_uint8_hwc"].numpy()))
    editor.latents(np.asarray(picture)[None])
    torch.testing.assert_close(seen[0][0], STATES["picture.preprocessed"], atol=1e-6, rtol=0)


COMPARED = (
    r"weight\..*",
    r"in\..*",
    rf"({'|'.join(CASES)})\.(in\..*|out\.velocity\.\d|mid\.position_ids|mid\.({'|'.join(STAGES)})(\.\d)*)",
    rf"({'|'.join(ONE_SOURCE + OTHER_SOURCES)})\.(timesteps|velocity|latents|given_to_vae_decode)",
    r"picture\.(in_uint8_hwc|preprocessed)",
)
"""The fixtures' tensors that the tests above read."""


def test_no_case_and_no_tensor_of_the_fixtures_is_left_out():
    assert len(CASES) == 5
    assert sum(CASES.values()) == 9
    assert (len(ONE_SOURCE), len(OTHER_SOURCES)) == (6, 2)
    assert {len(sample(case, index)) - 1 for case in CASES for index in range(CASES[case])} == {0, 1, 2, 5}
    left_out = [name for name in (*TENSORS, *STATES) if not any(re.fullmatch(one, name) for one in COMPARED)]
    assert left_out == []

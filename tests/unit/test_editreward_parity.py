"""Released EditReward weights give the scores that the published code gives, from pictures and from tensors."""

from itertools import product

import pytest
import torch
from safetensors.torch import load_file

from editloop.models.backbones.picture_inputs import Patches, normalised_patches
from editloop.models.backbones.prefix_tree import Node, last_hidden, node_ends, pack
from editloop.models.edit_reward.judge import RewardJudge
from editloop.models.edit_reward.model import RewardModel
from tests.editreward_releases import (
    FAMILIES,
    PICTURES_TOLERANCE,
    TENSORS_TOLERANCE,
    add_release,
    expected_scores,
    release_folder,
)
from tests.plain_passes import PlainPasses

pytestmark = pytest.mark.floats

UNSCALED = [[0.0] * 3, [1.0] * 3]
"""Mean and deviation for patches that are normalised already."""


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory):
    torch.set_num_threads(1)
    return add_release(family, tmp_path_factory.mktemp("judges") / family)


@pytest.fixture(scope="module")
def expected(family):
    return expected_scores(family)


def test_from_pictures(folder, expected):
    judge = RewardJudge.load(folder, device="cpu")
    scores = judge.model.score(expected.groups)
    torch.testing.assert_close(scores.mu, expected.mu, atol=PICTURES_TOLERANCE, rtol=0)
    torch.testing.assert_close(scores.log_sigma, expected.log_sigma, atol=PICTURES_TOLERANCE, rtol=0)
    judged = [score for group in judge.judge(expected.groups[:1]) for score in group]
    fused = [score.fused.mean for score in judged]
    assert fused == pytest.approx(expected.fused[: len(fused)].tolist(), abs=PICTURES_TOLERANCE)


def test_from_pictures_in_plain_passes(folder, expected):
    model = RewardModel.load(folder)
    plain = PlainPasses(model)
    with torch.no_grad():
        mu = model.read(torch.cat([plain.hidden(group) for group in expected.groups])).mu
    torch.testing.assert_close(mu, expected.mu, atol=PICTURES_TOLERANCE, rtol=0)


def test_the_other_positions_give_what_they_give_in_the_published_code(family, expected, tmp_path):
    positions = "mrope" if family == "qwen2.5-vl" else "flat"
    model = RewardModel.load(add_release(family, tmp_path / "judge", positions=positions))
    mu = model.score(expected.groups[:1]).mu
    torch.testing.assert_close(mu, expected.other_positions[: len(mu)], atol=PICTURES_TOLERANCE, rtol=0)
    assert (mu - expected.mu[: len(mu)]).abs().max() > 10 * PICTURES_TOLERANCE


def test_from_tensors(family, folder):
    """The published code's token ids and patches, all packed into one sequence."""
    tensors = load_file(release_folder(family) / "fixture.safetensors")
    model = RewardModel.load(folder)
    marks, flat = model.inputs.marks, model.settings.positions == "flat"
    grids = tensors["tensors.in.head0.image_grid_thw"].tolist()
    vision = model.backbone.config.vision_config
    shape = (3, vision.temporal_patch_size, vision.patch_size, vision.patch_size)
    values = tensors["tensors.in.head0.pixel_values"].float().unflatten(1, shape)
    patches = values.split([rows * columns for _, rows, columns in grids])
    trees = []
    for edit, head in product(range(2), range(2)):
        ids = tensors[f"tensors.in.head{head}.input_ids"][edit].tolist()
        opening, text = ids[: ids.index(marks.start)], ids[len(ids) - ids[::-1].index(marks.end) :]
        source, edited = (
            Patches(patches[place], torch.tensor(UNSCALED), tuple(grids[place]), bytes([place]))
            for place in (2 * edit, 2 * edit + 1)
        )
        reward = text[: text.index(model.inputs.reward) + 1]
        trees.append(Node((opening, source), (Node((edited, reward)),)))
    batch = pack(trees, marks, flat_positions=flat)
    with torch.no_grad():
        ends = node_ends(batch)[1::2]
        scores = model.read(last_hidden(model.backbone, batch)[ends].unflatten(0, (2, 2)))
    expected = tensors["tensors.out.mu_logsigma"]
    torch.testing.assert_close(torch.stack(scores, dim=-1), expected, atol=TENSORS_TOLERANCE, rtol=0)


def test_from_tensors_in_plain_passes(family, folder):
    """The published code's padded batch, a pass a head, through transformers' own attention."""
    tensors = load_file(release_folder(family) / "fixture.safetensors")
    model = RewardModel.load(folder)
    plain = PlainPasses(model)
    hidden = []
    for head in range(2):
        ids, mask = (tensors[f"tensors.in.head{head}.{name}"] for name in ("input_ids", "attention_mask"))
        positions = {}
        if model.settings.positions == "flat":
            positions["position_ids"] = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1).expand(3, -1, -1)
        states = plain.backbone(
            input_ids=ids,
            attention_mask=mask,
            pixel_values=tensors["tensors.in.head0.pixel_values"].float(),
            image_grid_thw=tensors["tensors.in.head0.image_grid_thw"],
            mm_token_type_ids=(ids == model.inputs.marks.image).int(),
            use_cache=False,
            **positions,
        ).last_hidden_state
        hidden.append(states[ids == model.inputs.reward])
    scores = model.read(torch.stack(hidden, dim=1))
    expected = tensors["tensors.out.mu_logsigma"]
    torch.testing.assert_close(torch.stack(scores, dim=-1), expected, atol=TENSORS_TOLERANCE, rtol=0)


def test_token_ids_and_patches_of_a_picture_are_those_of_the_published_code(family, folder, expected):
    tensors = load_file(release_folder(family) / "fixture.safetensors")
    batch = RewardModel.load(folder).collate([expected.groups[0]])
    spans = batch["nodes"].tolist()
    for head in range(2):
        path = [spans[0], spans[1], spans[2 + head]]
        ids = [token for start, length, _ in path for token in batch["input_ids"][0, start : start + length].tolist()]
        published = tensors[f"pictures.0.ids.head{head}"].tolist()
        assert published[: len(ids)] == ids
    first_rows = tensors["pictures.0.pixel_values_first_8_rows"]
    read = normalised_patches(batch["pixel_values"][:8], batch["pixel_scale"], 2)
    torch.testing.assert_close(read, first_rows, atol=2e-2, rtol=0)

"""Sampling for RL: what an edit is depends on its name alone, what a group shares is computed once."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from editloop.data.edits_file import read_edits
from editloop.errors import EditLoopError
from editloop.models.editors.opening import open_editor
from editloop.models.editors.protocol import join_conditions
from editloop.studies.world.scenes import write_edits
from editloop.training.editor_rl.build_algorithm import build_algorithm
from editloop.training.editor_rl.flow_grpo_algorithm import GrpoLevel
from editloop.training.editor_rl.nft_algorithm import NftLevel
from editloop.training.editor_rl.policy_loss import probability_ratio
from editloop.training.editor_rl.prompts import Prompts
from editloop.training.editor_rl.rollout import SamplingCost, sample_rollout
from editloop.training.editor_rl.settings import RlSettings
from editloop.training.editor_rl.trained_weights import TrainedWeights
from editloop.training.encoding_store import GIGABYTE, EncodingStore

pytestmark = pytest.mark.floats

SIZES = {"members": 3, "tasks": 4}
ALGORITHMS = [{"name": "flow-grpo"}, {"name": "nft", "levels": 2}]


@pytest.fixture(scope="module")
def editor():
    torch.manual_seed(0)
    editor = open_editor("tiny-editor")
    editor.trained = editor.add_adapter(4, 8)
    return editor


@pytest.fixture(scope="module")
def prompts(editor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("edits")
    write_edits(folder, 6, 1)
    prompts = Prompts(read_edits(folder), editor, EncodingStore(folder / "encodings", most_bytes=GIGABYTE), seed=3)
    prompts.encode([range(6)], 6)
    return prompts


def algorithm_of(settings, editor):
    return build_algorithm(settings, editor, TrainedWeights(editor.trained))


def rolled(settings, editor, prompts, tasks, *, counts=None, window=range(1, 3)):
    """Edits of iteration 5; where steps are stochastic they are those of `window`."""
    condition = join_conditions([one.condition for one in prompts.encoded_tasks(tasks)])
    plan = algorithm_of(settings, editor).sampling_plan(5)
    if plan.window:
        plan = replace(plan, window=window)
    return sample_rollout(settings, plan, editor, condition, tasks, 5, counts or SamplingCost())


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("storage", ["fp32", "bf16"])
@pytest.mark.parametrize("step", ["flow-sde", "cps", "dance-sde"])
def test_the_ratio_is_exactly_one_before_the_first_update(editor, prompts, shared, storage, step):
    grpo = {"name": "flow-grpo", "shared_noise": shared, "storage": storage, "step": step}
    settings = RlSettings(**SIZES, algorithm=grpo)
    rollout = rolled(settings, editor, prompts, [0, 1, 2, 3])
    levels = algorithm_of(settings, editor).update_levels(rollout, 5, with_base=True)
    for level, kept in zip(levels, rollout.window, strict=True):
        assert isinstance(level, GrpoLevel)
        assert kept.before.dtype == (torch.bfloat16 if storage == "bf16" else torch.float32)
        found = level.losses(torch.arange(12), torch.ones(12))
        assert torch.equal(found.figures["ratio"], torch.ones(12))
        assert torch.equal(probability_ratio(kept.log_prob, kept.log_prob), torch.ones(12))
        assert found.loss.requires_grad
    if shared:
        first = rollout.window[0].before.view(4, 3, -1)
        assert torch.equal(first[:, 0], first[:, 2])
        assert not torch.equal(rollout.latents.view(4, 3, -1)[:, 0], rollout.latents.view(4, 3, -1)[:, 2])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_edit_depends_on_its_name_alone_whatever_it_is_sampled_with(editor, prompts, algorithm):
    settings = RlSettings(**SIZES, algorithm=algorithm, micro_batch=5)
    whole = rolled(settings, editor, prompts, [4, 1, 2])
    alone = rolled(settings, editor, prompts, [2])
    torch.testing.assert_close(whole.latents[6:], alone.latents, atol=2e-5, rtol=1e-4)
    assert whole.names[6:] == alone.names
    again = whole.subset(torch.tensor([7, 8]))
    assert again.names == [(2, 1), (2, 2)]
    one, other = (
        algorithm_of(settings, editor).update_levels(rollout, 5, with_base=True)[0] for rollout in (again, alone)
    )
    if isinstance(one, NftLevel):
        torch.testing.assert_close(one.noised, other.noised[1:], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("common", [True, False])
def test_members_of_a_group_are_noised_alike_where_that_is_asked_for(editor, prompts, common):
    settings = RlSettings(members=3, algorithm={"name": "nft", "common_noise": common})
    rollout = rolled(settings, editor, prompts, [0, 1])
    levels = algorithm_of(settings, editor).update_levels(rollout, 5, with_base=False)
    assert len({float(level.sigma[0]) for level in levels}) == len(levels) == 3
    for level in levels:
        sigma = level.sigma[:, None, None]
        noise = (level.noised - (1 - sigma) * rollout.latents).view(2, 3, -1) / level.sigma.view(2, 3, 1)
        assert torch.allclose(noise[:, 0], noise[:, 1], atol=1e-3) == common
        assert torch.equal(level.sigma.view(2, 3)[:, 0], level.sigma.view(2, 3)[:, 2]) == common
        assert not torch.allclose(noise[0, 0], noise[1, 0], atol=1e-3)


def test_an_edit_is_trained_at_noise_levels_that_it_was_sampled_at(editor, prompts):
    nft = {"name": "nft", "levels": 7, "times": "rollout"}
    settings = RlSettings(members=3, algorithm=nft, sampling_steps=8)
    rollout = rolled(settings, editor, prompts, [0, 1])
    levels = algorithm_of(settings, editor).update_levels(rollout, 5, with_base=False)
    times = torch.stack([level.sigma for level in levels], 1)
    assert len(rollout.sigmas) == 9
    for row in times.tolist():
        assert len(set(row)) == 7
        assert set(row) <= set(torch.tensor(rollout.sigmas[:-1]).tolist())
    assert len({tuple(row) for row in times.tolist()}) == 6, "each edit has its own"
    again = algorithm_of(settings, editor).update_levels(rollout.subset(torch.tensor([4])), 5, with_base=False)
    assert [level.sigma.item() for level in again] == times[4].tolist()


def guidances(settings, editor, prompts, monkeypatch):
    """What the editor is asked with, step by step."""
    asked = []
    velocity = type(editor).velocity
    monkeypatch.setattr(type(editor), "velocity", lambda *args: (asked.append(args[4]), velocity(*args))[1])
    rolled(settings, editor, prompts, [0])
    return asked


@pytest.mark.parametrize(("share", "guided"), [(1.0, 8), (0.5, 5), (0.49, 4), (0.0001, 1)])
def test_steps_up_to_a_share_of_them_are_guided(editor, prompts, monkeypatch, share, guided):
    settings = RlSettings(members=3, guidance=2.0, algorithm={"name": "flow-grpo", "guidance_share": share})
    assert guidances(settings, editor, prompts, monkeypatch) == [2.0] * guided + [1.0] * (8 - guided)


def test_a_rollouts_noise_levels_may_be_shifted_and_its_solver_chosen(editor, prompts):
    plain = rolled(RlSettings(members=3, sampling_steps=4), editor, prompts, [0])
    shifted = rolled(RlSettings(members=3, sampling_steps=4, sigma_shift=2.0), editor, prompts, [0])
    assert shifted.sigmas == pytest.approx([2 * sigma / (1 + sigma) for sigma in plain.sigmas])
    assert not torch.allclose(plain.latents, shifted.latents, atol=1e-3)
    second = rolled(
        RlSettings(members=3, sampling_steps=4, algorithm={"name": "nft", "solver": "dpm2"}), editor, prompts, [0]
    )
    assert second.sigmas == plain.sigmas
    assert (second.latents - plain.latents).abs().max() > 1e-3
    fine = rolled(RlSettings(members=3, sampling_steps=64), editor, prompts, [0]).latents
    assert (second.latents - fine).norm() < (plain.latents - fine).norm(), "of second order"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_base_is_asked_only_where_the_distance_is_wanted(editor, prompts, algorithm):
    settings = RlSettings(**SIZES, algorithm=algorithm, kl=0.0)
    rollout = rolled(settings, editor, prompts, [0])
    losses = []
    for with_base in (True, False):
        level = algorithm_of(settings, editor).update_levels(rollout, 5, with_base=with_base)[0]
        losses.append(level.losses(torch.arange(3), torch.tensor([1.0, -1.0, 0.5])))
    assert torch.equal(losses[0].loss, losses[1].loss)
    assert set(losses[0].figures) - set(losses[1].figures) == {"kl"}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_algorithm_has_the_levels_and_figures_that_it_says(editor, prompts, algorithm):
    settings = RlSettings(**SIZES, algorithm=algorithm)
    built = algorithm_of(settings, editor)
    rollout = rolled(settings, editor, prompts, [0])
    levels = built.update_levels(rollout, 5, with_base=False)
    assert len(levels) == built.levels == 2
    assert set(levels[0].losses(torch.arange(3), torch.ones(3)).figures) == set(built.figure_names)


def test_the_old_policy_samples_and_follows_the_trained_weights(editor):
    algorithm = algorithm_of(RlSettings(algorithm={"name": "nft", "old_policy_decay": 0.75}), editor)
    first = editor.trained[0]
    start = first.detach().clone()
    with torch.no_grad():
        first += 1.0
    with algorithm.sampling_weights():
        assert torch.equal(first, start)
    assert torch.equal(first, start + 1.0)
    algorithm.end_iteration(1)
    torch.testing.assert_close(algorithm.state()["old.0"], start + 0.25)
    with torch.no_grad():
        first.copy_(start)


def test_flow_grpo_samples_with_the_trained_weights_and_keeps_nothing(editor):
    algorithm = algorithm_of(RlSettings(algorithm={"name": "flow-grpo"}), editor)
    before = editor.trained[0].data_ptr()
    with algorithm.sampling_weights():
        assert editor.trained[0].data_ptr() == before
    assert algorithm.state() == {}


def test_steps_before_the_window_are_computed_once_a_group(editor, prompts):
    counts = SamplingCost()
    settings = RlSettings(**SIZES, algorithm={"name": "flow-grpo", "shared_noise": True}, sampling_steps=8)
    rolled(settings, editor, prompts, [0, 1], counts=counts, window=range(3, 5))
    assert counts.shared == 2 * 3
    assert counts.network == 2 * 3 + 2 * 3 * 5


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_task_is_encoded_once_however_little_memory_there_is(editor, tmp_path, dtype):
    write_edits(tmp_path, 5, 2)
    rows, folder = read_edits(tmp_path), tmp_path / "encodings"
    small = Prompts(rows, editor, EncodingStore(folder, most_bytes=30_000), seed=0, dtype=dtype)
    small.encode([[0, 1], [2, 0]], 2)
    before = small.encoded_tasks([2, 0, 2])
    small.encode([[3, 4, 2]], 2)
    assert small.encodings == 5
    assert 0 < small.store.bytes <= 30_000 < sum(path.stat().st_size for path in folder.iterdir())
    again = Prompts(rows, editor, EncodingStore(folder, most_bytes=0), seed=0)
    again.encode([range(5)], 5)
    assert again.encodings == 0, "another rank, or a later call, finds them"
    assert again.store.bytes == 0
    for one, other in zip(before, again.encoded_tasks([2, 0, 2]), strict=True):
        assert np.array_equal(one.source, other.source)
        torch.testing.assert_close(one.condition.parts, other.condition.parts, rtol=0, atol=0)
    (first,) = editor.encode([rows[0].instruction], before[1].source[None]).parts["prompt"]
    assert before[1].condition.parts["prompt"].dtype == (dtype or torch.float32)
    torch.testing.assert_close(before[1].condition.parts["prompt"][0], first.to(dtype), rtol=1e-2, atol=1e-5)


def test_a_full_disk_is_told_in_a_line(editor, tmp_path):
    write_edits(tmp_path, 1, 2)
    (tmp_path / "encodings").write_text("no folder")
    prompts = Prompts(read_edits(tmp_path), editor, EncodingStore(tmp_path / "encodings", most_bytes=0), seed=0)
    with pytest.raises(EditLoopError, match="encodings: the encodings of the tasks cannot be written"):
        prompts.encode([[0]], 1)


def test_which_tasks_an_iteration_takes_follows_from_seed_iteration_and_what_is_solved(prompts):
    assert np.array_equal(prompts.chosen(7, 4, set()), prompts.chosen(7, 4, set()))
    assert any(not np.array_equal(prompts.chosen(7, 4, set()), prompts.chosen(at, 4, set())) for at in range(8, 11))
    assert sorted(prompts.chosen(7, 4, {0, 1, 2})) == [3, 4, 5]

"""Solvers, stochastic steps, advantages, weights, decays and whole updates give what the published code gives.

The numbers are of tests/parity/rl.json, which says which code they are of.
"""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from editloop.models.editors.omnigen2 import SHIFT_SIDE
from editloop.models.editors.protocol import Conditioning
from editloop.models.editors.solvers import SOLVERS, OdeSolver
from editloop.training.editor_rl.advantages import Advantages, compute_advantages, teachable
from editloop.training.editor_rl.algorithm import UpdateLevel
from editloop.training.editor_rl.iteration import Iteration
from editloop.training.editor_rl.loop import Training
from editloop.training.editor_rl.nft import old_policy_decay
from editloop.training.editor_rl.nft_algorithm import NftAlgorithm, NftLevel
from editloop.training.editor_rl.policy_loss import clipped_loss, probability_ratio
from editloop.training.editor_rl.reweighting import step_weights
from editloop.training.editor_rl.rollout import Rollout
from editloop.training.editor_rl.sde import cps, draw_gaussian, flow_sde, gaussian_kl, log_prob
from editloop.training.editor_rl.settings import RlSettings, read_rl_preset
from editloop.training.editor_rl.trained_weights import TrainedWeights
from editloop.training.editor_rl.update_steps import optimiser_steps
from editloop.training.flow_matching import shifted
from tests.toy_editing import one_rank

pytestmark = pytest.mark.floats

PARITY = Path(__file__).parents[1] / "parity"
FACTS = json.loads((PARITY / "rl.json").read_text())["facts"]
TENSORS = load_file(PARITY / "rl.safetensors")
STATES = {"rtol": 0, "atol": 2e-5}
STEPS = {"rtol": 2e-6, "atol": 2e-6}
GROUPS = torch.tensor([0, 1, 2])


def of(name: str) -> Tensor:
    return TENSORS[name]


def travelled(solver: OdeSolver, sigmas: list[float]) -> list[Tensor]:
    """States of a trajectory with the velocity of the fixture."""
    states = [of("solver.z")]
    for index, sigma in enumerate(sigmas[:-1]):
        v = states[-1] @ of("solver.M") + sigma * of("solver.b")
        states.append(solver.step(states[-1], v, index))
    return states


@pytest.mark.parametrize("schedule", FACTS["solver"]["schedules"])
@pytest.mark.parametrize(("name", "published"), [("euler", "flow"), ("euler", "dpm1"), ("dpm2", "dpm2")])
def test_solvers_take_the_published_steps(schedule: str, name: Any, published: str) -> None:
    sigmas = of(f"solver.{schedule}.sigmas").tolist()
    expected = of(f"solver.{schedule}.{published}")
    torch.testing.assert_close(torch.stack(travelled(SOLVERS[name](sigmas), sigmas)), expected, **STATES)
    apart = (expected[-1] - of(f"solver.{schedule}.{'flow' if published == 'dpm2' else 'dpm2'}")[-1]).abs().max()
    assert apart > 100 * STATES["atol"], "a solver in the other's place would be seen"


def test_the_stochastic_steps_of_flow_grpo() -> None:
    x, v, noise, sigmas = (of(f"logprob.{name}") for name in ("x", "v", "noise", "sigmas"))
    for index, (sigma, following) in enumerate(pairwise(sigmas.tolist())):
        mean, deviation = flow_sde(x, v, sigma, following, 0.7)
        drawn = draw_gaussian(mean, deviation, noise)
        torch.testing.assert_close(mean, of("logprob.sde_mean")[index], **STEPS)
        assert deviation == pytest.approx(of("logprob.sde_dev")[index].item(), rel=2e-6)
        torch.testing.assert_close(drawn, of("logprob.sde_next")[index], **STEPS)
        torch.testing.assert_close(log_prob(drawn, mean, deviation), of("logprob.sde_logprob")[index], **STEPS)
        published = (mean - x).square().mean((1, 2)) / of("logprob.sde_published_kl_divisor")[index]
        torch.testing.assert_close(gaussian_kl(mean, x, deviation, following - sigma), published, rtol=1e-5, atol=1e-6)


def test_coefficient_preserving_steps_and_what_their_published_log_probability_leaves_out() -> None:
    """The published one is the density's exponent without its variance: minus the mean square of what was drawn."""
    x, v, noise, sigmas = (of(f"logprob.{name}") for name in ("x", "v", "noise", "sigmas"))
    for index, (sigma, following) in enumerate(pairwise(sigmas.tolist())):
        mean, deviation = cps(x, v, sigma, following, 0.8)
        drawn = draw_gaussian(mean, deviation, noise)
        torch.testing.assert_close(mean, of("logprob.cps_mean")[index], **STEPS)
        assert deviation == pytest.approx(of("logprob.cps_dev")[index].item(), rel=2e-6, abs=1e-7)
        torch.testing.assert_close(drawn, of("logprob.cps_next")[index], **STEPS)
        if following:
            ours = log_prob(drawn, mean, deviation) - log_prob(mean, mean, deviation)
            torch.testing.assert_close(ours * 2 * deviation**2, of("logprob.cps_logprob")[index], rtol=1e-4, atol=1e-6)


def omnigen2_sigmas() -> list[list[float]]:
    """Noise levels of the two sizes of the fixture: OmniGen2's own, with the preset's shift on top."""
    schedules, shift = [], read_rl_preset("editscore-omnigen2").sigma_shift
    for pixels in (32 * 64, 48 * 40):
        own, time = pixels**0.5 / SHIFT_SIDE, torch.linspace(0, 1, 21)
        schedules.append(shifted(1 - time / (own - own * time + time), shift).tolist())
    return schedules


def test_omnigen2_rl_takes_its_stochastic_steps() -> None:
    """Its time runs from noise to image, and so does its velocity. Padded tokens of a sample are left out here."""
    schedules = omnigen2_sigmas()
    for sample, valid in enumerate(of("og2rl.mask").sum(1).int().tolist()):
        sigmas = schedules[sample]
        torch.testing.assert_close(1 - torch.tensor(sigmas), of("og2rl.timesteps_with_end")[sample], **STEPS)
        one = slice(sample, sample + 1)
        rates = []
        for sigma, following in pairwise(sigmas):
            _, deviation = flow_sde(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), sigma, following, 0.7)
            rates.append(deviation / (sigma - following) ** 0.5)
        torch.testing.assert_close(torch.tensor(rates), of("og2rl.sigma_t")[:, sample], rtol=1e-5, atol=1e-6)
        for step in range(4):
            x, v, noise = (of(f"og2rl.{name}")[step, one, :valid] for name in ("latents", "velocity", "noise"))
            mean, deviation = flow_sde(x, -v, sigmas[step], sigmas[step + 1], 0.7)
            drawn = draw_gaussian(mean, deviation, noise)
            torch.testing.assert_close(drawn, of("og2rl.latents")[step + 1, one, :valid], rtol=1e-5, atol=1e-5)
            expected = of("og2rl.log_prob")[step, one]
            torch.testing.assert_close(log_prob(drawn, mean, deviation), expected, rtol=1e-5, atol=1e-5)


def test_omnigen2_rl_has_its_policy_loss() -> None:
    losses, step = [], 2
    for sample, valid in enumerate(of("og2rl.mask").sum(1).int().tolist()):
        one, sigmas = slice(sample, sample + 1), omnigen2_sigmas()[sample]
        x, after = (of("og2rl.latents")[at, one, :valid] for at in (step, step + 1))
        velocity = of("og2rl.update.new_velocity")[one, :valid]
        mean, deviation = flow_sde(x, -velocity, sigmas[step], sigmas[step + 1], 0.7)
        torch.testing.assert_close(mean, of("og2rl.update.mean")[one, :valid], rtol=1e-5, atol=1e-5)
        now = log_prob(after, mean, deviation)
        torch.testing.assert_close(now, of("og2rl.update.log_prob")[one], rtol=1e-5, atol=1e-5)
        ratio = probability_ratio(now, of("og2rl.log_prob")[step, one])
        advantage = torch.tensor([[7.3, -0.8][sample]]).clamp(-5, 5)
        losses.append(clipped_loss(ratio, advantage, 1e-4, 5e-4))
    torch.testing.assert_close(torch.cat(losses).mean(), of("og2rl.update.policy_loss"), rtol=1e-5, atol=1e-5)


def test_omnigen2_rl_weighs_its_trained_steps() -> None:
    sigmas = omnigen2_sigmas()[0]
    deviations = torch.tensor(
        [
            float(flow_sde(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), sigma, following, 0.7)[1])
            for sigma, following in pairwise(sigmas)
        ],
        dtype=torch.float64,
    )
    steps, every = of("og2rl.reweighting.steps"), torch.ones(1, 20, dtype=torch.bool)
    trained = torch.isin(torch.arange(20), steps)[None]
    weights = step_weights("published", deviations, trained)[0, steps]
    torch.testing.assert_close(weights.float(), of("og2rl.reweighting.weights"), rtol=1e-5, atol=1e-5)
    assert weights.sum().item() == pytest.approx(12**2)
    of_all = step_weights("published", deviations, every)[0]
    torch.testing.assert_close(of_all.float(), of("og2rl.reweighting.weights_all_20"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("code", "whose", "scale", "epsilon"),
    [
        ("edit_r1", "group", "group", 1e-4),
        ("edit_r1", "global", "batch", 1e-4),
        ("flow_grpo", "group", "group", 1e-4),
        ("flow_grpo", "global", "batch", 1e-4),
        ("omnigen2_rl", "group", "group", 1e-8),
        ("omnigen2_rl", "batch", "batch", 1e-8),
    ],
)
def test_advantages(code: str, whose: str, scale: Any, epsilon: float) -> None:
    rewards = of("advantages.rewards").view(3, 4)
    found = compute_advantages(rewards, scale, epsilon=epsilon).values.flatten()
    torch.testing.assert_close(found, of(f"advantages.{code}.{whose}").clamp(-5, 5), rtol=1e-5, atol=1e-6)
    two_rows = compute_advantages(rewards.view(6, 2), scale, epsilon=epsilon, groups=torch.tensor([0, 0, 1, 1, 2, 2]))
    torch.testing.assert_close(two_rows.values.flatten(), found, rtol=1e-5, atol=1e-6)


def test_the_old_policys_decay() -> None:
    table = FACTS["decay"]["table"]
    kinds = {"type 0": (0.0, None, 0), "type 1": (0.5, 0.001, 0), "type 2": (0.999, 0.0075, 75)}
    for kind, (highest, rate, flat) in kinds.items():
        assert [old_policy_decay(step, highest, rate, flat) for step in table["steps"]] == pytest.approx(table[kind])


class LinearEditor:
    """The fixture's velocity x W + t b."""

    def __init__(self) -> None:
        self.trained = [nn.Parameter(of("nft.W").clone()), nn.Parameter(of("nft.b").clone())]

    def velocity(self, x: Tensor, sigma: Tensor, condition: Conditioning, guidance: float | None = None) -> Tensor:
        return x @ self.trained[0] + sigma[:, None, None] * self.trained[1]

    def merged(self) -> Any:
        return TrainedWeights([]).swapped([])

    def base(self) -> Any:
        return TrainedWeights(self.trained).swapped([of("nft.W").clone(), of("nft.b").clone()])


class FixtureNft(NftAlgorithm):
    """NFT with the fixture's random numbers."""

    epoch = 0

    def update_levels(self, rollout: Rollout, iteration: int, *, with_base: bool) -> list[UpdateLevel]:
        order = of(f"nft.epoch{self.epoch}.permutation")
        places = torch.tensor([task * 4 + member for task, member in rollout.names])
        times = of(f"nft.epoch{self.epoch}.time_permutation_after_shuffle")
        sigmas, levels = of("nft.timesteps_1000") / 1000, list[UpdateLevel]()
        for level in range(self.levels):
            noise, sigma = torch.zeros(12, 5, 8), torch.zeros(12)
            for batch in range(4):
                drawn = of(f"nft.epoch{self.epoch}.noise.{batch}.{level}")
                noise[order[batch * 3 : batch * 3 + 3]] = drawn
            sigma[order] = sigmas[times[:, level]]
            parts = (rollout, noise[places], sigma[places], self.weights, self.old)
            levels.append(NftLevel(self.settings, self.nft, self.editor, *parts, with_base))
        return levels


class AdamEngine:
    """AdamW with clipping, as the published loop; counts its calls."""

    def __init__(self, trained: list[nn.Parameter]):
        self.trained, self.backwards, self.gradients = trained, 0, list[list[Tensor]]()
        self.optimiser = torch.optim.AdamW(trained, lr=0.03, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-4)
        self.norm = torch.zeros(())

    def backward(self, loss: Tensor) -> None:
        self.backwards += 1
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self) -> None:
        self.gradients.append([one.grad.clone() for one in self.trained if one.grad is not None])
        self.norm = nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()

    def get_global_grad_norm(self) -> float:
        return float(self.norm)


@pytest.fixture
def _rank() -> Iterator[None]:
    with one_rank():
        yield


@pytest.mark.usefixtures("_rank")
def test_two_epochs_of_edit_r1() -> None:
    """Advantages, masks, means of micro-batches, one optimiser step an epoch, the averages, and the old policy."""
    settings = RlSettings(
        algorithm={
            "name": "nft",
            "advantage_clip": 5.0,
            "levels": 5,
            "times": "rollout",
            "old_policy_decay": 0.5,
            "old_policy_rate": 0.001,
        },
        members=4,
        forward_batch=3,
        micro_batch=2,
        optimiser_steps=1,
        sampling_steps=6,
        kl=1e-4,
        ema_decay=0.9,
        ema_every=1,
        train_silent=True,
        mask_solved=True,
        solved_spread=0.05,
    )
    editor: Any = LinearEditor()
    weights, engine = TrainedWeights(editor.trained), AdamEngine(editor.trained)
    assert settings.algorithm.name == "nft"
    algorithm = FixtureNft(settings, settings.algorithm, editor, weights)
    loop: Any = Training.__new__(Training)
    loop.settings, loop.weights, loop.averages = settings, weights, weights.copy()
    nothing: Any = None
    iterate = Iteration(
        settings, editor, nothing, nothing, {"one": 1.0}, engine, algorithm, nothing, loop._average_after
    )
    for epoch in (0, 1):
        algorithm.epoch = epoch
        rewards = of(f"nft.epoch{epoch}.rewards").view(3, 4)
        advantages = compute_advantages(rewards, "batch", epsilon=1e-4)
        expected = of(f"nft.epoch{epoch}.advantages")[:, 0].clamp(-5, 5)
        torch.testing.assert_close(advantages.values.flatten(), expected, rtol=1e-5, atol=1e-6)
        trained = iterate._trained({"one": rewards}, advantages, None)
        assert trained.flatten().tolist() == of(f"nft.epoch{epoch}.valid").flatten().bool().tolist()
        assert teachable(rewards, 0.05, 0.9).tolist() == trained[:, 0].tolist()
        batches = torch.zeros(12, dtype=torch.long)
        batches[of(f"nft.epoch{epoch}.permutation")] = torch.arange(12) // 3
        plan = optimiser_steps(trained.flatten(), batches, count=1, together=True, levels=5, levels_per_edit=5)
        rollout = Rollout(
            (1, 1),
            Conditioning((1, 1), {"none": torch.zeros(3, 1)}),
            [(task, member) for task in range(3) for member in range(4)],
            GROUPS.repeat_interleave(4),
            of(f"nft.epoch{epoch}.clean"),
            [],
            [*(of("nft.timesteps_1000") / 1000).tolist(), 0.0],
            batches,
        )
        losses = batch_losses(algorithm, rollout, advantages, trained, epoch)
        torch.testing.assert_close(losses, of(f"nft.epoch{epoch}.losses"), rtol=1e-5, atol=1e-6)
        figures = iterate._update([rollout], None, epoch, GROUPS.numpy(), advantages, plan)
        algorithm.end_iteration(epoch + 1)
        assert len(engine.gradients) == epoch + 1, "one optimiser step an epoch"
        assert figures["loss"] == pytest.approx(float(of(f"nft.epoch{epoch}.losses").mean()), rel=1e-5)
        assert figures["gradient_norm"] == pytest.approx(
            float(of(f"nft.epoch{epoch}.gradient_norm_before_clip")), rel=1e-5
        )
        for place, name in enumerate(("W", "b")):
            gradient = of(f"nft.epoch{epoch}.gradient.{name}")
            torch.testing.assert_close(engine.gradients[-1][place], gradient, rtol=1e-5, atol=1e-6)
            for kind, value in (("after", editor.trained[place]), ("old", algorithm.old[place])):
                torch.testing.assert_close(value.data, of(f"nft.epoch{epoch}.{kind}.{name}"), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(loop.averages[0], of(f"nft.epoch{epoch}.ema.W"), rtol=1e-4, atol=1e-5)
    assert engine.backwards == 5 * 4 + 5 * 2, "at 5 levels, 8 and 4 valid edits in twos"


def batch_losses(
    algorithm: FixtureNft, rollout: Rollout, advantages: Advantages, trained: Tensor, epoch: int
) -> Tensor:
    """Loss of each micro-batch at each of its times, (4, 5)."""
    order, valid = of(f"nft.epoch{epoch}.permutation"), trained.flatten()
    losses = torch.zeros(4, 5)
    for place, level in enumerate(algorithm.update_levels(rollout, epoch, with_base=True)):
        for batch in range(4):
            part = order[batch * 3 : batch * 3 + 3]
            part = part[valid[part]]
            if len(part):
                losses[batch, place] = level.losses(part, advantages.values.flatten()[part]).loss.mean().detach()
    return losses

"""Stochastic steps, advantages and losses of online RL against closed forms and torch.distributions."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from components.editor_rl.grpo import advantages, clipped_loss
from components.editor_rl.nft import nft_loss, optimality
from components.editor_rl.sde import STEPS, cps, divergence, flow_sde, log_prob

SHAPE = (5, 4, 3)


def latents(seed=0):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", STEPS)
def test_without_noise_a_step_is_eulers(name):
    x, v = latents(0), latents(1)
    mean, deviation = STEPS[name](x, v, 0.7, 0.5, 0.0)
    assert deviation == 0
    torch.testing.assert_close(mean, x + (0.5 - 0.7) * v)


def test_flow_sde_by_hand():
    x, v = torch.ones(1, 1, 1), torch.full((1, 1, 1), 2.0)
    mean, deviation = flow_sde(x, v, 0.8, 0.6, 0.7)
    s = 0.7 * math.sqrt(0.8 / 0.2)
    by_hand = 1 * (1 + s**2 * -0.2 / 1.6) + 2 * (1 + s**2 * 0.2 / 1.6) * -0.2
    assert mean.item() == pytest.approx(by_hand)
    assert deviation == pytest.approx(s * math.sqrt(0.2))


def test_flow_sde_is_finite_at_pure_noise():
    mean, deviation = flow_sde(latents(), latents(1), 1.0, 0.875, 0.7)
    assert mean.isfinite().all()
    assert deviation == pytest.approx(0.7 * math.sqrt(1 / 0.125) * math.sqrt(0.125))


def test_flow_sde_keeps_the_marginal_to_first_order():
    """One small step from x = (1 - t) p + t n, with the true velocity n - p, keeps the spread of the schedule."""
    generator = torch.Generator().manual_seed(0)
    picture, noise, fresh = (torch.randn(200_000, 1, 1, generator=generator, dtype=torch.float64) for _ in range(3))
    sigma, following = 0.6, 0.595
    x = (1 - sigma) * picture + sigma * noise
    # The velocity that a perfect model of independent standard normals gives: E[n - p | x].
    v = x * (sigma - (1 - sigma)) / ((1 - sigma) ** 2 + sigma**2)
    mean, deviation = flow_sde(x, v, sigma, following, 0.7)
    spread = (mean + deviation * fresh).std().item()
    assert spread == pytest.approx(math.sqrt((1 - following) ** 2 + following**2), rel=4e-3)


def test_cps_keeps_the_noise_that_the_schedule_says():
    """With the true velocity the next latents are (1 - s') picture + noise of total variance s'^2."""
    picture, noise = torch.full((1, 1, 1), 3.0), torch.full((1, 1, 1), 2.0)
    sigma, following = 0.8, 0.6
    mean, deviation = cps((1 - sigma) * picture + sigma * noise, noise - picture, sigma, following, 0.8)
    weight = (mean - (1 - following) * picture).item() / noise.item()
    assert weight**2 + deviation**2 == pytest.approx(following**2)


def test_log_prob_is_the_mean_gaussian_log_density():
    sample, mean = latents(0), latents(1)
    expected = Normal(mean, 0.3).log_prob(sample).flatten(1).mean(1)
    torch.testing.assert_close(log_prob(sample, mean, 0.3), expected)


def test_divergence_is_the_mean_gaussian_kl():
    one, other = latents(0), latents(1)
    expected = kl_divergence(Normal(one, 0.3), Normal(other, 0.3)).flatten(1).mean(1)
    torch.testing.assert_close(divergence(one, other, 0.3), expected)


def test_advantages_by_hand_and_missing_rewards_drop_out():
    rewards = torch.tensor([[1.0, 3.0, float("nan"), 2.0], [0.5, 0.5, 0.5, 0.5]])
    advantage, counts = advantages(rewards)
    spread = math.sqrt(2 / 3)
    torch.testing.assert_close(advantage[0], torch.tensor([-1 / spread, 1 / spread, 0.0, 0.0]))
    assert advantage[1].tolist() == [0.0] * 4
    assert counts.tolist() == [[True, True, False, True], [False] * 4]


def test_the_clip_holds_only_the_side_that_would_gain():
    advantage = torch.tensor([1.0, 1.0, -1.0, -1.0])
    moved = torch.tensor([0.5, -0.5, 0.5, -0.5])
    losses, ratio = clipped_loss(moved, torch.zeros(4), advantage, 0.1, 0.2)
    expected = torch.tensor([-1.2, -math.exp(-0.5), math.exp(0.5), 0.9])
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(ratio, moved.exp())


def test_nft_has_no_gradient_from_an_undecided_edit_at_the_old_policy():
    picture, noise = latents(0), latents(1)
    sigma = torch.linspace(0.1, 0.9, SHAPE[0], dtype=torch.float64)
    level = sigma[:, None, None]
    noised = (1 - level) * picture + level * noise
    old = latents(2)
    gradients = {}
    for good in (0.5, 1.0):
        velocity = old.clone().requires_grad_()
        nft_loss(velocity, old, noised, picture, sigma, torch.full((SHAPE[0],), good), 1.0).sum().backward()
        gradients[good] = velocity.grad
    assert gradients[0.5].abs().max() < 1e-12
    assert ((gradients[1.0] * (old - (noise - picture))).sum() > 0).item()  # a good edit pulls towards its own velocity


def test_optimality_is_between_bad_and_good():
    torch.testing.assert_close(
        optimality(torch.tensor([-9.0, -0.5, 0.0, 1.0]), 1.0), torch.tensor([0.0, 0.25, 0.5, 1.0])
    )


def test_batch_scale_leaves_alike_groups_their_small_say():
    rewards = torch.tensor([[0.0, 1.0], [0.5, 0.502]])
    by_group, _ = advantages(rewards)
    by_batch, _ = advantages(rewards, scale="batch")
    torch.testing.assert_close(by_group[1], torch.tensor([-1.0, 1.0]))
    assert by_batch[1].abs().max() < 0.01
    assert by_batch[0, 1].item() == pytest.approx(math.sqrt(2), rel=1e-3)

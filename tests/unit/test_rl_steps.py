"""Stochastic steps, their log-probabilities and divergences against closed forms and torch.distributions."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from editloop.training.editor_rl.policy_loss import probability_ratio
from editloop.training.editor_rl.sde import (
    STEPS,
    cps,
    dance_sde,
    draw_gaussian,
    flow_sde,
    gaussian_kl,
    log_prob,
    round_to_storage,
)

pytestmark = pytest.mark.floats

SHAPE = (5, 4, 3)
SIGMA, FOLLOWING = 0.7, 0.5


def latents(seed=0, dtype=torch.float64):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("name", STEPS)
def test_without_noise_a_step_is_eulers(name):
    x, v = latents(0), latents(1)
    mean, deviation = STEPS[name](x, v, SIGMA, FOLLOWING, 0.0)
    assert deviation == 0
    torch.testing.assert_close(mean, x + (FOLLOWING - SIGMA) * v)


def test_flow_sde_by_hand():
    x, v = torch.ones(1, 1, 1), torch.full((1, 1, 1), 2.0)
    mean, deviation = flow_sde(x, v, 0.8, 0.6, 0.7)
    s = 0.7 * math.sqrt(0.8 / 0.2)
    by_hand = 1 * (1 + s**2 * -0.2 / 1.6) + 2 * (1 + s**2 * 0.2 / 1.6) * -0.2
    assert mean.item() == pytest.approx(by_hand)
    assert deviation == pytest.approx(s * math.sqrt(0.2))


def test_flow_sde_at_pure_noise_takes_the_following_sigma():
    x, v = latents(), latents(1)
    mean, deviation = flow_sde(x, v, 1.0, 0.875, 0.7)
    s = 0.7 * math.sqrt(1 / 0.125)
    assert deviation == pytest.approx(s * math.sqrt(0.125))
    torch.testing.assert_close(mean, x * (1 - s**2 / 2 * 0.125) - v * 0.125)


def test_dance_sde_as_it_is_published():
    x, v, eta = latents(0), latents(1), 0.3
    mean, deviation = dance_sde(x, v, SIGMA, FOLLOWING, eta)
    delta, picture = FOLLOWING - SIGMA, x - SIGMA * v
    torch.testing.assert_close(mean, x + (v + eta**2 * (x - picture * (1 - SIGMA)) / (2 * SIGMA**2)) * delta)
    assert deviation == pytest.approx(eta * math.sqrt(-delta))


@pytest.mark.parametrize("step", [flow_sde, dance_sde])
def test_an_sde_step_keeps_the_marginal_to_first_order(step):
    """One small step from x = (1 - t) p + t n, with the true velocity n - p, keeps the spread of the schedule."""
    generator = torch.Generator().manual_seed(0)
    picture, noise, fresh = (torch.randn(200_000, 1, 1, generator=generator, dtype=torch.float64) for _ in range(3))
    sigma, following = 0.6, 0.595
    x = (1 - sigma) * picture + sigma * noise
    # The velocity that a perfect model of independent standard normals gives: E[n - p | x].
    v = x * (sigma - (1 - sigma)) / ((1 - sigma) ** 2 + sigma**2)
    spread = draw_gaussian(*step(x, v, sigma, following, 0.7), fresh).std().item()
    assert spread == pytest.approx(math.sqrt((1 - following) ** 2 + following**2), rel=4e-3)


@pytest.mark.parametrize("noise", [0.3, 0.8, 1.0])
def test_cps_keeps_the_noise_that_the_schedule_says(noise):
    """With the true velocity the next latents are (1 - s') picture + noise of total variance s'^2."""
    picture, pure = torch.full((1, 1, 1), 3.0), torch.full((1, 1, 1), 2.0)
    sigma, following = 0.8, 0.6
    mean, deviation = cps((1 - sigma) * picture + sigma * pure, pure - picture, sigma, following, noise)
    weight = (mean - (1 - following) * picture).item() / pure.item()
    assert weight**2 + deviation**2 == pytest.approx(following**2)


def test_log_prob_is_the_mean_gaussian_log_density():
    sample, mean = latents(0), latents(1)
    expected = Normal(mean, 0.3).log_prob(sample).flatten(1).mean(1)
    torch.testing.assert_close(log_prob(sample, mean, 0.3), expected)


def test_divergence_is_the_mean_gaussian_kl_and_published_code_leaves_the_length_of_the_step_out():
    one, other = latents(0), latents(1)
    expected = kl_divergence(Normal(one, 0.3), Normal(other, 0.3)).flatten(1).mean(1)
    torch.testing.assert_close(gaussian_kl(one, other, 0.3), expected)
    s = 0.3 / math.sqrt(SIGMA - FOLLOWING)
    published = (one - other).square().mean((1, 2)) / (2 * s**2)
    torch.testing.assert_close(gaussian_kl(one, other, 0.3, FOLLOWING - SIGMA), published)


@pytest.mark.parametrize("shape", [(5,), (5, 1, 1)])
@pytest.mark.parametrize("name", STEPS)
def test_a_level_of_each_row_is_that_rows_alone(name, shape):
    """Deviations of (B, 1, 1) against figures of (B,) would broadcast to (B, B) and mix the samples."""
    x, v, sample = latents(0), latents(1), latents(2)
    sigma = torch.linspace(0.3, 1.0, 5, dtype=torch.float64)
    following = sigma - 0.15
    mean, deviation = STEPS[name](x, v, sigma.view(shape), following.view(shape), 0.6)
    drawn = draw_gaussian(mean, deviation, latents(3))
    densities, kls = log_prob(sample, mean, deviation), gaussian_kl(mean, x, deviation, (following - sigma).view(shape))
    assert densities.shape == kls.shape == (5,)
    for row in range(5):
        part, levels = slice(row, row + 1), (sigma[row].item(), following[row].item())
        alone, its_deviation = STEPS[name](x[part], v[part], *levels, 0.6)
        torch.testing.assert_close(mean[part], alone)
        torch.testing.assert_close(drawn[part], draw_gaussian(alone, its_deviation, latents(3)[part]))
        torch.testing.assert_close(densities[part], log_prob(sample[part], alone, its_deviation))
        torch.testing.assert_close(kls[part], gaussian_kl(alone, x[part], its_deviation, levels[1] - levels[0]))


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("storage", [torch.float32, torch.bfloat16])
def test_the_ratio_is_exactly_one_before_the_first_update(name, storage):
    """Densities of what is stored, latents before and after: rollout and update compute the same number."""

    def velocity(x):
        return torch.sin(3 * x)

    before = round_to_storage(latents(0, torch.float32), storage)
    mean, deviation = STEPS[name](before, velocity(before), SIGMA, FOLLOWING, 0.7)
    after = draw_gaussian(mean, deviation, latents(1, torch.float32))
    kept_before, kept_after = before.to(storage), after.to(storage)
    rolled = log_prob(round_to_storage(after, storage), mean, deviation)

    again = kept_before.float()
    mean, deviation = STEPS[name](again, velocity(again), SIGMA, FOLLOWING, 0.7)
    assert probability_ratio(log_prob(kept_after.float(), mean, deviation), rolled).tolist() == [1.0] * 5
    rounded_too_late = probability_ratio(
        log_prob(kept_after.float(), mean, deviation), log_prob(after, mean, deviation)
    )
    assert (rounded_too_late == 1).all().item() == (storage == torch.float32)


@pytest.mark.parametrize("name", STEPS)
def test_maths_is_fp32_whatever_the_latents_are(name):
    x, v, noise = (latents(seed, torch.bfloat16) for seed in range(3))
    mean, deviation = STEPS[name](x, v, SIGMA, FOLLOWING, 0.7)
    exact, _ = STEPS[name](x.float(), v.float(), SIGMA, FOLLOWING, 0.7)
    assert mean.dtype == torch.float32
    assert torch.equal(mean, exact)
    assert draw_gaussian(mean, deviation, noise).dtype == log_prob(x, mean, deviation).dtype == torch.float32
    torch.testing.assert_close(log_prob(x, v, 0.5), Normal(v.float(), 0.5).log_prob(x.float()).mean((1, 2)))

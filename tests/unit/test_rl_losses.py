"""Losses, windows and weights of online RL and of supervised fine-tuning, against closed forms."""

import math

import numpy as np
import pytest
import torch

from editloop.errors import EditLoopError
from editloop.training.editor_rl.nft import compute_optimality, kl_to_base, nft_loss, old_policy_decay
from editloop.training.editor_rl.policy_loss import (
    clipped_loss,
    clipped_mask,
    guarded_ratio,
    probability_ratio,
)
from editloop.training.editor_rl.reweighting import step_weights
from editloop.training.editor_rl.sde import draw_gaussian, log_prob
from editloop.training.editor_rl.windows import trained_window
from editloop.training.flow_matching import (
    flow_matching_loss,
    logit_normal_levels,
    noised,
    shifted,
    uniform_levels,
)

pytestmark = pytest.mark.floats

SHAPE = (5, 4, 3)


def latents(seed=0, shape=SHAPE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_clip_holds_only_the_side_that_would_gain():
    advantage = torch.tensor([1.0, 1.0, -1.0, -1.0])
    moved = probability_ratio(torch.tensor([0.5, -0.5, 0.5, -0.5]), torch.zeros(4)).requires_grad_()
    losses = clipped_loss(moved, advantage, 0.1, 0.2)
    torch.testing.assert_close(losses, torch.tensor([-1.2, -math.exp(-0.5), math.exp(0.5), 0.9]))
    losses.sum().backward()
    assert clipped_mask(moved, advantage, 0.1, 0.2).tolist() == [True, False, False, True] == (moved.grad == 0).tolist()


def test_inside_the_clip_every_ratio_has_its_gradient_whatever_the_advantages_sign():
    """Ratios within 0.9 to 1.2, and beyond on the side that would not gain."""
    moved = torch.tensor([0.95, 1.15, 0.95, 1.15, 0.8, 1.3], dtype=torch.float64, requires_grad=True)
    advantage = torch.tensor([2.0, 2.0, -2.0, -2.0, 2.0, -2.0], dtype=torch.float64)
    losses = clipped_loss(moved, advantage, 0.1, 0.2)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([-1.9, -2.3, 1.9, 2.3, -1.6, 2.6])
    assert moved.grad.tolist() == (-advantage).tolist()
    assert not clipped_mask(moved, advantage, 0.1, 0.2).any()
    assert not clipped_mask(torch.tensor([0.1, 9.0]), torch.zeros(2), 0.1, 0.2).any(), (
        "no advantage, no side that gains"
    )


def test_a_ratio_at_the_bound_is_not_clipped():
    """Bounds that float32 has exactly."""
    at_bound, advantage = torch.tensor([0.75, 1.5]), torch.tensor([-1.0, 1.0])
    assert not clipped_mask(at_bound, advantage, 0.25, 0.5).any()
    assert clipped_mask(at_bound + torch.tensor([-0.01, 0.01]), advantage, 0.25, 0.5).all()


@pytest.mark.parametrize("per_row", [False, True])
def test_guards_ratio_is_the_mean_of_noise_times_movement(per_row):
    old, new, eps = latents(0), latents(1), latents(2)
    c = torch.linspace(0.05, 0.4, 5, dtype=torch.float64).view(5, 1, 1) if per_row else 0.2
    sample = draw_gaussian(old, c, eps)
    found = guarded_ratio(log_prob(sample, new, c), log_prob(sample, old, c), new, old, c)
    torch.testing.assert_close(found, (eps * (new - old)).mean((1, 2)).exp())


def test_the_plain_ratio_is_biased_below_one_and_guards_is_not():
    """Over many draws of a small deviation: the plain logarithm averages to -movement^2 / (2 c^2), Guard's to 0."""
    shape = (4000, 1, 8)
    old, eps, c = torch.zeros(shape, dtype=torch.float64), latents(0, shape), 0.05
    new = old + 0.01
    sample = draw_gaussian(old, c, eps)
    at, rolled = log_prob(sample, new, c), log_prob(sample, old, c)
    assert probability_ratio(at, rolled).log().mean().item() == pytest.approx(-(0.01**2) / (2 * c**2), rel=0.1)
    assert guarded_ratio(at, rolled, new, old, c).log().mean().item() == pytest.approx(0, abs=2e-4)


def test_optimality_is_between_bad_and_good():
    advantage = torch.tensor([-9.0, -0.5, 0.0, 1.0])
    torch.testing.assert_close(compute_optimality(advantage, 1.0), torch.tensor([0.0, 0.25, 0.5, 1.0]))
    torch.testing.assert_close(compute_optimality(advantage, 2.0), torch.tensor([0.0, 0.375, 0.5, 0.75]))


def gradient_of_nft(good, largest=1.0, strength=1.0):
    picture, noise, old = latents(0), latents(1), latents(2)
    sigma = torch.linspace(0.1, 0.9, SHAPE[0], dtype=torch.float64)
    velocity = old.clone().requires_grad_()
    rows = torch.full((SHAPE[0],), good, dtype=torch.float64)
    loss = nft_loss(velocity, old, noised(picture, noise, sigma), picture, sigma, rows, strength, largest)
    loss.sum().backward()
    return velocity.grad, old - (noise - picture), sigma


def test_nft_has_no_gradient_from_an_undecided_edit_at_the_old_policy():
    for strength in (0.3, 1.0):
        assert gradient_of_nft(0.5, strength=strength)[0].abs().max() < 1e-12


def test_nft_pulls_to_a_good_edits_own_velocity_and_pushes_from_a_bad_ones():
    """By hand at v = old: 2 (2 good - 1) sigma^2 error / (count w), w = sigma mean |error|."""
    for good in (1.0, 0.0, 0.8):
        gradient, error, sigma = gradient_of_nft(good)
        level = sigma[:, None, None]
        by_hand = 2 * (2 * good - 1) * level * error / (error[0].numel() * error.abs().mean((1, 2), keepdim=True))
        torch.testing.assert_close(gradient, by_hand)


def test_a_small_advantage_pulls_as_hard_whatever_the_largest_is():
    for largest in (1.0, 5.0):
        good = compute_optimality(torch.tensor(0.4, dtype=torch.float64), largest).item()
        torch.testing.assert_close(gradient_of_nft(good, largest)[0], gradient_of_nft(0.7)[0])


@pytest.mark.parametrize("largest", [1.0, 2.0])
@pytest.mark.parametrize("beta", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("good", [0.0, 0.3, 1.0])
def test_nft_by_hand_for_any_beta(good, beta, largest):
    """One number: x0 = 1, noise = 3, sigma = 1/2, so x = 2; old = 1, v = 5. An error e is worth e^2 / |e| = |e|."""
    one, half = torch.ones(1, 1, 1, dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64)
    loss = nft_loss(5 * one, one, 2 * one, one, half, torch.tensor([good], dtype=torch.float64), beta, largest)
    # The positive policy is 1 + 4 beta, the negative 1 - 4 beta; each picture is 2 - policy / 2, its error that less 1.
    positive, negative = abs(0.5 - 2 * beta), abs(0.5 + 2 * beta)
    assert loss.item() == pytest.approx((good * positive + (1 - good) * negative) * largest / beta)


@pytest.mark.parametrize("beta", [0.25, 1.0, 3.0])
def test_nft_pulls_as_hard_at_the_old_policy_whatever_beta_is(beta):
    torch.testing.assert_close(gradient_of_nft(0.8, strength=beta)[0], gradient_of_nft(0.8)[0])


def test_nft_weighs_no_error_more_than_one_of_a_hundred_thousandth():
    """A picture that is guessed almost exactly: its mean error is not divided by itself."""
    one = torch.ones(1, 1, 2, dtype=torch.float64)
    half, good = torch.tensor([0.5], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    loss = nft_loss(2e-6 * one, 0 * one, one, one, half, good, 1.0)
    assert loss.item() == pytest.approx(1e-6**2 / 1e-5)


def test_drift_is_the_mean_square_of_what_moved():
    assert kl_to_base(torch.full(SHAPE, 3.0), torch.ones(SHAPE)).tolist() == [4.0] * 5


def test_flow_matching_is_learnt_by_the_mean_velocity():
    picture, noise = latents(0), latents(1)
    sigma = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    x = noised(picture, noise, sigma)
    torch.testing.assert_close(x[0], picture[0])
    torch.testing.assert_close(x[4], noise[4])
    torch.testing.assert_close(x - sigma[:, None, None] * (noise - picture), picture)
    losses = flow_matching_loss(noise - picture + 2, picture, noise)
    torch.testing.assert_close(losses, torch.full((5,), 4.0), check_dtype=False)


def test_levels_follow_their_distributions():
    def levels(draw_levels, **told):
        return draw_levels(20_000, torch.Generator().manual_seed(0), **told).double()

    quarters = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    torch.testing.assert_close(levels(uniform_levels).quantile(quarters), quarters, atol=0.01, rtol=0)
    normal = torch.distributions.Normal(0.4, 0.8)
    expected = torch.sigmoid(normal.icdf(quarters))
    found = levels(logit_normal_levels, mean=0.4, spread=0.8).quantile(quarters)
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0)
    plain = torch.sigmoid(torch.distributions.Normal(0.0, 1.0).icdf(quarters))
    torch.testing.assert_close(levels(logit_normal_levels).quantile(quarters), plain, atol=0.01, rtol=0)


def test_shifting_is_that_of_flux():
    """exp(mu) / (exp(mu) + 1 / t - 1), and the ends stay where they are."""
    sigma = torch.linspace(0.1, 1, 10)
    torch.testing.assert_close(shifted(sigma, math.exp(0.9)), math.exp(0.9) / (math.exp(0.9) + 1 / sigma - 1))
    assert shifted(torch.tensor([0.0, 1.0]), 3.0).tolist() == [0.0, 1.0]
    assert shifted(sigma, 1.0).tolist() == sigma.tolist()


def test_a_fixed_window_stays_and_a_sliding_one_goes_round():
    assert {trained_window("fixed", n, 0, size=3, reach=7) for n in range(9)} == {range(3)}
    starts = [trained_window("sliding", n, 0, size=2, reach=4, every=2).start for n in range(8)]
    assert starts == [0, 0, 1, 1, 2, 2, 0, 0]


def test_a_random_window_is_at_every_place_as_often_and_the_same_when_asked_again():
    drawn = [trained_window("random", n, 5, size=2, reach=5).start for n in range(2000)]
    counts = np.bincount(drawn)
    assert len(counts) == 4
    assert (np.abs(counts - 500) < 4 * math.sqrt(2000 * 0.25 * 0.75)).all()
    assert [trained_window("random", n, 5, size=2, reach=5).start for n in range(1000, 1100)] == drawn[1000:1100]
    assert [trained_window("random", n, 6, size=2, reach=5).start for n in range(100)] != drawn[:100]


@pytest.mark.parametrize(("size", "reach", "every"), [(0, 4, 1), (5, 4, 1), (2, 4, 0)])
def test_a_window_that_does_not_fit_is_refused(size, reach, every):
    with pytest.raises(EditLoopError, match=f"window of {size} in the first {reach} steps"):
        trained_window("random", 0, 0, size=size, reach=reach, every=every)


def test_a_window_may_be_all_of_its_reach_or_a_single_step_and_slides_every_25_iterations():
    assert trained_window("random", 3, 0, size=4, reach=4) == range(4)
    assert len(trained_window("random", 3, 0, size=1, reach=1, every=1)) == 1
    assert [trained_window("sliding", n, 0, size=1, reach=3).start for n in (24, 25, 49, 50, 75)] == [0, 1, 1, 2, 0]


def test_the_old_policys_decay_rises_after_its_flat_steps_up_to_the_highest():
    decays = [old_policy_decay(step, 0.25, 0.1, 3) for step in (0, 3, 4, 5, 6, 100)]
    assert decays == pytest.approx([0.0, 0.0, 0.1, 0.2, 0.25, 0.25])
    assert [old_policy_decay(step, 0.25, 0.1) for step in (0, 1, 2)] == pytest.approx([0.0, 0.1, 0.2])
    assert old_policy_decay(0, 0.25, None) == 0.25


def test_weights_by_noise_have_the_mean_one():
    deviations = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    every, two = torch.tensor([[True, True, True], [True, False, True]])
    assert step_weights("mean-one", deviations, every[None])[0].tolist() == pytest.approx([0.5, 1.0, 1.5])
    assert step_weights("mean-one", deviations, two[None])[0, [0, 2]].tolist() == pytest.approx([0.5, 1.5])
    three = torch.tensor([[True, False, True], [True, True, True], [False, True, False]])
    of_three = step_weights("mean-one", deviations, three)
    assert of_three[three].tolist() == pytest.approx([0.5, 1.5, 0.5, 1.0, 1.5, 1.0]), "each edit by its own steps"
    assert step_weights("published", deviations, two[None])[0, [0, 2]].tolist() == pytest.approx([1.0, 3.0])
    assert step_weights("none", deviations, two[None])[0].tolist() == [1.0, 1.0, 1.0]

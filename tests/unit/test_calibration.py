"""The map from raw scores to the experts' scale: monotone, on scale, and found again where the labels follow one."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from editloop.models.edit_reward.calibration import calibrated_ratings, fit_calibration
from editloop.models.edit_reward.settings import Calibration

pytestmark = pytest.mark.floats


def test_a_planted_map_is_found_again():
    rng = np.random.default_rng(0)
    mu = rng.normal([-1.0, 0.5], [1.5, 0.4], size=(2000, 2))
    truth = Calibration(slope=(0.8, 3.0), offset=(0.5, -1.0))
    ratings = calibrated_ratings(truth, torch.from_numpy(mu)).numpy() + rng.normal(0, 0.3, mu.shape)
    found = fit_calibration(mu, ratings)
    assert found.slope == pytest.approx(truth.slope, rel=0.05)
    assert found.offset == pytest.approx(truth.offset, abs=0.05)
    assert found.error == pytest.approx((0.3, 0.3), abs=0.02)


def test_order_is_kept_and_every_rating_is_on_the_scale_even_where_labels_run_against_the_scores():
    rng = np.random.default_rng(1)
    mu = rng.normal(size=(50, 2)).astype(np.float32)
    found = fit_calibration(mu, 4.0 - 3 * (mu > 0))
    asked = torch.linspace(-5, 5, 101)[:, None].expand(-1, 2)
    ratings = calibrated_ratings(found, asked.double())
    assert (ratings.diff(dim=0) > 0).all()
    assert ratings.min() >= 1
    assert ratings.max() <= 4


def test_a_map_that_was_not_fitted_is_one_plus_three_sigmoids():
    ratings = calibrated_ratings(Calibration(), torch.tensor([[-np.log(3.0), np.log(3.0)]], dtype=torch.float64))
    torch.testing.assert_close(ratings, torch.tensor([[1.75, 3.25]], dtype=torch.float64))


def test_few_labels_hardly_move_the_map_that_centres_and_scales():
    mu = np.array([[-2.0], [0.0], [2.0]])
    found = fit_calibration(mu, np.array([[2.0], [2.5], [3.0]]))
    assert found.slope[0] == pytest.approx(1 / mu.std(), rel=0.2)
    assert found.offset[0] == pytest.approx(0, abs=0.05)


def test_a_map_that_would_turn_orders_round_is_refused():
    with pytest.raises(ValidationError, match="slopes above 0"):
        Calibration(slope=(1.0, -0.1), offset=(0.0, 0.0))

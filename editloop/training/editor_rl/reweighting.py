"""How much each trained step of a trajectory weighs in the loss. Pure functions."""

from collections.abc import Sequence


def noise_aware_weights(deviations: Sequence[float]) -> list[float]:
    """TempFlow-GRPO's weights (arXiv 2508.04324) of steps with these deviations: std_i / mean_j(std_j), mean 1.

    A step explores as far as its noise reaches. The gradient of the plain loss goes with 1 / std, so that late steps,
    which can change little, would be heard most. Weights of mean 1 leave the learning rate its meaning.
    """
    mean = sum(deviations) / len(deviations)
    return [deviation / mean for deviation in deviations]

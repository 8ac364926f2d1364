"""Weights of a trajectory's trained steps in the loss. Pure functions."""

from collections.abc import Sequence


def noise_aware_weights(deviations: Sequence[float]) -> list[float]:
    """TempFlow-GRPO's weights of steps (arXiv 2508.04324): std_i / mean_j(std_j), with mean 1.

    A step explores as far as its noise reaches. The gradient of the plain loss is proportional to 1 / std, so without
    weights the late steps, which can change little, would count most. Weights of mean 1 leave the learning rate its
    meaning.

    Args:
        deviations: Standard deviation of each step, at least one.
    """
    mean = sum(deviations) / len(deviations)
    return [deviation / mean for deviation in deviations]

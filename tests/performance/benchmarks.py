"""What `make bench` measures: each function builds one comparison, in the order of the table."""

from collections.abc import Callable
from unittest.mock import patch

import numpy as np

from tests.performance import (
    annotation_scale,
    dataset_scale,
    edit_score_speed,
    editor_memory,
    editor_suite_speed,
    export_scale,
    gate_speed,
    import_scale,
    leak_scale,
    lineage_scale,
    loader_speed,
    published_scale,
    reward_speed,
    rl_like_for_like,
    rl_race,
    rl_speed,
    rl_trainer,
    serving_load,
    spread_load,
    vision_speed,
)
from tests.performance.bench import Benchmark, Race, Scale


def expectation_of_a_pair() -> Benchmark:
    """EditReward's uncertainty loss with gradients on 512 pairs: 1000 draws a pair against 32 quadrature nodes."""
    import torch

    from editloop.training.edit_reward.losses import expected_log

    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(512, generator=generator) for _ in range(4)]

    def plain() -> None:
        mu_a, log_a, mu_b, log_b = (value.clone().requires_grad_() for value in values)
        deviation = (torch.exp(2 * log_a) + torch.exp(2 * log_b)).sqrt()
        z = (mu_a - mu_b)[:, None] + deviation[:, None] * torch.randn(512, 1000, generator=generator)
        (-torch.nn.functional.logsigmoid(z)).mean().backward()

    def ours() -> None:
        expected_log(*(value.clone().requires_grad_() for value in values)).mean().backward()

    return Benchmark("reward: uncertainty loss of 512 pairs", plain, ours, target=8.0)


def pairs_of_a_group() -> Benchmark:
    """Reading all 15 pairs of 6 candidates: both sides of each pair, as EditReward's published training does, against
    each candidate once. Scoring reads each candidate once in the published code too.
    """
    from itertools import combinations

    from editloop.models.judge_protocol import EditGroup
    from editloop.studies.tiny_models.edit_reward import build_tiny_reward

    model = build_tiny_reward().eval()
    edits = np.random.default_rng(0).integers(0, 256, size=(6, 32, 32, 3), dtype=np.uint8)
    instruction = "make the red circle blue"

    def plain() -> None:
        for pair in combinations(range(6), 2):
            model.score([EditGroup(instruction, edits[0], edits[list(pair)])])

    def ours() -> None:
        model.score([EditGroup(instruction, edits[0], edits)])

    return Benchmark("reward: the pairs of 6 candidates, pair by pair and each candidate once", plain, ours, target=4.0)


def interval_of_agreement() -> Benchmark:
    """Ordinal alpha of 1,000 tasks of 4 candidates and 3 raters, and of 100 resamples of the tasks: by the krippendorff
    package each time anew, against sums over tasks that are weighed anew.
    """
    import krippendorff

    from editloop.statistics.agreement import table_agreement

    rng, tasks, resamples = np.random.default_rng(0), 1000, 100
    true = rng.uniform(1, 4, 4 * tasks)
    ratings = np.clip(np.round(true[:, None] + rng.normal(0, 0.6, (4 * tasks, 3))), 1, 4).astype(int)
    items, raters = (index.ravel() for index in np.indices(ratings.shape))

    def library(counts: np.ndarray) -> float:
        return float(krippendorff.alpha(value_counts=counts, level_of_measurement="ordinal"))

    def plain() -> float:
        counts = (ratings[:, :, None] == np.arange(1, 5)).sum(axis=1)
        groups, draws = counts.reshape(tasks, 4, 4), np.random.default_rng(0)
        for _ in range(resamples):
            library(groups[draws.integers(tasks, size=tasks)].reshape(-1, 4))
        return library(counts)

    def ours() -> float:
        with patch("editloop.statistics.agreement.RESAMPLES", resamples):
            return float(table_agreement(ratings.ravel(), items, raters, groups=items // 4)["alpha"])

    return Benchmark(
        "annotation: agreement with its interval, 1,000 tasks",
        plain,
        ours,
        target=6.0,
        same=lambda plain, ours: abs(plain - ours) < 1e-9,
    )


BENCHMARKS: tuple[Callable[[], Benchmark], ...] = (
    expectation_of_a_pair,
    pairs_of_a_group,
    interval_of_agreement,
    *reward_speed.BENCHMARKS,
    *edit_score_speed.BENCHMARKS,
    *vision_speed.BENCHMARKS,
    *loader_speed.BENCHMARKS,
    import_scale.speed,
    *editor_suite_speed.BENCHMARKS,
    *rl_speed.BENCHMARKS,
    *rl_trainer.BENCHMARKS,
    *editor_memory.BENCHMARKS,
    *rl_like_for_like.BENCHMARKS,
    *serving_load.BENCHMARKS,
)

RACES: tuple[Race, ...] = (rl_race.to_the_same_score(),)

SCALES: tuple[Scale, ...] = (
    Scale(
        "annotation scale: opening a campaign of 10,000 tasks with 4 candidates",
        annotation_scale.opening,
        annotation_scale.LONGEST_SECONDS,
        annotation_scale.MOST_MEGABYTES,
    ),
    Scale(
        "annotation scale: export and quality report of 100,000 judgements",
        export_scale.reporting,
        export_scale.LONGEST_SECONDS,
        export_scale.MOST_MEGABYTES,
    ),
    gate_speed.bootstrap_limit(),
    rl_trainer.memory(),
    Scale(
        "judge scale: a base of 325 MB opened over two ranks (a rank's part is 163 MB, the largest tensor 36 MB)",
        spread_load.opening,
        spread_load.LONGEST_SECONDS,
        spread_load.MOST_MEGABYTES,
    ),
    Scale(
        "dataset scale: shards, pairs, split and manifest of 200,000 judgements",
        dataset_scale.building,
        dataset_scale.LONGEST_SECONDS,
        dataset_scale.MOST_MEGABYTES,
    ),
    Scale(
        "loader scale: an epoch of 400 pairs of 512 px PNG on two cores, 40 a second",
        loader_speed.loading,
        loader_speed.LONGEST_SECONDS,
        loader_speed.MOST_MEGABYTES,
    ),
    import_scale.scale(),
    *published_scale.scales(),
    Scale(
        "leak scale: 200,000 training pictures against 3,000 of a suite",
        leak_scale.checking,
        leak_scale.LONGEST_SECONDS,
        leak_scale.MOST_MEGABYTES,
    ),
    Scale(
        "lineage scale: the slowest trace over 10,000 runs, 1,000 models and 1,000 versions of the dataset",
        lineage_scale.tracing,
        lineage_scale.LONGEST_SECONDS,
        lineage_scale.MOST_MEGABYTES,
    ),
)

"""The rule that stops a training: cheated rewards are caught, honest noise is not."""

import numpy as np
import pytest
from scipy.stats import t, ttest_rel

from editloop.training.editor_rl.guards import EvaluationScores, StopSettings, chance_of_rise, early_stopping_rule

TASKS, EVALUATIONS, TRAININGS = 64, 12, 60


def simulated(rng: np.random.Generator, *, reward: float, judge: float, walk: float = 0.04) -> list[EvaluationScores]:
    """A training in which the mean scores change by so much an evaluation, and each task's wander besides."""
    base = rng.uniform(0.2, 0.8, TASKS)
    changes = rng.normal([[reward], [judge]], walk, (EVALUATIONS, 2, TASKS)).cumsum(axis=0)
    start = [EvaluationScores(0, base, {"judge": base})]
    return start + [
        EvaluationScores(25 * (at + 1), base + one[0], {"judge": base + one[1]}) for at, one in enumerate(changes)
    ]


def stops_at(seen: list[EvaluationScores], settings: StopSettings) -> int | None:
    return next((at for at in range(1, len(seen) + 1) if early_stopping_rule(seen[:at], settings).stop), None)


def test_a_reward_that_rises_while_a_judge_falls_is_stopped_and_the_best_is_named() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        seen = simulated(rng, reward=0.02, judge=-0.02)
        at = stops_at(seen, StopSettings())
        assert at is not None
        found = early_stopping_rule(seen[:at], StopSettings())
        assert not found.best
        assert found.best_iteration < seen[at - 1].iteration
        assert "judge falls" in found.reason


def test_honest_trainings_go_on() -> None:
    """Level in the mean is the worst honest case; there the share of false alarms is that of the docstring."""
    rng = np.random.default_rng(1)
    level = [stops_at(simulated(rng, reward=0.02, judge=0.0), StopSettings()) for _ in range(TRAININGS)]
    rising = [stops_at(simulated(rng, reward=0.02, judge=0.005), StopSettings()) for _ in range(TRAININGS)]
    assert sum(at is not None for at in level) <= 0.1 * TRAININGS
    assert not any(rising)


def test_both_falling_is_no_cheat_and_one_bad_evaluation_is_none() -> None:
    rng = np.random.default_rng(2)
    assert stops_at(simulated(rng, reward=-0.02, judge=-0.02), StopSettings()) is None
    seen = simulated(rng, reward=0.02, judge=0.01)
    seen[5] = EvaluationScores(seen[5].iteration, seen[5].reward, {"judge": seen[5].watching["judge"] - 0.5})
    assert stops_at(seen, StopSettings()) is None
    assert stops_at(seen, StopSettings(evaluations=1)) == 6


def test_a_judge_that_was_away_stops_nothing_and_is_best_at_nothing() -> None:
    rng = np.random.default_rng(3)
    away = np.full(TASKS, np.nan)
    seen = [
        EvaluationScores(one.iteration, one.reward, {"judge": away}) for one in simulated(rng, reward=0.02, judge=-0.02)
    ]
    assert stops_at(seen, StopSettings()) is None
    assert early_stopping_rule(seen, StopSettings()).best_iteration == seen[-1].iteration, (
        "where nothing is known the last is kept"
    )
    mixed = [*simulated(rng, reward=0.02, judge=0.0)[:3], EvaluationScores(999, seen[0].reward, {"judge": away})]
    assert not early_stopping_rule(mixed, StopSettings()).best


def test_without_a_judge_that_watches_the_reward_says_what_is_best() -> None:
    scores = np.linspace(0, 1, 5)
    seen = [EvaluationScores(at, scores + shift) for at, shift in enumerate((0.0, 0.2, 0.1))]
    assert early_stopping_rule(seen[:2], StopSettings()).best
    assert (
        early_stopping_rule(seen, StopSettings()).best,
        early_stopping_rule(seen, StopSettings()).best_iteration,
    ) == (False, 1)


def test_a_fall_is_tested_at_an_error_shared_among_earlier_evaluations_and_judges() -> None:
    """With one evaluation asked: the rule's p is compared with 0.05 / (earlier evaluations x judges)."""
    tasks = np.arange(10) % 2 * 0.2
    before, once = 0.5 + tasks, StopSettings(evaluations=1)
    rises = before + 0.1 + tasks / 10

    def fallen(p: float) -> np.ndarray:
        """Scores whose paired t-test against `before` has exactly this p."""
        wobble = np.array([1.0, -1.0] * 5)
        return before - (t.isf(p, 9) * wobble.std(ddof=1) / np.sqrt(10) + wobble) / 100

    cases = [(0.045, 1, 1, True), (0.055, 1, 1, False), (0.03, 1, 2, False), (0.02, 1, 2, True)]
    for p, judges, earlier, stops in [*cases, (0.03, 2, 1, False), (0.02, 2, 1, True)]:
        names = ["judge", "second"][:judges]
        best = EvaluationScores(0, before, dict.fromkeys(names, before))
        worse = EvaluationScores(1, before, dict.fromkeys(names, before - 0.4))
        last = EvaluationScores(2, rises, {name: fallen(p) if name == "judge" else before for name in names})
        assert early_stopping_rule([*[best, worse][:earlier], last], once).stop == stops
    level = EvaluationScores(2, before, {"judge": fallen(0.001)})
    assert not early_stopping_rule([EvaluationScores(0, before, {"judge": before}), level], once).stop, (
        "the reward did not rise"
    )


def test_a_limit_on_the_distance_stops_with_the_next_step() -> None:
    seen = [EvaluationScores(0, np.ones(3)), EvaluationScores(25, np.ones(3), kl=0.3)]
    assert not early_stopping_rule(seen, StopSettings()).stop
    assert not early_stopping_rule(seen, StopSettings(most_kl=0.3)).stop, "at the limit is within it"
    found = early_stopping_rule(seen, StopSettings(most_kl=0.2))
    assert found.stop
    assert "0.3" in found.reason and "stop.most_kl" in found.reason  # noqa: PT018


@pytest.mark.parametrize("falls", [False, True])
def test_the_test_is_a_paired_t_test_over_the_tasks_with_both_scores(falls: bool) -> None:
    rng = np.random.default_rng(4)
    before = rng.uniform(size=30)
    now = before + rng.normal(0.05, 0.2, 30)
    known = ttest_rel(now, before, alternative="less" if falls else "greater").pvalue
    with_missing = [np.append(scores, extra) for scores, extra in ((before, np.nan), (now, 0.5))]
    assert chance_of_rise(*with_missing, falls=falls) == pytest.approx(known)
    assert chance_of_rise(before[:1], now[:1]) == 1.0
    assert chance_of_rise(before[:2], now[:2], falls=falls) < 1.0
    alike = np.full(4, 0.5)
    assert (chance_of_rise(alike, alike + 0.25), chance_of_rise(alike, alike)) == (0.0, 1.0)
    assert (chance_of_rise(alike, alike + 0.25, falls=True), chance_of_rise(alike, alike - 0.25, falls=True)) == (
        1.0,
        0.0,
    )

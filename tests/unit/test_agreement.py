import numpy as np
import pytest

from annotation.agreement import agreement, alpha
from annotation.vocabulary import Judgement


def said(task, candidate, annotator, level):
    return Judgement.model_validate(
        {
            "task_id": task,
            "candidate_id": candidate,
            "annotator": annotator,
            "if": level,
            "vq": 5 - level,
            "position": 0,
            "annotation_id": 1,
            "created_at": "2026-01-01T00:00:00Z",
        }
    )


def ordinal_alpha(items):
    """Krippendorff's alpha from its definition: 1 - observed / expected disagreement, ordinal distance."""
    totals = np.bincount([level for item in items for level in item], minlength=5)[1:].astype(float)

    def distance(a, b):
        low, high = min(a, b) - 1, max(a, b) - 1
        return (totals[low : high + 1].sum() - (totals[low] + totals[high]) / 2) ** 2

    n = totals.sum()
    observed = sum(
        distance(a, b) / (len(item) - 1)
        for item in items
        for i, a in enumerate(item)
        for j, b in enumerate(item)
        if i != j
    )
    expected = sum(
        totals[a - 1] * (totals[b - 1] - (a == b)) * distance(a, b) for a in range(1, 5) for b in range(1, 5)
    ) / (n - 1)
    return 1 - observed / expected


def test_alpha_is_its_definition():
    rng = np.random.default_rng(0)
    items = [list(np.clip(rng.integers(1, 5) + rng.integers(-1, 2, size=rng.integers(2, 5)), 1, 4)) for _ in range(30)]
    judgements = [
        said(f"t{i // 3}", f"c{i}", f"a{j}", int(level)) for i, item in enumerate(items) for j, level in enumerate(item)
    ]
    found = agreement(judgements, "if")
    assert found["alpha"] == pytest.approx(ordinal_alpha(items))
    assert found["ci95"][0] < found["alpha"] < found["ci95"][1]
    assert (found["items"], found["raters"]) == (30, 4)


def test_same_answers_agree_and_random_ones_do_not():
    rng = np.random.default_rng(1)
    same = [said(f"t{i}", "c", name, 1 + i % 4) for i in range(40) for name in "ab"]
    random = [said(f"t{i}", "c", name, int(rng.integers(1, 5))) for i in range(400) for name in "ab"]
    assert agreement(same, "vq")["alpha"] == pytest.approx(1)
    assert abs(agreement(random, "if")["alpha"]) < 0.15


def test_an_undefined_alpha_is_missing():
    constant = [said(f"t{i}", "c", name, 3) for i in range(5) for name in "ab"]
    alone = [said(f"t{i}", "c", "a", 1 + i % 4) for i in range(5)]
    for judgements in (constant, alone, []):
        found = agreement(judgements, "if")
        assert found["alpha"] is None
        assert found["ci95"] is None
    assert alpha(np.zeros((0, 4), dtype=np.int64)) is None

import numpy as np
import pytest

from annotation.campaign import read_tasks
from annotation.experts import assigned, expert, oracle_scores, rating
from infra.errors import EditLoopError

NAMES = ["expert-1", "expert-2", "expert-3", "expert-4"]


def test_what_an_expert_says_does_not_depend_on_the_order_of_questions():
    questions = [(f"task-{i}", f"candidate-{j}") for i in range(10) for j in range(4)]
    scores = {"if": 0.5, "vq": 0.5}
    for name in NAMES:
        forward = [rating(expert(name, 7), scores, 7, *q) for q in questions]
        backward = [rating(expert(name, 7), scores, 7, *q) for q in reversed(questions)]
        assert forward == backward[::-1]
        assert forward != [rating(expert(name, 8), scores, 8, *q) for q in questions]


@pytest.mark.parametrize("name", NAMES)
def test_experts_follow_the_oracle_within_their_bias(name):
    who = expert(name, 0)
    for score in (0.3, 0.5, 0.7):
        said = [rating(who, {"if": score, "vq": 1 - score}, 0, f"t{i}", "c") for i in range(2000)]
        assert np.mean([one["if"] for one in said]) == pytest.approx(1 + 3 * score + who.bias["if"], abs=0.1)
        assert np.mean([one["vq"] for one in said]) == pytest.approx(4 - 3 * score + who.bias["vq"], abs=0.1)


def test_ratings_stay_on_the_scale():
    said = [rating(expert("expert-1", 0), {"if": q, "vq": q}, 0, f"t{i}", "c") for i in range(500) for q in (0, 1)]
    assert {level for one in said for level in one.values()} <= {1, 2, 3, 4}


def test_work_is_shared_evenly_and_the_same_way_each_time():
    tasks = [f"task-{i}" for i in range(400)]
    shares = [assigned(task, NAMES, 3, seed=0) for task in tasks]
    assert shares == [assigned(task, NAMES[::-1], 3, seed=0) for task in tasks]
    assert all(len(set(share)) == 3 for share in shares)
    counts = [sum(name in share for share in shares) for name in NAMES]
    assert min(counts) > 260, counts


def test_the_oracle_sees_better_edits_as_better(make_candidates, tmp_path):
    folder = make_candidates(5)
    tasks = read_tasks(folder)
    scores = oracle_scores(folder, tasks)
    assert len(scores) == 20
    best = tasks[0].candidates[0].model_copy(update={"image": tasks[0].target})
    (perfect,) = oracle_scores(folder, [tasks[0].model_copy(update={"candidates": (best,)})]).values()
    assert perfect == {"if": 1.0, "vq": 1.0}
    with pytest.raises(EditLoopError, match="scene-0"):
        oracle_scores(folder, [tasks[0].model_copy(update={"target": None})])

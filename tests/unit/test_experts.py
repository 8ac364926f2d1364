import numpy as np
import pytest

from annotation.campaigns.campaign_settings import CampaignSettings
from annotation.campaigns.plan import plan_pages
from annotation.simulated_experts import oracle_scores
from editloop.data.candidates_folder import read_tasks
from editloop.errors import EditLoopError
from editloop.studies.world.characters import PageView, answer_page, assigned_annotators, expert, rate_candidate

NAMES = ["expert-1", "expert-2", "expert-3", "expert-4"]


def test_what_an_expert_says_does_not_depend_on_the_order_of_questions():
    questions = [(f"task-{i}", f"candidate-{j}") for i in range(10) for j in range(4)]
    scores = {"if": 0.5, "vq": 0.5}
    for name in NAMES:
        forward = [rate_candidate(expert(name, 7), scores, 7, *q) for q in questions]
        backward = [rate_candidate(expert(name, 7), scores, 7, *q) for q in reversed(questions)]
        assert forward == backward[::-1]
        assert forward != [rate_candidate(expert(name, 8), scores, 8, *q) for q in questions]


@pytest.mark.parametrize("name", NAMES)
def test_experts_follow_the_oracle_within_their_bias(name):
    who = expert(name, 0)
    for score in (0.3, 0.5, 0.7):
        said = [rate_candidate(who, {"if": score, "vq": 1 - score}, 0, f"t{i}", "c") for i in range(2000)]
        assert np.mean([one["if"] for one in said]) == pytest.approx(1 + 3 * score + who.bias["if"], abs=0.1)
        assert np.mean([one["vq"] for one in said]) == pytest.approx(4 - 3 * score + who.bias["vq"], abs=0.1)


def test_ratings_stay_on_the_scale():
    said = [
        rate_candidate(expert("expert-1", 0), {"if": q, "vq": q}, 0, f"t{i}", "c") for i in range(500) for q in (0, 1)
    ]
    assert {level for one in said for level in one.values()} <= {1, 2, 3, 4}


def test_work_is_shared_evenly_and_the_same_way_each_time():
    tasks = [f"task-{i}" for i in range(400)]
    shares = [assigned_annotators(task, NAMES, 3, seed=0) for task in tasks]
    assert shares == [assigned_annotators(task, NAMES[::-1], 3, seed=0) for task in tasks]
    assert all(len(set(share)) == 3 for share in shares)
    counts = [sum(name in share for share in shares) for name in NAMES]
    assert min(counts) > 260, counts


def test_asked_again_on_a_repeat_an_expert_is_near_but_not_the_same():
    who, scores = expert("expert-1", 0), {"if": 0.5, "vq": 0.5}
    first = [rate_candidate(who, scores, 0, f"t{i}", "c") for i in range(300)]
    again = [rate_candidate(who, scores, 0, f"t{i}", "c", "repeat") for i in range(300)]
    moved = [abs(one["if"] - two["if"]) for one, two in zip(first, again, strict=True)]
    assert max(moved) >= 1
    assert np.mean(moved) < 0.8


def said(character, *, count=400, score=0.5, seed=0):
    """(count, places) levels on the first axis of pages of four equal candidates, and (count,) seconds."""
    scores = [{"if": score, "vq": score}] * 4
    questions = [PageView("task", f"t{i}", ("a", "b", "c", "d"), i / (count - 1)) for i in range(count)]
    answers = [answer_page(expert("expert-1", seed, character), question, scores, seed) for question in questions]
    levels = np.array([[one["if"] for one in answer.ratings] for answer in answers])
    return levels, np.array([answer.seconds for answer in answers])


def test_each_faulty_character_has_its_fault_and_no_other():
    honest, honest_seconds = said("honest")
    assert honest_seconds.min() >= 10
    assert abs(honest[:, 0].mean() - honest[:, 3].mean()) < 0.15
    assert abs(honest[:100].mean() - honest[300:].mean()) < 0.15

    spammer, seconds = said("spammer", score=1.0)
    assert seconds.max() <= 4
    assert np.allclose([np.mean(spammer == level) for level in (1, 2, 3, 4)], 0.25, atol=0.05)

    sleepy, seconds = said("sleepy", score=0.1)
    asleep = seconds < 10
    assert np.mean(asleep) == pytest.approx(0.5, abs=0.08)
    assert np.all(sleepy[asleep] == 3)
    assert np.all(sleepy[~asleep] == said("honest", score=0.1)[0][~asleep])

    assert honest.mean() - said("biased")[0].mean() == pytest.approx(1.0, abs=0.15)

    drifting, _ = said("drifting")
    assert honest[:40].mean() - drifting[:40].mean() < 0.2
    assert honest[360:].mean() - drifting[360:].mean() > 0.8

    by_place = said("position-biased")[0].mean(axis=0) - honest.mean(axis=0)
    assert by_place[0] > 0.7
    assert by_place[3] < -0.7
    assert abs(by_place.mean()) < 0.15


def test_the_oracle_sees_better_edits_as_better(make_candidates, tmp_path):
    folder = make_candidates(5)
    tasks = read_tasks(folder)
    settings = CampaignSettings(name="one", annotators=("ada", "bo"))
    images = folder / "images"
    pages = plan_pages(tasks, settings, config_sha256="c", images=images, gold_images=tmp_path / "made")
    scores = oracle_scores([images], tasks, pages)
    assert len(scores) == 20
    page = next(page for page in pages if page.task_id == tasks[0].task_id)
    perfect = page.model_copy(update={"images": (tasks[0].target,)})
    assert oracle_scores([images], tasks, [perfect]) == {(tasks[0].task_id, tasks[0].target): {"if": 1.0, "vq": 1.0}}
    blind = [task.model_copy(update={"target": None}) for task in tasks]
    with pytest.raises(EditLoopError, match="scene-0"):
        oracle_scores([images], blind, pages)
    with pytest.raises(EditLoopError, match="4 tasks of the campaign are not among the candidates"):
        oracle_scores([images], tasks[:1], pages)

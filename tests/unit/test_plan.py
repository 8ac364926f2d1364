"""The plan of a campaign's pages: shares, orders, spread, known answers that an honest expert gives."""

from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest

from annotation.campaigns.campaign_settings import CampaignSettings
from annotation.campaigns.plan import plan_pages, references_of
from annotation.simulated_experts import oracle_scores
from editloop.data.candidates_folder import read_tasks
from editloop.data.picture_file import file_picture_sha256
from editloop.errors import EditLoopError
from editloop.models.editors.candidates import write_given_candidates
from editloop.studies.world.characters import PageView, answer_page, expert
from editloop.studies.world.stand_ins import add_candidates
from editloop.studies.world.two_sources import write_transfers

PEOPLE = ("expert-1", "expert-2", "expert-3")


def settings(**given):
    return CampaignSettings.model_validate({"name": "plan", "annotators": PEOPLE, "overlap": 2, **given})


@pytest.fixture
def plan(make_candidates, tmp_path):
    def make(count, *, candidates=4, seed=0, config="config", **given):
        folder = make_candidates(count, candidates=candidates, seed=seed)
        tasks = read_tasks(folder)
        made = tmp_path / "made"
        pages = plan_pages(tasks, settings(**given), config_sha256=config, images=folder / "images", gold_images=made)
        return folder, tasks, pages

    return make


def kinds(pages, kind):
    return [page for page in pages if page.kind == kind]


def test_every_task_is_asked_once_and_shares_are_kept(plan):
    _, tasks, pages = plan(60, gold={"share": 0.1}, repeats={"share": 0.05})
    assert Counter(page.kind for page in pages) == {"task": 60, "gold": 6, "repeat": 3}
    assert sorted(page.task_id for page in kinds(pages, "task")) == sorted(task.task_id for task in tasks)
    assert len({page.key for page in pages}) == len(pages)
    repeated = {page.task_id for page in kinds(pages, "repeat")}
    for page in pages:
        everybody = page.kind != "task" or page.task_id in repeated
        assert page.overlap == (3 if everybody else 2)


def test_a_share_of_nothing_is_nothing_and_a_small_share_is_a_page(plan):
    assert Counter(page.kind for page in plan(8)[2]) == {"task": 8}
    few = plan(8, gold={"share": 0.01}, repeats={"share": 0.01})[2]
    assert Counter(page.kind for page in few) == {"task": 8, "gold": 1, "repeat": 1}


def test_the_order_on_a_page_is_drawn_and_every_editor_stands_everywhere_alike(plan):
    _, tasks, pages = plan(400, seed=5)
    editors = {one.candidate_id: one.editor for task in tasks for one in task.candidates}
    places = defaultdict(Counter)
    for page in pages:
        for place, candidate in enumerate(page.candidates):
            places[editors[candidate]][place] += 1
    counts = np.array([[places[editor][place] for place in range(4)] for editor in sorted(places)])
    statistic = ((counts - 100) ** 2 / 100).sum()
    assert statistic < 27.9, counts  # chi squared with 9 degrees of freedom, one in a thousand


def test_a_plan_is_its_seeds(make_candidates, tmp_path):
    folder = make_candidates(30)

    def drawn(seed, tasks):
        given = settings(gold={"share": 0.1}, repeats={"share": 0.1}, seed=seed)
        return plan_pages(tasks, given, config_sha256="c", images=folder / "images", gold_images=tmp_path / "made")

    tasks = read_tasks(folder)
    assert drawn(1, tasks) == drawn(1, tasks)
    first, other = ({page.key for page in drawn(seed, tasks)} for seed in (1, 2))
    assert len(first & other) < 6


def test_a_repeat_is_another_order_of_the_same_pictures_far_from_its_original(plan):
    for candidates in (2, 3, 4):
        _, _, pages = plan(40, candidates=candidates, repeats={"share": 0.2})
        place = {(page.kind, page.task_id): number for number, page in enumerate(pages)}
        first = {page.task_id: page for page in kinds(pages, "task")}
        assert len(kinds(pages, "repeat")) == 8
        for page in kinds(pages, "repeat"):
            original = first[page.task_id]
            assert page.candidates != original.candidates
            assert sorted(page.candidates) == sorted(original.candidates)
            assert abs(place["repeat", page.task_id] - place["task", page.task_id]) > len(pages) / 3


@pytest.mark.parametrize("count", [2, 3, 4])
def test_even_in_a_tiny_campaign_a_repeat_is_not_beside_its_original(plan, count):
    for seed in range(6):
        pages = plan(count, seed=seed, repeats={"share": 0.5})[2]
        assert all(one.task_id != two.task_id for one, two in pairwise(pages))


def test_gold_is_spread_over_the_queue(plan):
    pages = plan(100, gold={"share": 0.1})[2]
    places = [number for number, page in enumerate(pages) if page.kind == "gold"]
    assert max(np.diff(places)) <= 12
    assert min(np.diff(places)) >= 10


@pytest.mark.parametrize("candidates", [2, 3, 4, 7])
def test_gold_looks_like_any_page_and_honest_experts_give_its_answers(plan, tmp_path, candidates):
    folder, tasks, pages = plan(40, candidates=candidates, gold={"share": 0.5})
    gold, by_id = kinds(pages, "gold"), {task.task_id: task for task in tasks}
    scores = oracle_scores([tmp_path / "made", folder / "images"], tasks, gold)
    right, all_of_them = 0, 0
    for page in gold:
        assert len(set(page.images)) == candidates
        assert by_id[page.task_id].target in page.images
        assert 2 <= len(page.expected) < candidates or candidates == 2
        question = PageView("gold", page.task_id, page.candidates, 0.0)
        for name in PEOPLE:
            said = answer_page(expert(name, 0), question, [scores[page.task_id, one] for one in page.images], 0).ratings
            for candidate, ratings in zip(page.candidates, said, strict=True):
                for axis, (low, high) in page.expected.get(candidate, {}).items():
                    right += low <= ratings[axis] <= high
                    all_of_them += 1
    assert right / all_of_them > 0.95, (right, all_of_them)
    for picture in (tmp_path / "made").glob("*.png"):
        assert picture.stem == file_picture_sha256(picture)


def test_the_leads_answers_make_their_tasks_gold(plan):
    answers = "task,candidate,if,vq\nscene-1,2,4,3-4\nscene-3,1,1-2,\n"
    _, tasks, pages = plan(6, gold={"answers": answers}, repeats={"share": 0.5})
    by_name = {task.name: task for task in tasks}
    one, three = by_name["scene-1"], by_name["scene-3"]
    expected = {page.task_id: page.expected for page in kinds(pages, "gold")}
    assert expected == {
        one.task_id: {one.candidates[1].candidate_id: {"if": (4, 4), "vq": (3, 4)}},
        three.task_id: {three.candidates[0].candidate_id: {"if": (1, 2)}},
    }
    others = {page.task_id for page in pages if page.kind != "gold"}
    assert others == {task.task_id for task in tasks} - {one.task_id, three.task_id}


def test_all_faults_of_the_leads_answers_are_told_with_their_lines(plan):
    rows = ["scene-0,1,5,2", "scene-9,1,4,4", "scene-0,9,4,4", "scene-0,2,4-3,4", "scene-1,1,,", "scene-2,1,4,4"]
    with pytest.raises(EditLoopError) as told:
        plan(4, gold={"answers": "\n".join(["task,candidate,if,vq", *rows, "scene-2,1,3,3"])})
    for words in ("line 2: if = 5", "line 3: task = scene-9", "line 4: candidate = 9", "line 5: if = 4-3"):
        assert words in str(told.value)
    assert "line 6: if and vq are empty" in str(told.value)
    assert "line 8: scene-2, 1 stands twice" in str(told.value)
    with pytest.raises(EditLoopError, match="task,candidate,if,vq"):
        plan(4, gold={"answers": "task,if\nscene-0,3\n"})


def test_gold_without_a_known_right_result_is_refused(make_candidates, tmp_path):
    folder = make_candidates(3)
    tasks = [task.model_copy(update={"target": None}) for task in read_tasks(folder)]
    with pytest.raises(EditLoopError, match="none has one"):
        plan_pages(
            tasks,
            settings(gold={"share": 0.1}),
            config_sha256="c",
            images=folder / "images",
            gold_images=tmp_path / "made",
        )


def test_a_page_shows_so_many_candidates_of_a_crowded_task(plan):
    _, tasks, pages = plan(5, candidates=9, candidates_per_task=3)
    known = {task.task_id: {one.candidate_id for one in task.candidates} for task in tasks}
    for page in pages:
        assert len(set(page.candidates)) == 3
        assert set(page.candidates) <= known[page.task_id]
    with pytest.raises(EditLoopError, match=r"scene-0 \(9\).*candidates_per_task"):
        plan(5, candidates=9)


def test_a_page_is_another_one_where_its_config_or_order_is(plan):
    _, _, pages = plan(5)
    keys = {page.key for page in pages}
    assert not keys & {page.key for page in plan(5, config="another")[2]}
    assert keys == {page.key for page in plan(5, annotators=["somebody", "else"])[2]}


def test_counts_of_gold_and_repeats_need_no_share_and_do_not_depend_on_the_people(plan):
    for people in (PEOPLE, [f"p{k}" for k in range(40)]):
        pages = plan(60, gold={"pages": 4}, repeats={"pages": 2}, annotators=people)[2]
        assert Counter(page.kind for page in pages) == {"task": 60, "gold": 4, "repeat": 2}


def test_training_and_norming_take_their_tasks_out_of_the_campaign(plan):
    _, tasks, pages = plan(20, gold={"pages": 3}, repeats={"pages": 3}, training={"pages": 5}, norming={"pages": 4})
    assert Counter(page.kind for page in pages) == {"task": 11, "gold": 3, "repeat": 3, "training": 5, "norming": 4}
    tasks_of = {kind: {page.task_id for page in kinds(pages, kind)} for kind in ("task", "norming", "training", "gold")}
    assert set.union(*tasks_of.values()) == {task.task_id for task in tasks}
    assert not tasks_of["task"] & (tasks_of["norming"] | tasks_of["training"])
    assert not tasks_of["training"] & (tasks_of["gold"] | tasks_of["norming"])
    assert [page.kind for page in pages[:4]] == ["norming"] * 4, "to be discussed before the campaign goes on"
    assert [page.kind for page in pages[-5:]] == ["training"] * 5
    for page in pages:
        assert bool(page.expected) is (page.kind in ("gold", "training"))
        assert page.overlap == (2 if page.kind == "task" and page.task_id not in repeated(pages) else 3)


def repeated(pages):
    return {page.task_id for page in kinds(pages, "repeat")}


def test_training_takes_the_leads_answers_where_targets_are_too_few(make_candidates, tmp_path):
    folder = make_candidates(6)
    tasks = [task.model_copy(update={"target": None}) for task in read_tasks(folder)]
    given = {"gold": {"answers": "task,candidate,if,vq\nscene-1,1,4,4\nscene-2,1,,1\n"}}

    def planned(pages):
        made = settings(training={"pages": pages}, **given)
        return plan_pages(tasks, made, config_sha256="c", images=folder / "images", gold_images=tmp_path / "made")

    pages = planned(1)
    assert Counter(page.kind for page in pages) == {"task": 4, "gold": 1, "training": 1}
    assert {page.task_id for page in pages if page.expected} == {tasks[1].task_id, tasks[2].task_id}
    with pytest.raises(EditLoopError, match=r"training\.pages = 3: only 2 tasks have a target or known answers"):
        planned(3)


def test_a_campaign_of_nothing_but_training_and_norming_is_refused(plan):
    with pytest.raises(EditLoopError, match="Of 4 tasks 2 are for training, 2 for norming and 0 are gold"):
        plan(4, training={"pages": 2}, norming={"pages": 2})


def test_pages_of_every_kind_show_their_task_s_references(tmp_path):
    write_transfers(tmp_path / "drawn", 12, seed=0)
    add_candidates(tmp_path / "drawn", tmp_path / "edits", seed=0)
    write_given_candidates(tmp_path / "edits", tmp_path / "candidates")
    tasks = read_tasks(tmp_path / "candidates")
    tasks = [*tasks[:11], tasks[11].model_copy(update={"references": (), "task_id": "alone"})]
    given = {"gold": {"share": 0.1}, "repeats": {"share": 0.1}, "norming": {"pages": 1}, "training": {"pages": 1}}

    def planned(*, forgotten=False):
        shown = [task.model_copy(update={"references": ()}) for task in tasks] if forgotten else tasks
        images, gold = tmp_path / "candidates/images", tmp_path / "gold"
        return plan_pages(shown, settings(**given), config_sha256="c", images=images, gold_images=gold)

    references = {task.task_id: task.references for task in tasks}
    pages = planned()
    assert {page.kind for page in pages} == {"task", "gold", "repeat", "norming", "training"}
    assert all(page.references == references[page.task_id] for page in pages)
    assert (references_of(tasks), references_of(tasks[11:])) == (1, 0)
    plain = {(page.kind, page.task_id): page for page in planned(forgotten=True)}
    for page in pages:
        without = plain[page.kind, page.task_id]
        assert (page.key == without.key) == (not page.references), "another image is another page"
        assert ("references" in page.model_dump(mode="json")) == bool(page.references)

import json
import re
from html.parser import HTMLParser

import krippendorff
import numpy as np
import pytest

from annotation.quality import page_cards
from annotation.quality.page_cards import Answered
from annotation.quality.quality import quality, reviewed_quality
from annotation.quality.quality_page import quality_page
from editloop.data.candidates_folder import read_tasks
from editloop.data.vocabulary import CannotJudge, Decision, Judgement, Page
from editloop.statistics.judgement_table import judgement_table
from editloop.statistics.reliability import reliability
from tests.generated_campaign import BEGIN, Character, campaign


def measured(characters, cannot=(), **settings):
    made = campaign(characters, **settings)
    return made, quality(made.judgements, made.checks, cannot, made.pages, made.tasks)


@pytest.fixture(scope="module")
def found():
    characters = {"anna": Character(), "ben": Character(noise=0.6), "<i>eva</i>": Character(random_from=0, seconds=2)}
    cannot = [
        CannotJudge(kind="task", task_id="t1", annotator="anna", reason=reason, annotation_id=k, created_at=BEGIN)
        for k, reason in enumerate(["source broken", "source broken", "other"])
    ]
    return measured(characters, cannot, tasks=120)


def matrix(judgements, field):
    """(annotators, candidates), NaN where nobody rated."""
    names = sorted({one.annotator for one in judgements})
    items = sorted({(one.task_id, one.candidate_id) for one in judgements})
    values = np.full((len(names), len(items)), np.nan)
    for one in judgements:
        values[names.index(one.annotator), items.index((one.task_id, one.candidate_id))] = getattr(one, field)
    return values


def test_figures_are_the_libraries_on_the_same_table(found):
    made, figures = found
    for axis, field in (("if", "instruction_following"), ("vq", "visual_quality")):
        everything = krippendorff.alpha(matrix(made.judgements, field), level_of_measurement="ordinal")
        assert figures["axes"][axis]["alpha"] == pytest.approx(everything)
        types = {task.task_id: task.task_type for task in made.tasks}
        for kind, one in figures["axes"][axis]["by_type"].items():
            inside = [judgement for judgement in made.judgements if types[judgement.task_id] == kind]
            assert one["alpha"] == pytest.approx(
                krippendorff.alpha(matrix(inside, field), level_of_measurement="ordinal")
            )
        assert sum(one["items"] for one in figures["axes"][axis]["over_time"]) == figures["axes"][axis]["items"]
        weights = reliability(judgement_table(made.judgements), axis).weights
        assert {name: one["weight"][axis] for name, one in figures["annotators"].items()} == weights
    assert figures["cannot"]["by_reason"] == {"source broken": 2, "other": 1}
    assert figures["counts"]["judgements"] == len(made.judgements)


def test_a_place_that_all_prefer_is_seen_in_the_campaign():
    tilted = {name: Character(first=0.6) for name in ("a", "b", "c")}
    _, figures = measured(tilted, tasks=200)
    _, fair = measured({name: Character() for name in tilted}, tasks=200)
    for axis in ("if", "vq"):
        assert figures["position"][axis]["p"] < 0.001
        assert figures["position"][axis]["means"][0] > 0.25
        assert fair["position"][axis]["p"] > 0.01


def test_answers_to_one_page_are_no_independent_orders():
    """Copies of one annotator's answers leave the campaign's position test as it was."""
    made = campaign({"a": Character()}, tasks=60, overlap=1)
    copies = [
        one.model_copy(update={"annotator": f"copy-{k}", "annotation_id": one.annotation_id + k})
        for k in range(5)
        for one in made.judgements
    ]
    alone = quality(made.judgements, [], [], [], [])["position"]["if"]
    together = quality(copies, [], [], [], [])["position"]["if"]
    assert together["p"] == pytest.approx(alone["p"])
    assert together["pages"] == alone["pages"] == 60


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.open, self.addresses = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href")]


def test_the_page_shows_the_figures_and_needs_nothing_else(found):
    _, figures = found
    page = quality_page(json.loads(json.dumps(figures)), "Spring & summer")
    reader = _Page()
    reader.feed(page)
    assert not [address for address in reader.addresses if not address.startswith("#")]
    assert not {"script", "link", "img"} & set(reader.tags)
    assert reader.tags.count("svg") >= 6
    assert "Spring &amp; summer" in page
    assert "<i>eva" not in page  # names are people's own: escaped in text and in plots
    text = re.sub(r"<[^>]+>", " ", page)
    assert f"{figures['axes']['if']['alpha']:.2f}" in text
    assert f"{100 * figures['annotators']['anna']['gold']['share']:.0f} %" in text
    for flag in figures["annotators"]["<i>eva</i>"]["flags"]:
        assert flag.split(": ", 1)[0] in text
    assert "source broken" in text


def test_the_page_shows_conflicts_and_norming_pages_with_pictures_and_ratings(make_candidates, monkeypatch):
    folder = make_candidates(4, seed=71, candidates=2)
    tasks = read_tasks(folder)
    pages = [
        Page(
            key=f"key-{n}",
            kind="norming" if n == 3 else "task",
            task_id=task.task_id,
            instruction=task.instruction,
            source=task.source,
            candidates=tuple(one.candidate_id for one in task.candidates),
            images=tuple(one.image for one in task.candidates),
            overlap=2,
        )
        for n, task in enumerate(tasks)
    ]
    votes = {"ada": [(1, 1), (1, 2), (3, 3), (2, 2)], "<b>bo": [(4, 1), (4, 4), (3, 3), (3, 2)]}
    judged = [
        Judgement.model_validate(
            {
                "kind": pages[n].kind,
                "task_id": task.task_id,
                "candidate_id": candidate,
                "annotator": who,
                "if": levels[n][0],
                "vq": levels[n][1],
                "position": place,
                "annotation_id": n,
                "created_at": BEGIN,
            }
        )
        for who, levels in votes.items()
        for n, task in enumerate(tasks)
        for place, candidate in enumerate(pages[n].candidates)
    ]
    decided = {"task_id": tasks[1].task_id, "candidate_id": pages[1].candidates[0], "lead": "lea", "if": 4, "vq": 3}
    decision = Decision.model_validate({**decided, "reason": "It is red.", "annotation_id": 9, "created_at": BEGIN})
    answered = Answered(
        [one for one in judged if one.kind == "task"],
        [one for one in judged if one.kind == "norming"],
        [],
        [decision],
        pages,
        {"key-0": "http://studio/projects/7/data?task=100"},
    )
    figures, review = reviewed_quality(answered, tasks, [folder / "images"])
    assert [card.task_id for card in review.conflicts.cards] == [tasks[0].task_id, tasks[1].task_id]
    assert [card.task_id for card in review.norming.cards] == [tasks[3].task_id]
    first, second = review.conflicts.cards
    assert [rating.far for row in first.rows for rating in row.ratings] == [True] * 4
    assert (first.decision, second.decision.person) == (None, "lea")
    assert [rating and rating.levels for rating in second.decision.ratings] == [{"if": 4, "vq": 3}, None]
    assert first.reasons[0] == "Instruction following of edit 1: 1 to 4"
    page = quality_page(json.loads(json.dumps(figures)), "With pictures", review)
    assert page.count("data:image/webp") == 3 * (2 + 1) + len(figures["hardest"])
    for shown in (
        "It is red.",
        "&lt;b&gt;bo",
        'href="http://studio/projects/7/data?task=100"',
        "Norming",
        "Hardest tasks",
    ):
        assert shown in page
    assert "<b>bo" not in page
    monkeypatch.setattr(page_cards, "PICTURE_BYTES", 1)
    _, short = reviewed_quality(answered, tasks, [folder / "images"])
    assert (len(short.norming.cards), short.conflicts.left_out) == (1, 2)
    assert "2 more tasks in conflict are not shown here" in quality_page(figures, "Short", short)
    _, blind = reviewed_quality(answered, tasks, [])
    assert blind.conflicts.cards[0].source is None


@pytest.mark.parametrize("size", [0, 1, 3])
def test_a_campaign_that_has_hardly_begun_has_a_page_too(size):
    made = campaign({"anna": Character()}, tasks=max(1, size), overlap=1, gold=0, repeats=0)
    figures = quality(made.judgements[: 4 * size], [], [], made.pages, [])
    assert figures["axes"]["if"]["alpha"] is None
    assert figures["axes"]["if"]["note"]
    assert figures["axes"]["if"]["note"] in quality_page(json.loads(json.dumps(figures)), "New")
    assert "NaN" not in json.dumps(figures)

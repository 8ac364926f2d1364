"""Label Studio projects as other teams make them, from Label Studio's own templates, with answers, and their exports.

    python -m tests.label_studio_projects       # writes the exports of tests/parity/label-studio anew

It wants a Label Studio that `editloop up` started, with the variables that it prints. The pictures of the tasks are not
there: `write_pictures` makes them.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from PIL import Image

from annotation.campaigns.accounts import ensure_annotators, read_accounts
from annotation.campaigns.campaign import connect
from annotation.campaigns.label_studio import LabelStudioApi
from annotation.formats.judgements_folder import read_judgements
from editloop.data.candidates_folder import read_tasks
from editloop.data.picture_file import file_picture_sha256
from infra.settings import ServiceSettings, service_settings

EXPORTS = Path(__file__).parent / "parity" / "label-studio"
FORMATS = {"JSON": "json", "JSON_MIN": "min.json", "CSV": "csv"}
"""Ending of each format's file."""
ANNA, BEN = "anna@team.org", "ben@team.org"
TASKS = 4

Result = list[dict[str, Any]]


class Answer(NamedTuple):
    """An annotation to be made."""

    task: int
    annotator: str
    result: Result
    skipped: bool = False
    draft: bool = False


class Project(NamedTuple):
    """A project of another team."""

    config: str
    data: list[dict[str, Any]]
    answers: list[Answer]
    mapping: str
    """The mapping file for it."""


def write_pictures(folder: Path) -> None:
    """The pictures of all projects, a source and four edits of each task, also where Label Studio puts uploads."""
    for task in range(TASKS):
        for number, name in enumerate((f"in/{task}.png", *(f"out/{task}-{edit}.png" for edit in "abcd"))):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(10 * task + number).integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name)
    for kind in ("in", "out"):
        shutil.copytree(folder / kind, folder / "upload" / "7" / kind)


def local(name: str) -> str:
    """The address that Label Studio's local storage gives a file."""
    return f"/data/local-files/?d={name.replace('/', '%2F')}"


def rated(control: str, picture: str, stars: int) -> dict[str, Any]:
    return {"from_name": control, "to_name": picture, "type": "rating", "value": {"rating": stars}}


def chosen(control: str, picture: str, word: str) -> dict[str, Any]:
    return {"from_name": control, "to_name": picture, "type": "choices", "value": {"choices": [word]}}


def preferred(control: str, side: str) -> dict[str, Any]:
    return {"from_name": control, "to_name": "first,second", "type": "pairwise", "value": {"selected": side}}


def ranked(control: str, buckets: dict[str, list[str]]) -> dict[str, Any]:
    return {"from_name": control, "to_name": "edits", "type": "ranker", "value": {"ranker": buckets}}


PICTURES = "".join(f'<Image name="{name}" value="${name}"/>' for name in ("source", "first", "second"))
WHICH = "".join(f'<Choice value="{word}"/>' for word in ("First", "Second", "Same"))
HEADER = '<Text name="prompt" value="$instruction"/>'


def pair(task: int, first: str = "a", second: str = "b", form: Any = str) -> dict[str, Any]:
    """Data of a task with two edits."""
    return {
        "instruction": f"Make the cup red; keep\nthe rest ({task}).",
        "source": form(f"in/{task}.png"),
        "first": form(f"out/{task}-{first}.png"),
        "second": form(f"out/{task}-{second}.png"),
        "model_1": f"editor-{first}",
        "model_2": f"editor-{second}",
    }


def listed(task: int) -> dict[str, Any]:
    """Data of a task with a list of edits, as the template Visual Ranker has it."""
    edits = [
        {"id": f"edit_{name}", "html": f"<img src='{local(f'out/{task}-{name}.png')}'/>", "title": f"editor-{name}"}
        for name in "abcd"
    ]
    return {"instruction": f"Make the cup red ({task}).", "source": local(f"in/{task}.png"), "edits": edits}


def stars(task: int, annotator: str, *values: int) -> Answer:
    """Following and quality of the first edit, then of the second."""
    controls = ("follow_1", "quality_1", "follow_2", "quality_2")
    result = [
        rated(control, picture, value)
        for control, picture, value in zip(controls, ("first", "first", "second", "second"), values, strict=False)
    ]
    return Answer(task, annotator, result)


PROJECTS = {
    "rating": Project(
        f"""<View>{HEADER}{PICTURES}
        <Rating name="follow_1" toName="first" maxRating="5"/><Rating name="quality_1" toName="first" maxRating="5"/>
        <Rating name="follow_2" toName="second" maxRating="5"/><Rating name="quality_2" toName="second" maxRating="5"/>
        </View>""",
        [pair(task, form=local) for task in range(TASKS)],
        [
            stars(0, ANNA, 5, 4, 1, 3),
            stars(0, BEN, 4, 5, 2, 3),
            stars(1, ANNA, 3, 3, 5, 5),
            stars(1, BEN, 2, 3),
            stars(2, ANNA, 5, 5, 1),
            Answer(2, BEN, [], skipped=True),
            stars(3, ANNA, 1, 1, 4, 4)._replace(draft=True),
        ],
        """
source: source
instruction: instruction
images: {one: first, two: second}
editors: {one: model_1, two: model_2}
ratings:
  one: {if: follow_1, vq: quality_1}
  two: {if: follow_2, vq: quality_2}
scale: 1..5
""",
    ),
    "words": Project(
        f"""<View>{HEADER}{PICTURES}
        <Choices name="follow_1" toName="first"><Choice value="Poor"/><Choice value="Good"/></Choices>
        <Choices name="follow_2" toName="second"><Choice value="Poor"/><Choice value="Good"/></Choices>
        </View>""",
        [pair(task) for task in range(2)],
        [
            Answer(0, ANNA, [chosen("follow_1", "first", "Good"), chosen("follow_2", "second", "Poor")]),
            Answer(1, ANNA, [chosen("follow_1", "first", "Poor"), chosen("follow_2", "second", "Good")]),
        ],
        """
source: source
instruction: instruction
images: {one: first, two: second}
ratings:
  one: {if: follow_1, vq: follow_1}
  two: {if: follow_2, vq: follow_2}
words: {Poor: 1, Good: 4}
""",
    ),
    "pairwise": Project(
        f'<View>{HEADER}{PICTURES}<Pairwise name="better" toName="first,second"/></View>',
        [pair(0), pair(0, "b", "c"), pair(0, "c", "a"), pair(1, form=lambda name: f"/data/upload/7/{name}")],
        [
            Answer(0, ANNA, [preferred("better", "left")]),
            Answer(1, ANNA, [preferred("better", "left")]),
            Answer(2, ANNA, [preferred("better", "right")]),
            Answer(3, ANNA, [preferred("better", "right")]),
            Answer(0, BEN, [preferred("better", "right")]),
            Answer(1, BEN, []),
        ],
        """
source: source
instruction: instruction
images: {left: first, right: second}
editors: {left: model_1, right: model_2}
preferences: {if: better, vq: better}
ranks: {2: [4, 2], 3: [4, 3, 1]}
""",
    ),
    "choices": Project(
        f"""<View>{HEADER}{PICTURES}
        <Choices name="follows" toName="first">{WHICH}</Choices><Choices name="looks" toName="first">{WHICH}</Choices>
        </View>""",
        [pair(task) for task in range(2)],
        [
            Answer(0, ANNA, [chosen("follows", "first", "First"), chosen("looks", "first", "Same")]),
            Answer(1, ANNA, [chosen("follows", "first", "Second"), chosen("looks", "first", "First")]),
            Answer(1, BEN, [chosen("follows", "first", "Same"), chosen("looks", "first", "Same")]),
        ],
        """
source: source
instruction: instruction
images: {one: first, two: second}
preferences: {if: follows, vq: looks}
choices: {First: one, Second: two, Same: tie}
ranks: {1: [3], 2: [4, 2]}
""",
    ),
    "ranker": Project(
        f"""<View>{HEADER}<Image name="picture" value="$source"/>
        <List name="edits" value="$edits"/><Ranker name="rank" toName="edits"/></View>""",
        [listed(task) for task in range(2)],
        [
            Answer(0, ANNA, [ranked("rank", {"rank": ["edit_c", "edit_a", "edit_d", "edit_b"]})]),
            Answer(1, BEN, [ranked("rank", {"rank": ["edit_a", "edit_b", "edit_c", "edit_d"]})]),
        ],
        """
source: source
instruction: instruction
items: {key: edits, image: html, editor: title}
preferences: {if: rank, vq: rank}
ranks: {4: [4, 3, 2, 1]}
""",
    ),
    "buckets": Project(
        f"""<View>{HEADER}<Image name="picture" value="$source"/><List name="edits" value="$edits"/>
        <Ranker name="rank" toName="edits"><Bucket name="good"/><Bucket name="bad"/></Ranker></View>""",
        [listed(task) for task in range(2)],
        [
            Answer(0, ANNA, [ranked("rank", {"_": ["edit_d"], "good": ["edit_c"], "bad": ["edit_a", "edit_b"]})]),
            Answer(1, ANNA, [ranked("rank", {"_": [], "good": ["edit_a", "edit_b", "edit_c", "edit_d"], "bad": []})]),
        ],
        """
source: source
instruction: instruction
items: {key: edits, image: html}
preferences: {if: rank, vq: rank}
buckets: [good, bad]
ranks: {1: [3], 2: [4, 1]}
""",
    ),
}


Ratings = dict[tuple[str, str], tuple[int, int]]
"""Instruction following and visual quality, by the picture's name and the annotator's."""
RATINGS: dict[str, Ratings] = {
    "rating": {
        ("0-a", "anna"): (4, 3),
        ("0-b", "anna"): (1, 3),
        ("0-a", "ben"): (3, 4),
        ("0-b", "ben"): (2, 3),
        ("1-a", "anna"): (3, 3),
        ("1-b", "anna"): (4, 4),
        ("1-a", "ben"): (2, 3),
    },
    "words": {("0-a", "anna"): (4, 4), ("0-b", "anna"): (1, 1), ("1-a", "anna"): (1, 1), ("1-b", "anna"): (4, 4)},
    "pairwise": {
        ("0-a", "anna"): (4, 4),
        ("0-b", "anna"): (3, 3),
        ("0-c", "anna"): (1, 1),
        ("1-a", "anna"): (2, 2),
        ("1-b", "anna"): (4, 4),
        ("0-a", "ben"): (2, 2),
        ("0-b", "ben"): (4, 4),
    },
    "choices": {
        ("0-a", "anna"): (4, 3),
        ("0-b", "anna"): (2, 3),
        ("1-a", "anna"): (2, 4),
        ("1-b", "anna"): (4, 2),
        ("1-a", "ben"): (3, 3),
        ("1-b", "ben"): (3, 3),
    },
    "ranker": {
        **{(f"0-{edit}", "anna"): (level, level) for edit, level in zip("cadb", (4, 3, 2, 1), strict=True)},
        **{(f"1-{edit}", "ben"): (level, level) for edit, level in zip("abcd", (4, 3, 2, 1), strict=True)},
    },
    "buckets": {
        **{(f"0-{edit}", "anna"): (level, level) for edit, level in zip("cab", (4, 1, 1), strict=True)},
        **{(f"1-{edit}", "anna"): (3, 3) for edit in "abcd"},
    },
}
"""What each project's answers come to, by hand: picture and annotator, instruction following and visual quality."""


def write_mapping(path: Path, name: str, **changes: Any) -> Path:
    """The mapping file of a project, with changes; a key of value None is left out."""
    settings = yaml.safe_load(PROJECTS[name].mapping) | changes
    used = {key: value for key, value in settings.items() if value is not None}
    path.write_text(yaml.safe_dump(used, sort_keys=False))
    return path


def imported_ratings(candidates: Path, judgements: Path, pictures: Path) -> Ratings:
    """The ratings of an import, by the names of the pictures that `write_pictures` made."""
    names = {file_picture_sha256(path): path.stem for path in (pictures / "out").iterdir()}
    edits = {
        (task.task_id, edit.candidate_id): names[edit.image]
        for task in read_tasks(candidates)
        for edit in task.candidates
    }
    return {
        (edits[row.task_id, row.candidate_id], row.annotator.partition("@")[0]): (
            row.instruction_following,
            row.visual_quality,
        )
        for row in read_judgements(judgements)
    }


def exports(settings: ServiceSettings) -> Iterator[tuple[str, str, bytes]]:
    """Make the projects in a Label Studio; yield a project's name, a file's ending and the content of each export."""
    client, owner = connect(settings), LabelStudioApi(settings)
    ensure_annotators(client, [ANNA, BEN], settings)
    accounts = read_accounts(settings)
    people = {name: LabelStudioApi(settings, accounts[name].token) for name in (ANNA, BEN)}
    for name, project in PROJECTS.items():
        created = owner.call("POST", "/api/projects/", json={"title": name, "label_config": project.config})
        address = f"/api/projects/{created['id']}"
        owner.call("POST", f"{address}/import", json=[{"data": data} for data in project.data])
        query = {"project": created["id"], "fields": "task_only", "page_size": 100}
        tasks = sorted(task["id"] for task in owner.call("GET", "/api/tasks", params=query)["tasks"])
        for answer in project.answers:
            body = {"result": answer.result, "lead_time": 12.5, "was_cancelled": answer.skipped}
            kind = "drafts" if answer.draft else "annotations/"
            people[answer.annotator].call("POST", f"/api/tasks/{tasks[answer.task]}/{kind}", json=body)
        for form, ending in FORMATS.items():
            query = {"exportType": form, "download_all_tasks": "true"}
            yield name, ending, owner.fetch("GET", f"{address}/export", params=query)


if __name__ == "__main__":
    EXPORTS.mkdir(parents=True, exist_ok=True)
    for project_name, file_ending, content in exports(service_settings()):
        if file_ending == "json":
            content = json.dumps(json.loads(content), indent=1, ensure_ascii=False).encode() + b"\n"
        (EXPORTS / f"{project_name}.{file_ending}").write_bytes(content)

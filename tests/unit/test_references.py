"""Tasks of several source images, from the edits file to the groups that a model learns from."""

import json
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from annotation.campaigns.labelling import TINY
from annotation.campaigns.opening import _tiny
from editloop.content import complete_folder, read_manifest, write_json
from editloop.data.candidates_folder import read_tasks
from editloop.data.edits_file import EditRow, read_edits
from editloop.data.held_out import hold_out
from editloop.data.picture_file import file_picture_sha256, load_image, picture_sha256, read_picture, store_png
from editloop.data.shared_pictures import shared_picture_groups
from editloop.data.vocabulary import Candidate, EditTask, Judgement, task_id
from editloop.datasets.build import rebuild_dataset, write_dataset
from editloop.datasets.pools import CandidatesFolder
from editloop.datasets.preference_groups import read_groups
from editloop.datasets.shards import CANDIDATE_ROWS, CANDIDATE_ROWS_WITH_REFERENCES, shards
from editloop.datasets.splits import SPLITS, picture_digests, splits_of
from editloop.datasets.withdrawal import Withdrawn
from editloop.errors import EditLoopError
from editloop.evaluation.leaks.catalogue import read_catalogue
from editloop.evaluation.oracle import oracle_of_group
from editloop.evaluation.suites.opening import open_suite
from editloop.models.editors.candidates import write_given_candidates
from editloop.selection.propose import run_propose
from editloop.studies.world import two_sources
from editloop.studies.world.scenes import COLOURS, Scene, Shape, draw_scene, random_edit, write_edits
from editloop.studies.world.stand_ins import add_candidates
from editloop.studies.world.two_sources import random_transfer, write_transfers
from pipelines.inputs import split_edits

BASE: dict[str, Any] = {"id": "a", "instruction": "put the dog of image 2 into image 1", "source": "0.png"}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with pictures 0.png to 5.png, all different."""
    for number in range(6):
        noise = np.random.default_rng(number).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    return tmp_path


def write_lines(folder: Path, *lines: dict[str, Any]) -> Path:
    (folder / "edits.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "edits.jsonl"


def faults_of(path: Path) -> list[str]:
    with pytest.raises(EditLoopError) as caught:
        read_edits(path)
    return str(caught.value).splitlines()[1:]


def test_references_are_read_in_order_and_make_another_task(pictures: Path) -> None:
    lines = [BASE, BASE | {"id": "b", "references": ["1.png", "2.png"]}, BASE | {"id": "c", "references": ["2.png"]}]
    none, two, one = read_edits(write_lines(pictures, *lines))
    assert (none.references, one.references) == ((), (pictures / "2.png",))
    assert two.references == (pictures / "1.png", pictures / "2.png")


@pytest.mark.parametrize(
    ("references", "faults"),
    [
        (["none.png"], ['references[0] = "none.png": no such file below']),
        (["1.png", "https://x.example/2.png"], ['references[1] = "https://x.example/2.png": an address;']),
        (["../1.png"], ['references[0] = "../1.png": leaves the folder']),
        (["1.png", "2.png", "3.png", "4.png"], ["references: 4 images; a task has up to 3 beside its source"]),
        (["0.png"], ['references[0] = "0.png": same picture as source; the images of an edit differ']),
        (["1.png", "copy.png"], ['references[1] = "copy.png": same picture as references[0]; the images of']),
        ("1.png", ['references = "1.png": input should be a valid list']),
    ],
)
def test_a_reference_that_is_missing_repeated_or_too_much_is_named(
    pictures: Path, references: Any, faults: list[str]
) -> None:
    Image.open(pictures / "1.png").save(pictures / "copy.png", compress_level=0)
    told = faults_of(write_lines(pictures, BASE | {"references": references}))
    assert len(told) == len(faults)
    for line, fault in zip(told, faults, strict=True):
        assert f"edits.jsonl:1: {fault}" in line


def test_the_same_images_and_instruction_are_one_task(pictures: Path) -> None:
    lines = [BASE | {"id": name, "references": ["1.png", "2.png"]} for name in "ab"]
    (fault,) = faults_of(write_lines(pictures, *lines))
    assert "same source, references and instruction as" in fault
    assert len(read_edits(write_lines(pictures, lines[0], lines[1] | {"references": ["2.png", "1.png"]}))) == 2


def test_a_drawn_task_is_known_from_its_second_image_alone() -> None:
    rng = np.random.default_rng(0)
    drawn = [random_transfer(rng) for _ in range(200)]
    for transfer in drawn:
        kind = transfer.instruction.split()[2]
        (shape,) = [shape for shape in transfer.reference_scene.shapes.values() if shape.kind == kind]
        changed = (transfer.target != transfer.source).any(axis=-1)
        assert 0 < changed.mean() < 0.5, "one quarter of the source changes"
        middle = np.argwhere(changed).mean(axis=0).round().astype(int)
        assert tuple(transfer.target[middle[0], middle[1]].tolist()) == COLOURS[shape.colour]
        np.testing.assert_array_equal(transfer.reference, draw_scene(transfer.reference_scene))
    kinds = [[shape.kind for shape in transfer.reference_scene.shapes.values()] for transfer in drawn]
    assert any(len(set(names)) < len(names) for names in kinds), "an image may have two shapes of another kind"
    assert len({transfer.instruction for transfer in drawn}) > 8


def test_the_second_image_of_a_drawn_task_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Scene("white", {0: Shape("circle", "red")}), Scene("grey", {0: Shape("square", "blue")})
    scenes = [first, first, first, second]
    monkeypatch.setattr(two_sources, "random_scene", lambda rng: scenes.pop(0))
    assert random_transfer(np.random.default_rng(0)).reference_scene == second


def test_drawn_tasks_are_the_same_bytes_again(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_transfers(tmp_path / name, 6, seed=3)
    write_transfers(tmp_path / "other", 6, seed=4)
    digests = [read_manifest(tmp_path / name)["sha256"] for name in ("one", "two", "other")]
    assert digests[0] == digests[1] != digests[2]
    rows = read_edits(tmp_path / "one")
    assert [len(row.references) for row in rows] == [1] * 6


@pytest.fixture
def candidates(tmp_path: Path) -> Path:
    """A candidates folder of 40 tasks: half of them with one reference, half with none."""
    return make_candidates_folder(tmp_path, with_references=20, without=20)


def make_candidates_folder(folder: Path, *, with_references: int, without: int) -> Path:
    write_transfers(folder / "drawn/pairs", with_references, seed=1)
    write_edits(folder / "drawn/scenes", without, seed=2)
    add_candidates(folder / "drawn", folder / "edits", seed=0, per_task=3)
    write_given_candidates(folder / "edits", folder / "candidates")
    return folder / "candidates"


def judge(candidates: Path, folder: Path) -> Path:
    rows = [
        Judgement.model_validate(
            {
                "task_id": task.task_id,
                "candidate_id": candidate.candidate_id,
                "annotator": who,
                "if": 1 + place % 4,
                "vq": 1 + (place * 3) % 4,
                "position": place,
                "annotation_id": place,
                "created_at": datetime.fromtimestamp(0, UTC),
            }
        )
        for task in read_tasks(candidates)
        for place, candidate in enumerate(task.candidates)
        for who in ("x", "y")
    ]
    with complete_folder(folder) as out:
        (out / "judgements.jsonl").write_text("".join(row.model_dump_json(by_alias=True) + "\n" for row in rows))
        write_json(out / "summary.json", {"export_sha256": "e", "config_sha256": "c", "campaign_key": "k"})
    return folder


def test_candidates_keep_the_references_as_images_of_their_tasks(candidates: Path, tmp_path: Path) -> None:
    rows = {row.id: row for row in read_edits(tmp_path / "edits")}
    tasks = read_tasks(candidates)
    assert [len(task.references) for task in tasks] == [1] * 20 + [0] * 20
    for task in tasks:
        row = rows[task.name]
        assert task.references == tuple(file_picture_sha256(path) for path in row.references)
        assert task.task_id == task_id(task.source, row.instruction, task.references)
        for reference in task.references:
            assert picture_sha256(load_image(candidates / "images" / f"{reference}.png")) == reference
    lines = (candidates / "tasks.jsonl").read_text().splitlines()
    assert ["references" in json.loads(line) for line in lines] == [True] * 20 + [False] * 20


def test_a_dataset_has_the_references_in_every_shard_and_group(candidates: Path, tmp_path: Path) -> None:
    write_dataset(judge(candidates, tmp_path / "judged"), candidates, tmp_path / "data", shard_megabytes=0.02)
    tasks = {task.task_id: task for task in read_tasks(candidates)}
    seen: dict[str, int] = {}
    for split in SPLITS:
        paths = shards(tmp_path / "data", "candidates", split)
        assert all(pq.read_schema(path).equals(CANDIDATE_ROWS_WITH_REFERENCES) for path in paths)
        for group in read_groups(tmp_path / "data", split):
            digests = [picture_sha256(reference) for reference in group.references]
            assert tuple(digests) == tasks[group.task_id].references
            assert len(group.references) == len(digests)
            assert oracle_of_group(group) is not None
            seen[group.task_id] = len(digests)
    assert len(shards(tmp_path / "data", "candidates", "train")) > 2
    assert sorted(seen.values()) == [0] * 20 + [1] * 20
    small = next(group for group in read_groups(tmp_path / "data", "train", side=16) if group.references)
    assert small.references[0].shape == small.source.shape == (16, 16, 3)


def test_without_references_no_shard_has_the_column(tmp_path: Path) -> None:
    candidates = make_candidates_folder(tmp_path, with_references=1, without=24)
    (lone,) = [task.task_id for task in read_tasks(candidates) if task.references]
    write_dataset(judge(candidates, tmp_path / "judged"), candidates, tmp_path / "data")
    rebuild_dataset(tmp_path / "data", tmp_path / "rebuilt", withdrawn=Withdrawn(tasks=frozenset({lone})))
    for folder, columns in (("data", CANDIDATE_ROWS_WITH_REFERENCES), ("rebuilt", CANDIDATE_ROWS)):
        for split in SPLITS:
            for path in shards(tmp_path / folder, "candidates", split):
                assert pq.read_schema(path).equals(columns)
    groups = [group for split in SPLITS for group in read_groups(tmp_path / "rebuilt", split)]
    assert len(groups) == 24
    assert not any(group.references for group in groups)


def test_a_dataset_is_rebuilt_from_itself_with_its_references(candidates: Path, tmp_path: Path) -> None:
    write_dataset(judge(candidates, tmp_path / "judged"), candidates, tmp_path / "data")
    first = next(task.task_id for task in read_tasks(candidates))
    rebuild_dataset(tmp_path / "data", tmp_path / "rebuilt", withdrawn=Withdrawn(tasks=frozenset({first})))
    for split in SPLITS:
        before = {group.task_id: group for group in read_groups(tmp_path / "data", split) if group.task_id != first}
        after = {group.task_id: group for group in read_groups(tmp_path / "rebuilt", split)}
        assert before.keys() == after.keys()
        for task, group in after.items():
            np.testing.assert_array_equal(list(group.references), list(before[task].references))


def test_shards_of_one_split_with_and_without_references_are_refused(candidates: Path, tmp_path: Path) -> None:
    write_dataset(judge(candidates, tmp_path / "judged"), candidates, tmp_path / "data", shard_megabytes=0.02)
    second = shards(tmp_path / "data", "candidates", "train")[1]
    pq.write_table(pq.read_table(second).drop_columns(["references"]), second)
    with pytest.raises(EditLoopError, match=f"{second.name}: has other columns than a dataset's candidates"):
        shards(tmp_path / "data", "candidates", "train")


def task(name: str, source: str, *references: str) -> EditTask:
    made = (Candidate(candidate_id=name, image=f"{name}-edit", editor="e"),)
    return EditTask(
        task_id=name, name=name, instruction="i", source=source, references=references, target=None, candidates=made
    )


def test_tasks_that_share_a_reference_are_in_one_split() -> None:
    tasks = []
    for number in range(200):
        tasks += [
            task(f"{number}-a", f"{number}-s", f"{number}-r", "white"),
            task(f"{number}-b", f"{number}-r"),
            task(f"{number}-c", f"{number}-t", "white", f"{number}-r"),
        ]
    assert list(picture_digests(tasks[0])) == ["0-s", "0-r", "white", "0-a-edit"]
    splits = splits_of(tasks, 0, lambda picture: picture == "white")
    for number in range(200):
        assert len({splits[f"{number}-{name}"] for name in "abc"}) == 1
    assert set(splits.values()) == set(SPLITS)


def test_tasks_whose_references_look_alike_are_in_one_split(tmp_path: Path) -> None:
    """Each source is alone; each reference is shown twice, the second time as a JPEG of half the size."""
    (tmp_path / "edits").mkdir()
    lines = []
    for number in range(30):
        rng = np.random.default_rng(number)
        for name in ("a", "b"):
            source = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(source).resize((96, 96)).save(tmp_path / f"edits/{number}{name}.png")
        shared = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((128, 128))
        shared.save(tmp_path / f"edits/{number}.png")
        shared.resize((64, 64)).save(tmp_path / f"edits/{number}.jpg", quality=80)
        for name, reference in (("a", f"{number}.png"), ("b", f"{number}.jpg")):
            edit = {"image": f"{number}{name}.png", "editor": "e"}
            line = {"source": f"{number}{name}.png", "references": [reference], "candidates": [edit]}
            lines.append({"id": f"{number}{name}", "instruction": BASE["instruction"], **line})
    write_lines(tmp_path / "edits", *lines)
    write_given_candidates(tmp_path / "edits", tmp_path / "candidates")
    folder = CandidatesFolder(tmp_path / "candidates")
    names = {task.task_id: task.name for task in folder.tasks}
    splits = {names[key]: split for key, split in folder.splits(0).items()}
    assert [splits[f"{number}a"] == splits[f"{number}b"] for number in range(30)] == [True] * 30
    assert set(splits.values()) == set(SPLITS)


def test_rows_that_share_an_image_are_one_group() -> None:
    rows = [("b", "r"), ("c", "r", "white"), ("a", "c"), ("z", "white"), ("y", "white"), ("z", "q")]
    asked: list[str] = []

    def is_blank(picture: str) -> bool:
        asked.append(picture)
        return picture == "white"

    assert shared_picture_groups(rows, is_blank) == ["a", "a", "a", "z", "y", "z"]
    assert len(asked) == len(set(asked)), "each shared picture is opened once"
    assert {"r", "white"} <= set(asked)


def test_no_image_is_both_trained_on_and_held_out(pictures: Path) -> None:
    def row(name: str, source: int, *references: int) -> EditRow:
        paths = tuple(pictures / f"{number}.png" for number in references)
        return EditRow(name, "edit", "i", pictures / f"{source}.png", references=paths)

    rows = [row("a", 0, 1), row("b", 1), row("c", 2, 3), row("d", 4, 3), row("e", 5)]
    held_sets = set()
    for salt in range(30):
        train, held = hold_out(rows, 1, salt)
        assert len(train) + len(held) == len(rows)
        held_sets.add(frozenset(one.id for one in held))
        seen = [{path for one in part for path in (one.source, *one.references)} for part in (train, held)]
        assert not seen[0] & seen[1]
    assert held_sets == {frozenset("ab"), frozenset("cd"), frozenset("e")}


def test_the_loop_s_folders_share_no_image_and_have_the_references(tmp_path: Path) -> None:
    """Every scene is the source of one row and the reference of the next but one."""
    (tmp_path / "team").mkdir()
    rng = np.random.default_rng(0)
    for number in range(90):
        Image.fromarray(random_edit(rng).source).save(tmp_path / f"team/{number}.png")
    lines = [
        BASE | {"id": str(number), "source": f"{number}.png", "references": [f"{number + 1}.png"]}
        for number in range(0, 90, 3)
    ]
    lines += [BASE | {"id": f"{number}b", "source": f"{number + 1}.png"} for number in range(0, 90, 3)]
    inputs = split_edits(tmp_path / "loop", write_lines(tmp_path / "team", *lines), seed=0)
    shown = []
    for folder in (inputs.judged, inputs.prompts, inputs.heldout):
        rows = read_edits(folder)
        shown.append({file_picture_sha256(path) for row in rows for path in (row.source, *row.references)})
        assert sorted(len(row.references) for row in rows) == [0] * (len(rows) // 2) + [1] * (len(rows) // 2)
    assert all(not one & other for one, other in combinations(shown, 2))
    before = read_manifest(inputs.judged)
    swapped = [line | {"references": ["1.png"]} if line["id"] == "3" else line for line in lines]
    split_edits(tmp_path / "loop", write_lines(tmp_path / "team", *swapped), seed=0)
    assert read_manifest(inputs.judged)["facts"] != before["facts"], "another reference makes other folders"


def test_references_are_pictures_that_training_data_hold(candidates: Path, tmp_path: Path) -> None:
    write_dataset(judge(candidates, tmp_path / "judged"), candidates, tmp_path / "data")
    catalogue = read_catalogue(tmp_path / "data")
    held = dict(zip(catalogue.pictures.sha256, catalogue.places, strict=True))
    tasks = {task.task_id: task for task in read_tasks(candidates)}
    learnt = [group for split in ("train", "validation") for group in read_groups(tmp_path / "data", split)]
    references = {digest for group in learnt for digest in tasks[group.task_id].references}
    assert references <= held.keys()
    parts = {held[digest].part for digest in references}
    assert parts == {"image 2"}


def test_the_items_of_the_team_s_suite_have_their_tasks_references(candidates: Path, tmp_path: Path) -> None:
    write_dataset(judge(candidates, tmp_path / "judged"), candidates, tmp_path / "data")
    tasks = {task.task_id: task for task in read_tasks(candidates)}
    items = open_suite("heldout", tmp_path / "data").items
    assert {len(item.references) for item in items} == {0, 1}
    for item in items:
        pictures = [picture_sha256(read_picture(one.read(), one.name)) for one in item.references]
        assert tuple(pictures) == tasks[item.key].references


def test_a_large_reference_is_no_tiny_picture(tmp_path: Path) -> None:
    small, large = (Image.new("RGB", (side, side)) for side in (TINY, TINY + 1))
    digests = [store_png(picture, tmp_path) for picture in (small, large)]
    assert _tiny(tmp_path, [task("a", digests[0]).model_copy(update={"candidates": ()})])
    assert not _tiny(tmp_path, [task("a", *digests).model_copy(update={"candidates": ()})])


def test_proposed_tasks_bring_their_references(candidates: Path, tmp_path: Path) -> None:
    run_propose(candidates, tmp_path / "next", model="", pages=40)
    tasks = read_tasks(tmp_path / "next")
    assert sum(len(task.references) for task in tasks) == 20
    for one in tasks:
        assert all((tmp_path / "next/images" / f"{digest}.png").is_file() for digest in picture_digests(one))

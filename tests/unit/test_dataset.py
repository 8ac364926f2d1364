"""Judgements to pairs: orders, ties, splits without leaks, and the same bytes again."""

import json
import shutil
import tempfile
from contextlib import nullcontext
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.dataset.declaration import DatasetParameters
from components.dataset.stage import run_dataset
from editloop.content import complete_folder, read_manifest, write_json, write_manifest
from editloop.data.picture_file import store_png
from editloop.data.vocabulary import Judgement
from editloop.datasets.build import NoPairsError, publish_dataset, rebuild_dataset, write_dataset
from editloop.datasets.git_command import git_objects
from editloop.datasets.pools import CandidatesFolder, read_sorted_tasks
from editloop.datasets.repository import CONTENTS, FOLDER
from editloop.datasets.shards import rows_of_tasks
from editloop.datasets.splits import SPLITS, split_of
from editloop.datasets.versions import versions, versions_with
from editloop.datasets.votes import read_votes
from editloop.datasets.withdrawal import Withdrawal, Withdrawn
from editloop.errors import EditLoopError
from editloop.lineage import withdraw
from editloop.models.editors.candidates import write_candidates
from tests.dataset_repositories import run_git
from tests.picture_encodings import ENCODINGS, encoded


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDITLOOP_DATASET_REPO", str(tmp_path / "repo"))
    monkeypatch.setenv("EDITLOOP_DATASET_REMOTE", str(tmp_path / "remote"))
    return tmp_path / "repo"


def judge(folder: Path, candidates: Path, first_id: int, people: tuple[str, ...] = ("x", "y")) -> None:
    """Write judgements of all candidates; ids and times are what another run of Label Studio would make different."""
    rows = [
        Judgement.model_validate(
            {
                "task_id": one.task_id,
                "candidate_id": candidate.candidate_id,
                "annotator": who,
                "if": 1 + (place + len(who)) % 4,
                "vq": 1 + (place * 3) % 4,
                "position": place,
                "annotation_id": first_id + place,
                "created_at": datetime.fromtimestamp(first_id, UTC),
            }
        )
        for one in read_sorted_tasks(candidates / "tasks.jsonl")
        for place, candidate in enumerate(one.candidates)
        for who in people
    ]
    with complete_folder(folder) as out:
        (out / "judgements.jsonl").write_text("".join(row.model_dump_json(by_alias=True) + "\n" for row in rows))
        write_json(
            out / "summary.json", {"export_sha256": str(first_id), "config_sha256": "c", "campaign_key": f"k{first_id}"}
        )


def test_the_same_ratings_are_the_same_dataset_and_add_no_version(make_candidates, repository, tmp_path) -> None:
    candidates = make_candidates(40)
    for number in (1, 2):
        judge(tmp_path / f"judged{number}", candidates, first_id=100 * number)
        run_dataset(
            tmp_path / f"judged{number}",
            candidates,
            tmp_path / f"data{number}",
            tmp_path / f"version{number}",
            DatasetParameters(seed=3),
        )
    first, second = (read_manifest(tmp_path / f"data{number}") for number in (1, 2))
    assert first["files"] == second["files"]
    versions = [json.loads((tmp_path / f"version{number}").read_text()) for number in (1, 2)]
    assert versions[0] == versions[1]
    assert versions[0]["sha256"] == first["sha256"]


def test_no_source_is_in_two_splits_and_all_images_are_inside(make_candidates, repository, tmp_path) -> None:
    candidates = make_candidates(40)
    judge(tmp_path / "judged", candidates, first_id=1)
    metrics = run_dataset(
        tmp_path / "judged", candidates, tmp_path / "data", tmp_path / "version", DatasetParameters(seed=0)
    )
    sources: dict[str, set[bytes]] = {}
    for split in SPLITS:
        table = pq.read_table(tmp_path / "data" / f"candidates-{split}-00000.parquet").to_pylist()
        sources[split] = {row["source"] for row in table}
        assert all(row["image"].startswith(b"\x89PNG") and row["ratings"] == 2 for row in table)
        known = {row["candidate_id"] for row in table}
        pair_rows = pq.read_table(tmp_path / "data" / f"pairs-{split}-00000.parquet").to_pylist()
        assert metrics[f"pairs_{split}"] == len(pair_rows)
        assert all(row["a"] < row["b"] and {row["a"], row["b"]} <= known for row in pair_rows)
    assert all(not sources[one] & sources[other] for one, other in combinations(SPLITS, 2))


def test_judgements_that_compare_nothing_are_an_error_and_leave_nothing(make_candidates, repository, tmp_path) -> None:
    candidates = make_candidates(3, candidates=1)
    judge(tmp_path / "judged", candidates, first_id=1)
    with pytest.raises(EditLoopError, match="collect more judgements"):
        run_dataset(tmp_path / "judged", candidates, tmp_path / "data", tmp_path / "version", DatasetParameters())
    assert not (tmp_path / "data").exists()
    assert not repository.exists()


def test_one_person_rating_a_candidate_twice_is_an_error(make_candidates, repository, tmp_path) -> None:
    candidates = make_candidates(3)
    judge(tmp_path / "judged", candidates, first_id=1, people=("x", "x"))
    with pytest.raises(EditLoopError, match="twice"):
        run_dataset(tmp_path / "judged", candidates, tmp_path / "data", tmp_path / "version", DatasetParameters())


@pytest.mark.parametrize("megabytes", [0.02, 256])
def test_a_withdrawal_from_the_version_alone_is_the_same_as_one_from_the_ratings(make_candidates, tmp_path, megabytes):
    candidates = make_candidates(30)
    judge(tmp_path / "judged", candidates, first_id=1, people=("ada", "bo", "chi"))
    write_dataset(tmp_path / "judged", candidates, tmp_path / "whole", seed=2, shard_megabytes=megabytes)
    first = read_manifest(tmp_path / "whole")
    gone = Withdrawn(frozenset({"bo"}), frozenset(first["facts"]["task_ids"][:3]))
    shutil.rmtree(tmp_path / "judged")
    shutil.move(candidates, candidates.with_name("elsewhere"))
    rebuild_dataset(tmp_path / "whole", tmp_path / "rebuilt", withdrawn=gone, shard_megabytes=megabytes)
    again = read_manifest(tmp_path / "rebuilt", check=True)

    shutil.move(candidates.with_name("elsewhere"), candidates)
    judge(tmp_path / "judged", candidates, first_id=1, people=("ada", "bo", "chi"))
    write_dataset(
        tmp_path / "judged", candidates, tmp_path / "direct", seed=2, withdrawn=gone, shard_megabytes=megabytes
    )
    assert again["sha256"] == read_manifest(tmp_path / "direct")["sha256"] != first["sha256"]
    facts = again["facts"]
    assert facts["parent"] == first["sha256"]
    assert facts["annotators"] == ["ada", "chi"]
    assert facts["task_ids"] == first["facts"]["task_ids"][3:]
    assert facts["judgements_sha256"] == first["facts"]["judgements_sha256"]
    assert not any("bo" in json.loads(line).values() for line in (tmp_path / "rebuilt" / "judgements.jsonl").open())
    shards = list((tmp_path / "rebuilt").glob("candidates-train-*.parquet"))
    assert (len(shards) > 3) == (megabytes < 1)


def test_a_lead_who_withdrew_takes_decisions_back_and_the_votes_count_again(make_candidates, tmp_path) -> None:
    candidates = make_candidates(12)
    judge(tmp_path / "judged", candidates, first_id=1)
    task = read_sorted_tasks(candidates / "tasks.jsonl")[0]
    decided = {
        "task_id": task.task_id,
        "candidate_id": task.candidates[0].candidate_id,
        "lead": "lea",
        "if": 4,
        "vq": 4,
    }
    (tmp_path / "judged" / "decisions.jsonl").write_text(json.dumps(decided) + "\n")
    write_manifest(tmp_path / "judged", read_manifest(tmp_path / "judged")["facts"])
    write_dataset(tmp_path / "judged", candidates, tmp_path / "whole")
    rebuild_dataset(tmp_path / "whole", tmp_path / "rebuilt", withdrawn=Withdrawn(frozenset({"lea"})))
    whole, rebuilt = (
        {row["candidate_id"]: row for split in SPLITS for rows in rows_of_tasks(tmp_path / name, split) for row in rows}
        for name in ("whole", "rebuilt")
    )
    one = task.candidates[0].candidate_id
    assert (whole[one]["if_mean"], whole[one]["ratings"]) == (4.0, 1)
    assert (rebuilt[one]["if_mean"], rebuilt[one]["ratings"]) == (2.0, 2)
    assert read_manifest(tmp_path / "rebuilt")["facts"]["annotators"] == ["x", "y"]


def test_withdrawing_everybody_is_an_error(make_candidates, tmp_path) -> None:
    candidates = make_candidates(5)
    judge(tmp_path / "judged", candidates, first_id=1)
    write_dataset(tmp_path / "judged", candidates, tmp_path / "whole")
    with pytest.raises(NoPairsError, match="no task has two candidates"):
        rebuild_dataset(tmp_path / "whole", tmp_path / "rebuilt", withdrawn=Withdrawn(frozenset({"x", "y"})))
    assert not (tmp_path / "rebuilt").exists()


@pytest.mark.parametrize("text", ["{", "[]", None])
def test_a_damaged_summary_of_judgements_is_one_line(make_candidates, tmp_path, text: str | None) -> None:
    candidates = make_candidates(2)
    judge(tmp_path / "judged", candidates, first_id=1)
    (tmp_path / "judged" / "summary.json").unlink()
    if text is not None:
        (tmp_path / "judged" / "summary.json").write_text(text)
    with pytest.raises(
        EditLoopError, match=r"^\S*/summary\.json: no summary of judgements\. Restore it, or run the step"
    ):
        write_dataset(tmp_path / "judged", candidates, tmp_path / "data")


@pytest.mark.parametrize(
    ("error", "is_told"), [(NoPairsError("none left"), False), (EditLoopError("shard 3 was changed"), True)]
)
def test_only_a_version_without_pairs_counts_as_empty(
    error: EditLoopError, is_told: bool, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be rebuilt for another reason is no success with a gap."""

    def fails(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(withdraw, "fetch_dataset", lambda version, folder: None)
    monkeypatch.setattr(withdraw, "read_withdrawn", lambda repo: Withdrawn(frozenset({"x"})))
    monkeypatch.setattr(withdraw, "rebuild_dataset", fails)
    parent = SimpleNamespace(dvc_rev="1" * 40, tag="preferences-1", sha256="2" * 64)
    report = withdraw.WithdrawalReport(Withdrawal(kind="annotator", name="x", reason="", at=datetime.now(UTC)), [], [])
    with pytest.raises(EditLoopError, match="shard 3") if is_told else nullcontext():
        withdraw._rebuild(report, parent, "repo", tmp_path)
    assert report.empty == ([] if is_told else [(parent, "none left")])


def test_a_plain_target_of_several_drawn_scenes_joins_none(make_candidates, tmp_path) -> None:
    """A result that is one colour all over says nothing, in real pictures."""
    with complete_folder(tmp_path / "plain") as candidates:
        shutil.copytree(make_candidates(20) / "images", candidates / "images")
        white = store_png(Image.new("RGB", (32, 32), "white"), candidates / "images")
        drawn = read_sorted_tasks(tmp_path / "candidates-20-0-4" / "tasks.jsonl")
        tasks = [one.model_copy(update={"target": white}) for one in drawn]
        (candidates / "tasks.jsonl").write_text("".join(one.model_dump_json() + "\n" for one in tasks))
    assert CandidatesFolder(tmp_path / "plain").splits(0) == {one.task_id: split_of(one.source, 0) for one in tasks}


def photograph(seed: int, size: int = 96) -> Image.Image:
    """A smooth scene of its own colours and shapes, under a camera's noise."""
    rng = np.random.default_rng(seed)
    shapes = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((size, size))
    return Image.fromarray((np.asarray(shapes) + rng.normal(0, 4, (size, size, 3))).clip(0, 255).astype(np.uint8))


def edits_of(folder: Path, rows: list[tuple[str, dict[str, bytes]]]) -> Path:
    """Write an edits folder: instruction and files of each row, the first of which is the source."""
    folder.mkdir()
    lines = []
    for number, (instruction, files) in enumerate(rows):
        names = [f"{number}-{name}" for name in files]
        for name, data in zip(names, files.values(), strict=True):
            (folder / name).write_bytes(data)
        candidates = [{"image": name, "editor": "e"} for name in names[1:]]
        row = {"id": str(number), "instruction": instruction, "source": names[0], "candidates": candidates}
        lines.append(json.dumps(row) + "\n")
    (folder / "edits.jsonl").write_text("".join(lines))
    return folder


def test_photographs_that_were_saved_again_stay_in_one_split(tmp_path: Path) -> None:
    """20 photographs, each as two JPEG files of other quality under two instructions."""
    rows = [
        (instruction, {"photo.jpg": encoded(photograph(seed), "JPEG", quality=quality)})
        for seed in range(20)
        for instruction, quality in (("Make it red.", 95), ("Make it blue.", 85))
    ]
    write_candidates(edits_of(tmp_path / "edits", rows), tmp_path / "candidates", per_task=0)
    folder = CandidatesFolder(tmp_path / "candidates")
    splits = {task.name: split for task in folder.tasks for split in [folder.splits(0)[task.task_id]]}
    assert len({task.source for task in folder.tasks}) == 40
    assert all(splits[str(2 * pair)] == splits[str(2 * pair + 1)] for pair in range(20))
    assert len(set(splits.values())) > 1


@given(kinds=st.lists(st.sampled_from(sorted(ENCODINGS)), min_size=18, max_size=18))
@settings(max_examples=4, deadline=None)
def test_any_mixture_of_files_of_the_same_pictures_is_the_same_dataset(kinds: list[str]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        digests = [
            dataset_sha256(Path(temporary) / name, encodings)
            for name, encodings in (("mixed", kinds), ("plain", ["PNG"] * 18))
        ]
    assert digests[0] == digests[1]


def dataset_sha256(folder: Path, encodings: list[str]) -> dict[str, str]:
    """Return the dataset's files of six tasks whose 18 pictures are stored in these encodings."""
    folder.mkdir()
    pictures = [ENCODINGS[kind](photograph(number, 48)) for number, kind in enumerate(encodings)]
    rows = [("Make it red.", dict(zip("abc", pictures[3 * task : 3 * task + 3], strict=True))) for task in range(6)]
    write_candidates(edits_of(folder / "edits", rows), folder / "candidates", per_task=0)
    judge(folder / "judged", folder / "candidates", first_id=1)
    write_dataset(folder / "judged", folder / "candidates", folder / "data")
    files: dict[str, str] = read_manifest(folder / "data")["files"]
    return files


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            '{"task_id": "t", "candidate_id": "c", "annotator": "a", "if": 5, "vq": 1}',
            r"line 1.*if.*less than or equal",
        ),
        ('{"task_id": "t", "candidate_id": "c", "if": 1, "vq": 1}', r"line 1.*annotator"),
        ("no JSON", "line 1"),
    ],
)
def test_a_line_that_is_no_judgement_is_named(tmp_path: Path, line: str, told: str) -> None:
    (tmp_path / "judgements.jsonl").write_text(line + "\n")
    with pytest.raises(EditLoopError, match=told):
        read_votes(tmp_path)


def test_a_picture_that_is_not_what_its_name_says_is_found(make_candidates, tmp_path) -> None:
    candidates = make_candidates(4)
    judge(tmp_path / "judged", candidates, first_id=1)
    picture = candidates / "images" / f"{read_sorted_tasks(candidates / 'tasks.jsonl')[0].source}.png"
    picture.write_bytes(picture.read_bytes() + b"!")
    with pytest.raises(EditLoopError, match=picture.name):
        write_dataset(tmp_path / "judged", candidates, tmp_path / "data")


def test_the_lineage_in_git_names_people_tasks_and_pictures(make_candidates, repository, tmp_path) -> None:
    candidates = make_candidates(10)
    judge(tmp_path / "judged", candidates, first_id=1)
    run_dataset(tmp_path / "judged", candidates, tmp_path / "data", tmp_path / "version", DatasetParameters())
    rebuild_dataset(tmp_path / "data", tmp_path / "rebuilt", withdrawn=Withdrawn(frozenset({"y"})))
    publish_dataset(tmp_path / "rebuilt")
    old, new = versions(str(repository))
    facts = read_manifest(tmp_path / "data")["facts"]
    assert (old.annotators, new.annotators) == (("x", "y"), ("x",))
    assert (old.parent, new.parent) == (None, old.sha256)
    assert old.judgements_sha256 == new.judgements_sha256 == facts["judgements_sha256"]
    pictures = {path.stem for path in (candidates / "images").iterdir()}
    (contents,) = git_objects(repository, [f"{old.tag}:{CONTENTS}"])
    assert set(json.loads(contents)["images"]) == pictures
    assert versions_with(str(repository), pictures.pop()) == [old, new]
    assert versions_with(str(repository), "y") == [old]
    assert versions_with(str(repository), facts["task_ids"][0]) == [old, new]


def test_versions_of_one_second_are_in_the_order_of_their_history(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2026-01-01T00:00:00Z")
    names = [f"{FOLDER}-{sha256}" for sha256 in ("ccc", "aaa", "bbb")]
    run_git(tmp_path, "init", "--quiet")
    for name in names:
        run_git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", name)
        run_git(tmp_path, "tag", "--annotate", name, "--message", name.rpartition("-")[2])
    assert [version.tag for version in versions(str(tmp_path))] == names

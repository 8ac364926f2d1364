"""Judgements to pairs: orders, ties, splits without leaks, and the same bytes again."""

import json
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from annotation.vocabulary import Judgement
from components.dataset.pools import read_tasks
from components.dataset.splits import SPLITS, split_of
from components.dataset.stage import dataset
from infra.content import complete_folder, read_manifest, write_json
from infra.errors import EditLoopError


def test_splits_have_their_shares_and_follow_the_source_and_the_seed() -> None:
    splits = [split_of(f"source-{number}", 0) for number in range(4000)]
    assert {split: round(10 * splits.count(split) / 4000) for split in SPLITS} == {
        "train": 7,
        "validation": 1,
        "test": 2,
    }
    assert splits != [split_of(f"source-{number}", 1) for number in range(4000)]


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
        for one in read_tasks(candidates / "tasks.jsonl")
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
        dataset(
            tmp_path / f"judged{number}", candidates, tmp_path / f"data{number}", tmp_path / f"version{number}", seed=3
        )
    first, second = (read_manifest(tmp_path / f"data{number}") for number in (1, 2))
    assert first["files"] == second["files"]
    versions = [json.loads((tmp_path / f"version{number}").read_text()) for number in (1, 2)]
    assert versions[0] == versions[1]
    assert versions[0]["sha256"] == first["sha256"]


def test_no_source_is_in_two_splits_and_all_images_are_inside(make_candidates, repository, tmp_path) -> None:
    candidates = make_candidates(40)
    judge(tmp_path / "judged", candidates, first_id=1)
    metrics = dataset(tmp_path / "judged", candidates, tmp_path / "data", tmp_path / "version", seed=0)
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
        dataset(tmp_path / "judged", candidates, tmp_path / "data", tmp_path / "version")
    assert not (tmp_path / "data").exists()
    assert not repository.exists()


def test_one_person_rating_a_candidate_twice_is_an_error(make_candidates, repository, tmp_path) -> None:
    candidates = make_candidates(3)
    judge(tmp_path / "judged", candidates, first_id=1, people=("x", "x"))
    with pytest.raises(EditLoopError, match="twice"):
        dataset(tmp_path / "judged", candidates, tmp_path / "data", tmp_path / "version")

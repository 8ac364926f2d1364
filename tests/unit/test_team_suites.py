"""Held-out judgements and the oracle's clear pairs, from a dataset folder."""

import io
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from editloop.content import complete_folder, write_json
from editloop.data.vocabulary import Judgement
from editloop.datasets.build import write_dataset
from editloop.datasets.labels import TIE
from editloop.datasets.pools import read_sorted_tasks
from editloop.datasets.preference_groups import read_groups
from editloop.errors import EditLoopError
from editloop.evaluation.oracle import oracle_of_group
from editloop.evaluation.suites.answers import SuiteAnswers, judge_suite
from editloop.evaluation.suites.evaluation import evaluate
from editloop.evaluation.suites.opening import open_suite
from editloop.evaluation.suites.team import CLEAR_GAP
from pipelines.cli import main
from tests.pixel_judge import PixelJudge
from tests.public_suites import genai_row, write_genai

PEOPLE = ("x", "y", "z")


@pytest.fixture
def dataset(make_candidates: Callable[..., Path], tmp_path: Path) -> Path:
    """Forty scenes of four edits; three people rate by chance, each in their own way."""
    candidates, rng = make_candidates(40), np.random.default_rng(0)
    with complete_folder(tmp_path / "judged") as folder:
        rows = [
            Judgement.model_validate(
                {
                    "task_id": task.task_id,
                    "candidate_id": one.candidate_id,
                    "annotator": who,
                    "if": int(rng.integers(1, 5)),
                    "vq": int(rng.integers(1, 5)),
                    "position": place,
                    "annotation_id": place,
                    "created_at": datetime.now(UTC),
                }
            )
            for task in read_sorted_tasks(candidates / "tasks.jsonl")
            for place, one in enumerate(task.candidates)
            for who in PEOPLE
        ]
        (folder / "judgements.jsonl").write_text("".join(row.model_dump_json(by_alias=True) + "\n" for row in rows))
        write_json(folder / "summary.json", {})
    write_dataset(tmp_path / "judged", candidates, tmp_path / "data")
    return tmp_path / "data"


def test_held_out_pairs_are_those_that_experts_order(dataset: Path, tmp_path: Path) -> None:
    suite = open_suite("heldout", dataset)
    groups = {group.task_id: group for group in read_groups(dataset, "test")}
    assert {item.key for item in suite.items} == groups.keys()
    for item in suite.items:
        overall = groups[item.key].ratings.sum(axis=1)
        assert item.candidates == groups[item.key].candidates
        assert item.slice == groups[item.key].task_type
        wanted = {(i, j) for i, j in combinations(range(4), 2) if abs(overall[i] - overall[j]) > TIE}
        assert {(one.left, one.right) for one in item.comparisons} == wanted
        for one in item.comparisons:
            assert one.label == ("left" if overall[one.left] > overall[one.right] else "right")
            assert one.key == f"{item.key}:{item.candidates[one.left]}:{item.candidates[one.right]}"
    experts = SuiteAnswers(
        {"name": "experts", "version": ""}, {key: one.ratings.sum(axis=1) for key, one in groups.items()}
    )
    report = evaluate(suite, experts).report
    assert report["accuracy"] == 1
    assert report["human_ceiling"]["raters"] == 3
    assert 0.2 < report["human_ceiling"]["value"] < 0.7, "people who rate by chance do not agree"
    judged = evaluate(suite, judge_suite(suite, PixelJudge(), tmp_path / "answers")).report
    assert judged["counts"]["missing"] == 0
    assert set(judged["by_task"]) == {item.slice for item in suite.items if item.comparisons}


def test_scenes_are_the_oracles_clear_pairs(dataset: Path) -> None:
    suite = open_suite("scenes", dataset)
    truth = {group.task_id: oracle_of_group(group) for group in read_groups(dataset, "test")}
    for item in suite.items:
        seen = truth[item.key]
        assert seen is not None
        clear = {(i, j) for i, j in combinations(range(4), 2) if abs(seen.mean[i] - seen.mean[j]) > CLEAR_GAP}
        assert {(one.left, one.right) for one in item.comparisons} == clear
    oracle = SuiteAnswers({"name": "oracle", "version": ""}, {key: one.mean for key, one in truth.items() if one})
    found = evaluate(suite, oracle)
    assert found.report["accuracy"] == 1
    assert found.report["human_ceiling"] is None
    assert len(found.outcomes) == sum(len(item.comparisons) for item in suite.items)
    assert len(set(found.outcomes.clusters)) == len({item.cluster for item in suite.items if item.comparisons})


def test_a_dataset_that_changed_since_it_was_written_is_refused(dataset: Path) -> None:
    (shard,) = dataset.glob("candidates-test-*.parquet")
    changed = bytearray(shard.read_bytes())
    changed[len(changed) // 2] ^= 1
    shard.write_bytes(bytes(changed))
    for name in ("heldout", "scenes"):
        with pytest.raises(EditLoopError, match=f"changed since it was written: {shard.name}"):
            open_suite(name, dataset)


def test_a_folder_that_is_no_dataset_is_told(tmp_path: Path) -> None:
    with pytest.raises(EditLoopError, match=r"no manifest\.json"):
        open_suite("heldout", tmp_path)
    with complete_folder(tmp_path / "other"):
        pass
    with pytest.raises(EditLoopError, match=r"no candidates-test-\*\.parquet"):
        open_suite("heldout", tmp_path / "other")


def test_a_judge_that_was_taught_the_suite_is_not_measured(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taught = read_groups(dataset, "train")[0]
    shown = io.BytesIO()
    Image.fromarray(taught.source).save(shown, "PNG")
    leaked = genai_row("leftvote", 10, 20) | {"source_image": {"bytes": shown.getvalue(), "path": None}}
    write_genai(tmp_path / "suite.parquet", [genai_row("leftvote", 30, 40), leaked])
    (tmp_path / "s.csv").write_text("key,candidate,score\n")
    given = ["--data", str(tmp_path / "suite.parquet"), "--scores", str(tmp_path / "s.csv"), "--training", str(dataset)]
    monkeypatch.setattr(sys, "argv", ["editloop", "benchmark", "--suite", "genai-bench", *given])
    assert main() == 1
    told = capsys.readouterr().err
    assert taught.task_id in told
    assert "taught with what suite genai-bench asks" in told

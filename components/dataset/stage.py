"""Judgements to preference pairs: split by source image, parquet with the images inside, a version in DVC."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from annotation.vocabulary import EditTask, Judgement
from infra.content import complete_folder, read_manifest, write_json
from infra.datarepo import commit_dataset
from infra.errors import EditLoopError
from infra.settings import service_settings

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SHARES = {"train": 70, "validation": 10, "test": 20}
"""Percent of source images in each split."""
ROWS_A_GROUP = 256
FACTS_OF_JUDGEMENTS = (
    "export_sha256",
    "answers_sha256",
    "config_sha256",
    "campaign_key",
    "gates",
    "alpha",
    "accepted",
)
"""What the dataset keeps of its judgements' summary; ratings that came in from elsewhere have none of a campaign's."""

CANDIDATE_ROWS = pa.schema(
    [
        ("task_id", pa.string()),
        ("name", pa.string()),
        ("task_type", pa.string()),
        ("split", pa.string()),
        ("instruction", pa.string()),
        ("source", pa.binary()),
        ("target", pa.binary()),
        ("candidate_id", pa.string()),
        ("image", pa.binary()),
        ("editor", pa.string()),
        ("if_mean", pa.float64()),
        ("vq_mean", pa.float64()),
        ("ratings", pa.int64()),
    ]
)
PAIR_ROWS = pa.schema(
    [
        ("task_id", pa.string()),
        ("a", pa.string()),
        ("b", pa.string()),
        ("if_order", pa.int8()),
        ("vq_order", pa.int8()),
        ("overall_order", pa.int8()),
        ("if_margin", pa.float64()),
        ("vq_margin", pa.float64()),
        ("confidence", pa.float64()),
    ]
)

Ratings = dict[str, dict[str, tuple[int, int]]]
"""candidate_id -> annotator -> (instruction following, visual quality), each 1..4."""


def dataset(judgements: Path, candidates: Path, output: Path, version: Path, *, seed: int = 0) -> dict[str, float]:
    """Build the preference dataset and put it into the dataset repository.

    `output` holds `candidates-<split>.parquet` (a row a candidate, images as PNG bytes) and `pairs-<split>.parquet`
    (a row a pair of candidates that the same annotators rated; ties are kept). `version` is a JSON file that says where
    DVC has it. The same judgements and seed give the same bytes. Raises EditLoopError without any judged pair.
    """
    ratings = read_ratings(judgements / "judgements.jsonl")
    tasks = read_tasks(candidates / "tasks.jsonl")
    judged = [task for task in tasks if sum(c.candidate_id in ratings[task.task_id] for c in task.candidates) >= 2]
    rows = {task.task_id: pairs(task, ratings[task.task_id]) for task in judged}
    counts = {split: {"groups": 0, "pairs": 0} for split in SPLITS}
    for task in judged:
        counts[split_of(task.source, seed)]["groups"] += 1
        counts[split_of(task.source, seed)]["pairs"] += len(rows[task.task_id])
    total = {key: sum(count[key] for count in counts.values()) for key in ("groups", "pairs")}
    if not total["pairs"]:
        raise EditLoopError(
            f"{judgements}: no task has two candidates that one annotator rated; collect more judgements."
        )
    facts = _facts(judgements, candidates) | {"seed": seed, "splits": counts} | total
    facts["task_ids"] = [task.task_id for task in judged]
    facts["annotators"] = sorted({who for task in ratings.values() for by in task.values() for who in by})
    images = candidates / "images"
    with complete_folder(output, facts) as folder:
        for split in SPLITS:
            inside = [task for task in judged if split_of(task.source, seed) == split]
            shown = (row for task in inside for row in candidate_rows(task, split, ratings[task.task_id], images))
            _write(folder / f"candidates-{split}.parquet", CANDIDATE_ROWS, shown)
            _write(folder / f"pairs-{split}.parquet", PAIR_ROWS, (row for task in inside for row in rows[task.task_id]))
    settings = service_settings()
    committed = commit_dataset(
        output,
        repo=settings.require("dataset_repo"),
        remote=settings.require("dataset_remote"),
        message=f"{total['pairs']} preference pairs of {total['groups']} tasks",
    )
    write_json(version, committed)
    ties = sum(row["overall_order"] == 0 for task_rows in rows.values() for row in task_rows)
    return {
        "pairs": total["pairs"],
        "groups": total["groups"],
        "tie_rate": ties / total["pairs"],
        "tasks_without_pairs": len(tasks) - len(judged),
        **{f"pairs_{split}": counts[split]["pairs"] for split in SPLITS},
    }


def split_of(source: str, seed: int) -> Split:
    """The split of all tasks with this source image: a hash of its sha256 and the seed, so none is in two splits."""
    percent = int.from_bytes(hashlib.sha256(f"{seed}:{source}".encode()).digest()[:8], "big") % 100
    return next(split for i, split in enumerate(SPLITS) if percent < sum(SHARES[before] for before in SPLITS[: i + 1]))


def pairs(task: EditTask, ratings: Ratings) -> list[dict[str, Any]]:
    """All pairs a < b of the task's candidates that share an annotator, with their orders and margins.

    Orders are +1 (a preferred), 0 (tie), -1 (b) by the sum over the annotators who rated both; `overall` adds the axes.
    A margin is a's mean minus b's, in rating steps. `confidence` is the share of those annotators whose own overall
    order is the joint one.
    """
    rows = []
    for a, b in combinations(sorted(c.candidate_id for c in task.candidates if c.candidate_id in ratings), 2):
        both = sorted(ratings[a].keys() & ratings[b].keys())
        if not both:
            continue
        by_if = [ratings[a][who][0] - ratings[b][who][0] for who in both]
        by_vq = [ratings[a][who][1] - ratings[b][who][1] for who in both]
        overall = _sign(sum(by_if) + sum(by_vq))
        rows.append(
            {
                "task_id": task.task_id,
                "a": a,
                "b": b,
                "if_order": _sign(sum(by_if)),
                "vq_order": _sign(sum(by_vq)),
                "overall_order": overall,
                "if_margin": sum(by_if) / len(both),
                "vq_margin": sum(by_vq) / len(both),
                "confidence": sum(_sign(i + v) == overall for i, v in zip(by_if, by_vq, strict=True)) / len(both),
            }
        )
    return rows


def candidate_rows(task: EditTask, split: Split, ratings: Ratings, images: Path) -> Iterator[dict[str, Any]]:
    """A row a candidate, in the order of candidate ids; a candidate that nobody rated has null means."""
    source = _image(images, task.source)
    target = _image(images, task.target) if task.target else None
    for candidate in sorted(task.candidates, key=lambda one: one.candidate_id):
        given = list(ratings.get(candidate.candidate_id, {}).values())
        yield {
            "task_id": task.task_id,
            "name": task.name,
            "task_type": task.task_type,
            "split": split,
            "instruction": task.instruction,
            "source": source,
            "target": target,
            "candidate_id": candidate.candidate_id,
            "image": _image(images, candidate.image),
            "editor": candidate.editor,
            "if_mean": sum(i for i, _ in given) / len(given) if given else None,
            "vq_mean": sum(v for _, v in given) / len(given) if given else None,
            "ratings": len(given),
        }


def read_ratings(path: Path) -> defaultdict[str, Ratings]:
    """task_id -> candidate_id -> annotator -> ratings. EditLoopError for two ratings of one candidate by one person."""
    ratings: defaultdict[str, Ratings] = defaultdict(dict)
    with path.open() as lines:
        for line in lines:
            row = Judgement.model_validate_json(line)
            given = ratings[row.task_id].setdefault(row.candidate_id, {})
            if row.annotator in given:
                raise EditLoopError(f"{path}: {row.annotator} rated candidate {row.candidate_id} twice; collect again.")
            given[row.annotator] = (row.instruction_following, row.visual_quality)
    return ratings


def read_tasks(path: Path) -> list[EditTask]:
    """The tasks of a candidates folder, sorted by id."""
    with path.open() as lines:
        return sorted((EditTask.model_validate_json(line) for line in lines), key=lambda task: task.task_id)


def _facts(judgements: Path, candidates: Path) -> dict[str, Any]:
    """Where the dataset came from: digests of its inputs, and the export and campaign behind the judgements."""
    summary = json.loads((judgements / "summary.json").read_text())
    return {
        "judgements_sha256": read_manifest(judgements)["sha256"],
        "candidates_sha256": read_manifest(candidates)["sha256"],
        **{key: summary.get(key) for key in FACTS_OF_JUDGEMENTS},
    }


def _write(path: Path, schema: pa.Schema, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows as parquet, a bounded number of them in memory; equal rows give equal bytes."""
    batch: list[dict[str, Any]] = []
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for row in rows:
            batch.append(row)
            if len(batch) >= ROWS_A_GROUP:
                writer.write_table(pa.Table.from_pylist(batch, schema))
                batch = []
        if batch:
            writer.write_table(pa.Table.from_pylist(batch, schema))


def _image(images: Path, sha256: str) -> bytes:
    return (images / f"{sha256}.png").read_bytes()


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)

"""Judgements to preference pairs: split by source image, parquet with the images inside, a version in DVC."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from annotation.vocabulary import AXES, Decision, EditTask, Judgement
from components.dataset.labels import Labels, labels_of, mean_rating, pairs
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
        ("if_confidence", pa.float64()),
        ("vq_confidence", pa.float64()),
        ("confidence", pa.float64()),
    ]
)


def dataset(judgements: Path, candidates: Path, output: Path, version: Path, *, seed: int = 0) -> dict[str, float]:
    """Build the preference dataset (`write_dataset`) and put it into the dataset repository.

    `version` is a JSON file that says where DVC has it. Raises EditLoopError without any judged pair.
    """
    figures = write_dataset(judgements, candidates, output, seed=seed)
    settings = service_settings()
    committed = commit_dataset(
        output,
        repo=settings.require("dataset_repo"),
        remote=settings.require("dataset_remote"),
        message=f"{figures['pairs']:.0f} preference pairs of {figures['groups']:.0f} tasks",
    )
    write_json(version, committed)
    return figures


def write_dataset(judgements: Path, candidates: Path, output: Path, *, seed: int = 0) -> dict[str, float]:
    """Write a dataset folder of judgements; returns its counts.

    `output` holds `candidates-<split>.parquet` (a row a candidate, images as PNG bytes) and `pairs-<split>.parquet`
    (a row a pair of candidates that the same annotators rated; ties are kept). The same judgements and seed give the
    same bytes. Raises EditLoopError without any judged pair.
    """
    said = read_judgements(judgements / "judgements.jsonl")
    labels = labels_of(said, decided := read_decisions(judgements / "decisions.jsonl"))
    tasks = read_tasks(candidates / "tasks.jsonl")
    votes = {task.task_id: labels.votes.get(task.task_id, {}) for task in tasks}
    judged = [task for task in tasks if sum(c.candidate_id in votes[task.task_id] for c in task.candidates) >= 2]
    rows = {task.task_id: pairs(task, labels) for task in judged}
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
    facts["annotators"] = sorted({one.annotator for one in said} | {one.lead for one in decided})
    facts["weights"] = labels.weights
    images = candidates / "images"
    with complete_folder(output, facts) as folder:
        for split in SPLITS:
            inside = [task for task in judged if split_of(task.source, seed) == split]
            shown = (row for task in inside for row in candidate_rows(task, split, labels, images))
            _write(folder / f"candidates-{split}.parquet", CANDIDATE_ROWS, shown)
            _write(folder / f"pairs-{split}.parquet", PAIR_ROWS, (row for task in inside for row in rows[task.task_id]))
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


def candidate_rows(task: EditTask, split: Split, labels: Labels, images: Path) -> Iterator[dict[str, Any]]:
    """A row a candidate, in the order of candidate ids; a candidate that nobody rated has null means."""
    source = _image(images, task.source)
    target = _image(images, task.target) if task.target else None
    for candidate in sorted(task.candidates, key=lambda one: one.candidate_id):
        given = labels.votes[task.task_id].get(candidate.candidate_id, {})
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
            **{f"{axis}_mean": mean_rating(given, axis, labels.weights[axis]) if given else None for axis in AXES},
            "ratings": len(given),
        }


def read_judgements(path: Path) -> list[Judgement]:
    """The judgements of a file. EditLoopError for two ratings of one candidate by one person."""
    found: dict[tuple[str, str, str], Judgement] = {}
    with path.open() as lines:
        for line in lines:
            row = Judgement.model_validate_json(line)
            key = (row.task_id, row.candidate_id, row.annotator)
            if key in found:
                raise EditLoopError(f"{path}: {row.annotator} rated candidate {row.candidate_id} twice; collect again.")
            found[key] = row
    return list(found.values())


def read_decisions(path: Path) -> list[Decision]:
    """The lead's decisions; none where nothing was adjudicated."""
    if not path.is_file():
        return []
    return [Decision.model_validate_json(line) for line in path.read_text().splitlines() if line.strip()]


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

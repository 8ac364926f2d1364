"""Builder of the preference dataset: pairs in splits without shared images, as parquet with the images inside.

`publish_dataset` puts the result into the dataset repository as a version.
"""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import JsonValue, TypeAdapter, ValidationError

from editloop.content import RESTORE, complete_folder, read_manifest, write_file
from editloop.data.vocabulary import AXES, EditTask
from editloop.datasets.labels import PreferenceLabels, fit_labels, mean_rating, preference_pairs
from editloop.datasets.pools import TASKS, CandidatesFolder, EarlierVersion, TaskSource, read_sorted_tasks
from editloop.datasets.repository import DatasetOrigin, DatasetVersion, commit_dataset
from editloop.datasets.settings import DatasetSettings
from editloop.datasets.shards import MEGABYTES, ShardWriter
from editloop.datasets.splits import SPLITS, Split, picture_digests
from editloop.datasets.votes import Votes, read_votes, write_votes
from editloop.datasets.withdrawal import Withdrawn
from editloop.errors import EditLoopError
from editloop.progress import track
from editloop.text_file import file_bytes

TASKS_A_TIME = 256
"""Tasks whose pairs are computed together."""
NOTHING = Withdrawn()
INPUTS = ("judgements_sha256", "candidates_sha256")
FACTS_OF_JUDGEMENTS = (
    "export_sha256",
    "answers_sha256",
    "config_sha256",
    "campaign_key",
    "gates",
    "alpha",
    "accepted",
    "origin",
)
"""Facts of the judgements' summary that go into the dataset's manifest. Imported ratings lack those of a campaign, and
have an origin instead."""


class NoPairsError(EditLoopError):
    """No task has two candidates that one annotator rated."""


def write_dataset(
    judgements: Path,
    candidates: Path,
    output: Path,
    *,
    seed: int = 0,
    withdrawn: Withdrawn = NOTHING,
    shard_megabytes: float = MEGABYTES,
) -> dict[str, float]:
    """Write a dataset folder from judgements.

    The folder holds shards of candidates (one row per candidate, with the encoded images) and of pairs (one row per
    pair of candidates that the same annotators rated; ties are kept), and what they were made of: `tasks.jsonl`,
    `judgements.jsonl` and `decisions.jsonl`. The same ratings and seed give the same bytes.

    Args:
        judgements: Judgements folder, of stage collect or `editloop ratings import`.
        candidates: Candidates folder with the judged tasks.
        output: Folder to write. An existing one is replaced.
        seed: Seed of the splits.
        withdrawn: Annotators and tasks to leave out.
        shard_megabytes: Largest size of a shard's images, in MiB.

    Returns:
        The counts `pairs`, `groups`, `tasks_without_pairs`, `withdrawn_votes` and `pairs_<split>`, and `tie_rate`, the
        share of pairs that are ties overall.

    Raises:
        NoPairsError: No task has a judged pair.
        EditLoopError: A manifest, a vote or an image is broken.
    """
    summary = _read_summary(judgements / "summary.json")
    facts = {
        "judgements_sha256": read_manifest(judgements, check=True)["sha256"],
        "candidates_sha256": read_manifest(candidates)["sha256"],
        **{key: summary.get(key) for key in FACTS_OF_JUDGEMENTS},
        "parent": None,
        "seed": seed,
    }
    return _write(read_votes(judgements), CandidatesFolder(candidates), output, facts, withdrawn, shard_megabytes)


def rebuild_dataset(
    earlier: Path, output: Path, *, withdrawn: Withdrawn, shard_megabytes: float = MEGABYTES
) -> dict[str, float]:
    """Write a new version of a dataset folder, without what is withdrawn. Only the earlier folder is needed.

    Tasks stay in their splits; weights and confidences are fitted again. The manifest names the earlier folder's sha256
    as "parent".

    Args:
        earlier: The earlier dataset folder.
        output: Folder to write. An existing one is replaced.
        withdrawn: Annotators and tasks to leave out.
        shard_megabytes: Largest size of a shard's images, in MiB.

    Returns:
        The counts of `write_dataset`.

    Raises:
        NoPairsError: No pair is left.
        EditLoopError: The earlier folder has changed since it was written.
    """
    manifest = read_manifest(earlier, check=True)
    fact_keys = (*INPUTS, *FACTS_OF_JUDGEMENTS, "seed")
    facts = {key: manifest["facts"].get(key) for key in fact_keys} | {"parent": manifest["sha256"]}
    return _write(read_votes(earlier), EarlierVersion(earlier), output, facts, withdrawn, shard_megabytes)


def publish_dataset(folder: Path) -> DatasetVersion:
    """Add a dataset folder, with its lineage, to the dataset repository. Content that is there already adds nothing.

    Args:
        folder: The dataset folder.

    Returns:
        The version.

    Raises:
        EditLoopError: EDITLOOP_DATASET_REPO or EDITLOOP_DATASET_REMOTE is not set, or git or DVC refuses.
    """
    settings, facts = DatasetSettings(), read_manifest(folder)["facts"]
    return commit_dataset(
        folder,
        repo=settings.require("dataset_repo"),
        remote=settings.require("dataset_remote"),
        message=f"{facts['pairs']} preference pairs of {facts['groups']} tasks",
        origin=DatasetOrigin(
            annotators=tuple(facts["annotators"]),
            task_ids=tuple(facts["task_ids"]),
            images=tuple(
                sorted({picture for task in read_sorted_tasks(folder / TASKS) for picture in picture_digests(task)})
            ),
            judgements_sha256=facts["judgements_sha256"],
            candidates_sha256=facts["candidates_sha256"],
            parent=facts["parent"],
        ),
    )


def _read_summary(path: Path) -> dict[str, JsonValue]:
    try:
        return TypeAdapter(dict[str, JsonValue]).validate_json(file_bytes(path))
    except (OSError, ValidationError) as error:
        raise EditLoopError(f"{path}: no summary of judgements. {RESTORE}") from error


def candidate_rows(
    task: EditTask, split: Split, labels: PreferenceLabels, pictures: dict[str, bytes]
) -> list[dict[str, Any]]:
    """Return one row per candidate of a task, sorted by candidate id.

    Args:
        task: The task.
        split: Its split.
        labels: Votes and weights. The task must have votes.
        pictures: Encoded images of the task, by sha256.

    Returns:
        Rows of schema CANDIDATE_ROWS_WITH_REFERENCES. A candidate without ratings has null means.
    """
    rows = []
    for candidate in sorted(task.candidates, key=lambda candidate: candidate.candidate_id):
        ratings = labels.votes[task.task_id].get(candidate.candidate_id, {})
        rows.append(
            {
                "task_id": task.task_id,
                "name": task.name,
                "task_type": task.task_type,
                "split": split,
                "instruction": task.instruction,
                "source": pictures[task.source],
                "references": [pictures[reference] for reference in task.references],
                "target": pictures[task.target] if task.target else None,
                "candidate_id": candidate.candidate_id,
                "image": pictures[candidate.image],
                "editor": candidate.editor,
                **{
                    f"{axis}_mean": mean_rating(ratings, axis, labels.weights[axis]) if ratings else None
                    for axis in AXES
                },
                "ratings": len(ratings),
            }
        )
    return rows


def _write(
    all_votes: Votes,
    pool: TaskSource,
    output: Path,
    facts: dict[str, Any],
    withdrawn: Withdrawn,
    shard_megabytes: float,
) -> dict[str, float]:
    votes = all_votes.without(withdrawn)
    labels = fit_labels(votes.judged, votes.decided)
    splits = pool.splits(facts["seed"])
    tasks = [task for task in pool.tasks if task.task_id not in withdrawn.tasks]
    judged = [task for task in tasks if _comparable(task, labels)]
    references = any(task.references for task in judged)
    counts = {split: {"groups": 0, "pairs": 0} for split in SPLITS}
    ties = 0
    with complete_folder(output, facts) as folder:
        write_votes(folder, votes)
        write_file(folder / TASKS, "".join(task.model_dump_json(by_alias=True) + "\n" for task in judged))
        for split in SPLITS:
            split_tasks = [task for task in judged if splits[task.task_id] == split]
            with_pictures = zip(split_tasks, pool.pictures(split, split_tasks), strict=True)
            with closing(ShardWriter(folder, split, shard_megabytes, references=references)) as writer:
                for index, (task, pictures) in enumerate(
                    track(with_pictures, f"dataset: {split}", total=len(split_tasks))
                ):
                    if index % TASKS_A_TIME == 0:
                        rows = _pairs_of(split_tasks[index : index + TASKS_A_TIME], labels)
                    writer.add(candidate_rows(task, split, labels, pictures), rows[task.task_id])
                    counts[split]["pairs"] += len(rows[task.task_id])
                    ties += sum(row["overall_order"] == 0 for row in rows[task.task_id])
            counts[split]["groups"] = len(split_tasks)
        total = {key: sum(count[key] for count in counts.values()) for key in ("groups", "pairs")}
        if not total["pairs"]:
            raise NoPairsError(
                f"{output}: no task has two candidates that one annotator rated; collect more judgements."
            )
        facts |= {"splits": counts, **total, "task_ids": [task.task_id for task in judged]}
        facts |= {"annotators": votes.people, "weights": labels.weights}
        facts["withdrawn_votes"] = sum(map(len, all_votes)) - sum(map(len, votes))
    return {
        "pairs": total["pairs"],
        "groups": total["groups"],
        "tie_rate": ties / total["pairs"],
        "tasks_without_pairs": len(tasks) - len(judged),
        "withdrawn_votes": facts["withdrawn_votes"],
        **{f"pairs_{split}": counts[split]["pairs"] for split in SPLITS},
    }


def _comparable(task: EditTask, labels: PreferenceLabels) -> bool:
    """Return whether at least two of the task's candidates have votes."""
    votes = labels.votes.get(task.task_id, {})
    return sum(candidate.candidate_id in votes for candidate in task.candidates) >= 2


def _pairs_of(tasks: Sequence[EditTask], labels: PreferenceLabels) -> dict[str, list[dict[str, Any]]]:
    """Return the pairs of some tasks, by task id."""
    by_task: dict[str, list[dict[str, Any]]] = {task.task_id: [] for task in tasks}
    for row in preference_pairs(tasks, labels):
        by_task[row["task_id"]].append(row)
    return by_task

"""Makes a preference dataset of drawn scenes without Label Studio: the same as the demo's campaign, in a minute.

Scenes, edits by the tiny editor and the stand-ins, and ratings by simulated experts are made by the demo's own code.
"""

import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from editloop.content import complete_folder, sha256_bytes, write_file, write_json
from editloop.data.candidates_folder import read_tasks
from editloop.data.vocabulary import AXES, Axis, EditTask, Judgement
from editloop.datasets.build import write_dataset
from editloop.evaluation.oracle import oracle_of_task
from editloop.models.editors.candidates import write_candidates
from editloop.selection.pool import load_pictures
from editloop.studies.world.characters import Character, PageView, answer_page, assigned_annotators, expert
from editloop.studies.world.scenes import write_edits
from editloop.studies.world.stand_ins import add_candidates

PEOPLE, OVERLAP = ("ada", "bo", "chi", "dia"), 2
"""The simulated experts, and how many of them rate a task."""
STAND_INS, PER_TASK = 2, 4
"""Candidates of a task by stand-ins, and by the editor."""
HONEST: Mapping[str, Character] = {}
"""No expert has a fault."""
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
"""Time of the judgements, fixed so that the same seed gives the same dataset."""


def scenes_dataset(output: Path, *, tasks: int, seed: int) -> None:
    """Write a dataset of drawn tasks, with six candidates each, rated by two of four simulated experts.

    Args:
        output: The dataset folder to write.
        tasks: Number of tasks.
        seed: Seed of scenes, edits and ratings.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".world.") as scratch:
        drawn = draw_candidates(Path(scratch), tasks=tasks, seed=seed)
        rate_candidates(drawn, output, seed=seed)


def draw_candidates(folder: Path, *, tasks: int, seed: int, editor: str = "tiny-editor") -> Path:
    """Draw tasks, with four edits by an editor and two by stand-ins for each.

    Args:
        folder: Folder to work in.
        tasks: Number of tasks.
        seed: Seed of scenes and edits.
        editor: A shipped editor's name, or a model folder.

    Returns:
        The candidates folder, below `folder`.
    """
    write_edits(folder / "drawn", tasks, seed)
    add_candidates(folder / "drawn", folder / "edits", seed=seed, per_task=STAND_INS, facts={})
    write_candidates(folder / "edits", folder / "candidates", editor=editor, per_task=PER_TASK, seed=seed)
    return folder / "candidates"


def rate_candidates(
    drawn: Path, output: Path, *, seed: int, first: int | None = None, characters: Mapping[str, Character] = HONEST
) -> None:
    """Write a dataset from simulated experts' ratings of a candidates folder.

    Args:
        drawn: The candidates folder.
        output: The dataset folder to write; the folder that holds it must exist.
        seed: Seed of the experts, of their ratings and of the dataset.
        first: Rate only this many tasks, the first ones. None: all.
        characters: Characters of the experts of PEOPLE who are not honest.
    """
    tasks = read_tasks(drawn)[:first]
    judgements = [judgement for task in tasks for judgement in simulate_judgements(drawn, task, seed, characters)]
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".rated.") as scratch:
        lines = "".join(judgement.model_dump_json(by_alias=True) + "\n" for judgement in judgements)
        with complete_folder(Path(scratch) / "judgements", {}) as folder:
            write_file(folder / "judgements.jsonl", lines)
            write_file(folder / "decisions.jsonl", "")
            write_json(folder / "summary.json", {"export_sha256": sha256_bytes(lines.encode())})
        write_dataset(Path(scratch) / "judgements", drawn, output, seed=seed)


def simulate_judgements(
    folder: Path, task: EditTask, seed: int, characters: Mapping[str, Character] = HONEST
) -> list[Judgement]:
    """Simulate the judgements of a drawn task's candidates.

    Args:
        folder: The candidates folder.
        task: The task; its target must be known.
        seed: Seed of the experts, their assignment and their ratings.
        characters: Characters of the experts of PEOPLE who are not honest.

    Returns:
        The judgements, expert by expert, each in the candidates' order.
    """
    judgements, truth = [], oracle_candidate_scores(folder, task)
    scores: list[dict[Axis, float]] = [
        {axis: float(value) for axis, value in zip(AXES, row, strict=True)} for row in truth
    ]
    question = PageView("task", task.task_id, [candidate.candidate_id for candidate in task.candidates], 0.0)
    for name in assigned_annotators(task.task_id, PEOPLE, OVERLAP, seed):
        answer = answer_page(expert(name, seed, characters.get(name, "honest")), question, scores, seed)
        for position, (candidate, ratings) in enumerate(zip(task.candidates, answer.ratings, strict=True)):
            judgements.append(
                Judgement.model_validate(
                    {
                        "task_id": task.task_id,
                        "candidate_id": candidate.candidate_id,
                        "annotator": name,
                        **ratings,
                        "position": position,
                        "annotation_id": 0,
                        "created_at": BEGINNING + timedelta(seconds=position),
                    }
                )
            )
    return judgements


def oracle_candidate_scores(folder: Path, task: EditTask) -> NDArray[np.float64]:
    """Return the oracle's scores of a task's candidates.

    Args:
        folder: The candidates folder.
        task: The task; its target must be known.

    Returns:
        (K, axes), 0..1.
    """
    images = (task.source, str(task.target), *(candidate.image for candidate in task.candidates))
    source, target, *edits = load_pictures(folder, images, None)
    return np.stack(oracle_of_task(source, target, edits), axis=1)

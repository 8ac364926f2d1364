"""A preference dataset of drawn scenes without Label Studio: what the demo's campaign gives, for any seed, in a minute.

Scenes, the tiny editor's edits, those of the stand-ins, and the simulated experts' ratings are the demo's own.
"""

import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from annotation.campaigns.campaign import read_tasks
from annotation.formats.judgements_folder import write_imported
from annotation.simulation.characters import Character, Question, answer_of, expert
from annotation.simulation.experts import assigned
from annotation.simulation.oracle import oracle_of_task
from annotation.simulation.scenes import write_edits
from annotation.simulation.stand_ins import add_candidates
from annotation.vocabulary import AXES, Axis, EditTask, Judgement
from components.candidates.stage import candidates
from components.dataset.stage import write_dataset
from components.propose.pool import pictures

PEOPLE, OVERLAP = ("ada", "bo", "chi", "dia"), 2
STAND_INS, PER_TASK = 2, 4
HONEST: Mapping[str, Character] = {}
"""Everybody is."""
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


def scenes_dataset(output: Path, *, tasks: int, seed: int) -> None:
    """Write a dataset folder of `tasks` drawn tasks, six candidates each, rated by two of four simulated experts."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".world.") as scratch:
        drawn = draw_candidates(Path(scratch), tasks=tasks, seed=seed)
        rate(drawn, output, seed=seed)


def draw_candidates(folder: Path, *, tasks: int, seed: int, editor: str = "tiny-editor") -> Path:
    """Draw `tasks` tasks, with four edits by `editor` and two by stand-ins each; returns the candidates folder, below
    `folder`."""
    write_edits(folder / "drawn", tasks, seed)
    add_candidates(folder / "drawn", folder / "edits", seed=seed, per_task=STAND_INS, facts={})
    candidates(folder / "edits", folder / "candidates", editor=editor, per_task=PER_TASK, seed=seed)
    return folder / "candidates"


def rate(
    drawn: Path, output: Path, *, seed: int, first: int | None = None, characters: Mapping[str, Character] = HONEST
) -> None:
    """Write a dataset folder of what simulated experts say of a candidates folder's first tasks (None: all of them).

    characters: who of `PEOPLE` is not honest.
    """
    tasks = read_tasks(drawn)[:first]
    said = [one for task in tasks for one in judged(drawn, task, seed, characters)]
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".rated.") as scratch:
        lines = Path(scratch) / "simulated.jsonl"
        lines.write_text("".join(one.model_dump_json(by_alias=True) + "\n" for one in said))
        write_imported(Path(scratch) / "judgements", said, tasks, lines)
        write_dataset(Path(scratch) / "judgements", drawn, output, seed=seed)


def judged(folder: Path, task: EditTask, seed: int, characters: Mapping[str, Character] = HONEST) -> list[Judgement]:
    """What the experts who are asked say of a drawn task's candidates, expert after expert."""
    said, truth = [], oracle_scores(folder, task)
    scores: list[dict[Axis, float]] = [
        {axis: float(value) for axis, value in zip(AXES, row, strict=True)} for row in truth
    ]
    question = Question("task", task.task_id, [one.candidate_id for one in task.candidates], 0.0)
    for name in assigned(task.task_id, PEOPLE, OVERLAP, seed):
        answer = answer_of(expert(name, seed, characters.get(name, "honest")), question, scores, seed)
        for place, (one, given) in enumerate(zip(task.candidates, answer.ratings, strict=True)):
            said.append(
                Judgement.model_validate(
                    {"task_id": task.task_id, "candidate_id": one.candidate_id, "annotator": name, **given,
                     "position": place, "annotation_id": 0, "created_at": BEGINNING + timedelta(seconds=place)}
                )
            )  # fmt: skip
    return said


def oracle_scores(folder: Path, task: EditTask) -> NDArray[np.float64]:
    """The oracle's scores of a task's candidates, (K, axes), 0..1."""
    shown = (task.source, str(task.target), *(one.image for one in task.candidates))
    source, target, *edits = pictures(folder, shown, None)
    return np.stack(oracle_of_task(source, target, edits), axis=1)

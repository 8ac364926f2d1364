"""Tunes editors on the experts' labels themselves, without a reward model: on their pairs, and on their best edits."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from editloop.content import complete_folder
from editloop.data.picture_file import store_png
from editloop.datasets.preference_groups import read_groups
from editloop.studies.claims.reinforcement import BASE, measure_editor
from editloop.studies.claims.store import Figures, PieceContext
from editloop.studies.claims.worlds import FULL
from editloop.training.editor_dpo.settings import DpoJob, read_dpo_preset
from editloop.training.editor_sft.settings import SftJob, read_sft_preset
from editloop.training.flow_settings import FlowJob
from editloop.training.job import launch_job

LEARNT_SPLITS = ("train", "validation")
"""Splits whose labels every use of them may read: the reward model and DPO choose their best state on the second."""


def dpo_on_pairs(work: PieceContext) -> Figures:
    """Train the base editor by DPO on the pairs of the full labels.

    Args:
        work: Inputs of the piece.

    Returns:
        The figures of `measure_editor`.
    """
    settings = read_dpo_preset(work.settings.dpo_preset).changed(seed=work.seed)
    job = DpoJob(
        dataset=work.needs["world"] / FULL,
        output=work.folder / "editor",
        editor=BASE,
        checkpoints=work.folder / "checkpoints",
        settings=settings,
        facts={},
    )
    return _trained("editloop.training.editor_dpo.train", job, work)


def sft_on_best_labelled(work: PieceContext) -> Figures:
    """Fine-tune the base editor on the edit of each task that the experts rated best.

    It makes as many steps as `dpo_on_pairs`, at the same learning rate.

    Args:
        work: Inputs of the piece.

    Returns:
        The figures of `measure_editor`, and edits: the number of edits to learn.
    """
    edits = write_best_labelled(work.needs["world"] / FULL, work.folder / "labelled")
    pairs = read_dpo_preset(work.settings.dpo_preset).training
    job = SftJob(
        edits=work.folder / "labelled",
        output=work.folder / "editor",
        editor=BASE,
        checkpoints=work.folder / "checkpoints",
        settings=read_sft_preset(work.settings.sft_preset).changed(
            steps=pairs.steps or 0, learning_rate=pairs.learning_rate, seed=work.seed
        ),
        facts={},
    )
    return _trained("editloop.training.editor_sft.train", job, work) | {"edits": float(edits)}


def write_best_labelled(dataset: Path, output: Path) -> int:
    """Write an edits folder with the best-rated edit of each task as its target, by the sum of both mean ratings.

    Of equally rated edits the first counts.

    Args:
        dataset: The dataset folder.
        output: The folder to write.

    Returns:
        The number of tasks.
    """
    lines = []
    with complete_folder(output) as out:
        (out / "images").mkdir()
        for split in LEARNT_SPLITS:
            for group in read_groups(dataset, split, targets=False):
                best = int(np.nanargmax(group.ratings.sum(axis=1)))
                source, target = (
                    f"images/{store_png(Image.fromarray(picture), out / 'images')}.png"
                    for picture in (group.source, group.edits[best])
                )
                references = [
                    f"images/{store_png(Image.fromarray(reference), out / 'images')}.png"
                    for reference in group.references
                ]
                row: dict[str, object] = {"id": group.task_id, "task": group.task_type}
                row |= {"instruction": group.instruction, "source": source, "target": target}
                lines.append(json.dumps(row | ({"references": references} if references else {})) + "\n")
        (out / "edits.jsonl").write_text("".join(lines))
    return len(lines)


def _trained(module: str, job: FlowJob, work: PieceContext) -> Figures:
    launch_job(module, job, processes=1)
    return measure_editor(str(work.folder / "editor" / "editor"), work, {})

"""Pages whose answer is known: made of tasks with a target, or rated by the campaign's lead beforehand."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from editloop.content import sha256_bytes, sha256_json
from editloop.data.vocabulary import AXES, HIGHEST_RATING, LOWEST_RATING, Axis, EditTask, Range, candidate_id
from editloop.errors import EditLoopError

GOOD: Range = (3, 4)
BAD: Range = (1, 2)
GRAIN = 48
"""Grains across the longer side of a spoilt picture: coarse enough to be seen at any size."""
GRAIN_LEVELS = 25
"""Of 255; the standard deviation of the grain."""
LEAST_CAST, MOST_CAST = 40, 80
"""Of 255; how far each colour of a spoilt picture is shifted, towards the middle of the scale. With the grain nobody
takes it for a clean picture, but it looks like an editor's failure rather than a test."""
COLUMNS = ("task", "candidate", *AXES)

KnownRatings = dict[str, dict[Axis, Range]]
"""Right ratings by candidate and axis."""


class GoldTask(NamedTuple):
    """Pictures of a gold page before they are put in order: (candidate id, image's sha256), and what is known."""

    shown: list[tuple[str, str]]
    expected: KnownRatings


def can_be_gold(task: EditTask) -> bool:
    """Whether a gold page can be made of the task: it has a right result, and that is not the source."""
    return task.target is not None and task.target != task.source


def make_gold_task(
    task: EditTask, tasks: Sequence[EditTask], places: int, seed: int, images: Path, gold_images: Path
) -> GoldTask:
    """A gold page's pictures for a task with a target: `places` of them, a little more than half with a known answer.

    The target does what is asked and is clean (both axes 3 to 4). Against it stand the unedited source and a picture
    of another task (following 1 to 2), and the target under a colour cast with grain (quality 1 to 2), as many as
    fit; the rest are the task's own candidates, of which nothing is known. So a gold page looks like any other. New
    pictures are written into `made` as `<sha256>.png`; the others lie in `images`.
    """
    target = str(task.target)
    expected: dict[str, dict[Axis, Range]] = {target: {"if": GOOD, "vq": GOOD}}
    for kind in _shuffled(["unedited", "foreign", "spoilt"], seed, task.task_id):
        if len(expected) > places // 2:
            break
        if kind == "unedited":
            expected.setdefault(task.source, {"if": BAD})
        elif kind == "spoilt":
            expected.setdefault(_write_spoilt(images / f"{target}.png", seed, gold_images), {"vq": BAD})
        else:
            others = [
                other_task
                for other_task in tasks
                if other_task.source not in expected and other_task.source != task.source
            ]
            if others:
                expected.setdefault(others[_number(seed, task.task_id) % len(others)].source, {"if": BAD})
    own_images = [candidate.image for candidate in task.candidates if candidate.image not in expected]
    pictures = [*expected, *_shuffled(own_images, seed, task.task_id)[: places - len(expected)]]
    return GoldTask(
        [(candidate_id(task.task_id, picture), picture) for picture in pictures],
        {candidate_id(task.task_id, picture): right for picture, right in expected.items()},
    )


def read_gold_answers(text: str, tasks: Sequence[EditTask]) -> dict[str, KnownRatings]:
    """The lead's known answers by task id, from CSV `text` with columns task, candidate, if, vq.

    A task is named by its name or id, a candidate by its id or its number in the task (from 1), a right rating is a
    level (4) or a range (3-4); empty where it is not known. EditLoopError names all faults with their lines.
    """
    rows = csv.DictReader(io.StringIO(text))
    if tuple(rows.fieldnames or ()) != COLUMNS:
        raise EditLoopError(
            f"gold answers: the first line is {','.join(rows.fieldnames or ())}, not {','.join(COLUMNS)}."
        )
    by_name = {task.name: task for task in tasks} | {task.task_id: task for task in tasks}
    known_ratings: dict[str, KnownRatings] = {}
    faults = []
    for row in rows:
        where = f"line {rows.line_num}"
        task = by_name.get((row["task"] or "").strip())
        if task is None:
            faults.append(f"{where}: task = {row['task']}: the candidates folder has no such task with two candidates")
            continue
        candidate = _candidate_id(task, (row["candidate"] or "").strip())
        if candidate is None:
            faults.append(f"{where}: candidate = {row['candidate']}: {row['task']} has 1 to {len(task.candidates)}")
            continue
        right: dict[Axis, Range] = {}
        for axis in AXES:
            if not (cell := (row[axis] or "").strip()):
                continue
            if (span := _range(cell)) is None:
                faults.append(f"{where}: {axis} = {cell}: a level of {LOWEST_RATING} to {HIGHEST_RATING}, or 3-4")
            else:
                right[axis] = span
        if not any((row[axis] or "").strip() for axis in AXES):
            faults.append(f"{where}: {' and '.join(AXES)} are empty; a line gives one of them at least")
        if candidate in known_ratings.get(task.task_id, {}):
            faults.append(f"{where}: {row['task']}, {row['candidate']} stands twice")
        known_ratings.setdefault(task.task_id, {})[candidate] = right
    if faults:
        raise EditLoopError("\n".join([f"gold answers: {len(faults)} faults:", *faults]))
    return known_ratings


def _candidate_id(task: EditTask, name: str) -> str | None:
    ids = [candidate.candidate_id for candidate in task.candidates]
    if name.isdigit() and 1 <= int(name) <= len(ids):
        return ids[int(name) - 1]
    return name if name in ids else None


def _range(text: str) -> Range | None:
    low, dash, high = text.partition("-")
    try:
        span = int(low), int(high if dash else low)
    except ValueError:
        return None
    return span if LOWEST_RATING <= span[0] <= span[1] <= HIGHEST_RATING else None


def _write_spoilt(picture: Path, seed: int, gold_images: Path) -> str:
    """Write the picture under a colour cast with grain into `made`; returns its sha256."""
    with Image.open(picture) as opened:
        clean = opened.convert("RGB")
    rng = np.random.default_rng(_number(seed, picture.stem))
    scale = min(1.0, GRAIN / max(clean.size))
    width, height = (max(1, round(side * scale)) for side in clean.size)
    grain = rng.normal(0, GRAIN_LEVELS, (height, width, 3)).clip(-127, 127) + 128
    noise = Image.fromarray(grain.astype(np.uint8)).resize(clean.size, Image.Resampling.BICUBIC)
    pixels = np.asarray(clean, dtype=np.float64)
    towards = np.where(pixels.mean(axis=(0, 1)) < 128, 1, -1)
    pixels = pixels + towards * rng.uniform(LEAST_CAST, MOST_CAST, 3) + np.asarray(noise, dtype=np.float64) - 128
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    digest = sha256_bytes(buffer.getvalue())
    gold_images.mkdir(exist_ok=True)
    (gold_images / f"{digest}.png").write_bytes(buffer.getvalue())
    return digest


def _shuffled(items: Sequence[str], seed: int, task: str) -> list[str]:
    return sorted(items, key=lambda item: sha256_json([seed, "gold", task, item]))


def _number(*parts: object) -> int:
    return int(sha256_json(list(parts))[:15], 16)

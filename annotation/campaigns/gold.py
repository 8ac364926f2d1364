"""Gold pages, whose answers are known: made from tasks with a target, or rated by the lead beforehand."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from editloop.content import sha256_json
from editloop.data.picture_file import store_png
from editloop.data.table_file import TableFault, id_fault, text_table
from editloop.data.vocabulary import AXES, HIGHEST_RATING, LOWEST_RATING, Axis, EditTask, Range, candidate_id
from editloop.errors import EditLoopError
from editloop.text_file import whole_number

GOOD: Range = (3, 4)
BAD: Range = (1, 2)
GRAIN = 48
"""Grains across the longer side of a spoilt image: coarse enough to be visible at any size."""
GRAIN_LEVELS = 25
"""Standard deviation of the grain, of 255."""
LEAST_CAST, MOST_CAST = 40, 80
"""Range, of 255, of the shift of each colour channel of a spoilt image, towards the middle of the scale. With the grain
nobody takes the image for a clean one, but it looks like an editor's failure rather than a test."""
COLUMNS = ("task", "candidate", *AXES)

KnownRatings = dict[str, dict[Axis, Range]]
"""Ranges of right ratings by candidate id and axis."""


class GoldTask(NamedTuple):
    """Candidates and known answers of a gold page, before the candidates are put in order."""

    shown: list[tuple[str, str]]
    """(candidate id, sha256 of the image)."""
    expected: KnownRatings


def can_be_gold(task: EditTask) -> bool:
    """Whether a gold page can be made from a task: it has a target that differs from its source.

    Args:
        task: The task.
    """
    return task.target is not None and task.target != task.source


def make_gold_task(
    task: EditTask, tasks: Sequence[EditTask], places: int, seed: int, images: Path, gold_images: Path
) -> GoldTask:
    """Choose the images of a gold page for a task with a target.

    The target itself is a right answer (both axes 3 to 4). Wrong answers are the unedited source and the source of
    another task (instruction following 1 to 2), and a spoilt target with a colour cast and grain (visual quality 1 to
    2). They are added in a drawn order until a little more than half of the candidates have a known answer. The rest
    are the task's own candidates, with unknown answers, so that the page looks like any other.

    Args:
        task: The task; `can_be_gold` holds for it.
        tasks: All tasks of the campaign, whose sources are images of other tasks.
        places: Candidates on a page.
        seed: Seed of the draws.
        images: Folder of the tasks' images, `<sha256>.png`.
        gold_images: Folder that gets new images, `<sha256>.png`; it is created if needed.

    Returns:
        At most `places` candidates, with the known answers.
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
            sources = [foreign.source for foreign in tasks if foreign.source not in {*expected, task.source}]
            if sources:
                expected.setdefault(sources[_number(seed, task.task_id) % len(sources)], {"if": BAD})
    own_images = [candidate.image for candidate in task.candidates if candidate.image not in expected]
    pictures = [*expected, *_shuffled(own_images, seed, task.task_id)[: places - len(expected)]]
    return GoldTask(
        [(candidate_id(task.task_id, picture), picture) for picture in pictures],
        {candidate_id(task.task_id, picture): right for picture, right in expected.items()},
    )


def read_gold_answers(text: str, tasks: Sequence[EditTask]) -> dict[str, KnownRatings]:
    """Read the lead's known answers from CSV text.

    A task is given by its name or id, a candidate by its id or its number in the task (from 1). A rating is a level
    (4) or a range (3-4), empty if unknown.

    Args:
        text: CSV with columns task, candidate, if, vq, as `text_table` reads it.
        tasks: Tasks of the campaign.

    Returns:
        Known answers by task id.

    Raises:
        EditLoopError: The text has faults; the message lists all of them with their lines.
    """
    table = text_table(text, "gold answers", COLUMNS)
    if lacking := [column for column in COLUMNS if column not in table.columns]:
        raise EditLoopError(
            f"gold answers: no column {', '.join(lacking)}; there are {', '.join(table.columns) or 'none'}, and "
            f"{','.join(COLUMNS)} are needed."
        )
    by_name = {task.name: task for task in tasks} | {task.task_id: task for task in tasks}
    known_ratings: dict[str, KnownRatings] = {}
    faults = []
    for row in table.rows:
        where = f"line {row.line}"
        if isinstance(row, TableFault):
            faults.append(f"{where}: {row.rule}")
            continue
        name, number = row.cells["task"], row.cells["candidate"]
        task = by_name.get(name)
        if task is None:
            rule = id_fault(name) or "the candidates folder has no such task with two candidates"
            faults.append(f"{where}: task = {name}: {rule}")
            continue
        candidate = _candidate_id(task, number)
        if candidate is None:
            faults.append(f"{where}: candidate = {number}: {name} has 1 to {len(task.candidates)}")
            continue
        right: dict[Axis, Range] = {}
        cells = {axis: row.cells[axis] for axis in AXES if row.cells[axis]}
        for axis, cell in cells.items():
            if (span := _range(cell)) is None:
                faults.append(f"{where}: {axis} = {cell}: a level of {LOWEST_RATING} to {HIGHEST_RATING}, or 3-4")
            else:
                right[axis] = span
        if not cells:
            faults.append(f"{where}: {' and '.join(AXES)} are empty; a line gives one of them at least")
        if candidate in known_ratings.get(task.task_id, {}):
            faults.append(f"{where}: {name}, {number} stands twice")
        known_ratings.setdefault(task.task_id, {})[candidate] = right
    if faults:
        raise EditLoopError("\n".join([f"gold answers: {len(faults)} faults:", *faults]))
    return known_ratings


def _candidate_id(task: EditTask, name: str) -> str | None:
    ids = [candidate.candidate_id for candidate in task.candidates]
    if 1 <= (whole_number(name) or 0) <= len(ids):
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
    """Write the image with a colour cast and grain into `gold_images`, and return its sha256."""
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
    return store_png(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), gold_images)


def _shuffled(items: Sequence[str], seed: int, task: str) -> list[str]:
    return sorted(items, key=lambda item: sha256_json([seed, "gold", task, item]))


def _number(*parts: object) -> int:
    return int(sha256_json(list(parts))[:15], 16)

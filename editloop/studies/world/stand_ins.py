"""Stand-in editors: they make candidates for rows that have a target but no candidates, from source and target alone.

They give a campaign edits of different quality before any editor has run. References are copied with a row; the target
already has what an edit takes from them. Each fails in its own way, from half an edit
to a right edit that spoils the rest. All names begin with `stand-in-`, so that no report can take them for a real
editor.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from editloop.content import complete_folder, sha256_json
from editloop.data.edits_file import EditRow, read_edits
from editloop.data.picture_file import load_image, store_png
from editloop.data.picture_size import resized

LONGEST_SIDE = 256
"""In pixels. Enough for an expert to see the edit, and small enough for a tiny reward model."""
CHANGED = 24
"""A pixel is part of the edit if source and target differ by more than this, of 255; less is compression noise."""

Picture = npt.NDArray[np.float64]
"""(H, W, 3), 0..255."""
StandIn = Callable[[Picture, Picture, np.random.Generator], Picture]
"""(source, target, random numbers) -> edit."""


def timid(source: Picture, target: Picture, random: np.random.Generator) -> Picture:
    """Blend source and target: no artefacts, but only part of the edit's strength.

    Args:
        source: The source image.
        target: The right result, of the same size.
        random: Source of random numbers.
    """
    return source + random.uniform(0.15, 0.7) * (target - source)


def partial(source: Picture, target: Picture, random: np.random.Generator) -> Picture:
    """Do the edit in one half of the changed region only.

    Args:
        source: The source image.
        target: The right result, of the same size.
        random: Source of random numbers.
    """
    top, bottom, left, right = changed_region(source, target)
    edit = target.copy()
    if random.random() < 0.5:
        middle = (top + bottom) // 2
        untouched = slice(top, middle) if random.random() < 0.5 else slice(middle, bottom)
        edit[untouched, left:right] = source[untouched, left:right]
    else:
        middle = (left + right) // 2
        untouched = slice(left, middle) if random.random() < 0.5 else slice(middle, right)
        edit[top:bottom, untouched] = source[top:bottom, untouched]
    return edit


def blunt(source: Picture, target: Picture, random: np.random.Generator) -> Picture:
    """Do the edit, and tint the whole image. The result may leave 0..255.

    Args:
        source: The source image.
        target: The right result, of the same size.
        random: Source of random numbers.
    """
    return target + random.uniform(-55, 55, size=3)


def noisy(source: Picture, target: Picture, random: np.random.Generator) -> Picture:
    """Do the edit, and add noise to the whole image. The result may leave 0..255.

    Args:
        source: The source image.
        target: The right result, of the same size.
        random: Source of random numbers.
    """
    return target + random.normal(0, random.uniform(5, 30), size=target.shape)


def blurry(source: Picture, target: Picture, random: np.random.Generator) -> Picture:
    """Do the edit, and blur the whole image.

    Args:
        source: The source image.
        target: The right result, of the same size.
        random: Source of random numbers.
    """
    radius = float(random.uniform(0.003, 0.012)) * max(target.shape[:2])
    return np.asarray(_image(target).filter(ImageFilter.GaussianBlur(radius)), dtype=np.float64)


def idle(source: Picture, target: Picture, random: np.random.Generator) -> Picture:
    """Return the source, a little darker or brighter: nothing is spoilt, and nothing is done.

    Args:
        source: The source image.
        target: The right result, of the same size.
        random: Source of random numbers.
    """
    return source * random.uniform(0.97, 1.05)


STAND_INS: dict[str, StandIn] = {
    f"stand-in-{editor.__name__}": editor for editor in (timid, partial, blunt, noisy, blurry, idle)
}


def add_candidates(
    edits: Path, output: Path, *, seed: int, per_task: int = 3, facts: dict[str, Any] | None = None
) -> None:
    """Copy an edits folder, and give every row with a target candidates.

    Rows that have candidates, or no target, keep what they have. All images become PNG of at most 256 pixels a side,
    named by their content. A row's candidates depend only on (seed, id) and its images, not on other rows.

    Args:
        edits: The edits folder to read.
        output: The edits folder to write.
        seed: Seed of the stand-ins.
        per_task: Candidates for each row.
        facts: Facts for the manifest. None or empty: seed and per_task.

    Raises:
        EditLoopError: `edits` has faults. Nothing is written.
    """
    rows = read_edits(edits)
    with complete_folder(output, facts or {"seed": seed, "per_task": per_task}) as folder:
        lines = [_row_with_candidates(row, folder, seed, per_task) for row in rows]
        (folder / "edits.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def changed_region(source: Picture, target: Picture) -> tuple[int, int, int, int]:
    """Return the smallest box around the pixels that differ by more than CHANGED.

    Args:
        source: The source image.
        target: The right result, of the same size.

    Returns:
        (top, bottom, left, right), ends excluded; the whole image if no pixel differs.
    """
    changed = np.abs(target - source).max(axis=2) > CHANGED
    if not changed.any():
        return 0, source.shape[0], 0, source.shape[1]
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _row_with_candidates(row: EditRow, folder: Path, seed: int, per_task: int) -> dict[str, Any]:
    source = load_image(row.source, LONGEST_SIDE)
    line: dict[str, Any] = {
        "id": row.id,
        "task": row.task,
        "instruction": row.instruction,
        "source": _stored(folder, source),
    }
    if row.references:
        line["references"] = [_stored(folder, load_image(reference, LONGEST_SIDE)) for reference in row.references]
    candidates = [(load_image(image, LONGEST_SIDE), editor) for image, editor in row.candidates]
    if row.target is not None:
        target = Image.fromarray(resized(load_image(row.target, LONGEST_SIDE), (source.height, source.width)))
        line["target"] = _stored(folder, target)
        candidates = candidates or _stand_in_edits(row.id, source, target, seed, per_task)
    line["candidates"] = [{"image": _stored(folder, image), "editor": editor} for image, editor in candidates]
    return line


def _stand_in_edits(
    row_id: str, source: Image.Image, target: Image.Image, seed: int, per_task: int
) -> list[tuple[Image.Image, str]]:
    """`per_task` edits by random stand-ins. None repeats before all have been used."""
    random = np.random.default_rng(int(sha256_json([seed, row_id]), 16))
    before, after = (np.asarray(image, dtype=np.float64) for image in (source, target))
    names = list(STAND_INS)
    order = np.concatenate([random.permutation(len(names)) for _ in range(-(-per_task // len(names)))])
    chosen = [names[k] for k in order[:per_task]]
    return [(_image(STAND_INS[name](before, after, random)), name) for name in chosen]


def _image(picture: Picture) -> Image.Image:
    return Image.fromarray(picture.round().clip(0, 255).astype(np.uint8))


def _stored(folder: Path, image: Image.Image) -> str:
    """Write an image below `folder`, and return its path relative to it."""
    return f"images/{store_png(image, folder / 'images')}.png"

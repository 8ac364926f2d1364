"""Draws edit tasks with a reference image: "put the circle of image 2 at the top left of image 1".

Both images are scenes (`scenes`). Of the shape only its kind is named, so its colour is known from the second image
alone: an editor or a judge that does not look there can only guess. The right result is known, as in every scene.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from editloop.content import complete_folder
from editloop.studies.world.scenes import PLACES, Scene, draw_scene, random_scene

OPERATION = "put"
"""Kind of the tasks."""


class SceneTransfer(NamedTuple):
    """A drawn task with a reference. Images are uint8 (SIDE, SIDE, 3)."""

    instruction: str
    source: NDArray[np.uint8]
    reference: NDArray[np.uint8]
    target: NDArray[np.uint8]
    reference_scene: Scene
    """What `reference` shows."""


def random_transfer(rng: np.random.Generator) -> SceneTransfer:
    """Draw a task: two different scenes, an instruction that names a shape of the second, and the right result.

    Args:
        rng: Source of random numbers.
    """
    scene = random_scene(rng)
    reference, kinds = scene, list[str]()
    while reference == scene or not kinds:
        reference = random_scene(rng)
        kinds = _single_kinds(reference)
    kind = str(rng.choice(kinds))
    shape = next(shape for shape in reference.shapes.values() if shape.kind == kind)
    free = int(rng.choice([index for index in range(len(PLACES)) if index not in scene.shapes]))
    edited = replace(scene, shapes=scene.shapes | {free: replace(shape, shift=(0, 0))})
    return SceneTransfer(
        f"put the {kind} of image 2 at the {PLACES[free]} of image 1",
        draw_scene(scene),
        draw_scene(reference),
        draw_scene(edited),
        reference,
    )


def write_transfers(folder: Path, count: int, seed: int) -> None:
    """Draw tasks with a reference into an edits folder: `edits.jsonl` and the images.

    Args:
        folder: The folder to write.
        count: Number of tasks, all different.
        seed: The same seed gives the same bytes.
    """
    rng = np.random.default_rng(seed)
    with complete_folder(folder, {"world": "two sources", "count": count, "seed": seed}) as out:
        (out / "images").mkdir()
        rows: list[str] = []
        drawn: set[tuple[bytes, bytes, str]] = set()
        while (index := len(rows)) < count:
            transfer = random_transfer(rng)
            key = transfer.source.tobytes(), transfer.reference.tobytes(), transfer.instruction
            if key in drawn:
                continue
            drawn.add(key)
            names = {}
            for role in ("source", "reference", "target"):
                names[role] = f"images/pair-{seed}-{index:05d}-{role}.png"
                Image.fromarray(getattr(transfer, role)).save(out / names[role])
            row = {
                "id": f"pair-{seed}-{index:05d}",
                "task": OPERATION,
                "instruction": transfer.instruction,
                "source": names["source"],
                "references": [names["reference"]],
                "target": names["target"],
            }
            rows.append(json.dumps(row))
        (out / "edits.jsonl").write_text("\n".join(rows) + "\n")


def _single_kinds(scene: Scene) -> list[str]:
    """Return the kinds of which a scene has one shape."""
    kinds = [shape.kind for shape in scene.shapes.values()]
    return [kind for kind in kinds if kinds.count(kind) == 1]

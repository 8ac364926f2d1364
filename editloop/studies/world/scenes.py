"""Draws edit tasks that need no download: small scenes, an instruction for each, and the right result.

A scene is a background and one to three shapes in the quarters of a square image. Each of six operations changes one
thing and leaves the rest. As the scene is known, so is the right result, with which the oracle compares an edit.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from editloop.content import complete_folder

SIDE = 32
"""Height and width of an image in pixels."""
OVERSAMPLING = 4
"""Scenes are drawn this many times larger and scaled down, for smooth edges."""
RADIUS = 6
"""Radius of a circle in pixels; the other shapes are about as large."""

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 220),
    "yellow": (240, 210, 50),
    "purple": (150, 60, 190),
    "orange": (245, 140, 30),
}
BACKGROUNDS = {
    "white": (245, 245, 245),
    "grey": (140, 140, 140),
    "black": (25, 25, 25),
    "pink": (250, 180, 200),
    "cyan": (150, 225, 235),
}
SHAPES = ("circle", "square", "triangle", "diamond")
PLACES = ("top left", "top right", "bottom left", "bottom right")
"""Names of the quarters."""

Operation = Literal["recolour", "add", "remove", "replace", "move", "background"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
PHRASES = "make the add a at remove replace with move to change background top left right bottom ."
WORDS = tuple(sorted({*PHRASES.split(), *COLOURS, *BACKGROUNDS, *SHAPES}))
"""All words of the instructions, sorted."""


@dataclass(frozen=True)
class Shape:
    """A coloured shape: `kind` is one of SHAPES, `colour` one of COLOURS."""

    kind: str
    colour: str
    shift: tuple[int, int] = (0, 0)
    """Offset from the centre of its quarter, in pixels to the right and down."""

    @property
    def name(self) -> str:
        """The shape in an instruction, as `red circle`."""
        return f"{self.colour} {self.kind}"


@dataclass(frozen=True)
class Scene:
    """A background, one of BACKGROUNDS, with shapes on it."""

    background: str
    shapes: dict[int, Shape]
    """Shapes by quarter, an index into PLACES."""


@dataclass(frozen=True)
class SceneEdit:
    """A drawn task. Source and target are uint8 (SIDE, SIDE, 3)."""

    operation: Operation
    instruction: str
    scene: Scene
    source: NDArray[np.uint8]
    target: NDArray[np.uint8]


def draw_scene(scene: Scene) -> NDArray[np.uint8]:
    """Render a scene, anti-aliased.

    Args:
        scene: The scene.

    Returns:
        uint8 (SIDE, SIDE, 3).
    """
    scale = OVERSAMPLING
    canvas = Image.new("RGB", (SIDE * scale, SIDE * scale), BACKGROUNDS[scene.background])
    pen = ImageDraw.Draw(canvas)
    for quarter, shape in scene.shapes.items():
        x = (SIDE * (0.25 + 0.5 * (quarter % 2)) + shape.shift[0]) * scale
        y = (SIDE * (0.25 + 0.5 * (quarter // 2)) + shape.shift[1]) * scale
        r, fill = RADIUS * scale, COLOURS[shape.colour]
        if shape.kind == "circle":
            pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)
        elif shape.kind == "square":
            pen.rectangle((x - 0.85 * r, y - 0.85 * r, x + 0.85 * r, y + 0.85 * r), fill=fill)
        elif shape.kind == "triangle":
            pen.polygon([(x, y - r), (x + r, y + 0.8 * r), (x - r, y + 0.8 * r)], fill=fill)
        else:
            pen.polygon([(x, y - r), (x + r, y), (x, y + r), (x - r, y)], fill=fill)
    return np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.BOX))


def random_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene with one to three shapes, each in a quarter of its own, no two of the same colour and kind.

    Args:
        rng: Source of random numbers.
    """
    count = int(rng.integers(1, 4))
    quarters = rng.choice(4, count, replace=False)
    names = rng.choice(len(COLOURS) * len(SHAPES), count, replace=False)
    shapes = {
        int(quarter): Shape(
            kind=SHAPES[name % len(SHAPES)],
            colour=list(COLOURS)[name // len(SHAPES)],
            shift=(int(rng.integers(-1, 2)), int(rng.integers(-1, 2))),
        )
        for quarter, name in zip(quarters, names, strict=True)
    }
    return Scene(background=str(rng.choice(list(BACKGROUNDS))), shapes=shapes)


def random_edit(rng: np.random.Generator, operation: Operation | None = None, scene: Scene | None = None) -> SceneEdit:
    """Draw a task: a scene, an unambiguous instruction, and the right result.

    Args:
        rng: Source of random numbers.
        operation: The operation. None: at random.
        scene: The scene. None: at random.
    """
    scene = scene or random_scene(rng)
    chosen: Operation = operation or OPERATIONS[int(rng.integers(len(OPERATIONS)))]
    quarter = int(rng.choice(list(scene.shapes)))
    shape = scene.shapes[quarter]
    free = int(rng.choice([index for index in range(4) if index not in scene.shapes]))
    others = {index: unchanged for index, unchanged in scene.shapes.items() if index != quarter}
    if chosen == "recolour":
        colour = str(rng.choice([colour for colour in COLOURS if colour != shape.colour]))
        instruction = f"make the {shape.name} {colour}"
        edited_scene = replace(scene, shapes=others | {quarter: replace(shape, colour=colour)})
    elif chosen == "add":
        new = Shape(kind=str(rng.choice(SHAPES)), colour=str(rng.choice(list(COLOURS))))
        instruction = f"add a {new.name} at the {PLACES[free]}"
        edited_scene = replace(scene, shapes=scene.shapes | {free: new})
    elif chosen == "remove":
        instruction = f"remove the {shape.name}"
        edited_scene = replace(scene, shapes=others)
    elif chosen == "replace":
        kind = str(rng.choice([kind for kind in SHAPES if kind != shape.kind]))
        instruction = f"replace the {shape.name} with a {kind}"
        edited_scene = replace(scene, shapes=others | {quarter: replace(shape, kind=kind)})
    elif chosen == "move":
        instruction = f"move the {shape.name} to the {PLACES[free]}"
        edited_scene = replace(scene, shapes=others | {free: replace(shape, shift=(0, 0))})
    else:
        background = str(rng.choice([name for name in BACKGROUNDS if name != scene.background]))
        instruction = f"change the background to {background}"
        edited_scene = replace(scene, background=background)
    return SceneEdit(chosen, instruction, scene, draw_scene(scene), draw_scene(edited_scene))


def write_edits(folder: Path, count: int, seed: int) -> None:
    """Draw tasks into an edits folder: `edits.jsonl` (id, task, instruction, source, target) and the images.

    Args:
        folder: The folder to write.
        count: Number of tasks, all different.
        seed: The same seed gives the same bytes.
    """
    rng = np.random.default_rng(seed)
    with complete_folder(folder, {"world": "scenes", "count": count, "seed": seed}) as out:
        (out / "images").mkdir()
        rows: list[str] = []
        drawn: set[tuple[bytes, str]] = set()
        while (index := len(rows)) < count:
            edit = random_edit(rng)
            if (key := (edit.source.tobytes(), edit.instruction)) in drawn:
                continue
            drawn.add(key)
            name = f"scene-{seed}-{index:05d}"
            row = {"id": name, "task": edit.operation, "instruction": edit.instruction}
            for role, picture in (("source", edit.source), ("target", edit.target)):
                row[role] = f"images/{name}-{role}.png"
                Image.fromarray(picture).save(out / row[role])
            rows.append(json.dumps(row))
        (out / "edits.jsonl").write_text("\n".join(rows) + "\n")

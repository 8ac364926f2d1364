"""Contact sheets: each task's source images and the editors' results side by side, one row per task."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

COLUMNS = ("source", "base", "tuned", "wanted")
"""Columns of a comparison of two editors."""
CELL, GAP, LINE = 168, 8, 18
"""In pixels: the larger side of an image on the sheet, the gap between images, and the height of a line of text."""
INK, SOFT, PAPER = "#1c2330", "#5a6577", "#ffffff"

Picture = NDArray[np.uint8]
"""(height, width, 3)."""


def contact_sheet(
    instructions: Sequence[str],
    pictures: Mapping[str, Sequence[Picture] | Picture],
    notes: Sequence[str] = (),
    references: Sequence[Sequence[Picture]] = (),
) -> Image.Image:
    """Draw the images of N tasks on one sheet, in two blocks side by side (one block for fewer than four tasks).

    Args:
        instructions: The N instructions, one under each row.
        pictures: Images by column name, in the order of the columns. A column has up to N images of any size; rows
            beyond its end stay empty.
        notes: N texts under the instructions, or none.
        references: Reference images of the N tasks, or none. They get columns of their own after the first one, `image
            2` and so on, where a task has any.

    Returns:
        The sheet.
    """
    columns = _columns(pictures, references)
    blocks = 1 if len(instructions) < 4 else 2
    rows = -(-len(instructions) // blocks)
    row_height = CELL + LINE * (3 if notes else 2)
    block_width = len(columns) * (CELL + GAP) + GAP
    sheet = Image.new("RGB", (blocks * block_width + GAP, rows * row_height + LINE + GAP), PAPER)
    draw, heading, small = ImageDraw.Draw(sheet), _font(14), _font(13)
    for block in range(blocks):
        for column_index, column in enumerate(columns):
            draw.text((GAP + block * block_width + column_index * (CELL + GAP), 2), column, INK, heading)
    for index, instruction in enumerate(instructions):
        left, top = GAP + (index // rows) * block_width, LINE + GAP + (index % rows) * row_height
        for column_index, cells in enumerate(columns.values()):
            if index < len(cells) and (picture := cells[index]) is not None:
                sheet.paste(_cell(picture), (left + column_index * (CELL + GAP), top))
        room = block_width - 2 * GAP
        draw.text((left, top + CELL + 1), _short(instruction, small, room), INK, small)
        if notes:
            draw.text((left, top + CELL + 1 + LINE), _short(notes[index], small, room), SOFT, small)
    return sheet


def _columns(
    pictures: Mapping[str, Sequence[Picture] | Picture], references: Sequence[Sequence[Picture]]
) -> dict[str, Sequence[Picture | None]]:
    """Return the columns with those of the references after the first; a cell without an image is None."""
    most = max(map(len, references), default=0)
    further: dict[str, Sequence[Picture | None]] = {
        f"image {number + 2}": [images[number] if number < len(images) else None for images in references]
        for number in range(most)
    }
    (source, first), *others = ((name, list(cells)) for name, cells in pictures.items())
    return {source: first, **further, **dict(others)}


def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return the plots' font, which covers most alphabets; Pillow's own does not."""
    from matplotlib import get_data_path

    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _cell(picture: Picture) -> Image.Image:
    """Scale an image so that its larger side is CELL pixels.

    Small images are enlarged without smoothing, so that their pixels show.
    """
    image = Image.fromarray(np.asarray(picture))
    times = CELL / max(image.size)
    size = (max(1, round(image.width * times)), max(1, round(image.height * times)))
    return image.resize(size, Image.Resampling.NEAREST if times >= 1 else Image.Resampling.BOX)


def _short(text: str, font: ImageFont.FreeTypeFont, room: int) -> str:
    """Cut a text to one line of at most `room` pixels."""
    text = " ".join(text.split())
    while text and font.getlength(text) > room:
        text = text[:-2].rstrip("…") + "…"
    return text

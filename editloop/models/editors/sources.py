"""The source images of tasks: one or several, at the sizes that the editor works at, in batches of equal sizes.

A batch holds tasks whose sources have one size and whose references, image by image, have one size too: the network's
sequence is the same for all of them. Tasks of other sizes, or of another number of references, go apart.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from editloop.data.edits_file import EditRow
from editloop.data.picture_file import upright_size
from editloop.data.picture_size import Picture, resampled
from editloop.errors import EditLoopError
from editloop.models.editors.protocol import Conditioning, Editor
from editloop.models.editors.settings import Size

References = Sequence[Picture]
"""A task's reference images, at the sizes that the editor works at for each."""


class SourceSizes(NamedTuple):
    """Sizes, (height, width), of a task's source images as the editor sees them."""

    source: Size
    """The size of the edit too."""
    references: tuple[Size, ...] = ()


def working_references(editor: Editor, pictures: Iterable[Picture], area: int | None = None) -> list[Picture]:
    """Return a task's reference images as the editor takes them, each at the size that it would have as a source.

    Args:
        editor: The editor.
        pictures: The images.
        area: As in `Editor.size_for`.
    """
    return [resampled(picture, editor.size_for(picture.shape[0], picture.shape[1], area)) for picture in pictures]


def working_sizes(rows: Sequence[EditRow], editor: Editor, area: int | None = None) -> list[SourceSizes]:
    """Return the sizes at which the editor works on the sources of each task.

    Args:
        rows: The tasks.
        editor: The editor.
        area: As in `Editor.size_for`.
    """
    return [
        SourceSizes(
            editor.size_for(*upright_size(row.source), area),
            tuple(editor.size_for(*upright_size(path), area) for path in row.references),
        )
        for row in rows
    ]


def group_by_size(
    sources: Sequence[Picture], references: Sequence[References] | None = None
) -> dict[SourceSizes, list[int]]:
    """Return the indices of tasks by the sizes of their sources: those that can go into one batch.

    Args:
        sources: One source image a task.
        references: The reference images of each task; None where no task has any. Indices of one size keep their order.
    """
    indices_by_size: dict[SourceSizes, list[int]] = {}
    for index, source in enumerate(sources):
        further = references[index] if references else ()
        sizes = SourceSizes(_size(source), tuple(map(_size, further)))
        indices_by_size.setdefault(sizes, []).append(index)
    return indices_by_size


def encode_tasks(
    editor: Editor, instructions: Sequence[str], sources: Sequence[Picture], references: Sequence[References] = ()
) -> Conditioning:
    """Encode B tasks whose sources have the same sizes, as `group_by_size` puts them together.

    Args:
        editor: The editor.
        instructions: The B instructions.
        sources: Their B sources.
        references: The reference images of each task; empty where no task has any.
    """
    further = [np.stack(pictures) for pictures in zip(*references, strict=True)]
    if not further:
        return editor.encode(instructions, np.stack(sources))
    return editor.encode(instructions, np.stack(sources), further)


def condition_on(
    editor: Editor, parts: dict[str, Tensor], sources: NDArray[np.uint8], references: Sequence[NDArray[np.uint8]]
) -> Conditioning:
    """Return B encoded tasks: `parts`, and as `source` the packed latents (B, S, C) of all source images, in order.

    Args:
        editor: The editor.
        parts: What else the velocity depends on, each (B, ...).
        sources: uint8 (B, height, width, 3).
        references: For each reference image, uint8 (B, height, width, 3).

    Raises:
        EditLoopError: There are more references than the editor takes.
    """
    check_references(editor, [("a batch", len(references))])
    latents = [editor.latents(pictures) for pictures in (sources, *references)]
    size, *further = ((pictures.shape[1], pictures.shape[2]) for pictures in (sources, *references))
    return Conditioning(size, parts | {"source": torch.cat(latents, dim=1)}, tuple(further))


def references_fault(editor: Editor, count: int) -> str:
    """Return why an editor cannot take so many reference images, or an empty text.

    Args:
        editor: The editor, or its outline.
        count: Number of reference images of a task.
    """
    most = getattr(editor, "most_references", 0)
    if count <= most:
        return ""
    return (
        f"{count} reference image(s), and {editor.settings.pipeline} takes {most or 'none'} besides the source "
        "(`most_references`). Leave such tasks out, or take an editor of several sources: Qwen-Image-Edit-Plus, "
        "FLUX.2, OmniGen2"
    )


def check_references(editor: Editor, tasks: Iterable[tuple[str, int]]) -> None:
    """Check that an editor takes as many reference images as tasks have, before anything is done.

    Args:
        editor: The editor.
        tasks: Name of each task and its number of reference images.

    Raises:
        EditLoopError: A task has more. The message names the editor, the first such task, and the rule.
    """
    for name, count in tasks:
        if fault := references_fault(editor, count):
            raise EditLoopError(f"{name}: {fault}.")


def _size(picture: Picture) -> Size:
    return picture.shape[0], picture.shape[1]

"""Tasks to practise: the choice of each iteration's tasks, and their encodings."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from editloop.data.edits_file import EditRow
from editloop.data.picture_file import load_image
from editloop.data.picture_size import resampled
from editloop.models.editors.protocol import Conditioning, Editor
from editloop.models.editors.sources import References, encode_tasks, working_sizes
from editloop.models.judge_protocol import Picture
from editloop.training.encoding_store import EncodingStore, encoding_key

SOURCE, REFERENCE = "picture", "reference-{number}"
"""Names under which a task's source and its references, from 0, are stored with the parts of its encoding."""


class EncodedTask(NamedTuple):
    """A task's source and encoding."""

    source: Picture
    """uint8 (height, width, 3), at the size that the editor is trained at."""
    condition: Conditioning
    """One row, on the CPU."""
    references: References = ()
    """The reference images, each at the size that the editor is trained at for it."""


class Prompts:
    """Tasks by their index in `rows`, and their encodings."""

    def __init__(
        self,
        rows: Sequence[EditRow],
        editor: Editor,
        store: EncodingStore,
        *,
        seed: int,
        area: int | None = None,
        dtype: torch.dtype | None = None,
    ):
        """Take the tasks.

        Args:
            rows: Tasks to practise.
            editor: The editor that encodes them.
            store: Where encodings are kept.
            seed: Seed of the choice of tasks.
            area: Pixels of the images in training; None for the editor's own.
            dtype: Type in which encodings are kept; None for that in which they were computed.
        """
        self.rows, self.editor, self.store, self.seed, self.dtype = rows, editor, store, seed, dtype
        self.source_sizes = working_sizes(rows, editor, area)
        """Sizes of each task's source images. Tasks of equal ones may be in one part."""
        self.encodings = 0
        """Number of encodings made so far by this rank."""
        self._keys: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def chosen(self, iteration: int, count: int, solved: set[int]) -> NDArray[np.int64]:
        """Return the tasks of an iteration in random order. They depend on the arguments and the seed alone.

        Args:
            iteration: The iteration, from 0.
            count: Number of tasks; fewer where fewer are unsolved.
            solved: Tasks to leave out.
        """
        pool = np.array([task for task in range(len(self)) if task not in solved], dtype=np.int64)
        rng = np.random.default_rng([self.seed, iteration])
        return rng.choice(pool, min(count, len(pool)), replace=False)

    def encode(self, parts: Sequence[Sequence[int]], most: int) -> None:
        """Encode the tasks that no rank has encoded yet. Text encoders and codec come to the device once for all.

        Args:
            parts: Groups of tasks, each of one `source_sizes`.
            most: Largest number of tasks that are encoded together.
        """
        if all(self._key(task) in self.store for part in parts for task in part):
            return
        with self.editor.encoders_at_hand():
            for part in parts:
                new = [task for task in dict.fromkeys(part) if self._key(task) not in self.store]
                for start in range(0, len(new), most):
                    self._encode(new[start : start + most])

    def encoded_tasks(self, tasks: Sequence[int]) -> list[EncodedTask]:
        """Return sources and encodings of tasks.

        Args:
            tasks: Tasks that were encoded; repeats are allowed.
        """
        encoded = []
        for task in tasks:
            tensors = dict(self.store.get(self._key(task)))
            source, sizes = tensors.pop(SOURCE).numpy(), self.source_sizes[task]
            references = [
                tensors.pop(REFERENCE.format(number=number)).numpy() for number in range(len(sizes.references))
            ]
            condition = Conditioning(sizes.source, tensors, sizes.references)
            encoded.append(EncodedTask(source, condition, references))
        return encoded

    def _encode(self, tasks: Sequence[int]) -> None:
        rows, sizes = [self.rows[task] for task in tasks], [self.source_sizes[task] for task in tasks]
        sources = [resampled(load_image(row.source), size.source) for row, size in zip(rows, sizes, strict=True)]
        references = [
            [resampled(load_image(path), size) for path, size in zip(row.references, each.references, strict=True)]
            for row, each in zip(rows, sizes, strict=True)
        ]
        encoded = encode_tasks(self.editor, [row.instruction for row in rows], sources, references)
        encoded = encoded.to("cpu", self.dtype)
        self.encodings += len(tasks)
        for index, task in enumerate(tasks):
            pictures = {SOURCE: sources[index]}
            pictures |= {REFERENCE.format(number=k): picture for k, picture in enumerate(references[index])}
            shown = {name: torch.from_numpy(picture.copy()) for name, picture in pictures.items()}
            self.store.add(self._key(task), encoded.select(torch.tensor([index])).parts | shown)

    def _key(self, task: int) -> str:
        if task not in self._keys:
            row, sizes = self.rows[task], self.source_sizes[task]
            pictures = [row.source, *row.references]
            self._keys[task] = encoding_key(row.instruction, sizes.source, pictures, sizes.references)
        return self._keys[task]

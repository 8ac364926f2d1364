"""Tasks to practise: the choice of each iteration's tasks, and a cache of their encodings."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from editloop.data.edits_file import EditRow
from editloop.data.picture_file import load_image, upright_size
from editloop.data.picture_size import resized
from editloop.models.editors.protocol import Conditioning, Editor
from editloop.models.judge_protocol import Picture


class EncodedTask(NamedTuple):
    """A task's source and encoding."""

    source: Picture
    """uint8 (height, width, 3), at the editor's working size."""
    condition: Conditioning
    """One row, on the CPU."""


class Prompts:
    """Tasks by their index in `rows`, with the most recently used encodings in memory."""

    def __init__(self, rows: Sequence[EditRow], editor: Editor, *, cache_size: int, seed: int):
        """Take the tasks.

        Args:
            rows: Tasks to practise.
            editor: The editor that encodes them.
            cache_size: Number of tasks whose sources and encodings stay in memory.
            seed: Seed of the choice of tasks.
        """
        self.rows, self.editor, self.kept, self.seed = rows, editor, cache_size, seed
        self.sizes = [editor.size_for(*upright_size(row.source)) for row in rows]
        self.encodings = 0
        """Number of encodings made so far, repeated ones included."""
        self._known: OrderedDict[int, EncodedTask] = OrderedDict()

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

    def encoded_tasks(self, tasks: Sequence[int]) -> list[EncodedTask]:
        """Return sources and encodings of tasks. Those that are not in memory are encoded together.

        Args:
            tasks: Tasks of one size; repeats are allowed.
        """
        new = [task for task in dict.fromkeys(tasks) if task not in self._known]
        if new:
            sources = np.stack([resized(load_image(self.rows[task].source), self.sizes[task]) for task in new])
            encoded = self.editor.encode([self.rows[task].instruction for task in new], sources).to("cpu")
            self.encodings += len(new)
            for index, task in enumerate(new):
                self._known[task] = EncodedTask(sources[index], encoded.select(torch.tensor([index])))
        tasks_in_order = []
        for task in tasks:
            self._known.move_to_end(task)
            tasks_in_order.append(self._known[task])
        while len(self._known) > max(self.kept, len(tasks_in_order)):
            self._known.popitem(last=False)
        return tasks_in_order

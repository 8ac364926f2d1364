"""The tasks that are practised: which ones an iteration takes, and their encodings, computed once a task."""

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
    """What is kept of a task."""

    source: Picture
    """uint8 (height, width, 3), at the size that the editor works at."""
    condition: Conditioning
    """Of one row, on the CPU."""


class Prompts:
    """Tasks by their place in `rows`. The newest `kept` of them stay encoded."""

    def __init__(self, rows: Sequence[EditRow], editor: Editor, *, cache_size: int, seed: int):
        self.rows, self.editor, self.kept, self.seed = rows, editor, cache_size, seed
        self.sizes = [editor.size_for(*upright_size(row.source)) for row in rows]
        self.encodings = 0
        """Tasks encoded so far, each time counted."""
        self._known: OrderedDict[int, EncodedTask] = OrderedDict()

    def __len__(self) -> int:
        return len(self.rows)

    def chosen(self, iteration: int, count: int, solved: set[int]) -> NDArray[np.int64]:
        """Tasks of an iteration, `count` or all that are not solved: a function of the arguments and the seed alone."""
        pool = np.array([task for task in range(len(self)) if task not in solved], dtype=np.int64)
        rng = np.random.default_rng([self.seed, iteration])
        return rng.choice(pool, min(count, len(pool)), replace=False)

    def encoded_tasks(self, tasks: Sequence[int]) -> list[EncodedTask]:
        """Sources and encodings of tasks of one size; those that are not known are encoded together."""
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

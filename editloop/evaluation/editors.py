"""Fixed held-out tasks as an editor edits them, always from the same noise, and what judges say of the edits."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from editloop.content import sha256_file, sha256_json
from editloop.data.edits_file import EditRow
from editloop.data.picture_file import load_image
from editloop.data.picture_size import Picture, resized
from editloop.evaluation.oracle import Oracle, oracle
from editloop.models.editors.protocol import Conditioning, Editor
from editloop.models.editors.sampling import group_by_size, integrate, working_picture
from editloop.models.editors.settings import Size
from editloop.models.judge_protocol import EditGroup, Judge
from editloop.scoring.chunks import score_in_chunks

ORACLE = "oracle"
"""In a judge's place: the comparison with the right result, where each task has one."""
LARGEST_SHARE = 4
"""At most one source picture in so many is set aside."""


def split_held_out(rows: Sequence[EditRow], tasks: int, seed: int) -> tuple[list[EditRow], list[EditRow]]:
    """Rows to practise, and about `tasks` (a quarter of all, at most) to look at in evaluations: no source picture is
    in both. Which they are depends on the seed and the pictures alone. Rows of one source picture are all to practise,
    and looked at too."""
    sources = {row.id: sha256_file(row.source) for row in rows}
    by_source: dict[str, list[EditRow]] = defaultdict(list)
    for row in rows:
        by_source[sources[row.id]].append(row)
    target_count = min(tasks, max(1, len(rows) // LARGEST_SHARE))
    held: list[EditRow] = []
    for source in sorted(by_source, key=lambda source_sha256: sha256_json([seed, source_sha256]))[:-1]:
        if len(held) >= target_count:
            break
        held += by_source[source]
    if not held:
        return list(rows), list(rows[:tasks])
    held_ids = {row.id for row in held}
    return [row for row in rows if row.id not in held_ids], held[:tasks]


@dataclass(frozen=True)
class EvaluationTask:
    """A held-out task at the editor's working size."""

    id: str
    instruction: str
    source: Picture
    wanted: Picture | None
    """The right result; None where nobody knows it."""


class HeldOut:
    """Tasks encoded once, and their noise: a function of the task and the number of the edit alone."""

    def __init__(self, rows: Sequence[EditRow], editor: Editor, *, steps: int, guidance: float | None, batch: int):
        self.steps, self.guidance, self.batch = steps, guidance, batch
        self.cases = [_case(row, editor) for row in rows]
        self.period = 1
        """Pixels of the grid that the network sees pictures on: the side of the patch behind one of its tokens."""
        self._parts: list[tuple[Size, list[int], Conditioning]] = []
        for size, places in group_by_size([case.source for case in self.cases]).items():
            for start in range(0, len(places), batch):
                part = places[start : start + batch]
                sources = np.stack([self.cases[at].source for at in part])
                condition = editor.encode([self.cases[at].instruction for at in part], sources)
                self._parts.append((size, part, condition.to(editor.device)))

    @torch.no_grad()
    def edits(self, editor: Editor, number: int = 0, most: int | None = None) -> list[Picture]:
        """The number-th edit of each task, or of the first `most`, in their order."""
        edits_by_index: dict[int, Picture] = {}
        count = len(self.cases) if most is None else min(most, len(self.cases))
        for size, indices, condition in self._parts:
            positions = [position for position, at in enumerate(indices) if at < count]
            if not positions:
                continue
            noise = [
                editor.noise(
                    1, size, torch.Generator().manual_seed(held_out_noise_seed(self.cases[indices[at]].id, number))
                )
                for at in positions
            ]
            start = torch.cat(noise).to(editor.device)
            self.period = max(1, round((size[0] * size[1] / start.shape[1]) ** 0.5))
            sigmas = editor.sigmas(self.steps, size)
            x = integrate(editor, start, condition.select(torch.tensor(positions)), sigmas, self.guidance)
            edits_by_index |= dict(zip([indices[at] for at in positions], editor.decode(x, size), strict=True))
        return [edits_by_index[at] for at in range(count)]

    @property
    def known(self) -> bool:
        """Whether the right result of every task is known."""
        return all(case.wanted is not None for case in self.cases)


def held_out_noise_seed(task: str, number: int) -> int:
    """Seed of the noise that the number-th edit of a held-out task begins as."""
    return int(sha256_json(["held-out", task, number])[:15], 16)


def judge_scores(judge: Judge, cases: Sequence[EvaluationTask], edits: Sequence[Picture]) -> NDArray[np.float64]:
    """(T,): the judge's reward, 0..1, of one edit a task; NaN where it is missing. JudgeUnavailableError as `judge`."""
    groups = [
        EditGroup(case.instruction, case.source, [edit], case.id) for case, edit in zip(cases, edits, strict=True)
    ]
    rewards = [score.reward for score in score_in_chunks(judge, groups)]
    return np.array([np.nan if reward is None or not np.isfinite(reward) else reward for reward in rewards])


def oracle_view(cases: Sequence[EvaluationTask], edits: Sequence[Picture]) -> Oracle:
    """What the oracle says of one edit a task, (T,) each. Every case must have its right result."""
    scores = [
        oracle(case.source, case.wanted, edit)
        for case, edit in zip(cases, edits, strict=True)
        if case.wanted is not None
    ]
    return Oracle(
        np.array([score.instruction_following for score in scores]),
        np.array([score.visual_quality for score in scores]),
    )


def _case(row: EditRow, editor: Editor) -> EvaluationTask:
    source = working_picture(editor, load_image(row.source))
    size = (source.shape[0], source.shape[1])
    target = None if row.target is None else resized(load_image(row.target), size)
    return EvaluationTask(row.id, row.instruction, source, target)

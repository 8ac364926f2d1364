"""Evaluate an editor on fixed held-out tasks, always from the same noise, and score its edits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from editloop.content import sha256_json
from editloop.data.edits_file import EditRow
from editloop.data.held_out import hold_out
from editloop.data.picture_file import load_image, load_images
from editloop.data.picture_size import Picture, resampled
from editloop.evaluation.oracle import Oracle, oracle
from editloop.models.editors.protocol import Conditioning, Editor
from editloop.models.editors.sampling import integrate, working_picture
from editloop.models.editors.settings import Size
from editloop.models.editors.sources import (
    References,
    encode_tasks,
    group_by_size,
    working_references,
)
from editloop.models.editors.task_check import check_rows
from editloop.models.judge_protocol import EditGroup, Judge
from editloop.scoring.chunks import score_in_chunks

ORACLE = "oracle"
"""Name of the oracle in the place of a judge; it needs a right result for each task."""
LARGEST_SHARE = 4
"""No further source image is held out once one in this many rows is."""


def split_held_out(rows: Sequence[EditRow], tasks: int, seed: int) -> tuple[list[EditRow], list[EditRow]]:
    """Split rows into those to train on and those held out for evaluation, by source image.

    No source image is in both parts. Which rows are held out depends on the seed and the images only. Source images are
    held out one after the other until `tasks` rows, or a quarter of all rows, are reached; rows of theirs beyond
    `tasks` are in neither part. If all rows share one source image, all of them are trained on and the first `tasks`
    are evaluated too.

    Args:
        rows: The rows.
        tasks: Largest number of held-out rows.
        seed: Seed of the choice.

    Returns:
        The rows to train on, and the held-out rows.
    """
    practised, held = hold_out(rows, min(tasks, max(1, len(rows) // LARGEST_SHARE)), seed)
    return (practised, held[:tasks]) if held else (practised, practised[:tasks])


@dataclass(frozen=True)
class EvaluationTask:
    """A held-out task at the editor's working size."""

    id: str
    instruction: str
    source: Picture
    wanted: Picture | None
    """The right result; None if it is not known."""
    references: References = ()
    """Further images of which the instruction speaks, each at its own working size."""


class HeldOut:
    """Encoded held-out tasks. The noise of an edit depends on its task and its number only."""

    def __init__(self, rows: Sequence[EditRow], editor: Editor, *, steps: int, guidance: float | None, batch: int):
        """Encode the tasks.

        Args:
            rows: The tasks.
            editor: The editor that encodes them; its edits are made later, by `edits`.
            steps: Number of sampling steps.
            guidance: Guidance scale, as for `Editor.velocity`; None takes the editor's own.
            batch: Largest number of tasks in a batch.

        Raises:
            EditLoopError: The editor cannot take a task. Nothing is encoded then.
        """
        check_rows(editor, rows)
        self.steps, self.guidance, self.batch = steps, guidance, batch
        self.cases = [_case(row, editor) for row in rows]
        self.period = 1
        """Side, in pixels, of the image patch of one of the network's tokens; 1 until `edits` has run."""
        self._parts: list[tuple[Size, list[int], Conditioning]] = []
        with editor.encoders_at_hand():
            sources, references = ([getattr(case, name) for case in self.cases] for name in ("source", "references"))
            for sizes, places in group_by_size(sources, references).items():
                for start in range(0, len(places), batch):
                    part = places[start : start + batch]
                    instructions = [self.cases[at].instruction for at in part]
                    condition = encode_tasks(
                        editor, instructions, [sources[at] for at in part], [references[at] for at in part]
                    )
                    self._parts.append((sizes.source, part, condition.to("cpu")))

    @torch.no_grad()
    def edits(self, editor: Editor, number: int = 0, most: int | None = None) -> list[Picture]:
        """Make one edit of each task.

        Args:
            editor: The editor.
            number: Number of the edit, from 0; each number has noise of its own.
            most: Edit only the first `most` tasks; None for all.

        Returns:
            The edits, in the tasks' order.
        """
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
            chosen = condition.select(torch.tensor(positions)).to(editor.device)
            x = integrate(editor, start, chosen, sigmas, self.guidance)
            edits_by_index |= dict(zip([indices[at] for at in positions], editor.decode(x, size), strict=True))
        return [edits_by_index[at] for at in range(count)]


def held_out_noise_seed(task: str, number: int) -> int:
    """Return the seed of the initial noise of an edit of a held-out task.

    Args:
        task: The task's id.
        number: Number of the edit, from 0.
    """
    return int(sha256_json(["held-out", task, number])[:15], 16)


def judge_scores(judge: Judge, cases: Sequence[EvaluationTask], edits: Sequence[Picture]) -> NDArray[np.float64]:
    """Score one edit per task by a judge's reward.

    Args:
        judge: The judge.
        cases: T tasks.
        edits: One edit per task.

    Returns:
        The rewards, (T,), 0..1; NaN where the score is missing.

    Raises:
        JudgeUnavailableError: The judge cannot be reached.
    """
    groups = [
        EditGroup(case.instruction, case.source, [edit], case.id, case.references)
        for case, edit in zip(cases, edits, strict=True)
    ]
    rewards = [score.reward for score in score_in_chunks(judge, groups)]
    return np.array([np.nan if reward is None or not np.isfinite(reward) else reward for reward in rewards])


def oracle_view(cases: Sequence[EvaluationTask], edits: Sequence[Picture]) -> Oracle:
    """Score one edit per task by the oracle.

    Args:
        cases: T tasks; each must have its right result.
        edits: One edit per task.

    Returns:
        The scores, (T,) on each axis.
    """
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
    target = None if row.target is None else resampled(load_image(row.target), size)
    references = working_references(editor, load_images(row.references))
    return EvaluationTask(row.id, row.instruction, source, target, references)

"""A training under watch: at each evaluation held-out tasks are edited, measured, shown, and ruled on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annotation.formats.edits_file import EditRow
from components.editor_rl.settings import RlSettings


@dataclass(frozen=True)
class Verdict:
    """What an evaluation says to the loop."""

    stop: bool
    best: bool
    """Whether the editor as it was looked at is the best so far: its checkpoint is kept."""
    reason: str
    """Why the training is stopped, in a sentence; empty where it goes on."""
    best_iteration: int
    figures: dict[str, float] = field(default_factory=dict)
    """What was measured, by name: for the curves, and for the progress line (`reward`)."""


class Watch:
    """Rank 0's alone. What it has seen lies in `folder`, so that a stopped training goes on with it."""

    def __init__(
        self, rows: Sequence[EditRow], settings: RlSettings, *, rewards: Mapping[str, float],
        judges: Mapping[str, Any], watch: Sequence[str], folder: Path, output: Path, through: int,
    ):  # fmt: skip
        """rows: the held-out tasks (`set_aside`), the first `evaluation_tasks` are looked at. rewards: address and
        weight of the judges that teach; judges: those of them that are open already, by address. watch: addresses of
        judges that do not teach; `oracle` where every row has a target. folder: beside the checkpoints. output: gets
        `evaluations.json`, `page.html` and `sheets/`. through: the iteration that is gone on from, what was seen later
        is forgotten.

        EditLoopError where a judge cannot be opened, or is one that teaches under another address.
        """

    def look(self, iteration: int, editor: Any, training: Mapping[str, float]) -> Verdict:
        """Evaluate the editor as its weights are now (the average, swapped in by the caller), after `iteration`
        iterations; 0 is before the first. training: means since the look before: `reward`, `kl`, `ratio`, `clipped`,
        `missing`, `silent_groups` and what else there is."""
        raise NotImplementedError


def set_aside(rows: Sequence[EditRow], tasks: int, seed: int) -> tuple[list[EditRow], list[EditRow]]:
    """Rows to practise, and about `tasks` (a quarter of all, at most) to look at in evaluations: no source picture is
    in both."""
    raise NotImplementedError

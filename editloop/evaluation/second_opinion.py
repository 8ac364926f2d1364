"""Independent judges of a tuned editor: a reward model that did not train it, or people who saw both editors' edits."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from editloop.data.edits_file import EditRow
from editloop.data.picture_file import load_images
from editloop.errors import EditLoopError
from editloop.evaluation.clusters import clusters_of_rows
from editloop.evaluation.gates.decision import Agreement
from editloop.evaluation.gates.settings import IndependentJudge
from editloop.models.judge_protocol import EditGroup, Judge
from editloop.scoring.chunks import score_in_chunks
from editloop.scoring.opening import open_judge
from editloop.text_file import file_bytes

PEOPLE = "verdicts:"
"""Prefix of a judge that is a file of people's verdicts."""
PREFERENCES = {"left": -1.0, "right": 1.0, "tie": 0.0, "both_bad": 0.0}
"""People's words for a pair of base (left) and tuned (right) edits, as preferences: +1 prefers the tuned editor."""
Pictures = Sequence[NDArray[np.uint8]]
"""One image per task, (height, width, 3) each."""


def second_opinions(
    gate_judges: Sequence[IndependentJudge], rows: Sequence[EditRow], reward_sha256: str
) -> "list[JudgeOpinion | HumanOpinion]":
    """Open the independent judges that a gate names.

    Args:
        gate_judges: The gate's judges.
        rows: All held-out tasks.
        reward_sha256: Version of the reward model that trained the editor; a judge of this version has no vote.

    Raises:
        EditLoopError: A judge cannot be opened, or a file of verdicts is faulty.
    """
    return [
        HumanOpinion(gate_judge, rows, Path(gate_judge.judge.removeprefix(PEOPLE)))
        if gate_judge.judge.startswith(PEOPLE)
        else JudgeOpinion(gate_judge, rows, open_judge(gate_judge.judge), reward_sha256)
        for gate_judge in gate_judges
    ]


class JudgeOpinion:
    """The opinion of a reward model: it prefers the edit that it scores higher."""

    def __init__(self, gate_judge: IndependentJudge, rows: Sequence[EditRow], judge: Judge, reward_sha256: str):
        """Prepare for the first `gate_judge.tasks` tasks.

        Args:
            gate_judge: The judge's settings in the gate.
            rows: All held-out tasks.
            judge: The opened judge.
            reward_sha256: Version of the reward model that trained the editor.
        """
        self.gate_judge, self.judge, self.trained_it = gate_judge, judge, judge.version == reward_sha256
        self.clusters = clusters_of_rows(rows[: gate_judge.tasks])
        self.preferences = np.full(len(self.clusters), np.nan)

    def observe(self, start: int, rows: Sequence[EditRow], sources: Pictures, base: Pictures, tuned: Pictures) -> None:
        """Score both edits of each task, as far as `gate_judge.tasks` reaches. What the judge refuses is missing.

        Args:
            start: Index of the first of these tasks among all held-out tasks.
            rows: The tasks.
            sources: Their source images, one per task.
            base: The base editor's edits, one per task.
            tuned: The tuned editor's edits, one per task.

        Raises:
            JudgeUnavailableError: The judge cannot be reached.
        """
        groups = [
            EditGroup(row.instruction, source, pair, row.id, load_images(row.references))
            for row, source, *pair in zip(rows, sources, base, tuned, strict=True)
        ][: max(0, self.gate_judge.tasks - start)]
        scores = score_in_chunks(self.judge, groups)
        for offset, (of_base, of_tuned) in enumerate(zip(scores[::2], scores[1::2], strict=True)):
            if of_base.overall is not None and of_tuned.overall is not None:
                self.preferences[start + offset] = np.sign(of_tuned.overall - of_base.overall)

    def agreement(self) -> Agreement:
        """Return all preferences so far; NaN for tasks without both scores."""
        return Agreement(self.gate_judge, self.preferences, self.clusters, self.trained_it)


class HumanOpinion:
    """The opinion of people, from a file of verdicts."""

    def __init__(self, gate_judge: IndependentJudge, rows: Sequence[EditRow], file: Path):
        """Read the verdicts.

        Args:
            gate_judge: The judge's settings in the gate.
            rows: All held-out tasks.
            file: The verdicts, as for `read_preferences`; their keys are row ids.

        Raises:
            EditLoopError: The file is missing or faulty, or a key is not the id of a held-out task.
        """
        preferences = read_preferences(file)
        unknown = sorted(preferences.keys() - {row.id for row in rows})
        if unknown:
            raise EditLoopError(
                f"{file}: {unknown[0]!r} is no held-out task ({len(unknown)} such keys); keys are row ids."
            )
        judged_rows = [row for row in rows if row.id in preferences]
        self.gate_judge = gate_judge
        self.clusters = clusters_of_rows(judged_rows)
        self.preferences = np.array([preferences[row.id] for row in judged_rows])

    def observe(self, start: int, rows: Sequence[EditRow], sources: Pictures, base: Pictures, tuned: Pictures) -> None:
        """Do nothing: people have seen the edits already.

        Args:
            start: Not used.
            rows: Not used.
            sources: Not used.
            base: Not used.
            tuned: Not used.
        """

    def agreement(self) -> Agreement:
        """Return the preferences of the file."""
        return Agreement(self.gate_judge, self.preferences, self.clusters, trained_it=False)


def read_preferences(file: Path) -> dict[str, float]:
    """Read people's preferences from JSON lines {"key", "verdict"}.

    Args:
        file: The file; `verdict` is one of PREFERENCES.

    Returns:
        The preference of each key: +1 for right, -1 for left, 0 for neither.

    Raises:
        EditLoopError: There is no such file, or it has faulty lines: no JSON, an unknown verdict, or a repeated key.
            The message names the first 20.
    """
    if not file.is_file():
        raise EditLoopError(
            f"{file}: no such file; a gate's verdicts:FILE holds a JSON object a line, key and verdict."
        )
    preferences: dict[str, float] = {}
    faults = []
    try:
        lines = file_bytes(file).decode().split("\n")
    except (OSError, ValueError) as error:
        raise EditLoopError(f"{file}: no file of JSON lines in UTF-8 ({error}).") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
            key, verdict = str(row["key"]), row["verdict"]
            if verdict not in PREFERENCES:
                faults.append(f"line {number}: verdict {verdict!r}; one of {', '.join(PREFERENCES)}")
            elif key in preferences:
                faults.append(f"line {number}: key {key!r} came before")
            else:
                preferences[key] = PREFERENCES[verdict]
        except (ValueError, KeyError, TypeError, RecursionError):
            faults.append(f"line {number}: not a JSON object with key and verdict")
    if faults:
        raise EditLoopError("\n".join([f"{file}: {len(faults)} fault(s).", *faults[:20]]))
    return preferences

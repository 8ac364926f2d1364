"""Who else judges a tuned editor: a reward model that did not teach it, or people who saw both editors' edits."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from editloop.content import sha256_file
from editloop.data.edits_file import EditRow
from editloop.errors import EditLoopError
from editloop.evaluation.gates.decision import Agreement
from editloop.evaluation.gates.settings import IndependentJudge
from editloop.models.judge_protocol import EditGroup, Judge
from editloop.scoring.opening import open_judge

PEOPLE = "verdicts:"
PREFERENCES = {"left": -1.0, "right": 1.0, "tie": 0.0, "both_bad": 0.0}
"""People's words for a pair of base (left) and tuned (right): +1 is for the tuned editor."""
Pictures = Sequence[NDArray[np.uint8]]
"""A picture a task, each (height, width, 3)."""


class SecondOpinion(Protocol):
    """An opinion in the making: shown the edits part by part."""

    def observe(self, start: int, rows: Sequence[EditRow], sources: Pictures, base: Pictures, tuned: Pictures) -> None:
        """Look at the edits of the tasks from place `start` on; a picture of each a task."""
        ...

    def agreement(self) -> Agreement:
        """All that it said."""
        ...


def second_opinions(
    gate_judges: Sequence[IndependentJudge], rows: Sequence[EditRow], reward_sha256: str
) -> list[SecondOpinion]:
    """The judges that a gate names, opened. teacher: content address of the editor's own reward model."""
    return [
        HumanOpinion(gate_judge, rows, Path(gate_judge.judge.removeprefix(PEOPLE)))
        if gate_judge.judge.startswith(PEOPLE)
        else JudgeOpinion(gate_judge, rows, open_judge(gate_judge.judge), reward_sha256)
        for gate_judge in gate_judges
    ]


class JudgeOpinion:
    """A reward model's: which of the two edits it scores higher."""

    def __init__(self, gate_judge: IndependentJudge, rows: Sequence[EditRow], judge: Judge, reward_sha256: str):
        self.gate_judge, self.judge, self.trained_it = gate_judge, judge, judge.version == reward_sha256
        self.clusters = tuple(sha256_file(row.source) for row in rows[: gate_judge.tasks])
        self.preferences = np.full(len(self.clusters), np.nan)

    def observe(self, start: int, rows: Sequence[EditRow], sources: Pictures, base: Pictures, tuned: Pictures) -> None:
        """Score both edits of those of the tasks that it is asked about."""
        groups = [
            EditGroup(row.instruction, source, pair, row.id)
            for row, source, *pair in zip(rows, sources, base, tuned, strict=True)
        ][: max(0, self.gate_judge.tasks - start)]
        for offset, (of_base, of_tuned) in enumerate(self.judge.judge(groups) if groups else []):
            if of_base.overall is not None and of_tuned.overall is not None:
                self.preferences[start + offset] = np.sign(of_tuned.overall - of_base.overall)

    def agreement(self) -> Agreement:
        """Its preferences so far."""
        return _agreement(self.gate_judge, self.preferences, self.clusters, self.trained_it)


class HumanOpinion:
    """People's, from a file: they have seen the edits already."""

    def __init__(self, gate_judge: IndependentJudge, rows: Sequence[EditRow], file: Path):
        preferences = read_preferences(file)
        unknown = sorted(preferences.keys() - {row.id for row in rows})
        if unknown:
            raise EditLoopError(
                f"{file}: {unknown[0]!r} is no held-out task ({len(unknown)} such keys); keys are row ids."
            )
        judged_rows = [row for row in rows if row.id in preferences]
        self.gate_judge = gate_judge
        self.clusters = tuple(sha256_file(row.source) for row in judged_rows)
        self.preferences = np.array([preferences[row.id] for row in judged_rows])

    def observe(self, start: int, rows: Sequence[EditRow], sources: Pictures, base: Pictures, tuned: Pictures) -> None:
        """Nothing to see: the verdicts are given."""

    def agreement(self) -> Agreement:
        """What the file holds."""
        return _agreement(self.gate_judge, self.preferences, self.clusters, trained_it=False)


def read_preferences(file: Path) -> dict[str, float]:
    """Key and preference (+1 for right, -1 for left, 0 for neither) of JSON lines {"key", "verdict"}.

    EditLoopError that lists every faulty line: no JSON, an unknown verdict, a key that comes twice.
    """
    if not file.is_file():
        raise EditLoopError(
            f"{file}: no such file; a gate's verdicts:FILE holds a JSON object a line, key and verdict."
        )
    preferences: dict[str, float] = {}
    faults = []
    for number, line in enumerate(file.read_text().splitlines(), start=1):
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
        except (ValueError, KeyError, TypeError):
            faults.append(f"line {number}: not a JSON object with key and verdict")
    if faults:
        raise EditLoopError("\n".join([f"{file}: {len(faults)} fault(s).", *faults[:20]]))
    return preferences


def _agreement(
    gate_judge: IndependentJudge, preferences: NDArray[np.float64], clusters: tuple[str, ...], trained_it: bool
) -> Agreement:
    return Agreement(
        judge=gate_judge.judge,
        asked_for=gate_judge.agree,
        margin=gate_judge.margin,
        minimum=gate_judge.minimum,
        preferences=preferences,
        clusters=clusters,
        trained_it=trained_it,
    )

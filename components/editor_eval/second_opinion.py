"""Who else judges a tuned editor: a reward model that did not teach it, or people who saw both editors' edits."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from annotation.formats.edits_file import EditRow
from components.gates.decision import Agreement
from components.gates.settings import IndependentJudge
from components.judges.opening import open_judge
from components.judges.protocol import EditGroup, Judge
from infra.content import sha256_file
from infra.errors import EditLoopError

PEOPLE = "verdicts:"
PREFERENCES = {"left": -1.0, "right": 1.0, "tie": 0.0, "both_bad": 0.0}
"""People's words for a pair of base (left) and tuned (right): +1 is for the tuned editor."""
Pictures = Sequence[NDArray[np.uint8]]
"""A picture a task, each (height, width, 3)."""


class SecondOpinion(Protocol):
    """An opinion in the making: shown the edits part by part."""

    def see(self, start: int, rows: Sequence[EditRow], sources: Pictures, base: Pictures, tuned: Pictures) -> None:
        """Look at the edits of the tasks from place `start` on; a picture of each a task."""
        ...

    def said(self) -> Agreement:
        """All that it said."""
        ...


def second_opinions(asked: Sequence[IndependentJudge], rows: Sequence[EditRow], teacher: str) -> list[SecondOpinion]:
    """The judges that a gate names, opened. teacher: content address of the editor's own reward model."""
    return [
        PeoplesOpinion(one, rows, Path(one.judge.removeprefix(PEOPLE)))
        if one.judge.startswith(PEOPLE)
        else JudgesOpinion(one, rows, open_judge(one.judge), teacher)
        for one in asked
    ]


class JudgesOpinion:
    """A reward model's: which of the two edits it scores higher."""

    def __init__(self, asked: IndependentJudge, rows: Sequence[EditRow], judge: Judge, teacher: str):
        self.asked, self.judge, self.trained_it = asked, judge, judge.version == teacher
        self.clusters = tuple(sha256_file(row.source) for row in rows[: asked.tasks])
        self.preferences = np.full(len(self.clusters), np.nan)

    def see(self, start: int, rows: Sequence[EditRow], sources: Pictures, base: Pictures, tuned: Pictures) -> None:
        """Score both edits of those of the tasks that it is asked about."""
        groups = [
            EditGroup(row.instruction, source, pair, row.id)
            for row, source, *pair in zip(rows, sources, base, tuned, strict=True)
        ][: max(0, self.asked.tasks - start)]
        for place, (of_base, of_tuned) in enumerate(self.judge.judge(groups) if groups else []):
            if of_base.overall is not None and of_tuned.overall is not None:
                self.preferences[start + place] = np.sign(of_tuned.overall - of_base.overall)

    def said(self) -> Agreement:
        """Its preferences so far."""
        return _agreement(self.asked, self.preferences, self.clusters, self.trained_it)


class PeoplesOpinion:
    """People's, from a file: they have seen the edits already."""

    def __init__(self, asked: IndependentJudge, rows: Sequence[EditRow], file: Path):
        found = read_preferences(file)
        strange = sorted(found.keys() - {row.id for row in rows})
        if strange:
            raise EditLoopError(
                f"{file}: {strange[0]!r} is no held-out task ({len(strange)} such keys); keys are row ids."
            )
        told = [row for row in rows if row.id in found]
        self.asked = asked
        self.clusters = tuple(sha256_file(row.source) for row in told)
        self.preferences = np.array([found[row.id] for row in told])

    def see(self, start: int, rows: Sequence[EditRow], sources: Pictures, base: Pictures, tuned: Pictures) -> None:
        """Nothing to see: the verdicts are given."""

    def said(self) -> Agreement:
        """What the file holds."""
        return _agreement(self.asked, self.preferences, self.clusters, trained_it=False)


def read_preferences(file: Path) -> dict[str, float]:
    """Key and preference (+1 for right, -1 for left, 0 for neither) of JSON lines {"key", "verdict"}.

    EditLoopError that lists every faulty line: no JSON, an unknown verdict, a key that comes twice.
    """
    if not file.is_file():
        raise EditLoopError(
            f"{file}: no such file; a gate's verdicts:FILE holds a JSON object a line, key and verdict."
        )
    found: dict[str, float] = {}
    faults = []
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
            key, verdict = str(row["key"]), row["verdict"]
            if verdict not in PREFERENCES:
                faults.append(f"line {number}: verdict {verdict!r}; one of {', '.join(PREFERENCES)}")
            elif key in found:
                faults.append(f"line {number}: key {key!r} came before")
            else:
                found[key] = PREFERENCES[verdict]
        except (ValueError, KeyError, TypeError):
            faults.append(f"line {number}: not a JSON object with key and verdict")
    if faults:
        raise EditLoopError("\n".join([f"{file}: {len(faults)} fault(s).", *faults[:20]]))
    return found


def _agreement(
    asked: IndependentJudge, preferences: NDArray[np.float64], clusters: tuple[str, ...], trained_it: bool
) -> Agreement:
    return Agreement(
        judge=asked.judge, asked_for=asked.agree, margin=asked.margin, minimum=asked.minimum, preferences=preferences,
        clusters=clusters, trained_it=trained_it,
    )  # fmt: skip

"""What a judge says of a suite. Answers are kept as they come, so that a stopped call goes on where it was.

`answers.jsonl` has a line an edit that was asked, with the judge's numbers and its own words; `judge.json` says whose
they are. An edit that several items ask alike (one pair on three dimensions) is asked once.
"""

import fcntl
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedRandom
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from components.judges.dividing import judged
from components.judges.protocol import EditGroup, Judge, Score
from components.judges.soundness import sound
from components.suites.suite import AxisName, Item, Label, PictureAt, Suite, decoded
from infra.content import sha256_json, write_json
from infra.errors import EditLoopError

ANSWERS, JUDGE = "answers.jsonl", "judge.json"
EDITS_A_CALL = 64
MEGAPIXELS_A_CALL = 64
"""Millions of decoded pixels, at 3 MB each, that a call may hold."""
AXES: dict[AxisName, tuple[str, ...]] = {
    "prompt_following": ("prompt_following", "if"),
    "consistency": ("consistency", "vq"),
    "overall": (),
}
"""A suite's axes by the names that judges give them: EditScore's own, then EditReward's heads."""


@dataclass(frozen=True)
class Answers:
    """Scores of edits, or verdicts on comparisons; one of the two."""

    judge: dict[str, Any]
    """{"name", "version"}: who answered, by content."""
    scores: Mapping[str, NDArray[np.float64]] | None = None
    """By item, (K,) on the item's axis, NaN where a reply is missing."""
    verdicts: Mapping[str, Label | None] | None = None
    """By comparison; None, or no entry, where a reply is missing."""
    reasons: dict[str, int] = field(default_factory=dict)
    """How often each reason for a missing score came."""


@dataclass(frozen=True)
class _Question:
    """Edits of one source and instruction that were not asked yet."""

    item: Item
    edits: tuple[PictureAt, ...]

    def group(self) -> EditGroup:
        assert self.item.source is not None
        return EditGroup(
            self.item.instruction, decoded(self.item.source), [decoded(one) for one in self.edits], self.item.key
        )


def judge_suite(suite: Suite, judge: Judge, folder: Path) -> Answers:
    """Ask the judge all of a suite. Its answers are kept in `folder` as they come; a stopped call goes on there.

    An edit that the judge refuses, or gives no finite score, is missing, with the reason. Suites may share a folder: an
    edit that both have is asked once. EditLoopError for a suite without images, an axis that the judge does not have,
    or a folder with answers of another judge; JudgeUnavailableError where the judge is away: what is done is kept.
    """
    if not suite.has_images:
        raise EditLoopError(f"suite {suite.name}: without its pictures (--data) only saved answers can be measured.")
    axes = {axis: _axis(axis, judge) for axis in dict.fromkeys(item.axis for item in suite.items)}
    facts = {"judge": judge.name, "version": judge.version}
    with _kept(folder, facts) as stream:
        known = _read(stream, folder / ANSWERS)
        asked = {name for item in suite.items for name in _names(item)}
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[missing]} missing"), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, transient=True, console=Console(stderr=True)) as progress:
            missing = sum(bool(known[name]["missing"]) for name in asked & known.keys())
            bar = progress.add_task(
                f"{judge.name} is asked {suite.name}", total=len(asked), completed=len(asked & known.keys()),
                missing=missing,
            )  # fmt: skip
            for questions, groups in _calls(suite.items, set(known)):
                lines = _lines(questions, judged(judge, groups), judge)
                stream.write(b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines))
                stream.flush()
                known |= {line["edit"]: line for line in lines}
                missing += sum(bool(line["missing"]) for line in lines)
                progress.update(bar, advance=len(lines), missing=missing)
    reasons = Counter(known[name]["missing"] for name in asked if known[name]["missing"])
    scores = {item.key: np.array([_value(known[one], axes[item.axis]) for one in _names(item)]) for item in suite.items}
    return Answers({"name": judge.name, "version": judge.version}, scores, reasons=dict(reasons.most_common()))


def _axis(axis: AxisName, judge: Judge) -> str:
    """The judge's own name of a suite's axis; empty for its overall score."""
    if axis == "overall":
        return ""
    found = [name for name in AXES[axis] if name in judge.axes]
    if not found:
        raise EditLoopError(
            f"{judge.name} has no axis for {axis}; it scores {', '.join(judge.axes)}, and {axis} is read from "
            f"{' or '.join(AXES[axis])}."
        )
    return found[0]


def _names(item: Item) -> list[str]:
    """What each edit is kept under: source, instruction and edit, by content."""
    assert item.source is not None
    return [sha256_json([item.source.sha256, item.instruction, one.sha256])[:32] for one in item.edits]


def _calls(items: Sequence[Item], known: set[str]) -> Iterator[tuple[list[_Question], list[EditGroup]]]:
    """The edits that are not known, some questions a call, with their pictures."""
    questions, groups, edits, pixels = list[_Question](), list[EditGroup](), 0, 0
    for item in items:
        new = {name: edit for name, edit in zip(_names(item), item.edits, strict=True) if name not in known}
        known |= new.keys()
        for start in range(0, len(new), EDITS_A_CALL):
            question = _Question(item, tuple(new.values())[start : start + EDITS_A_CALL])
            group = question.group()
            questions.append(question)
            groups.append(group)
            edits += len(group.edits)
            pixels += group.source[..., 0].size + sum(one[..., 0].size for one in group.edits)
            if edits >= EDITS_A_CALL or pixels >= MEGAPIXELS_A_CALL * 1_000_000:
                yield questions, groups
                questions, groups, edits, pixels = [], [], 0, 0
    if questions:
        yield questions, groups


def _lines(questions: Sequence[_Question], scores: Sequence[Score], judge: Judge) -> list[dict[str, Any]]:
    asked = [(question.item, edit) for question in questions for edit in question.edits]
    lines = []
    for (item, edit), given in zip(asked, scores, strict=True):
        score = sound(given, judge.axes)
        assert item.source is not None
        lines.append(
            {
                "edit": sha256_json([item.source.sha256, item.instruction, edit.sha256])[:32],
                "item": item.key,
                "source_sha256": item.source.sha256,
                "edit_sha256": edit.sha256,
                "axes": {name: [axis.mean, axis.sigma] for name, axis in score.axes.items()},
                "overall": score.overall,
                "missing": score.missing,
                "answers": list(score.answers),
            }
        )
    return lines


def _value(line: dict[str, Any], axis: str) -> float:
    if line["missing"]:
        return math.nan
    return float(line["axes"][axis][0] if axis else line["overall"])


@contextmanager
def _kept(folder: Path, facts: dict[str, Any]) -> Iterator[BufferedRandom]:
    """The file of answers, held by this call alone. EditLoopError where it is another's."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ANSWERS).open("a+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EditLoopError(f"{folder}: another call is writing there; wait for it or stop it.") from None
        told = folder / JUDGE
        if told.is_file():
            found = json.loads(told.read_text())
            if differing := [key for key in facts if found.get(key) != facts[key]]:
                raise EditLoopError(
                    f"{folder} holds answers of something else ("
                    + "; ".join(f"{key} {found.get(key)} there, {facts[key]} now" for key in differing)
                    + "). They are not mixed: give another folder, or remove it."
                )
        else:
            write_json(told, facts)
        yield stream


def _read(stream: BufferedRandom, path: Path) -> dict[str, dict[str, Any]]:
    """The answers that are there; a last line that a kill cut short is taken off the file."""
    stream.seek(0)
    found, whole = {}, 0
    for number, raw in enumerate(stream, 1):
        if not raw.endswith(b"\n"):
            break
        try:
            line = json.loads(raw)
            found[str(line["edit"])] = line
        except (ValueError, KeyError, TypeError):
            raise EditLoopError(f"{path}: line {number} is no answer; remove the folder and ask again.") from None
        whole += len(raw)
    stream.truncate(whole)
    return found

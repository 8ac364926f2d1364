"""The result of an editor on a benchmark: its facts, the numbers of each edit, and what it may be compared with.

`report.json` has the facts and all figures, `edits.jsonl` a line an edit, `page.html` both for people.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, JsonValue, TypeAdapter

from editloop.content import write_file
from editloop.errors import EditLoopError
from editloop.evaluation.editor_suites.editing import EditorSampling, edit_file, edit_seed
from editloop.evaluation.editor_suites.figures import (
    ScoredEdit,
    TableFigures,
    figure_changes,
    figure_names,
    figures_of_score,
    suite_figures,
)
from editloop.evaluation.editor_suites.tasks import EditorSuite
from editloop.evaluation.outcomes import Outcomes
from editloop.evaluation.suites.answers import edit_key, judge_items
from editloop.evaluation.suites.faults import raise_faults
from editloop.evaluation.suites.pictures import PictureLoader
from editloop.evaluation.suites.ratios import RatioEstimate
from editloop.evaluation.suites.suite import Item
from editloop.models.judge_protocol import Judge, JudgeWording, describe_wording, wording_of
from editloop.settings_file import FrozenModel
from editloop.text_file import file_bytes

REPORT, EDITS = "report.json", "edits.jsonl"


class EditorFacts(FrozenModel):
    """The editor of a result."""

    name: str
    version: str = ""
    """Content address; empty where the edits were imported."""
    sampling: EditorSampling | None = None
    """None where the edits were imported."""

    def describe(self) -> str:
        """Return the name in words, with version and sampling where the edits were made here."""
        if self.sampling is None:
            return self.name
        return f"{self.name} ({self.version[:12]}, {self.sampling.describe()})"


class WordingFacts(FrozenModel):
    """The texts that a judge reads around an edit, see `JudgeWording`."""

    sha256: str
    is_substitute: bool


class JudgeFacts(FrozenModel):
    """The judge of a result."""

    name: str
    version: str
    wording: WordingFacts | None = None

    def describe(self) -> str:
        """Return name, version and wording in words."""
        texts = self.wording and JudgeWording(self.wording.sha256, self.wording.is_substitute)
        wording = f"wording {describe_wording(texts)}" if texts else "no wording known"
        return f"{self.name} {self.version[:12]}, {wording}"


class ResultFacts(BaseModel, frozen=True):
    """What a result is a result of. Files have its figures beside it."""

    suite: str
    suite_sha256: str
    editor: EditorFacts
    judge: JudgeFacts
    figures: tuple[str, ...]
    """Names of the figures; the last is the one that editors are compared by."""


class EditorResult(NamedTuple):
    """An editor's scored edits of a benchmark."""

    facts: ResultFacts
    edits: tuple[ScoredEdit, ...]

    def figures(self, seed: int = 0) -> dict[str, TableFigures]:
        """Return all figures by table.

        Args:
            seed: Seed of the intervals' resampling.
        """
        return suite_figures(self.edits, self.facts.figures, seed=seed)

    def missing_reasons(self) -> dict[str, int]:
        """Return the number of edits without a score, by reason."""
        return dict(Counter(edit.missing for edit in self.edits if edit.missing).most_common())


def judge_edits(suite: EditorSuite, editor: EditorFacts, images: Path, judge: Judge, answers: Path) -> EditorResult:
    """Score the edits of a benchmark. A task without an edit is missing.

    Args:
        suite: The benchmark.
        editor: Who made the edits.
        images: Folder of the edits.
        judge: The judge.
        answers: Folder in which scores are saved as they come. A stopped call resumes from it.

    Raises:
        EditLoopError: An edit is a broken image, or the folder of answers has those of another judge.
        JudgeUnavailableError: The judge cannot be reached. Scores so far are kept.
    """
    loader, items = PictureLoader(images), dict[str, Item]()
    try:
        for task in suite.tasks:
            picture = loader.file(f"{task.key}.png", task.key) if edit_file(images, task).is_file() else None
            if picture is not None:
                items[task.key] = Item(
                    key=task.key,
                    cluster=task.source,
                    slice=task.task,
                    instruction=task.instruction,
                    candidates=("edit",),
                    source=task.source,
                    edits=(picture,),
                    edits_at_source_size=suite.edits_at_source_size,
                )
    finally:
        faults = loader.close()
    raise_faults(faults, str(images))
    lines = judge_items(list(items.values()), judge, answers, f"{judge.name} is asked {suite.name}")
    edits = []
    for task in suite.tasks:
        seed = None if editor.sampling is None else edit_seed(editor.sampling.seed, task.key)
        numbers, missing, sha256, reward = dict[str, float](), "no edit", "", None
        if task.key in items:
            item = items[task.key]
            line, sha256 = lines[edit_key(item, item.edits[0])], item.edits[0].sha256
            missing = str(line["missing"])
            if not missing:
                axis_means = {axis: float(line["axes"][axis][0]) for axis in judge.axes}
                numbers = figures_of_score(axis_means, float(line["fused"]), float(line["overall"]))
                reward = None if line.get("reward") is None else float(line["reward"])
        edits.append(
            ScoredEdit(task.key, task.source.sha256, task.task, task.tables, seed, numbers, missing, sha256, reward)
        )
    texts = wording_of(judge)
    wording = WordingFacts(sha256=texts.sha256, is_substitute=texts.is_substitute) if texts else None
    judge_facts = JudgeFacts(name=judge.name, version=judge.version, wording=wording)
    facts = ResultFacts(
        suite=suite.name,
        suite_sha256=suite.sha256,
        editor=editor,
        judge=judge_facts,
        figures=figure_names(judge.axes),
    )
    return EditorResult(facts, tuple(edits))


def compare_results(new: EditorResult, old: EditorResult, *, seed: int = 0) -> dict[str, TableFigures]:
    """Return the changes from one editor to another, with paired intervals, by table.

    Args:
        new: The result of one editor.
        old: The result of the other.
        seed: Seed of the intervals' resampling.

    Raises:
        EditLoopError: The two are of other benchmarks, judges or wordings: then scores do not compare.
    """
    if new.facts.suite_sha256 != old.facts.suite_sha256:
        raise EditLoopError(
            f"{new.facts.editor.name} and {old.facts.editor.name} are not compared: {new.facts.suite} "
            f"{new.facts.suite_sha256[:12]} and {old.facts.suite} {old.facts.suite_sha256[:12]} have other tasks."
        )
    if new.facts.judge != old.facts.judge:
        raise EditLoopError(
            f"{new.facts.editor.name} and {old.facts.editor.name} are not compared: they were scored by "
            f"{new.facts.judge.describe()} and by {old.facts.judge.describe()}. Scores compare only where judge and "
            "wording are the same; score the edits of both with one judge (--images takes those that are there)."
        )
    return figure_changes(new.edits, old.edits, new.facts.figures, seed=seed)


def result_outcomes(result: EditorResult) -> Outcomes:
    """Return the judge's rewards as outcomes for a gate. An edit without one counts as 0, and as missing.

    Args:
        result: The result.
    """
    edits = result.edits
    return Outcomes(
        result.facts.suite,
        tuple(edit.key for edit in edits),
        tuple(edit.cluster for edit in edits),
        tuple(edit.task for edit in edits),
        np.array([edit.reward or 0.0 for edit in edits]),
        np.array([edit.reward is None for edit in edits], dtype=bool),
    )


def write_edit_rows(result: EditorResult, folder: Path) -> None:
    """Write `edits.jsonl`: a line for each edit, with its numbers and the seed of its noise.

    Args:
        result: The result.
        folder: The folder.
    """
    lines = [json.dumps(asdict(edit), ensure_ascii=False) + "\n" for edit in result.edits]
    write_file(folder / EDITS, "".join(lines))


def read_result(folder: Path) -> EditorResult:
    """Read the result that an earlier call wrote.

    Args:
        folder: Its folder.

    Raises:
        EditLoopError: There is no complete result in it.
    """
    try:
        facts = ResultFacts.model_validate_json(file_bytes(folder / REPORT))
        lines = filter(None, file_bytes(folder / EDITS).decode().split("\n"))
        edits = tuple(_SCORED_EDIT.validate_json(line) for line in lines)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise EditLoopError(
            f"{folder}: no result of `editloop benchmark-editor` ({reason}). Give the folder that it printed."
        ) from None
    return EditorResult(facts, edits)


_SCORED_EDIT = TypeAdapter(ScoredEdit)


def tables_json(tables: dict[str, TableFigures]) -> dict[str, JsonValue]:
    """Return figures as JSON values.

    Args:
        tables: The figures by table.
    """
    return {
        name: {
            "average": _estimates_json(table.average.items()),
            "by_task": {
                task: {
                    "edits": table.edits[task],
                    "missing": table.missing[task],
                    **_estimates_json(figures.items()),
                }
                for task, figures in table.by_task.items()
            },
        }
        for name, table in tables.items()
    }


def _estimates_json(estimates: Iterable[tuple[str, RatioEstimate]]) -> dict[str, JsonValue]:
    return {
        name: {"value": estimate.value, "ci95": None if estimate.ci95 is None else [*estimate.ci95]}
        for name, estimate in estimates
    }

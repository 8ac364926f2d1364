"""A training under watch: at each evaluation held-out tasks are edited, measured, shown, and ruled on."""

import json
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from editloop.content import write_file, write_json
from editloop.data.edits_file import EditRow
from editloop.data.picture_size import Picture
from editloop.errors import EditLoopError
from editloop.evaluation.editors import ORACLE, EvaluationTask, HeldOut, judge_scores, oracle_view
from editloop.models.editors.protocol import Editor
from editloop.models.judge_protocol import Judge, JudgeUnavailableError
from editloop.scoring.opening import open_judge
from editloop.training.editor_rl.guards import EvaluationScores, early_stopping_rule
from editloop.training.editor_rl.image_statistics import grid_texture, noise_dots
from editloop.training.editor_rl.live_files import LiveFiles
from editloop.training.editor_rl.measures import diversity, mean_interval, preservation
from editloop.training.editor_rl.page import training_page
from editloop.training.editor_rl.settings import RlSettings
from editloop.training.editor_rl.sheets import SHEETS, write_sheets

WATCHED, EVALUATIONS, PAGE = "watched", "evaluations.json", "page.html"
WATCHES = "watch_"
"""What the names of judges that do not teach begin with, in curves."""
GROUP_TASKS, GROUP_MEMBERS = 8, 4
"""Diversity is that of so many edits of each of so many tasks."""
PAGE_SECONDS = 30.0
"""Between two drawings of the page while the training goes on."""
Scores = NDArray[np.float64]


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


class Evaluator:
    """Rank 0's alone. What it has seen lies below `folder`, so that a stopped training goes on with it."""

    def __init__(
        self,
        rows: Sequence[EditRow],
        settings: RlSettings,
        *,
        rewards: Mapping[str, float],
        judges: Mapping[str, Judge],
        watch: Sequence[str],
        folder: Path,
        output: Path,
        through: int,
    ):
        """rows: the held-out tasks (`set_aside`), the first `evaluation_tasks` are looked at. rewards: address and
        weight of the judges that teach; judges: those of them that are open already, by address. watch: addresses of
        judges that do not teach; `oracle` where every row has a target. folder: that of the checkpoints. output: gets
        `evaluations.json`, `page.html` and `sheets/`. through: the iteration that is gone on from, what was seen later
        is forgotten.

        EditLoopError where a judge cannot be opened, or is one that teaches under another address.
        """
        self.rows, self.settings = list(rows[: settings.evaluation_tasks]), settings
        self.folder, self.output, self.live = folder / WATCHED, output, LiveFiles()
        self.rewards = dict(rewards)
        self.judges = dict(judges)
        for address in [*rewards, *watch]:
            if address == ORACLE:
                self._check_targets()
            elif address not in self.judges:
                self.judges[address] = open_judge(address)
        self.watching = {address: _label(address) for address in watch}
        self._check_independent()
        (self.folder / SHEETS).mkdir(parents=True, exist_ok=True)
        self.seen = [record for record in _read(self.folder / EVALUATIONS) if record["step"] <= through]
        self.held: HeldOut | None = None
        self.base: list[Picture] = []
        self.sheets: dict[str, str] = {}
        self.drawn = float("-inf")

    def evaluate(self, iteration: int, editor: Editor, training: Mapping[str, float]) -> Verdict:
        """Evaluate the editor as its weights are now (the average, swapped in by the caller), after `iteration`
        iterations; 0 is before the first. training: means since the look before: `reward`, `kl`, `ratio`, `clipped`,
        `missing`, `silent_groups` and what else there is.

        A judge that is away leaves its scores missing, and the training goes on.
        """
        held = self._held(editor)
        edits = held.edits(editor)
        scores = self._scores(held.cases, edits)
        record: dict[str, Any] = {
            "step": iteration,
            "training": {name: float(value) for name, value in training.items() if np.isfinite(value)},
            "scores": {name: _plain(values) for name, values in scores.items()},
        }
        figures = self._figures(held, editor, edits, scores)
        self.seen = [earlier for earlier in self.seen if earlier["step"] < iteration] + [record | {"figures": figures}]
        ruling = early_stopping_rule([self._told(evaluation) for evaluation in self.seen], self.settings.stop)
        self.seen[-1] |= {"best_iteration": ruling.best_iteration, "stopped": ruling.reason}
        self._show(held, edits)
        return Verdict(ruling.stop, ruling.best, ruling.reason, ruling.best_iteration, figures)

    def close(self) -> None:
        """Draw the page as it is at the end, and wait a moment for MLflow to get it. Every ending calls it."""
        if self.sheets:
            self._draw()
            shutil.copytree(self.folder, self.output, dirs_exist_ok=True)
        self.live.close()

    def _held(self, editor: Editor) -> HeldOut:
        if self.held is None:
            settings = self.settings
            self.held = HeldOut(
                self.rows, editor, steps=settings.steps, guidance=settings.guidance, batch=settings.micro_batch
            )
            with editor.base():
                self.base = self.held.edits(editor)
        return self.held

    def _scores(self, cases: Sequence[EvaluationTask], edits: Sequence[Picture]) -> dict[str, Scores]:
        """By label, (T,) each: `reward`, every judge that watches, and what the oracle sees where it can."""
        teaching = {address: self._score(address, cases, edits) for address in self.rewards}
        weights = np.array([self.rewards[address] for address in teaching])
        scores = {"reward": weights @ np.stack(list(teaching.values())) / weights.sum()}
        scores |= {label: self._score(address, cases, edits) for address, label in self.watching.items()}
        if all(case.wanted is not None for case in cases):
            view = oracle_view(cases, edits)
            scores |= {ORACLE: view.mean, "right": view.right.astype(float)}
        return scores

    def _score(self, address: str, cases: Sequence[EvaluationTask], edits: Sequence[Picture]) -> Scores:
        if address == ORACLE:
            return oracle_view(cases, edits).mean
        try:
            return judge_scores(self.judges[address], cases, edits)
        except JudgeUnavailableError as error:
            print(f"evaluation: {address} is away, its scores are missing: {error}", flush=True)
            return np.full(len(cases), np.nan)

    def _figures(
        self, held: HeldOut, editor: Editor, edits: list[Picture], scores: dict[str, Scores]
    ) -> dict[str, float]:
        further_edits = [held.edits(editor, number, GROUP_TASKS) for number in range(1, GROUP_MEMBERS)]
        groups = list(zip(edits, *further_edits, strict=False))
        measured = scores | {
            "preservation": np.array(
                [
                    preservation(case.source, edit, base if case.wanted is None else case.wanted)
                    for case, edit, base in zip(held.cases, edits, self.base, strict=True)
                ]
            ),
            "diversity": np.array([diversity(group) for group in groups]),
            "grid_texture": np.array([grid_texture(edit, held.period) for edit in edits]),
            "noise_dots": np.array([noise_dots(edit) for edit in edits]),
        }
        figures: dict[str, float] = {}
        for name, values in measured.items():
            interval = mean_interval(values)
            if interval is not None:
                named = zip((name, f"{name}_low", f"{name}_high"), interval, strict=True)
                figures |= {key: value for key, value in named if np.isfinite(value)}
        figures["reward_missing"] = float(np.isnan(scores["reward"]).mean())
        return figures

    def _told(self, record: dict[str, Any]) -> EvaluationScores:
        scores = {name: np.array(values, dtype=float) for name, values in record["scores"].items()}
        watching = {label: scores[label] for label in self.watching.values()}
        return EvaluationScores(record["step"], scores["reward"], watching, record["training"].get("kl"))

    def _show(self, held: HeldOut, edits: list[Picture]) -> None:
        """Sheets and records of this evaluation; the page, which takes longer to draw than a small evaluation, when the
        last one is old."""
        ordered_by = next(iter(self.watching.values()), "reward")
        first, last = (np.array(self.seen[at]["scores"][ordered_by], dtype=float) for at in (0, -1))
        step = self.seen[-1]["step"]
        judge = ordered_by.removeprefix(WATCHES)
        self.sheets = write_sheets(self.folder, step, held.cases, self.base, edits, judge, first, last)
        write_json(self.folder / EVALUATIONS, self.seen)
        if time.monotonic() - self.drawn > PAGE_SECONDS:
            self._draw()
        shutil.copytree(self.folder, self.output, dirs_exist_ok=True)
        files = {self.folder / file: str(Path(file).parent) for file in self.sheets.values()}
        self.live.send(files)

    def _draw(self) -> None:
        pictures = {caption: self.folder / file for caption, file in self.sheets.items()}
        write_file(self.folder / PAGE, training_page(self.seen, list(self.watching.values()), pictures))
        self.drawn = time.monotonic()
        self.live.send({self.folder / PAGE: "."})

    def _check_targets(self) -> None:
        without = [row.id for row in self.rows if row.target is None]
        if without:
            raise EditLoopError(
                f"{ORACLE}: {len(without)} held-out tasks have no target, {without[0]!r} first; give each row one, or "
                "another judge."
            )

    def _check_independent(self) -> None:
        teachers = {self.judges[address].version: address for address in self.rewards if address in self.judges}
        for address in self.watching:
            taught = self.rewards.get(address) or (address in self.judges and self.judges[address].version in teachers)
            if taught:
                raise EditLoopError(
                    f"watch {address}: it is the judge that teaches. What is learnt from it looks good to it whatever "
                    "it is: name another one."
                )


def _label(address: str) -> str:
    """What a judge is called in curves: letters, digits, `_-.` alone, as MLflow wants it."""
    return ORACLE if address == ORACLE else WATCHES + re.sub(r"[^\w.-]+", "_", address).strip("_")[-60:]


def _plain(values: Scores) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _read(path: Path) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else []
    return records

"""Evaluation of an online RL training on held-out tasks: scores, measures, contact sheets, the page, and the guards.

Reward judges are those whose scores are the reward. Watching judges score the same edits, but the editor does not learn
from them.
"""

import logging
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from editloop.content import write_file, write_json
from editloop.data.edits_file import EditRow
from editloop.data.picture_size import Picture
from editloop.errors import EditLoopError
from editloop.evaluation.editors import ORACLE, EvaluationTask, HeldOut, judge_scores, oracle_view
from editloop.json_file import read_json
from editloop.models.editors.protocol import Editor
from editloop.models.judge_protocol import Judge, JudgeUnavailableError
from editloop.scoring.opening import open_judge
from editloop.training.editor_rl.guards import EvaluationScores, Verdict, early_stopping_rule
from editloop.training.editor_rl.image_statistics import grid_texture, noise_dots
from editloop.training.editor_rl.live_files import LiveFiles
from editloop.training.editor_rl.measures import diversity, mean_interval, preservation
from editloop.training.editor_rl.page import training_page
from editloop.training.editor_rl.scoring import check_targets, teaching_watcher
from editloop.training.editor_rl.settings import RlSettings
from editloop.training.editor_rl.sheets import SHEETS, write_sheets

log = logging.getLogger(__name__)

WATCHED, EVALUATIONS, PAGE = "watched", "evaluations.json", "page.html"
WATCHES = "watch_"
"""Prefix of watching judges' names in metrics."""
GROUP_TASKS, GROUP_MEMBERS = 8, 4
"""Number of tasks, and of edits of each, that diversity is measured on."""
PAGE_SECONDS = 30.0
"""Least time between two drawings of the page during the training."""
Scores = NDArray[np.float64]


class Evaluator:
    """Evaluates a training on held-out tasks. Only rank 0 has one.

    Its records are below `folder`, so a training that continues also continues the records.
    """

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
        """Open the judges and read the records of earlier evaluations.

        Args:
            rows: Held-out tasks, of which the first `evaluation_tasks` are used.
            settings: The training's settings.
            rewards: Weight of each reward judge, by address.
            judges: Reward judges that are already open, by address. The others are opened here.
            watch: Addresses of watching judges. `oracle` needs a target in every row.
            folder: Folder for records, page and sheets while the training lasts.
            output: Result folder, which gets `evaluations.json`, `page.html` and `sheets/`.
            through: Iteration that the training continues from. Records of later ones are dropped.

        Raises:
            EditLoopError: A judge cannot be opened, tasks lack targets for the oracle, or a watching judge is a reward
                judge under another address.
        """
        self.rows, self.settings = list(rows[: settings.evaluation_tasks]), settings
        self.folder, self.output, self.live = folder / WATCHED, output, LiveFiles()
        self.rewards = dict(rewards)
        self.judges = dict(judges)
        for address in [*rewards, *watch]:
            if address == ORACLE:
                check_targets(self.rows)
            elif address not in self.judges:
                self.judges[address] = open_judge(address)
        self.watching = {address: _label(address) for address in watch}
        self._check_independent()
        (self.folder / SHEETS).mkdir(parents=True, exist_ok=True)
        self.records = [record for record in _read(self.folder / EVALUATIONS) if record["step"] <= through]
        self.held: HeldOut | None = None
        self.base: list[Picture] = []
        self.sheets: dict[str, str] = {}
        self.drawn = float("-inf")

    def evaluate(self, iteration: int, editor: Editor, training: Mapping[str, float]) -> Verdict:
        """Evaluate the editor with its present weights. The caller has swapped in the averaged ones.

        Where a judge is unavailable its scores are missing, and the training goes on.

        Args:
            iteration: Number of iterations done; 0 is before the first.
            editor: The editor.
            training: Means of the training's figures since the last evaluation: `reward`, `kl`, `ratio`, `clipped`,
                `missing`, `silent_groups` and others. Values that are not finite are dropped.

        Returns:
            Whether to stop, whether this is the best state, and the measured values.
        """
        held = self._held(editor)
        with editor.merged():
            edits = held.edits(editor)
            further_edits = [held.edits(editor, number, GROUP_TASKS) for number in range(1, GROUP_MEMBERS)]
        scores = self._scores(held.cases, edits)
        record: dict[str, Any] = {
            "step": iteration,
            "training": {name: float(value) for name, value in training.items() if np.isfinite(value)},
            "scores": {name: _plain(values) for name, values in scores.items()},
        }
        figures = self._figures(held, edits, further_edits, scores)
        earlier_records = [earlier for earlier in self.records if earlier["step"] < iteration]
        self.records = [*earlier_records, record | {"figures": figures}]
        evaluations = [self._evaluation_scores(evaluation) for evaluation in self.records]
        ruling = early_stopping_rule(evaluations, self.settings.stop)
        self.records[-1] |= {"best_iteration": ruling.best_iteration, "stopped": ruling.reason}
        self._show(held, edits)
        return replace(ruling, figures=figures)

    def close(self) -> None:
        """Draw the final page and wait a moment until MLflow has it. Call it at the end of the training."""
        if self.sheets:
            self._draw()
            shutil.copytree(self.folder, self.output, dirs_exist_ok=True)
        self.live.close()

    def _held(self, editor: Editor) -> HeldOut:
        if self.held is None:
            settings = self.settings
            steps = settings.evaluation_steps or settings.sampling_steps
            self.held = HeldOut(self.rows, editor, steps=steps, guidance=settings.guidance, batch=settings.micro_batch)
            with editor.base():
                self.base = self.held.edits(editor)
        return self.held

    def _scores(self, cases: Sequence[EvaluationTask], edits: Sequence[Picture]) -> dict[str, Scores]:
        """Return scores (T,) by name: `reward`, every watching judge, and the oracle's where all targets are known."""
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
            log.warning("evaluation: %s is away, its scores are missing: %s", address, error)
            return np.full(len(cases), np.nan)

    def _figures(
        self, held: HeldOut, edits: list[Picture], further_edits: list[list[Picture]], scores: dict[str, Scores]
    ) -> dict[str, float]:
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

    def _evaluation_scores(self, record: dict[str, Any]) -> EvaluationScores:
        scores = {name: np.array(values, dtype=float) for name, values in record["scores"].items()}
        watching = {label: scores[label] for label in self.watching.values()}
        return EvaluationScores(record["step"], scores["reward"], watching, record["training"].get("kl"))

    def _show(self, held: HeldOut, edits: list[Picture]) -> None:
        """Write the sheets and records of this evaluation.

        The page takes longer to draw than a small evaluation does, so it is drawn only where the last one is old.
        """
        ordered_by = next(iter(self.watching.values()), "reward")
        first, last = (np.array(self.records[at]["scores"][ordered_by], dtype=float) for at in (0, -1))
        step = self.records[-1]["step"]
        judge = ordered_by.removeprefix(WATCHES)
        self.sheets = write_sheets(self.folder, step, held.cases, self.base, edits, judge, first, last)
        write_json(self.folder / EVALUATIONS, self.records)
        if time.monotonic() - self.drawn > PAGE_SECONDS:
            self._draw()
        shutil.copytree(self.folder, self.output, dirs_exist_ok=True)
        files = {self.folder / file: str(Path(file).parent) for file in self.sheets.values()}
        self.live.send(files)

    def _draw(self) -> None:
        pictures = {caption: self.folder / file for caption, file in self.sheets.items()}
        write_file(self.folder / PAGE, training_page(self.records, list(self.watching.values()), pictures))
        self.drawn = time.monotonic()
        self.live.send({self.folder / PAGE: "."})

    def _check_independent(self) -> None:
        teachers = {self.judges[address].version: address for address in self.rewards if address in self.judges}
        for address in self.watching:
            if address in self.rewards or (address in self.judges and self.judges[address].version in teachers):
                raise teaching_watcher(address)


def _label(address: str) -> str:
    """Return a judge's name in metrics. MLflow allows letters, digits and `_-.`."""
    return ORACLE if address == ORACLE else WATCHES + re.sub(r"[^\w.-]+", "_", address).strip("_")[-60:]


def _plain(values: Scores) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _read(path: Path) -> list[dict[str, Any]]:
    advice = f"Delete {path.parent.parent} to begin the training anew."
    records: list[dict[str, Any]] = read_json(path, advice) if path.is_file() else []
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise EditLoopError(f"{path}: holds no list of records. {advice}")
    return records

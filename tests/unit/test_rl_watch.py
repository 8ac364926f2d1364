"""A watch over a training: what it measures, keeps, shows and rules, with an editor and judges by arithmetic."""

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from editloop.data.edits_file import EditRow
from editloop.errors import EditLoopError
from editloop.models.editors.protocol import Conditioning
from editloop.models.judge_protocol import AxisScore, EditGroup, JudgeUnavailableError, Score
from editloop.training.editor_rl.evaluator import Evaluator
from editloop.training.editor_rl.settings import RlSettings

SETTINGS = RlSettings(sampling_steps=2, evaluation_tasks=20)


class Shifter:
    """Edits by making the source brighter by `shift` levels, and a little by chance; latents are pixels."""

    def __init__(self) -> None:
        self.shift, self.encoded, self.device = 0.0, 0, torch.device("cpu")

    def size_for(self, height: int, width: int, area: int | None = None) -> tuple[int, int]:
        return height, width

    def instruction_fault(self, instruction: str) -> str:
        return ""

    def encoders_at_hand(self) -> AbstractContextManager[None]:
        return nullcontext()

    def encode(self, instructions: list[str], sources: np.ndarray) -> Conditioning:
        self.encoded += len(instructions)
        flat = torch.from_numpy(sources).float().flatten(1, 2)
        return Conditioning((sources.shape[1], sources.shape[2]), {"source": flat})

    def noise(self, count: int, size: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
        return 150 * torch.randn(count, size[0] * size[1], 3, generator=generator)

    def sigmas(self, steps: int, size: tuple[int, int]) -> torch.Tensor:
        return torch.linspace(1, 0.02, steps + 1)

    def velocity(
        self, x: torch.Tensor, sigma: torch.Tensor, condition: Conditioning, guidance: float | None = None
    ) -> torch.Tensor:
        goal = condition.parts["source"] + self.shift
        return (x - goal) / sigma[:, None, None]

    def decode(self, x: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
        return x.round().clamp(0, 255).to(torch.uint8).view(-1, *size, 3).numpy()

    def base(self) -> Any:
        return nullcontext()

    merged = base


class Brightness:
    """The brighter, the better; `wants` -1 turns it round."""

    axes = ("if",)

    def __init__(self, name: str, wants: int = 1):
        self.name, self.version, self.wants, self.away = name, name, wants, False

    def judge(self, groups: list[EditGroup]) -> list[list[Score]]:
        if self.away:
            raise JudgeUnavailableError("no connection")
        return [[self._score(edit) for edit in group.edits] for group in groups]

    def _score(self, edit: np.ndarray) -> Score:
        bright = edit.mean() / 255
        value = float(bright if self.wants > 0 else 1 - bright)
        return Score({"if": AxisScore(value, 0.1)}, AxisScore(value, 0.1), value, value)


@pytest.fixture
def rows(tmp_path: Path) -> list[EditRow]:
    (tmp_path / "pictures").mkdir()
    found = []
    for at in range(20):
        sides = (16, 16) if at % 2 else (16, 24)
        path = tmp_path / "pictures" / f"{at}.png"
        Image.new("RGB", sides, (5 * at, 40, 40)).save(path)
        found.append(EditRow(f"row {at}", "edit", "brighter", path, path))
    return found


def watched(rows: list[EditRow], folder: Path, *, through: int = 0, **judges: Any) -> Evaluator:
    judges = judges or {"teacher": Brightness("teacher"), "other": Brightness("other", wants=-1)}
    return Evaluator(
        rows,
        SETTINGS,
        rewards={"teacher": 1.0},
        judges=judges,
        watch=["other"],
        folder=folder / "watch",
        output=folder / "output",
        through=through,
    )


def look(watch: Evaluator, editor: Shifter, iteration: int, shift: float, **training: float) -> Any:
    editor.shift = shift
    return watch.evaluate(iteration, editor, {"reward": 0.5, "kl": 0.1, **training})  # type: ignore[arg-type]


def test_a_cheated_reward_is_stopped_and_the_page_says_why(rows: list[EditRow], tmp_path: Path) -> None:
    watch, editor = watched(rows, tmp_path), Shifter()
    verdicts = [look(watch, editor, 10 * at, 20.0 * at) for at in range(5)]
    assert [one.stop for one in verdicts] == [False, False, False, True, True]
    assert [one.best for one in verdicts] == [True, False, False, False, False]
    watch.close()
    page = (tmp_path / "output" / "page.html").read_text()
    assert "watch_other falls" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    records = json.loads((tmp_path / "output" / "evaluations.json").read_text())
    assert [one["step"] for one in records] == [0, 10, 20, 30, 40]
    assert records[-1]["best_iteration"] == 0
    assert sorted(path.name for path in (tmp_path / "output" / "sheets").iterdir()) == [
        f"{step:06d}.png" for step in (0, 10, 20, 30, 40)
    ]


def test_tasks_of_any_shape_are_encoded_once_and_edited_from_the_same_noise(
    rows: list[EditRow], tmp_path: Path
) -> None:
    watch, editor = watched(rows, tmp_path), Shifter()
    first, second = (look(watch, editor, at, 10.0).figures for at in (0, 1))
    assert first == second
    assert editor.encoded == len(rows)
    assert first["reward"] + first["watch_other"] == pytest.approx(1)
    assert first["reward_low"] < first["reward"] < first["reward_high"]
    assert first["diversity"] > 0
    assert 0.9 < first["preservation"] < 1
    assert {path.parent.name for path in (tmp_path / "output").rglob("*.png")} == {"output", "sheets"}


def test_what_is_gone_on_from_rules_as_if_it_had_never_stopped(rows: list[EditRow], tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    watch, editor = watched(rows, whole), Shifter()
    unbroken = [look(watch, editor, 10 * at, 20.0 * at) for at in range(4)]
    watch = watched(rows, parts)
    for at in range(3):
        look(watch, editor, 10 * at, 20.0 * at)
    watch = watched(rows, parts, through=10)
    again = [look(watch, editor, 10 * at, 20.0 * at) for at in (2, 3)]
    assert again == unbroken[2:]
    kept = [json.loads((folder / "output" / "evaluations.json").read_text()) for folder in (whole, parts)]
    assert kept[0] == kept[1]


def test_a_judge_that_is_away_leaves_missing_scores_and_the_training_goes_on(
    rows: list[EditRow], tmp_path: Path
) -> None:
    teacher, other = Brightness("teacher"), Brightness("other", wants=-1)
    watch, editor = watched(rows, tmp_path, teacher=teacher, other=other), Shifter()
    look(watch, editor, 0, 0.0)
    other.away = teacher.away = True
    verdicts = [look(watch, editor, at, 20.0 * at) for at in (1, 2, 3, 4)]
    assert not any(one.stop or one.best for one in verdicts)
    assert verdicts[-1].figures["reward_missing"] == 1
    assert "reward" not in verdicts[-1].figures
    watch.close()
    assert "not measured" in (tmp_path / "output" / "page.html").read_text()


def test_who_teaches_cannot_watch_and_the_oracle_needs_targets(rows: list[EditRow], tmp_path: Path) -> None:
    same = Brightness("other")
    same.version = "teacher"
    with pytest.raises(EditLoopError, match="other: it is the judge that teaches"):
        watched(rows, tmp_path, teacher=Brightness("teacher"), other=same)
    without = [EditRow(row.id, row.task, row.instruction, row.source) for row in rows]
    with pytest.raises(EditLoopError, match="oracle: 20 held-out tasks have no `target`"):
        Evaluator(
            without,
            SETTINGS,
            rewards={"teacher": 1.0},
            judges={"teacher": same},
            watch=["oracle"],
            folder=tmp_path,
            output=tmp_path,
            through=0,
        )


def test_pages_are_sent_while_it_runs_and_wait_for_an_mlflow_that_is_away(
    rows: list[EditRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: dict[str, str | None] = {}

    class Mlflow:
        away = True

        def log_artifact(self, run: str, path: str, folder: str | None) -> None:
            if self.away:
                raise ConnectionError("refused")
            assert run == "run 1"
            sent[Path(path).name] = folder

    monkeypatch.setenv("EDITLOOP_STAGE_RUN", "run 1")
    monkeypatch.setattr("editloop.lineage.tracking.client", Mlflow)
    watch, editor = watched(rows, tmp_path), Shifter()
    look(watch, editor, 0, 0.0)
    watch.live.close()
    assert not sent
    Mlflow.away = False
    look(watch, editor, 10, 1.0)
    watch.close()
    assert sent["000000.png"] == sent["000010.png"] == "sheets"
    assert sent["page.html"] is None


def test_drawing_the_page_does_not_slow_small_evaluations(rows: list[EditRow], tmp_path: Path) -> None:
    watch, editor = watched(rows, tmp_path), Shifter()
    drawn = []
    watch._draw = lambda: drawn.append(len(watch.records))  # type: ignore[method-assign]
    watch.drawn = float("inf")
    for at in range(3):
        look(watch, editor, at, 0.0)
    watch.close()
    assert drawn == [3]

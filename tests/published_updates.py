"""What an iteration of each published recipe trains, on the toy of tests.toy_editing with rewards that are given.

    python -m tests.published_updates       # writes tests/unit/published_updates.json anew

Recorded are the real calls: optimiser steps, passes, and of each edit in each of them its advantage, its noise levels,
its weight in the step's gradient at each level, and the weight of the level in its policy loss.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from editloop.models.judge_protocol import AxisScore, EditGroup, Score
from editloop.training.editor_rl import loop
from editloop.training.editor_rl.flow_grpo_algorithm import GrpoLevel
from editloop.training.editor_rl.nft_algorithm import NftLevel
from editloop.training.editor_rl.settings import PRESETS, RlSettings, read_rl_preset
from tests.toy_editing import PlainEngine, one_rank, toy_training

RECORD = Path(__file__).parent / "unit" / "published_updates.json"
RECIPES = sorted(
    path.stem
    for path in PRESETS.glob("*.yaml")
    if not path.stem.startswith("after-") and path.stem not in ("tiny", "smallest", "claims")
)
"""Presets with the name of a published recipe."""
TASKS, MEMBERS = 5, 4
REWARDS = [
    [0.31, 0.42, 0.55, 0.28],
    [0.97, 0.98, 0.96, 0.97],
    [0.5, 0.5, 0.5, 0.5],
    [0.1, 0.9, 0.35, 0.62],
    [0.71, 0.69, 0.88, 0.8],
]
"""By task and member: the second task is solved, the third has no spread."""
Update = list[dict[str, dict[str, Any]]]
"""By optimiser step and edit."""


class WrittenJudge:
    """Gives REWARDS."""

    name = version = "written"
    axes = ("one",)

    def judge(self, groups: Sequence[EditGroup]) -> list[list[Score]]:
        return [
            [Score({"one": AxisScore(value, 0.0)}, AxisScore(value, 0.0), value, value) for value in REWARDS[task]]
            for task in (int(group.key.removeprefix("task ")) for group in groups)
        ]


class CountingEngine(PlainEngine):
    """Counts its calls."""

    backwards = steps = 0

    def backward(self, loss: Tensor) -> None:
        self.backwards += 1
        super().backward(loss)

    def step(self) -> None:
        self.steps += 1
        super().step()


class Recorded:
    """An iteration of a recipe."""

    def __init__(self, settings: RlSettings):
        self.settings, self.update, self.backwards = settings, Update(), 0
        self._passes: list[tuple[int, list[str], Any, Tensor, Tensor, Tensor]] = []

    def run(self) -> "Recorded":
        with tempfile.TemporaryDirectory() as folder, patch.object(loop, "start_engine", CountingEngine), self._spied():
            judges: Any = {"written": WrittenJudge()}
            training = toy_training(Path(folder), self.settings, judges)
            self.engine = training.training_run.engine
            training.run(None)
        self.backwards = self.engine.backwards
        self.update = [{} for _ in range(self.engine.steps)]
        for step, names, level, sigmas, advantages, losses in self._passes:
            assert losses.grad is not None
            for place, name in enumerate(names):
                edit = self.update[step].setdefault(name, {"advantage": advantages[place].item(), "levels": []})
                edit["levels"].append([sigmas[place].item(), losses.grad[place].item(), float(level[place])])
        return self

    @contextmanager
    def _spied(self) -> Iterator[None]:
        nft, grpo = NftLevel.losses, GrpoLevel.losses

        def nft_losses(level: NftLevel, part: Tensor, advantage: Tensor) -> Any:
            return self._note(level, nft(level, part, advantage), part, advantage, level.sigma[part])

        def grpo_losses(level: GrpoLevel, part: Tensor, advantage: Tensor) -> Any:
            sigmas = torch.full((len(part),), level.step.sigma)
            return self._note(level, grpo(level, part, advantage), part, advantage, sigmas)

        with patch.object(NftLevel, "losses", nft_losses), patch.object(GrpoLevel, "losses", grpo_losses):
            yield

    def _note(self, level: Any, losses: Any, part: Tensor, advantage: Tensor, sigmas: Tensor) -> Any:
        losses.loss.retain_grad()
        names = [f"{level.rollout.names[place][0]}.{level.rollout.names[place][1]}" for place in part.tolist()]
        weights = level.step_weights[part] if isinstance(level, GrpoLevel) else torch.ones(len(part))
        self._passes.append((self.engine.steps, names, weights, sigmas, advantage, losses.loss))
        return losses


def recorded(name: str) -> Recorded:
    """The first iteration of a recipe with all five tasks, four edits of each."""
    sizes = {"iterations": 1, "tasks": TASKS, "members": MEMBERS, "gradient_checkpointing": False}
    return Recorded(read_rl_preset(name, **sizes)).run()


def as_json(record: Recorded) -> dict[str, Any]:
    """Figures to six digits."""
    update = [
        {
            name: {
                "advantage": round(edit["advantage"], 6),
                "levels": [[float(f"{figure:.6g}") for figure in level] for level in edit["levels"]],
            }
            for name, edit in sorted(step.items())
        }
        for step in record.update
    ]
    return {"passes": record.backwards, "steps": update}


if __name__ == "__main__":
    with one_rank():
        rows = {name: as_json(recorded(name)) for name in RECIPES}
    RECORD.write_text("{\n" + ",\n".join(f'"{name}": {json.dumps(row)}' for name, row in rows.items()) + "\n}\n")

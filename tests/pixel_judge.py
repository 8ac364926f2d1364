"""A judge by arithmetic, with every way to fail that a real one has: for tests of what stands around judges."""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from editloop.data.picture_size import resized
from editloop.errors import EditLoopError
from editloop.models.judge_protocol import AxisScore, EditGroup, Score
from editloop.scoring.server_messages import AxisMessage, ScoreMessage
from editloop.scoring.serving.worker import ModelFacts

KILLER = np.full((16, 16, 3), 66, np.uint8)
"""An edit that ends the process that judges it, every time."""
UNJUDGEABLE = np.full((16, 16, 3), 77, np.uint8)
"""An edit that the judge refuses, with its whole batch."""
INFINITE = np.full((16, 16, 3), 88, np.uint8)
"""An edit whose score is not a number."""


class PixelJudge:
    """Scores by mean brightness. An instruction `slow N` takes N seconds; `die once FILE` ends the process unless FILE
    is there, and makes it."""

    name, version, axes = "pixel-judge", "1" * 64, ("if", "vq")

    def __init__(self) -> None:
        self.sizes: list[list[int]] = []
        """Edits a group of each call."""

    def judge(self, groups: Sequence[EditGroup]) -> list[list[Score]]:
        self.sizes.append([len(group.edits) for group in groups])
        for group in groups:
            words = group.instruction.split()
            if words[:1] == ["slow"]:
                time.sleep(float(words[1]))
            if words[:2] == ["die", "once"] and not Path(words[2]).exists():
                Path(words[2]).touch()
                os._exit(9)
            if any(np.array_equal(edit, UNJUDGEABLE) for edit in group.edits):
                raise EditLoopError("an edit is of value 77; others are judged")
            if any(np.array_equal(edit, KILLER) for edit in group.edits):
                os._exit(9)
        return [[self.score(group, edit) for edit in group.edits] for group in groups]

    def score(self, group: EditGroup, edit: np.ndarray) -> Score:
        if np.array_equal(edit, INFINITE):
            belief = AxisScore(float("nan"), 1.0)
            return Score({"if": belief, "vq": belief}, belief, 1.0, 0.5)
        at_source = resized(edit, (group.source.shape[0], group.source.shape[1])).astype(float)
        bright, change = float(edit.mean()) / 255, float(np.abs(at_source - group.source).mean()) / 255
        axes = {"if": AxisScore(bright, len(group.instruction) / 100), "vq": AxisScore(-change, 0.5)}
        return Score(axes, AxisScore(bright - change, 0.25), bright + 2, bright)


class SourcesJudge(PixelJudge):
    """Reads reference images: a score grows by each one's brightness, by its place in the order."""

    takes_references = True

    def score(self, group: EditGroup, edit: np.ndarray) -> Score:
        added = sum(place * float(one.mean()) / 255 for place, one in enumerate(group.references, start=2))
        plain = super().score(group, edit)
        assert plain.overall is not None
        return replace(plain, overall=plain.overall + added)


def open_pixel_judge(model: str, device: str | None) -> PixelJudge:
    """What a worker calls: any name will do but `broken`."""
    if model == "broken":
        raise EditLoopError("broken: head_1.0.weight is missing; not this model's heads.")
    return PixelJudge()


FACTS = ModelFacts(PixelJudge.name, PixelJudge.version, PixelJudge.axes)


def picture(value: int, side: int = 16) -> np.ndarray:
    return np.full((side, side, 3), value, np.uint8)


def message(value: float) -> ScoreMessage:
    belief = AxisMessage(mean=value, sigma=0.5)
    return ScoreMessage(axes={"if": belief, "vq": belief}, fused=belief, overall=value, reward=0.5)

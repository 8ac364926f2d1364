"""What bfloat16 changes, and what a stop and a new start change, on a reward model of about 130 million weights."""

from statistics import fmean
from typing import Literal

import torch

from editloop.models.edit_reward.model import RewardModel
from editloop.models.judge_protocol import EditGroup
from tests.gpu.conditions import Conditions, Figures, checked
from tests.gpu.machine import relative_difference
from tests.gpu.trainings import run_training, run_until_stopped
from tests.gpu.vision_language import random_reward, reward_preset, scale
from tests.measured_training import INSTRUCTION, Drawn

BF16_BOUNDS = {"hidden_apart": 0.05, "scores_apart": 0.05, "loss_apart": 0.02, "norm_apart": 0.1}
"""Largest differences of bfloat16 from float32: hidden states, loss and gradient norm relative, scores in units of a
raw score."""
RESUME_BOUNDS = {"loss_apart": 0.01}
"""Largest relative difference of a loss after a new start. On a CPU it is 0; a GPU's sums of gradients have no fixed
order."""
CANDIDATES = 4


def precision(conditions: Conditions) -> Figures:
    """Hidden states and scores of a group, and a step of the whole model's training, in bfloat16 against float32."""
    size = scale(conditions.tiny, middle=True)
    torch.backends.cudnn.allow_tf32 = False  # the reference is float32 throughout

    def model(dtype: torch.dtype) -> RewardModel:
        """The same weights, drawn in float32."""
        drawn = random_reward(size, conditions.device, torch.float32)
        drawn.backbone.to(dtype)
        return drawn

    sample = Drawn(1, CANDIDATES, round(size.load.pixels**0.5))[0]
    group = EditGroup(INSTRUCTION, sample.source, list(sample.edits))
    exact, coarse = model(torch.float32).eval(), model(torch.bfloat16).eval()
    hidden = [reward.states([group])[0] for reward in (exact, coarse)]
    scores = [reward.score([group]).mu for reward in (exact, coarse)]
    del exact, coarse
    steps = {}
    kinds: tuple[Literal["fp32", "bf16"], ...] = ("fp32", "bf16")
    for kind in kinds:
        preset = reward_preset(size, steps=1, batch=2, precision=kind, warmup=0.0)
        dtype = torch.float32 if kind == "fp32" else torch.bfloat16
        measured = run_training(lambda dtype=dtype: model(dtype), preset, conditions.folder / kind)  # type: ignore[misc]
        steps[kind] = measured.history["steps"][0]
    losses, norms = ([steps[kind][name] for kind in kinds] for name in ("loss", "gradient_norm"))
    figures: Figures = {
        "hidden_apart": relative_difference(hidden[1], hidden[0]),
        "scores_apart": float((scores[1] - scores[0]).abs().max()),
        "loss": losses[0],
        "loss_apart": abs(losses[1] - losses[0]) / abs(losses[0]),
        "gradient_norm": norms[0],
        "norm_apart": abs(norms[1] - norms[0]) / norms[0],
    }
    return checked(figures, BF16_BOUNDS)


def resume(conditions: Conditions) -> Figures:
    """Four steps of all weights in bfloat16, unbroken; and stopped in the second by SIGTERM, then gone on with."""
    size = scale(conditions.tiny, middle=True)
    preset = reward_preset(size, steps=4, batch=2, learning_rate=1e-4, warmup=0.0)

    def model() -> RewardModel:
        return random_reward(size, conditions.device, conditions.dtype)

    unbroken = run_training(model, preset, conditions.folder / "unbroken")
    run_until_stopped(model, preset, conditions.folder / "stopped")
    resumed = run_training(model, preset, conditions.folder / "stopped")
    pairs = [
        (before["loss"], after["loss"])
        for before, after in zip(unbroken.history["steps"], resumed.history["steps"], strict=True)
    ]
    figures: Figures = {
        "steps": float(len(pairs)),
        "loss": fmean(before for before, _ in pairs),
        "loss_apart": max(abs(after - before) / abs(before) for before, after in pairs),
        "same_bits": "yes" if all(before == after for before, after in pairs) else "no",
    }
    return checked(figures, RESUME_BOUNDS)

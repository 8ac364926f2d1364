"""All weights of a reward model trained on one GPU, with what it has no room for in main memory."""

from editloop.training.memory_plan import estimate_memory
from tests.gpu.conditions import Conditions, Figures, checked
from tests.gpu.trainings import Measured, run_training
from tests.gpu.vision_language import LARGE, Scale, random_reward, reward_preset, scale

GIB = 2**30
APART = {"loss_apart": 0.02}
"""Largest relative difference of a step's loss between the two stages, in bfloat16."""
STEPS, BATCH, MICRO_BATCH = 3, 4, 2


def offload(conditions: Conditions) -> Figures:
    """ZeRO-2 with the optimiser in main memory, and ZeRO-3 with the weights there too."""
    size = scale(conditions.tiny)
    if not conditions.tiny:
        size = Scale(LARGE, size.load)
    figures: Figures = {}
    runs: list[Measured] = []
    stages = ((2, "optimizer"), (3, "parameters"))
    for stage, offload in stages:
        preset = reward_preset(
            size, steps=STEPS, batch=BATCH, micro_batch=MICRO_BATCH, warmup=0.0, zero_stage=stage, offload=offload
        )
        run = run_training(
            lambda: random_reward(size, conditions.device, conditions.dtype), preset, conditions.folder / str(stage)
        )
        runs.append(run)
        figures |= {
            f"zero{stage}_edits_per_second": run.edits_per_second,
            f"zero{stage}_peak_gib": run.peak_gib,
            f"zero{stage}_planned_gib": estimate_memory(preset, preset.training, 1).total / GIB,
        }
    pairs = zip(*(run.history["steps"] for run in runs), strict=True)
    apart = [abs(third["loss"] - second["loss"]) / abs(second["loss"]) for second, third in pairs]
    return checked(figures | {"loss_apart": max(apart)}, APART)

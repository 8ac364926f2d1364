"""EditReward on Qwen2.5-VL-7B and Qwen3-VL-8B: training and scoring, shared prefix against plain passes."""

from typing import Any

import torch

from editloop.models.edit_reward.model import RewardModel
from editloop.models.judge_protocol import EditGroup
from editloop.models.lora import add_adapter
from editloop.training.edit_reward.train import RewardTrainingTask
from editloop.training.memory_plan import estimate_memory
from tests.gpu.conditions import Conditions, Figures, checked
from tests.gpu.flops import Work, adapter_step_flops, forward_flops, together, tree_work
from tests.gpu.machine import forget_peak, peak_gib, relative_difference, seconds_of, utilisation
from tests.gpu.plain_reward import PlainReward
from tests.gpu.trainings import lesson_of, run_training
from tests.gpu.vision_language import ADAPTER, REWARD, REWARD_QWEN3, random_reward, reward_preset, scale
from tests.measured_training import INSTRUCTION, Drawn

GIB = 2**30
APART = {"hidden_apart": 0.05}
"""Largest relative difference of the hidden states that heads read, between the two ways, in bfloat16."""
STEPS, BATCH, MICRO_BATCH = 4, 8, 2
CANDIDATES = 4
"""Edits of a group that is scored."""
ROUNDS = 3


def training(conditions: Conditions) -> Figures:
    """On Qwen2.5-VL-7B."""
    return _training(conditions, REWARD)


def training_qwen3(conditions: Conditions) -> Figures:
    """On Qwen3-VL-8B."""
    return _training(conditions, REWARD_QWEN3)


def scoring(conditions: Conditions) -> Figures:
    """On Qwen2.5-VL-7B."""
    return _scoring(conditions, REWARD)


def scoring_qwen3(conditions: Conditions) -> Figures:
    """On Qwen3-VL-8B."""
    return _scoring(conditions, REWARD_QWEN3)


def _training(conditions: Conditions, published: str) -> Figures:
    """Steps of the preset's training by the shipped loop: the language model's adapter, layers checkpointed."""
    size = scale(conditions.tiny, preset=published)
    steps, batch = (2, 2) if conditions.tiny else (STEPS, BATCH)
    steps_and_batch = {"steps": steps, "batch": batch, "micro_batch": MICRO_BATCH}
    preset, full = (
        reward_preset(size, **steps_and_batch, adapter=ADAPTER.model_dump()),
        reward_preset(size, **steps_and_batch),
    )

    def adapted() -> RewardModel:
        model = random_reward(size, conditions.device, conditions.dtype)
        add_adapter(model.backbone, ADAPTER)
        return model

    model = adapted()
    shared, plain = lesson_of(model, preset), lesson_of(PlainReward(model), preset)
    apart = _apart(model, plain.model, shared.splits["train"][0])
    ours_work, plain_work = _step_work(shared, batch), _step_work(plain, batch)
    del model, shared, plain
    ours = run_training(adapted, preset, conditions.folder / "shared")
    theirs = run_training(lambda: PlainReward(adapted()), preset, conditions.folder / "plain")
    seconds = batch * size.load.candidates / ours.edits_per_second
    flops = adapter_step_flops(size.architecture, ours_work, size.architecture.language.adapter_weights(ADAPTER.rank))
    figures: Figures = {
        "ratio": ours.edits_per_second / theirs.edits_per_second,
        "edits_per_second": ours.edits_per_second,
        "plain_edits_per_second": theirs.edits_per_second,
        "tokens_per_second": ours_work.tokens / seconds,
        "token_ratio": plain_work.tokens / ours_work.tokens,
        "mfu": utilisation(flops, seconds),
        "waiting": ours.waiting,
        "peak_gib": ours.peak_gib,
        "plain_peak_gib": theirs.peak_gib,
        "planned_gib": estimate_memory(preset, preset.training, 1).total / GIB,
        "planned_whole_gib": estimate_memory(full, full.training, 1).total / GIB,
        "hidden_apart": apart,
    }
    return checked(figures, APART)


def _scoring(conditions: Conditions, published: str) -> Figures:
    """Scores of groups of four edits."""
    size = scale(conditions.tiny, preset=published)
    model = random_reward(size, conditions.device, conditions.dtype).eval()
    plain = PlainReward(model).eval()
    count = 1 if conditions.tiny else 4
    drawn = Drawn(count, CANDIDATES, round(size.load.pixels**0.5))
    groups = [EditGroup(INSTRUCTION, drawn[task].source, list(drawn[task].edits)) for task in range(count)]
    edits = count * CANDIDATES
    apart = _apart(model, plain, groups[0])

    @torch.no_grad()
    def plainly() -> None:
        for group in groups:
            plain(plain.collate([group])).mu.cpu()

    forget_peak()
    ours = seconds_of(lambda: model.score(groups), ROUNDS)
    peak = peak_gib()
    theirs = seconds_of(plainly, ROUNDS)
    work = tree_work(model.collate(groups))
    figures: Figures = {
        "ratio": theirs / ours,
        "edits_per_second": edits / ours,
        "plain_edits_per_second": edits / theirs,
        "tokens_per_second": work.tokens / ours,
        "mfu": utilisation(forward_flops(size.architecture, work), ours),
        "peak_gib": peak,
        "hidden_apart": apart,
    }
    return checked(figures, APART)


@torch.no_grad()
def _apart(model: RewardModel, plain: Any, group: Any) -> float:
    """How far the hidden states of a group's edits lie from those of plain passes."""
    return relative_difference(model.hidden(model.collate([group])), plain.states(plain.collate([group])))


def _step_work(lesson: RewardTrainingTask, batch: int) -> Work:
    """What an optimiser step puts through the model."""
    work = lesson.model.work if isinstance(lesson.model, PlainReward) else tree_work
    starts = range(0, batch, MICRO_BATCH)
    return together([work(lesson.batch("train", range(start, start + MICRO_BATCH)).tensors) for start in starts])

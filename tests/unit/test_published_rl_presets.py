"""Presets of online RL that carry a recipe's name have the recipe's values, all of them.

`tests/parity/rl-presets.json` has every hyper-parameter of the published code. Each of its keys is compared with our
settings here, or is listed with the reason why it is not; a key that is neither fails.
"""

import inspect
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from editloop.models.editors.omnigen2 import SHIFT_SIDE
from editloop.models.editors.opening import outline_editor
from editloop.models.editors.pipeline_editor import PipelineEditor
from editloop.models.editors.settings import read_editor_preset
from editloop.training.editor_rl.advantages import LARGEST_ADVANTAGE
from editloop.training.editor_rl.algorithm_settings import FlowGrpoSettings, NftSettings
from editloop.training.editor_rl.nft import old_policy_decay
from editloop.training.editor_rl.settings import PRESETS, RlSettings, read_rl_preset
from tests.tiny_editors import write_tiny_editor

PUBLISHED = {
    preset["preset"]: preset
    for preset in json.loads((Path(__file__).parents[1] / "parity" / "rl-presets.json").read_text())["presets"]
}
OURS = {
    "edit-r1 kontext (kontext_mllm_reward_ban_prompt)": "edit-r1",
    "edit-r1 qwen (qwen_mllm_reward)": "edit-r1-qwen",
    "flow-grpo kontext (counting_flux_kontext)": "flow-grpo",
    "flow-grpo counting_qwenimage_edit": "flow-grpo-qwen",
    "flow-grpo counting_qwenimage_edit_fast": "flow-grpo-fast",
    "editscore omnigen2_edit_rl_4machine_editscore7b_avg4": "editscore-omnigen2",
    "editscore omnigen2_edit_rl_4machine_editscore7b_avg8": "editscore-omnigen2",
    "editscore omnigen2_edit_rl_single_machine_editscore7b": "editscore-omnigen2-single",
    "diffusionnft sd3_geneval / sd3_pickscore / sd3_hpsv2": "diffusion-nft",
    "diffusionnft sd3_ocr": "diffusion-nft-ocr",
    "diffusionnft sd3_multi_reward": "diffusion-nft-multi",
}
"""Our preset of each published one."""
WITHOUT = {
    "verl-omni qwen-image-edit-2511 flow-grpo lora": "no preset carries its name",
    "unirl flux2-klein-9b editreward": "no preset carries its name",
    "unirl flux2-klein-4b editreward": "no preset carries its name",
}
Check = Callable[[Any, RlSettings, dict[str, Any]], None]
"""Compares (the published value, our settings, all published values of the preset)."""


def nft(settings: RlSettings) -> NftSettings:
    assert isinstance(settings.algorithm, NftSettings)
    return settings.algorithm


def grpo(settings: RlSettings) -> FlowGrpoSettings:
    assert isinstance(settings.algorithm, FlowGrpoSettings)
    return settings.algorithm


def equals(name: str, factor: float = 1.0) -> Check:
    """Our setting `name`, times `factor`, is the value; `algorithm.` leads to the algorithm's settings."""

    def check(value: Any, settings: RlSettings, every: dict[str, Any]) -> None:
        found: Any = settings
        for part in name.split("."):
            found = getattr(found, part)
        assert found * factor == pytest.approx(value) if isinstance(value, float | int) else found == value

    return check


def says(*values: Any, where: Callable[[RlSettings], bool]) -> Check:
    """The value is one of `values`, and then `where` holds for our settings."""

    def check(value: Any, settings: RlSettings, every: dict[str, Any]) -> None:
        assert value in values, f"another value than the one that was mapped: {value}"
        assert where(settings)

    return check


def check_optimiser(value: Any, settings: RlSettings, every: dict[str, Any]) -> None:
    known = {"AdamW", "learning rate", "betas", "weight decay", "eps", "clip norm", "schedule"}
    assert set(value) <= known
    assert value["AdamW"]
    assert settings.learning_rate == value["learning rate"]
    assert list(settings.betas) == value["betas"]
    assert settings.weight_decay == value["weight decay"]
    assert settings.gradient_clip == value["clip norm"]
    assert inspect.signature(torch.optim.AdamW).parameters["eps"].default == value["eps"], (
        "the engine leaves it at that"
    )
    assert value.get("schedule", "constant, no warm-up") == "constant, no warm-up", "RL trainings have no other"


def check_lora(value: Any, settings: RlSettings, every: dict[str, Any]) -> None:
    assert set(value) <= {"rank", "alpha", "init", "targets", "dropout"}
    assert settings.adapter is not None
    assert (settings.adapter.rank, settings.adapter.alpha) == (value["rank"], value["alpha"])
    assert settings.adapter.dropout == value.get("dropout", 0)
    assert sorted(settings.targets) == sorted(value.get("targets", settings.targets))
    if "init" in value:
        assert f'init_lora_weights="{value["init"]}"' in inspect.getsource(PipelineEditor.add_adapter)


def check_ema(value: Any, settings: RlSettings, every: dict[str, Any]) -> None:
    """An average without decay is the trained weights."""
    if value is None:
        assert (settings.ema_decay, settings.ema_every) == (0.0, None)
        return
    assert set(value) <= {"decay", "every steps", "used for"}
    assert (settings.ema_decay, settings.ema_every) == (value["decay"], value["every steps"])
    assert value.get("used for", "evaluation and checkpoints") == "evaluation and checkpoints"


def check_old_policy(value: Any, settings: RlSettings, every: dict[str, Any]) -> None:
    """By the rule's type, as rl.json has it: flat, rate, hold."""
    flat, rate, hold = {1: (0, 0.001, 0.5), 2: (75, 0.0075, 0.999)}[value["type"]]
    rules = {1: "min(0.001 x step, 0.5)", 2: "0 up to step 75, then min(0.0075 (step - 75), 0.999)"}
    assert value["rule"] == rules[value["type"]]
    algorithm = nft(settings)
    assert (algorithm.old_policy_flat, algorithm.old_policy_rate, algorithm.old_policy_decay) == (flat, rate, hold)
    assert old_policy_decay(200, hold, rate, flat) == pytest.approx(min(rate * (200 - flat), hold))


def check_time_fraction(value: Any, settings: RlSettings, every: dict[str, Any]) -> None:
    """As the published code rounds: down. Without a window it makes the last step without noise and trains the rest."""
    steps = settings.sampling_steps
    if isinstance(settings.algorithm, NftSettings):
        assert settings.algorithm.levels == int(steps * value)
        assert settings.algorithm.times == "rollout"
        return
    stochastic = grpo(settings).window
    assert grpo(settings).levels_per_edit == min(stochastic, int(steps * value))


def check_batches(value: Any, settings: RlSettings, every: dict[str, Any]) -> None:
    """Batches of all GPUs make up the iteration's edits."""
    assert value * every["gpus"] * every["micro-batch a GPU"] == settings.tasks * settings.members


def check_micro_batch(value: Any, settings: RlSettings, every: dict[str, Any]) -> None:
    assert settings.micro_batch == value
    if isinstance(settings.algorithm, NftSettings):
        assert settings.forward_batch == value, "its losses are means over the valid edits of such a batch"
    else:
        assert settings.forward_batch is None, "means over batches of one size: every edit counts alike"


def check_mask(value: Any, settings: RlSettings, every: dict[str, Any]) -> None:
    assert value == "group std > 0.05 and mean < 0.9"
    assert (settings.mask_solved, settings.solved_spread, settings.solved_mean) == (True, 0.05, 0.9)


def check_passes(value: Any, settings: RlSettings, every: dict[str, Any]) -> None:
    batches, times = every["batches a GPU and epoch"], nft(settings).levels
    assert value == f"{batches} x {times} = {batches * times}"
    assert settings.optimiser_steps == 1


def check_accumulation(value: Any, settings: RlSettings, every: dict[str, Any]) -> None:
    if "batch a forward" in every:
        accumulated = every["batch a GPU"] // every["batch a forward"] // every["optimiser steps a sampling"]
        assert value == f"{accumulated} x {grpo(settings).levels_per_edit} steps"
    else:
        batches = every["batches a GPU and epoch"] // every["optimiser steps an epoch"]
        steps = grpo(settings).levels_per_edit
        assert value in (batches, f"{batches} batches x {steps} steps")


def check_reward(value: Any, settings: RlSettings, every: dict[str, Any]) -> None:
    """Named in the preset's comment."""
    names = {
        "edit-r1": ["mllm_score_continue", "Qwen2.5-VL-32B-Instruct"],
        "flow-grpo": ["similarity", "GenEval"],
        "editscore": ["EditScore-7B", "overall / 10"],
        "diffusionnft sd3_ocr": ["OCR"],
        "diffusionnft sd3_multi_reward": ["PickScore", "HPSv2", "CLIPScore"],
        "diffusionnft sd3_geneval": ["GenEval", "PickScore", "HPSv2"],
    }
    title = next(name for name, values in PUBLISHED.items() if values["values"] is every)
    text = (PRESETS / f"{OURS[title]}.yaml").read_text()
    comment = " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
    wanted = next(words for start, words in names.items() if title.startswith(start))
    assert all(word in comment for word in wanted)
    assert PUBLISHED[title]["repository"] in comment
    commit = PUBLISHED[title]["commit"][:7]
    assert commit in comment


MAPPED: dict[str, Check] = {
    "seed": equals("seed"),
    "epochs": equals("iterations"),
    "max steps": lambda value, ours, every: equals("iterations", ours.optimiser_steps or 1)(value, ours, every),
    "save every epochs": equals("checkpoint_every"),
    "checkpoint every steps": lambda value, ours, every: equals("checkpoint_every", ours.optimiser_steps or 1)(
        value, ours, every
    ),
    "evaluate every epochs": equals("evaluate_every"),
    "resolution": lambda value, ours, every: equals("area")(value**2, ours, every),
    "largest output pixels": equals("area"),
    "largest source pixels": equals("area"),
    "rollout steps": equals("sampling_steps"),
    "evaluation steps": equals("evaluation_steps"),
    "solver": equals("algorithm.solver"),
    "deterministic rollout": says(True, where=lambda ours: isinstance(ours.algorithm, NftSettings)),
    "rollout policy": says("the `old` adapter", where=lambda ours: isinstance(ours.algorithm, NftSettings)),
    "groups an epoch": equals("tasks"),
    "groups a sampling": equals("tasks"),
    "edits a group": equals("members"),
    "global batch": lambda value, ours, every: equals("tasks", ours.members)(value, ours, every),
    "std": says(
        "all rewards of the epoch (global_std)",
        "all rewards of the epoch",
        "group",
        where=lambda ours: (ours.advantage_scale, ours.advantage_epsilon) in (("batch", 1e-4), ("group", 1e-8)),
    ),
    "largest advantage": lambda value, ours, every: check_largest_advantage(value, ours),
    "nft beta": equals("algorithm.beta"),
    "kl": equals("kl"),
    "old policy schedule": check_old_policy,
    "time fraction": check_time_fraction,
    "trained times a sample": says(
        "5 of the rollout's 6, random for each sample",
        where=lambda ours: (nft(ours).levels, nft(ours).times, ours.sampling_steps) == (5, "rollout", 6),
    ),
    "optimiser steps an epoch": equals("optimiser_steps"),
    "optimiser steps a sampling": equals("optimiser_steps"),
    "inner epochs": says(1, where=lambda ours: True),
    "samples reused": says(1, where=lambda ours: True),
    "optimiser": check_optimiser,
    "lora": check_lora,
    "ema": check_ema,
    "reward": check_reward,
    "micro-batch a GPU": check_micro_batch,
    "batches a GPU and epoch": check_batches,
    "backward passes an optimiser step": check_passes,
    "gradient accumulation": check_accumulation,
    "batch a forward": lambda value, ours, every: check_forward_batch(value, ours),
    "batch a GPU": says(18, where=lambda ours: ours.tasks * ours.members % 18 == 0),
    "mask": check_mask,
    "ban": says("std < 0.05 and mean > 0.9", where=lambda ours: (ours.solved_spread, ours.solved_mean) == (0.05, 0.9)),
    "group key": says(
        "decoded instruction",
        "instruction and picture path",
        where=lambda ours: ours.group_by == ("instruction" if ours.algorithm.name == "nft" else "task"),
    ),
    "silent samples": says(
        "those whose advantage is 0 are dropped (some kept so that the rest divides by the batches)",
        where=lambda ours: not ours.train_silent,
    ),
    "advantage mode": says("all", where=lambda ours: ours.train_silent and not ours.best_members),
    "clip": lambda value, ours, every: check_clip(value, ours),
    "noise level": equals("algorithm.noise"),
    "sde": says(
        "every step stochastic (Flow-SDE)",
        "every step, rate 0.7 sqrt((1 - t)/t)",
        where=lambda ours: (grpo(ours).step, grpo(ours).window) == ("flow-sde", ours.sampling_steps),
    ),
    "sde window": says(
        # Of a window of 0 the code makes (0, steps - 1): the last step, close to the image, has no noise.
        "0: every step stochastic",
        # (0, 5) is the range that the code draws the window in, whole: its start is 0 or 1.
        "4 consecutive steps, start drawn in 0 to 5",
        where=lambda ours: (
            (grpo(ours).step, grpo(ours).window_kind, grpo(ours).window, grpo(ours).window_range)
            in (("flow-sde", "fixed", 9, 9), ("flow-sde", "random", 4, 5))
        ),
    ),
    "trained steps": says(
        "the first 5 of 6, in order",
        "12 of 20, drawn anew for every forward batch",
        where=lambda ours: (
            (grpo(ours).levels_per_edit, grpo(ours).window, grpo(ours).trained_kind)
            in ((5, 6, "first"), (12, 20, "random"))
        ),
    ),
    "reweighting": says(True, where=lambda ours: grpo(ours).reweighting == "published"),
    "guidance": says(
        "embedded 2.5 (in rollout, training and reference)",
        "embedded 2.5",
        "true_cfg_scale 4",
        "true_cfg_scale 1.0 (no negative branch), guidance_scale 1.0",
        1.0,
        where=lambda ours: ours.guidance in (2.5, 4.0, 1.0),
    ),
    "text guidance": equals("guidance"),
    "image guidance": lambda value, ours, every: check_image_guidance(value),
    "guided steps": lambda value, ours, every: check_guided_steps(value, ours),
    "guidance in training": says(True, where=lambda ours: ours.guidance == 4.0),
    "time shift base": lambda value, ours, every: check_time_shift(value, ours),
    "precision": says("bf16", "fp16", where=lambda ours: ours.precision == "bf16"),
    "checkpointing": says(True, where=lambda ours: ours.gradient_checkpointing),
}
NOT_COMPARED = {
    "editor": "the stage's parameter, not the preset's",
    "gpus": "the stage's parameter; a training does not depend on it",
    "source crop": "sources keep their aspect ratio here, at as many pixels",
    "noise level (unused by dpm2)": "a deterministic solver has none",
    "text length": "a setting of the editor: text_tokens",
    "text tokens": "a setting of the editor: text_tokens",
    "largest side": "a setting of the editor: longest_side",
    "negative": "a setting of the editor; here it goes under OmniGen2's own system text",
    "data": "the stage's input",
    "sharding": "an adapter's frozen base is whole on each GPU here; no result depends on it",
}
"""Reason by key."""
PRECISE_GUIDANCE = {
    "edit-r1": 2.5,
    "edit-r1-qwen": 1.0,
    "flow-grpo": 2.5,
    "flow-grpo-qwen": 4.0,
    "flow-grpo-fast": 4.0,
    "diffusion-nft": 1.0,
    "diffusion-nft-ocr": 1.0,
    "diffusion-nft-multi": 1.0,
}
FORMS = {
    "edit-r1": ("batch", 1e-4, True),
    "edit-r1-qwen": ("batch", 1e-4, True),
    "diffusion-nft": ("batch", 1e-4, True),
    "diffusion-nft-ocr": ("batch", 1e-4, True),
    "diffusion-nft-multi": ("batch", 1e-4, True),
    "flow-grpo": ("batch", 1e-4, False),
    "flow-grpo-qwen": ("batch", 1e-4, False),
    "flow-grpo-fast": ("batch", 1e-4, False),
    "editscore-omnigen2": ("group", 1e-8, True),
    "editscore-omnigen2-single": ("group", 1e-8, True),
}
"""Whose deviation, what is added to it (rl.json, `advantages`), and whether silent groups are trained on."""


def check_largest_advantage(value: float, settings: RlSettings) -> None:
    assert value == LARGEST_ADVANTAGE
    if isinstance(settings.algorithm, NftSettings):
        assert settings.algorithm.advantage_clip == value


def check_clip(value: Any, settings: RlSettings) -> None:
    assert list(grpo(settings).ratio_clip) == (value if isinstance(value, list) else [value, value])


def check_forward_batch(value: int, settings: RlSettings) -> None:
    assert (settings.forward_batch, settings.micro_batch) == (value, value)


def check_image_guidance(value: float) -> None:
    assert read_editor_preset("omnigen2").image_guidance == value


def check_guided_steps(value: str, settings: RlSettings) -> None:
    assert value == "i/20 in [0, 0.6]"
    assert (grpo(settings).guidance_share, settings.sampling_steps) == (0.6, 20)


def check_time_shift(value: int, settings: RlSettings) -> None:
    """The editor's own noise levels are shifted by the side in latent pixels over SHIFT_SIDE."""
    assert settings.sigma_shift == pytest.approx(SHIFT_SIDE * 8 / value)


@pytest.mark.parametrize("title", OURS)
def test_a_preset_with_a_recipes_name_has_its_values(title: str) -> None:
    values, settings = PUBLISHED[title]["values"], read_rl_preset(OURS[title])
    for key, value in values.items():
        if key in NOT_COMPARED:
            continue
        assert key in MAPPED, f"{key}: neither compared with our settings nor listed with a reason"
        MAPPED[key](value, settings, values)
    if OURS[title] in PRECISE_GUIDANCE:
        assert settings.guidance == PRECISE_GUIDANCE[OURS[title]]
    form = settings.advantage_scale, settings.advantage_epsilon, settings.train_silent
    assert form == FORMS[OURS[title]]
    assert math.isclose(settings.kl, values["kl"])
    assert settings.missing_over
    assert settings.combination == "normalised"


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("kontext", ["edit-r1", "flow-grpo"]),
        ("qwen-edit-plus", ["edit-r1-qwen", "flow-grpo-qwen", "flow-grpo-fast"]),
        ("omnigen2", ["editscore-omnigen2", "editscore-omnigen2-single"]),
    ],
)
def test_the_recipes_editor_has_the_layers_of_its_adapter(kind: str, names: list[str], tmp_path: Path) -> None:
    outline = outline_editor(write_tiny_editor(kind, tmp_path / kind))
    for name in names:
        assert outline.adapter_layers(read_rl_preset(name).targets or None)


def test_every_published_preset_is_ours_or_left_out_and_every_key_is_used() -> None:
    assert set(PUBLISHED) == set(OURS) | set(WITHOUT)
    assert not set(MAPPED) & set(NOT_COMPARED)
    keys = {key for title in OURS for key in PUBLISHED[title]["values"]}
    assert set(MAPPED) | set(NOT_COMPARED) == keys


def test_a_value_that_differs_is_seen() -> None:
    """Each key that is compared with a number fails once either side changes."""
    title = "edit-r1 kontext (kontext_mllm_reward_ban_prompt)"
    values = PUBLISHED[title]["values"]
    settings = read_rl_preset("edit-r1")
    for key in ("edits a group", "kl", "rollout steps", "optimiser steps an epoch", "largest advantage", "resolution"):
        with pytest.raises(AssertionError):
            MAPPED[key](values[key] * 2 + 1, settings, values)
    for key in ("group key", "mask", "std", "old policy schedule", "guidance"):
        with pytest.raises((AssertionError, KeyError)):
            MAPPED[key]({"type": 0, "rule": ""} if key == "old policy schedule" else "another", settings, values)

"""EditReward with shared prefixes against the plain way of its reference code: one full pass a candidate and axis.

A model of the real classes at a middle size (about three million parameters), in the proportions of a real one at
448 x 448 pixels: the vision tower takes a third of the language model's time for a picture, a picture is 64 tokens (for
256), and rubrics are cut to as many as a picture, which is longer than they are beside a real one. Same weights, one
thread.

    python -m tests.performance.reward_speed plain 4      # peak memory of one step of one way, for the benchmark
"""

import gc
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from tests.performance.bench import Benchmark, peak_megabytes

SIDE = 64
RUBRIC_SHARE = 0.42
"""Of the words of our own rubrics, so that one has the 64 tokens of a picture."""
INSTRUCTIONS = (
    "make the roof of the small house red",
    "add a boat to the lake",
    "remove the left chair",
    "draw it in ink",
    "paint the fence white",
    "turn day into night",
    "let it snow",
    "remove the tall tree on the right",
)


def cut(rubric: str) -> str:
    """The same share of every paragraph but the one that is the instruction."""
    parts = []
    for part in rubric.split("\n\n"):
        words = part.split()
        parts.append(part if "{instruction}" in part else " ".join(words[: round(RUBRIC_SHARE * len(words))]))
    return "\n\n".join(parts)


@cache
def models(order: Any) -> tuple[Any, Any]:
    """The reward model of an order, and its weights behind plain passes."""
    import torch
    from transformers import Qwen2_5_VLModel

    from editloop.models.edit_reward.model import RewardModel
    from editloop.models.edit_reward.settings import WORDING, RewardSettings
    from editloop.studies.tiny_models.backbone import byte_tokenizer, tiny_config
    from tests.plain_passes import PlainPasses

    torch.set_num_threads(1)
    torch.manual_seed(0)
    rubrics = {order: tuple(map(cut, wording)) for order, wording in WORDING.items()}
    texts = [rubric for wording in rubrics.values() for rubric in wording]
    tokenizer = byte_tokenizer([*texts, *INSTRUCTIONS, *(f" {one}" for one in INSTRUCTIONS)])
    config = tiny_config("qwen2.5-vl", tokenizer, width=256, layers=4, heads=2, vision_layers=1)
    config.text_config.rope_parameters["mrope_section"] = [16, 24, 24]
    config.vision_config.hidden_size, config.vision_config.intermediate_size, config.vision_config.num_heads = (
        128,
        256,
        2,
    )
    settings = RewardSettings(order=order, rubrics=rubrics[order], min_pixels=SIDE**2, max_pixels=SIDE**2)
    model = RewardModel(Qwen2_5_VLModel(config), tokenizer, settings).eval()
    return model, PlainPasses(model, share=True)


def tasks(count: int, candidates: int) -> list[Any]:
    from editloop.models.judge_protocol import EditGroup

    rng = np.random.default_rng(0)
    found = []
    for instruction in INSTRUCTIONS[:count]:
        source, *edits = rng.integers(0, 256, (candidates + 1, SIDE, SIDE, 3), dtype=np.uint8)
        found.append(EditGroup(instruction, source, edits))
    return found


def batched(plain: Any, groups: list[Any]) -> Any:
    """Plain passes: for each task and axis one batch of its candidates, all of it anew. (N, axes, width)."""
    import torch

    found = []
    for group in groups:
        rows = [plain.inputs(group.instruction, group.source, edit) for edit in group.edits]
        batches = [
            {name: torch.cat([row[k][name] for row in rows]) for name in rows[0][k]} for k in range(len(rows[0]))
        ]
        last = [plain.backbone(**batch, use_cache=False).last_hidden_state for batch in batches]
        axes = len(plain.settings.axes)
        found.append(torch.stack([one[:, -1] for one in last], 1) if len(last) > 1 else last[0][:, -axes:])
    return torch.cat(found)


def step_of(order: str, way: str, groups: list[Any]) -> Callable[[], Any]:
    """Forward and backward of the groups' scores; gives the hidden states at the reward tokens."""
    model, plain = models(order)

    def step() -> Any:
        hidden = batched(plain, groups) if way == "plain" else model.hidden(model.collate(groups))
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.zero_()
        model.read(hidden).mu.sum().backward()
        return hidden.detach()

    return step


def score_ways(count: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Scores of one task, (plain, ours)."""
    import torch

    model, plain = models("official")
    groups = tasks(1, count)

    def alone() -> Any:
        with torch.no_grad():
            return model.read(batched(plain, groups)).mu

    return alone, lambda: model.score(groups).mu


def near(one: Any, other: Any) -> bool:
    return bool((one - other).abs().max() <= 2e-5)


def step(count: int, target: float) -> Callable[[], Benchmark]:
    def make() -> Benchmark:
        groups = tasks(1, count)
        plain, ours = (step_of("official", way, groups) for way in ("plain", "ours"))
        return Benchmark(
            f"edit-reward: forward and backward, official order, K={count}", plain, ours, target, same=near
        )

    return make


def score(count: int, target: float) -> Callable[[], Benchmark]:
    def make() -> Benchmark:
        return Benchmark(f"edit-reward: scoring, official order, K={count}", *score_ways(count), target, same=near)

    return make


def rubric_first(count: int, target: float) -> Callable[[], Benchmark]:
    """Another model, so another answer: its order is ours. Its rubrics come once a batch, here of eight tasks."""

    def make() -> Benchmark:
        groups = tasks(len(INSTRUCTIONS), count)
        plain, ours = step_of("official", "plain", groups), step_of("rubric-first", "ours", groups)
        name = f"edit-reward: forward and backward, rubric first against plain official, {len(groups)} tasks, K={count}"
        return Benchmark(name, plain, ours, target)

    return make


def order_alone(count: int, target: float) -> Callable[[], Benchmark]:
    """Plain passes both times: an order that reads all axes in one pass, against a pass an axis."""

    def make() -> Benchmark:
        groups = tasks(len(INSTRUCTIONS), count)
        plain, ours = (step_of(order, "plain", groups) for order in ("official", "rubric-first"))
        return Benchmark(
            f"edit-reward: of that, what the order alone gives, {len(groups)} tasks, K={count}", plain, ours, target
        )

    return make


def counts(what: str, count: int, target: float) -> Callable[[], Benchmark]:
    """Pictures through the vision tower, or tokens through the language model, of one group."""

    def make() -> Benchmark:
        model, plain = models("official")
        [group] = tasks(1, count)
        part = "image_grid_thw" if what == "pictures" else "input_ids"

        def size(tensor: Any) -> int:
            return len(tensor) if what == "pictures" else tensor.numel()

        rows = [one for edit in group.edits for one in plain.inputs(group.instruction, group.source, edit)]
        return Benchmark(
            f"edit-reward: {what}, official order, K={count}",
            lambda: sum(size(row[part]) for row in rows),
            lambda: size(model.collate([group])[part]),
            target=target,
            counted=True,
        )

    return make


def memory(count: int, target: float) -> Callable[[], Benchmark]:
    """Peak memory above model and gradients, each way in a process of its own."""

    def grown(way: str) -> float:
        call = [sys.executable, "-m", "tests.performance.reward_speed", way, str(count)]
        return float(subprocess.run(call, check=True, capture_output=True, text=True).stdout.split()[-1])

    def make() -> Benchmark:
        name = f"edit-reward: peak memory of a step, official order, K={count}, MB"
        return Benchmark(name, lambda: grown("plain"), lambda: grown("ours"), target=target, counted=True)

    return make


def resident_megabytes() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


def main(way: str, count: int) -> None:
    """Print by how many megabytes one step raised this process's peak."""
    import torch

    model, _ = models("official")
    step = step_of("official", way, tasks(1, count))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    gc.collect()
    before = resident_megabytes()
    step()
    print(peak_megabytes() - before)


BENCHMARKS: tuple[Callable[[], Benchmark], ...] = (
    counts("pictures", 2, 2.6),
    counts("pictures", 4, 3.2),
    counts("tokens", 2, 1.6),
    counts("tokens", 4, 1.8),
    step(2, 1.6),
    step(4, 1.8),
    score(2, 1.6),
    score(4, 1.8),
    memory(4, 1 / 0.6),
    rubric_first(2, 3.2),
    rubric_first(4, 4.0),
    order_alone(4, 1.4),
)

if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

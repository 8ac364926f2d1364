"""The rows of the table, the most telling first. Light: no torch."""

from typing import NamedTuple


class Row(NamedTuple):
    """A measurement that runs in a process of its own."""

    name: str
    title: str
    function: str
    """`module:function` in tests.gpu; it takes Conditions and gives Figures."""
    least_seconds: float
    """With less time left the row is not begun."""
    most_seconds: float
    """It is ended after so many."""
    unless: tuple[str, ...] = ()
    """Rows of which none has succeeded, where this one is to run."""


ROWS = (
    Row("precision", "EditReward, 130 M weights: bfloat16 against float32", "precision_rows:precision", 20, 80),
    Row(
        "rl-kontext",
        "Online RL, FLUX.1 Kontext 12 B, 512x512: an iteration of 8 edits",
        "editor_rows:kontext",
        40,
        110,
    ),
    Row(
        "reward-training",
        "EditReward, Qwen2.5-VL-7B: training with an adapter, shared prefix against plain passes",
        "reward_rows:training",
        40,
        150,
    ),
    Row(
        "reward-scoring",
        "EditReward, Qwen2.5-VL-7B: scoring four edits a task, shared prefix against plain passes",
        "reward_rows:scoring",
        25,
        80,
    ),
    Row("rl-omnigen2", "Online RL, OmniGen2 4 B, 512x512: an iteration of 8 edits", "editor_rows:omnigen2", 30, 90),
    Row(
        "reward-training-qwen3",
        "EditReward, Qwen3-VL-8B: training with an adapter, shared prefix against plain passes",
        "reward_rows:training_qwen3",
        40,
        150,
    ),
    Row(
        "reward-scoring-qwen3",
        "EditReward, Qwen3-VL-8B: scoring four edits a task, shared prefix against plain passes",
        "reward_rows:scoring_qwen3",
        25,
        80,
    ),
    Row(
        "score-average",
        "EditScore, Qwen2.5-VL-7B: Avg@4 from one prefill against separate calls",
        "score_rows:average_of_four",
        40,
        110,
    ),
    Row(
        "offload",
        "EditReward, Qwen2.5-VL-3B: all weights trained, ZeRO-2 and ZeRO-3 with main memory",
        "offload_rows:offload",
        60,
        150,
    ),
    Row(
        "rl-qwen-image-edit",
        "Online RL, Qwen-Image-Edit-Plus 20 B, 256x256: an iteration of 8 edits",
        "editor_rows:qwen_image_edit",
        45,
        120,
    ),
    Row(
        "rl-klein",
        "Online RL, FLUX.2 Klein 4 B, 768x768: an iteration of 8 edits",
        "editor_rows:klein",
        30,
        90,
        unless=("rl-qwen-image-edit",),
    ),
    Row("resume", "EditReward, 130 M weights: stopped by SIGTERM and gone on with", "precision_rows:resume", 25, 90),
)


def row_named(name: str) -> Row:
    """The row of this name."""
    return next(row for row in ROWS if row.name == name)

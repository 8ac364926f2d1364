"""A rank that opens a judge spread over all ranks, scores with it, and says how much memory that took at most.

torchrun --nproc-per-node 2 -m tests.spread_judges FOLDER/job    # reads FOLDER/base, writes FOLDER/RANK.json

Counted is the rank's resident memory, above what it was after the libraries and a first small judge had taken theirs:
its own pages, and those of the one file that is mapped while a tensor is read.
"""

import gc
import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import psutil
import torch
import torch.distributed as distributed

from editloop.environment import environment_variables
from editloop.errors import EditLoopError
from editloop.models.backbones.spreading import enable_spread_passes, is_spread, whole_shape
from editloop.models.backbones.weight_files import TensorOutline, write_weights
from editloop.models.edit_reward.checkpoints import new_reward_token
from editloop.models.edit_reward.model import RewardModel
from editloop.models.edit_reward.settings import RewardSettings
from editloop.models.judge_protocol import EditGroup
from editloop.scoring.opening import open_judge
from editloop.studies.tiny_models import backbone
from editloop.training.checkpoint import BEST, STATE, save_best
from editloop.training.distributed import end_rank, start_rank
from editloop.training.engine import start_engine
from editloop.training.launch import launch_ranks
from editloop.training.peak_memory import peak_megabytes
from editloop.training.settings import TrainingSettings
from editloop.training.spread_judge import spread_judge
from editloop.training.trained_backbone import write_trained_backbone
from editloop.training.training_task import ParameterGroup

SETTINGS = RewardSettings(order="paired", side=32, rubrics=(), opening="")
MIB = 2**20
GREY = np.full((16, 16, 3), 128, np.uint8)


class Peaks(NamedTuple):
    """MiB of one rank."""

    shard: float
    """Of its part of the weights."""
    largest: float
    """Of the largest tensor."""
    opened: float
    """The most while the judge was opened."""
    saved: float
    """The most while its trained weights were written, above what it held before."""
    scores: list[float]


def write_base(folder: Path, width: int, layers: int) -> None:
    """Write a Qwen2.5-VL of random weights, in bfloat16, that knows no `<|Reward|>`, a tensor at a time."""
    from transformers import Qwen2_5_VLModel

    with patch.object(backbone, "SPECIAL", backbone.SPECIAL[:-1]):
        tokenizer = backbone.byte_tokenizer()
    assert "<|Reward|>" not in tokenizer.all_special_tokens
    config = backbone.tiny_config("qwen2.5-vl", tokenizer, width=width, layers=layers, heads=width // 32)
    with torch.device("meta"):
        outline = {
            name: TensorOutline(tuple(one.shape), torch.bfloat16)
            for name, one in Qwen2_5_VLModel(config).named_parameters()
        }
    generator = torch.Generator().manual_seed(0)

    def values() -> Iterator[tuple[str, torch.Tensor]]:
        for name, one in outline.items():
            drawn = torch.randn(one.shape, generator=generator) * 0.02
            yield name, drawn + 1 if len(one.shape) == 1 and name.endswith("weight") else drawn

    folder.mkdir()
    tokenizer.save_pretrained(folder)
    config.save_pretrained(folder)
    write_weights(folder, outline, values())


@contextmanager
def peak() -> Iterator[Callable[[], float]]:
    """Gives a function that returns the most MiB since the block began, above those at its beginning."""
    gc.collect()
    before = psutil.Process().memory_info().rss / MIB
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    yield lambda: peak_megabytes() - before


def some_groups() -> list[EditGroup]:
    """A group of two edits."""
    pictures = torch.randint(0, 256, (3, 32, 32, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return [EditGroup("make it red", pictures[0].numpy(), [pictures[1].numpy(), pictures[2].numpy()])]


def open_and_save(base: Path, out: Path) -> Peaks:
    """Open the base spread, save its weights as a training does, and score."""
    with peak() as opened:
        torch.manual_seed(0)
        model = RewardModel.from_base(base, SETTINGS, spread="device").eval()
        opened_peak = opened()
    parameters = list(model.backbone.parameters())
    assert all(map(is_spread, parameters))
    sizes = [4 * math.prod(whole_shape(one)) / MIB for one in parameters]
    settings = TrainingSettings(steps=1, learning_rate=1e-4, zero_stage=3, precision="fp32")
    engine = start_engine(model, [ParameterGroup(model.parameters(), 1.0)], settings, passes=1)
    with peak() as saved:
        save_best(engine, out, 0)
        if distributed.get_rank() == 0:
            state, new_token = out / BEST / STATE, new_reward_token(base)
            write_trained_backbone(base, state, out / "backbone", torch.float32, generates=False, new_token=new_token)
        saved_peak = saved()
    engine.destroy()
    enable_spread_passes(model, "device")
    scores = model.score(some_groups()).mu.flatten().tolist()
    return Peaks(sum(sizes) / distributed.get_world_size(), max(sizes), opened_peak, saved_peak, scores)


def measure(folder: Path) -> list[Peaks]:
    """Write the base into a folder, and return what each of two ranks took."""
    for name, (width, layers) in {"small": (64, 1), "base": (768, 8)}.items():
        write_base(folder / name, width, layers)
    with environment_variables(MALLOC_MMAP_THRESHOLD_="65536", MALLOC_ARENA_MAX="2"):  # freed memory is given back
        launch_ranks("tests.spread_judges", folder / "job", processes=2)
    return [Peaks(**json.loads((folder / f"{rank}.json").read_text())) for rank in range(2)]


def print_answers() -> None:
    """Print what a judge over two processes says, and one in this process alone, as JSON."""
    alone, groups = open_judge("tiny-score", device="cpu", passes=1), [EditGroup("red", GREY, [GREY // 2])]
    found: dict[str, object] = {"alone": [score.answers for score in alone.judge(groups)[0]]}
    with spread_judge("tiny-score", processes=2, passes=1) as judge:
        assert judge.version == alone.version
        (other,) = psutil.Process().children()
        found["other"] = other.pid
        found["refused"] = _error_of(lambda: judge.judge([EditGroup("red", GREY[..., :2], [GREY])]))
        found["spread"] = [score.answers for score in judge.judge(groups)[0]]
    found["again"] = _error_of(lambda: spread_judge("tiny-score", processes=2).__enter__())
    print(json.dumps(found))


def _error_of(call: Callable[[], object]) -> str:
    try:
        call()
    except EditLoopError as error:
        return str(error)
    return ""


def main(folder: Path) -> None:
    """Measure the base, after a small one has been through the same."""
    start_rank()
    open_and_save(folder / "small", folder / "small-out")
    peaks = open_and_save(folder / "base", folder / "out")
    (folder / f"{distributed.get_rank()}.json").write_text(json.dumps(peaks._asdict()))
    end_rank()


if __name__ == "__main__":
    main(Path(sys.argv[1]).parent)

"""A small world in float64 for tests of the shipped RL loop: an affine editor, a smooth judge, and plain SGD.

Latents are pictures, and neither is rounded to pixels, so that what the loop computes can be compared with the papers'
formulas. A job of one rank needs no other process.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as distributed
from PIL import Image
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from editloop.data.edits_file import EditRow
from editloop.models.editors.protocol import Conditioning
from editloop.models.judge_protocol import AxisScore, EditGroup, Score
from editloop.training.editor_rl.loop import Training
from editloop.training.editor_rl.prompts import Prompts
from editloop.training.editor_rl.scoring import RewardJudges
from editloop.training.editor_rl.settings import RlJob, RlSettings
from editloop.training.encoding_store import EncodingStore
from editloop.training.training_task import ParameterGroup

TOKENS, CHANNELS = 4, 3
SIZE = (16, 16)
GOALS = [[0.8, -0.4, 0.2], [-0.5, 0.1, 0.6], [0.3, 0.9, -0.7], [-0.2, -0.6, 0.4], [0.0, 0.5, 0.5]]
"""A task each: what the mean over an edit's tokens should be."""


def start_weights() -> list[Tensor]:
    """The editor before any training: of the latents, of the goal, of the noise level."""
    weight = torch.arange(9, dtype=torch.float64).view(3, 3) / 20
    mixed = torch.arange(9, 0, -1, dtype=torch.float64).view(3, 3) / 30 - 0.1
    return [weight, mixed, torch.tensor([0.1, -0.2, 0.05], dtype=torch.float64)]


class AffineEditor:
    """velocity = x W + goal M + sigma b (+ guidance - 1)."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.network = nn.Module()
        self.trained = [nn.Parameter(value) for value in start_weights()]
        for name, parameter in zip(("weight", "mixed", "bias"), self.trained, strict=True):
            self.network.register_parameter(name, parameter)

    def size_for(self, height: int, width: int, area: int | None = None) -> tuple[int, int]:
        return SIZE

    def encoders_at_hand(self) -> AbstractContextManager[None]:
        return nullcontext()

    def sigmas(self, steps: int, size: tuple[int, int]) -> Tensor:
        return torch.linspace(1, 0, steps + 1, dtype=torch.float64)

    def encode(self, instructions: Sequence[str], sources: Any) -> Conditioning:
        goals = [[float(word) for word in one.split()] for one in instructions]
        return Conditioning(SIZE, {"goal": torch.tensor(goals, dtype=torch.float64)[:, None]})

    def noise(self, count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        return torch.randn(count, TOKENS, CHANNELS, generator=generator).double()

    def velocity(self, x: Tensor, sigma: Tensor, condition: Conditioning, guidance: float | None = None) -> Tensor:
        weight, mixed, bias = self.trained
        along = x.double() @ weight + condition.parts["goal"] @ mixed + sigma.double()[:, None, None] * bias
        return along if guidance is None else along + (guidance - 1)

    def decode(self, x: Tensor, size: tuple[int, int]) -> Any:
        return x.numpy()

    def merged(self) -> AbstractContextManager[None]:
        return nullcontext()

    @contextmanager
    def base(self) -> Iterator[None]:
        now = [parameter.data for parameter in self.trained]
        try:
            for parameter, value in zip(self.trained, start_weights(), strict=True):
                parameter.data = value
            yield
        finally:
            for parameter, value in zip(self.trained, now, strict=True):
                parameter.data = value


def closeness(edit: Any, goal: Sequence[float]) -> float:
    """Reward of an edit (TOKENS, CHANNELS), 0..1."""
    return float(np.exp(-np.square(np.asarray(edit).mean(0) - np.asarray(goal)).mean()))


class ClosenessJudge:
    """`closeness`, or `sharpness` times it; edits in `lost` (task id, member) have no score."""

    name = version = "closeness"
    axes = ("one",)

    def __init__(self, sharpness: float = 1.0, lost: frozenset[tuple[str, int]] = frozenset()):
        self.sharpness, self.lost = sharpness, lost

    def judge(self, groups: Sequence[EditGroup]) -> list[list[Score]]:
        return [[self._score(group, member) for member in range(len(group.edits))] for group in groups]

    def _score(self, group: EditGroup, member: int) -> Score:
        if (group.key, member) in self.lost:
            return Score(missing="lost")
        value = closeness(group.edits[member], [float(word) for word in group.instruction.split()]) ** self.sharpness
        return Score({"one": AxisScore(value, 0.0)}, AxisScore(value, 0.0), value, value)


class PlainEngine:
    """Stochastic gradient descent in DeepSpeed's place, with what checkpoints ask of it."""

    def __init__(self, network: nn.Module, groups: list[ParameterGroup], settings: RlSettings, **options: Any):
        self.module, self.trained = network, list(groups[0].parameters)
        self.rate, self.norm = settings.learning_rate, 0.0

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self) -> None:
        self.norm = float(torch.stack([one.grad.square().sum() for one in self.trained]).sum().sqrt())
        for parameter in self.trained:
            parameter.data -= self.rate * parameter.grad
            parameter.grad = None

    def get_global_grad_norm(self) -> float:
        return self.norm

    def zero_optimization_stage(self) -> int:
        return 2

    def save_checkpoint(self, folder: str, tag: str, **options: bool) -> None:
        (Path(folder) / tag).mkdir()
        torch.save(self.module.state_dict(), Path(folder) / tag / "weights")

    def load_checkpoint(self, folder: str, tag: str, **options: bool) -> tuple[str, dict[str, Any]]:
        self.module.load_state_dict(torch.load(Path(folder) / tag / "weights", weights_only=True))
        return folder, {}


class Fetches(TorchDispatchMode):
    """Counts the values that are fetched from tensors in its block. On a GPU each waits for all work so far."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@contextmanager
def one_rank() -> Iterator[None]:
    """A job of one rank in this process."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def toy_rows(folder: Path) -> list[EditRow]:
    """A task for each of GOALS."""
    Image.new("RGB", SIZE).save(folder / "source.png")
    return [
        EditRow(f"task {place}", "edit", " ".join(map(str, goal)), folder / "source.png")
        for place, goal in enumerate(GOALS)
    ]


def toy_training(
    folder: Path,
    settings: RlSettings,
    judges: dict[str, ClosenessJudge],
    weights: dict[str, float] | None = None,
    checkpoints: str = "checkpoints",
) -> Training:
    """The shipped training of the toy, in a rank that has started; `folder` gets its checkpoints.

    The caller has put PlainEngine in the place of `editloop.training.editor_rl.loop.start_engine`.
    """
    rows, editor = toy_rows(folder), AffineEditor()
    rewards = weights or dict.fromkeys(judges, 1.0)
    folders = {"edits": folder, "output": folder, "checkpoints": folder / checkpoints}
    job = RlJob(editor="affine", rewards=rewards, settings=settings, **folders)
    store = EncodingStore(folder / "encodings", most_bytes=0)
    prompts = Prompts(rows, editor, store, seed=settings.seed)  # type: ignore[arg-type]
    return Training(job, editor, editor.trained, prompts, RewardJudges(judges, patience=0.0))  # type: ignore[arg-type]

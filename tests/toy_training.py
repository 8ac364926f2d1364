"""A small lesson for tests of the training loop: a rank of a job that learns a sum of sines.

torchrun --nproc-per-node 2 -m tests.toy_training jobs.json
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as distributed
from torch import Tensor, nn

from editloop.errors import EditLoopError
from editloop.training.distributed import end_rank, start_rank
from editloop.training.loop import train
from editloop.training.settings import TrainingSettings
from editloop.training.training_task import Batch, ParameterGroup, Split

ROWS = {"train": 40, "validation": 13}


class Net(nn.Module):
    def __init__(self, dropout: float):
        super().__init__()
        self.base, self.dropout, self.head = nn.Linear(6, 32), nn.Dropout(dropout), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(torch.tanh(self.base(x.to(self.base.weight.dtype)))))


class Toy:
    """`spoilt` is a training row that holds NaN; `slow` seconds are slept a pass, so that a signal hits the middle."""

    def __init__(self, dropout: float = 0.2, frozen: bool = False, spoilt: int | None = None, slow: float = 0.0):
        torch.manual_seed(1)
        self.model, self.slow = Net(dropout), slow
        self.model.base.requires_grad_(not frozen)
        self.x = torch.tensor(np.random.default_rng(0).normal(size=(sum(ROWS.values()), 6)), dtype=torch.float32)
        self.y = self.x.sin().sum(1, keepdim=True)
        if spoilt is not None:
            self.x[spoilt] = float("nan")

    def parameter_groups(self) -> list[ParameterGroup]:
        base = [one for one in self.model.base.parameters() if one.requires_grad]
        groups = [ParameterGroup(list(self.model.head.parameters()), 1.0)]
        return [*groups, ParameterGroup(base, 0.3)] if base else groups

    def count(self, split: Split) -> int:
        return ROWS[split]

    def name(self, split: Split, unit: int) -> str:
        return f"row {unit}"

    def batch(self, split: Split, units: Sequence[int]) -> Batch:
        rows = torch.tensor(units) + (0 if split == "train" else ROWS["train"])
        return Batch({"x": self.x[rows], "y": self.y[rows]}, float(len(units)), len(units))

    def loss(self, engine: Any, batch: Batch) -> Tensor:
        time.sleep(self.slow)
        return (engine(batch.tensors["x"]).float() - batch.tensors["y"]).square().mean()

    def measure(self, engine: Any, batch: Batch) -> dict[str, float]:
        errors = (engine(batch.tensors["x"]).float() - batch.tensors["y"]).square()
        return {"squares": float(errors.sum()), "rows": float(len(errors))}

    def figures(self, sums: dict[str, float]) -> dict[str, float]:
        return {"loss": sums["squares"] / sums["rows"]}


def main(jobs: list[dict[str, Any]]) -> None:
    """Train one job after the other: starting processes is what takes time. An error is written down."""
    start_rank()
    for job in jobs:
        settings = TrainingSettings.model_validate(job["settings"])
        try:
            trained = train(Toy(**job["toy"]), settings, Path(job["folder"]), facts={"data": "sines"})
            told = {"state": str(trained.state), **trained.history}
        except EditLoopError as error:
            told = {"error": str(error)}
        if distributed.get_rank() == 0:
            Path(job["out"]).write_text(json.dumps(told))
    end_rank()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))

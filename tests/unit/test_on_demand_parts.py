"""A part that several threads use at a time is read once."""

import time
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

from editloop.models.editors.on_demand import OnDemandParts


class Pipeline:
    """A pipeline without parts."""

    def register_modules(self, **parts: nn.Module) -> None:
        vars(self).update(parts)


def test_two_threads_read_a_part_once() -> None:
    reads: list[int] = []

    def read() -> nn.Module:
        reads.append(1)
        time.sleep(0.05)
        return nn.Linear(1, 1)

    pipeline = Pipeline()
    parts = OnDemandParts(pipeline, {"vae": read}, torch.device("cpu"))

    def use() -> nn.Module:
        with parts.on_device(["vae"]):
            return pipeline.vae  # type: ignore[attr-defined]  # registered

    with ThreadPoolExecutor(2) as pool:
        used = [use.result() for use in [pool.submit(use), pool.submit(use)]]
    assert len(reads) == 1
    assert used[0] is used[1]

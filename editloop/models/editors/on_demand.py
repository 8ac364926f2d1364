"""Parts of a pipeline that are read where they are first used, and are on the device only while they are used.

Text encoders and the codec take gigabytes that the network's passes need. They are frozen, so nothing is copied back:
their weights stay in main memory, as they were read, and only the copy on the device goes. Weights that are read in the
type they are stored in are the file's own pages, which the processes of a machine share.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class OnDemandParts:
    """Frozen parts of a pipeline, by name."""

    def __init__(self, pipeline: Any, readers: dict[str, Callable[[], nn.Module]], device: torch.device):
        """Take the pipeline, which does not have these parts yet.

        Args:
            pipeline: The diffusers pipeline. A part is registered with it once it is read.
            readers: Functions that read a part into main memory.
            device: Where a part is while it is used.
        """
        self.pipeline, self.device = pipeline, device
        self._lock = threading.RLock()
        self._readers = dict(readers)
        self._users: Counter[str] = Counter()
        self._host: dict[str, list[tuple[Tensor, Tensor]]] = {}

    @property
    def unread(self) -> list[str]:
        """Names of the parts that were never used, sorted."""
        return sorted(self._readers)

    def read(self, name: str) -> None:
        """Read a part into main memory where it is not there yet.

        Args:
            name: Name of the part. A name that is not among these parts is left alone.
        """
        with self._lock:
            if name in self._readers:
                part = self._readers.pop(name)()
                self.pipeline.register_modules(**{name: part})
                self._host[name] = [(tensor, tensor.data) for tensor in (*part.parameters(), *part.buffers())]

    @contextmanager
    def on_device(self, names: Sequence[str]) -> Iterator[None]:
        """Have parts on the device within the block. Blocks may be nested, and may run in several threads at a time.

        Args:
            names: Names of the parts. Names that are not among these parts are left alone.
        """
        entered: list[str] = []
        try:
            for name in names:
                with self._lock:
                    self.read(name)
                    entered.append(name)
                    self._users[name] += 1
                    if self._users[name] == 1:
                        for tensor, host in self._host.get(name, ()):
                            tensor.data = host.to(self.device)
            yield
        finally:
            for name in entered:
                with self._lock:
                    self._users[name] -= 1
                    if not self._users[name]:
                        for tensor, host in self._host.get(name, ()):
                            tensor.data = host

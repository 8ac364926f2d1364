"""torchrun, with a rendezvous for the ranks of one machine that nobody outside it can reach.

python -m editloop.training.agent --rdzv-backend loopback --nproc-per-node 2 -m MODULE ARGUMENTS

torchrun's own rendezvous listens on all of a machine's addresses, whatever address it is given. `loopback` listens on
127.0.0.1. Without it all is as torchrun has it: its options, and its PET_ variables in the pods of a TrainJob.
"""

import os
import socket

from torch._C._distributed_c10d import TCPStore
from torch.distributed.elastic.rendezvous import RendezvousParameters, rendezvous_handler_registry
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous
from torch.distributed.run import main

BACKEND = "loopback"
"""Name of the rendezvous."""
LOOPBACK = "127.0.0.1"
STORE_SECONDS = 600
"""Longest time that a rank waits for a value of the store."""


class LoopbackRendezvous(StaticTCPRendezvous):
    """Rendezvous of one machine's ranks: a store that listens on the loopback only, on a free port."""

    def __init__(self, run_id: str):
        """Start the store.

        Args:
            run_id: torchrun's name of the job.
        """
        listener = socket.create_server((LOOPBACK, 0))
        port: int = listener.getsockname()[1]
        super().__init__(LOOPBACK, port, rank=0, world_size=1, run_id=run_id, timeout=STORE_SECONDS)
        self._store = TCPStore(LOOPBACK, port, is_master=True, timeout=self.timeout, master_listen_fd=listener.detach())

    @classmethod
    def create(cls, parameters: RendezvousParameters) -> "LoopbackRendezvous":
        """Return the rendezvous of a job.

        Args:
            parameters: torchrun's description of the job.
        """
        return cls(parameters.run_id)

    def get_backend(self) -> str:
        return BACKEND


if __name__ == "__main__":
    rendezvous_handler_registry.register(BACKEND, LoopbackRendezvous.create)
    os.environ["EDITLOOP_SUPERVISOR_PID"] = str(os.getpid())  # ranks end with this process, however it ends
    main()

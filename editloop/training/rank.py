"""One rank of a job: run a module, end with the agent that started it, and say in one line why it fails.

python -m editloop.training.rank MODULE ARGUMENTS
"""

import os
import re
import runpy
import sys

from editloop.errors import EditLoopError
from editloop.processes import end_with_supervisor

LOST_CONNECTION = re.compile(
    "connection (closed|reset) by|broken pipe|remote process exited|socket timeout|ncclRemoteError|"
    "timed out waiting|failed to recv",
    re.IGNORECASE,
)
"""What gloo and NCCL say in a rank when another one is gone."""
LOST_RANK = "lost the connection to another rank"
"""What a rank says then."""


def main() -> None:
    """Run the module that the command line names as `__main__`."""
    end_with_supervisor()
    del sys.argv[0]
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except EditLoopError as error:
        sys.exit(f"rank {os.environ['RANK']}: {error}")
    except RuntimeError as error:
        if not LOST_CONNECTION.search(str(error)):
            raise
        print(
            f"rank {os.environ['RANK']}: {LOST_RANK}: its process or its machine has ended. Its own last lines say "
            "why; the same call goes on at the last checkpoint.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)  # the connections cannot be closed in order any more


if __name__ == "__main__":
    main()

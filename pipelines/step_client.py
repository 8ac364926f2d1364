"""Stands in for the Python interpreter of a local run's steps and ranks: the warm worker runs the module it is given.

To those who start and watch it, it is the step: it lasts as long, passes signals on, and ends with the step's status.
Runs by itself, before anything is imported, so it uses the standard library alone:

    python -S -E pipelines/step_client.py SOCKET -m MODULE [ARGUMENT ...]
"""

import ctypes
import json
import os
import signal
import socket
import sys
from types import FrameType
from typing import NoReturn

HEADER_BYTES = 8
"""The request's length comes before it, in so many bytes."""
PR_SET_PDEATHSIG = 1
"""Linux's number of the request for a signal at the parent's death."""
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Let the worker run the module, and return the status that the step ended with."""
    address, *arguments = sys.argv[1:]
    if arguments[:1] == ["-u"]:  # torchrun's; the worker never buffers
        del arguments[0]
    if arguments[:1] != ["-m"]:
        _interpret(arguments)
    request = json.dumps({"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(address)
        except OSError:  # the worker has ended
            _interpret(arguments)

        def forward(number: int, frame: FrameType | None) -> None:
            connection.sendall(bytes([number]))

        socket.send_fds(connection, [len(request).to_bytes(HEADER_BYTES)], [0, 1, 2])
        connection.sendall(request)
        for number in FORWARDED:
            signal.signal(number, forward)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        answer = connection.recv(1)
    return answer[0] if answer else 1


def _interpret(arguments: list[str]) -> NoReturn:
    """Become the interpreter itself."""
    os.execv(sys.executable, [sys.executable, *arguments])


if __name__ == "__main__":
    sys.exit(main())

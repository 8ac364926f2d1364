"""The process that reads requests: JSON, base64 and images, whatever they do to it.

    python -m editloop.scoring.serving.decoding FD BYTES      # started by the server, see `decoder_pool.py`

It reads one request at a time from a socket: the body with its limits. It answers with plain frames: a JSON head, then
each image as the server asks for it, a JSON head and its pixels. What is refused is a head with an HTTP status. The
server kills it where it takes too long. Nothing is pickled.
"""

import hashlib
import json
import resource
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from editloop.data.picture_file import read_picture
from editloop.errors import EditLoopError
from editloop.scoring.server_messages import ScoreRequest, describe_validation_error
from editloop.scoring.server_settings import Limits

PICTURE_MEMORY = 3 * 2**30
"""Bytes that decoding may take beside the body: three times what the largest picture was measured to need."""
BODY_COPIES = 4
"""Copies of a body that are held at once: as received, as text, decoded, and validated."""
NEXT = b"next"
"""The server's message with which it asks for the next image."""


class RequestError(Exception):
    """What is wrong with a request, and the HTTP status that says so."""

    def __init__(self, status: int, reason: str):
        """Create the error.

        Args:
            status: The HTTP status.
            reason: What is wrong, for the client.
        """
        super().__init__(reason)
        self.status = status


def parse_request(body: bytes, limits: Limits) -> ScoreRequest:
    """Return a request whose images are not decoded yet.

    Args:
        body: The request's body.
        limits: Numbers of edits and of the instruction's characters.

    Raises:
        RequestError: It is not a request, or beyond the limits.
    """
    try:
        request = ScoreRequest.model_validate_json(body)
    except ValidationError as error:
        raise RequestError(422, describe_validation_error(error)) from None
    if len(request.edits) > limits.edits:
        raise RequestError(413, f"edits: {len(request.edits)} pictures; at most {limits.edits} a request")
    if len(request.instruction) > limits.instruction_characters:
        raise RequestError(
            422, f"instruction: {len(request.instruction):,} characters; at most {limits.instruction_characters:,}"
        )
    return request


def decode_requests(pipe: Connection) -> None:
    """Read requests until the pipe is closed.

    Args:
        pipe: Connection to the server.
    """
    pipe.send_bytes(b"ready")
    while True:
        try:
            limits = Limits.model_validate_json(pipe.recv_bytes())
            body = pipe.recv_bytes()
            try:
                _answer(pipe, body, limits)
            except RequestError as error:
                _send(pipe, {"status": error.status, "error": str(error)})
            except EditLoopError as error:
                _send(pipe, {"status": 422, "error": str(error)})
            except MemoryError:
                _send(pipe, {"status": 413, "error": "reading the request takes too much memory; send less at once"})
        except (EOFError, OSError):
            return


def _answer(pipe: Connection, body: bytes, limits: Limits) -> None:
    request = parse_request(body, limits)
    sources = (request.source, *request.references)
    digests = b"".join(hashlib.sha256(data).digest() for data in sources)
    task = hashlib.sha256(digests + request.instruction.encode()).hexdigest()
    references = [f"references[{index}]" for index in range(len(request.references))]
    names = ["source", *references, *(f"edits[{index}]" for index in range(len(request.edits)))]
    _send(pipe, {"instruction": request.instruction, "task": task, "sources": len(sources), "pictures": names})
    index_by_bytes: dict[bytes, int] = {}
    pixels, most = 0, limits.picture_megapixels * 1_000_000
    for index, (name, data) in enumerate(zip(names, (*sources, *request.edits), strict=True)):
        if pipe.recv_bytes() != NEXT:  # the client has left
            return
        if data in index_by_bytes:
            _send(pipe, {"same": index_by_bytes[data]})
            continue
        picture = np.asarray(read_picture(data, name))
        pixels += picture.shape[0] * picture.shape[1]
        if pixels > most:
            raise RequestError(413, f"the pictures have over {most:,} pixels together; send fewer at once")
        index_by_bytes[data] = index
        _send(pipe, {"shape": picture.shape})
        pipe.send_bytes(np.ascontiguousarray(picture).data.cast("B"))


def _send(pipe: Connection, head: dict[str, Any]) -> None:
    pipe.send_bytes(json.dumps(head).encode())


def limit_memory(more: int) -> None:
    """Let this process allocate that many bytes more than now; beyond, Python raises MemoryError.

    Args:
        more: The bytes.
    """
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[5])  # data and stack
        most = pages * resource.getpagesize() + more
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is the server's to handle
    limit_memory(int(sys.argv[2]))
    decode_requests(Connection(int(sys.argv[1])))

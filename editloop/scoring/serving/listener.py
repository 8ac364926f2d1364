"""The socket that an HTTP server of ours listens on."""

import socket

from editloop.errors import EditLoopError


def open_listener(host: str, port: int, options: str) -> socket.socket:
    """Return a socket that is bound to an address.

    Args:
        host: The address to listen on.
        port: The port; 0 takes a free one.
        options: The command-line options that gave both, for the message.

    Raises:
        EditLoopError: The address is not this machine's, or the port is taken.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        raise EditLoopError(f"{options}: cannot listen there ({error.strerror}).") from None
    return listener

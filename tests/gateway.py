"""A port in front of a running service that can be closed and opened: to its clients the service is away and back.

A real service takes seconds of CPU to start; closing the way to it takes none, and clients meet the same refusals.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit


class Gateway:
    """Forwards connections of a loopback port to a service's address while it is open."""

    def __init__(self, service_url: str):
        address = urlsplit(service_url)
        assert address.hostname == "127.0.0.1"
        self._service = (address.hostname, int(address.port or 80))
        self._port = 0
        self._listener: socket.socket | None = None
        self._connections: set[socket.socket] = set()
        self.open()
        self.url = f"http://127.0.0.1:{self._port}"

    def open(self) -> None:
        """Listen, on the same port each time."""
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        """Refuse new connections and cut those that are open."""
        if self._listener:
            # Another thread waits in accept(): only a shutdown wakes it, and until then the port stays open.
            _shut(self._listener)
            self._listener = None
        for connection in list(self._connections):
            _shut(connection)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            service = socket.create_connection(self._service)
            self._connections |= {client, service}
            for source, target in ((client, service), (service, client)):
                threading.Thread(target=self._forward, args=(source, target), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        for connection in (source, target):
            _shut(connection)
            self._connections.discard(connection)


@contextmanager
def gateway(service_url: str) -> Iterator[Gateway]:
    """A gateway that is closed in the end."""
    door = Gateway(service_url)
    try:
        yield door
    finally:
        door.close()


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    connection.close()

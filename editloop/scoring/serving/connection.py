"""Connections of the server: closed where a client sends no request on one, refused where it has its share of them."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from editloop.scoring.serving.fair_share import FairShare, client_of

TOO_MANY = b'{"error":"your address has its share of the open connections; close some, or ask again in 1 s"}'
REFUSAL = (
    b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nConnection: close\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(TOO_MANY), TOO_MANY)
)
"""What a connection beyond a client's share is answered, before a request has been read."""


def bounded_connection(seconds: float, share: FairShare) -> type[H11Protocol]:
    """Return uvicorn's connection with limits on their number and on the time until a request's headers are complete.

    uvicorn closes idle connections after an answer, but waits for ever for the rest of half-sent headers.

    Args:
        seconds: The time from the connection, or from the first byte after an answer, to complete headers.
        share: Counts the connections.
    """

    class BoundedConnection(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None
        _client: str | None = None
        """Who holds the connection, where it counts."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            client = client_of((transport.get_extra_info("peername") or [None])[0])
            if not share.fits(client, 1):
                transport.write(REFUSAL)
                transport.close()
                return
            self._client = client
            share.take(client, 1)
            self._await_headers()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_waiting()
            elif self._deadline is None:
                self._await_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            if self._client is not None:
                share.take(self._client, -1)
                self._client = None
            super().connection_lost(exc)

        def _await_headers(self) -> None:
            self._deadline = self.loop.call_later(seconds, self.transport.close)

        def _stop_waiting(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return BoundedConnection

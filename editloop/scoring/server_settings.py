"""Settings of a scoring server, and the limits of a request to it."""

from pydantic import Field, IPvAnyNetwork, SecretStr

from editloop.environment import EnvironmentSettings
from editloop.settings_file import FrozenModel


class Limits(FrozenModel):
    """What one request may hold.

    The server tells its clients, and answers 413 or 422 to a request beyond the limits.
    """

    body_megabytes: int = Field(64, ge=1, le=1024)
    """Size of the request as it is sent, base64 included."""
    edits: int = Field(64, ge=1)
    """Number of edits."""
    instruction_characters: int = Field(10_000, ge=1)
    """Length of the instruction."""
    picture_megapixels: int = Field(100, ge=1)
    """Pixels of all different images of a request together, in millions; each million takes 3 MB once decoded."""


class ServeSettings(FrozenModel):
    """Settings of `editloop serve`."""

    host: str = "127.0.0.1"
    """Address to listen on. Any address except a loopback address needs a token."""
    port: int = Field(8420, ge=0, le=65535)
    """Port to listen on; 0 takes a free one, which is printed."""
    workers: int = Field(1, ge=1)
    """Number of processes, each with its own copy of the model; several GPUs are used in turn."""
    passes: int | None = Field(None, ge=1)
    """K of EditScore's Avg@K; null takes the model's own."""
    max_batch: int = Field(32, ge=1)
    """Largest number of edits in a batch; a single request may hold more."""
    window_ms: float = Field(5.0, ge=0, le=10_000)
    """Milliseconds that the oldest request in the queue waits for others to be batched with. While all workers are
    busy, requests gather anyway."""
    queue: int = Field(512, ge=1)
    """Edits that may wait. Beyond that, a request is answered with 429 and a Retry-After header. No client (an IPv4
    address or an IPv6 /64 network) may have more of them than it leaves to others: alone it has half. The same holds
    for memory, decoders and connections."""
    held_megabytes: int = Field(2048, ge=64)
    """Memory for the bodies and images of all requests in progress. Beyond that, a request is answered with 429."""
    decoders: int = Field(4, ge=1)
    """Processes that decode requests, started as they are needed; each takes about 60 MB when idle."""
    decode_seconds: float = Field(30.0, gt=0)
    """Time limit for decoding a request. The process of one that takes longer is replaced, the answer is 413. A hundred
    million pixels were measured to take 3 s of a core; JPEGs with all the scans allowed take three times that."""
    connections: int = Field(512, ge=2)
    """Open connections. Beyond that, a new one is answered with 429 and closed."""
    proxies: tuple[IPvAnyNetwork, ...] = ()
    """Addresses or networks of reverse proxies: who asks is then what their X-Forwarded-For says."""
    tries: int = Field(3, ge=1)
    """How many workers may die over a request before it is answered with 503. A worker that dies takes its batch with
    it; each request of that batch is then tried alone, so that a request that kills workers harms no other."""
    request_seconds: float = Field(300.0, gt=0)
    """Time limit of a request and of a batch. A request that takes longer is answered with 503; a worker that takes
    longer for one batch is replaced."""
    receive_seconds: float = Field(60.0, gt=0)
    """How long a client may take to send a request's headers, and then its body. A connection without headers is
    closed, a body that is not complete is answered with 408."""
    stop_seconds: int = Field(60, ge=0)
    """How long a server that is told to stop continues with the requests that it has accepted."""
    limits: Limits = Limits()


class ServeToken(EnvironmentSettings):
    """The secret that clients send as `Authorization: Bearer TOKEN`."""

    serve_token: SecretStr | None = None
    """EDITLOOP_SERVE_TOKEN in the server's environment."""

"""What a team may set of a scoring server, and the limits that hold for everybody who asks it."""

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from editloop.environment import EnvironmentSettings


class Limits(BaseModel):
    """What one request may hold; the server tells clients, and answers 413 or 422 to what is beyond."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    body_megabytes: int = Field(64, ge=1, le=1024)
    """Of the request as it is sent, base64 included."""
    edits: int = Field(64, ge=1)
    instruction_characters: int = Field(10_000, ge=1)
    picture_megapixels: int = Field(100, ge=1)
    """Pixels of all pictures of a request together, in millions: 3 MB each once they are decoded."""


class ServeSettings(BaseModel):
    """How `editloop serve` runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    """Address to listen on. Any but a loopback address needs a token."""
    port: int = Field(8420, ge=0, le=65535)
    """0 takes a free one, and tells which."""
    workers: int = Field(1, ge=1)
    """Processes with a model each; on a machine with GPUs they take them in turn."""
    passes: int | None = Field(None, ge=1)
    """K of EditScore's Avg@K; null takes the model's own."""
    max_batch: int = Field(32, ge=1)
    """Edits that a worker is given at once; a single request may hold more."""
    window_ms: float = Field(5.0, ge=0, le=10_000)
    """Milliseconds that the oldest waiting request waits for others to be batched with. While a worker is busy,
    requests gather without it."""
    queue: int = Field(256, ge=1)
    """Edits that may wait; beyond, a request is answered with 429 and a time to come back."""
    held_megabytes: int = Field(2048, ge=64)
    """Memory for the bodies and pictures of all requests that are being answered; beyond, 429."""
    tries: int = Field(3, ge=1)
    """How often a request may be given to a worker. One that dies takes its batch with it; each request of that batch
    is then tried alone, so that one that kills workers harms no other."""
    request_seconds: float = Field(300.0, gt=0)
    """A request that is not answered by then is answered with 503, and a worker that takes longer is replaced."""
    stop_seconds: int = Field(60, ge=0)
    """How long a server that is told to stop goes on with the requests that it has taken."""
    limits: Limits = Limits()


class ServeToken(EnvironmentSettings):
    """The secret that clients show, as `Authorization: Bearer TOKEN`."""

    serve_token: SecretStr | None = None
    """EDITLOOP_SERVE_TOKEN of the server's environment."""

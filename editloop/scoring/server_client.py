"""Client of `editloop serve`: a judge whose model runs elsewhere. A failed request raises; it never becomes a score."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

from editloop.data.png_encoding import encode_png
from editloop.errors import EditLoopError
from editloop.models.judge_protocol import (
    EditGroup,
    JudgeUnavailableError,
    JudgeWording,
    Picture,
    Score,
    StaleJudgeError,
)
from editloop.scoring.retrying_client import ClientSettings, RetryingClient
from editloop.scoring.server_messages import ModelReply, ScoreReply, ScoreRequest, describe_validation_error


class JudgeClientSettings(ClientSettings):
    """Settings of the client, from EDITLOOP_JUDGE_ environment variables."""

    model_config = SettingsConfigDict(env_prefix="EDITLOOP_JUDGE_")

    token: SecretStr | None = None
    """EDITLOOP_JUDGE_TOKEN: the server's EDITLOOP_SERVE_TOKEN."""
    seconds: float = Field(330.0, gt=0)
    """Longest wait for one answer, in seconds: a little more than the server's own default limit."""
    patience: float = Field(120.0, ge=0)
    """Seconds after which a request that keeps failing is given up: long enough for a worker to be replaced."""


class ServedJudge:
    """A judge (editloop.models.judge_protocol) behind HTTP. Several threads may use it at once."""

    def __init__(
        self,
        url: str,
        settings: JudgeClientSettings,
        transport: httpx.BaseTransport | None = None,
    ):
        """Connect to a server and ask which model it serves.

        Args:
            url: Address of the server, `http(s)://HOST:PORT`.
            settings: Token, connections and time limits.
            transport: Carries the requests; None for the network.

        Raises:
            EditLoopError: The server is not an `editloop serve`.
            JudgeUnavailableError: The server cannot be reached or refuses.
        """
        self.url, self.settings = url, settings
        advice = "EDITLOOP_JUDGE_TOKEN must be the server's EDITLOOP_SERVE_TOKEN"
        self._client = RetryingClient(url, settings.token, settings, advice, transport)
        try:
            served = ModelReply.model_validate_json(self._client.ask("GET", "/v1/model?references=true"))
        except ValidationError as error:
            raise EditLoopError(
                f"{url}: answers, but not as `editloop serve` does ({describe_validation_error(error)})."
            ) from None
        self.name, self.version, self.axes, self.limits = served.model, served.version, served.axes, served.limits
        self.takes_references = bool(served.references)
        self.wording = JudgeWording(**served.wording.model_dump()) if served.wording else None

    @classmethod
    def open(cls, url: str) -> "ServedJudge":
        """Connect to a server with settings from the environment.

        Args:
            url: Address of the server, `http(s)://HOST:PORT`.

        Raises:
            JudgeUnavailableError: The server cannot be reached or refuses.
        """
        return cls(url, JudgeClientSettings())

    def judge(self, groups: Sequence[EditGroup]) -> list[list[Score]]:
        """Score edits; requests are sent in parallel.

        Args:
            groups: The groups to score. A group that is too large for one request is divided.

        Returns:
            One list of scores per group, one score per edit.

        Raises:
            EditLoopError: The server refuses a group; the message names the rule.
            StaleJudgeError: The server's model has changed.
            JudgeUnavailableError: The server is away or overloaded for longer than the settings' patience, or its
                answer is not that of a scoring server.
        """
        parts = [(group, list(part)) for group in groups for part in self._parts(group)]
        with ThreadPoolExecutor(self.settings.connections, "score") as pool:
            part_scores = iter(list(pool.map(lambda part: self._score(*part), parts)))
        return [[score for _ in self._parts(group) for score in next(part_scores)] for group in groups]

    def _parts(self, group: EditGroup) -> Iterator[Sequence[Picture]]:
        for start in range(0, len(group.edits), self.limits.edits):
            yield group.edits[start : start + self.limits.edits]

    def _score(self, group: EditGroup, edits: Sequence[Picture]) -> list[Score]:
        try:
            request = ScoreRequest(
                instruction=group.instruction,
                source=encode_png(group.source),
                references=[encode_png(picture) for picture in group.references],
                edits=[encode_png(edit) for edit in edits],
            )
        except ValidationError as error:
            raise EditLoopError(
                f"{group.key or 'a group'} cannot be sent ({describe_validation_error(error)})."
            ) from None
        body = request.model_dump_json().encode()
        most = self.limits.body_megabytes * 2**20
        if len(body) > most:
            if len(edits) == 1:
                references = f", {len(group.references)} references" if group.references else ""
                raise EditLoopError(
                    f"{self.url}: a source{references} and an edit take {len(body):,} bytes; it reads {most:,}."
                )
            half = len(edits) // 2
            return self._score(group, edits[:half]) + self._score(group, edits[half:])
        try:
            reply = ScoreReply.model_validate_json(self._client.ask("POST", "/v1/score", body))
        except ValidationError as error:
            raise JudgeUnavailableError(
                f"{self.url}: its answer is no scores ({describe_validation_error(error)})."
            ) from None
        self._check_model(reply)
        scores = [message.score() for message in reply.scores]
        axes = {tuple(score.axes) for score in scores if not score.missing}
        if len(scores) != len(edits) or axes - {self.axes}:
            raise JudgeUnavailableError(
                f"{self.url}: asked about {len(edits)} edits on {', '.join(self.axes)}, it scored {len(scores)} on "
                f"{' and '.join(', '.join(names) for names in axes) or 'nothing'}."
            )
        return scores

    def _check_model(self, reply: ScoreReply) -> None:
        if (reply.model, reply.version) != (self.name, self.version):
            raise StaleJudgeError(
                f"{self.url} serves {reply.model} {reply.version} now; it was {self.name} {self.version} when this "
                "began. Scores of two models do not compare: begin again."
            )

"""The typed client of `editloop serve`: a judge whose model is elsewhere. An error is an error, never a score."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

from editloop.environment import EnvironmentSettings
from editloop.errors import EditLoopError
from editloop.models.judge_protocol import EditGroup, JudgeUnavailableError, Picture, Score, StaleJudgeError
from editloop.scoring.encoding import encode_png
from editloop.scoring.retrying_client import RetryingClient
from editloop.scoring.server_messages import ModelReply, ScoreReply, ScoreRequest, describe_validation_error


class JudgeClientSettings(EnvironmentSettings):
    """How scores are asked for."""

    model_config = SettingsConfigDict(env_prefix="EDITLOOP_JUDGE_")

    token: SecretStr | None = None
    """EDITLOOP_JUDGE_TOKEN: what the server was given as EDITLOOP_SERVE_TOKEN."""
    connections: int = Field(16, ge=1)
    """Requests under way at once; the server batches them."""
    seconds: float = Field(330.0, gt=0)
    """The longest wait for one answer: a little more than the server's own limit."""
    patience: float = Field(120.0, ge=0)
    """Seconds after which a request that is always put off is given up: time for a worker to be replaced."""


class ServedJudge:
    """A judge (editloop.models.judge_protocol) behind HTTP. Several threads may use it at once."""

    def __init__(
        self,
        url: str,
        settings: JudgeClientSettings,
        on_new_model: Callable[[str, str], None] | None = None,
        transport: httpx.BaseTransport | None = None,
    ):
        """Ask the server which model it has.

        on_new_model(old version, new version) is called when an answer comes from another model than the last one,
        and may raise; without it that is a StaleJudgeError. The judge's `version` is the new one then.
        transport: what carries the requests, by default the network.
        """
        self.url, self.settings, self.on_new_model = url, settings, on_new_model
        self._client = RetryingClient(
            url,
            settings.token,
            connections=settings.connections,
            seconds=settings.seconds,
            patience=settings.patience,
            patience_name="EDITLOOP_JUDGE_PATIENCE",
            key_advice="EDITLOOP_JUDGE_TOKEN must be the server's EDITLOOP_SERVE_TOKEN",
            transport=transport,
        )
        self._lock = threading.Lock()
        try:
            model_reply = ModelReply.model_validate_json(self._client.ask("GET", "/v1/model"))
        except ValidationError as error:
            raise EditLoopError(
                f"{url}: answers, but not as `editloop serve` does ({describe_validation_error(error)})."
            ) from None
        self.name, self.version, self.axes, self.limits = (
            model_reply.model,
            model_reply.version,
            model_reply.axes,
            model_reply.limits,
        )

    @classmethod
    def open(cls, url: str) -> "ServedJudge":
        """The judge at an address, with the settings of the environment. JudgeUnavailableError where nobody answers."""
        return cls(url, JudgeClientSettings())

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def judge(self, groups: Sequence[EditGroup]) -> list[list[Score]]:
        """One score an edit, in the groups' order; requests go out side by side.

        EditLoopError where the server refuses a group (it names the rule), StaleJudgeError where its model changed,
        JudgeUnavailableError where it is away or overloaded for longer than the settings' patience, or does not answer
        as a server of scores does.
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
                raise EditLoopError(f"{self.url}: a source and an edit take {len(body):,} bytes; it reads {most:,}.")
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
        with self._lock:
            if (reply.model, reply.version) == (self.name, self.version):
                return
            old = self.version
            if self.on_new_model is None or reply.model != self.name:
                raise StaleJudgeError(
                    f"{self.url} serves {reply.model} {reply.version} now; it was {self.name} {old} when this began. "
                    "Scores of two models do not compare: begin again."
                )
            self.on_new_model(old, reply.version)
            self.version = reply.version

"""EditScore over an OpenAI-compatible endpoint such as vLLM.

It uses EditScore's prompts and parser with whatever model the endpoint serves. Each edit takes two chat completions of
K choices each: SC, with the source and the edited image, and PQ, with the edited image alone.
"""

import base64
import json
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from editloop.content import sha256_json
from editloop.errors import EditLoopError
from editloop.models.edit_score.scores import score_of_answers
from editloop.models.edit_score.settings import AXES, INSTRUCTION, EditScoreSettings
from editloop.models.judge_protocol import EditGroup, JudgeUnavailableError, Picture, Score, StaleJudgeError
from editloop.scoring.encoding import encode_png, limit_pixels
from editloop.scoring.retrying_client import ClientSettings, RetryingClient

CONTROL_TOKEN_START = re.compile(r"<(?=\|)")
"""Start of the control tokens in Qwen's format and in most others."""


class OpenAISettings(ClientSettings):
    """Settings of the client of an endpoint, from EDITLOOP_OPENAI_ environment variables."""

    model_config = SettingsConfigDict(env_prefix="EDITLOOP_OPENAI_")

    key: SecretStr | None = None
    """EDITLOOP_OPENAI_KEY: the endpoint's API key, if it needs one."""
    questions: EditScoreSettings = EditScoreSettings()
    """As JSON: prompts, passes, sampling and seed."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """As JSON: additional fields of the request that this endpoint needs, such as {"top_k": 20}; null removes one of
    the default fields."""


class OpenAIJudge:
    """A judge (editloop.models.judge_protocol) that asks an endpoint. Several threads may use it at once."""

    axes = AXES

    def __init__(self, url: str, model: str, settings: OpenAISettings, transport: httpx.BaseTransport | None = None):
        """Connect to an endpoint and ask which models it has.

        Args:
            url: Base address, such as http://host:8000/v1.
            model: The endpoint's name of the model.
            settings: Key, connections, time limits and questions.
            transport: Carries the requests; None for the network.

        Raises:
            EditLoopError: The endpoint does not list the model, or `settings.questions.reasoning` is false. Scoring
                without reasoning needs token probabilities, which such endpoints do not give.
            JudgeUnavailableError: The endpoint cannot be reached or refuses.
        """
        if not settings.questions.reasoning:
            raise EditLoopError(
                "EDITLOOP_OPENAI_QUESTIONS: reasoning is false; an endpoint's scores are read from text."
            )
        self.name, self.settings = model, settings
        advice = "EDITLOOP_OPENAI_KEY is the endpoint's key"
        self._client = RetryingClient(url, settings.key, settings, advice, transport)
        self.url = url
        self.version = sha256_json([model, self._model_facts(), settings.questions.model_dump(), settings.extra])
        """Digest of what the endpoint says about its model and of all questions; endpoints do not identify weights."""
        self._answering: str | None = None
        self._lock = threading.Lock()

    @classmethod
    def open(cls, address: str, passes: int | None = None) -> "OpenAIJudge":
        """Open the judge at an address, with settings from the environment.

        Args:
            address: `http(s)://HOST:PORT/v1#MODEL`.
            passes: Number of passes per edit; None takes that of the settings.

        Returns:
            The judge.

        Raises:
            EditLoopError: The address is malformed, or the endpoint does not have the model.
        """
        url, _, model = address.partition("#")
        if not (model and url.startswith(("http://", "https://"))):
            raise EditLoopError(f"openai:{address}: write openai:http://HOST:PORT/v1#MODEL.")
        settings = OpenAISettings()
        if passes is not None:
            questions = settings.questions.model_copy(update={"passes": passes})
            settings = settings.model_copy(update={"questions": questions})
        return cls(url, model, settings)

    def judge(self, groups: Sequence[EditGroup]) -> list[list[Score]]:
        """Score edits by Avg@K over the passes whose two answers can be parsed.

        Args:
            groups: The groups to score.

        Returns:
            One list of scores per group, one score per edit. Where too few passes can be parsed, the score is missing
            and names the faults.

        Raises:
            EditLoopError: The endpoint refuses a request.
            JudgeUnavailableError: The endpoint cannot be reached, or its answer is not a chat completion.
            StaleJudgeError: Another model answers than before.
        """
        with ThreadPoolExecutor(self.settings.connections, "ask") as pool:
            futures = []
            for group in groups:
                source_uri = self._shown(group.source)
                for edit in group.edits:
                    futures.append(
                        pool.submit(self._answers, 0, group.instruction, [source_uri, edit_uri := self._shown(edit)])
                    )
                    futures.append(pool.submit(self._answers, 1, group.instruction, [edit_uri]))
            try:
                answers = iter([future.result() for future in futures])
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        questions = self.settings.questions
        return [[score_of_answers(next(answers), next(answers), questions) for _ in group.edits] for group in groups]

    def _answers(self, question: int, instruction: str, pictures: list[str]) -> list[str]:
        """Return K answers to a question.

        Where the endpoint gives fewer choices than requested, the rest is requested with other seeds.
        """
        passes, answers = self.settings.questions.passes, list[str]()
        while len(answers) < passes:
            answers += self._choices(question, instruction, pictures, passes - len(answers), len(answers))
        return answers

    def _choices(
        self, question: int, instruction: str, pictures: list[str], count: int, answered_count: int
    ) -> list[str]:
        settings = self.settings.questions
        # The endpoint's tokenizer would read these as control tokens; a zero-width space keeps them plain text
        text = settings.questions[question].text.replace(INSTRUCTION, CONTROL_TOKEN_START.sub("<\u200b", instruction))
        content = [{"type": "image_url", "image_url": {"url": picture}} for picture in pictures]
        body = {
            "model": self.name,
            "messages": [
                *([{"role": "system", "content": settings.system}] if settings.system else []),
                {"role": "user", "content": [*content, {"type": "text", "text": text}]},
            ],
            "n": count,
            "seed": settings.seed + answered_count,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "max_tokens": settings.max_new_tokens,
        } | self.settings.extra
        body = {key: value for key, value in body.items() if value is not None}
        try:
            sent = json.dumps(body).encode()
            reply = json.loads(self._client.ask("POST", "/chat/completions", sent))
            choices = [choice["message"]["content"] or "" for choice in reply["choices"]]
            if not choices or not all(isinstance(choice, str) for choice in choices):
                raise TypeError("no text")
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise JudgeUnavailableError(f"{self.url}: its answer is no chat completion ({error!r}).") from None
        self._check_model(str(reply.get("model", self.name)))
        return choices[:count]

    def _check_model(self, answering: str) -> None:
        with self._lock:
            before = self._answering = self._answering or answering
        if answering != before:
            raise StaleJudgeError(
                f"{self.url}: {answering} answers now, before it was {before}. Scores of two models do not compare: "
                "begin again."
            )

    def _shown(self, picture: Picture) -> str:
        """The image as a data URI, scaled down to the questions' `max_pixels`."""
        scaled = np.asarray(limit_pixels(picture, self.settings.questions.max_pixels))
        return f"data:image/png;base64,{base64.b64encode(encode_png(scaled)).decode()}"

    def _model_facts(self) -> dict[str, Any]:
        """Return the model's facts from the endpoint's list of models that stay the same when the endpoint restarts."""
        try:
            models = json.loads(self._client.ask("GET", "/models"))["data"]
            models_by_id = {model["id"]: model for model in models}
        except (ValueError, KeyError, TypeError) as error:
            raise EditLoopError(
                f"{self.url}/models: no list of models ({error!r}); give the address up to /v1."
            ) from None
        if self.name not in models_by_id:
            raise EditLoopError(f"{self.url}: has no model {self.name}; there are {', '.join(sorted(models_by_id))}.")
        return {key: models_by_id[self.name].get(key) for key in ("root", "parent")}

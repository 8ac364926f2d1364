"""Judges over an OpenAI-compatible endpoint such as vLLM: EditScore, VIEScore and others, by texts in a file.

Each question and each pass is a chat completion of its own, with a seed of its own. `judge_file` says what is
asked; this module asks it.
"""

import base64
import json
import math
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from pydantic import Field, JsonValue, SecretStr
from pydantic_settings import SettingsConfigDict

from editloop.content import sha256_json
from editloop.data.png_encoding import encode_png
from editloop.errors import EditLoopError
from editloop.models.edit_score.settings import EditScoreSettings
from editloop.models.judge_protocol import EditGroup, JudgeUnavailableError, Picture, Score, StaleJudgeError
from editloop.scoring.edit_score_questions import EditScoreQuestions
from editloop.scoring.encoding import limit_pixels
from editloop.scoring.endpoint_questions import ChatQuestion, ChatReply, EndpointQuestions, PartKind
from editloop.scoring.judge_file import read_judge_file
from editloop.scoring.rating_judges import LineJudge
from editloop.scoring.retrying_client import ClientSettings, RetryingClient

ShownPictures = dict[tuple[PartKind, int], str]
"""Data URIs of the pictures of a question, by `Part.picture`."""


class OpenAISettings(ClientSettings):
    """Settings of the client of an endpoint, from EDITLOOP_OPENAI_ environment variables."""

    model_config = SettingsConfigDict(env_prefix="EDITLOOP_OPENAI_")

    key: SecretStr | None = None
    """EDITLOOP_OPENAI_KEY: the endpoint's API key, if it needs one."""
    judge: Path | None = None
    """A file of the judge's texts and settings, such as the `editscore.json` of a model's folder; see
    `judge_file`. Without one, EditScore's questions in EditLoop's wording."""
    extra: dict[str, JsonValue] = Field(default_factory=dict)
    """As JSON: additional fields of the request that this endpoint needs; null removes one of the default fields, such
    as {"top_k": null, "repetition_penalty": null} for an endpoint that knows OpenAI's own alone."""


class OpenAIJudge:
    """A judge (editloop.models.judge_protocol) that asks an endpoint. Several threads may use it at once."""

    takes_references = True

    def __init__(
        self,
        url: str,
        model: str,
        settings: OpenAISettings,
        questions: EndpointQuestions | None = None,
        transport: httpx.BaseTransport | None = None,
    ):
        """Connect to an endpoint and ask which models it has.

        Args:
            url: Base address, such as http://host:8000/v1.
            model: The endpoint's name of the model.
            settings: Key, connections and time limits.
            questions: What it is asked; None takes the file of the settings.
            transport: Carries the requests; None for the network.

        Raises:
            EditLoopError: The endpoint does not list the model, or the judge's file is not valid.
            JudgeUnavailableError: The endpoint cannot be reached or refuses.
        """
        self.name, self.settings = model, settings
        self.questions: EndpointQuestions = questions or _questions_of(settings)
        self.axes, self.wording = self.questions.axes, self.questions.wording
        advice = "EDITLOOP_OPENAI_KEY is the endpoint's key"
        self._client = RetryingClient(url, settings.key, settings, advice, transport)
        self.url = url
        self.version = sha256_json([model, self._model_facts(), self.questions.digest(), settings.extra])
        """Digest of what the endpoint says about its model and of all questions; endpoints do not identify weights."""
        self._answering: str | None = None
        self._lock = threading.Lock()

    @classmethod
    def open(cls, address: str, passes: int | None = None) -> "OpenAIJudge":
        """Open the judge at an address, with settings from the environment.

        Args:
            address: `http(s)://HOST:PORT/v1#MODEL`.
            passes: Number of passes per edit; None takes that of the judge's file.

        Returns:
            The judge.

        Raises:
            EditLoopError: The address is malformed, the endpoint does not have the model, or the judge has no passes.
        """
        url, _, model = address.partition("#")
        if not (model and url.startswith(("http://", "https://"))):
            raise EditLoopError(f"openai:{address}: write openai:http://HOST:PORT/v1#MODEL.")
        settings = OpenAISettings()
        questions = _questions_of(settings)
        return cls(url, model, settings, questions if passes is None else questions.with_passes(passes))

    def for_task(self, task: str) -> "OpenAIJudge":
        """Return the judge with the question of a type of task; itself where it asks the same of all.

        Args:
            task: The type.

        Raises:
            EditLoopError: It has no question for it.
        """
        if not isinstance(self.questions, LineJudge):
            return self
        judge = copy(self)
        judge.questions = self.questions.for_task(task)
        return judge

    def judge(self, groups: Sequence[EditGroup]) -> list[list[Score]]:
        """Score edits by the answers that can be read.

        Args:
            groups: The groups to score.

        Returns:
            One list of scores per group, one score per edit. Where too few answers can be read, the score is missing
            and names the faults.

        Raises:
            EditLoopError: The endpoint refuses a request, or gives no probabilities where the judge reads these.
            JudgeUnavailableError: The endpoint cannot be reached, or its answer is not a chat completion.
            StaleJudgeError: Another model answers than before.
        """
        with ThreadPoolExecutor(self.settings.connections, "ask") as pool:
            futures: list[list[Future[ChatReply]]] = []
            for group in groups:
                questions = self.questions.ask(group.instruction, len(group.references))
                sources: ShownPictures = {("source", 0): self._shown(group.source)}
                sources |= {("reference", k): self._shown(picture) for k, picture in enumerate(group.references)}
                for edit in group.edits:
                    pictures = sources | {("edit", 0): self._shown(edit)}
                    futures.append([pool.submit(self._answer, question, pictures) for question in questions])
            try:
                replies = iter([[future.result() for future in edit_futures] for edit_futures in futures])
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return [[self.questions.score(next(replies)) for _ in group.edits] for group in groups]

    def _answer(self, question: ChatQuestion, pictures: ShownPictures) -> ChatReply:
        body = {key: value for key, value in self._body(question, pictures).items() if value is not None}
        try:
            reply = json.loads(self._client.ask("POST", "/chat/completions", json.dumps(body).encode()))
            chat_reply = _read_choice(reply["choices"][0])
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            raise JudgeUnavailableError(f"{self.url}: its answer is no chat completion ({error!r}).") from None
        self._check_model(str(reply.get("model", self.name)))
        return chat_reply

    def _body(self, question: ChatQuestion, pictures: ShownPictures) -> dict[str, JsonValue]:
        """The request, with the fields that `extra` sets or removes."""
        content: list[JsonValue] = [
            {"type": "text", "text": part.text}
            if part.kind == "text"
            else {"type": "image_url", "image_url": {"url": pictures[part.picture]}}
            for part in question.parts
        ]
        messages: list[JsonValue] = [{"role": "user", "content": content}]
        if question.system:
            messages.insert(0, {"role": "system", "content": question.system})
        body: dict[str, JsonValue] = {"model": self.name, "messages": messages, **question.fields}
        if question.answer_start:
            messages.append({"role": "assistant", "content": question.answer_start})
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        return body | self.settings.extra

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
        limit = self.questions.max_pixels
        scaled = picture if limit is None else np.asarray(limit_pixels(picture, limit))
        return f"data:image/png;base64,{base64.b64encode(encode_png(scaled)).decode()}"

    def _model_facts(self) -> dict[str, Any]:
        """Return the model's facts from the endpoint's list of models that stay the same when the endpoint restarts."""
        try:
            models = json.loads(self._client.ask("GET", "/models"))["data"]
            models_by_id = {model["id"]: model for model in models}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise EditLoopError(
                f"{self.url}/models: no list of models ({error!r}); give the address up to /v1."
            ) from None
        if self.name not in models_by_id:
            raise EditLoopError(f"{self.url}: has no model {self.name}; there are {', '.join(sorted(models_by_id))}.")
        return {key: models_by_id[self.name].get(key) for key in ("root", "parent")}


def _questions_of(settings: OpenAISettings) -> EndpointQuestions:
    return read_judge_file(settings.judge) if settings.judge else EditScoreQuestions(EditScoreSettings())


def _read_choice(choice: Any) -> ChatReply:
    """Read a choice of a chat completion.

    Raises:
        KeyError, TypeError, IndexError, ValueError: It is none.
    """
    text = choice["message"]["content"] or ""
    if not isinstance(text, str):
        raise TypeError("no text")
    logprobs = choice.get("logprobs")
    if not logprobs or not logprobs.get("content"):
        return ChatReply(text, choice.get("finish_reason") == "length")
    chances: list[tuple[str, float]] = []
    for candidate in logprobs["content"][0]["top_logprobs"]:
        logprob = float(candidate["logprob"])
        if math.isnan(logprob):
            raise ValueError(f"log-probability NaN of {candidate['token']!r}")
        chances.append((str(candidate["token"]), math.exp(min(0.0, logprob))))
    return ChatReply(text, choice.get("finish_reason") == "length", tuple(chances))

"""A server of chat completions on a real socket, as vLLM speaks the protocol: it refuses what is not in it."""

import base64
import io
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from editloop.models.judge_protocol import EditGroup
from editloop.scoring.endpoint_questions import EndpointQuestions
from editloop.scoring.openai_judge import OpenAIJudge, OpenAISettings

FIRST_SEED = 42


class Strict(BaseModel):
    """A part of a request, in which every key is known."""

    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(Strict):
    type: Literal["text"]
    text: str = Field(min_length=1)


class Url(Strict):
    url: str = Field(pattern=r"^data:image/png;base64,")


class PicturePart(Strict):
    type: Literal["image_url"]
    image_url: Url


class Message(Strict):
    role: Literal["system", "user", "assistant"]
    content: str | list[TextPart | PicturePart]


class ChatBody(Strict):
    """The fields of a request that vLLM knows, of those that a judge may send."""

    model: str
    messages: list[Message]
    temperature: float = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    repetition_penalty: float | None = Field(None, gt=0)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    seed: int | None = None
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    add_generation_prompt: bool = True
    continue_final_message: bool = False

    @model_validator(mode="after")
    def _fits(self) -> "ChatBody":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs")
        if self.continue_final_message and (self.add_generation_prompt or self.messages[-1].role != "assistant"):
            raise ValueError("continue_final_message goes on with an assistant's message")
        if not self.continue_final_message and self.messages[-1].role != "user":
            raise ValueError("the last message is the user's")
        return self


Body = dict[str, Any]
"""A request, as it came."""


class ChatEndpoint:
    """The server. `answer(body, seed)` gives the text, or a response; `first_tokens(body)` log-probabilities by token.

    `seed` counts from 0.
    """

    def __init__(self) -> None:
        self.reset()
        app = FastAPI()

        @app.get("/v1/models")
        def models() -> Any:
            return {"data": [{"id": "judge-8b", "root": "/weights/judge", "created": len(self.bodies)}]}

        @app.post("/v1/chat/completions")
        async def complete(request: Request) -> Any:
            body = await request.json()
            try:
                ChatBody.model_validate(body)
            except ValidationError as error:
                return JSONResponse({"error": {"message": str(error), "type": "BadRequestError"}}, 400)
            self.headers.append(dict(request.headers))
            self.bodies.append(body)
            text = self.answer(body, body.get("seed", FIRST_SEED) - FIRST_SEED)
            if isinstance(text, JSONResponse):
                return text
            message = {"role": "assistant", "content": text}
            choice: Body = {"index": 0, "message": message, "finish_reason": self.finish_reason, "logprobs": None}
            if body.get("logprobs") and self.gives_logprobs:
                chances = self.first_tokens(body)
                top = [{"token": token, "logprob": chance, "bytes": None} for token, chance in chances.items()]
                choice["logprobs"] = {"content": [top[0] | {"top_logprobs": top[: body["top_logprobs"]]}]}
            return {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": int(time.time()),
                "model": self.model,
                "choices": [choice],
                "usage": {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18},
            }

        config = uvicorn.Config(app, port=0, log_level="error")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
        self.url = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}/v1"

    def reset(self) -> None:
        """Forget the requests, and answer as at first."""
        self.bodies: list[Body] = []
        self.headers: list[dict[str, str]] = []
        self.answer: Callable[[Body, int], Any] = lambda body, seed: scores(20, 15)
        self.first_tokens: Callable[[Body], dict[str, float]] = lambda body: {"5": 0.0}
        self.gives_logprobs = True
        self.finish_reason = "stop"
        self.model = "judge-8b"

    def judge(self, questions: EndpointQuestions | None = None, **settings: Any) -> OpenAIJudge:
        """A judge that asks this server."""
        return OpenAIJudge(self.url, "judge-8b", OpenAISettings(**{"patience": 3.0, **settings}), questions)

    def stop(self) -> None:
        """Stop serving."""
        self.server.should_exit = True
        self.thread.join()


def scores(first: float, second: float) -> str:
    """An answer of EditScore."""
    return f'{{"reasoning": "as seen", "score": [{first}, {second}]}}'


def shown(body: Body) -> list[NDArray[np.uint8]]:
    """The pictures of a question."""
    content = user_content(body)
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))) for url in urls]


def user_content(body: Body) -> list[Body]:
    """The parts of the user's message."""
    (message,) = [message for message in body["messages"] if message["role"] == "user"]
    content: list[Body] = message["content"]
    return content


def words(body: Body) -> str:
    """The last text of a question."""
    return str(user_content(body)[-1]["text"])


def is_sc(body: Body) -> bool:
    """Whether it shows two pictures."""
    return len(shown(body)) == 2


def random_group(edits: int = 2, instruction: str = "make it red") -> EditGroup:
    """A group of small random pictures."""
    source, *made = np.random.default_rng(0).integers(0, 256, size=(edits + 1, 24, 32, 3), dtype=np.uint8)
    return EditGroup(instruction, source, made)

"""What the client of a served judge makes of answers, and of none."""

import threading
import time
from typing import Any

import httpx
import pytest

from editloop.data.png_encoding import encode_png
from editloop.errors import EditLoopError
from editloop.models.judge_protocol import EditGroup, JudgeUnavailableError, Score, StaleJudgeError
from editloop.scoring.server_client import JudgeClientSettings, ServedJudge
from editloop.scoring.server_messages import ScoreRequest
from editloop.scoring.server_settings import Limits
from tests.pixel_judge import FACTS, message, picture


class Served:
    """A client whose server is a function from request to response."""

    def __init__(self, answer: Any, **settings: Any):
        self.requests: list[httpx.Request] = []

        def handle(request: httpx.Request) -> httpx.Response:
            self.requests.append(request)
            if request.url.path == "/v1/model":
                return httpx.Response(200, json=model_reply())
            return answer(request, len(self.requests) - 1)

        self.settings = JudgeClientSettings(patience=2.0, **settings)
        self.transport = httpx.MockTransport(handle)

    def open(self, **options: Any) -> ServedJudge:
        return ServedJudge("http://judge", self.settings, transport=self.transport, **options)


def model_reply() -> dict[str, Any]:
    return {"model": FACTS.name, "version": FACTS.version, "axes": FACTS.axes, "limits": Limits().model_dump()}


def reply(scores: list[Any], version: str = FACTS.version) -> httpx.Response:
    return httpx.Response(200, json={"model": FACTS.name, "version": version, "scores": scores})


GROUP = EditGroup("make it red", picture(0), [picture(1), picture(2)])
GOOD = [message(1.0).model_dump(), message(2.0).model_dump()]


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500, text="Internal Server Error"),
        httpx.Response(200, text="0.5"),
        httpx.Response(200, json={"scores": GOOD}),
        httpx.Response(302, headers={"Location": "http://elsewhere/v1/score"}),
        httpx.Response(422, json={"error": "edits.1: not a readable picture"}),
        reply(GOOD[:1]),
        reply([*GOOD, *GOOD]),
        reply([GOOD[0], GOOD[1] | {"axes": {"vq": {"mean": 1, "sigma": 1}}}]),
        httpx.Response(200, text=reply(GOOD).text.replace("2.0", "NaN")),
    ],
)
def test_no_answer_but_scores_becomes_a_score(answer: httpx.Response) -> None:
    judge = Served(lambda request, count: answer).open()
    with pytest.raises(EditLoopError, match="http://judge"):
        judge.judge([GROUP])


def test_a_missing_score_comes_as_missing() -> None:
    judge = Served(lambda request, count: reply([GOOD[0], {"missing": "too dark"}])).open()
    first, second = judge.judge([GROUP])[0]
    assert first.overall == 1.0
    assert second == Score(missing="too dark")


def test_overload_and_lost_connections_are_asked_again() -> None:
    def answer(request: httpx.Request, count: int) -> httpx.Response:
        if count == 1:
            return httpx.Response(429, json={"error": "full"}, headers={"Retry-After": "1"})
        if count == 2:
            raise httpx.ConnectError("refused")
        return reply(GOOD)

    served = Served(answer)
    judge = served.open()
    began = time.monotonic()
    assert [score.overall for score in judge.judge([GROUP])[0]] == [1.0, 2.0]
    assert time.monotonic() - began >= 1.0, "the server's Retry-After is kept"
    assert len({request.content for request in served.requests[1:]}) == 1, "the same request again"


def test_a_server_that_stays_away_is_an_error_of_its_own() -> None:
    judge = Served(lambda request, count: httpx.Response(503, json={"error": "no worker"})).open()
    with pytest.raises(JudgeUnavailableError, match="no worker"):
        judge.judge([GROUP])


def test_another_model_version_is_noticed() -> None:
    def answer(request: httpx.Request, count: int) -> httpx.Response:
        return reply(GOOD, "2" * 64)

    with pytest.raises(StaleJudgeError, match="2222"):
        Served(answer).open().judge([GROUP])


def test_a_group_beyond_the_servers_limit_is_asked_in_parts() -> None:
    def answer(request: httpx.Request, count: int) -> httpx.Response:
        edits = ScoreRequest.model_validate_json(request.content).edits
        assert len(edits) <= Limits().edits
        by_bytes = {encode_png(picture(value)): value for value in range(150)}
        return reply([message(by_bytes[edit]).model_dump() for edit in edits])

    judge = Served(answer).open()
    found = judge.judge([EditGroup("x", picture(0), [picture(value) for value in range(150)]), GROUP])
    assert [[score.overall for score in row] for row in found] == [list(range(150)), [1, 2]]


def test_an_address_that_is_none_is_told() -> None:
    with pytest.raises(EditLoopError, match="give http"):
        ServedJudge("http://exa mple:port", JudgeClientSettings(patience=0.1))


def test_threads_of_a_client_may_share_it() -> None:
    judge = Served(lambda request, count: reply(GOOD)).open()
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(judge.judge([GROUP] * 5))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(one == found[0] for one in found)

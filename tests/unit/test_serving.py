"""Batches, admission and messages of the server; real processes: integration."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from editloop.errors import EditLoopError
from editloop.models.judge_protocol import AxisScore, EditGroup, Score
from editloop.scoring.server_messages import ScoreMessage
from editloop.scoring.server_settings import ServeSettings
from editloop.scoring.serving.app import make_app
from editloop.scoring.serving.batching import Batcher, RefusedError
from editloop.scoring.serving.fair_share import FairShare, client_of
from editloop.scoring.serving.meters import Meters
from editloop.scoring.serving.refusal import OverloadedError, UnavailableError
from editloop.scoring.serving.server import serve_token, worker_devices
from editloop.scoring.serving.waiting import QueuedRequest, merge_by_task, take_batch
from editloop.scoring.serving.worker import ModelFacts, Refusal, WorkerDiedError
from editloop.scoring.validation import validate_scores
from tests.pixel_judge import FACTS, message, picture


class Workers:
    """A worker in this process: scores are pictures' values; an edit of value 66 ends it, 77 is refused."""

    def __init__(self, seconds: float = 0.0):
        self.seconds, self.batches, self.starts = seconds, [], 0

    def start(self) -> ModelFacts:
        self.starts += 1
        return FACTS

    def alive(self) -> bool:
        return True

    def judge(self, groups: Sequence[EditGroup]) -> list[list[ScoreMessage] | Refusal]:
        self.batches.append([len(group.edits) for group in groups])
        time.sleep(self.seconds)
        values = [[int(edit[0, 0, 0]) for edit in group.edits] for group in groups]
        if any(66 in row for row in values):
            raise WorkerDiedError("worker 1 ended with exit code -9")
        return [Refusal("77 is refused", False) if 77 in row else [message(v) for v in row] for row in values]

    def stop(self) -> None:
        pass


def run(work: Any, workers: Sequence[Any], **settings: Any) -> Any:
    """What the coroutine function `work(batcher)` gives, with a batcher that is stopped after it."""

    async def whole() -> Any:
        batcher = Batcher(workers, ServeSettings(**settings), Meters())
        batcher.start(lambda reason: None)
        try:
            return await work(batcher)
        finally:
            await batcher.stop()

    return asyncio.run(whole())


def ask(batcher: Batcher, *values: int, task: str = "a") -> Any:
    return batcher.score("make it red", picture(0), task, [picture(value) for value in values])


def values(scores: list[ScoreMessage]) -> list[float]:
    return [score.axes["if"].mean for score in scores]


@given(
    st.lists(st.tuples(st.integers(1, 6), st.sampled_from("abc"), st.booleans()), min_size=1, max_size=20),
    st.integers(1, 12),
)
def test_batches_lose_nothing_and_keep_to_their_size(requests: list[tuple[int, str, bool]], most: int) -> None:
    async def check() -> None:
        loop = asyncio.get_running_loop()
        queue = deque(
            QueuedRequest("x", picture(0), task, [picture(1)] * size, loop.create_future(), alone=alone)
            for size, task, alone in requests
        )
        every, taken = list(queue), []
        while queue:
            oldest = queue[0]
            batch = take_batch(queue, most)
            assert batch[0] is oldest, "the oldest never waits for a younger one"
            assert sum(len(one.edits) for one in batch) <= most or len(batch) == 1
            assert len(batch) == 1 or not any(one.alone for one in batch)
            groups = merge_by_task(batch)
            assert len(groups) == len({one.task for one in batch})
            for group, members in groups:
                assert len(group.edits) == sum(len(one.edits) for one in members)
            taken += batch
        assert sorted(map(id, taken)) == sorted(map(id, every))

    asyncio.run(check())


def test_requests_of_one_task_become_one_group_and_get_their_own_scores() -> None:
    worker = Workers()

    async def work(batcher: Batcher) -> Any:
        return await asyncio.gather(ask(batcher, 1, 2), ask(batcher, 5, task="b"), ask(batcher, 3), ask(batcher, 4, 6))

    found = run(work, [worker], window_ms=100)
    assert [values(scores) for scores in found] == [[1, 2], [5], [3], [4, 6]]
    assert worker.batches == [[5, 1]]


def test_a_batch_that_is_full_does_not_wait_for_its_window() -> None:
    async def work(batcher: Batcher) -> float:
        began = time.monotonic()
        await asyncio.gather(ask(batcher, 1, 2), ask(batcher, 3, 4))
        return time.monotonic() - began

    assert run(work, [Workers()], window_ms=5000, max_batch=4) < 2


def test_a_request_that_kills_workers_is_told_and_its_neighbours_are_answered() -> None:
    worker = Workers()

    async def work(batcher: Batcher) -> Any:
        return await asyncio.gather(
            ask(batcher, 1), ask(batcher, 66), ask(batcher, 2, task="b"), return_exceptions=True
        )

    first, killer, last = run(work, [worker], window_ms=100, tries=3)
    assert (values(first), values(last)) == ([1], [2])
    assert isinstance(killer, UnavailableError)
    assert "3 workers died" in str(killer)
    assert worker.starts == 4, "one start, and one for each of three deaths"


def test_a_refused_request_does_not_take_others_of_its_task_along() -> None:
    async def work(batcher: Batcher) -> Any:
        return await asyncio.gather(ask(batcher, 1), ask(batcher, 77), return_exceptions=True)

    good, bad = run(work, [Workers()], window_ms=100)
    assert values(good) == [1]
    assert isinstance(bad, RefusedError)


def test_a_full_queue_refuses_with_a_time_that_grows_with_it() -> None:
    async def work(batcher: Batcher) -> Any:
        first = asyncio.create_task(ask(batcher, 0))
        await asyncio.sleep(0.1)
        waiting = [
            asyncio.create_task(batcher.score("x", picture(0), client, [picture(1)] * 4, client=client))
            for client in "ab"
        ]
        await asyncio.sleep(0.05)
        batcher._pace = 2.0
        with pytest.raises(OverloadedError) as caught:
            await ask(batcher, 1)
        await asyncio.gather(first, *waiting)
        return caught.value.seconds

    assert run(work, [Workers(seconds=0.3)], window_ms=0, queue=8, max_batch=4) == 8 * 2


def test_whoever_waits_too_long_is_told_and_not_judged() -> None:
    worker = Workers(seconds=0.4)

    async def work(batcher: Batcher) -> Any:
        first = asyncio.create_task(ask(batcher, 1))
        await asyncio.sleep(0.1)
        late = await asyncio.gather(
            asyncio.wait_for(ask(batcher, 2), 0.1), ask(batcher, 3, task="b"), return_exceptions=True
        )
        return late, await first

    (gone, kept), first = run(work, [worker], window_ms=0)
    assert isinstance(gone, TimeoutError)
    assert (values(kept), values(first)) == ([3], [1])
    assert worker.batches == [[1], [1]], "nothing was computed for the one who left"


def test_stopping_tells_whoever_still_waits() -> None:
    async def whole() -> Any:
        batcher = Batcher([Workers(seconds=0.3)], ServeSettings(window_ms=0), Meters())
        batcher.start(lambda reason: None)
        asked = [asyncio.create_task(ask(batcher, one, task=str(one))) for one in range(3)]
        await asyncio.sleep(0.1)
        await batcher.stop()
        return await asyncio.gather(*asked, return_exceptions=True)

    assert all(isinstance(one, UnavailableError) for one in asyncio.run(whole()))


@pytest.mark.parametrize(
    "fault",
    [
        {"missing": "too dark"},
        {"overall": None},
        {"axes": {}},
        {"reward": float("nan")},
        {"fused": {"mean": 1.0, "sigma": -1.0}},
        {"surplus": 1},
    ],
)
def test_a_score_is_whole_or_missing(fault: dict[str, Any]) -> None:
    good = message(1.0).model_dump()
    ScoreMessage.model_validate(good)
    ScoreMessage.model_validate({"missing": "too dark"})
    with pytest.raises(ValidationError):
        ScoreMessage.model_validate(good | fault)


@given(st.floats(), st.floats())
def test_only_finite_scores_are_sound(mean: float, overall: float) -> None:
    belief = AxisScore(mean, 1.0)
    score = validate_scores(Score({"if": belief}, belief, overall, 0.5), ("if",))
    assert bool(score.missing) != bool(np.isfinite([mean, overall]).all())
    ScoreMessage.of(score)
    assert ScoreMessage.of(score).score() == score


def test_a_token_is_asked_for_wherever_others_can_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDITLOOP_SERVE_TOKEN", raising=False)
    assert serve_token("127.0.0.1") is serve_token("::1") is serve_token("localhost") is None
    for host in ("0.0.0.0", "::", "10.1.2.3", "judge.example"):
        with pytest.raises(EditLoopError, match="EDITLOOP_SERVE_TOKEN"):
            serve_token(host)
    monkeypatch.setenv("EDITLOOP_SERVE_TOKEN", "secret")
    assert serve_token("0.0.0.0") == "secret"


@pytest.mark.parametrize(
    ("visible", "devices"),
    [("", [None] * 3), ("0", [None] * 3), ("4,5", ["cuda:0", "cuda:1", "cuda:0"]), ("GPU-a,GPU-b,GPU-c", None)],
)
def test_workers_take_the_gpus_in_turn(
    visible: str, devices: list[str | None] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert worker_devices(3) == (devices or ["cuda:0", "cuda:1", "cuda:2"])


class Asgi:
    """Asks the application itself, without a network."""

    def __init__(self, worker: Any, token: str | None = "secret", **settings: Any):
        self.settings = ServeSettings(window_ms=1, **settings)
        self.worker, self.token = worker, token

    def ask(self, *calls: tuple[str, str, dict[str, Any]]) -> list[httpx.Response]:
        async def whole() -> list[httpx.Response]:
            app = make_app(self.settings, Batcher([self.worker], self.settings, Meters()), self.token, on_failure=print)
            async with app.router.lifespan_context(app):
                await asyncio.sleep(0.05)
                transport = httpx.ASGITransport(app)
                async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                    return [await client.request(method, path, **options) for method, path, options in calls]

        return asyncio.run(whole())


def test_memory_that_others_hold_is_not_given_twice() -> None:
    from editloop.scoring.serving.app import MemoryBudget

    batcher = Batcher([Workers()], ServeSettings(), Meters())
    memory = MemoryBudget(100)
    with memory.reserve("a", batcher) as more:
        more(590)
        with memory.reserve("b", batcher) as others, pytest.raises(OverloadedError, match="hold the server's"):
            others(1)
    assert memory.share.total == 0
    with memory.reserve("a", batcher) as more, memory.reserve("b", batcher) as others:
        more(30)
        others(30)
        with pytest.raises(OverloadedError, match="of your address"):
            more(20)
        with pytest.raises(OverloadedError, match="of your address"), memory.reserve("a", batcher) as again:
            again(20)
        with memory.reserve("c", batcher) as third:
            third(30)
    assert memory.share.total == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 40)), max_size=60), st.integers(120, 500))
def test_who_comes_next_finds_as_much_as_the_greediest_took_bit_by_bit(
    claims: list[tuple[str, int]], capacity: int
) -> None:
    share = FairShare(capacity)
    for client, amount in claims:
        if share.fits(client, amount):
            first = not share.holdings[client]
            share.take(client, amount)
            assert first or share.holdings[client] <= capacity - share.total
    assert share.total <= capacity
    assert share.fits("next", 1) or share.total == capacity


def test_four_decoders_serve_a_third_client_beside_two_that_take_all_they_can() -> None:
    share = FairShare(4)
    taken = []
    for client in "aaaabbbbcc":
        if share.fits(client, 1):
            share.take(client, 1)
            taken.append(client)
    assert taken == ["a", "a", "b", "c"]


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("testclient", "testclient"),
        (None, ""),
    ],
)
def test_a_client_is_an_address_or_the_network_that_it_chooses_addresses_from(host: str | None, client: str) -> None:
    assert client_of(host) == client


def test_a_client_that_fills_its_share_of_the_queue_leaves_room_for_others() -> None:
    async def work(batcher: Batcher) -> Any:
        def score(client: str, *values: int) -> Any:
            return batcher.score("x", picture(0), client, [picture(value) for value in values], client=client)

        first = asyncio.create_task(score("a", 0))
        await asyncio.sleep(0.1)
        waiting = [asyncio.create_task(score("a", 1)) for _ in range(4)]
        await asyncio.sleep(0.05)
        with pytest.raises(OverloadedError, match="4 edits of your address wait; of the 8"):
            await score("a", 1)
        served = await score("b", 5, 6)
        await asyncio.gather(first, *waiting)
        return served

    assert values(run(work, [Workers(seconds=0.2)], window_ms=0, queue=8)) == [5, 6]


def test_without_a_token_only_names_of_this_machine_are_answered() -> None:
    calls = [("GET", "/healthz", {"headers": {"Host": host}}) for host in ("localhost:8420", "evil.example")]
    assert [answer.status_code for answer in Asgi(Workers(), token=None).ask(*calls)] == [200, 400]

"""The server as it is started: real processes and sockets, workers killed and hung, overload, its end."""

import base64
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from editloop.data.png_encoding import encode_png
from editloop.models.judge_protocol import EditGroup, StaleJudgeError
from tests.pixel_judge import KILLER, PixelJudge
from tests.served_judge import ADDRESS, Server, body, group, pictures, post, ready, served


def test_scores_are_the_judges_own_and_name_the_model(server: Server) -> None:
    groups = [group(seed, edits=seed % 3 + 1) for seed in range(20)]
    judge = server.judge()
    assert judge.judge(groups) == PixelJudge().judge(groups)
    answer = post(server, body())
    assert answer.json()["version"] == answer.headers["X-EditLoop-Version"] == PixelJudge.version == judge.version
    assert answer.headers["X-EditLoop-Model"] == PixelJudge.name


def test_nothing_of_a_server_listens_beyond_this_machine(server: Server) -> None:
    assert post(server, body()).status_code == 200
    processes = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
    assert len(processes) >= 3, "the server, a worker and a decoder"
    listening = [one for process in processes for one in process.net_connections() if one.status == psutil.CONN_LISTEN]
    assert {one.laddr.ip for one in listening} == {"127.0.0.1"}


def test_requests_of_one_task_are_judged_as_one_group(tmp_path: Path) -> None:
    source, *edits = pictures(9)
    with served(tmp_path, window_ms=300) as running:
        judge = running.judge()
        found = judge.judge([EditGroup("make it red", source, [edit]) for edit in edits])
        assert [row[0] for row in found] == PixelJudge().judge([EditGroup("make it red", source, edits)])[0]
        assert running.metric("editloop_batch_groups_sum") == 1
        assert running.metric("editloop_batch_requests_sum") == len(edits)


def test_no_request_is_lost_while_workers_are_killed(tmp_path: Path) -> None:
    groups = [group(seed, edits=2, instruction="slow 0.02") for seed in range(300)]
    with served(tmp_path, workers=2, max_batch=8, tries=5) as running:
        judge = running.judge()
        dead: list[int] = []
        done = threading.Event()

        def kill() -> None:
            while not done.is_set():
                time.sleep(0.7)
                if len(dead) < 3 and (alive := running.workers()):
                    dead.append(alive[0].pid)
                    os.kill(alive[0].pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        found = judge.judge(groups)
        done.set()
        killer.join()
        assert len(dead) >= 2, "workers were killed while requests were under way"
        assert found == PixelJudge().judge(groups)
        assert running.metric("editloop_worker_deaths_total") >= 2
        assert running.metric("editloop_scored_edits_total") == 600


def test_a_request_that_kills_every_worker_is_503_and_the_server_goes_on(tmp_path: Path) -> None:
    with served(tmp_path, tries=2) as running:
        answer = post(running, body(edits=[base64.b64encode(encode_png(KILLER)).decode()]))
        assert answer.status_code == 503
        assert "2 workers died" in answer.json()["error"]
        assert running.judge().judge([group(1)]) == PixelJudge().judge([group(1)])


def test_a_worker_that_dies_once_costs_a_second_try_only(server: Server, tmp_path: Path) -> None:
    one = group(1, instruction=f"die once {tmp_path / 'mark'}")
    assert server.judge().judge([one]) == PixelJudge().judge([one])
    assert (tmp_path / "mark").exists()


def test_a_worker_that_dies_idle_is_replaced_before_a_request_finds_it(tmp_path: Path) -> None:
    with served(tmp_path) as running:
        (worker,) = running.workers()
        worker.kill()
        deadline = time.monotonic() + 20
        while running.metric("editloop_worker_deaths_total") == 0 or not ready(running.url):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert [one.pid for one in running.workers()] != [worker.pid]
        assert running.judge().judge([group(1)]) == PixelJudge().judge([group(1)])


def test_a_worker_that_hangs_is_replaced(tmp_path: Path) -> None:
    with served(tmp_path, request_seconds=3, tries=2) as running:
        (worker,) = running.workers()
        os.kill(worker.pid, signal.SIGSTOP)
        answer = post(running, body())
        assert answer.status_code == 503, "it was told in time"
        assert running.judge().judge([group(1)]) == PixelJudge().judge([group(1)])
        assert [one.pid for one in running.workers()] != [worker.pid]


def test_overload_is_told_with_a_time_and_the_client_comes_back(tmp_path: Path) -> None:
    with served(tmp_path, queue=4, max_batch=2) as running:
        slow = body("slow 0.3")
        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(lambda _: post(running, slow), range(16)))
        refused = [answer for answer in found if answer.status_code == 429]
        assert {answer.status_code for answer in found} == {200, 429}
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
        groups = [group(seed, instruction="slow 0.05") for seed in range(16)]
        assert running.judge().judge(groups) == PixelJudge().judge(groups)


def test_nothing_is_computed_for_whoever_has_left(tmp_path: Path) -> None:
    with served(tmp_path, max_batch=1) as running, ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, running, body("slow 4"))
        time.sleep(0.5)
        for _ in range(3):
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{running.url}/v1/score", json=body("slow 9"), headers=ADDRESS, timeout=0.3)
        assert first.result().status_code == 200
        assert post(running, body()).status_code == 200
        assert running.metric("editloop_scored_edits_total") == 2


def test_a_server_that_is_told_to_stop_finishes_what_it_took(tmp_path: Path) -> None:
    with served(tmp_path, max_batch=1) as running, ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(post, running, body("slow 0.5")) for _ in range(4)]
        time.sleep(0.4)
        workers = running.workers()
        running.process.terminate()
        assert [one.result().status_code for one in asked] == [200] * 4
        assert running.process.wait(20) == 0 or running.process.returncode == -signal.SIGTERM
        psutil.wait_procs(workers, timeout=10)
        assert not any(worker.is_running() for worker in workers)


def test_workers_of_a_killed_server_end_by_themselves(tmp_path: Path) -> None:
    with served(tmp_path) as running:
        workers = running.workers()
        running.process.kill()
        _, alive = psutil.wait_procs(workers, timeout=10)
        assert workers
        assert not alive


def test_a_model_that_cannot_be_opened_ends_the_server_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"head_1\.0\.weight is missing"), served(tmp_path, "broken"):
        pass


def test_a_client_notices_a_server_with_another_model(tmp_path: Path) -> None:
    with served(tmp_path) as running:
        judge = running.judge()
        judge.version = "2" * 64
        with pytest.raises(StaleJudgeError, match="1111"):
            judge.judge([group(1)])

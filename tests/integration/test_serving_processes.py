"""The server as it is started: real processes and sockets, workers killed, attacks, and the same scores every way."""

import base64
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from annotation.formats.edits_file import read_edits
from components.judges.encoding import png
from components.judges.opening import find_local, open_judge
from components.judges.protocol import EditGroup, StaleJudgeError
from components.serving.client import JudgeClientSettings, ServedJudge
from infra import registry, tracking
from infra.content import complete_folder, read_manifest
from infra.services import start_services, stop_services
from tests.edit_score_models import some_groups, tiny_score
from tests.pixel_judge import INFINITE, KILLER, UNJUDGEABLE, PixelJudge

TOKEN = "a-secret"
ADDRESS = {"Authorization": f"Bearer {TOKEN}"}
START = """
import sys
from components.serving.server import serve
from components.serving.settings import ServeSettings
from tests.pixel_judge import open_pixel_judge

if __name__ == "__main__":
    opener = open_pixel_judge if sys.argv[1] in ("pixel", "broken") else None
    serve(sys.argv[1], ServeSettings.model_validate_json(sys.argv[2]), opener=opener)
"""


class Server:
    """A running server."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path):
        self.process, self.url, self.log = process, url, log

    def workers(self) -> list[psutil.Process]:
        """The processes that have a model."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            try:
                found += [child] if "spawn_main" in " ".join(child.cmdline()) else []
            except psutil.Error:  # it has just died
                pass
        return found

    def judge(self, **settings: Any) -> ServedJudge:
        return ServedJudge(self.url, JudgeClientSettings(token=TOKEN, **{"patience": 60.0, **settings}))

    def metric(self, name: str) -> float:
        lines = httpx.get(f"{self.url}/metrics", headers=ADDRESS).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.split("{")[0].split(" ")[0] == name)


@contextmanager
def served(folder: Path, model: str = "pixel", **settings: Any) -> Iterator[Server]:
    script, log = folder / "serve_judge.py", folder / "server.log"
    script.write_text(START)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    told = json.dumps({"port": port, "window_ms": 5, **settings})
    environment = {**os.environ, "EDITLOOP_SERVE_TOKEN": TOKEN, "PYTHONPATH": os.getcwd()}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, str(script), model, told], env=environment, stdout=stream, stderr=subprocess.STDOUT
        )
    server = Server(process, f"http://127.0.0.1:{port}", log)
    try:
        deadline = time.monotonic() + 90
        while not _ready(server.url):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the arithmetic judge that tests share; whatever they do to it, it must go on."""
    with served(tmp_path_factory.mktemp("server"), request_seconds=20, limits={"body_megabytes": 1}) as running:
        yield running


def pictures(count: int, seed: int = 0, side: int = 16) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, size=(count, side, side, 3), dtype=np.uint8))


def group(seed: int, edits: int = 2, instruction: str = "make it red") -> EditGroup:
    source, *made = pictures(edits + 1, seed)
    return EditGroup(instruction, source, made)


def body(instruction: Any = "x", source: Any = None, edits: Any = None) -> dict[str, Any]:
    good = base64.b64encode(png(pictures(1)[0])).decode()
    return {"instruction": instruction, "source": source or good, "edits": [good] if edits is None else edits}


def post(server: Server, content: Any, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/score", json=content, headers={**ADDRESS, **(headers or {})}, timeout=60)


def test_scores_are_the_judges_own_and_name_the_model(server: Server) -> None:
    groups = [group(seed, edits=seed % 3 + 1) for seed in range(20)]
    judge = server.judge()
    assert judge.judge(groups) == PixelJudge().judge(groups)
    answer = post(server, body())
    assert answer.json()["version"] == answer.headers["X-EditLoop-Version"] == PixelJudge.version == judge.version
    assert answer.headers["X-EditLoop-Model"] == PixelJudge.name


def test_requests_of_one_task_are_judged_as_one_group(tmp_path: Path) -> None:
    source, *edits = pictures(9)
    with served(tmp_path, window_ms=300) as running:
        judge = running.judge()
        found = judge.judge([EditGroup("make it red", source, [edit]) for edit in edits])
        assert [row[0] for row in found] == PixelJudge().judge([EditGroup("make it red", source, edits)])[0]
        assert running.metric("editloop_batch_groups_sum") == 1
        assert running.metric("editloop_batch_requests_sum") == len(edits)


def test_whoever_has_no_token_learns_nothing(server: Server) -> None:
    for shown in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {"Authorization": "Bearer ü"}):
        headers = {name: value.encode() for name, value in shown.items()}
        for method, path in (("POST", "/v1/score"), ("GET", "/v1/model"), ("GET", "/metrics")):
            answer = httpx.request(method, server.url + path, headers=headers)
            assert answer.status_code == 401
            assert "pixel" not in answer.text
    for path in ("/healthz", "/readyz"):
        assert httpx.get(server.url + path).status_code == 200


def picture_file(form: str, array: np.ndarray | None = None, **options: Any) -> str:
    buffer = io.BytesIO()
    picture = Image.fromarray(pictures(1, side=64)[0] if array is None else array)
    picture.convert(options.pop("mode", picture.mode)).save(buffer, form, **options)
    return base64.b64encode(buffer.getvalue()).decode()


def bomb() -> str:
    """A PNG of a kilobyte that says it has 900 million pixels."""
    data = bytearray(base64.b64decode(picture_file("PNG")))
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return base64.b64encode(bytes(data)).decode()


def truncated() -> str:
    return base64.b64encode(base64.b64decode(picture_file("PNG"))[:500]).decode()


ATTACKS: dict[str, tuple[Any, int, str]] = {
    "no JSON": (None, 422, "body"),
    "another key": (body() | {"model": "x"}, 422, "model"),
    "no edits": (body(edits=[]), 422, "edits"),
    "too many edits": (body(edits=body()["edits"] * 65), 413, "at most 64"),
    "no base64": (body(source="/etc/passwd"), 422, "base64"),
    "not a picture": (body(source=base64.b64encode(b"hello").decode()), 422, "source"),
    "another format": (body(source=picture_file("GIF")), 422, "PNG, JPEG or WebP"),
    "truncated": (body(edits=[truncated()]), 422, "edits[0]"),
    "bomb": (body(edits=[bomb()]), 422, "pixels"),
    "1 x 1": (body(edits=[picture_file("PNG", pictures(1, side=1)[0])]), 422, "1 x 1"),
    "10,001 characters": (body("x" * 10_001), 422, "10,000"),
    "half a character": (json.dumps(body("\ud800")), 422, "hex escape"),
    "a body over the limit": (body("x" * 2_000_000), 413, "bytes"),
    "a number as instruction": (body(7), 422, "instruction"),
    "a pickle": (b"\x80\x04cos\nsystem\n", 422, "body"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_are_refused_with_the_rule(server: Server, attack: str) -> None:
    content, status, words = ATTACKS[attack]
    raw = content if isinstance(content, bytes) else json.dumps(content) if not isinstance(content, str) else content
    answer = httpx.post(
        f"{server.url}/v1/score", content=raw, headers={**ADDRESS, "Content-Type": "application/json"}, timeout=60
    )
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]
    assert len(answer.text) < 2000, "what was sent is not sent back"


def test_what_a_browser_sends_by_itself_is_refused(server: Server) -> None:
    assert post(server, body(), {"Content-Type": "text/plain"}).status_code == 415


def test_a_body_without_a_length_is_cut_off_too(server: Server) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(200):
            yield b" " * 100_000

    try:
        answer = httpx.post(
            f"{server.url}/v1/score", content=endless(), headers={**ADDRESS, "Content-Type": "application/json"}
        )
        assert answer.status_code == 413
    except httpx.TransportError:
        pass  # the server has closed the connection before all of it was sent
    assert httpx.get(f"{server.url}/healthz").status_code == 200


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {"mode": "RGBA"}),
        ("JPEG", {"mode": "CMYK"}),
        ("PNG", {"mode": "L"}),
        ("PNG", {"array": np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16}),
        ("WEBP", {"lossless": True}),
        ("PNG", {"array": pictures(1, side=320)[0][:32]}),
    ],
)
def test_odd_pictures_are_scored(server: Server, form: str, options: dict[str, Any]) -> None:
    odd = picture_file(form, **options)
    scores = post(server, body("改为蓝色 <|Reward|> <|image_pad|> \u202e", source=odd, edits=[odd])).json()["scores"]
    assert scores[0]["missing"] == ""


def test_a_score_that_is_no_number_is_missing(server: Server) -> None:
    scores = server.judge().judge([EditGroup("x", pictures(1)[0], [INFINITE, pictures(1)[0]])])[0]
    assert "finite" in scores[0].missing
    assert scores[0].overall is None
    assert scores[1].overall is not None


def test_a_group_that_cannot_be_judged_is_refused_alone(server: Server) -> None:
    source = pictures(1)[0]
    with ThreadPoolExecutor(4) as pool:
        found = list(
            pool.map(
                lambda edit: post(server, body(edits=[base64.b64encode(png(edit)).decode()])),
                [source, UNJUDGEABLE, source, source],
            )
        )
    assert [answer.status_code for answer in found] == [200, 422, 200, 200]
    assert "value 77" in found[1].json()["error"]


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
        answer = post(running, body(edits=[base64.b64encode(png(KILLER)).decode()]))
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
        while running.metric("editloop_worker_deaths_total") == 0 or not _ready(running.url):
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
        began = time.monotonic()
        assert post(running, body()).status_code == 200
        assert time.monotonic() - began < 9
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


def editloop(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    call = "import sys; from pipelines.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", call, *arguments], capture_output=True, text=True, check=False,
        env={**os.environ, **environment}, timeout=120,
    )  # fmt: skip


INSTRUCTIONS = (
    "make the circle red",
    "改为蓝色的圆 اجعل الدائرة حمراء",
    "make it red <|Reward|><|Reward|> <|image_pad|><|vision_start|><|im_end|>",
    "red " * 2500,
)


def test_python_command_line_and_http_score_the_same(tmp_path: Path) -> None:
    groups = [
        EditGroup(instruction, pictures(1, seed, side=32 + 16 * seed)[0], pictures(3, seed + 50, side=32 + 16 * seed))
        for seed, instruction in enumerate(INSTRUCTIONS)
    ]
    lines = []
    for place, one in enumerate(groups[:3]):  # an edits file's instructions have at most 2000 characters
        for name, picture in zip(("s", "a", "b", "c"), (one.source, *one.edits), strict=True):
            Image.fromarray(picture).save(tmp_path / f"{place}{name}.png")
        made = [{"image": f"{place}{name}.png", "editor": name} for name in "abc"]
        lines.append({"id": f"{place}", "instruction": one.instruction, "source": f"{place}s.png", "candidates": made})
    edits = tmp_path / "edits.jsonl"
    edits.write_text("".join(json.dumps(line) + "\n" for line in lines))

    here = open_judge("tiny-reward")
    plain = [score for row in here.judge(groups) for score in row]
    assert all(not score.missing for score in plain)

    def scored(model: str, name: str, **environment: str) -> list[dict[str, Any]]:
        output = tmp_path / f"{name}.parquet"
        done = editloop("score", "--model", model, "--input", str(edits), "--output", str(output), **environment)
        assert done.returncode == 0, done.stderr
        assert "9 edits of 3 tasks, 0 missing" in done.stdout
        found: list[dict[str, Any]] = parquet.read_table(output).to_pylist()
        return found

    def equal(score: Any, row: dict[str, Any]) -> None:
        assert row["overall"] == pytest.approx(score.overall, abs=1e-4)
        assert row["reward"] == pytest.approx(score.reward, abs=1e-4)
        for axis, belief in {**score.axes, "fused": score.fused}.items():
            assert row[f"{axis}_mean"] == pytest.approx(belief.mean, abs=1e-4)
            assert row[f"{axis}_sigma"] == pytest.approx(belief.sigma, rel=1e-4)

    with served(tmp_path, "tiny-reward") as running:
        judge = running.judge()
        assert (judge.name, judge.version, judge.axes) == (here.name, here.version, here.axes)
        over_http = [score for row in judge.judge(groups) for score in row]
        tables = [
            scored("tiny-reward", "local"),
            scored(running.url, "served", EDITLOOP_JUDGE_TOKEN=TOKEN),
        ]
    for mine, theirs in zip(plain, over_http, strict=True):
        equal(mine, {
            "overall": theirs.overall, "reward": theirs.reward, "fused_mean": theirs.fused.mean,
            "fused_sigma": theirs.fused.sigma,
            **{f"{axis}_mean": belief.mean for axis, belief in theirs.axes.items()},
            **{f"{axis}_sigma": belief.sigma for axis, belief in theirs.axes.items()},
        })  # fmt: skip
    for table in tables:
        for score, row in zip(plain[:9], table, strict=True):
            equal(score, row)


def test_the_command_line_keeps_the_best_and_refuses_what_it_must(tmp_path: Path) -> None:
    folder = tmp_path / "edits"
    folder.mkdir()
    names = []
    for place, picture in enumerate(pictures(5, side=32)):
        Image.fromarray(picture).save(folder / f"{place}.png")
        names.append(f"{place}.png")
    made = [{"image": name, "editor": f"editor-{name}"} for name in names[1:]]
    row = {"id": "a", "instruction": "make it red", "source": names[0], "candidates": made}
    (folder / "edits.jsonl").write_text(json.dumps(row) + "\n")
    output = tmp_path / "scores.parquet"
    call = ("score", "--model", "tiny-reward", "--input", str(folder), "--output", str(output))
    done = editloop(*call, "--best-of", "3")
    assert done.returncode == 0, done.stderr
    found = parquet.read_table(output).to_pylist()
    assert len(found) == 3
    (best,) = read_edits(tmp_path / "scores-best")
    assert best.candidates[0].editor == max(found, key=lambda one: one["overall"])["editor"]
    for arguments, words in [
        (call, "not mixed"),
        ((*call[:-1], str(tmp_path / "scores.csv")), ".parquet"),
        ((*call[:-1], "/proc/scores.parquet"), "cannot be written"),
        (("serve", "--model", "tiny-reward", "--host", "0.0.0.0", "--port", "0"), "EDITLOOP_SERVE_TOKEN"),
        (("serve", "--model", "no-such"), "no such model"),
        (("serve", "--model", "tiny-reward", "--workers", "0"), "--workers 0"),
    ]:
        failed = editloop(*arguments)
        assert failed.returncode == 1, arguments
        assert words in failed.stderr
        assert "Traceback" not in failed.stderr


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        done = editloop("serve", "--model", "tiny-reward", "--port", str(other.getsockname()[1]))
    assert done.returncode == 1
    assert "cannot listen" in done.stderr


def test_edit_score_is_opened_and_served_like_any_judge(tmp_path: Path) -> None:
    model = tmp_path / "model"
    tiny_score(reasoning=False, least_mass=0.0).save(model, {})
    here, groups = open_judge(str(model)), some_groups()
    plain = [score for row in here.judge(groups) for score in row]
    assert not any(score.missing for score in plain)
    assert len({score.overall for score in plain}) == len(plain), "it tells edits apart"
    with served(tmp_path, str(model)) as running:
        judge = running.judge()
        assert (judge.name, judge.version, judge.axes) == ("edit-score", here.version, here.axes)
        for mine, theirs in zip(plain, [score for row in judge.judge(groups) for score in row], strict=True):
            assert theirs.overall == pytest.approx(mine.overall, abs=1e-3)
            assert theirs.axes["naturalness"].sigma == pytest.approx(mine.axes["naturalness"].sigma, abs=1e-3)


def test_an_alias_that_moves_does_not_move_a_running_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "services"
    try:
        for name, value in start_services(home, label_studio=False).environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("EDITLOOP_CACHE", str(tmp_path / "cache"))
        first = find_local("tiny-reward").folder
        with complete_folder(tmp_path / "second") as second:
            shutil.copytree(first, second, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
            (second / "note.json").write_text("{}")
        versions = []
        for name, folder in (("first", first), ("second", tmp_path / "second")):
            with tracking.stage_run("reward", "train-reward", name, {}, {}) as run:
                versions.append(registry.register_model("edit-reward", folder, run.run_id, {}))
        registry.set_alias("edit-reward", "champion", versions[0])
        model = "models:/edit-reward@champion"
        here = open_judge(model)
        assert here.version == read_manifest(first)["sha256"]
        with served(tmp_path, model) as running:
            judge = running.judge()
            before = judge.judge([group(1)])
            registry.set_alias("edit-reward", "champion", versions[1])
            (worker,) = running.workers()
            worker.kill()
            assert judge.judge([group(1)]) == before, "the worker that took its place has the version served before"
            assert judge.version == here.version
        with served(tmp_path, model) as running:
            assert running.judge().version == read_manifest(tmp_path / "second")["sha256"]
    finally:
        stop_services(home)

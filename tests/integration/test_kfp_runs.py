"""Runs on a Kubeflow Pipelines server: one per piece of work, whoever submits it, with a real MLflow to decide who."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
import yaml
from typer.testing import CliRunner

from editloop.lineage import run_claim, tracking
from editloop.lineage.run_claim import claim_run, latest_claim
from infra.profile import read_profile
from infra.services import Services
from pipelines.cli import app
from pipelines.kfp_server import KfpServer
from pipelines.kfp_settings import KfpSettings
from pipelines.run_status import RunStatus
from tests.kfp_stub import KfpStub, kfp_stub

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture
def kfp(mlflow_environment: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpStub]:
    with kfp_stub() as stub:
        monkeypatch.setenv("EDITLOOP_KFP_ENDPOINT", stub.url)
        monkeypatch.setenv("EDITLOOP_PROFILE", "example")
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", stub.url)
        yield stub


@pytest.fixture
def key() -> str:
    """A piece of work that no other test has."""
    return f"improve-editor-{uuid4().hex[:8]}"


def form(key: str) -> dict[str, Any]:
    settings = yaml.safe_dump({"run_key": key})
    return {"edits_to_practise": "s3://b/p", "edits_held_out": "s3://b/h", "settings": settings}


def server() -> KfpServer:
    return KfpServer(KfpSettings(), read_profile("example"))


def submit(key: str, again: bool = False) -> RunStatus:
    return server().submit("improve-editor", form(key), again=again)


def test_a_run_says_where_it_can_be_watched_and_a_second_call_where_it_stands(kfp: KfpStub, key: str) -> None:
    first = submit(key)
    (run,) = kfp.runs.values()
    assert (first.state, first.key) == ("started", key)
    assert first.address == f"https://pipelines.example.com/#/runs/details/{run['run_id']}"
    assert run["display_name"] == key
    assert run["service_account"] == "editloop-steps"
    assert run["runtime_config"]["parameters"]["edits_held_out"] == "s3://b/h"
    assert submit(key).state == "running"
    kfp.end(run["run_id"], "SUCCEEDED")
    assert submit(key).state == "done"
    assert submit(key, again=True).state == "done", "what is done is not done again"
    assert len(kfp.runs) == 1


def test_many_callers_at_once_start_one_run(kfp: KfpStub, key: str) -> None:
    kfp.create_seconds = 0.3
    with ThreadPoolExecutor(6) as pool:
        states = [status.state for status in pool.map(lambda _: submit(key), range(6))]
    assert sorted(states) == ["running"] * 5 + ["started"]
    assert len(kfp.named(key)) == 1


def test_what_a_person_terminated_is_not_started_again_unasked(kfp: KfpStub, key: str) -> None:
    submit(key)
    kfp.terminate("run-1")
    assert [submit(key).state for _ in range(2)] == ["stopped", "stopped"]
    assert submit(key, again=True).state == "started"
    assert [run["display_name"] for run in kfp.runs.values()] == [key, f"{key} (try 2)"]


def test_what_fails_is_started_again_after_a_pause_and_not_for_ever(kfp: KfpStub, key: str) -> None:
    now = datetime.now(UTC).isoformat()
    submit(key)
    kfp.end("run-1", "FAILED", "no GPU", now)
    waiting = submit(key)
    assert (waiting.state, len(kfp.runs)) == ("failed", 1)
    assert waiting.detail == "no GPU; started again in 10 min"
    kfp.end("run-1", "FAILED", "no GPU")
    assert submit(key).state == "started"
    kfp.end("run-2", "FAILED", "no GPU", now)
    assert submit(key).detail == "no GPU; started again in 30 min"
    kfp.end("run-2", "FAILED", "no GPU")
    assert submit(key).state == "started"
    kfp.end("run-3", "FAILED", "no GPU")
    given_up = submit(key)
    assert (given_up.state, len(kfp.runs)) == ("failed", 3)
    assert "3 runs failed" in given_up.detail
    assert submit(key, again=True).state == "started"


def test_a_caller_that_died_before_it_submitted_is_followed(
    kfp: KfpStub, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = claim_run(tracking.client(), key, 1, "ada")
    assert claim is not None
    assert claim_run(tracking.client(), key, 1, "bo") is None
    waiting = submit(key)
    assert (waiting.state, waiting.detail) == ("running", "ada is submitting it")
    monkeypatch.setattr(run_claim, "SUBMISSION_SECONDS", -1.0)
    assert submit(key).state == "started"
    assert [run["display_name"] for run in kfp.runs.values()] == [f"{key} (try 2)"]
    assert tracking.client().get_experiment(claim.experiment_id).lifecycle_stage == "deleted", "out of sight"


def test_a_run_whose_caller_died_after_it_submitted_is_adopted(
    kfp: KfpStub, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_run(tracking.client(), key, 1, "ada")
    kfp.create({"display_name": key})
    monkeypatch.setattr(run_claim, "SUBMISSION_SECONDS", -1.0)
    assert submit(key).state == "running"
    claim = latest_claim(tracking.client(), key)
    assert claim is not None
    assert (claim.run_id, claim.attempt, len(kfp.runs)) == ("run-1", 1, 1)


def test_runs_without_a_key_are_each_a_piece_of_work(kfp: KfpStub) -> None:
    for _ in range(2):
        assert server().submit("improve-editor", {"edits_held_out": "/h", "edits_to_practise": "/p"}).state == "started"
    assert [run["display_name"] for run in kfp.runs.values()] == ["improve-editor"] * 2


def test_the_command_line_prints_where_a_run_is_and_fails_where_it_failed(kfp: KfpStub, key: str) -> None:
    words = ["run", "improve-editor", "--set", "edits_to_practise=/p", "--set", "edits_held_out=/h"]
    words += ["--set", f"run_key={key}"]
    first = CliRunner().invoke(app, words)
    assert first.exit_code == 0
    assert first.stdout.startswith(f"started  {key}  https://pipelines.example.com/#/runs/details/run-1")
    kfp.end("run-1", "FAILED", "no GPU")
    kfp.end("run-1", "FAILED", "no GPU", datetime.now(UTC).isoformat())
    second = CliRunner().invoke(app, words)
    assert second.exit_code == 1
    assert "no GPU; started again in 10 min" in second.stdout


def test_waiting_ends_with_the_run(kfp: KfpStub, key: str) -> None:
    submit(key)
    kfp.end("run-1", "FAILED", "no GPU")
    assert server().find(key) == "run-1"
    ended = server().wait("run-1")
    assert (ended.state, ended.detail) == ("failed", "no GPU")
    server().stop("run-1")
    assert kfp.runs["run-1"]["state_history"]

"""Reconcile whatever happened to a campaign, in MLflow, or to a model: the others go on, and the reason is told."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from annotation.campaigns.label_studio import LabelStudioApi
from annotation.campaigns.labelling import labelling_config
from annotation.campaigns.locating import annotate_runs
from annotation.campaigns.project import describe, make_project
from annotation.campaigns.record import RECORDS
from editloop.lineage import registry, tracking
from editloop.lineage.run_claim import latest_claim
from infra.settings import service_settings
from pipelines import reconcile_failures
from pipelines.reconcile import reconcile
from pipelines.reconcile_settings import ReconcilePolicy
from pipelines.run_status import RunStatus
from tests.answered_campaigns import Opened, agree
from tests.command_line import EditLoop

Open = Callable[..., Opened]
POLICY = ReconcilePolicy()


class Starter:
    """A start of pipelines that fails for some campaigns."""

    def __init__(self, *failing: Opened, error: Exception | None = None):
        self.failing, self.error = {one.campaign.key for one in failing}, error
        self.started: list[str] = []

    def __call__(self, pipeline: str, arguments: dict[str, Any]) -> RunStatus:
        key = str(arguments.get("campaign", pipeline))
        self.started.append(key)
        if self.error and key in self.failing:
            raise self.error
        return RunStatus(key, "started")


def failures_of(one: Opened, start: Starter, **options: Any) -> list[str]:
    start.started.clear()
    return [line for line in reconcile(start, None, POLICY, **options).failures if one.campaign.key in line]


def run_of(one: Opened) -> Run:
    """The MLflow run that opened the campaign."""
    return annotate_runs(one.record())[0]


def test_a_campaign_that_fails_waits_longer_each_time_and_stops_no_other(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a defect: any error counts."""
    failing, going = opened("has a defect", recorded=True), opened("goes on", recorded=True)
    for one in (failing, going):
        one.answer(agree)
    start = Starter(failing, error=RuntimeError("odd\nerror"))
    (first,) = failures_of(failing, start)
    assert re.search(r"RuntimeError: odd error \(test_reconcile.py:\d+; EDITLOOP_LOG_LEVEL=DEBUG tells more\)$", first)
    assert {failing.campaign.key, going.campaign.key} <= set(start.started)
    (second,) = failures_of(failing, start)
    assert "failed once; tried again after" in second
    assert failing.campaign.key not in start.started, "another pass, here or elsewhere, leaves it alone"
    assert going.campaign.key in start.started
    assert failures_of(failing, start, again=True) == [first]
    failure = reconcile_failures.read_failure(run_of(failing))
    assert failure is not None
    assert failure.count == 2
    assert 100 < (failure.retry_at - datetime.now(UTC)).total_seconds() <= 120
    monkeypatch.setattr(reconcile_failures, "FIRST_PAUSE", reconcile_failures.FIRST_PAUSE * 0)
    start.error = None
    assert failures_of(failing, start) == []
    assert reconcile_failures.read_failure(run_of(failing)) is None


def test_what_was_registered_by_hand_is_named(opened: Open) -> None:
    improve = {"edits_to_practise": "/p", "edits_held_out": "/h", "registered_name": "by-hand-editor"}
    improve["reward"] = "models:/by-hand-reward@champion"
    one = opened(
        "by hand",
        recorded=True,
        follow_up=json.dumps({"improve-editor": improve, "collect-preferences": {"edits": "/n"}}),
    )
    one.answer(agree)
    api = tracking.client()
    for name in ("by-hand-reward", "by-hand-editor"):
        api.create_registered_model(name)
        version = api.create_model_version(name, "s3://nowhere/model")
        api.set_registered_model_alias(name, registry.CHAMPION, version.version)
    api.set_model_version_tag("by-hand-reward", "1", "editloop.campaign_key", one.campaign.key)
    (failure,) = failures_of(one, Starter())
    assert "models:/by-hand-reward/1 has no tag editloop.sha256" in failure
    api.set_model_version_tag("by-hand-reward", "1", "editloop.sha256", "0" * 64)
    lines = reconcile(Starter(), None, POLICY, again=True).lines()
    (note,) = [line for line in lines if "by-hand-editor/1" in line]
    assert note.startswith("note     models:/by-hand-editor/1, the champion, leads to no campaign: it has no tag")


def test_a_campaign_that_only_label_studio_knows_is_told(opened: Open) -> None:
    config = labelling_config(2, tiny=False)
    description = describe(opened("known").campaign.model_copy(update={"key": "0123456789abcdef"}))
    project = make_project(LabelStudioApi(service_settings()), "elsewhere", description, config)
    try:
        (note,) = [note for note in reconcile(Starter(), None, POLICY).notes if "elsewhere" in note]
        assert "has no record of 1 campaigns in Label Studio (elsewhere)" in note
        assert "MLFLOW_TRACKING_URI" in note
    finally:
        LabelStudioApi(service_settings()).call("DELETE", f"/api/projects/{project}/")


def test_a_deleted_run_of_the_opening_is_told_with_its_cure(opened: Open) -> None:
    one = opened("run deleted", recorded=True)
    one.answer(agree)
    run_id = run_of(one).info.run_id
    tracking.client().delete_run(run_id)
    (failure,) = failures_of(one, Starter())
    assert failure.endswith(f"was deleted, so nothing follows. Restore it: `mlflow runs restore --run-id {run_id}`.")
    command = [sys.executable, "-m", "mlflow", "runs", "restore", "--run-id", run_id]  # what the message says
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    start = Starter()
    assert failures_of(one, start) == []
    assert one.campaign.key in start.started


def test_a_deleted_experiment_is_one_line_with_its_cure_from_every_command(
    opened: Open, editloop: EditLoop, tmp_path: Path
) -> None:
    one = opened("experiment deleted", recorded=True)
    one.answer(agree)
    reconcile_once = ["reconcile", "--once", "--out", str(tmp_path)]
    status, close = ["campaign", "status", one.campaign.name], ["campaign", "close", one.campaign.name]
    stage = ["stage", "collect", "--campaign", str(one.folder), "--candidates", str(one.candidates)]
    train = ["run", "train-reward", "--set", f"campaign={one.campaign.name}", "--out", str(tmp_path / "run")]
    calls = {
        tracking.EXPERIMENT: [reconcile_once, [*stage, "--output", str(tmp_path / "judgements")], train],
        RECORDS: [reconcile_once, status, close],
    }
    api = tracking.client()
    for name, commands in calls.items():
        experiment = api.get_experiment_by_name(name)
        assert experiment is not None
        tracking.require_experiment(api, name)  # by a program that runs for days, and remembers its id
        api.delete_experiment(experiment.experiment_id)
        try:
            for words in commands:
                if words != reconcile_once:  # the others are programs of their own
                    tracking.forget_experiments()
                ended = editloop(*words)
                assert (ended.returncode, "Traceback" in ended.stderr) == (1, False), words
                cure = f"the experiment {name} (id {experiment.experiment_id}) was deleted. Restore it: "
                assert cure in ended.stderr, (words, ended.stderr)
                assert f"`mlflow experiments restore --experiment-id {experiment.experiment_id}`" in ended.stderr
        finally:
            api.restore_experiment(experiment.experiment_id)
    assert editloop(*close).returncode == 0


TWO_AT_ONCE = """
import sys, time
from pathlib import Path
from pipelines import backend
from pipelines.cli import main

_, campaign, ran, out = sys.argv

def run_local(name, arguments, root, tell):
    if f"train-reward-{campaign}" in arguments["settings"]:
        with Path(ran).open("a") as stream:
            stream.write("once\\n")
        time.sleep(8)

backend.run_local = run_local
sys.argv = ["editloop", "reconcile", "--once", "--out", out]
sys.exit(main())
"""


def test_two_reconcilers_on_two_machines_start_one_run(opened: Open, tmp_path: Path) -> None:
    """Each has a folder of its own, as two machines have."""
    one = opened("at once", recorded=True)
    one.answer(agree)
    ran = tmp_path / "ran"
    passes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_AT_ONCE, one.campaign.key, str(ran), str(tmp_path / name)],
            env=dict(os.environ),
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("here", "there")
    ]
    printed = [process.communicate(timeout=200)[0] for process in passes]
    assert ran.read_text() == "once\n", printed
    states = sorted(line.split()[0] for text in printed for line in text.splitlines() if one.campaign.key in line)
    assert states == ["running", "started"]
    key = next(word for text in printed for word in text.split() if word.startswith(f"train-reward-{one.campaign.key}"))
    claim = latest_claim(tracking.client(), key)
    assert claim is not None
    assert (claim.attempt, claim.is_abandoned) == (1, True), "it ended; what fails is tried again"

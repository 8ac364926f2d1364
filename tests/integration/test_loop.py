"""The whole loop in its smallest size, with every real part: Label Studio, MLflow, DVC, DeepSpeed, kfp.local, S3.

Edits, pictures, what steps hand on, checkpoints and the dataset's remote are in object storage.

It is killed in the middle of a stage, as if after failures, and called again. Then its lineage is walked and broken on
purpose.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from annotation.campaigns.accounts import read_accounts
from annotation.campaigns.campaign import Campaign, connect
from annotation.campaigns.closing import close_campaign, readiness
from annotation.campaigns.label_studio import LabelStudioApi
from annotation.campaigns.labelling import result_of
from annotation.campaigns.lead_queue import snapshot
from annotation.campaigns.locating import campaign_files
from annotation.campaigns.project import task_rows
from annotation.campaigns.record import read_records
from editloop.content import read_manifest, sha256_file
from editloop.lineage import registry, tracking
from editloop.object_folders import content_digest
from editloop.object_storage import ObjectFolder
from infra.services import start_services, stop_services
from infra.settings import service_settings
from pipelines.campaign_report import live_report
from pipelines.catalogue import STAGES, read_run_settings
from pipelines.environment import local_environment, services_of
from pipelines.reconcile import reconcile
from pipelines.reconcile_failures import CampaignFailure, keep_failure
from pipelines.reconcile_settings import ReconcilePolicy
from pipelines.settings import SMALLEST
from pipelines.summary import TURN_STAGES
from pipelines.verify import verify
from tests.s3_server import BUCKET, s3_server

pytestmark = pytest.mark.timeout(600)
CALL = "import sys; from pipelines.cli import main; sys.exit(main())"
KILLED_IN = "reward"
IN_STORAGE = {
    f"EDITLOOP_{name}": f"s3://{BUCKET}/{name.lower()}"
    for name in ("PICTURES", "OBJECTS", "CHECKPOINTS", "DATASET_REMOTE")
}


def demo(out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", CALL, "demo", "--preset", "smallest", "--out", str(out), "--keep"]
    return subprocess.Popen(command)


def fail_just_now(out: Path) -> None:
    """Leave what a pass leaves that failed just now, the tenth in a row. By themselves, passes wait an hour then."""
    with services_of(out):
        (run,) = tracking.find_runs(stage="annotate", finished=True, limit=1)
        keep_failure(run, "planted", CampaignFailure(reason="planted", count=9, at=datetime.now(UTC)))


@pytest.fixture(scope="module")
def turn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a demo that was killed in a stage and then finished; the environment names its running services."""
    out = tmp_path_factory.mktemp("loop") / "demo"
    before = dict(os.environ)
    with ExitStack() as stack:
        stack.callback(os.environ.update, before)
        stack.callback(os.environ.clear)
        os.environ.update(stack.enter_context(s3_server(out.with_name("s3"))) | IN_STORAGE)
        stack.callback(stop_services, out / "services")
        first = demo(out)
        log = out / "logs" / f"{STAGES[KILLED_IN].pipelines[0]}.log"
        while not (log.is_file() and f"Executing task '{KILLED_IN}'" in log.read_text()):
            assert first.poll() is None, "the demo ended before the stage began"
            time.sleep(0.2)
        first.send_signal(signal.SIGKILL)
        first.wait()
        fail_just_now(out)
        assert demo(out).wait() == 0, "who calls again does not wait for the pause"
        os.environ.update(start_services(out / "services").environment | local_environment(out))
        yield out


@pytest.fixture(scope="module")
def summary(turn: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((turn / "summary.json").read_text())
    return found


def test_every_stage_ran_and_every_figure_is_there(summary: dict[str, Any], turn: Path) -> None:
    assert [stage["name"] for stage in summary["stages"]] == list(TURN_STAGES)
    assert all(stage["status"] == "done" and stage["seconds"] > 0 for stage in summary["stages"])
    annotation, dataset, reward, editor = (summary[key] for key in ("annotation", "dataset", "reward", "editor"))
    tasks, asked = SMALLEST.scenes.train, SMALLEST.annotate.overlap
    assert annotation["tasks"] <= tasks
    assert annotation["judgements"] >= annotation["tasks"] * asked * 2
    assert set(annotation["alpha"]) == {"if", "vq"}
    assert 0 < reward["train_pairs"] < dataset["pairs"]
    assert {"model_version", "accuracy_oracle", "accuracy_base", "accuracy_labels", "within_editor", "ci95"} <= set(
        reward
    )
    assert summary["training"]["stopped"] == ""
    assert {"reward", "oracle", "right", "preservation", "diversity"} <= set(summary["training"]["last"])
    assert editor["tasks"] == SMALLEST.scenes.heldout
    assert editor["uplift"] == pytest.approx(editor["tuned"] - editor["base"])
    assert summary["gate"]["reward"]["verdict"] == summary["gate"]["editor"]["verdict"] == "promote"
    assert "<html" in (turn / "report.html").read_text()


def test_what_steps_hand_on_is_in_object_storage(turn: Path) -> None:
    for stage in TURN_STAGES:
        (tags, *_) = [run.data.tags for run in tracking.find_runs(stage=stage, finished=True)]
        assert tags["editloop.object.output"].startswith(f"{IN_STORAGE['EDITLOOP_OBJECTS']}/")
        assert Path(tags["editloop.uri.output"]).is_file(), "KFP keeps an address, not the folder"
    for variable in ("EDITLOOP_PICTURES", "EDITLOOP_DATASET_REMOTE"):
        assert ObjectFolder(IN_STORAGE[variable]).names()
    assert not (turn / "dataset-remote").exists()


def test_a_report_on_the_answers_finds_the_candidates_there(turn: Path) -> None:
    campaign = the_campaign()
    assert live_report(campaign.key, None).quality["axes"]["if"]["by_type"]
    address = tracking.find_runs(stage="candidates", finished=True)[0].data.tags["editloop.object.output"]
    parts = (turn / "cache" / "objects").glob(f"{content_digest(address)}-*")
    (candidates,) = (path for path in parts if path.is_dir())
    assert [path.name for path in sorted(candidates.iterdir())] == ["manifest.json", "tasks.jsonl"], "no images"


def test_a_killed_demo_leaves_no_double(turn: Path) -> None:
    settings, campaign = service_settings(), the_campaign()
    assert all(len(rows) == 1 for rows in task_rows(settings, campaign).values())
    api = tracking.client()
    for name in ("edit-reward", "editor"):
        assert len(api.search_model_versions(f"name = '{name}'")) == 1
    for stage in TURN_STAGES:
        assert len({run.data.tags["editloop.step"] for run in tracking.find_runs(stage=stage)}) == 1
    tags = subprocess.run(["git", "tag"], cwd=turn / "dataset", check=True, capture_output=True, text=True).stdout
    assert len(tags.split()) == 1


def test_reconciling_again_starts_nothing(turn: Path) -> None:
    def start(pipeline: str, arguments: dict[str, Any]) -> None:
        raise AssertionError(f"{pipeline} was started a second time")

    look = reconcile(start, turn, ReconcilePolicy())
    assert [run.state for run in look.runs] == ["done", "done"]
    assert not look.waiting


def test_both_champions_lead_back_to_the_annotators(turn: Path, summary: dict[str, Any]) -> None:
    (record,) = read_records(service_settings())
    (closing,) = record.closings
    for model in ("models:/edit-reward@champion", "models:/editor@champion"):
        chain = verify(model)
        assert chain.gap is None
        links = {link["name"]: link["value"] for link in chain.links}
        assert links["annotators"] == "ada, bo"
        assert links["dataset"] == summary["dataset"]["sha256"]
        assert links["answers"] == closing.answers_sha256


@pytest.mark.parametrize("broken", ["DVC revision", "label export", "labelling config", "model content", "registry"])
def test_a_broken_link_is_named(turn: Path, broken: str) -> None:
    """Each fault is planted for the while; the chain must end there, and be whole again after it."""
    model = "models:/edit-reward@champion"
    with _fault(turn, broken):
        gap = verify(model).gap
        assert gap is not None
        assert gap.startswith(broken)
    assert verify(model).gap is None


def test_a_late_edit_breaks_the_chain_until_somebody_closes_again(turn: Path) -> None:
    model, settings = "models:/edit-reward@champion", service_settings()
    (record,) = read_records(settings)
    campaign, before = record.campaign, record.closings
    task = next(iter(task_rows(settings, campaign).values()))[0].id
    given = LabelStudioApi(settings).call("GET", f"/api/tasks/{task}/annotations/")[0]
    annotation, author = given["id"], record.accounts[given["completed_by"]]
    result = result_of([{"if": 1, "vq": 1}] * campaign.places)
    api = LabelStudioApi(settings, read_accounts(settings)[author].token)
    api.call("PATCH", f"/api/annotations/{annotation}/", json={"result": result})
    gap = verify(model).gap
    assert gap is not None
    assert gap.startswith(f"answers: edited since the judgements were read: 1 edited (annotation {annotation})")

    started: list[dict[str, Any]] = []

    def start(pipeline: str, arguments: dict[str, Any]) -> None:
        assert pipeline == "train-reward"
        started.append(arguments)

    look = reconcile(start, turn, ReconcilePolicy())
    assert look.edited == [campaign]
    assert not started
    assert [run.state for run in look.runs] == ["done", "done"]
    pages = campaign_files(record).pages()
    live = snapshot(settings, record, pages)
    closing = close_campaign(record, readiness(settings, record, pages, live), live, by="lea")
    (record,) = read_records(settings)
    assert record.closings == (*before, closing)
    chain = verify(model)
    assert chain.gap is None
    (answers,) = [link["value"] for link in chain.links if link["name"] == "answers"]
    assert answers.startswith(before[0].answers_sha256)
    assert "closed again" in answers
    reconcile(start, turn, ReconcilePolicy())
    (settings_of_run,) = [read_run_settings(one["settings"]) for one in started]
    assert settings_of_run["collect"]["answers_sha256"] == closing.answers_sha256


def the_campaign() -> Campaign:
    (record,) = read_records(service_settings())
    return record.campaign


def _fault(turn: Path, broken: str) -> Any:
    @contextmanager
    def moved(path: Path) -> Iterator[None]:
        path.rename(path.with_name(path.name + ".away"))
        try:
            yield
        finally:
            path.with_name(path.name + ".away").rename(path)

    @contextmanager
    def remote_gone() -> Iterator[None]:
        remote, copy = ObjectFolder(IN_STORAGE["EDITLOOP_DATASET_REMOTE"]), turn / "dataset-remote.away"
        names = remote.names()
        remote.download(names, copy)
        remote.delete(names)
        try:
            with moved(turn / "dataset" / ".dvc" / "cache"):
                yield
        finally:
            remote.upload({name: copy / name for name in names})

    @contextmanager
    def config_changed() -> Iterator[None]:
        client, campaign = connect(service_settings()), the_campaign()
        config = client.projects.get(campaign.project_id).label_config
        client.projects.update(campaign.project_id, label_config=config.replace("</View>", "<!-- --></View>", 1))
        try:
            yield
        finally:
            client.projects.update(campaign.project_id, label_config=config)

    @contextmanager
    def bytes_changed(path: Path) -> Iterator[None]:
        kept = path.read_bytes()
        path.write_bytes(kept[:-1] + b"!")
        try:
            yield
        finally:
            path.write_bytes(kept)

    @contextmanager
    def alias_gone() -> Iterator[None]:
        api = tracking.client()
        version = api.get_model_version_by_alias("edit-reward", "champion").version
        api.delete_registered_model_alias("edit-reward", "champion")
        try:
            yield
        finally:
            api.set_registered_model_alias("edit-reward", "champion", version)

    if broken == "DVC revision":
        return remote_gone()
    if broken == "label export":
        (export,) = (turn / "services").rglob("export.json")
        return bytes_changed(export)
    if broken == "labelling config":
        return config_changed()
    if broken == "model content":
        version = registry.find_version("models:/edit-reward@champion")
        assert version is not None
        folder = registry.fetch_version(version)
        name = next(name for name in sorted(read_manifest(folder)["files"]) if name.endswith(".safetensors"))
        content = sha256_file(folder / name)
        shutil.rmtree(folder)  # the copy in the cache would do in place of the registry's
        stored = (turn / "services" / "mlflow").rglob(name)
        return bytes_changed(next(path for path in stored if sha256_file(path) == content))
    return alias_gone()


def test_a_command_leaves_the_environment_as_it_was(turn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next command in this process would look for a server that has stopped."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    before = dict(os.environ)
    for _ in range(2):
        with services_of(turn):
            assert os.environ["MLFLOW_TRACKING_URI"].startswith("http://127.0.0.1:")
        assert dict(os.environ) == before


SECRET_FILES = ("annotators.json", "credentials.json", "signing-key.pem", "mlflow-auth.ini", "label_studio.sqlite3")
"""Files of the services that are there to keep a secret, in a folder that only its owner may open."""


def test_secrets_are_only_where_they_are_kept(turn: Path) -> None:
    """Not in logs, reports, what steps hand on, MLflow's runs, the dataset repository or object storage."""
    services = turn / "services"
    accounts = json.loads((services / "annotators.json").read_text()).values()
    secrets = [account[kind] for account in accounts for kind in ("password", "token")]
    secrets += [os.environ[name] for name in ("MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY")]
    secrets += [os.environ["EDITLOOP_LABEL_STUDIO_TOKEN"], (services / "signing-key.pem").read_text().splitlines()[1]]
    files = [path for path in turn.rglob("*") if path.is_file()]
    assert {path.name for path in files} > set(SECRET_FILES)
    assert services.stat().st_mode & 0o077 == 0
    places = {str(path): path.read_bytes() for path in files if path.name not in SECRET_FILES}
    stored = ObjectFolder(f"s3://{BUCKET}")
    places |= {name: stored.read(name) or b"" for name in stored.names()}
    assert len(places) > 200
    assert [name for name, content in places.items() for secret in secrets if secret.encode() in content] == []

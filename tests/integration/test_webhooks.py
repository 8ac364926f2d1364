"""Label Studio's and MLflow's own webhooks reach the reconciler."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from annotation.campaigns.campaign import read_campaign
from annotation.campaigns.label_studio import LabelStudioApi
from annotation.campaigns.labelling import result_of
from annotation.campaigns.project import task_rows
from annotation.campaigns.webhooks import Webhook, ensure_webhooks
from components.annotate.declaration import AnnotateParameters
from components.annotate.stage import run_annotate
from editloop.lineage import registry, tracking
from infra.services import Services
from infra.settings import service_settings
from pipelines.hints import HintQueue, listen_for_hints

SECRET = "a long secret"
SECONDS = 30.0


def is_hinted(change: Callable[[str], None]) -> bool:
    """Whether a change leads to a pass before the schedule does. The change gets the endpoint."""
    hints = HintQueue(SECONDS, settle_seconds=0)
    began = time.monotonic()
    with listen_for_hints("127.0.0.1:0", hints, SECRET) as endpoint:
        change(endpoint)
        hints.wait()
    return time.monotonic() - began < SECONDS


def test_an_answer_in_label_studio_is_a_hint(
    service_environment: Services, make_candidates: Callable[..., Path], tmp_path: Path
) -> None:
    parameters = AnnotateParameters(name="hinted", annotators=["hinting"], overlap=1)
    run_annotate(make_candidates(2, candidates=2), tmp_path / "campaign", parameters)
    campaign, api = read_campaign(tmp_path / "campaign"), LabelStudioApi(service_settings())
    (task, *_), *_ = task_rows(service_settings(), campaign).values()
    answer = {"result": result_of([{"if": 2, "vq": 3}] * campaign.places)}

    def webhooks() -> list[Webhook]:
        return [webhook for webhook in api.call("GET", "/api/webhooks/") if webhook["project"] == campaign.project_id]

    def change(endpoint: str) -> None:
        for secret in ("an old one", SECRET, SECRET):
            ensure_webhooks(api, [campaign], endpoint, secret)
        assert len(webhooks()) == 1
        api.call("POST", f"/api/tasks/{task.id}/annotations/", json=answer)

    try:
        assert is_hinted(change)
    finally:
        for webhook in webhooks():
            api.call("DELETE", f"/api/webhooks/{webhook['id']}/")


def test_a_new_champion_in_mlflow_is_a_hint(mlflow_environment: Services) -> None:
    api = tracking.client()
    api.create_registered_model("hinted")
    version = str(api.create_model_version("hinted", "s3://nowhere/model").version)
    hooks = []

    def promote(endpoint: str) -> None:
        hooks.append(api.create_webhook("reconcile", endpoint, ["model_version_alias.created"], secret=SECRET))
        registry.set_alias("hinted", registry.CHAMPION, version)

    try:
        assert is_hinted(promote)
    finally:
        for hook in hooks:
            api.delete_webhook(hook.webhook_id)


def test_the_command_gives_projects_their_webhook_at_each_hint(
    service_environment: Services, make_candidates: Callable[..., Path], tmp_path: Path
) -> None:
    parameters = AnnotateParameters(name="listening", annotators=["hinting"], overlap=1)
    run_annotate(make_candidates(2, candidates=2, seed=5), tmp_path / "campaign", parameters)
    project, api = read_campaign(tmp_path / "campaign").project_id, LabelStudioApi(service_settings())
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    variables = {"EDITLOOP_HINT_SECRET": SECRET, "EDITLOOP_HINT_URL": f"http://{address}/hint"}
    call = "import sys; from pipelines.cli import main; sys.exit(main())"
    policy = tmp_path / "policy.yaml"  # other tests' champions have runs that are due
    policy.write_text("train_reward: report\nimprove_editor: report\n")
    words = [
        "reconcile",
        "--listen",
        address,
        "--seconds",
        "600",
        "--policy",
        str(policy),
        "--out",
        str(tmp_path / "out"),
    ]

    def webhook_after_a_pass() -> int:
        while True:
            assert command.poll() is None
            for webhook in api.call("GET", "/api/webhooks/"):
                if (webhook["project"], webhook["url"]) == (project, variables["EDITLOOP_HINT_URL"]):
                    return int(webhook["id"])
            time.sleep(0.1)

    with subprocess.Popen([sys.executable, "-c", call, *words], env=os.environ | variables) as command:
        try:
            api.call("DELETE", f"/api/webhooks/{webhook_after_a_pass()}/")
            wrong = httpx.post(variables["EDITLOOP_HINT_URL"], headers={"Authorization": "Bearer wrong"})
            right = httpx.post(variables["EDITLOOP_HINT_URL"], headers={"Authorization": f"Bearer {SECRET}"})
            assert (wrong.status_code, right.status_code) == (401, 202)
            api.call("DELETE", f"/api/webhooks/{webhook_after_a_pass()}/")
            command.terminate()
            assert command.wait(60) == 130
        finally:
            command.kill()

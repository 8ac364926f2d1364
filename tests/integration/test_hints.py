"""Label Studio's and MLflow's own webhooks reach the reconciler."""

import time
from collections.abc import Callable
from pathlib import Path

from annotation.campaigns.campaign import read_campaign
from annotation.campaigns.label_studio import LabelStudioApi
from annotation.campaigns.labelling import result_of
from annotation.campaigns.opening import task_rows
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

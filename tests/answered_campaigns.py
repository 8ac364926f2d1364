"""Campaigns in a real Label Studio that tests open and answer, each annotator with an own account."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from annotation.campaigns.accounts import read_accounts
from annotation.campaigns.campaign import Campaign, load_pages, read_campaign
from annotation.campaigns.closing import Readiness, close_campaign, readiness
from annotation.campaigns.label_studio import LabelStudioApi
from annotation.campaigns.labelling import result_of
from annotation.campaigns.lead_queue import Snapshot, snapshot
from annotation.campaigns.project import task_rows
from annotation.campaigns.record import Acceptance, CampaignRecord, Closing, read_record
from components.annotate.declaration import AnnotateParameters
from components.annotate.stage import run_annotate
from editloop.data.vocabulary import Page
from editloop.lineage.step import run_step
from infra.settings import ServiceSettings, service_settings
from pipelines.catalogue import STAGES

PEOPLE = ["closer-1", "closer-2"]

Rate = Callable[[str, int, int], dict[str, int]]
"""(annotator, page's number, place) -> {axis: level}"""


class Opened(NamedTuple):
    campaign: Campaign
    folder: Path
    candidates: Path
    settings: ServiceSettings
    pages: dict[str, Page]
    tasks: dict[str, int]
    """Label Studio's task by page key."""

    def api(self, name: str) -> LabelStudioApi:
        return LabelStudioApi(self.settings, read_accounts(self.settings)[name].token)

    def submit(self, name: str, key: str, result: list[dict[str, Any]], **more: Any) -> int:
        body = {"result": result, "lead_time": 9.0, **more}
        reply = self.api(name).call("POST", f"/api/tasks/{self.tasks[key]}/annotations/", json=body)
        return int(reply["id"])

    def edit(self, name: str, annotation: int, result: list[dict[str, Any]]) -> None:
        self.api(name).call("PATCH", f"/api/annotations/{annotation}/", json={"result": result})

    def answer(self, rate: Rate) -> dict[tuple[str, str], int]:
        """Everybody answers every page; ids of the annotations by (annotator, page's key)."""
        return {
            (name, key): self.submit(
                name, key, result_of([rate(name, number, place) for place in range(self.campaign.places)])
            )
            for number, key in enumerate(self.pages)
            for name in self.campaign.annotators
        }

    def record(self) -> CampaignRecord:
        return read_record(self.settings, self.campaign.key)

    def live(self) -> Snapshot:
        return snapshot(self.settings, self.record(), self.pages)

    def ready(self) -> Readiness:
        return readiness(self.settings, self.record(), self.pages, self.live())

    def close(self, accepted: Acceptance | None = None) -> Closing:
        live = self.live()
        ready = readiness(self.settings, self.record(), self.pages, live)
        return close_campaign(self.record(), ready, live, accepted, by="lea")


def agree(name: str, page: int, place: int) -> dict[str, int]:
    return {"if": 1 + (page + place) % 4, "vq": 1 + (page + 2 * place) % 4}


def disagree(name: str, page: int, place: int) -> dict[str, int]:
    level = 1 + (page + place) % 4
    return {"if": level if name == PEOPLE[0] else 5 - level, "vq": level}


def open_one(candidates: Path, folder: Path, name: str, *, recorded: bool = False, **options: Any) -> Opened:
    """A campaign of the two PEOPLE, both on every page; `recorded` as a step in MLflow, so that reconcile goes on."""
    parameters = {
        "name": name,
        "annotators": PEOPLE,
        "overlap": 2,
        "gold_share": 0.0,
        "repeat_share": 0.0,
        **options,
    }
    if recorded:
        run_step(
            STAGES["annotate"],
            pipeline_run=name,
            inputs={"candidates": candidates},
            outputs={"output": folder},
            parameters=parameters,
            tags={"uri.candidates": str(candidates), "uri.output": str(folder)},
        )
    else:
        run_annotate(candidates, folder, AnnotateParameters(**parameters))
    campaign, settings = read_campaign(folder), service_settings()
    tasks = {key: rows[0].id for key, rows in task_rows(settings, campaign).items()}
    return Opened(campaign, folder, candidates, settings, load_pages(folder), tasks)

"""Page of a pipeline's step in KFP's UI: the stage's own page or its figures, with links to where people go next."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from editloop.addresses import HIDDEN, without_secrets
from editloop.environment import EnvironmentSettings, PublicAddress
from editloop.lineage import tracking
from editloop.lineage.retries import retry_while_unreachable
from editloop.lineage.stage import Stage
from editloop.pages.plots import BLUE, GREEN, Curve, curves, series
from editloop.pages.templates import render

PAGE = "page.html"
CAMPAIGN_FILE, PROMOTION_FILE, HISTORY_FILE = "campaign.json", "promotion.json", "training.json"
"""Files of a stage's output that a page links to or draws."""


class PublicAddressSettings(EnvironmentSettings):
    """Addresses of services as people reach them, where these differ from the steps' own."""

    mlflow_public_url: PublicAddress | None = None
    """Address of MLflow in people's browsers; else MLFLOW_TRACKING_URI."""


class PageLink(NamedTuple):
    """A link at the top of a page."""

    title: str
    address: str


def step_page(stage: Stage, output: Path, results: Mapping[str, float], run_id: str) -> str:
    """Return the page of a step.

    Args:
        stage: The stage.
        output: The stage's output. Where it has a page.html, that is shown.
        results: The stage's figures.
        run_id: The step's MLflow run.
    """
    links = page_links(output, run_id, retry_while_unreachable(tracking.experiment_of, run_id))
    if (output / PAGE).is_file():
        return _with_links((output / PAGE).read_text(), links)
    history = _read(output / HISTORY_FILE)
    panels = (
        [
            Curve("loss", *series(history["steps"], "loss"), BLUE),
            Curve("validation loss", *series(history["evaluations"], "loss"), GREEN, dots=True),
        ]
        if history.get("steps") and history.get("evaluations")
        else []
    )
    page = render(
        Path(__file__).with_name("step_page.html.j2"),
        title=stage.title,
        summary=stage.summary,
        results=dict(results),
        promotion=_read(output / PROMOTION_FILE),
        picture=curves("step", panels) if panels else "",
    )
    return _with_links(page, links)


def page_links(output: Path, run_id: str, experiment_id: str) -> list[PageLink]:
    """Return where people go from a step's page: its run, and its campaign or registered version.

    Args:
        output: The stage's output.
        run_id: The step's MLflow run.
        experiment_id: The run's experiment.
    """
    links = []
    mlflow = PublicAddressSettings().mlflow_public_url or without_secrets(
        os.environ.get("MLFLOW_TRACKING_URI", "")
    ).replace(f"{HIDDEN}@", "")
    promotion, campaign = _read(output / PROMOTION_FILE), _read(output / CAMPAIGN_FILE)
    if mlflow.startswith(("http://", "https://")):
        mlflow = mlflow.rstrip("/")
        links.append(PageLink("Run in MLflow", f"{mlflow}/#/experiments/{experiment_id}/runs/{run_id}"))
        if {"name", "version"} <= promotion.keys():
            name, version = promotion["name"], promotion["version"]
            links.append(PageLink(f"{name}, version {version}", f"{mlflow}/#/models/{name}/versions/{version}"))
    if str(campaign.get("url", "")).startswith(("http://", "https://")):
        links.append(PageLink("Campaign in Label Studio", campaign["url"]))
    return links


def _with_links(page: str, links: list[PageLink]) -> str:
    """Return a page with links at its top. They open beside it, because KFP's UI shows a page in a frame."""
    anchors = Markup(" · ").join(
        Markup('<a href="{}" target="_blank" rel="noopener">{}</a>').format(link.address, link.title) for link in links
    )
    head, body, rest = page.partition("<body>")
    return f'{head}{body}\n<nav style="padding: 1rem 1.75rem 0">{anchors}</nav>{rest}' if body and links else page


def _read(path: Path) -> dict[str, Any]:
    values = json.loads(path.read_text()) if path.is_file() else {}
    return values if isinstance(values, dict) else {}

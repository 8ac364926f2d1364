"""The quality report of a campaign, from Label Studio's present answers or from a folder of judgements."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from annotation.campaigns.answers import export_answers, extract_judgements, read_answers
from annotation.campaigns.campaign import connect
from annotation.campaigns.locating import locate_campaign
from annotation.quality.quality import quality
from annotation.quality.quality_page import quality_page
from editloop.content import read_manifest, write_file, write_json
from editloop.data.candidates_folder import read_lines, read_tasks
from editloop.data.vocabulary import CannotJudge, EditTask, Judgement, Page
from infra.settings import service_settings


class QualityReport(NamedTuple):
    """A campaign's name and the statistics that `quality` returns for it."""

    name: str
    quality: dict[str, Any]


def live_report(name: str, candidates: Path | None) -> QualityReport:
    """Return the report on the answers that Label Studio has now, whether the campaign is complete or not.

    Args:
        name: Folder, name or key of the campaign.
        candidates: Candidates folder; None for the one that is recorded with the campaign.

    Raises:
        EditLoopError: No campaign or several campaigns match, or MLflow has no annotate run of it.
    """
    settings = service_settings()
    connect(settings)
    located = locate_campaign(settings, name)
    pages = located.pages()
    answers = read_answers(export_answers(settings, located.campaign), pages, located.record)
    judged, cannot = extract_judgements(pages, answers)
    checks, cannot_check = extract_judgements(pages, answers, ("repeat", "gold"))
    measured = quality(
        judged, checks, [*cannot, *cannot_check], list(pages.values()), _tasks(candidates or located.find_candidates())
    )
    return QualityReport(located.campaign.name, measured)


def saved_report(folder: Path, candidates: Path | None) -> QualityReport:
    """Return the report on a folder of judgements.

    Args:
        folder: Folder that stage collect wrote.
        candidates: Candidates folder; None leaves out the figures by task type and editor.

    Raises:
        EditLoopError: The folder is not complete.
    """
    read_manifest(folder)
    measured = quality(
        read_lines(folder / "judgements.jsonl", Judgement),
        read_lines(folder / "checks.jsonl", Judgement),
        read_lines(folder / "cannot.jsonl", CannotJudge),
        read_lines(folder / "pages.jsonl", Page),
        _tasks(candidates),
    )
    return QualityReport(json.loads((folder / "summary.json").read_text())["campaign"], measured)


def write_quality_report(report: QualityReport, out: Path) -> list[Path]:
    """Write page.html and quality.json, and return their paths.

    Args:
        report: The report.
        out: Folder to write.
    """
    page, figures = out / "page.html", out / "quality.json"
    write_file(page, quality_page(report.quality, report.name))
    write_json(figures, report.quality)
    return [page, figures]


def _tasks(candidates: Path | None) -> list[EditTask]:
    return read_tasks(candidates) if candidates else []

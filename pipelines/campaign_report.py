"""The quality report of a campaign, from Label Studio's present answers or from a folder of judgements."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from annotation.campaigns.answer_export import read_export, task_links
from annotation.campaigns.answers import extract_judgements
from annotation.campaigns.campaign import connect
from annotation.campaigns.lead_queue import decisions, snapshot
from annotation.campaigns.locating import locate_campaign
from annotation.campaigns.pictures import campaign_pictures
from annotation.quality.page_cards import Answered, ReviewPages
from annotation.quality.quality import reviewed_quality
from annotation.quality.quality_page import quality_page
from editloop.content import RESTORE, read_manifest, write_file, write_json
from editloop.data.candidates_folder import read_lines, read_tasks
from editloop.data.vocabulary import CHECK_KINDS, CannotJudge, Decision, Judgement, Page
from editloop.json_file import read_json_object
from infra.settings import service_settings


class QualityReport(NamedTuple):
    """A campaign's name, the statistics that `quality` returns for it, and the pages that its lead looks at."""

    name: str
    quality: dict[str, Any]
    review: ReviewPages


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
    live = snapshot(settings, located.record, pages)
    judged, cannot = extract_judgements(pages, live.answers)
    checks, cannot_check = extract_judgements(pages, live.answers, CHECK_KINDS)
    candidates = candidates or located.find_candidates()
    answered = Answered(
        judged,
        checks,
        [*cannot, *cannot_check],
        decisions(pages, live.lead),
        list(pages.values()),
        task_links(located.campaign.url, live.votes),
    )
    folders = [located.folder / "images", *campaign_pictures(settings, located.campaign.key)]
    return _report(located.campaign.name, answered, candidates, folders)


def saved_report(folder: Path, candidates: Path | None) -> QualityReport:
    """Return the report on a folder of judgements.

    Args:
        folder: Folder that stage collect wrote.
        candidates: Candidates folder; None leaves out the figures by task type and editor, and pictures that are not in
            the store of the campaign.

    Raises:
        EditLoopError: The folder is not complete.
    """
    read_manifest(folder)
    summary = read_json_object(folder / "summary.json", RESTORE)
    exported = folder / "export.json"
    settings = service_settings()
    answered = Answered(
        read_lines(folder / "judgements.jsonl", Judgement),
        read_lines(folder / "checks.jsonl", Judgement),
        read_lines(folder / "cannot.jsonl", CannotJudge),
        read_lines(folder / "decisions.jsonl", Decision),
        read_lines(folder / "pages.jsonl", Page),
        task_links(summary["url"], read_export(exported.read_bytes())) if "url" in summary else {},
    )
    folders = campaign_pictures(settings, summary["campaign_key"]) if "campaign_key" in summary else []
    return _report(summary["campaign"], answered, candidates, folders)


def write_quality_report(report: QualityReport, out: Path) -> list[Path]:
    """Write page.html and quality.json, and return their paths.

    Args:
        report: The report.
        out: Folder to write.
    """
    page, figures = out / "page.html", out / "quality.json"
    write_file(page, quality_page(report.quality, report.name, report.review))
    write_json(figures, report.quality)
    return [page, figures]


def _report(name: str, answered: Answered, candidates: Path | None, folders: Sequence[Path]) -> QualityReport:
    tasks = read_tasks(candidates) if candidates else []
    folders = [candidates / "images", *folders] if candidates else folders
    return QualityReport(name, *reviewed_quality(answered, tasks, folders))

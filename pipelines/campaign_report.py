"""The quality report of a campaign: of what Label Studio has now, or of what stage collect wrote."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from annotation.campaigns.accounts import names_by_id
from annotation.campaigns.answers import export_answers, extract_judgements, read_answers
from annotation.campaigns.campaign import connect, load_pages, locate_campaign
from annotation.quality.quality import quality
from annotation.quality.quality_page import quality_page
from editloop.content import read_manifest, write_file, write_json
from editloop.data.candidates_folder import read_tasks
from editloop.data.vocabulary import CannotJudge, EditTask, Judgement, Page, Record
from infra.settings import service_settings

Line = TypeVar("Line", bound=Record)


class QualityReport(NamedTuple):
    """A campaign's name and what `quality` says of it."""

    name: str
    quality: dict[str, Any]


def live_report(name: str, candidates: Path | None) -> QualityReport:
    """Of the answers that Label Studio has now, finished or not. `candidates` where their folder is not known."""
    settings = service_settings()
    client = connect(settings)
    located = locate_campaign(client, settings, name)
    pages = load_pages(located.folder)
    names = names_by_id(client, located.campaign.annotators)
    answers = read_answers(export_answers(settings, located.campaign), pages, names)
    judged, cannot = extract_judgements(pages, answers)
    checks, cannot_check = extract_judgements(pages, answers, ("repeat", "gold"))
    measured = quality(
        judged, checks, [*cannot, *cannot_check], list(pages.values()), _tasks(candidates or located.candidates)
    )
    return QualityReport(located.campaign.name, measured)


def saved_report(folder: Path, candidates: Path | None) -> QualityReport:
    """Of a folder that stage collect wrote."""
    read_manifest(folder)
    measured = quality(
        list(_lines(folder / "judgements.jsonl", Judgement)),
        list(_lines(folder / "checks.jsonl", Judgement)),
        list(_lines(folder / "cannot.jsonl", CannotJudge)),
        list(_lines(folder / "pages.jsonl", Page)),
        _tasks(candidates),
    )
    return QualityReport(json.loads((folder / "summary.json").read_text())["campaign"], measured)


def write_quality_report(report: QualityReport, out: Path) -> list[Path]:
    """Write page.html and quality.json into `out`; returns their paths."""
    page, figures = out / "page.html", out / "quality.json"
    write_file(page, quality_page(report.quality, report.name))
    write_json(figures, report.quality)
    return [page, figures]


def _tasks(candidates: Path | None) -> list[EditTask]:
    return read_tasks(candidates) if candidates else []


def _lines(path: Path, kind: type[Line]) -> Iterable[Line]:
    with path.open() as lines:
        yield from (kind.model_validate_json(line) for line in lines if line.strip())

"""Stage `collect`: export a complete campaign from Label Studio, and measure the quality of its ratings."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel

from annotation.campaigns.answer_export import task_links
from annotation.campaigns.answers import extract_judgements
from annotation.campaigns.campaign import connect, load_pages, read_campaign
from annotation.campaigns.closing import DIGESTS, closing_of, readiness
from annotation.campaigns.lead_queue import decisions, snapshot
from annotation.campaigns.people import record_joined
from annotation.campaigns.pictures import campaign_pictures
from annotation.campaigns.record import read_record
from annotation.quality.page_cards import Answered
from annotation.quality.quality import reviewed_quality
from annotation.quality.quality_page import quality_page
from components.collect.declaration import CollectParameters
from editloop.content import complete_folder, read_manifest, sha256_bytes, sha256_json, write_file, write_json
from editloop.data.candidates_folder import read_tasks
from editloop.data.vocabulary import CHECK_KINDS, EditTask, Judgement
from editloop.errors import EditLoopError
from infra.settings import service_settings


def run_collect(campaign: Path, candidates: Path, output: Path, parameters: CollectParameters) -> dict[str, float]:
    """Export the judgements of a campaign, with its quality figures.

    Args:
        campaign: Folder that stage annotate wrote.
        candidates: Candidates folder of the campaign.
        output: Folder to write: judgements.jsonl (the training data), checks.jsonl (answers on other pages),
            cannot.jsonl, decisions.jsonl (the lead's), pages.jsonl, export.json and adjudication.json (Label Studio's
            exports), answers.json (content addresses of the answers), agreement.json, quality.json, page.html and
            summary.json.
        parameters: The stage's parameters.

    Returns:
        The numbers of `tasks`, `judgements`, `annotators`, `cannot`, `conflicts` and `decisions`, and `alpha_if` and
        `alpha_vq`. An undefined alpha is left out.

    Raises:
        EditLoopError: The candidates are not the campaign's, the answers are not those of `answers_sha256`, the
            campaign is not complete (with counts), or it is below a gate and nobody accepted that.
    """
    opened, pages = read_campaign(campaign), load_pages(campaign)
    if read_manifest(candidates)["sha256"] != opened.candidates_sha256:
        raise EditLoopError(f"{candidates} is not what campaign {opened.name} ({opened.key}) asked about.")
    settings = service_settings()
    connect(settings)
    record = record_joined(settings, read_record(settings, opened.key))
    exported = snapshot(settings, record, pages)
    if parameters.answers_sha256 and exported.sha256 != parameters.answers_sha256:
        raise EditLoopError(
            f"The answers of campaign {opened.name} are not those it was closed with: {exported.sha256}, closed with "
            f'{parameters.answers_sha256}. `editloop campaign status "{opened.name}"` tells what was edited, '
            f'`editloop campaign close "{opened.name}"` takes it as it is now.'
        )
    answers = exported.answers
    ready = readiness(settings, record, pages, exported)
    closed = closing_of(record.closings, exported.sha256)
    accepted = closed.accepted if closed else None
    if obstacle := ready.closing_obstacle or (None if accepted else ready.gate_shortfall):
        raise EditLoopError(obstacle)
    tasks = read_tasks(candidates)
    judgements, cannot = extract_judgements(pages, answers)
    _check_candidates(judgements, tasks, candidates)
    checks, cannot_check = extract_judgements(pages, answers, CHECK_KINDS)
    lead_decisions = decisions(pages, exported.lead)
    links = task_links(record.campaign.url, exported.votes)
    answered = Answered(judgements, checks, [*cannot, *cannot_check], lead_decisions, list(pages.values()), links)
    folders = [candidates / "images", campaign / "images", *campaign_pictures(settings, opened.key)]
    measured, review = reviewed_quality(answered, tasks, folders)
    state = ready.progress
    summary = {
        "tasks": opened.tasks,
        "pages": state.pages,
        "judgements": len(judgements),
        "annotators": sorted(state.by_annotator),
        "answers": state.by_annotator,
        **state.model_dump(include={"cannot", "skipped", "unfinished", "others", "repeated", "untrained", "faults"}),
        "conflicts": ready.conflicts,
        "decisions": len(lead_decisions),
        "gates": opened.gates,
        "alpha": ready.alpha,
        "accepted": accepted.model_dump() if accepted else None,
        "closings": [closing.model_dump(mode="json") for closing in record.closings],
        "answers_sha256": exported.sha256,
        "export_sha256": sha256_bytes(exported.votes.data),
        "ratings_sha256": sha256_json([_rating(judgement) for judgement in judgements]),
        "config_sha256": opened.config_sha256,
        "campaign_key": opened.key,
        "campaign": opened.name,
        "project_id": record.campaign.project_id,
        "url": record.campaign.url,
    }
    with complete_folder(output, summary) as folder:
        for name, records in (
            ("judgements", judgements),
            ("checks", checks),
            ("cannot", [*cannot, *cannot_check]),
            ("decisions", lead_decisions),
            ("pages", pages.values()),
        ):
            _write_lines(folder / f"{name}.jsonl", records)
        write_json(folder / DIGESTS, exported.digests)
        write_file(folder / "export.json", exported.votes.data)
        write_file(folder / "adjudication.json", exported.decisions.data)
        write_json(folder / "agreement.json", ready.agreement)
        write_json(folder / "quality.json", measured)
        write_file(folder / "page.html", quality_page(measured, opened.name, review))
        write_json(folder / "summary.json", summary)
    return {
        "tasks": opened.tasks,
        "judgements": len(judgements),
        "annotators": len(state.by_annotator),
        "cannot": sum(state.cannot.values()),
        "conflicts": ready.conflicts,
        "decisions": len(lead_decisions),
        **{f"alpha_{axis}": alpha for axis, alpha in ready.alpha.items() if alpha is not None},
    }


def _check_candidates(judgements: Sequence[Judgement], tasks: Sequence[EditTask], candidates: Path) -> None:
    expected = {(task.task_id, candidate.candidate_id) for task in tasks for candidate in task.candidates}
    judged = {(judgement.task_id, judgement.candidate_id) for judgement in judgements}
    if strange := sorted({candidate_id for _, candidate_id in judged - expected}):
        raise EditLoopError(
            f"{len(strange)} judged candidates are none of {candidates} ({', '.join(strange[:3])}): was a task edited?"
        )


def _rating(judgement: Judgement) -> tuple[str, str, str, int, int]:
    axes = judgement.instruction_following, judgement.visual_quality
    return judgement.task_id, judgement.candidate_id, judgement.annotator, *axes


def _write_lines(path: Path, records: Iterable[BaseModel]) -> None:
    write_file(path, "".join(record.model_dump_json(by_alias=True) + "\n" for record in records))

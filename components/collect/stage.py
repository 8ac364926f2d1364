"""Stage `collect`: export a complete campaign from Label Studio, and measure how far its annotators agree."""

from pathlib import Path
from typing import Any

from annotation.agreement import agreement
from annotation.answers import export, judgements, progress
from annotation.campaign import connect, read_campaign, read_tasks
from annotation.vocabulary import AXES, Axis
from infra.content import complete_folder, read_manifest, sha256_bytes, sha256_json, write_file, write_json
from infra.errors import EditLoopError
from infra.settings import service_settings


def collect(campaign: Path, candidates: Path, output: Path) -> dict[str, float]:
    """Read the judgements of `campaign` (annotate's output) on `candidates`.

    Writes judgements.jsonl, export.json (as Label Studio gave it), agreement.json and summary.json into `output`.
    Raises EditLoopError for candidates that are not the campaign's, and for a campaign that is not complete, with
    counts. Returns {"tasks", "judgements", "annotators", "alpha_if", "alpha_vq"}; an undefined alpha is left out.
    """
    opened = read_campaign(campaign)
    if read_manifest(candidates)["sha256"] != opened.candidates_sha256:
        raise EditLoopError(f"{candidates} is not what campaign {opened.name} ({opened.key}) asked about.")
    settings = service_settings()
    client = connect(settings)
    exported = export(settings, opened)
    state = progress(client, opened, exported)
    if not state.complete:
        raise EditLoopError(
            f"Campaign {opened.name} is not complete: {state.answered} of {state.tasks} tasks have {opened.overlap} "
            f"annotators, {state.annotations} of {state.wanted} answers are there, {state.skipped} "
            f"were skipped and {state.unfinished} lack a rating. Go on at {opened.url}."
        )
    found = judgements(client, opened, exported)
    asked = {(task.task_id, one.candidate_id) for task in read_tasks(candidates) for one in task.candidates}
    strange = [judgement for judgement in found if (judgement.task_id, judgement.candidate_id) not in asked]
    if strange:
        raise EditLoopError(f"{len(strange)} judgements are about no candidate of {candidates}: was a task edited?")
    agreed: dict[Axis, dict[str, Any]] = {axis: agreement(found, axis) for axis in AXES}
    summary = {
        "tasks": state.tasks,
        "judgements": len(found),
        "annotators": sorted(state.by_annotator),
        "answers": state.by_annotator,
        "skipped": state.skipped,
        "unfinished": state.unfinished,
        "others": state.others,
        "export_sha256": sha256_bytes(exported),
        "ratings_sha256": sha256_json(
            [
                [one.task_id, one.candidate_id, one.annotator, one.instruction_following, one.visual_quality]
                for one in found
            ]
        ),
        "config_sha256": opened.config_sha256,
        "campaign_key": opened.key,
        "project_id": opened.project_id,
    }
    with complete_folder(output, summary) as folder:
        lines = [judgement.model_dump_json(by_alias=True) for judgement in found]
        write_file(folder / "judgements.jsonl", "\n".join(lines) + "\n")
        write_file(folder / "export.json", exported)
        write_json(folder / "agreement.json", agreed)
        write_json(folder / "summary.json", summary)
    alphas = {f"alpha_{axis}": one["alpha"] for axis, one in agreed.items() if one["alpha"] is not None}
    return {"tasks": state.tasks, "judgements": len(found), "annotators": len(state.by_annotator), **alphas}

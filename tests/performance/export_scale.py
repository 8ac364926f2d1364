"""100,000 judgements from a real Label Studio's export to the quality page: seconds, and memory on our side.

python -m tests.performance.export_scale
"""

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from annotation.campaigns.accounts import ensure_annotators
from annotation.campaigns.answer_export import export_answers
from annotation.campaigns.answers import extract_judgements, progress, read_answers
from annotation.campaigns.campaign import Campaign, connect, load_pages
from annotation.campaigns.label_studio import LabelStudioApi
from annotation.campaigns.labelling import labelling_config, result_of
from annotation.campaigns.record import CampaignRecord
from annotation.quality.page_cards import Answered
from annotation.quality.quality import reviewed_quality
from annotation.quality.quality_page import quality_page
from editloop.content import write_json
from editloop.data.candidates_folder import read_tasks
from editloop.data.vocabulary import CHECK_KINDS, Axis
from infra.services import start_services, stop_services
from infra.settings import service_settings
from tests.performance.bench import peak_megabytes

TASKS, OVERLAP, CANDIDATES = 8334, 3, 4
ANNOTATORS = ("ada", "bo", "chi", "dia", "eli")
SHARE = 0.03
"""Of gold, and of repeats."""
LONGEST_SECONDS, MOST_MEGABYTES = 60, 1000
PART = 500


def reporting(tasks: int = TASKS) -> dict[str, float]:
    """Export and report a campaign of so many tasks, three answers each, in a process of its own.

    Returns {"seconds", "megabytes" (largest resident size of that process), "judgements"}; the Label Studio and the
    generated answers in it are made before and not counted.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        services = start_services(folder / "services", mlflow=False)
        before = dict(os.environ)
        os.environ.update(services.environment)
        try:
            _fill(folder, tasks)
            done = subprocess.run(
                [sys.executable, "-m", "tests.performance.export_scale", str(folder)],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
        finally:
            os.environ.clear()
            os.environ.update(before)
            stop_services(folder / "services")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _fill(folder: Path, tasks: int) -> None:
    """A project with generated answers; `folder` gets pages.jsonl, tasks.jsonl and names.json ({user id: name})."""
    from tests.generated_campaign import Character, campaign

    characters = {name: Character() for name in ANNOTATORS}
    made = campaign(characters, tasks=tasks, overlap=OVERLAP, places=CANDIDATES, gold=SHARE, repeats=SHARE)
    (folder / "pages.jsonl").write_text("".join(page.model_dump_json() + "\n" for page in made.pages))
    (folder / "tasks.jsonl").write_text("".join(task.model_dump_json() + "\n" for task in made.tasks))
    given: dict[tuple[str, str], dict[int, list[Any]]] = {}
    for one in (*made.judgements, *made.checks):
        given.setdefault((one.kind, one.task_id), {}).setdefault(one.annotation_id, []).append(one)
    settings = service_settings()
    client = connect(settings)
    ids = ensure_annotators(client, ANNOTATORS, settings)
    project = client.projects.create(title="scale", label_config=labelling_config(CANDIDATES, tiny=True))
    client.projects.update(project.id, maximum_annotations=OVERLAP)
    address = f"/data/local-files/?d={'0' * 16}/{'0' * 64}.png"
    pictures = dict.fromkeys(("original", *(f"image_{place + 1}" for place in range(CANDIDATES))), address)
    rows = [
        {
            "data": {"key": page.key, "instruction": page.instruction, **pictures},
            "annotations": [_annotation(said, ids) for said in given[page.kind, page.task_id].values()],
        }
        for page in made.pages
    ]
    api = LabelStudioApi(settings)
    for start in range(0, len(rows), PART):
        api.call("POST", f"/api/projects/{project.id}/import", json=rows[start : start + PART])
    database = sqlite3.connect(folder / "services" / "label-studio" / "label_studio.sqlite3")
    with database:  # as of answers that were submitted: of imported ones nobody can say who gave them
        database.execute("UPDATE task_completion SET updated_by_id = completed_by_id")
    database.close()
    write_json(folder / "names.json", {number: name for name, number in ids.items()} | {"project": project.id})


def _annotation(said: list[Any], ids: dict[str, int]) -> dict[str, Any]:
    levels: list[dict[Axis, int]] = [
        {"if": one.instruction_following, "vq": one.visual_quality}
        for one in sorted(said, key=lambda one: one.position)
    ]
    return {
        "completed_by": ids[said[0].annotator],
        "result": [{**item, "id": "abcdefghij"} for item in result_of(levels)],
        "lead_time": said[0].seconds,
    }


def _report(folder: Path) -> dict[str, Any]:
    kept = json.loads((folder / "names.json").read_text())
    project = kept.pop("project")
    names = {int(number): name for number, name in kept.items()}
    began = time.perf_counter()
    pages, tasks = load_pages(folder), read_tasks(folder)
    campaign = Campaign(
        key="scale",
        name="scale",
        project_id=project,
        url="",
        config_sha256="",
        candidates_sha256="",
        pages_sha256="",
        pages=len(pages),
        wanted=sum(page.overlap for page in pages.values()),
        tasks=len(tasks),
        places=CANDIDATES,
        tiny=True,
        overlap=OVERLAP,
        annotators=ANNOTATORS,
        lead=None,
        gates={},
        seed=0,
    )
    record = CampaignRecord(campaign, campaign, {}, names, {}, {}, "", {})
    answers = read_answers(export_answers(service_settings(), campaign), pages, record)
    state = progress(record, pages, answers)
    found, cannot = extract_judgements(pages, answers)
    checks, _ = extract_judgements(pages, answers, CHECK_KINDS)
    answered = Answered(found, checks, cannot, [], list(pages.values()), {})
    measured, review = reviewed_quality(answered, tasks, [])
    page = quality_page(measured, campaign.name, review)
    seconds = time.perf_counter() - began
    assert state.complete
    assert page
    return {
        "seconds": seconds,
        "megabytes": peak_megabytes(),
        "judgements": len(found),
    }


if __name__ == "__main__":
    print(json.dumps(_report(Path(sys.argv[1])) if sys.argv[1:] else reporting()))

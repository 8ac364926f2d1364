"""100,000 judgements from Label Studio's export to the quality page: seconds and memory on our side.

python -m tests.performance.export_scale

The export is generated in Label Studio's format and comes over HTTP, so that its own time is not counted.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from annotation.answers import export, judgements, progress, read_answers
from annotation.campaign import Campaign, load_pages, read_tasks
from annotation.labelling import result_of
from annotation.quality import quality
from annotation.quality_page import quality_page
from annotation.vocabulary import Axis
from infra.settings import service_settings

TASKS, OVERLAP, CANDIDATES = 8334, 3, 4
ANNOTATORS = ("ada", "bo", "chi", "dia", "eli")
LONGEST_SECONDS, MOST_MEGABYTES = 60, 1000


def reporting(tasks: int = TASKS) -> dict[str, float]:
    """Export and report a campaign of so many tasks, three answers each, in a process of its own.

    Returns {"seconds", "megabytes" (largest resident size), "judgements", "export_megabytes"}; what it works on is made
    before and not counted.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        exported, rows = _generate(folder, tasks)
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(exported, rows))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            done = subprocess.run(
                [sys.executable, "-m", "tests.performance.export_scale", str(folder)],
                env={**os.environ, "EDITLOOP_LABEL_STUDIO_URL": url, "EDITLOOP_LABEL_STUDIO_TOKEN": "t"},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
        finally:
            server.shutdown()
            server.server_close()
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found | {"export_megabytes": len(exported) / 1e6}


def _generate(folder: Path, tasks: int) -> tuple[bytes, int]:
    """Write pages.jsonl and tasks.jsonl into `folder`; returns the export and its number of tasks."""
    from tests.generated_campaign import Character, campaign

    characters = {name: Character() for name in ANNOTATORS}
    made = campaign(characters, tasks=tasks, overlap=OVERLAP, places=CANDIDATES, gold=0.03, repeats=0.03)
    (folder / "pages.jsonl").write_text("".join(page.model_dump_json() + "\n" for page in made.pages))
    (folder / "tasks.jsonl").write_text("".join(task.model_dump_json() + "\n" for task in made.tasks))
    given: dict[tuple[str, str], dict[int, list[Any]]] = {}
    for one in (*made.judgements, *made.checks):
        given.setdefault((one.kind, one.task_id), {}).setdefault(one.annotation_id, []).append(one)
    rows = []
    for number, page in enumerate(made.pages, 1):
        address = f"/data/local-files/?d={'0' * 16}/{'0' * 64}.png"
        pictures = {f"image_{place}": address for place in range(1, CANDIDATES + 1)}
        data = {"key": page.key, "instruction": page.instruction, "original": address, **pictures}
        annotations = [_annotation(number, said) for said in given[page.kind, page.task_id].values()]
        rows.append({"id": number, "drafts": [], "predictions": [], "data": data, "annotations": annotations})
    return json.dumps(rows).encode(), len(rows)


def _annotation(task: int, said: list[Any]) -> dict[str, Any]:
    levels: list[dict[Axis, int]] = [
        {"if": one.instruction_following, "vq": one.visual_quality}
        for one in sorted(said, key=lambda one: one.position)
    ]
    created = said[0].created_at.isoformat()
    return {
        "id": said[0].annotation_id,
        "completed_by": 1 + ANNOTATORS.index(said[0].annotator),
        "result": [{**item, "id": "abcdefghij", "origin": "manual"} for item in result_of(levels)],
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": created,
        "updated_at": created,
        "lead_time": said[0].seconds,
        "prediction": {},
        "unique_id": "fc5b8e30-3da0-409e-b206-3ec729b9292d",
        "last_action": None,
        "task": task,
        "project": 1,
    }


def _handler(exported: bytes, rows: int) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = exported if "/export" in self.path else json.dumps({"task_number": rows}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


def _report(folder: Path) -> dict[str, Any]:
    began = time.perf_counter()
    pages, tasks = load_pages(folder), read_tasks(folder)
    campaign = Campaign(
        key="scale",
        name="scale",
        project_id=1,
        url="",
        config_sha256="",
        candidates_sha256="",
        pages_sha256="",
        pages=len(pages),
        wanted=sum(page.overlap for page in pages.values()),
        tasks=len(tasks),
        places=CANDIDATES,
        tiny=False,
        overlap=OVERLAP,
        annotators=ANNOTATORS,
        lead=None,
        gates={},
        seed=0,
    )
    answers = read_answers(export(service_settings(), campaign), pages, dict(enumerate(ANNOTATORS, 1)))
    state = progress(campaign, pages, answers)
    found, cannot = judgements(pages, answers)
    checks, _ = judgements(pages, answers, ("repeat", "gold"))
    measured = quality(found, checks, cannot, list(pages.values()), tasks)
    page = quality_page(measured, campaign.name)
    seconds = time.perf_counter() - began
    assert state.complete
    assert page
    return {
        "seconds": seconds,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "judgements": len(found),
    }


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(_report(Path(sys.argv[1]))))
    else:
        result = reporting()
        holds = result["seconds"] < LONGEST_SECONDS and result["megabytes"] < MOST_MEGABYTES
        print(json.dumps(result | {"holds": holds}, indent=2))

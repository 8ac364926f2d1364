"""Copy what the report shows from the stages' output folders to DIR/report-data, under the names that it reads."""

from collections import defaultdict
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from statistics import fmean
from typing import Any

from PIL import Image

from editloop.content import write_file, write_json
from editloop.data.candidates_folder import read_lines, read_tasks
from editloop.data.picture_file import png_bytes
from editloop.data.vocabulary import Judgement

COPIED: dict[str, tuple[str, str]] = {
    "agreement.json": ("collect", "agreement.json"),
    "quality.html": ("collect", "page.html"),
    "reward-training.json": ("reward", "training.json"),
    "benchmark.json": ("benchmark", "benchmark.json"),
    "reward-gate.json": ("benchmark", "gate.json"),
    "promotion.json": ("promote", "promotion.json"),
    "rl-training.json": ("editor_rl", "training.json"),
    "evaluation.json": ("editor_eval", "evaluation.json"),
    "editor-gate.json": ("editor_eval", "gate.json"),
    "contact-sheet.json": ("editor_eval", "contact-sheet.json"),
    "contact-sheet.png": ("editor_eval", "contact-sheet.png"),
}
"""By file of report-data: the stage, and the file in its output folder."""

JUDGED_TASKS = 5
"""Judged tasks in the report."""
PICTURE_SIDE = 256
"""Pixels. Longest side of a judged image in the report."""


def gather_report_data(out: Path, stages: Mapping[str, Path]) -> Path:
    """Fill `out`/report-data from the output folders of the finished stages, and return that folder.

    A stage without a folder, or without one of the files, is left out. A second call refreshes the files.

    Args:
        out: Folder of the demo.
        stages: Output folder by stage.
    """
    data = out / "report-data"
    for name, (stage, file) in COPIED.items():
        if stage in stages and (stages[stage] / file).is_file():
            write_file(data / name, (stages[stage] / file).read_bytes())
    if "editor_eval" in stages:
        for picture in sorted((stages["editor_eval"] / "contact-sheet").glob("*.png")):
            write_file(data / "contact-sheet" / picture.name, picture.read_bytes())
    if "candidates" in stages and "collect" in stages:
        write_judged(data, candidates=stages["candidates"], judgements=stages["collect"])
    return data


def write_judged(data: Path, *, candidates: Path, judgements: Path) -> None:
    """Write `judged.json` and its images: the tasks whose candidates the experts rated most differently.

    Every task type comes once before any comes twice.

    judged.json is {"tasks": [{"instruction", "task", "source", "references", "candidates": [{"image", "editor", "if",
    "vq"}]}]}; a task without reference images has no "references". The best candidate comes first; `if` and `vq` are
    means over the experts, 1..4; images are paths below `data`.

    Args:
        data: Folder to write.
        candidates: Candidates folder.
        judgements: Folder that stage collect wrote.
    """
    by_candidate: dict[tuple[str, str], list[Judgement]] = defaultdict(list)
    for judgement in read_lines(judgements / "judgements.jsonl", Judgement):
        by_candidate[judgement.task_id, judgement.candidate_id].append(judgement)

    rows: list[tuple[float, dict[str, Any]]] = []
    for task in read_tasks(candidates):
        rated: list[dict[str, Any]] = [
            {
                "image": candidate.image,
                "editor": candidate.editor,
                "if": fmean(judgement.instruction_following for judgement in ratings),
                "vq": fmean(judgement.visual_quality for judgement in ratings),
            }
            for candidate in task.candidates
            if (ratings := by_candidate.get((task.task_id, candidate.candidate_id)))
        ]
        if len(rated) > 1:
            rated.sort(key=lambda edit: (-edit["if"] - edit["vq"], edit["image"]))
            spread = rated[0]["if"] + rated[0]["vq"] - rated[-1]["if"] - rated[-1]["vq"]
            facts = {"instruction": task.instruction, "task": task.task_type, "source": task.source}
            references = {"references": list(task.references)} if task.references else {}
            rows.append((spread, {**facts, **references, "candidates": rated}))

    selected = _one_of_each_type_first(rows)[:JUDGED_TASKS]
    for row in selected:
        row["source"] = _copy_picture(candidates, data, row["source"])
        if "references" in row:
            row["references"] = [_copy_picture(candidates, data, reference) for reference in row["references"]]
        for edit in row["candidates"]:
            edit["image"] = _copy_picture(candidates, data, edit["image"])
    write_json(data / "judged.json", {"tasks": selected})


def _one_of_each_type_first(rows: list[tuple[float, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Sort rows by falling spread, but put the n-th row of every task type before the (n+1)-th of any."""
    counts: dict[str, int] = defaultdict(int)
    ranked = []
    for _, row in sorted(rows, key=lambda scored: (-scored[0], scored[1]["source"], scored[1]["instruction"])):
        ranked.append((counts[row["task"]], row))
        counts[row["task"]] += 1
    return [row for _, row in sorted(ranked, key=itemgetter(0))]


def _copy_picture(candidates: Path, data: Path, sha256: str) -> str:
    """Copy an image of a candidates folder in its bounded size, and return its path below `data`."""
    name = f"judged/{sha256[:16]}.png"
    with Image.open(candidates / "images" / f"{sha256}.png", formats=("PNG",)) as opened:
        opened.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.LANCZOS)
        write_file(data / name, png_bytes(opened))
    return name

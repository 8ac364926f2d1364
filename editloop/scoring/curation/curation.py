"""Write the chosen triples as an edits folder to train on.

A report beside it says what was kept, what was dropped, and why.
"""

import json
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from editloop.content import complete_folder, write_file, write_json
from editloop.errors import EditLoopError
from editloop.scoring.best_of import copy_picture
from editloop.scoring.curation.page import curate_page, shown_indices
from editloop.scoring.curation.selection import Selection, count_tasks, lower_bound, select_edits
from editloop.scoring.curation.settings import CurateSettings
from editloop.scoring.curation.triples import ScoredTriples, Triple


def write_curated(
    scored: ScoredTriples, settings: CurateSettings, output: Path, facts: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Choose among scored triples and write the kept ones to the folder `output`.

    The folder holds `edits.jsonl`, with one row per kept triple in the dataset's order (the row's `id` is unchanged,
    the edit is its target), the images, the report as `curation.json`, and `page.html`.

    Args:
        scored: The triples with their scores.
        settings: Which triples to keep.
        output: The folder to write; an existing one is replaced.
        facts: Facts about the edits and the scores to add to the manifest.

    Returns:
        The content of `curation.json`.

    Raises:
        EditLoopError: No triple is left to keep, or fewer than `settings.best` without a threshold; or an image cannot
            be read any more; or the edits changed since their scores were read.
    """
    selection = choose_triples(scored, settings)
    setting_values, chosen = settings.model_dump(mode="json"), selection.counted[selection.kept]
    report = {
        **setting_values,
        "edits": len(scored.overall),
        "tasks": count_tasks(scored.names),
        "kept": len(selection.kept),
        "dropped": selection.dropped,
        "mean_all": float(np.nanmean(selection.counted)),
        "mean_kept": float(chosen.mean()),
        "lowest_kept": float(chosen.min()),
    }
    task_ids, pictures, kept = list[str](), set[str](), set(selection.kept.tolist())
    manifest_facts = {**(facts or {}), **setting_values, "kept": len(kept), "task_ids": task_ids}
    examples, shown = shown_indices(selection), dict[int, Triple]()
    wanted = set(np.concatenate([*examples.values()]).tolist())
    with complete_folder(output, manifest_facts) as folder:
        (folder / "images").mkdir()
        with (folder / "edits.jsonl").open("w") as stream:
            for index, triple in enumerate(scored.read_triples()):
                if index in wanted:
                    shown[index] = triple
                if index in kept:
                    task_ids.append(triple.id)
                    pictures |= _write_triple(triple, folder, stream)
        manifest_facts["images"] = sorted(pictures)
        write_json(folder / "curation.json", report)
        write_file(folder / "page.html", curate_page(report, scored, selection, examples, shown))
    return report


def _write_triple(triple: Triple, folder: Path, stream: TextIO) -> set[str]:
    """Write a triple and its images, and return the names of the images."""
    names = {"source": copy_picture(triple.source, folder), "target": copy_picture(triple.image, folder)}
    references = [copy_picture(reference, folder) for reference in triple.references]
    line: dict[str, Any] = {"id": triple.id, "task": triple.task, "instruction": triple.instruction, **names}
    line |= {"references": references} if references else {}
    stream.write(json.dumps(line, ensure_ascii=False) + "\n")
    return {Path(name).stem for name in (*names.values(), *references)}


def choose_triples(scored: ScoredTriples, settings: CurateSettings) -> Selection:
    """Choose which triples to keep.

    Args:
        scored: The triples with their scores.
        settings: Which triples to keep.

    Returns:
        The selection; it keeps at least one triple.

    Raises:
        EditLoopError: No triple is left to keep, or fewer than `settings.best` without a threshold.
    """
    counted = lower_bound(scored.overall, scored.mean, scored.sigma, settings.uncertainty)
    selection = select_edits(counted, scored.names, settings)
    reasons = ", ".join(f"{count} {reason}" for reason, count in selection.dropped.items()) or "none was dropped"
    if not len(selection.kept):
        raise EditLoopError(f"{len(scored.overall)} edits and none to keep ({reasons}). Lower the threshold.")
    if len(selection.kept) < settings.best and settings.threshold is None:
        raise EditLoopError(
            f"best is {settings.best}, and there are {len(selection.kept)} edits to keep ({reasons}). Ask for fewer."
        )
    return selection

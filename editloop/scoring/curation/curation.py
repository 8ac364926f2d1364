"""The chosen triples as an edits folder to learn from, with what was chosen, what was not, and why."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from editloop.content import complete_folder, write_file, write_json
from editloop.errors import EditLoopError
from editloop.scoring.best_of import copy_picture
from editloop.scoring.curation.page import curate_page
from editloop.scoring.curation.selection import Selection, lower_bound, select_edits
from editloop.scoring.curation.settings import CurateSettings
from editloop.scoring.curation.triples import ScoredTriples


def write_curated(
    scored: ScoredTriples, settings: CurateSettings, output: Path, facts: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Choose and write `output`: an edits folder, a row a kept triple with its edit as the target and its id as before,
    in the set's order; `curation.json`, which is returned, and `page.html`.

    `facts`: what the set and the scores are, for the manifest. Raises EditLoopError where nothing is left to keep, or
    less than the settings ask for, and where a picture cannot be read any more.
    """
    selection = choose_triples(scored, settings)
    setting_values, chosen = settings.model_dump(mode="json"), selection.counted[selection.kept]
    report = {
        **setting_values,
        "edits": len(scored.triples),
        "tasks": len({task for task, _ in scored.names}),
        "kept": len(selection.kept),
        "dropped": selection.dropped,
        "mean_all": float(np.nanmean(selection.counted)),
        "mean_kept": float(chosen.mean()),
        "lowest_kept": float(chosen.min()),
    }
    triples = [scored.triples[index] for index in sorted(selection.kept.tolist())]
    manifest_facts = {
        **(facts or {}),
        **setting_values,
        "kept": len(triples),
        "task_ids": [triple.id for triple in triples],
    }
    with complete_folder(output, manifest_facts) as folder:
        (folder / "images").mkdir()
        pictures: set[str] = set()
        with (folder / "edits.jsonl").open("w") as stream:
            for triple in triples:
                names = {"source": copy_picture(triple.source, folder), "target": copy_picture(triple.image, folder)}
                pictures |= {Path(name).stem for name in names.values()}
                line = {"id": triple.id, "task": triple.task, "instruction": triple.instruction, **names}
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        manifest_facts["images"] = sorted(pictures)
        write_json(folder / "curation.json", report)
        write_file(folder / "page.html", curate_page(report, scored, selection))
    return report


def choose_triples(scored: ScoredTriples, settings: CurateSettings) -> Selection:
    """The triples that are kept. EditLoopError where none is, or fewer than the settings ask for."""
    counted = lower_bound(scored.overall, scored.mean, scored.sigma, settings.uncertainty)
    selection = select_edits(counted, scored.names, settings)
    reasons = ", ".join(f"{count} {reason}" for reason, count in selection.dropped.items()) or "none was dropped"
    if not len(selection.kept):
        raise EditLoopError(f"{len(scored.names)} edits and none to keep ({reasons}). Lower the threshold.")
    if len(selection.kept) < settings.best and settings.threshold is None:
        raise EditLoopError(
            f"best is {settings.best}, and there are {len(selection.kept)} edits to keep ({reasons}). Ask for fewer."
        )
    return selection

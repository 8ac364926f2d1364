"""The chosen triples as an edits folder to learn from, with what was chosen, what was not, and why."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from components.curate.page import curate_page
from components.curate.selection import Selection, lower_bound, select
from components.curate.settings import CurateSettings
from components.curate.triples import Scored
from components.judges.best_of import copy_picture
from infra.content import complete_folder, write_file, write_json
from infra.errors import EditLoopError


def write_curated(
    scored: Scored, settings: CurateSettings, output: Path, facts: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Choose and write `output`: an edits folder, a row a kept triple with its edit as the target and its id as before,
    in the set's order; `curation.json`, which is returned, and `page.html`.

    `facts`: what the set and the scores are, for the manifest. Raises EditLoopError where nothing is left to keep, or
    less than the settings ask for, and where a picture cannot be read any more.
    """
    kept = choose(scored, settings)
    told, chosen = settings.model_dump(mode="json"), kept.counted[kept.kept]
    report = {
        **told, "edits": len(scored.triples), "tasks": len({task for task, _ in scored.names}), "kept": len(kept.kept),
        "dropped": kept.dropped, "mean_all": float(np.nanmean(kept.counted)), "mean_kept": float(chosen.mean()),
        "lowest_kept": float(chosen.min()),
    }  # fmt: skip
    triples = [scored.triples[place] for place in sorted(kept.kept.tolist())]
    known = {**(facts or {}), **told, "kept": len(triples), "task_ids": [one.id for one in triples]}
    with complete_folder(output, known) as folder:
        (folder / "images").mkdir()
        pictures: set[str] = set()
        with (folder / "edits.jsonl").open("w") as stream:
            for one in triples:
                names = {"source": copy_picture(one.source, folder), "target": copy_picture(one.image, folder)}
                pictures |= {Path(name).stem for name in names.values()}
                line = {"id": one.id, "task": one.task, "instruction": one.instruction, **names}
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        known["images"] = sorted(pictures)
        write_json(folder / "curation.json", report)
        write_file(folder / "page.html", curate_page(report, scored, kept))
    return report


def choose(scored: Scored, settings: CurateSettings) -> Selection:
    """The triples that are kept. EditLoopError where none is, or fewer than the settings ask for."""
    counted = lower_bound(scored.overall, scored.mean, scored.sigma, settings.uncertainty)
    found = select(counted, scored.names, settings)
    told = ", ".join(f"{count} {reason}" for reason, count in found.dropped.items()) or "none was dropped"
    if not len(found.kept):
        raise EditLoopError(f"{len(scored.names)} edits and none to keep ({told}). Lower the threshold.")
    if len(found.kept) < settings.best and settings.threshold is None:
        raise EditLoopError(
            f"best is {settings.best}, and there are {len(found.kept)} edits to keep ({told}). Ask for fewer."
        )
    return found

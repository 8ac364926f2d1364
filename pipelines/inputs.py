"""The three edits folders of one turn of the loop: to judge by experts, to practise on, and held out to compare on."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editloop.content import complete_folder, read_manifest, sha256_bytes, sha256_json
from editloop.data.edits_file import read_edits
from editloop.data.fingerprints import is_flat
from editloop.data.picture_file import file_picture_sha256, load_image
from editloop.data.shared_pictures import shared_picture_groups
from editloop.errors import EditLoopError
from editloop.studies.world.scenes import write_edits
from editloop.studies.world.stand_ins import add_candidates
from pipelines.settings import Scenes

SHARES = {"judged": 60, "prompts": 20, "heldout": 20}
"""Percentage of a team's source images in each folder."""


@dataclass(frozen=True)
class Inputs:
    """Complete edits folders. No source or reference image is in two of them."""

    judged: Path
    prompts: Path
    heldout: Path


def draw_scenes(folder: Path, scenes: Scenes, seed: int) -> Inputs:
    """Draw scenes into three folders, each with its own seed. Complete folders of the same scenes are kept.

    The tasks to judge also get edits of simulated third-party editors, because the edits of one editor are often too
    alike for experts to tell apart.

    Args:
        folder: Folder of the three folders.
        scenes: Numbers of tasks and of simulated edits.
        seed: Seed of the scenes.
    """
    inputs = Inputs(folder / "judged", folder / "prompts", folder / "heldout")
    drawn = folder / "drawn"
    counts = {drawn: scenes.train, inputs.prompts: scenes.prompts, inputs.heldout: scenes.heldout}
    for number, (target, count) in enumerate(counts.items()):
        own_seed = 3 * seed + number
        if not _holds(target, {"world": "scenes", "count": count, "seed": own_seed}):
            write_edits(target, count, own_seed)
    facts = {"seed": seed, "per_task": scenes.stand_ins, "drawn_sha256": read_manifest(drawn)["sha256"]}
    if not _holds(inputs.judged, facts):
        add_candidates(drawn, inputs.judged, seed=seed, per_task=scenes.stand_ins, facts=facts)
    return inputs


def split_edits(folder: Path, edits: Path, seed: int) -> Inputs:
    """Split a team's own edits into three folders by a hash of the source image.

    Rows that share a source or a reference stay together.
    Three complete folders of the same edits and seed are kept. Rows to judge that have a target but no candidates get
    candidates of simulated third-party editors.

    Args:
        folder: Folder of the three folders.
        edits: An edits file, or a folder of them.
        seed: Seed of the split and of the simulated editors.

    Raises:
        EditLoopError: The edits are faulty (the message lists all faults, and nothing is written), or there are too few
            source images for three folders.
    """
    rows = read_edits(edits)
    pictures = [(row.source, row.target, *(candidate.image for candidate in row.candidates)) for row in rows]
    digests = [file_picture_sha256(path) for paths in pictures for path in paths if path]
    texts = [[row.id, row.task, row.instruction, *(candidate.editor for candidate in row.candidates)] for row in rows]
    references = [[file_picture_sha256(path) for path in row.references] for row in rows]
    facts = {"seed": seed, "content": sha256_json([texts, digests, *([references] if any(references) else [])])}
    inputs = Inputs(folder / "judged", folder / "prompts", folder / "heldout")
    if not all(_holds(target, facts) for target in (inputs.judged, inputs.prompts, inputs.heldout)):
        everything = folder / "all"
        add_candidates(edits, everything, seed=seed)
        lines = [json.loads(line) for line in (everything / "edits.jsonl").read_bytes().splitlines()]
        parts: dict[str, list[dict[str, Any]]] = {name: [] for name in SHARES}
        stored = [(line["source"], *line.get("references", ())) for line in lines]
        groups = shared_picture_groups(stored, lambda name: is_flat(load_image(everything / name)))
        for group, line in zip(groups, lines, strict=True):
            parts[_part(group, seed)].append(line)
        empty = [name for name, part in parts.items() if not part]
        if empty:
            raise EditLoopError(
                f"{edits}: {len(lines)} rows leave no image for {', '.join(empty)}; give 20 source images or more."
            )
        for name, part in parts.items():
            _write(folder / name, everything, part, facts)
    return inputs


def _part(source: str, seed: int) -> str:
    percent = int(sha256_bytes(f"{seed}:{source}".encode())[:12], 16) % 100
    for name, share in SHARES.items():
        if percent < share:
            return name
        percent -= share
    raise AssertionError("shares add up to 100")


def _write(target: Path, origin: Path, lines: list[dict[str, Any]], facts: dict[str, Any]) -> None:
    """Copy rows and their images. Only the rows to judge keep their candidates."""
    with complete_folder(target, facts) as folder:
        (folder / "images").mkdir()
        for line in lines:
            if target.name != "judged":
                line.pop("candidates", None)
            candidates = [candidate["image"] for candidate in line.get("candidates", [])]
            for name in filter(None, (line["source"], *line.get("references", ()), line.get("target"), *candidates)):
                shutil.copyfile(origin / name, folder / name)
        (folder / "edits.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _holds(folder: Path, facts: dict[str, Any]) -> bool:
    try:
        return bool(read_manifest(folder, check=True)["facts"] == facts)
    except (EditLoopError, OSError):
        return False  # not there yet, or damaged: it is written anew

"""Reads ImagenHub's text-guided editing (arXiv 2310.01596): edits by several editors, each rated by three people.

A rating is semantic consistency (SC) and perceptual quality (PQ), each 0, 0.5 or 1; a rater's score is sqrt(SC * PQ).
"""

import json
import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from editloop.data.table_file import TableFault, open_table
from editloop.errors import EditLoopError
from editloop.evaluation.suites.pictures import PictureLoader
from editloop.evaluation.suites.suite import ALL, Item
from editloop.text_file import file_bytes

PICTURES = Path("results/ImagenHub_Text-Guided_IE")
RATINGS = Path("eval/human_ratings/Text-Guided_IE")

_Share = Annotated[float, Field(strict=True, ge=0, le=1)]
_CELL = TypeAdapter(tuple[_Share, _Share])

RaterScores = dict[str, dict[str, float]]
"""One rater's scores, by file name, then by editor."""


def read_imagenhub(data: Path, loader: PictureLoader, faults: list[str]) -> list[Item]:
    """Return the items, one for each source image, with the editors as candidates.

    An editor that people rated but whose images were not published (Imagic) is left out.

    Args:
        data: Folder that holds the publication's results/ and eval/.
        loader: Loads the images and collects their faults.
        faults: Receives the other faults, a sentence each.

    Raises:
        EditLoopError: dataset_lookup.json is missing or damaged, there is no rater's file, or no rated editor has
            images.
    """
    lookup = _lookup(data / PICTURES / "dataset_lookup.json")
    files = sorted((data / RATINGS).glob("*.tsv"))
    if not files:
        raise EditLoopError(f"--data {data}: no rater's .tsv file in {data / RATINGS}.")
    raters = {path.stem: _ratings(path, faults) for path in files}
    names = dict.fromkeys(name for rated in raters.values() for name in rated)
    models = list(dict.fromkeys(model for rated in raters.values() for row in rated.values() for model in row))
    available_models = [model for model in models if (data / PICTURES / model).is_dir()]
    if models and not available_models:
        raise EditLoopError(f"--data {data}: no pictures of any of {', '.join(models)} in {data / PICTURES}.")
    items = []
    for name in names:
        instruction = lookup.get(name, {}).get("instruction")
        if not isinstance(instruction, str):
            faults.append(f"{name}: rated, and dataset_lookup.json has no instruction for it")
            continue
        source = loader.file(f"{PICTURES}/input/{name}", name)
        edits = [loader.file(f"{PICTURES}/{model}/{name}", name) for model in available_models]
        readable = tuple(edit for edit in edits if edit)
        if source is None or len(readable) < len(available_models):
            continue
        ratings = [
            [rated.get(name, {}).get(model, math.nan) for model in available_models] for rated in raters.values()
        ]
        items.append(
            Item(
                key=name,
                cluster=source,
                slice=ALL,
                instruction=instruction,
                candidates=tuple(available_models),
                ratings=np.array(ratings, dtype=np.float64),
                raters=tuple(raters),
                source=source,
                edits=readable,
            )
        )
    return items


def _lookup(path: Path) -> dict[str, Any]:
    try:
        lookup = json.loads(file_bytes(path))
    except OSError as error:
        raise EditLoopError(
            f"{path}: cannot be read ({error.strerror}); give the folder with results/ and eval/."
        ) from None
    except (ValueError, RecursionError):
        raise EditLoopError(f"{path}: not JSON.") from None
    if not isinstance(lookup, dict) or not all(isinstance(facts, dict) for facts in lookup.values()):
        raise EditLoopError(f"{path}: an object by file names is wanted.")
    return lookup


def _ratings(path: Path, faults: list[str]) -> RaterScores:
    """Scores in a rater's file: file names in the first column, then a column for each editor; cells may be empty."""
    table = open_table(path, first="file")
    scores_by_file: RaterScores = {}
    for row in table.rows:
        if isinstance(row, TableFault):
            faults.append(f"{path.name} line {row.line}: {row.rule}")
            continue
        name, *models = table.columns
        file = row.cells[name]
        if not file:
            continue
        if file in scores_by_file:
            faults.append(f"{path.name} line {row.line}: {file} comes twice")
        scores_by_file[file] = {}
        for model in models:
            cell = row.cells[model]
            if not cell:
                continue
            score = _score(cell)
            if score is None:
                faults.append(f"{path.name} line {row.line} {model}: {cell!r} is no [SC, PQ] of two numbers 0..1")
            else:
                scores_by_file[file][model] = score
    return scores_by_file


def _score(cell: str) -> float | None:
    """sqrt(SC * PQ) of a cell `[SC, PQ]`, each 0..1; None for anything else."""
    try:
        consistency, quality = _CELL.validate_json(cell)
    except ValidationError:
        return None
    return math.sqrt(consistency * quality)

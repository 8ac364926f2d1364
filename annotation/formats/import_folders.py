"""The candidates folder and the judgements folder that an import ends in."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from annotation.formats.judgements_folder import ImportedData, write_imported
from editloop.content import complete_folder, write_file
from editloop.data.data_origin import write_origin
from editloop.data.row_import import SKIPPED, RowImport
from editloop.data.vocabulary import EditTask, Judgement

NAMES = "names.csv"
"""File of a judgements folder: the team's names of tasks and candidates, and ours."""
NAME_COLUMNS = ("task", "candidate", "task_id", "candidate_id")


class ImportReport(NamedTuple):
    """What an import made."""

    rows: int
    """Rows that were taken."""
    tasks: int
    judgements: int
    skipped: tuple[str, ...]
    """A message for each row that was left out."""
    notes: tuple[str, ...] = ()
    """What else there was in the file that was not taken, and how much of it."""


def write_import(
    rows: RowImport,
    candidates: Path,
    judgements: Path,
    tasks: Sequence[EditTask],
    imported: Sequence[Judgement],
    origin: ImportedData,
    more: Mapping[str, str],
) -> None:
    """Write the folders of an import, and remove its work.

    Args:
        rows: The import, whose images are stored.
        candidates: Candidates folder to write.
        judgements: Judgements folder to write.
        tasks: The tasks with their candidates.
        imported: The judgements.
        origin: What was read.
        more: Further files of the judgements folder, by name.
    """
    facts: dict[str, object] = {"imported": rows.path.name}
    with complete_folder(candidates, facts) as folder:
        images = {
            image
            for task in tasks
            for image in (task.source, *task.references, *(candidate.image for candidate in task.candidates))
        }
        rows.link_images(folder / "images", images)
        write_file(folder / "tasks.jsonl", "".join(task.model_dump_json(by_alias=True) + "\n" for task in tasks))
        facts |= write_origin(folder, *origin)
    write_imported(judgements, imported, tasks, origin, candidates / "images", {SKIPPED: rows.skipped_text(), **more})
    rows.remove()


def names_table(names: Iterable[Mapping[str, str]]) -> str:
    """Return the content of `NAMES`.

    Args:
        names: The value of each of NAME_COLUMNS, a row each.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, NAME_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(names)
    return text.getvalue()

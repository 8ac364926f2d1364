"""Folders of imported judgements, in the layout that stage `collect` writes for a campaign."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from annotation.quality.page_cards import Answered
from annotation.quality.quality import reviewed_quality
from annotation.quality.quality_page import quality_page
from editloop.content import complete_folder, sha256_json, write_file, write_json
from editloop.data.candidates_folder import read_lines
from editloop.data.data_origin import write_origin
from editloop.data.vocabulary import AXES, EditTask, Judgement
from editloop.statistics.agreement import agreement
from editloop.statistics.judgement_table import judgement_table


class ImportedData(NamedTuple):
    """Where imported judgements come from: the arguments of `write_origin`."""

    name: str
    """Name of the file or folder that was imported."""
    form: str
    """The format, with the rule by which its answers became ratings."""
    files: Mapping[str, str]
    """sha256 of each file with rows, by its path."""
    pictures: Mapping[str, str]
    """sha256 of each picture file that was read beside them, by its path."""


def write_imported(
    output: Path,
    judgements: Sequence[Judgement],
    tasks: Sequence[EditTask],
    origin: ImportedData,
    images: Path,
    more: Mapping[str, str | bytes] | None = None,
) -> None:
    """Write a folder of imported judgements, with their agreement, their quality and their origin.

    The summary has the origin, and its sha256 as that of the export, so that a dataset can be followed to the files.
    There is no campaign behind them, so there is no closing, gate or acceptance, and `checks`, `cannot`, `decisions`
    and `pages` are empty.

    Args:
        output: Folder to write.
        judgements: The imported judgements.
        tasks: Tasks of the candidates folder.
        origin: What the judgements were read from.
        images: Folder of the tasks' images, `<sha256>.png`.
        more: Further files by name.
    """
    rating = attrgetter("task_id", "candidate_id", "annotator", "instruction_following", "visual_quality")
    table = judgement_table(judgements)
    agreements = {axis: agreement(table, axis) for axis in AXES}
    measured, review = reviewed_quality(Answered(judgements, [], [], [], [], {}), tasks, [images])
    summary: dict[str, Any] = {
        "campaign": Path(origin.name).stem,
        "tasks": len({judgement.task_id for judgement in judgements}),
        "judgements": len(judgements),
        "annotators": sorted({judgement.annotator for judgement in judgements}),
        "alpha": {axis: figures["alpha"] for axis, figures in agreements.items()},
        "conflicts": measured["conflicts"],
        "ratings_sha256": sha256_json(list(map(rating, judgements))),
    }
    with complete_folder(output, summary) as folder:
        lines = [judgement.model_dump_json(by_alias=True) + "\n" for judgement in judgements]
        write_file(folder / "judgements.jsonl", "".join(lines))
        for name in ("checks", "cannot", "decisions", "pages"):
            write_file(folder / f"{name}.jsonl", "")
        for name, text in (more or {}).items():
            write_file(folder / name, text)
        summary |= write_origin(folder, *origin)
        summary["export_sha256"] = sha256_json(summary["origin"])
        write_json(folder / "agreement.json", agreements)
        write_json(folder / "quality.json", measured)
        write_file(folder / "page.html", quality_page(measured, summary["campaign"], review))
        write_json(folder / "summary.json", summary)


def read_judgements(folder: Path) -> list[Judgement]:
    """Read the judgements of a folder that stage `collect` or an import wrote.

    Args:
        folder: The judgements folder.

    Returns:
        The judgements, in the order of the file.
    """
    return read_lines(folder / "judgements.jsonl", Judgement)

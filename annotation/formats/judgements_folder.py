"""A folder of judgements that came from elsewhere, as stage `collect` writes one of a campaign's."""

from collections.abc import Sequence
from pathlib import Path

from annotation.quality.quality import quality
from annotation.quality.quality_page import quality_page
from editloop.content import complete_folder, sha256_bytes, sha256_json, write_file, write_json
from editloop.data.vocabulary import AXES, EditTask, Judgement
from editloop.statistics.agreement import agreement


def write_imported(output: Path, judgements: Sequence[Judgement], tasks: Sequence[EditTask], source: Path) -> None:
    """Write `output`: the judgements, their agreement and quality, and the file they came from as `imported`.

    There was no campaign: nothing is closed, gated or accepted, and there are no repeats, gold or decisions.
    """
    content = source.read_bytes()
    ratings = [
        [
            judgement.task_id,
            judgement.candidate_id,
            judgement.annotator,
            judgement.instruction_following,
            judgement.visual_quality,
        ]
        for judgement in judgements
    ]
    agreements = {axis: agreement(judgements, axis) for axis in AXES}
    measured = quality(judgements, [], [], [], tasks)
    summary = {
        "campaign": source.stem,
        "tasks": len({judgement.task_id for judgement in judgements}),
        "judgements": len(judgements),
        "annotators": sorted({judgement.annotator for judgement in judgements}),
        "alpha": {axis: figures["alpha"] for axis, figures in agreements.items()},
        "conflicts": measured["conflicts"],
        "export_sha256": sha256_bytes(content),
        "ratings_sha256": sha256_json(ratings),
    }
    with complete_folder(output, summary) as folder:
        lines = [judgement.model_dump_json(by_alias=True) + "\n" for judgement in judgements]
        write_file(folder / "judgements.jsonl", "".join(lines))
        for name in ("checks", "cannot", "decisions", "pages"):
            write_file(folder / f"{name}.jsonl", "")
        write_file(folder / f"imported{source.suffix}", content)
        write_json(folder / "agreement.json", agreements)
        write_json(folder / "quality.json", measured)
        write_file(folder / "page.html", quality_page(measured, source.stem))
        write_json(folder / "summary.json", summary)


def read_judgements(folder: Path) -> list[Judgement]:
    """The judgements of a folder that stage `collect` or an import wrote."""
    with (folder / "judgements.jsonl").open() as lines:
        return [Judgement.model_validate_json(line) for line in lines if line.strip()]

"""Fine-tunes editors on parts of a noisy set: its best-scored part, a random part, all of it."""

import json

from editloop.content import complete_folder
from editloop.data.candidates_folder import read_tasks
from editloop.models.editors.candidates import write_candidates
from editloop.scoring.best_of import copy_picture
from editloop.scoring.curation.curation import write_curated
from editloop.scoring.curation.settings import CurateSettings
from editloop.scoring.curation.triples import read_scored, score_triples
from editloop.scoring.opening import open_judge
from editloop.studies.claims.reinforcement import BASE, measure_editor
from editloop.studies.claims.rewards import MODEL
from editloop.studies.claims.store import Figures, PieceContext
from editloop.studies.claims.worlds import TRIPLES, draw_seed
from editloop.studies.world.scenes import write_edits
from editloop.studies.world.stand_ins import add_candidates
from editloop.training.editor_sft.settings import SftJob, read_sft_preset
from editloop.training.job import launch_job

PUBLISHED = 0.43
"""Share of the published optimum, 20 K of 46 K. The claim is about this part, which was fixed before any measurement; a
random part of the same size is its control."""
SHARES = (0.1, 0.25, PUBLISHED, 0.7, 1.0)
"""Shares of the best-scored parts to train on."""
DECIDING = (SHARES[0], PUBLISHED, SHARES[-1])
"""Shares on which the verdict depends. The others show the shape of the curve."""
MAKERS = ("right", "editor", "stand-in", "stand-in")
"""Makers of the noisy set's edits, in turn: the right result, the base editor, and twice a stand-in."""


def best_name(share: float) -> str:
    """Return the name of the piece that fine-tunes on the best-scored part of the noisy set.

    Args:
        share: Share of the part, 0..1.
    """
    return f"sft-best-{round(100 * share)}"


def make_triples(work: PieceContext) -> Figures:
    """Write `set`, an edits folder of noisy triples, and `scores.parquet`, their scores by the full reward.

    Each row of `set` has one candidate.

    Args:
        work: Inputs of the piece.

    Returns:
        edits and missing: number of triples, and of those without a score.
    """
    write_edits(work.folder / "drawn", work.settings.triples, draw_seed(work.seed, TRIPLES))
    add_candidates(work.folder / "drawn", work.folder / "stand-ins", seed=work.seed, per_task=1)
    candidates_folder = work.folder / "made"
    write_candidates(
        work.folder / "stand-ins", candidates_folder, editor=BASE, per_task=1, steps=work.settings.steps, seed=work.seed
    )
    with complete_folder(work.folder / "set") as out:
        (out / "images").mkdir()
        with (out / "edits.jsonl").open("w") as stream:
            for number, task in enumerate(read_tasks(candidates_folder)):
                maker = MAKERS[number % len(MAKERS)]
                image_by_maker = {"stand-in": task.candidates[0].image, "editor": task.candidates[-1].image}
                image = str(task.target) if maker == "right" else image_by_maker[maker]
                source, edit = (
                    copy_picture(candidates_folder / "images" / f"{image_id}.png", out)
                    for image_id in (task.source, image)
                )
                line = {
                    "id": task.name,
                    "task": task.task_type,
                    "instruction": task.instruction,
                    "source": source,
                    "candidates": [{"image": edit, "editor": maker}],
                }
                stream.write(json.dumps(line) + "\n")
    judge = open_judge(str(work.needs["reward-full"] / MODEL))
    summary = score_triples(judge, work.folder / "set", work.folder / "scores.parquet")
    return {"edits": float(summary.edits), "missing": float(summary.missing)}


def sft_on_best(work: PieceContext, share: float) -> Figures:
    """Fine-tune the base editor on the best-scored part of the set.

    Args:
        work: Inputs of the piece.
        share: Share of the part, 0..1.

    Returns:
        The figures of `measure_editor`, and mean_kept and kept from the report of the curation.
    """
    return _fine_tuned(work, CurateSettings(best=round(share * work.settings.triples)))


def sft_on_random(work: PieceContext) -> Figures:
    """Fine-tune the base editor on a random part of the set, as large as the published optimum.

    Args:
        work: Inputs of the piece.

    Returns:
        As of `sft_on_best`.
    """
    count = round(PUBLISHED * work.settings.triples)
    return _fine_tuned(work, CurateSettings(order="random", best=count, seed=work.seed))


def _fine_tuned(work: PieceContext, choice: CurateSettings) -> Figures:
    noisy, chosen = work.needs["triples"], work.folder / "chosen"
    report = write_curated(read_scored(noisy / "set", noisy / "scores.parquet"), choice, chosen)
    job = SftJob(
        edits=chosen,
        output=work.folder / "editor",
        editor=BASE,
        checkpoints=work.folder / "checkpoints",
        settings=read_sft_preset(work.settings.sft_preset).changed(seed=work.seed),
        facts={},
    )
    launch_job("editloop.training.editor_sft.train", job, processes=1)
    selection_figures = {"mean_kept": float(report["mean_kept"]), "kept": float(report["kept"])}
    return measure_editor(str(work.folder / "editor" / "editor"), work, {}) | selection_figures

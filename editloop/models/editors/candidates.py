"""Make the candidates of an edits folder: K edits of each row by an editor, beside the edits that the row brings."""

from pathlib import Path

from PIL import Image

from editloop.content import complete_folder, sha256_json
from editloop.data.edits_file import EditRow, read_edits
from editloop.data.picture_file import load_image, load_images, store_png
from editloop.data.vocabulary import Candidate, EditTask, candidate_id, task_id
from editloop.errors import EditLoopError
from editloop.lineage.tracking import digest
from editloop.progress import track

CHUNK = 128
"""Edits made together, so that memory stays bounded."""


def write_candidates(
    edits: Path, output: Path, *, editor: str = "tiny-editor", per_task: int = 4, steps: int = 8, seed: int = 0
) -> dict[str, float]:
    """Make `per_task` edits of each row of an edits folder and write them with those that the row brings.

    The noise of each edit depends only on (seed, task, number). An edit has the size that the editor works at for its
    source. Two equal images of one task are one candidate.

    Args:
        edits: An edits file, or a folder of them.
        output: The folder to write: `tasks.jsonl` (EditTask rows), `images/<sha256>.png`, references among them, and a
            manifest.
        editor: A diffusers folder, the name of a shipped editor, or `models:/NAME@ALIAS`.
        per_task: Edits that the editor makes of each row.
        steps: Denoising steps.
        seed: Seed of the noise.

    Returns:
        The number of `tasks` and of `candidates`, those that the rows bring included.

    Raises:
        EditLoopError: The edits file is faulty, there is no such editor, or it cannot take a task. Nothing is edited
            then.
    """
    from editloop.models.editors.opening import find_editor, open_editor, outline_editor
    from editloop.models.editors.sampling import edit, working_picture
    from editloop.models.editors.sources import working_references
    from editloop.models.editors.task_check import check_rows

    rows = read_edits(edits)
    check_rows(outline_editor(editor), rows)
    model = open_editor(editor)
    facts = {"editor": editor, "editor_sha256": digest(find_editor(editor)), "seed": seed, "steps": steps}
    with complete_folder(output, facts) as out:
        (out / "images").mkdir()
        tasks = []
        length = max(1, CHUNK // max(1, per_task))
        chunks = [rows[start : start + length] for start in range(0, len(rows), length)]
        for chunk in track(chunks, description="candidates"):
            opened = [_open(row, out) for row in chunk]
            sources = [working_picture(model, load_image(row.source)) for row in chunk]
            references = [working_references(model, load_images(row.references)) for row in chunk]
            planned = [
                (row, noise_seed(seed, task.task_id, number))
                for row, task in enumerate(opened)
                for number in range(per_task)
            ]
            pictures = edit(
                model,
                [opened[row].instruction for row, _ in planned],
                [sources[row] for row, _ in planned],
                seeds=[noise for _, noise in planned],
                references=[references[row] for row, _ in planned],
                steps=steps,
            )
            for (row, noise), picture in zip(planned, pictures, strict=True):
                image = store_png(Image.fromarray(picture), out / "images")
                opened[row] = _with_candidate(opened[row], image, editor, noise)
            tasks += opened
        (out / "tasks.jsonl").write_text("".join(task.model_dump_json(by_alias=True) + "\n" for task in tasks))
    return {"tasks": len(tasks), "candidates": sum(len(task.candidates) for task in tasks)}


def write_given_candidates(edits: Path, output: Path) -> dict[str, float]:
    """Write a candidates folder of the edits that the rows of an edits folder bring, without an editor.

    Args:
        edits: An edits file, or a folder of them.
        output: The folder to write, as `write_candidates` writes it.

    Returns:
        The number of `tasks` and of `candidates`.

    Raises:
        EditLoopError: The edits file is faulty, or none of its rows has a candidate.
    """
    rows = read_edits(edits)
    if not any(row.candidates for row in rows):
        raise EditLoopError(
            f"{edits}: no row has `candidates`, and per_task = 0 asks no editor for any. Give rows with edits that are "
            "made already, or set per_task."
        )
    with complete_folder(output, {"editor": None}) as out:
        (out / "images").mkdir()
        tasks = [_open(row, out) for row in track(rows, description="candidates")]
        (out / "tasks.jsonl").write_text("".join(task.model_dump_json(by_alias=True) + "\n" for task in tasks))
    return {"tasks": len(tasks), "candidates": sum(len(task.candidates) for task in tasks)}


def noise_seed(seed: int, task: str, number: int) -> int:
    """Return the seed of one noise of a task, below 2^60. It does not depend on other tasks or on their order.

    Args:
        seed: Seed of the whole call.
        task: The task's id.
        number: Which noise of the task, from 0.
    """
    return int(sha256_json([seed, task, number])[:15], 16)


def _open(row: EditRow, out: Path) -> EditTask:
    """Return the task of a row with the candidates that the row brings, after storing its images."""
    source, *references = (store_png(load_image(path), out / "images") for path in (row.source, *row.references))
    task = EditTask(
        task_id=task_id(source, row.instruction, references),
        name=row.id,
        task_type=row.task,
        instruction=row.instruction,
        source=source,
        references=tuple(references),
        target=store_png(load_image(row.target), out / "images") if row.target else None,
    )
    for candidate in row.candidates:
        task = _with_candidate(task, store_png(load_image(candidate.image), out / "images"), candidate.editor, None)
    return task


def _with_candidate(task: EditTask, image: str, editor: str, seed: int | None) -> EditTask:
    new = Candidate(candidate_id=candidate_id(task.task_id, image), image=image, editor=editor, seed=seed)
    if new.candidate_id in {candidate.candidate_id for candidate in task.candidates}:
        return task
    return task.model_copy(update={"candidates": (*task.candidates, new)})

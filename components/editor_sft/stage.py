"""The editor_sft stage: supervised fine-tuning of the editor on curated edits."""

import json
import shutil
from pathlib import Path
from typing import Any

from components.editor_sft.declaration import EditorSftParameters
from editloop.content import complete_folder, read_manifest, write_file
from editloop.data.edits_file import read_edits
from editloop.datasets.repository import read_version
from editloop.errors import EditLoopError
from editloop.lineage.tracking import digest
from editloop.training.editor_sft.page import sft_page
from editloop.training.editor_sft.settings import SftJob, SftSettings, read_sft_preset
from editloop.training.job import HISTORY_FILE, RESULT_FOLDER, launch_job, remove_when_delivered, work_folder
from infra.launch import launch

OF_THE_DATA = ("reward_sha256", "judge", "edits_sha256", "order", "best", "threshold", "uncertainty", "kept")
"""Facts of curated edits that the editor's manifest repeats; null where the edits are not curated."""


def run_editor_sft(edits: Path, version: Path, output: Path, parameters: EditorSftParameters) -> dict[str, float]:
    """Fine-tune `editor` on the targets of an edits folder, and keep the state that is best on its held-out tasks.

    A call that was stopped resumes at its last checkpoint.

    Args:
        edits: Edits folder that stage curate wrote.
        version: JSON file that stage curate wrote with it.
        output: Folder to write: `editor/` (a complete pipeline folder, with the adapter merged), `training.json`
            (curves), `evaluations.json` (the evaluations alone, because DVC mixes the lists of a file) and `page.html`.
        parameters: The stage's parameters.

    Returns:
        The last training `loss`, the number of `steps`, the best `validation_loss` and its `best_step`, and
        `validation_loss_before` the training.

    Raises:
        EditLoopError: The edits are not those of the version, or a row has no target. Nothing is trained then.
    """
    manifest, dataset_version = read_manifest(edits, check=True), read_version(version)
    if dataset_version["sha256"] != manifest["sha256"]:
        raise EditLoopError(
            f"{edits}: its content is {manifest['sha256'][:12]}, and {version} is of "
            f"{dataset_version['sha256'][:12]}. Give both as one curate step wrote them."
        )
    settings = read_sft_preset(parameters.preset).changed(
        steps=parameters.updates, learning_rate=parameters.learning_rate, seed=parameters.seed
    )
    facts = {key: manifest["facts"].get(key) for key in OF_THE_DATA}
    facts |= {
        "curated_sha256": manifest["sha256"],
        "curated": dataset_version,
        "preset": parameters.preset,
        "seed": parameters.seed,
    }
    history = fine_tune(
        edits, output, editor=parameters.editor, settings=settings, facts=facts, processes=parameters.processes
    )
    first, best = history["evaluations"][0], min(history["evaluations"], key=lambda evaluation: evaluation["loss"])
    return {
        "loss": history["steps"][-1]["loss"],
        "steps": len(history["steps"]),
        "validation_loss": best["loss"],
        "validation_loss_before": first["loss"],
        "best_step": best["step"],
    }


def fine_tune(
    edits: Path, output: Path, *, editor: str, settings: SftSettings, facts: dict[str, Any], processes: int = 1
) -> dict[str, list[dict[str, float]]]:
    """Fine-tune an editor and write `output`, without a dataset version or the registry.

    Args:
        edits: Edits folder; each row needs a target.
        output: Folder to write, as in `run_editor_sft`.
        editor: A pipeline's folder, a shipped name, or an address in the registry.
        settings: Settings of the training.
        facts: Facts for the manifest. The editor's address and the content it started from are added.
        processes: Number of ranks.

    Returns:
        The curves: {"steps", "evaluations"}.

    Raises:
        EditLoopError: A row has no target, or the editor cannot be opened or take a task. Nothing is trained then.
    """
    from editloop.models.editors.opening import find_editor, outline_editor
    from editloop.models.editors.task_check import check_rows

    rows = read_edits(edits)
    without_target = [row.id for row in rows if row.target is None]
    if without_target:
        raise EditLoopError(
            f"{edits}: {len(without_target)} rows have no target, {without_target[0]!r} first. An edit to learn has "
            "its result as `target`; the curate stage writes such rows."
        )
    start = find_editor(editor)
    check_rows(outline_editor(start), rows)
    training_facts = {
        "editor": editor,
        "edits": read_manifest(edits)["sha256"],
        **facts,
        "base_sha256": digest(start),
    }
    training = settings.model_dump(mode="json")
    folder = work_folder(output, "editor-sft", training_facts | {"settings": training})
    result_folder = folder / RESULT_FOLDER
    job = SftJob(
        edits=edits.absolute(),
        output=result_folder,
        editor=str(start.absolute()),
        checkpoints=folder,
        settings=settings,
        facts=training_facts,
    )
    launch_job("editloop.training.editor_sft.train", job, processes=processes, launch=launch)
    history: dict[str, list[dict[str, float]]] = json.loads((result_folder / HISTORY_FILE).read_text())
    with complete_folder(output, training_facts | {"training": training}) as out:
        shutil.copytree(result_folder, out, dirs_exist_ok=True)
        write_file(out / "page.html", sft_page(history, training_facts))
    remove_when_delivered(folder)
    return history

"""The editor_sft stage: supervised fine-tuning of the editor on curated edits."""

import json
import shutil
from pathlib import Path
from typing import Any

from editloop.content import MANIFEST, complete_folder, read_manifest, write_file
from editloop.data.edits_file import read_edits
from editloop.datasets.repository import read_version
from editloop.errors import EditLoopError
from editloop.training.editor_sft.page import sft_page
from editloop.training.editor_sft.settings import SftJob, SftSettings, read_sft_preset
from editloop.training.job import HISTORY_FILE, RESULT_FOLDER, launch_job, remove_when_delivered, work_folder
from infra.launch import launch

OF_THE_DATA = ("reward_sha256", "judge", "edits_sha256", "order", "best", "threshold", "uncertainty", "kept")
"""What the editor's manifest tells of the edits that it learnt from, where these are curated."""


def run_editor_sft(
    edits: Path,
    version: Path,
    output: Path,
    *,
    editor: str = "tiny-editor",
    preset: str = "tiny",
    steps: int = 0,
    learning_rate: float = 0.0,
    processes: int = 2,
    seed: int = 0,
) -> dict[str, float]:
    """Fine-tune `editor` (a pipeline's folder, a shipped name or models:/editor@champion) on the targets of an edits
    folder; keep what is best on the tasks that are held out of it.

    `edits`, `version`: what the curate stage wrote. `preset`: a shipped name or a YAML file; `steps` and
    `learning_rate` take the place of the preset's where they are given. `output` gets `editor/` (a complete pipeline
    folder, adapter merged), `training.json` (curves), `evaluations.json` (those alone: DVC mixes the lists of a file)
    and `page.html`. A call that was stopped goes on at its last checkpoint. Raises EditLoopError where the edits are
    not those of the version, or a row has no target, before
    anything is trained.
    """
    manifest, dataset_version = read_manifest(edits, check=True), read_version(version)
    if dataset_version["sha256"] != manifest["sha256"]:
        raise EditLoopError(
            f"{edits}: its content is {manifest['sha256'][:12]}, and {version} is of "
            f"{dataset_version['sha256'][:12]}. Give both "
            "as one curate step wrote them."
        )
    settings = read_sft_preset(preset).changed(steps=steps, learning_rate=learning_rate, seed=seed)
    facts = {key: manifest["facts"].get(key) for key in OF_THE_DATA}
    facts |= {"curated_sha256": manifest["sha256"], "curated": dataset_version, "preset": preset, "seed": seed}
    history = fine_tune(edits, output, editor=editor, settings=settings, facts=facts, processes=processes)
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
) -> dict[str, Any]:
    """Fine-tune and write `output`, without version or registry; returns its curves, {"steps", "evaluations"}.

    `facts` are kept in the manifest, with what the editor began as. Raises EditLoopError for a row without a target and
    an editor that cannot be opened, before anything is trained.
    """
    from editloop.models.editors.opening import find_editor

    without_target = [row.id for row in read_edits(edits) if row.target is None]
    if without_target:
        raise EditLoopError(
            f"{edits}: {len(without_target)} rows have no target, {without_target[0]!r} first. An edit to learn has "
            "its result as "
            "`target`; the curate stage writes such rows."
        )
    start = find_editor(editor)
    training_facts = {"editor": editor, "edits": read_manifest(edits)["sha256"], **facts}
    if (start / MANIFEST).is_file():
        training_facts["base_sha256"] = read_manifest(start)["sha256"]
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
    history: dict[str, Any] = json.loads((result_folder / HISTORY_FILE).read_text())
    with complete_folder(output, training_facts | {"training": training}) as out:
        shutil.copytree(result_folder, out, dirs_exist_ok=True)
        write_file(out / "page.html", sft_page(history, training_facts))
    remove_when_delivered(folder)
    return history

"""The editor_dpo stage: train the editor on the experts' pairs, without a reward model between them."""

import json
import shutil
from pathlib import Path
from typing import Any

from components.editor_dpo.declaration import EditorDpoParameters
from editloop.content import complete_folder, read_manifest, write_file
from editloop.datasets.repository import read_version
from editloop.errors import EditLoopError
from editloop.lineage.tracking import digest
from editloop.training.editor_dpo.page import SHEET, dpo_page
from editloop.training.editor_dpo.settings import DpoJob, DpoSettings, read_dpo_preset
from editloop.training.job import HISTORY_FILE, RESULT_FOLDER, launch_job, remove_when_delivered, work_folder
from infra.launch import launch


def run_editor_dpo(dataset: Path, version: Path, output: Path, parameters: EditorDpoParameters) -> dict[str, float]:
    """Train `editor` on the ordered pairs of the train split, and keep the state that is best on the validation split.

    Ties are left out and counted. A call that was stopped resumes at its last checkpoint.

    Args:
        dataset: Dataset folder that stage dataset wrote.
        version: JSON file that stage dataset wrote with it.
        output: Folder to write: `editor/` (a complete pipeline folder, with the adapter merged), `training.json`
            (curves), `evaluations.json` (the evaluations alone, because DVC mixes the lists of a file),
            `contact-sheet.png` and `page.html`.
        parameters: The stage's parameters.

    Returns:
        The last training `loss`, the number of `steps`, the best `validation_loss` and its `best_step`, and at that
        step `accuracy`, `accuracy_train`, `margin` and `distance`; and the numbers of `pairs`, `ties` and `uncertain`
        pairs of the train split.

    Raises:
        EditLoopError: The dataset is not that of the version or has no ordered pairs, or the editor cannot learn from
            them. Nothing is trained then.
    """
    manifest, dataset_version = read_manifest(dataset), read_version(version)
    if dataset_version["sha256"] != manifest["sha256"]:
        raise EditLoopError(
            f"{dataset}: its content is {manifest['sha256'][:12]}, and {version} is of "
            f"{dataset_version['sha256'][:12]}. Give both as one dataset step wrote them."
        )
    settings = read_dpo_preset(parameters.preset).changed(
        steps=parameters.updates, learning_rate=parameters.learning_rate, seed=parameters.seed
    )
    facts = {"dataset": dataset_version, "preset": parameters.preset, "seed": parameters.seed}
    history, counts = learn_from_pairs(
        dataset, output, editor=parameters.editor, settings=settings, facts=facts, processes=parameters.processes
    )
    best = min(history["evaluations"], key=lambda evaluation: evaluation["loss"])
    return {
        "loss": history["steps"][-1]["loss"],
        "steps": len(history["steps"]),
        "validation_loss": best["loss"],
        "best_step": best["step"],
        **{name: best[name] for name in ("accuracy", "accuracy_train", "margin", "distance")},
        **counts,
    }


def learn_from_pairs(
    dataset: Path, output: Path, *, editor: str, settings: DpoSettings, facts: dict[str, Any], processes: int = 1
) -> tuple[dict[str, list[dict[str, float]]], dict[str, int]]:
    """Train an editor on pairs and write `output`, without a dataset version or the registry.

    Args:
        dataset: Dataset folder.
        output: Folder to write, as in `run_editor_dpo`.
        editor: A pipeline's folder, a shipped name, or an address in the registry.
        settings: Settings of the training.
        facts: Facts for the manifest. The editor's address, the content it started from and the pairs are added.
        processes: Number of ranks.

    Returns:
        The curves: {"steps", "evaluations"}; and the numbers of `pairs`, `ties` and `uncertain` pairs.

    Raises:
        EditLoopError: There are no ordered pairs, or the editor cannot learn from them. Nothing is trained then.
    """
    from editloop.models.editors.opening import find_editor
    from editloop.training.editor_dpo.preflight import check_training

    start = find_editor(editor)
    counts = check_training(dataset, start, settings)
    training_facts = {
        "editor": editor,
        "dataset_sha256": read_manifest(dataset)["sha256"],
        **counts,
        **facts,
        "base_sha256": digest(start),
    }
    training = settings.model_dump(mode="json")
    folder = work_folder(output, "editor-dpo", training_facts | {"settings": training})
    result_folder = folder / RESULT_FOLDER
    job = DpoJob(
        dataset=dataset.absolute(),
        output=result_folder,
        editor=str(start.absolute()),
        checkpoints=folder,
        settings=settings,
        facts=training_facts,
    )
    launch_job("editloop.training.editor_dpo.train", job, processes=processes, launch=launch)
    history: dict[str, list[dict[str, float]]] = json.loads((result_folder / HISTORY_FILE).read_text())
    with complete_folder(output, training_facts | {"training": training}) as out:
        shutil.copytree(result_folder, out, dirs_exist_ok=True)
        write_file(out / "page.html", dpo_page(history, training_facts, out / SHEET))
    remove_when_delivered(folder)
    return history, counts

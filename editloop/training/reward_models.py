"""Training of EditReward or EditScore on a dataset, by DeepSpeed."""

import json
import shutil
from pathlib import Path
from typing import Any

from editloop.content import MANIFEST, complete_folder, read_manifest, write_json
from editloop.datasets.splits import unread_shards
from editloop.errors import EditLoopError
from editloop.training.job import HISTORY_FILE, RESULT_FOLDER, launch_job, remove_when_delivered, work_folder
from editloop.training.launch import Launcher, launch_ranks

OF_THE_MACHINE = ("edits_per_second", "waiting", "peak_megabytes")
"""Figures of a training that another machine, or another day, gives otherwise. MLflow has their curves."""
MODULES = {"edit-reward": "editloop.training.edit_reward.train", "edit-score": "editloop.training.edit_score.train"}


def train_reward_model(
    dataset: Path,
    output: Path,
    *,
    preset: str = "editreward-tiny",
    base: str = "",
    epochs: int = 0,
    learning_rate: float = 0.0,
    processes: int = 2,
    seed: int = 0,
    launch: Launcher = launch_ranks,
) -> dict[str, float]:
    """Train a reward model by a preset on the train split, and keep the state that is best on the validation split.

    A call that was stopped continues at its last checkpoint.

    Args:
        dataset: Dataset folder of preferences, or for EditScore a folder of distilled edits.
        output: Becomes a model folder: weights as safetensors, the history in `training.json`, the manifest last.
        preset: Name of a shipped preset, or path of a YAML file.
        base: Model folder or name of a shipped model, in place of the preset's base; empty keeps the preset's.
        epochs: Epochs in place of the preset's; 0 keeps the preset's.
        learning_rate: Learning rate in place of the preset's; 0 keeps the preset's.
        processes: Number of ranks.
        seed: Seed of the training.
        launch: Runs the ranks, on this machine or on a cluster.

    Returns:
        `loss` and `steps` of the training, the best validation figures (`validation_...`), those before training
        (`..._before`), throughput and peak memory.

    Raises:
        EditLoopError: A rank fails, the dataset has no pairs, or the preset or its base cannot be used.

    Examples:
        >>> import editloop
        >>> from pathlib import Path
        >>> figures = editloop.train_reward_model(Path("preferences"), Path("model"), epochs=2)  # doctest: +SKIP
        >>> figures["validation_accuracy"]  # doctest: +SKIP
        0.91
    """
    from editloop.training.presets import choose_base, load_preset
    from editloop.training.reward_job import TrainingJob

    manifest = read_manifest(dataset, check=True, skip=unread_shards("train", "validation"))
    if not (manifest["facts"].get("pairs") or manifest["facts"].get("taught")):
        raise EditLoopError(f"{dataset}: no pairs to learn from. Collect judgements that tell candidates apart first.")
    training_preset = load_preset(preset)
    start = choose_base(training_preset, base)
    training = training_preset.changed(epochs=epochs, learning_rate=learning_rate, seed=seed)
    facts: dict[str, Any] = {"dataset_sha256": manifest["sha256"], "base": start, "preset": preset, "seed": seed}
    if (Path(start) / MANIFEST).is_file():
        facts["base_sha256"] = read_manifest(Path(start))["sha256"]
    content = [facts, training_preset.model_dump(mode="json"), training.model_dump(mode="json")]
    folder = work_folder(output, training_preset.model, content)
    result = folder / RESULT_FOLDER
    job = TrainingJob(
        dataset=dataset.absolute(),
        output=result,
        checkpoints=folder,
        base=start,
        preset=training_preset,
        training=training,
        facts=facts | {"training": training.model_dump(mode="json")},
    )
    launch_job(MODULES[training_preset.model], job, processes=processes, launch=launch)
    history: dict[str, list[dict[str, float]]] = json.loads((result / HISTORY_FILE).read_text())
    with complete_folder(output, read_manifest(result)["facts"]) as out:
        shutil.copytree(result, out, dirs_exist_ok=True)
        write_json(out / HISTORY_FILE, _of_the_work(history))
    remove_when_delivered(folder)
    first, best = history["evaluations"][0], min(history["evaluations"], key=lambda evaluation: evaluation["loss"])
    measured = {f"validation_{name}": value for name, value in best.items() if name not in ("step", "peak_megabytes")}
    before = {f"validation_{name}_before": first[name] for name in ("loss", "accuracy") if name in first}
    steps = history["steps"]
    return {
        "loss": steps[-1]["loss"],
        "steps": len(steps),
        **measured,
        **before,
        "edits_per_second": sum(step["edits_per_second"] for step in steps) / len(steps),
        "waiting_for_data": sum(step["waiting"] for step in steps) / len(steps),
        "peak_megabytes": max(evaluation["peak_megabytes"] for evaluation in history["evaluations"]),
    }


def _of_the_work(history: dict[str, list[dict[str, float]]]) -> dict[str, list[dict[str, float]]]:
    """Return a history without figures of the machine, so that a model's content depends on its data and seed alone."""
    return {
        name: [{key: value for key, value in entry.items() if key not in OF_THE_MACHINE} for entry in entries]
        for name, entries in history.items()
    }

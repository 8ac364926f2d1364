"""The reward stage: trains EditReward or EditScore on a dataset of preferences, by DeepSpeed on the launcher's
processes."""

import json
import shutil
from pathlib import Path
from typing import Any

from components.unfinished import unfinished
from infra.content import MANIFEST, read_manifest, sha256_json, write_file
from infra.errors import EditLoopError
from infra.launch import launch
from infra.patience import patiently

MODULES = {"edit-reward": "components.reward.train", "edit-score": "components.edit_score.train"}


def reward(
    dataset: Path, output: Path, *, preset: str = "editreward-tiny", base: str = "", epochs: int = 0,
    learning_rate: float = 0.0, processes: int = 2, seed: int = 0,
) -> dict[str, float]:  # fmt: skip
    """Train by a preset (a shipped name or a YAML file) on the train split; keep what is best on the validation split.

    `base` (a model folder or a shipped name), `epochs` and `learning_rate` take the place of the preset's where they
    are given. `output` becomes a model folder: weights as safetensors, `training.json` (curves), manifest last. A call
    that was stopped goes on at its last checkpoint. Returns the last training loss and the best validation figures.
    Raises EditLoopError when a rank fails or the dataset has no pairs.
    """
    from components.training.curves import send
    from components.training.job import TrainingJob
    from components.training.presets import base_of, load_preset

    manifest = read_manifest(dataset, check=True)
    if not (manifest["facts"].get("pairs") or manifest["facts"].get("taught")):
        raise EditLoopError(f"{dataset}: no pairs to learn from. Collect judgements that tell candidates apart first.")
    chosen = load_preset(preset)
    start = base_of(chosen, base)
    training = chosen.changed(epochs=epochs, learning_rate=learning_rate, seed=seed)
    facts: dict[str, Any] = {"dataset_sha256": manifest["sha256"], "base": start, "preset": preset, "seed": seed}
    if (Path(start) / MANIFEST).is_file():
        facts["base_sha256"] = read_manifest(Path(start))["sha256"]
    what = sha256_json([facts, chosen.model_dump(mode="json"), training.model_dump(mode="json")])
    folder = unfinished(output) / f"{chosen.model}-{what[:16]}"
    job = TrainingJob(
        dataset=dataset.absolute(), output=output.absolute(), checkpoints=folder, base=start, preset=chosen,
        training=training, facts=facts | {"training": training.model_dump(mode="json")},
    )  # fmt: skip
    told = job.model_dump_json(indent=1)
    path = folder / f"job-{sha256_json(told)[:16]}.json"  # its name is the TrainJob's, so another output is another job
    write_file(path, told)
    launch(MODULES[chosen.model], [str(path)], processes=processes)
    history = json.loads((output / "training.json").read_text())
    try:
        patiently(send, folder)
        shutil.rmtree(folder)
    except Exception as error:  # the model is whole; its curves wait for MLflow in the folder
        print(f"{folder}: kept, MLflow has not taken all of its curves ({type(error).__name__})")
    first, best = history["evaluations"][0], min(history["evaluations"], key=lambda entry: entry["loss"])
    measured = {f"validation_{name}": value for name, value in best.items() if name not in ("step", "peak_megabytes")}
    before = {f"validation_{name}_before": first[name] for name in ("loss", "accuracy") if name in first}
    steps = history["steps"]
    return {
        "loss": steps[-1]["loss"], "steps": len(steps), **measured, **before,
        "edits_per_second": sum(one["edits_per_second"] for one in steps) / len(steps),
        "waiting_for_data": sum(one["waiting"] for one in steps) / len(steps),
        "peak_megabytes": max(one["peak_megabytes"] for one in history["evaluations"]),
    }  # fmt: skip

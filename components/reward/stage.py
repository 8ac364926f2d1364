"""The reward stage: trains EditReward on a dataset of preferences, by DeepSpeed on the launcher's processes."""

import json
import tempfile
from pathlib import Path

from infra.content import read_manifest
from infra.errors import EditLoopError
from infra.launch import launch


def reward(
    dataset: Path, output: Path, *, base: str = "tiny-reward", epochs: int = 8, learning_rate: float = 1e-3,
    processes: int = 2, seed: int = 0,
) -> dict[str, float]:  # fmt: skip
    """Train `base` (a model folder or a shipped name) on the train split; keep the epoch best on the validation split.

    `output` becomes a model folder: weights as safetensors, `training.json` (curves), manifest last. Returns the last
    training loss and the best validation accuracy. Raises EditLoopError when a rank fails or the dataset has no pairs.
    """
    from components.reward.train import TrainingJob

    manifest = read_manifest(dataset, check=True)
    if not manifest["facts"].get("pairs"):
        raise EditLoopError(f"{dataset}: no pairs to learn from. Collect judgements that tell candidates apart first.")
    facts: dict[str, object] = {"dataset_sha256": manifest["sha256"], "base": base, "seed": seed, "epochs": epochs}
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".job.") as scratch:  # where a pod's ranks see it too
        job = TrainingJob(
            dataset=dataset.absolute(), output=output.absolute(), base=base, epochs=epochs, learning_rate=learning_rate,
            seed=seed, facts=facts,
        )  # fmt: skip
        path = Path(scratch) / "job.json"
        path.write_text(job.model_dump_json())
        launch("components.reward.train", [str(path)], processes=processes)
    history = json.loads((output / "training.json").read_text())
    best = min(history["evaluations"], key=lambda entry: entry["loss"])
    return {
        "loss": history["steps"][-1]["loss"],
        "validation_accuracy": best["accuracy"],
        "validation_accuracy_before": history["evaluations"][0]["accuracy"],
        "steps": len(history["steps"]),
    }

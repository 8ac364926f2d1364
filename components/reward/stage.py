"""The reward stage: train EditReward or EditScore on a dataset, with DeepSpeed on the launcher's processes."""

from pathlib import Path

from infra.launch import launch


def run_reward(
    dataset: Path,
    output: Path,
    *,
    preset: str = "editreward-tiny",
    base: str = "",
    epochs: int = 0,
    learning_rate: float = 0.0,
    processes: int = 2,
    seed: int = 0,
) -> dict[str, float]:
    """Train by a preset on the train split, and keep the state that is best on the validation split.

    A call that was stopped resumes at its last checkpoint.

    Args:
        dataset: Dataset folder of preferences, or for EditScore a folder of distilled edits.
        output: Model folder to write: weights as safetensors, `training.json` (curves), the manifest last.
        preset: Name of a shipped preset, or path of a YAML file.
        base: Model folder or shipped name to start from; "" keeps the preset's.
        epochs: Epochs; 0 keeps the preset's.
        learning_rate: Peak learning rate; 0 keeps the preset's.
        processes: Number of ranks.
        seed: Seed of the training.

    Returns:
        The last training loss, the best validation figures, and the further figures of `train_reward_model`.

    Raises:
        EditLoopError: A rank fails, the dataset has no pairs, or the preset or its base cannot be used.
    """
    from editloop.training.reward_models import train_reward_model

    return train_reward_model(
        dataset,
        output,
        preset=preset,
        base=base,
        epochs=epochs,
        learning_rate=learning_rate,
        processes=processes,
        seed=seed,
        launch=launch,
    )

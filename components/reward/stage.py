"""The reward stage: trains EditReward or EditScore on a dataset of preferences, by DeepSpeed on the launcher's
processes."""

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
    """Train by a preset (a shipped name or a YAML file) on the train split; keep what is best on the validation split.

    `base` (a model folder or a shipped name), `epochs` and `learning_rate` take the place of the preset's where they
    are given. `output` becomes a model folder: weights as safetensors, `training.json` (curves), manifest last. A call
    that was stopped goes on at its last checkpoint. Returns the last training loss and the best validation figures.
    Raises EditLoopError when a rank fails or the dataset has no pairs.
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

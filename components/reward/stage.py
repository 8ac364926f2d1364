"""The reward stage: train EditReward or EditScore on a dataset, with DeepSpeed on the launcher's processes."""

from pathlib import Path

from components.reward.declaration import RewardParameters
from infra.launch import launch


def run_reward(dataset: Path, output: Path, parameters: RewardParameters) -> dict[str, float]:
    """Train by a preset on the train split, and keep the state that is best on the validation split.

    A call that was stopped resumes at its last checkpoint.

    Args:
        dataset: Dataset folder of preferences, or for EditScore a folder of distilled edits.
        output: Model folder to write: weights as safetensors, `training.json` (curves), the manifest last.
        parameters: The stage's parameters.

    Returns:
        The last training loss, the best validation figures, and the further figures of `train_reward_model`.

    Raises:
        EditLoopError: A rank fails, the dataset has no pairs, or the preset or its base cannot be used.
    """
    from editloop.training.reward_models import train_reward_model

    return train_reward_model(dataset, output, **parameters.model_dump(), launch=launch)

"""Train EditReward on preference groups: one rank of a DeepSpeed job, started by `editloop.training.launch`.

torchrun --nproc-per-node 2 -m editloop.training.edit_reward.train job.json
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
from safetensors.torch import load_file
from torch import Tensor

from editloop.datasets.preference_groups import PreferenceGroup, PreferenceGroups, read_groups
from editloop.errors import EditLoopError, there_are
from editloop.models.edit_reward.calibration import fit_calibration
from editloop.models.edit_reward.model import RewardModel, Scores
from editloop.models.edit_reward.settings import RewardSettings
from editloop.models.lora import add_adapter, merge_adapter
from editloop.training.distributed import device, end_rank, start_rank
from editloop.training.edit_reward.group_loss import group_loss
from editloop.training.edit_reward.losses import LOSSES
from editloop.training.engine import put_state, uses_bf16
from editloop.training.loop import train
from editloop.training.reward_job import TrainingJob
from editloop.training.training_task import Batch, ParameterGroup, Split

LABELS = ("ratings", "valid", "weights")
CALIBRATION_GROUPS = 1000
"""Largest number of validation groups that the map to the experts' scale is fitted to."""


class RewardTrainingTask:
    """Preference groups for an EditReward model. A unit is a group, so all its pairs are in one pass."""

    def __init__(self, model: RewardModel, splits: dict[Split, PreferenceGroups], job: TrainingJob):
        """Take the model and its data.

        Args:
            model: The model to train.
            splits: Groups of each split.
            job: Names the loss, its target, and the backbone's share of the learning rate.
        """
        self.model, self.splits = model, splits
        self.loss_name, self.target = job.preset.loss, job.preset.target
        self.backbone_share = job.training.backbone_share

    def parameter_groups(self) -> list[ParameterGroup]:
        backbone = [parameter for parameter in self.model.backbone.parameters() if parameter.requires_grad]
        return [
            ParameterGroup(list(self.model.rm_heads.parameters()), 1.0),
            ParameterGroup(backbone, self.backbone_share),
        ]

    def count(self, split: Split) -> int:
        return len(self.splits[split])

    def name(self, split: Split, unit: int) -> str:
        return f"task {self.splits[split][unit].task_id}"

    def batch(self, split: Split, units: Sequence[int]) -> Batch:
        groups = [self.splits[split][unit] for unit in units]
        ratings, valid, weights = pad_groups(groups)
        zeros = torch.zeros_like(ratings)
        _, counted = group_loss(zeros, zeros, ratings, valid, weights, self.loss_name, self.target)
        labels = dict(zip(LABELS, (ratings, valid, weights), strict=True))
        return Batch(self.model.collate(groups) | labels, float(counted), int(valid.sum()))

    def loss(self, engine: Any, batch: Batch) -> Tensor:
        return self._scored(engine, batch)[0]

    def measure(self, engine: Any, batch: Batch) -> Mapping[str, Tensor | float]:
        loss, counted, mu = self._scored(engine, batch)
        ratings, _, weights = (batch.tensors[name] for name in LABELS)
        ordered = (ratings[:, :, None] > ratings[:, None]) & (weights > 0)
        right = (mu[:, :, None] > mu[:, None]) & ordered
        return {"loss": loss * counted, "counted": counted, "right": right.sum(), "ordered": ordered.sum()}

    def figures(self, sums: dict[str, float]) -> dict[str, float]:
        """Return mean loss, pairwise accuracy over both axes together, and the number of ordered pairs.

        Pairs without weight are left out.

        Args:
            sums: Sums of `measure` over the split.
        """
        return {
            "loss": sums["loss"] / max(1.0, sums["counted"]),
            "accuracy": sums["right"] / max(1.0, sums["ordered"]),
            "pairs": sums["ordered"],
        }

    def _scored(self, engine: Any, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mean loss, the weight it is the mean over, and mu (G, K, axes)."""
        inputs = {name: value for name, value in batch.tensors.items() if name not in LABELS}
        ratings, valid, weights = (batch.tensors[name] for name in LABELS)
        scores = unflatten_scores(engine(inputs), valid)
        loss, counted = group_loss(scores.mu, scores.log_sigma, ratings, valid, weights, self.loss_name, self.target)
        return loss, counted, scores.mu


def pad_groups(groups: Sequence[PreferenceGroup]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the labels of groups of unequal size, padded with zeros to the largest.

    Args:
        groups: G groups of up to K candidates.

    Returns:
        Ratings (G, K, 2), bool valid (G, K) and pair weights (G, K, K, 2).
    """
    largest = max(len(group.candidates) for group in groups)
    ratings = torch.zeros(len(groups), largest, 2)
    valid = torch.zeros(len(groups), largest, dtype=torch.bool)
    weights = torch.zeros(len(groups), largest, largest, 2)
    for index, group in enumerate(groups):
        size = len(group.candidates)
        ratings[index, :size] = torch.from_numpy(group.ratings)
        valid[index, :size] = True
        weights[index, :size, :size] = torch.from_numpy(group.weights)
    return ratings, valid, weights


def unflatten_scores(scores: Scores, valid: Tensor) -> Scores:
    """Return flat scores as (G, K, axes), with zeros where a group has no candidate.

    Args:
        scores: Scores of the candidates, (N, axes).
        valid: Which places hold a candidate, bool (G, K) with N true values.
    """
    shape = (*valid.shape, scores.mu.shape[-1])
    mu, log_sigma = scores.mu.new_zeros(shape), scores.mu.new_zeros(shape)
    mu[valid], log_sigma[valid] = scores.mu, scores.log_sigma
    return Scores(mu, log_sigma)


def _open_base(job: TrainingJob) -> RewardModel:
    """Return the model that a job starts from, with its adapter. New weights are drawn from the job's seed."""
    torch.manual_seed(job.training.seed)
    dtype = torch.bfloat16 if uses_bf16(job.training) else torch.float32
    if (Path(job.base) / "config.json").is_file():
        model = RewardModel.from_base(job.base, RewardSettings(**job.preset.settings), dtype=dtype)
    else:
        model = RewardModel.load(job.base, dtype=dtype)
    if job.training.adapter:
        add_adapter(model.backbone, job.training.adapter)
    return model


def _write_model(job: TrainingJob, state: Path, history: dict[str, Any], validation: PreferenceGroups) -> None:
    """Write the model folder: the base with the trained state, the adapter merged, calibrated to the experts' scale."""
    model = _open_base(job)
    put_state(model, load_file(state))
    if job.training.adapter:
        merge_adapter(model.backbone)
    model = model.to(device()).eval()
    groups = [validation[index] for index in range(min(CALIBRATION_GROUPS, len(validation)))]
    mu = model.score(groups).mu.cpu().numpy()
    ratings = pad_groups(groups)
    fitted = fit_calibration(mu, ratings[0][ratings[1]].numpy())
    model.settings = model.settings.model_copy(update={"calibration": fitted, "wording": "trained"})
    model.save(job.output, job.facts, {"training.json": history})


def main(job: TrainingJob) -> None:
    """Train on this rank. Rank 0 writes the model folder.

    Args:
        job: The training to run.

    Raises:
        EditLoopError: The preset's loss, the base or the dataset cannot be used, or a loss is not finite.
        SystemExit: The job was asked to stop and has saved a checkpoint.
    """
    if job.preset.loss not in LOSSES:
        raise EditLoopError(f"preset: loss: {job.preset.loss}: no such loss; {there_are(job.preset.loss, LOSSES)}")
    start_rank()
    model = _open_base(job)
    splits: dict[Split, PreferenceGroups] = {
        "train": read_groups(job.dataset, "train", targets=False),
        "validation": read_groups(job.dataset, "validation", targets=False),
    }
    task = RewardTrainingTask(model, splits, job)
    trained = train(task, job.training, job.checkpoints, facts=job.facts)
    if distributed.get_rank() == 0:
        _write_model(job, trained.state, trained.history, splits["validation"])
    end_rank()


if __name__ == "__main__":
    main(TrainingJob.model_validate_json(Path(sys.argv[1]).read_text()))

"""Train EditReward on preference groups: one rank of a DeepSpeed job, started by `editloop.training.launch`.

torchrun --nproc-per-node 2 -m editloop.training.edit_reward.train job.json
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor

from editloop.content import complete_folder
from editloop.datasets.preference_groups import PreferenceGroup, PreferenceGroups, read_groups
from editloop.errors import EditLoopError, there_are
from editloop.models.backbones.spreading import enable_spread_passes
from editloop.models.backbones.weight_files import read_tensors, survey_weights
from editloop.models.edit_reward.calibration import fit_calibration
from editloop.models.edit_reward.checkpoints import HEADS, is_checkpoint, new_reward_token
from editloop.models.edit_reward.model import RewardModel, Scores, shipped_reward
from editloop.models.edit_reward.settings import RewardSettings
from editloop.models.judge_protocol import wording_facts
from editloop.models.lora import add_adapter
from editloop.training.distributed import device, end_rank, start_rank
from editloop.training.edit_reward.group_loss import group_loss
from editloop.training.edit_reward.losses import LOSSES
from editloop.training.engine import freeze_embeddings, restore_state, spread_of, weight_type
from editloop.training.loop import train
from editloop.training.reward_job import TrainingJob
from editloop.training.trained_backbone import write_trained_backbone
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

        Raises:
            EditLoopError: Tasks have reference images, and the model's order has no place for them.
        """
        if model.settings.order == "paired" and any(groups.have_references for groups in splits.values()):
            raise EditLoopError(
                f"{job.dataset}: tasks have reference images; a reward model of order `paired` reads source and edit "
                "as the two frames of one image, and has no place for others. Train one of order `official` or "
                "`rubric-first`."
            )
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
    spread = spread_of(job.training)
    if is_checkpoint(job.base):
        settings = RewardSettings(**job.preset.settings)
        model = RewardModel.from_base(job.base, settings, dtype=weight_type(job.training), spread=spread)
    else:
        model = RewardModel.load(job.base, dtype=weight_type(job.training), spread=spread)
    freeze_embeddings(model.backbone, job.training)
    if job.training.adapter:
        add_adapter(model.backbone, job.training.adapter)
    return model


def _calibrated(model: RewardModel, state: Path, job: TrainingJob, validation: PreferenceGroups) -> RewardSettings:
    """Return the settings of the trained model, calibrated to the experts' scale. Rank 0's count.

    Every rank calls it. Where the model is spread all make the same passes, else rank 0 alone does.
    """
    spread = spread_of(job.training)
    if not spread:
        model.rm_heads.float()  # as they are saved: a training in bf16 has made them bf16
    restore_state(model, state)
    if spread:
        enable_spread_passes(model, spread)
    elif distributed.get_rank():
        return model.settings
    groups = [validation[index] for index in range(min(CALIBRATION_GROUPS, len(validation)))]
    mu = model.to(device()).eval().score(groups).mu.numpy()
    ratings = pad_groups(groups)
    fitted = fit_calibration(mu, ratings[0][ratings[1]].numpy())
    return model.settings.model_copy(update={"calibration": fitted, "wording": "trained"})


def _write_model(model: RewardModel, state: Path, job: TrainingJob, history: dict[str, Any]) -> None:
    """Write the model folder: the base with the trained state, the adapter merged."""
    base, new_token = Path(job.base), None
    if is_checkpoint(job.base):
        new_token = new_reward_token(base)
    else:
        base = (shipped_reward(job.base) or base) / "backbone"
    with complete_folder(job.output, wording_facts(model.settings) | job.facts) as out:
        write_trained_backbone(
            base,
            state,
            out / "backbone",
            weight_type(job.training),
            generates=False,
            adapter=job.training.adapter,
            new_token=new_token,
        )
        heads = {name: tensor for name, tensor in survey_weights(state).items() if name.startswith(HEADS)}
        model.save_beside(out, dict(read_tensors(heads)), {"training.json": history})


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
    model.settings = _calibrated(model, trained.state, job, splits["validation"])
    if distributed.get_rank() == 0:
        _write_model(model, trained.state, job, trained.history)
    end_rank()


if __name__ == "__main__":
    main(TrainingJob.model_validate_json(Path(sys.argv[1]).read_text()))

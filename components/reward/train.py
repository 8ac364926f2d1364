"""Trains a reward model on preference groups; one rank of a DeepSpeed job (ZeRO-2), started by `infra.launch`.

    torchrun --nproc-per-node 2 -m components.reward.train job.json

Every rank takes its share of each batch's groups, so that all pairs of a group meet in one pass a candidate.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from components.reward.data import Group, read_groups
from components.reward.group_loss import group_loss
from components.reward.model import RewardModel, Scores


class TrainingJob(BaseModel):
    """What the ranks are told, by file."""

    model_config = ConfigDict(extra="forbid")

    dataset: Path
    output: Path
    base: str
    epochs: int
    learning_rate: float
    """Peak of the heads'; linear warm-up over the first tenth, then cosine to 0."""
    backbone_share: float = 0.03
    """The backbone's learning rate as a share of the heads': it sees already, the heads start from nothing."""
    groups_a_batch: int = 8
    """Over all ranks."""
    loss: str = "expected-log"
    """A name of components.reward.losses.LOSSES."""
    zero_stage: int = 2
    weight_decay: float = 0.05
    seed: int = 0
    facts: dict[str, object] = {}
    """Kept in the model's manifest: what it was trained on."""


def engine_settings(job: TrainingJob, ranks: int) -> dict[str, object]:
    """DeepSpeed's configuration; batches are formed here, so its own sizes only have to agree."""
    return {
        "train_batch_size": ranks,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": job.zero_stage},
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": torch.cuda.is_available()},
    }


def padded(groups: list[Group]) -> tuple[Tensor, Tensor, Tensor]:
    """Ratings (G, K, 2), valid (G, K) and pair weights (G, K, K, 2) of groups of unequal size."""
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


def flat(groups: list[Group]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Instructions, sources and edits of all candidates of the groups, one after the other."""
    instructions = [group.instruction for group in groups for _ in group.candidates]
    sources = np.concatenate([np.broadcast_to(group.source, group.edits.shape) for group in groups])
    return instructions, sources, np.concatenate([group.edits for group in groups])


def spread_out(scores: Scores, valid: Tensor) -> Scores:
    """Flat scores (N, axes) back to (G, K, axes), zero where a group has no candidate."""
    shape = (*valid.shape, scores.mu.shape[-1])
    mu, log_sigma = scores.mu.new_zeros(shape), scores.mu.new_zeros(shape)
    mu[valid], log_sigma[valid] = scores.mu, scores.log_sigma
    return Scores(mu, log_sigma)


@torch.no_grad()
def evaluate(model: RewardModel, groups: list[Group]) -> dict[str, float]:
    """Mean loss and pairwise accuracy (pairs without weight left out) over groups, both axes together."""
    ratings, valid, weights = padded(groups)
    scores = spread_out(model.score(*flat(groups)), valid)
    loss, pairs = group_loss(scores.mu, scores.log_sigma, ratings, valid, weights, "expected-log")
    ordered = (ratings[:, :, None] > ratings[:, None]) & (weights > 0)
    right = scores.mu[:, :, None] > scores.mu[:, None]
    return {
        "loss": loss.item(),
        "accuracy": (right & ordered).sum().item() / max(1, int(ordered.sum())),
        "pairs": pairs.item(),
    }


def calibrate(model: RewardModel, groups: list[Group]) -> None:
    """Keep each head's mean and spread over the training data with the model."""
    mu = model.score(*flat(groups)).mu
    model.settings = model.settings.model_copy(
        update={"center": tuple(mu.mean(0).tolist()), "spread": tuple(mu.std(0).clamp_min(1e-6).tolist())}
    )


def main(job: TrainingJob) -> None:
    """Train, keep the epoch with the lowest validation loss, write the model folder from rank 0."""
    import deepspeed
    import deepspeed.ops

    # Its start-up compilation of a shared-memory communicator takes 90 s; gloo does without.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    deepspeed.init_distributed(dist_backend="nccl" if torch.cuda.is_available() else "gloo", verbose=False)
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    torch.manual_seed(job.seed)
    model = RewardModel.load(job.base)
    training, validation = (read_groups(job.dataset, split, model.settings.side) for split in ("train", "validation"))
    peaks = (job.learning_rate, job.learning_rate * job.backbone_share)
    parts = [
        {"params": list(part.parameters()), "lr": peak}
        for part, peak in zip((model.rm_heads, model.backbone), peaks, strict=True)
    ]
    optimiser = torch.optim.AdamW(parts, weight_decay=job.weight_decay)
    engine, optimiser, _, _ = deepspeed.initialize(model=model, optimizer=optimiser, config=engine_settings(job, ranks))
    order = np.random.default_rng(job.seed)
    batches = max(1, len(training) // job.groups_a_batch)
    total, step = job.epochs * batches, 0
    history: dict[str, list[dict[str, float]]] = {
        "steps": [],
        "evaluations": [{"step": 0, **evaluate(model.eval(), validation)}],
    }
    best, best_loss = {}, float("inf")
    for epoch in range(job.epochs):
        shuffled = order.permutation(len(training))
        model.train()
        for batch in range(batches):
            warmth = min((step + 1) / (0.1 * total), 0.5 * (1 + np.cos(np.pi * step / total)))
            for part, peak in zip(optimiser.param_groups, peaks, strict=True):
                part["lr"] = peak * warmth
            mine = shuffled[batch * job.groups_a_batch : (batch + 1) * job.groups_a_batch][rank::ranks]
            groups = [training[index] for index in mine] or [training[shuffled[rank]]]
            ratings, valid, weights = padded(groups)
            flat_scores = engine(model.prepare(*flat(groups)))
            scores = spread_out(flat_scores, valid)
            loss, _ = group_loss(scores.mu, scores.log_sigma, ratings, valid, weights, job.loss)
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"loss is {loss.item()} at step {step}; lower learning_rate ({job.learning_rate})"
                )
            engine.backward(loss)
            engine.step()
            step += 1
            if rank == 0:
                history["steps"].append({"step": step, "loss": loss.item()})
        if rank == 0:
            found = evaluate(model.eval(), validation)
            history["evaluations"].append({"step": step, **found})
            told = f"validation loss {found['loss']:.4f}, accuracy {found['accuracy']:.3f}"
            print(f"epoch {epoch + 1}/{job.epochs}: {told}", flush=True)
            if found["loss"] < best_loss:
                best_loss, best = found["loss"], {name: value.clone() for name, value in model.state_dict().items()}
        torch.distributed.barrier()
    if rank == 0:
        model.load_state_dict(best)
        calibrate(model.eval(), training)
        model.save(job.output, job.facts, {"training.json": history})
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(TrainingJob.model_validate_json(Path(sys.argv[1]).read_text()))

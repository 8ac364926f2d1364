"""Trains the tiny reward base that ships with EditLoop: Qwen2.5-VL's classes with about a million parameters.

    editloop weights reward     # a quarter of an hour on one core; writes models/edit_reward/weights/tiny-reward

It stands for a pretrained vision-language model that sees well but judges naively. Its backbone recognises what changed
in drawn scenes; its heads predict only whether anything changed. It has never seen an edit by an editor, or a
judgement. Heads that predict whether the instruction was carried out would leave nothing to learn: they order clear
pairs as well as training on preferences does (0.88 against 0.86).
"""

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLModel

from editloop.evaluation.oracle import oracle
from editloop.models.backbones.prefix_tree import last_hidden
from editloop.models.edit_reward.model import RewardModel, reward_head
from editloop.models.edit_reward.settings import REWARD_TOKEN, RewardSettings
from editloop.models.judge_protocol import EditGroup
from editloop.progress import track
from editloop.studies.tiny_models.backbone import tiny_config
from editloop.studies.world.scenes import WORDS, random_edit

log = logging.getLogger(__name__)

WIDTH = 96
BATCH = 32
PEAK_RATE = 1e-3
SEED = 23
STEPS = 5000
HEAD_STEPS, HEAD_RATE = 300, 3e-4
"""Steps and learning rate of `teach_heads`."""
CHANGE_THRESHOLD = 0.03
"""An edit counts as changed if its mean absolute difference from the source (0..1) is larger."""
YES_THRESHOLD = 0.5
"""Oracle score (0..1) above which the target of the yes/no loss is yes."""
TEXT_TOKENS = 32
VISION_END_ID = 4
"""Token id of `<|vision_end|>`, after which the instruction's words follow."""


def build_tiny_reward(seed: int = SEED) -> RewardModel:
    """Build an untrained tiny reward model for 32x32 images.

    Args:
        seed: Seed of the weights.
    """
    torch.manual_seed(seed)
    special = ["<pad>", "[UNK]", "<|image_pad|>", "<|vision_start|>", "<|vision_end|>", REWARD_TOKEN, "<|video_pad|>"]
    words = Tokenizer(models.WordLevel({word: token_id for token_id, word in enumerate([*special, *WORDS])}, "[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        unk_token="[UNK]",
        additional_special_tokens=special[2:],
        model_max_length=TEXT_TOKENS,
    )
    config = tiny_config("qwen2.5-vl", tokenizer, width=WIDTH, layers=4, heads=3, tied=False)
    config.text_config.rope_parameters["rope_theta"], config.text_config.max_position_embeddings = 1000.0, 128
    return RewardModel(
        Qwen2_5_VLModel(config),
        tokenizer,
        RewardSettings(order="paired", side=32, rubrics=(), instruction_tokens=TEXT_TOKENS),
    )


class PretrainingExample(NamedTuple):
    """An example of the pretraining. Images are uint8 (32, 32, 3)."""

    instruction: str
    source: NDArray[np.uint8]
    target: NDArray[np.uint8]
    edit: NDArray[np.uint8]


def draw_example(rng: np.random.Generator) -> PretrainingExample:
    """Draw a task, and an edit of it that is right, wrong or in between. No editor is involved.

    The edit is the right result, the source or the result of another instruction. Blocks of it may be blended with
    another of these images or with one colour, and smooth noise may be added to all or a part of it.

    Args:
        rng: Source of random numbers.
    """
    task = random_edit(rng)
    edit: NDArray[np.floating] = task.target.astype(np.float64)
    kind = rng.random()
    if kind < 0.15:
        edit = task.source.astype(np.float64)
    elif kind < 0.4:
        operation = task.operation if rng.random() < 0.6 else None
        edit = random_edit(rng, operation, task.scene).target.astype(np.float64)
    if rng.random() < 0.5:  # blocks of something else
        fillers = (task.source, task.target, random_edit(rng, task.operation, task.scene).target)
        filler = fillers[rng.integers(3)] if rng.random() < 0.8 else fillers[0] * 0.0 + rng.uniform(0, 255, 3)
        blocks = rng.random((8, 8)) if rng.random() < 0.5 else rng.random((4, 4)).repeat(2, 0).repeat(2, 1)
        share = (blocks < rng.uniform(0.05, 0.6)).repeat(4, 0).repeat(4, 1)[..., None] * rng.uniform(0.3, 1)
        edit = edit * (1 - share) + filler * share
    if rng.random() < 0.4:  # smooth noise, everywhere or in one part
        smooth = rng.normal(0, rng.uniform(3, 40), (8, 8, 3)).repeat(4, 0).repeat(4, 1)
        if rng.random() < 0.5:
            row, column = rng.integers(0, 24, 2)
            mask = np.zeros((32, 32, 1))
            mask[row : row + 12, column : column + 12] = 1
            smooth = smooth * mask
        edit = edit + smooth
    return PretrainingExample(task.instruction, task.source, task.target, np.clip(edit, 0, 255).astype(np.uint8))


def _caption_loss(
    model: RewardModel, hidden: torch.Tensor, rows: dict[str, torch.Tensor], done: torch.Tensor
) -> torch.Tensor:
    """Mean cross-entropy of the instruction's words after the image pair, over the pairs in which it is carried out.

    hidden: (L, width) of a packed batch of B pairs. done: (B,) bool. The output embedding is the input embedding.
    """
    ids = rows["input_ids"][0]
    after_pictures = (ids == VISION_END_ID).nonzero()[:, 0] + 1
    spans = zip(after_pictures[done].tolist(), rows["reads"][done, 0].tolist(), strict=True)
    words = torch.cat([torch.arange(*span) for span in spans])
    logits = hidden[words - 1] @ model.backbone.get_input_embeddings().weight.T
    return torch.nn.functional.cross_entropy(logits, ids[words])


def draw_pretraining_batch(
    model: RewardModel, rng: np.random.Generator
) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Draw a batch of examples.

    Args:
        model: The model, which collates the batch.
        rng: Source of random numbers.

    Returns:
        The model's inputs; the oracle's scores, (B, 2), 0..1; the mean absolute difference of edit and source, (B,),
        0..1.
    """
    batch = [draw_example(rng) for _ in range(BATCH)]
    sources, targets, edits = (
        np.stack([getattr(example, role) for example in batch]) for role in ("source", "target", "edit")
    )
    truth = torch.from_numpy(np.stack(oracle(sources, targets, edits), axis=1)).float()
    changed = torch.from_numpy(np.abs(edits.astype(np.float32) - sources).mean(axis=(1, 2, 3)) / 255)
    groups = [EditGroup(example.instruction, example.source, [example.edit]) for example in batch]
    return model.collate(groups), truth, changed


def teach_heads(model: RewardModel, rng: np.random.Generator, seed: int) -> float:
    """Replace the model's heads by new ones, trained to predict whether an image was changed at all.

    The backbone stays as it is.

    Args:
        model: The model, changed in place.
        rng: Source of random numbers for the examples.
        seed: Seed of the new heads' weights.

    Returns:
        Accuracy of the predictions over the last 100 steps, 0..1.
    """
    torch.manual_seed(seed)
    model.rm_heads = torch.nn.ModuleDict({name: reward_head(WIDTH) for name in model.rm_heads})
    optimiser = torch.optim.AdamW(model.rm_heads.parameters(), lr=HEAD_RATE)
    right = []
    for _ in track(range(HEAD_STEPS), description="heads of the base"):
        rows, _, changed = draw_pretraining_batch(model, rng)
        with torch.no_grad():
            hidden = model.hidden(rows)
        mu = model.read(hidden).mu
        truth = (changed > CHANGE_THRESHOLD).float()[:, None].expand_as(mu)
        torch.nn.functional.binary_cross_entropy_with_logits(mu, truth).backward()
        optimiser.step()
        optimiser.zero_grad()
        right.append(((mu > 0) == (truth > 0.5)).float().mean().item())
    return float(np.mean(right[-100:]))


def pretrain_tiny_reward(output: Path, *, steps: int = STEPS, seed: int = SEED) -> dict[str, float]:
    """Pretrain the tiny reward base and save it.

    First the backbone learns to see, by three losses: telling (cross-entropy of the instruction's words, given the
    image pair), measuring (squared error of a linear read-out of the oracle's two scores) and yes/no answers to whether
    each score is high. Then new heads learn on the frozen backbone to predict whether anything was changed. They know
    nothing about the quality of a change.

    Args:
        output: The model folder to write.
        steps: Steps of the first part.
        seed: Seed of weights and examples.

    Returns:
        telling and measuring (losses, mean over the last 250 steps), and accuracy of the heads (0..1).
    """
    model = build_tiny_reward(seed)
    measure = torch.nn.Linear(WIDTH, 1)
    parameters = [*model.parameters(), *measure.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=PEAK_RATE, weight_decay=0.05, betas=(0.9, 0.98))
    rng = np.random.default_rng(seed)
    history = []
    for step in track(range(steps), description="tiny reward base"):
        optimiser.param_groups[0]["lr"] = PEAK_RATE * min(1, (step + 1) / 200) * min(1, 3 * (1 - step / steps))
        rows, truth, _ = draw_pretraining_batch(model, rng)
        yes = (truth > YES_THRESHOLD).float()
        hidden = last_hidden(model.backbone, rows)
        read = hidden[rows["reads"]]
        mu = model.read(read.detach() if step < steps // 2 else read).mu
        caption_loss = _caption_loss(model, hidden, rows, truth[:, 0] > YES_THRESHOLD)
        measured = (measure(read).squeeze(-1).sigmoid() - truth).square().mean()
        answers = torch.nn.functional.binary_cross_entropy_with_logits(mu, yes)
        (caption_loss + 10 * measured + 0.3 * answers).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        history.append([caption_loss.item(), measured.item()])
        if (step + 1) % 250 == 0:
            log.info("step %d: telling, measuring %s", step + 1, np.mean(history[-250:], axis=0).round(3))
    accuracy = teach_heads(model, rng, seed)
    model.save(output, {"made_by": "editloop weights reward", "seed": seed, "steps": steps})
    caption_loss, measured = np.mean(history[-250:], axis=0).tolist()
    return {"telling": caption_loss, "measuring": measured, "accuracy": accuracy}

"""Trains the tiny EditScore base that ships with EditLoop: Qwen2.5-VL's generation class, a million parameters.

    editloop weights score     # a quarter of an hour on one core; writes models/edit_score/weights/tiny-score

It starts from the weights of the tiny reward base and sees as well. It writes answers in the right format, but judges
naively: its first score says only whether anything was changed, and its other scores lie somewhere in the middle. It
has never seen an edit by an editor, or a judgement.
"""

import logging
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from editloop.evaluation.oracle import oracle
from editloop.models.backbones.picture_inputs import Patches
from editloop.models.backbones.prefix_tree import last_hidden
from editloop.models.edit_reward.model import RewardModel
from editloop.models.edit_reward.settings import REWARD_TOKEN
from editloop.models.edit_score.model import EditScoreModel
from editloop.models.edit_score.rows import PackedRows, PromptRow
from editloop.models.edit_score.settings import AXES, DIGITS, EditScoreSettings
from editloop.models.judge_protocol import EditGroup
from editloop.progress import track
from editloop.studies.tiny_models.backbone import byte_tokenizer, tiny_config
from editloop.studies.tiny_models.edit_reward import (
    CHANGE_THRESHOLD,
    WIDTH,
    YES_THRESHOLD,
    PretrainingExample,
    draw_example,
)
from editloop.studies.world.scenes import WORDS
from editloop.training.edit_score.sft import answer_loss
from editloop.training.edit_score.targets import Target, answer_text, training_rows, written_reasoning

log = logging.getLogger(__name__)

SIDE, TOP = 32, 25
"""Side of the images in pixels, and the highest score."""
SETTINGS = EditScoreSettings(
    system="",
    sc="{instruction}",
    pq="quality",
    closing="",
    top=TOP,
    pictures="paired",
    max_new_tokens=32,
    min_pixels=SIDE * SIDE,
    max_pixels=SIDE * SIDE,
    instruction_tokens=32,
)
BATCH = 24
STEPS, PEAK_RATE, BACKBONE_SHARE = 2500, 1e-3, 0.3
"""Steps, peak learning rate, and the share of it for all but the word embeddings: new words must be learnt fast, and
the backbone must not lose what it sees already."""
EMBEDDING_SPREAD = 0.3
"""Embeddings of answer words start near that of `<|Reward|>`, where the backbone has its view of the edit ready. This
is the standard deviation of their noise, as a multiple of that embedding's own."""
SEED = 31


def texts() -> list[str]:
    """Return all texts that the tiny model reads and writes, for its vocabulary."""
    answers = [
        answer_text(written_reasoning(axes, (level, level), TOP), (level, level))
        for axes in (AXES[:2], AXES[2:])
        for level in range(TOP + 1)
    ]
    turns = ["user\n", "assistant\n", SETTINGS.pq, *(f"{axis}: {digit}" for axis in AXES for digit in DIGITS)]
    return [" ".join(WORDS), *WORDS, *turns, *answers]


def build_tiny_score(seed: int = SEED) -> EditScoreModel:
    """Build an EditScore model for 32x32 images from the tiny reward base. It cannot write yet.

    Args:
        seed: Seed of the new weights.
    """
    torch.manual_seed(seed)
    tokenizer = byte_tokenizer(texts())
    config = tiny_config("qwen2.5-vl", tokenizer, width=WIDTH, layers=4, heads=3)
    config.text_config.rope_parameters["rope_theta"] = 1000.0
    backbone = Qwen2_5_VLForConditionalGeneration(config)
    reward_model = RewardModel.load("tiny-reward")
    state = reward_model.backbone.state_dict()
    reward_embeddings = state.pop("language_model.embed_tokens.weight")
    backbone.model.load_state_dict(state, strict=False)
    embeddings = backbone.model.language_model.embed_tokens.weight.data
    reward_embedding = reward_embeddings[reward_model.tokenizer.convert_tokens_to_ids(REWARD_TOKEN)]
    for token in _tokens(tokenizer, [*texts()[-TOP - 1 :], "assistant\n"]):
        embeddings[token] = reward_embedding + EMBEDDING_SPREAD * reward_embedding.std() * torch.randn(WIDTH)
    for word, token_id in reward_model.tokenizer.get_vocab().items():
        for form in (word, "Ġ" + word):
            if form in tokenizer.get_vocab():
                embeddings[tokenizer.convert_tokens_to_ids(form)] = reward_embeddings[token_id]
    return EditScoreModel(backbone, tokenizer, SETTINGS)


def _tokens(tokenizer: PreTrainedTokenizerFast, written: list[str]) -> set[int]:
    return {int(token) for text in written for token in tokenizer(text).input_ids}


def naive_target(example: PretrainingExample, rng: np.random.Generator) -> Target:
    """Return the scores of a naive judge, who sees only whether anything changed.

    The first score grows with the change, with some noise; the others are one random number near the middle.

    Args:
        example: The example.
        rng: Source of random numbers.
    """
    change = float(np.abs(example.edit.astype(np.float32) - example.source).mean() / 255)
    done = float(
        np.clip(1 / (1 + math.exp(-(change - CHANGE_THRESHOLD) / (CHANGE_THRESHOLD / 3))) + rng.normal(0, 0.1), 0, 1)
    )
    middle = round(TOP * rng.uniform(0.3, 0.7))
    return Target((round(TOP * done), middle, middle, middle))


def _caption_loss(
    model: EditScoreModel, hidden: Tensor, rows: list[PromptRow], batch: PackedRows, done: Tensor
) -> Tensor:
    """Mean cross-entropy of the instruction's words after the image pair, over the pairs in which it is carried out.

    hidden: (L, width) of a packed batch that begins with `rows`, SC questions with their answers. done: (rows,) bool.
    """
    before: list[int] = []
    words: list[int] = []
    for row, path, is_done in zip(rows, batch.paths[: len(rows)], done.tolist(), strict=True):
        closing = row.prompt[-1]
        assert not isinstance(closing, Patches)
        instruction_ids = closing[: closing.index(model.rows.end)]
        start = len(path) - len(row.answer) - len(closing)
        if is_done:
            before += path[start - 1 : start - 1 + len(instruction_ids)].tolist()
            words += instruction_ids
    if not words:
        return hidden.sum() * 0
    return torch.nn.functional.cross_entropy(model.logits(hidden[torch.tensor(before)]), torch.tensor(words))


def pretrain_tiny_score(output: Path, *, steps: int = STEPS, seed: int = SEED) -> dict[str, float]:
    """Pretrain the tiny EditScore base and save it.

    Four losses on drawn scenes: answering (cross-entropy of the naive answer), telling (cross-entropy of the
    instruction's words, given the image pair) and measuring, twice (squared error of a linear read-out of the oracle's
    scores, where the answer begins and where its scores begin). Measuring keeps the model from losing what it sees
    while it learns to write.

    Args:
        output: The model folder to write.
        steps: Training steps.
        seed: Seed of weights and examples.

    Returns:
        answering, telling and measuring (losses, mean over the last 250 steps).
    """
    model = build_tiny_score(seed)
    measure = torch.nn.Linear(WIDTH, 2)
    words = model.backbone.get_input_embeddings().weight
    seeing_parameters = [parameter for parameter in model.parameters() if parameter is not words]
    optimiser = torch.optim.AdamW(
        [
            {"params": [words, *measure.parameters()], "share": 1.0},
            {"params": seeing_parameters, "share": BACKBONE_SHARE},
        ],
        lr=PEAK_RATE,
        weight_decay=0.05,
        betas=(0.9, 0.98),
    )
    rng = np.random.default_rng(seed)
    history = []
    for step in track(range(steps), description="tiny EditScore base"):
        for param_group in optimiser.param_groups:
            param_group["lr"] = (
                PEAK_RATE * param_group["share"] * min(1, (step + 1) / 100) * min(1, 3 * (1 - step / steps))
            )
        examples = [draw_example(rng) for _ in range(BATCH)]
        pictures = (np.stack([getattr(example, role) for example in examples]) for role in ("source", "target", "edit"))
        truth = torch.from_numpy(np.stack(oracle(*pictures), axis=1)).float()
        rows = [
            training_rows(
                model.rows, EditGroup(example.instruction, example.source, [example.edit]), [naive_target(example, rng)]
            )[0]
            for example in examples
        ]
        sc_rows, pq_rows = [sc for sc, _ in rows], [pq for _, pq in rows[::3]]
        batch = model.collate([*sc_rows, *pq_rows])
        hidden = last_hidden(model.backbone.model, batch.tensors)
        answers = answer_loss(model.logits(hidden[batch.tensors["before"]]), batch.tensors["targets"])
        caption_loss = _caption_loss(model, hidden, sc_rows, batch, truth[:, 0] > YES_THRESHOLD)
        offset_lists = ([-len(row.answer) - 1 for row in sc_rows], [_score_begins(model, row) for row in sc_rows])
        measured = [
            (measure(hidden[_hidden_positions(batch, offsets)]).sigmoid() - truth).square().mean()
            for offsets in offset_lists
        ]
        (answers + caption_loss + 5 * sum(measured)).backward()
        torch.nn.utils.clip_grad_norm_([*model.parameters(), *measure.parameters()], 1.0)
        optimiser.step()
        optimiser.zero_grad()
        history.append([answers.item(), caption_loss.item(), measured[1].item()])
        if (step + 1) % 250 == 0:
            means = np.mean(history[-250:], axis=0).round(3)
            log.info("step %d: answering, telling, measuring %s", step + 1, means)
    model.backbone.half()
    model.eval().save(output, {"made_by": "editloop weights score", "seed": seed, "steps": steps})
    answering, telling, measuring = np.mean(history[-250:], axis=0).tolist()
    return {"answering": answering, "telling": telling, "measuring": measuring}


def _score_begins(model: EditScoreModel, row: PromptRow) -> int:
    """Index, counted from the row's end (negative), of the token after which the first score is written."""
    opening = model.tokenizer.convert_tokens_to_ids("Ġ[")
    return row.answer.index(opening) - len(row.answer)


def _hidden_positions(batch: PackedRows, offsets: list[int]) -> Tensor:
    return torch.stack([path[offset] for path, offset in zip(batch.paths, offsets, strict=False)])

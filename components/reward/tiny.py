"""Makes the tiny reward base that ships with EditLoop: Qwen2.5-VL's classes, about a million parameters.

    editloop weights reward            # about ten minutes on one core; writes components/reward/weights/tiny-reward

It stands for a pretrained vision-language model: it has seen drawn scenes and can tell, coarsely, whether an instruction
was carried out and whether a picture is clean. It has never seen an edit that the editor made, nor a graded judgement:
that is what preferences teach.
"""

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLModel

from annotation.scenes import WORDS, random_edit
from components.reward.model import IMAGE_TOKEN, REWARD_TOKEN, VISION_END, VISION_START, RewardModel, RewardSettings

WIDTH = 96
BATCH = 64
PEAK_RATE = 1e-3
SEED = 23
TEXT_TOKENS = 32
PAD_ID, VISION_END_ID = 0, 4


def build(seed: int = SEED) -> RewardModel:
    """An untrained tiny reward model for 32x32 pictures."""
    torch.manual_seed(seed)
    special = ["<pad>", "[UNK]", IMAGE_TOKEN, VISION_START, VISION_END, REWARD_TOKEN, "<|video_pad|>"]
    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate([*special, *WORDS])}, "[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="[UNK]", additional_special_tokens=special[2:],
        model_max_length=TEXT_TOKENS,
    )  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(words.get_vocab()), "hidden_size": WIDTH, "intermediate_size": 3 * WIDTH,
            "num_hidden_layers": 4, "num_attention_heads": 3, "num_key_value_heads": 3, "max_position_embeddings": 128,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [4, 6, 6]},
            "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None,
        },
        vision_config={
            "depth": 3, "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_heads": 3, "out_hidden_size": WIDTH,
            "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 32,
            "fullatt_block_indexes": [0, 1, 2],
        },
        image_token_id=2, vision_start_token_id=3, vision_end_token_id=4, video_token_id=6,
    )  # fmt: skip
    return RewardModel(Qwen2_5_VLModel(config), tokenizer, RewardSettings(side=32))


def lesson(rng: np.random.Generator) -> tuple[str, NDArray[np.uint8], NDArray[np.uint8], tuple[float, float]]:
    """One picture pair and two yes/no answers: was the instruction carried out, is the rest as it was and clean.

    Edits are drawn, never the editor's: the right one, none, another one, half of one, each spoilt or not.
    """
    wanted = random_edit(rng)
    kind = rng.choice(["right", "right", "none", "other", "other", "half", "moved"])
    source, edited = wanted.source, wanted.target.astype(np.float32)
    done, clean = float(kind == "right"), 1.0
    if kind == "none":
        edited = source.astype(np.float32)
    elif kind == "other":
        operation = wanted.operation if rng.random() < 0.6 else None
        other = random_edit(rng, operation, wanted.scene)
        edited = other.target.astype(np.float32)
        done = clean = float(other.instruction == wanted.instruction)
    elif kind == "half":
        share = rng.uniform(0.1, 0.9)
        edited = share * edited + (1 - share) * source
        done = float(share > 0.6)
    elif kind == "moved":
        axis, step = int(rng.integers(2)), int(rng.choice([-16, 16]))
        edited = np.roll(edited, step, axis)
        done = clean = 0.0
    if rng.random() < 0.4:
        rows, columns = (slice(8 * a, 8 * a + 8 * int(rng.integers(1, 3))) for a in rng.integers(0, 4, 2))
        spoil = rng.uniform(5, 60)
        edited = edited.copy()
        edited[rows, columns] += rng.normal(0, spoil, edited[rows, columns].shape) * (rng.random() < 0.5) + rng.normal(
            0, spoil, 3
        )
        clean = min(clean, float(spoil < 20))
    return wanted.instruction, source, np.clip(edited, 0, 255).astype(np.uint8), (done, clean)


def telling_loss(
    model: RewardModel, hidden: torch.Tensor, rows: dict[str, torch.Tensor], done: torch.Tensor
) -> torch.Tensor:
    """Mean cross-entropy of the instruction's words after the picture pair, over pairs that show it done.

    hidden: (B, L, width); done: (B,) bool. Output words share the input embedding.
    """
    axes = len(model.settings.axes)
    end_of_image = int((rows["input_ids"][0] == VISION_END_ID).nonzero())
    words = rows["input_ids"][done, end_of_image + 1 : -axes]
    logits = hidden[done, end_of_image : -axes - 1] @ model.backbone.get_input_embeddings().weight.T
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), words.flatten(), ignore_index=PAD_ID)


def train(output: Path, *, seconds: float, seed: int = SEED) -> dict[str, float]:
    """Teach the coarse yes/no answers for a given time on one core, then save. Returns the accuracies."""
    model = build(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.05, betas=(0.9, 0.98))
    rng = np.random.default_rng(seed)
    began, step, history = time.monotonic(), 0, []
    while (elapsed := time.monotonic() - began) < seconds:
        optimiser.param_groups[0]["lr"] = PEAK_RATE * min(1, (step + 1) / 200) * min(1, 3 * (1 - elapsed / seconds))
        instructions, sources, edits, answers = zip(*(lesson(rng) for _ in range(BATCH)), strict=True)
        rows = model.prepare(instructions, np.stack(sources), np.stack(edits))
        truth = torch.tensor(answers)
        hidden = model.backbone(**rows, use_cache=False).last_hidden_state
        mu = model.read(hidden).mu
        told = telling_loss(model, hidden, rows, truth[:, 0] > 0.5)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(mu, truth) + told
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        history.append([told.item(), *((mu > 0) == (truth > 0.5)).float().mean(0).tolist()])
        step += 1
        if step % 250 == 0:
            print(
                f"step {step}, {elapsed:.0f} s, telling loss and accuracies {np.mean(history[-250:], axis=0).round(3)}",
                flush=True,
            )
    model.save(output, {"made_by": "editloop weights reward", "seed": seed, "steps": step})
    return dict(zip(("telling_loss", "done", "clean"), np.mean(history[-250:], axis=0).tolist(), strict=True))

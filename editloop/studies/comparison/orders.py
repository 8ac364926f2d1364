"""Trains a tiny base that reads two separate images, in the published order of the input and in EditLoop's own.

The shipped tiny reward base reads source and edit as the two frames of one image, so it cannot compare the orders. This
base starts from its weights and is trained on both orders, in alternate steps, so that any advantage of an order is its
own.
"""

import logging
from pathlib import Path

import numpy as np
import torch

from editloop.content import MANIFEST
from editloop.models.backbones.prefix_tree import last_hidden
from editloop.models.edit_reward.model import RewardModel
from editloop.models.edit_reward.settings import Order, RewardSettings
from editloop.progress import track
from editloop.studies.tiny_models.edit_reward import WIDTH, YES_THRESHOLD, draw_pretraining_batch, teach_heads

log = logging.getLogger(__name__)

ORDERS: tuple[Order, ...] = ("official", "rubric-first")
RUBRICS = ("{instruction}", "rate {instruction}")
"""One word distinguishes the axes. The tiny tokenizer does not know it, so it is always the same token."""
STEPS, PEAK_RATE, BACKBONE_SHARE = 3000, 1e-3, 0.5
"""Steps, peak learning rate, and the backbone's share of that rate."""
SEED = 29


def order_bases(folder: Path) -> dict[Order, Path]:
    """Train the base for each order, unless the folder has all of them. It takes half an hour on one core.

    Two losses on drawn scenes, without any judgement: squared error of a linear read-out of the oracle's two scores, at
    each axis's `<|Reward|>`, and yes/no answers of the heads to whether each score is high. New heads are then trained
    to predict only whether anything changed, as the tiny reward base's are.

    Args:
        folder: Folder for the bases.

    Returns:
        The model folder of each order. They share the backbone's weights.
    """
    folders: dict[Order, Path] = {order: folder / order for order in ORDERS}
    if all((path / MANIFEST).is_file() for path in folders.values()):
        return folders
    torch.manual_seed(SEED)
    shipped = RewardModel.load("tiny-reward")
    models = {order: RewardModel(shipped.backbone, shipped.tokenizer, _settings(order)) for order in ORDERS}
    measure = torch.nn.Linear(WIDTH, 1)
    heads = [parameter for model in models.values() for parameter in model.rm_heads.parameters()]
    optimiser = torch.optim.AdamW(
        [
            {"params": [*heads, *measure.parameters()], "share": 1.0},
            {"params": list(shipped.backbone.parameters()), "share": BACKBONE_SHARE},
        ],
        lr=PEAK_RATE,
        weight_decay=0.05,
        betas=(0.9, 0.98),
    )
    rng = np.random.default_rng(SEED)
    for step in track(range(STEPS), description="base of two pictures"):
        rate_factor = min(1, (step + 1) / 200) * min(1, 3 * (1 - step / STEPS))
        for part in optimiser.param_groups:
            part["lr"] = PEAK_RATE * part["share"] * rate_factor
        model = models[ORDERS[step % len(ORDERS)]]
        batch, truth, _ = draw_pretraining_batch(model, rng)
        read = last_hidden(model.backbone, batch)[batch["reads"]]
        measured = (measure(read).squeeze(-1).sigmoid() - truth).square().mean()
        answers = torch.nn.functional.binary_cross_entropy_with_logits(
            model.read(read).mu, (truth > YES_THRESHOLD).float()
        )
        (10 * measured + 0.3 * answers).backward()
        torch.nn.utils.clip_grad_norm_(
            [parameter for part in optimiser.param_groups for parameter in part["params"]], 1.0
        )
        optimiser.step()
        optimiser.zero_grad()
        if (step + 1) % 200 == 0:
            log.info("step %d: %s, measuring %.4f", step + 1, model.settings.order, measured.item())
    for order, model in models.items():
        teach_heads(model, rng, SEED)
        model.eval().save(folders[order], {"made_by": "editloop compare-judges", "seed": SEED, "steps": STEPS})
    return folders


def _settings(order: Order) -> RewardSettings:
    return RewardSettings(
        order=order, rubrics=RUBRICS, opening="", min_pixels=32 * 32, max_pixels=32 * 32, instruction_tokens=32
    )

"""A release of EditScore in the published layout, with tiny random weights: an adapter, and its base."""

import json
import shutil
from pathlib import Path

import torch

from editloop.models.edit_score.adapters import write_adapter
from editloop.models.edit_score.wording import ScoreWording
from editloop.models.lora import add_adapter
from editloop.models.lora_settings import LoraSettings
from tests.edit_score_models import tiny_score
from tests.editreward_releases import release_folder

PROMPTS = '''\
raise SystemExit("this file was run")
_context_no_delimit_reasoning_first = "Say why."
_prompts_0shot_two_image_edit_rule = "Two pictures,"
_prompts_0shot_tie_rule_SC = """from 0 to 10.
Wish: <instruction>"""
_prompts_0shot_rule_PQ = "One picture, 0 to 10."
'''
"""A module of the shape of the authors', with words of ours."""
WORDING = ScoreWording(
    sc="Say why.\nTwo pictures,\nfrom 0 to {top}.\nWish: {instruction}", pq="Say why.\nOne picture, 0 to {top}."
)
"""What is read from it."""


def write_release(family: str, folder: Path) -> None:
    """Write `base/` and `adapter/`. Of the tokens of the base's template there are all, of real texts hardly any."""
    model = tiny_score(family)
    base = folder / "base"
    model.backbone.save_pretrained(base)
    model.tokenizer.save_pretrained(base)
    for name in ("chat_template.jinja", "preprocessor_config.json"):
        shutil.copyfile(release_folder(family) / "base" / name, base / name)
    (base / "generation_config.json").write_text(json.dumps({"repetition_penalty": 1.05}))
    lora = LoraSettings(rank=3, alpha=6)
    add_adapter(model.backbone, lora)
    generator = torch.Generator().manual_seed(1)
    state = {
        name: 0.2 * torch.randn(value.shape, generator=generator)
        for name, value in model.backbone.named_parameters()
        if value.requires_grad
    }
    write_adapter(folder / "adapter", state, lora, "team/base")

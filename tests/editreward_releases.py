"""The fixtures of released EditReward weights: where they are, and what the published code gives for them."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from editloop.models.edit_reward.released import add_editreward
from editloop.models.edit_reward.wording import read_wording
from editloop.models.judge_protocol import EditGroup

FAMILIES = ("qwen2.5-vl", "qwen3-vl")
PICTURES_TOLERANCE, TENSORS_TOLERANCE = 2e-4, 2e-5
"""The fixtures' own: from pictures, and from tensors."""


def release_folder(family: str) -> Path:
    """The folder of a family's fixture."""
    return Path(__file__).parent / "parity" / f"editreward-{family}"


def add_release(family: str, out: Path, **options) -> Path:
    """The model's folder of a release with its wording."""
    fixture = release_folder(family)
    options = {"wording": read_wording(fixture / "wording.json")} | options
    add_editreward(fixture / "release", fixture / "base", out, **options)
    return out


class ExpectedScores(NamedTuple):
    """What the published code gives for the pictures of a fixture, (N, axes), and the mean over the axes, (N,)."""

    groups: list[EditGroup]
    rows: list[dict[str, str]]
    """The same as rows of an edits file."""
    mu: Tensor
    log_sigma: Tensor
    fused: Tensor
    other_positions: Tensor
    """mu with the other kind of positions."""


def expected_scores(family: str) -> ExpectedScores:
    """Read a fixture. Edits of one source and instruction are one group."""
    folder = release_folder(family)
    edits = json.loads((folder / "expected.json").read_text())["edits"]
    tasks: dict[tuple[str, str], list[str]] = {}
    for edit in edits:
        source, candidate = edit["pictures"]
        tasks.setdefault((edit["instruction"], source), []).append(candidate)

    def picture(name: str):
        return np.asarray(Image.open(folder / "pictures" / name).convert("RGB"))

    groups = [
        EditGroup(instruction, picture(source), [picture(name) for name in names])
        for (instruction, source), names in tasks.items()
    ]
    rows = [
        {
            "id": str(index),
            "instruction": instruction,
            "source": f"pictures/{source}",
            "candidates": [{"editor": f"editor-{k}", "image": f"pictures/{name}"} for k, name in enumerate(names)],
        }
        for index, ((instruction, source), names) in enumerate(tasks.items())
    ]
    contrast = next(key for key in edits[0] if key.startswith("contrast"))
    return ExpectedScores(
        groups,
        rows,
        torch.tensor([edit["mu"] for edit in edits]),
        torch.tensor([edit["log_sigma"] for edit in edits]),
        torch.tensor([edit["fused"]["mean"][0] for edit in edits]),
        torch.tensor([edit[contrast]["mu"] for edit in edits]),
    )

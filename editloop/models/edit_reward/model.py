"""EditReward: a vision-language backbone whose last hidden states at `<|Reward|>` feed one head an axis.

    model = RewardModel.load("tiny-reward")                  # or a folder: ours, or a checkpoint as released
    scores = model.score([EditGroup("make it red", source, edits)])
    model.overall(scores)                                    # sum of two ratings, 2..8

Edits of a group share a prefix tree (editloop.models.backbones.prefix_tree): what they have in common is computed once.
"""

import json
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from editloop.content import complete_folder, read_manifest
from editloop.errors import EditLoopError
from editloop.models.backbones.prefix_tree import last_hidden
from editloop.models.backbones.tree_attention import enable_tree_attention
from editloop.models.edit_reward.calibration import calibrated_ratings, rating_shares
from editloop.models.edit_reward.checkpoints import (
    LoadedBackbone,
    add_reward_token,
    check_keys,
    open_backbone,
    open_released,
)
from editloop.models.edit_reward.inputs import EditGroupLike, InputMaker
from editloop.models.edit_reward.settings import RewardSettings
from editloop.models.judge_protocol import EditGroup

SETTINGS, HEADS = "reward.json", "heads.safetensors"
LOG_SIGMA_BOUNDS = (-5.0, 3.0)
BATCH_TOKENS = 16384
"""Language-model tokens that go through the model at once when scoring."""


class Scores(NamedTuple):
    """Per edit and axis: mean and log standard deviation of the score, each (N, axes), float32."""

    mu: Tensor
    log_sigma: Tensor


def fuse(scores: Scores, fusion: str) -> Scores:
    """One score an edit, (N,): `mean` of mu and of log sigma; `sum` of mu and of sigma^2; `min`, elementwise."""
    if fusion == "mean":
        return Scores(scores.mu.mean(-1), scores.log_sigma.mean(-1))
    if fusion == "sum":
        return Scores(scores.mu.sum(-1), torch.exp(2 * scores.log_sigma).sum(-1).log() / 2)
    return Scores(scores.mu.amin(-1), scores.log_sigma.amin(-1))


class Float32Linear(nn.Linear):
    """Computes in float32 though mixed precision training keeps its weights in bfloat16: a score in bfloat16 has steps
    of 0.016 at 2, more than edits often differ by."""

    def forward(self, hidden: Tensor) -> Tensor:
        assert self.bias is not None
        return nn.functional.linear(hidden.float(), self.weight.float(), self.bias.float())


def reward_head(width: int) -> nn.Sequential:
    """Linear(width, 1024) - ReLU - Dropout - Linear(1024, 16) - ReLU - Linear(16, 2): (mu, log sigma), float32."""
    return nn.Sequential(
        Float32Linear(width, 1024),
        nn.ReLU(),
        nn.Dropout(0.05),
        Float32Linear(1024, 16),
        nn.ReLU(),
        Float32Linear(16, 2),
    )


class RewardModel(nn.Module):
    """Scores edits. Heads are `rm_heads.head_{i}.{0,3,5}.{weight,bias}`, as in released EditReward checkpoints."""

    def __init__(self, backbone: Any, tokenizer: PreTrainedTokenizerBase, settings: RewardSettings):
        """backbone: Qwen2_5_VLModel or Qwen3VLModel. The heads are fresh."""
        super().__init__()
        self.backbone, self.tokenizer, self.settings = backbone, tokenizer, settings
        self.inputs = InputMaker(backbone.config, tokenizer, settings)
        width = backbone.config.text_config.hidden_size
        self.rm_heads = nn.ModuleDict({f"head_{i}": reward_head(width) for i in range(settings.heads)})
        enable_tree_attention(backbone)

    @classmethod
    def load(
        cls, model: str | Path, device: str | torch.device | None = None, dtype: torch.dtype = torch.float32
    ) -> "RewardModel":
        """Open a model: a folder of ours (its digests are checked), a checkpoint as released, or a shipped name
        (`tiny-reward`).

        A released checkpoint is a Hugging Face folder with heads among its keys; a `reward.json` in it, if there is
        one, says with which settings it was trained. device: None stays on the CPU. dtype: the backbone's; heads are
        float32. Raises EditLoopError for missing or surplus keys, pickled weights, a tokenizer without `<|Reward|>`.
        """
        folder = shipped_reward(str(model)) or Path(model)
        if (folder / "backbone").is_dir() and (folder / SETTINGS).is_file():
            read_manifest(folder, check=True)
            opened = open_backbone(folder / "backbone", folder / "tokenizer", dtype)
            heads = load_file(folder / HEADS)
        elif (folder / "config.json").is_file():
            opened, heads = open_released(folder, dtype)
        else:
            raise EditLoopError(
                f"reward model {str(model)!r}: neither {SETTINGS} beside a backbone nor a checkpoint's config.json "
                "there. Give `tiny-reward` or a model folder."
            )
        loaded = cls(opened.backbone, opened.tokenizer, _settings(folder, opened))
        check_keys(heads, loaded.rm_heads.state_dict(prefix="rm_heads."), f"{folder}: heads")
        loaded.rm_heads.load_state_dict(
            {name.removeprefix("rm_heads."): value.float() for name, value in heads.items()}
        )
        return loaded.to(device or "cpu").eval()

    @classmethod
    def from_base(cls, base: str | Path, settings: RewardSettings, dtype: torch.dtype = torch.float32) -> "RewardModel":
        """A new reward model on a Hugging Face checkpoint of Qwen2.5-VL (MiMo-VL) or Qwen3-VL: `<|Reward|>` is added to
        its tokenizer, the heads are fresh (from torch's random state).

        The channels' mean and standard deviation are taken from the checkpoint's image processor, where it has one.
        """
        opened = open_backbone(Path(base), Path(base), dtype)
        add_reward_token(opened)
        return cls(opened.backbone, opened.tokenizer, settings.model_copy(update=opened.normalisation))

    def save(self, folder: Path, facts: dict[str, object], extra: dict[str, object] | None = None) -> None:
        """Write the model folder, manifest last; `extra` = {file name: JSON value} beside the weights."""
        with complete_folder(folder, facts) as out:
            self.backbone.save_pretrained(out / "backbone", safe_serialization=True)
            self.tokenizer.save_pretrained(out / "tokenizer")
            heads = self.rm_heads.state_dict(prefix="rm_heads.")
            save_file({name: value.contiguous().cpu() for name, value in heads.items()}, out / HEADS)
            (out / SETTINGS).write_text(self.settings.model_dump_json(indent=2) + "\n")
            for name, value in (extra or {}).items():
                (out / name).write_text(json.dumps(value, indent=1) + "\n")

    def collate(self, groups: Sequence[EditGroupLike]) -> dict[str, Tensor]:
        """Tensors of all edits of the groups, on the CPU, for `forward`; safe to call beside a training thread."""
        return self.inputs.collate(groups)

    def forward(self, batch: dict[str, Tensor]) -> Scores:
        """Scores (N, axes) of a batch made by `collate`, its N edits in the groups' order."""
        return self.read(self.hidden(batch))

    def hidden(self, batch: dict[str, Tensor]) -> Tensor:
        """Last hidden states at the reward tokens, (N, axes, width): all that the heads see of an edit."""
        device = next(self.backbone.parameters()).device
        device_batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        return last_hidden(self.backbone, device_batch)[device_batch["reads"]]

    def read(self, hidden: Tensor) -> Scores:
        """Scores (N, axes) of hidden states (N, axes, width)."""
        heads = [self.rm_heads[f"head_{0 if self.settings.shared_head else i}"] for i in range(hidden.shape[1])]
        out = torch.stack([axis_head(hidden[:, i]) for i, axis_head in enumerate(heads)], dim=1)
        return Scores(out[..., 0], out[..., 1].clamp(*LOG_SIGMA_BOUNDS))

    @torch.no_grad()
    def states(self, groups: Sequence[EditGroupLike]) -> list[Tensor]:
        """The `hidden` of each group's edits, float32 (K, axes, width) a group, on the CPU; BATCH_TOKENS at a time."""
        states_by_group: list[list[Tensor]] = [[] for _ in groups]
        for batch in self._batches(groups):
            hidden = self.hidden(self.collate([part for _, part in batch])).float().cpu()
            for (index, _), states in zip(batch, hidden.split([len(part.edits) for _, part in batch]), strict=True):
                states_by_group[index].append(states)
        return [torch.cat(parts) for parts in states_by_group]

    @torch.no_grad()
    def score(self, groups: Sequence[EditGroupLike]) -> Scores:
        """Scores (N, axes) of all edits of the groups, in order, on the CPU; in batches of BATCH_TOKENS, so that memory
        is bounded for any number and size of groups.
        """
        parts = [self(self.collate([part for _, part in batch])) for batch in self._batches(groups)]
        if not parts:
            nothing = torch.zeros(0, len(self.settings.axes))
            return Scores(nothing, nothing)
        return Scores(torch.cat([part.mu for part in parts]).cpu(), torch.cat([part.log_sigma for part in parts]).cpu())

    def overall(self, scores: Scores) -> Tensor:
        """(N,): the sum of the axes' ratings as experts would give them, 1..4 each."""
        return calibrated_ratings(self.settings.calibration, scores.mu).sum(-1)

    def bounded(self, scores: Scores) -> Tensor:
        """Reward in 0..1, (N,): product of the axes' places on the scale: no axis can be bought with another."""
        return rating_shares(self.settings.calibration, scores.mu).prod(-1)

    def _batches(self, groups: Sequence[EditGroupLike]) -> Iterator[list[tuple[int, EditGroup]]]:
        """Groups, or parts of large ones, with the group's place, whose tokens fit together; one edit always fits."""
        batch: list[tuple[int, EditGroup]] = []
        batch_tokens = self.inputs.common
        for index, group in enumerate(groups):
            shared, edit_tokens = self.inputs.tokens(group)
            start = 0
            while start < len(edit_tokens):
                tokens_left, stop = BATCH_TOKENS - batch_tokens - shared, start
                while stop < len(edit_tokens) and (edit_tokens[stop] <= tokens_left or (not batch and stop == start)):
                    tokens_left, stop = tokens_left - edit_tokens[stop], stop + 1
                if stop > start:
                    batch.append((index, EditGroup(group.instruction, group.source, group.edits[start:stop])))
                    batch_tokens = BATCH_TOKENS - tokens_left
                if stop < len(edit_tokens):
                    yield batch
                    batch, batch_tokens = [], self.inputs.common
                start = stop
        if batch:
            yield batch


def _settings(folder: Path, opened: LoadedBackbone) -> RewardSettings:
    path = folder / SETTINGS
    if path.is_file():
        return RewardSettings.model_validate_json(path.read_text())
    return RewardSettings().model_copy(update=opened.normalisation)


def shipped_reward(name: str) -> Path | None:
    """Folder of a reward model that ships with the package, or None if there is none of that name."""
    folder = Path(str(files("editloop.models.edit_reward"))) / "weights" / name
    return folder if "/" not in name and (folder / SETTINGS).is_file() else None

"""EditReward: a vision-language backbone with one head per axis, which reads the last hidden state at `<|Reward|>`.

    model = RewardModel.load("tiny-reward")                  # or a model's folder
    scores = model.score([EditGroup("make it red", source, edits)])
    model.overall(scores)                                    # sum of two ratings, 2..8

Edits of a group share a prefix tree (editloop.models.backbones.prefix_tree): what they have in common is computed once.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from editloop.content import complete_folder
from editloop.errors import EditLoopError
from editloop.json_file import read_json
from editloop.models.backbones.checkpoints import image_processor_of
from editloop.models.backbones.placement import check_model_folder
from editloop.models.backbones.prefix_tree import last_hidden
from editloop.models.backbones.spreading import Spread
from editloop.models.backbones.tree_attention import enable_tree_attention
from editloop.models.backbones.vision_attention import enable_segment_attention
from editloop.models.backbones.weight_files import check_keys, read_tensors, survey_weights
from editloop.models.edit_reward.calibration import calibrated_ratings, rating_shares
from editloop.models.edit_reward.checkpoints import HEADS, open_backbone
from editloop.models.edit_reward.inputs import EditGroupLike, InputMaker
from editloop.models.edit_reward.settings import RewardSettings
from editloop.models.judge_protocol import EditGroup, warn_of_substitute, wording_facts
from editloop.settings_file import validate_settings

LOG = logging.getLogger(__name__)
SETTINGS, HEADS_FILE = "reward.json", "heads.safetensors"
LOG_SIGMA_BOUNDS = (-5.0, 3.0)
"""Log sigma is clamped to this range."""
BATCH_TOKENS = 16384
"""Language-model tokens of a batch when scoring."""


class Scores(NamedTuple):
    """Mean and log standard deviation of the score of each edit and axis, each (N, axes), float32."""

    mu: Tensor
    log_sigma: Tensor


def fuse(scores: Scores, fusion: str) -> Scores:
    """Combine the axes into one score per edit, (N,).

    Args:
        scores: Scores (N, axes).
        fusion: `mean` averages mu and log sigma, `sum` adds mu and sigma^2, `min` takes the least mu and the least log
            sigma.
    """
    if fusion == "mean":
        return Scores(scores.mu.mean(-1), scores.log_sigma.mean(-1))
    if fusion == "sum":
        return Scores(scores.mu.sum(-1), torch.exp(2 * scores.log_sigma).sum(-1).log() / 2)
    return Scores(scores.mu.amin(-1), scores.log_sigma.amin(-1))


class Float32Linear(nn.Linear):
    """A linear layer that computes in float32, even where mixed precision training keeps its weights in bfloat16.

    A score of 2 in bfloat16 has steps of 0.016, more than the difference between many edits.
    """

    def forward(self, hidden: Tensor) -> Tensor:
        assert self.bias is not None
        return nn.functional.linear(hidden.float(), self.weight.float(), self.bias.float())


def reward_head(width: int) -> nn.Sequential:
    """Return a new head: Linear(width, 1024), ReLU, Dropout, Linear(1024, 16), ReLU, Linear(16, 2), in float32.

    Its two outputs are mu and log sigma.

    Args:
        width: Width of the backbone's hidden states.
    """
    return nn.Sequential(
        Float32Linear(width, 1024),
        nn.ReLU(),
        nn.Dropout(0.05),
        Float32Linear(1024, 16),
        nn.ReLU(),
        Float32Linear(16, 2),
    )


class RewardModel(nn.Module):
    """A reward model that scores edits.

    Heads are `rm_heads.head_{i}.{0,3,5}.{weight,bias}`, as in released EditReward checkpoints.
    """

    def __init__(self, backbone: Any, tokenizer: PreTrainedTokenizerBase, settings: RewardSettings):
        """Put new heads on a backbone, and switch it to tree and segment attention.

        Args:
            backbone: Qwen2_5_VLModel or Qwen3VLModel.
            tokenizer: Its tokenizer, with `<|Reward|>` as a special token.
            settings: Order, rubrics, axes and calibration.
        """
        super().__init__()
        self.backbone, self.tokenizer, self.settings = backbone, tokenizer, settings
        self.inputs = InputMaker(backbone.config, tokenizer, settings)
        width = backbone.config.text_config.hidden_size
        self.rm_heads = nn.ModuleDict({f"head_{i}": reward_head(width) for i in range(settings.heads)})
        enable_tree_attention(backbone)
        enable_segment_attention(backbone)

    @classmethod
    def load(
        cls,
        model: str | Path,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        *,
        spread: Spread | None = None,
    ) -> "RewardModel":
        """Open a model: a folder that `save` or `editloop judge add` wrote, or a shipped name. Its digests are checked.

        Args:
            model: The folder, or the name of a shipped model (`tiny-reward`).
            device: None stays on the CPU.
            dtype: Type of the backbone's weights. Heads are float32.
            spread: Where each rank of a job keeps its part of the backbone; None: this process has it whole.

        Returns:
            The model, in evaluation mode.

        Raises:
            EditLoopError: There is no model, its files do not match its manifest, keys are missing or surplus, weights
                are pickled, or the tokenizer has no `<|Reward|>`.
        """
        folder = shipped_reward(str(model)) or Path(model)
        if not (folder / SETTINGS).is_file():
            raise EditLoopError(
                f"reward model {str(model)!r}: no {SETTINGS} there. Give `tiny-reward` or a model's folder; released "
                "weights become one by `editloop judge add editreward`."
            )
        check_model_folder(folder)
        settings = validate_settings(
            RewardSettings,
            read_json(folder / SETTINGS, "Restore the file."),
            f"reward model {folder / SETTINGS}",
            "Restore the file.",
        )
        warn_of_substitute(settings, folder)
        heads = survey_weights(folder / HEADS_FILE)
        opened = open_backbone(folder / "backbone", folder / "tokenizer", dtype, spread=spread)
        loaded = cls(opened.backbone, opened.tokenizer, settings)
        check_keys(heads, loaded.rm_heads.state_dict(prefix=HEADS), f"{folder}: heads")
        loaded.rm_heads.load_state_dict(
            {name.removeprefix(HEADS): value.float() for name, value in read_tensors(heads)}
        )
        return (loaded if spread else loaded.to(device or "cpu")).eval()

    @classmethod
    def from_base(
        cls,
        base: str | Path,
        settings: RewardSettings,
        dtype: torch.dtype = torch.float32,
        *,
        spread: Spread | None = None,
    ) -> "RewardModel":
        """Create a reward model on a Hugging Face checkpoint of Qwen2.5-VL (MiMo-VL) or Qwen3-VL.

        `<|Reward|>` is added to the tokenizer. The heads are initialised from torch's random state.

        Args:
            base: The checkpoint's folder.
            settings: Settings of the model; `image_mean` and `image_std` are taken from the checkpoint instead.
            dtype: Type of the backbone's weights.
            spread: Where each rank of a job keeps its part of the backbone; None: this process has it whole.

        Raises:
            EditLoopError: The backbone cannot be loaded.
        """
        normalisation = image_processor_of(Path(base)).normalisation
        opened = open_backbone(Path(base), Path(base), dtype, is_base=True, spread=spread)
        return cls(opened.backbone, opened.tokenizer, settings.model_copy(update=normalisation))

    def save(self, folder: Path, facts: dict[str, object], extra: dict[str, object] | None = None) -> None:
        """Write the model folder, manifest last.

        Args:
            folder: The folder to write. An existing one is replaced.
            facts: Stored in the manifest.
            extra: JSON values by file name, written beside the weights.
        """
        with complete_folder(folder, wording_facts(self.settings) | facts) as out:
            self.backbone.save_pretrained(out / "backbone", safe_serialization=True)
            self.save_beside(out, self.rm_heads.state_dict(prefix=HEADS), extra or {})

    def save_beside(self, out: Path, heads: dict[str, Tensor], extra: dict[str, object]) -> None:
        """Write what a model folder has beside its backbone and manifest.

        Args:
            out: The folder.
            heads: Weights of the heads, by their keys.
            extra: JSON values by file name.
        """
        self.tokenizer.save_pretrained(out / "tokenizer")
        save_file({name: value.contiguous().cpu() for name, value in heads.items()}, out / HEADS_FILE)
        (out / SETTINGS).write_text(self.settings.model_dump_json(indent=2) + "\n")
        for name, value in extra.items():
            (out / name).write_text(json.dumps(value, indent=1) + "\n")

    def collate(self, groups: Sequence[EditGroupLike]) -> dict[str, Tensor]:
        """Return the input of `forward` for all edits of some groups, on the CPU.

        It is safe to call in another thread during training.

        Args:
            groups: Groups of edits.
        """
        return self.inputs.collate(groups)

    def forward(self, batch: dict[str, Tensor]) -> Scores:
        """Score the N edits of a batch.

        Args:
            batch: Made by `collate`, on any device.

        Returns:
            Scores (N, axes), edits in the groups' order.
        """
        return self.read(self.hidden(batch))

    def hidden(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the last hidden states at the reward tokens, (N, axes, width): the input of the heads.

        Args:
            batch: Made by `collate`, on any device.
        """
        device = next(self.backbone.parameters()).device
        device_batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        return last_hidden(self.backbone, device_batch)[device_batch["reads"]]

    def read(self, hidden: Tensor) -> Scores:
        """Apply the heads to hidden states.

        Args:
            hidden: (N, axes, width).

        Returns:
            Scores (N, axes).
        """
        heads = [self.rm_heads[f"head_{0 if self.settings.shared_head else i}"] for i in range(hidden.shape[1])]
        out = torch.stack([axis_head(hidden[:, i]) for i, axis_head in enumerate(heads)], dim=1)
        return Scores(out[..., 0], out[..., 1].clamp(*LOG_SIGMA_BOUNDS))

    @torch.no_grad()
    def states(self, groups: Sequence[EditGroupLike]) -> list[Tensor]:
        """Return the hidden states that the heads read, in batches of BATCH_TOKENS, without gradients.

        Args:
            groups: Groups of edits.

        Returns:
            For each group (K, axes, width), float32, on the CPU.
        """
        states_by_group: list[list[Tensor]] = [[] for _ in groups]
        for batch in self._batches(groups):
            hidden = self.hidden(self.collate([part for _, part in batch])).float().cpu()
            for (index, _), states in zip(batch, hidden.split([len(part.edits) for _, part in batch]), strict=True):
                states_by_group[index].append(states)
        return [torch.cat(parts) for parts in states_by_group]

    @torch.no_grad()
    def score(self, groups: Sequence[EditGroupLike]) -> Scores:
        """Score all edits of some groups, without gradients.

        Batches of BATCH_TOKENS bound the memory for any number and size of groups.

        Args:
            groups: Groups of edits, N in all.

        Returns:
            Scores (N, axes), in order, on the CPU.
        """
        parts = [self(self.collate([part for _, part in batch])) for batch in self._batches(groups)]
        if not parts:
            nothing = torch.zeros(0, len(self.settings.axes))
            return Scores(nothing, nothing)
        return Scores(torch.cat([part.mu for part in parts]).cpu(), torch.cat([part.log_sigma for part in parts]).cpu())

    def overall(self, scores: Scores) -> Tensor:
        """Return the sum of the axes' calibrated ratings, (N,). Each rating is 1..4, on the experts' scale.

        Args:
            scores: Scores (N, axes).
        """
        return calibrated_ratings(self.settings.calibration, scores.mu).sum(-1)

    def bounded(self, scores: Scores) -> Tensor:
        """Return a reward in 0..1, (N,): the product of the axes' positions on the rating scale.

        With a product a high score on one axis cannot make up for a low one on another.

        Args:
            scores: Scores (N, axes).
        """
        return rating_shares(self.settings.calibration, scores.mu).prod(-1)

    def _batches(self, groups: Sequence[EditGroupLike]) -> Iterator[list[tuple[int, EditGroup]]]:
        """Yield batches of groups, or of parts of large groups, each with the group's index.

        A batch has at most BATCH_TOKENS tokens, or a single edit that alone has more.
        """
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
                    part = EditGroup(
                        group.instruction, group.source, group.edits[start:stop], group.key, group.references
                    )
                    batch.append((index, part))
                    batch_tokens = BATCH_TOKENS - tokens_left
                if stop < len(edit_tokens):
                    yield batch
                    batch, batch_tokens = [], self.inputs.common
                start = stop
        if batch:
            yield batch


def shipped_reward(name: str) -> Path | None:
    """Return the folder of a reward model that ships with the package, or None where none has that name.

    Args:
        name: The model's name, such as `tiny-reward`.
    """
    folder = Path(__file__).with_name("weights") / name
    return folder if "/" not in name and (folder / SETTINGS).is_file() else None

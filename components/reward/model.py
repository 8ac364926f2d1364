"""EditReward: a vision-language backbone whose last hidden states at `<|Reward|>` feed one head an axis.

Input order `paired` (for small pictures): source and edit as the two frames of one image, then the instruction, then
one
`<|Reward|>` token an axis, both read in one pass. Qwen2.5-VL folds two frames into every vision patch, so the patch
sees the difference directly.
"""

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLModel

from infra.content import complete_folder, read_manifest
from infra.errors import EditLoopError

REWARD_TOKEN, IMAGE_TOKEN = "<|Reward|>", "<|image_pad|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
LOG_SIGMA_BOUNDS = (-5.0, 3.0)
BATCH = 128


class RewardSettings(BaseModel):
    """What a reward model's folder says beside its weights (`reward.json`)."""

    model_config = ConfigDict(extra="forbid")

    side: int
    """Pixels a side of the pictures it reads; others are scaled."""
    layout: Literal["paired"] = "paired"
    fusion: Literal["mean", "sum", "min"] = "mean"
    """How the axes' heads become one score."""
    axes: tuple[str, ...] = ("if", "vq")
    center: tuple[float, ...] = (0.0, 0.0)
    """Mean of each head's mu over the training data."""
    spread: tuple[float, ...] = (1.0, 1.0)
    """Standard deviation of each head's mu over the training data: raw scores have no scale of their own."""


class Scores(NamedTuple):
    """Per edit and axis: mean and log standard deviation of the score, each (B, axes), float32."""

    mu: Tensor
    log_sigma: Tensor


def fuse(scores: Scores, fusion: str) -> Scores:
    """One score an edit, (B,): `mean` of mu and of log sigma; `sum` of mu and of sigma^2; `min`, elementwise."""
    if fusion == "mean":
        return Scores(scores.mu.mean(-1), scores.log_sigma.mean(-1))
    if fusion == "sum":
        return Scores(scores.mu.sum(-1), torch.exp(2 * scores.log_sigma).sum(-1).log() / 2)
    return Scores(scores.mu.amin(-1), scores.log_sigma.amin(-1))


def head(width: int) -> nn.Sequential:
    """Linear(width, 1024) - ReLU - Dropout - Linear(1024, 16) - ReLU - Linear(16, 2): (mu, log sigma)."""
    return nn.Sequential(
        nn.Linear(width, 1024), nn.ReLU(), nn.Dropout(0.05), nn.Linear(1024, 16), nn.ReLU(), nn.Linear(16, 2)
    )


class RewardModel(nn.Module):
    """Scores edits. Heads are `rm_heads.head_{i}.{0,3,5}.{weight,bias}`, as in released EditReward checkpoints."""

    def __init__(self, backbone: Qwen2_5_VLModel, tokenizer: PreTrainedTokenizerFast, settings: RewardSettings):
        super().__init__()
        self.backbone, self.tokenizer, self.settings = backbone, tokenizer, settings
        width = backbone.config.text_config.hidden_size
        self.rm_heads = nn.ModuleDict({f"head_{i}": head(width) for i in range(len(settings.axes))})

    @classmethod
    def load(cls, model: str | Path) -> "RewardModel":
        """Open a model folder (its digests are checked) or one that ships with EditLoop by its name (`tiny-reward`)."""
        folder = shipped_reward(str(model)) or Path(model)
        if not (folder / "reward.json").is_file():
            raise EditLoopError(
                f"reward model {str(model)!r}: no reward.json there. Give `tiny-reward` or a model folder."
            )
        read_manifest(folder, check=True)
        settings = RewardSettings.model_validate_json((folder / "reward.json").read_text())
        backbone = Qwen2_5_VLModel.from_pretrained(folder / "backbone", local_files_only=True, dtype=torch.float32)
        loaded = cls(backbone, PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"), settings)
        missing, surplus = loaded.load_state_dict(load_file(folder / "heads.safetensors"), strict=False)
        missing = [name for name in missing if name.startswith("rm_heads.")]
        if missing or surplus:
            raise EditLoopError(
                f"{folder}/heads.safetensors: missing {missing}, surplus {surplus}; not this model's heads."
            )
        return loaded.eval()

    def save(self, folder: Path, facts: dict[str, object], extra: dict[str, object] | None = None) -> None:
        """Write the model folder, manifest last; `extra` = {file name: JSON value} beside the weights."""
        with complete_folder(folder, facts) as out:
            self.backbone.save_pretrained(out / "backbone", safe_serialization=True)
            self.tokenizer.save_pretrained(out / "tokenizer")
            heads = {
                name: value.contiguous() for name, value in self.state_dict().items() if name.startswith("rm_heads.")
            }
            save_file(heads, out / "heads.safetensors")
            (out / "reward.json").write_text(self.settings.model_dump_json(indent=2) + "\n")
            for name, value in (extra or {}).items():
                (out / name).write_text(json.dumps(value, indent=1) + "\n")

    def forward(self, batch: dict[str, Tensor]) -> Scores:
        """Scores (B, axes) of a batch made by `prepare`."""
        return self.read(self.hidden(batch))

    def hidden(self, batch: dict[str, Tensor]) -> Tensor:
        """Last hidden states at the reward tokens, (B, axes, width): all that the heads see of an edit."""
        return self.backbone(**batch, use_cache=False).last_hidden_state[:, -len(self.settings.axes) :]

    def read(self, hidden: Tensor) -> Scores:
        """Scores (B, axes) of last hidden states (B, L, width), whose last positions are the reward tokens."""
        axes = len(self.settings.axes)
        outputs = [self.rm_heads[f"head_{i}"](hidden[:, i - axes].float()) for i in range(axes)]
        out = torch.stack(outputs, dim=1)
        return Scores(out[..., 0], out[..., 1].clamp(*LOG_SIGMA_BOUNDS))

    def prepare(
        self, instructions: Sequence[str], sources: NDArray[np.uint8], edits: NDArray[np.uint8]
    ) -> dict[str, Tensor]:
        """Tensors of B edits: pictures are uint8 (B, side, side, 3). Control words in an instruction stay plain text.

        A row is image, instruction, padding (masked), reward tokens; positions are those of the row without its
        padding.
        """
        vision = self.backbone.config.vision_config
        grid = self.settings.side // vision.patch_size
        image_tokens = (grid // vision.spatial_merge_size) ** 2
        convert, axes = self.tokenizer.convert_tokens_to_ids, len(self.settings.axes)
        image = torch.tensor([[convert(VISION_START), *[convert(IMAGE_TOKEN)] * image_tokens, convert(VISION_END)]])
        text = self.tokenizer(
            list(instructions), padding=True, padding_side="right", truncation=True, split_special_tokens=True,
            return_tensors="pt",
        )  # fmt: skip
        count, length = text.input_ids.shape
        sizes = torch.tensor([[1, grid, grid]])
        kinds = (image == convert(IMAGE_TOKEN)).int()
        image_positions, _ = self.backbone.get_rope_index(image, mm_token_type_ids=kinds, image_grid_thw=sizes)
        after = int(image_positions.max()) + 1
        ends = text.attention_mask.sum(1, keepdim=True)
        text_positions = torch.cat([torch.arange(length).expand(count, -1), ends + torch.arange(axes)], dim=1) + after
        ones = torch.ones(count, image.shape[1], dtype=torch.long)
        return {
            "input_ids": torch.cat(
                [image.expand(count, -1), text.input_ids, torch.full((count, axes), convert(REWARD_TOKEN))], dim=1
            ),
            "attention_mask": torch.cat([ones, text.attention_mask, ones[:, :axes]], dim=1),
            "position_ids": torch.cat([image_positions.expand(3, count, -1), text_positions.expand(3, -1, -1)], dim=2),
            "pixel_values": frames(sources, edits, vision.patch_size, vision.spatial_merge_size),
            "image_grid_thw": sizes.expand(count, -1),
        }

    @torch.no_grad()
    def score(self, instructions: Sequence[str], sources: NDArray[np.uint8], edits: NDArray[np.uint8]) -> Scores:
        """Scores (N, axes) of N edits, uint8 (N, side, side, 3), in batches."""
        parts = [
            self(
                self.prepare(
                    instructions[start : start + BATCH], sources[start : start + BATCH], edits[start : start + BATCH]
                )
            )
            for start in range(0, len(instructions), BATCH)
        ]
        return Scores(torch.cat([part.mu for part in parts]), torch.cat([part.log_sigma for part in parts]))

    def overall(self, scores: Scores) -> Tensor:
        """Fused score (N,) after each axis is brought to the training data's mean 0 and spread 1."""
        center, spread = torch.tensor(self.settings.center), torch.tensor(self.settings.spread)
        return fuse(Scores((scores.mu - center) / spread, scores.log_sigma - spread.log()), self.settings.fusion).mu

    def bounded(self, scores: Scores) -> Tensor:
        """Reward in 0..1, (N,): product of the axes' sigmoids, so that no axis can be bought with another."""
        center, spread = torch.tensor(self.settings.center), torch.tensor(self.settings.spread)
        return torch.sigmoid((scores.mu - center) / spread).prod(-1)


def frames(sources: NDArray[np.uint8], edits: NDArray[np.uint8], patch: int, merge: int) -> Tensor:
    """Vision patches (B * grid^2, 3 * 2 * patch * patch) in Qwen's order, source and edit as the two frames of one
    image."""
    both = torch.from_numpy(np.stack([sources, edits], axis=1)).float() / 127.5 - 1
    count, two, height, width, channels = both.shape
    rows, columns = height // (patch * merge), width // (patch * merge)
    blocks = both.reshape(count, two, rows, merge, patch, columns, merge, patch, channels)
    return blocks.permute(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(count * rows * columns * merge**2, -1)


def shipped_reward(name: str) -> Path | None:
    """Folder of a reward model that ships with the package, or None if there is none of that name."""
    folder = Path(str(files("components.reward"))) / "weights" / name
    return folder if "/" not in name and (folder / "reward.json").is_file() else None

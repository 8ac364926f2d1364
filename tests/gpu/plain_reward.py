"""EditReward as its reference code computes it: all of a candidate's input anew for each axis, candidates batched."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from editloop.models.edit_reward.inputs import EditGroupLike
from editloop.models.edit_reward.model import RewardModel, Scores
from tests.gpu.flops import Work, row_work, together
from tests.plain_passes import PlainPasses


class PlainReward(PlainPasses):
    """The same weights as a reward model's, which a training can take in its place. Edits of one size and text."""

    def __init__(self, model: RewardModel):
        super().__init__(model, share=True)
        self.read = model.read

    def collate(self, groups: Sequence[EditGroupLike]) -> dict[str, Tensor]:
        """For each axis the inputs of all candidates, their names with the axis before them."""
        rows = [self.inputs(group.instruction, group.source, edit) for group in groups for edit in group.edits]
        return {
            f"{axis}.{name}": torch.cat([row[axis][name] for row in rows])
            for axis in range(len(rows[0]))
            for name in rows[0][axis]
        }

    def forward(self, batch: dict[str, Tensor]) -> Scores:
        """As RewardModel's forward."""
        return self.read(self.states(batch))

    def states(self, batch: dict[str, Tensor]) -> Tensor:
        """As RewardModel's `hidden`: (N, axes, width)."""
        device = next(self.backbone.parameters()).device
        outputs = [
            self.backbone(**{name: value.to(device) for name, value in axis.items()}, use_cache=False)
            for axis in self.by_axis(batch)
        ]
        return torch.stack([output.last_hidden_state[:, -1] for output in outputs], dim=1)

    def by_axis(self, batch: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """The inputs of each axis's pass."""
        axes = range(len(self.settings.axes))
        return [
            {name.partition(".")[2]: value for name, value in batch.items() if name.startswith(f"{axis}.")}
            for axis in axes
        ]

    def work(self, batch: dict[str, Any]) -> Work:
        """What goes through the model for a batch."""
        return together([row_work(axis["input_ids"], axis["image_grid_thw"]) for axis in self.by_axis(batch)])

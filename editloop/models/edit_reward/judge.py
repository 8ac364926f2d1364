"""EditReward as a `Judge` of edits."""

from collections.abc import Sequence
from pathlib import Path

from editloop.content import read_manifest
from editloop.models.backbones.placement import placement
from editloop.models.backbones.spreading import Spread, enable_spread_passes
from editloop.models.edit_reward.model import RewardModel, fuse, shipped_reward
from editloop.models.judge_protocol import AxisScore, EditGroup, Score, judge_wording

NOT_FINITE = "the model gave no finite score"
"""Reason of a missing score."""


class RewardJudge:
    """A `Judge` that scores with an EditReward model.

    A score has the raw scores per axis and fused, the sum of the ratings (2..8 for two axes) as overall, and the
    bounded reward.
    """

    name = "edit-reward"

    def __init__(self, model: RewardModel, version: str):
        """Wrap a model.

        Args:
            model: The reward model.
            version: Content address of its folder.
        """
        self.model, self.version, self.axes = model, version, model.settings.axes
        self.wording = judge_wording(model.settings)
        self.takes_references = model.settings.order != "paired"

    @classmethod
    def load(cls, model: str | Path, *, device: str | None = None, spread: Spread | None = None) -> "RewardJudge":
        """Open a judge; on a GPU the backbone is bfloat16.

        Args:
            model: As in `RewardModel.load`.
            device: None takes the first GPU, or the CPU where there is none.
            spread: Where each rank of a job keeps its part of the backbone; None: this process has it whole.

        Raises:
            EditLoopError: The model cannot be loaded.
        """
        opened = RewardModel.load(model, *placement(device), spread=spread)
        if spread:
            enable_spread_passes(opened, spread)
        return cls(opened, str(read_manifest(shipped_reward(str(model)) or Path(model))["sha256"]))

    def judge(self, groups: Sequence[EditGroup]) -> list[list[Score]]:
        """Score every edit of some groups. A score that is not finite is missing.

        Args:
            groups: The edits to score.

        Returns:
            One list per group, in order, with one score per edit.

        Raises:
            EditLoopError: A source or an edit is not an image that the model can read.
        """
        scores = self.model.score(groups)
        fused = fuse(scores, self.model.settings.fusion)
        overall, reward = self.model.overall(scores).tolist(), self.model.bounded(scores).tolist()
        finite = scores.mu.isfinite().all(-1) & scores.log_sigma.isfinite().all(-1)
        means, sigmas = scores.mu.tolist(), scores.log_sigma.exp().tolist()
        fused_means, fused_sigmas = fused.mu.tolist(), fused.log_sigma.exp().tolist()
        flat = [
            Score(
                axes=dict(zip(self.axes, map(AxisScore, means[i], sigmas[i]), strict=True)),
                fused=AxisScore(fused_means[i], fused_sigmas[i]),
                overall=overall[i],
                reward=reward[i],
            )
            if finite[i]
            else Score(missing=NOT_FINITE)
            for i in range(len(means))
        ]
        edits = iter(flat)
        return [[next(edits) for _ in group.edits] for group in groups]

"""EditReward as a judge of edits."""

from collections.abc import Sequence
from pathlib import Path

from editloop.content import MANIFEST, file_digests, read_manifest, sha256_json
from editloop.models.backbones.placement import placement
from editloop.models.edit_reward.model import RewardModel, Scores, fuse, shipped_reward
from editloop.models.judge_protocol import AxisScore, EditGroup, Score

NOT_FINITE = "the model gave no finite score"


class RewardJudge:
    """Raw scores an axis and fused, the sum of ratings (2..8 for two axes) as overall, and the bounded reward."""

    name = "edit-reward"

    def __init__(self, model: RewardModel, version: str):
        self.model, self.version, self.axes = model, version, model.settings.axes

    @classmethod
    def load(cls, model: str | Path, *, device: str | None = None) -> "RewardJudge":
        """As `RewardModel.load`; device None takes the first GPU or else the CPU. On a GPU the backbone is bfloat16."""
        return cls(RewardModel.load(model, *placement(device)), version_of(shipped_reward(str(model)) or Path(model)))

    def judge(self, groups: Sequence[EditGroup]) -> list[list[Score]]:
        """One score an edit; one that is not finite is missing. EditLoopError for what is no picture."""
        scores = self.model.score(groups)
        fused = fuse(scores, self.model.settings.fusion)
        overall, reward = self.model.overall(scores).tolist(), self.model.bounded(scores).tolist()
        finite = scores.mu.isfinite().all(-1) & scores.log_sigma.isfinite().all(-1)
        flat = [
            Score(
                axes=dict(zip(self.axes, _beliefs(Scores(scores.mu[i], scores.log_sigma[i])), strict=True)),
                fused=_beliefs(Scores(fused.mu[i : i + 1], fused.log_sigma[i : i + 1]))[0],
                overall=overall[i],
                reward=reward[i],
            )
            if finite[i]
            else Score(missing=NOT_FINITE)
            for i in range(len(scores.mu))
        ]
        edits = iter(flat)
        return [[next(edits) for _ in group.edits] for group in groups]


def _beliefs(scores: Scores) -> list[AxisScore]:
    return [
        AxisScore(mean, sigma) for mean, sigma in zip(scores.mu.tolist(), scores.log_sigma.exp().tolist(), strict=True)
    ]


def version_of(folder: Path) -> str:
    """Content address of a model's folder: its manifest's, or for a checkpoint as released that of all its files."""
    if (folder / MANIFEST).is_file():
        return str(read_manifest(folder)["sha256"])
    return sha256_json(file_digests(folder))

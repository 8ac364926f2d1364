"""Training task of learning from pairs. A unit is a pair of edits of a task; the loss is Diffusion-DPO's.

The reference is the frozen editor: the network with its adapter switched off, or with the weights that it had before.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from editloop.content import sha256_json
from editloop.data.picture_size import resampled
from editloop.datasets.preference_groups import PreferenceGroup, PreferenceGroups, read_groups
from editloop.datasets.splits import Split as DatasetSplit
from editloop.models.editors.protocol import Conditioning, Editor
from editloop.models.editors.sources import encode_tasks, working_references
from editloop.training.distributed import step_seed
from editloop.training.editor_dpo.pair_loss import dpo_loss, implicit_margin, ordered_share
from editloop.training.editor_dpo.pairs import OrderedPair, read_ordered_pairs, sample_pairs, working_size
from editloop.training.editor_dpo.settings import DpoSettings
from editloop.training.editor_rl.nft import kl_to_base
from editloop.training.encoding_store import EncodingStore
from editloop.training.flow_matching import flow_matching_loss, noised
from editloop.training.flow_training import (
    EncodedUnit,
    EncodedUnits,
    FlowTrainingTask,
    measuring_levels,
    unit_generators,
)
from editloop.training.training_task import Batch, Split

PREFERRED, REJECTED = "preferred", "rejected"
"""Names of a unit's pictures."""
SIZE, LATENTS = "size", "latents"
"""Names under which a stored task has the sizes of source and references, (1 + references, 2), beside the parts of the
conditioning, and a stored edit its latents."""
TRAINING_PAIRS = "_train"
"""End of the names of figures that are measured on pairs of the training, beside those on held-out pairs."""


class PairTrainingTask(FlowTrainingTask):
    """An editor and the pairs that it learns from.

    The validation units are held-out pairs and, after them, some of the training's: both are measured at each
    evaluation, and only the held-out ones count in its loss.
    """

    pictures: ClassVar[tuple[str, ...]] = (PREFERRED, REJECTED)
    settings: DpoSettings

    def __init__(
        self,
        editor: Editor,
        dataset: Path,
        settings: DpoSettings,
        trained: list[nn.Parameter],
        store: EncodingStore,
        dtype: torch.dtype | None = None,
    ):
        """Take the editor, and read the pairs.

        Args:
            editor: The editor to train.
            dataset: The dataset folder.
            settings: The training's settings.
            trained: The parameters to train, as the editor's `add_adapter` or `train_whole` returned them.
            store: Where encodings are kept.
            dtype: Type in which encodings are kept; None for that in which they were computed.
        """
        super().__init__(editor, settings, trained, store, dtype)
        splits: tuple[DatasetSplit, ...] = ("train", "validation")
        self.groups: dict[DatasetSplit, PreferenceGroups] = {
            split: read_groups(dataset, split, targets=False) for split in splits
        }
        training, held_out = (read_ordered_pairs(dataset, split, settings.least_confidence)[0] for split in splits)
        measured = sample_pairs(held_out, settings.evaluation_pairs)
        self.held_out = len(measured)
        """Number of held-out pairs among the validation units."""
        self.pairs: dict[Split, list[OrderedPair]] = {
            "train": training,
            "validation": measured + sample_pairs(training, settings.evaluation_pairs),
        }
        self._group_index = {
            task: index for groups in self.groups.values() for index, (task, _) in enumerate(groups.sizes())
        }

    def count(self, split: Split) -> int:
        return len(self.pairs[split])

    def name(self, split: Split, unit: int) -> str:
        pair = self.pairs[split][unit]
        return f"task {pair.task} (edits {pair.preferred} over {pair.rejected})"

    def group(self, pair: OrderedPair) -> PreferenceGroup:
        """Return the task of a pair.

        Args:
            pair: The pair.
        """
        return self.groups[pair.split][self._group_index[pair.task]]

    def encode(self, units: Mapping[Split, Sequence[int]], *, rank: int, ranks: int) -> None:
        """Encode this rank's share of the tasks, with those of their edits that are in a pair.

        Args:
            units: The units of each split that the training reads.
            rank: The rank's number on its machine, from 0.
            ranks: The machine's number of ranks.
        """
        pairs = [self.pairs[split][unit] for split in units for unit in units[split]]
        edits_by_task: dict[str, dict[str, OrderedPair]] = {}
        for pair in pairs:
            edits_by_task.setdefault(pair.task, {}).update({pair.preferred: pair, pair.rejected: pair})
        tasks = sorted(edits_by_task)[rank::ranks]
        if all(self._is_stored(task, edits_by_task[task]) for task in tasks):
            return
        with self.editor.encoders_at_hand():
            for task in tasks:
                if not self._is_stored(task, edits_by_task[task]):
                    any_pair = next(iter(edits_by_task[task].values()))
                    self._encode(self.group(any_pair), list(edits_by_task[task]))

    def encoded(self, split: Split, unit: int) -> EncodedUnit:
        pair = self.pairs[split][unit]
        parts = dict(self.store.get(self._key(pair.task)))
        size, *references = ((height, width) for height, width in parts.pop(SIZE).tolist())
        latents = {
            name: self.store.get(self._key(pair.task, edit))[LATENTS]
            for name, edit in ((PREFERRED, pair.preferred), (REJECTED, pair.rejected))
        }
        return EncodedUnit(latents, Conditioning(size, parts, tuple(references)))

    def loss(self, engine: Any, batch: Batch) -> Tensor:
        """Return the mean loss over the batch's pairs. A pair's noise depends on the step and the pair alone.

        Args:
            engine: DeepSpeed's engine. Not used directly: the editor calls its network.
            batch: A batch of the train split.
        """
        seed = step_seed()
        prepared: list[_NoisedPairs] = []
        for part in self.parts(batch):
            generators = unit_generators(seed, part.units)
            prepared.append(self._noised(part, self.drawn_levels(generators), generators))
        return torch.cat([self._losses(pairs) for pairs in prepared]).mean()

    def measure(self, engine: Any, batch: Batch) -> Mapping[str, Tensor | float]:
        sums: dict[str, Tensor | float] = {}
        for part in self.parts(batch):
            levels = [
                self._measured(self._noised(part, sigma, generators))
                for sigma, generators in measuring_levels(part.units)
            ]
            means = {name: torch.stack([level[name] for level in levels]).double().mean(0) for name in levels[0]}
            loss = dpo_loss(means["margin"]) + self.settings.sft_weight * means.pop("preferred")
            figures = {
                "loss": loss,
                "accuracy": ordered_share(means["margin"]),
                **means,
                "pairs": torch.ones_like(loss),
            }
            is_training_pair = torch.tensor([unit >= self.held_out for unit in part.units], device=loss.device)
            for name, values in figures.items():
                for end, chosen in (("", ~is_training_pair), (TRAINING_PAIRS, is_training_pair)):
                    sums[name + end] = sums.get(name + end, 0.0) + values[chosen].sum()
        return sums

    def figures(self, sums: dict[str, float]) -> dict[str, float]:
        """Return means over the held-out pairs, and with names that end in `_train` those over pairs of the training.

        A pair's margin is the mean over all noise levels: a likelihood is a mean over them, and one is mostly noise.
        The figures are `loss`; `accuracy`, the share of pairs that the editor orders as the experts do, against its
        base; `margin`, the mean difference of implicit rewards; `distance` to the base, the mean squared difference of
        velocities; `preferred_change` and `rejected_change`, by how much the errors at these edits differ from the
        base's.

        Args:
            sums: Sums of `measure` over the split.
        """
        return {
            name: value / sums["pairs" + (TRAINING_PAIRS if name.endswith(TRAINING_PAIRS) else "")]
            for name, value in sums.items()
            if name not in ("pairs", "pairs" + TRAINING_PAIRS)
        }

    def _noised(self, part: EncodedUnits, sigma: Tensor, generators: Sequence[torch.Generator]) -> "_NoisedPairs":
        """Return both edits of B pairs with the same noise at noise levels sigma (B,), and what the base makes of them.

        The base is asked first, for all sizes: it switches the adapter off, which would be lost on a graph.
        """
        picture = torch.cat([part.pictures[PREFERRED], part.pictures[REJECTED]]).float()
        noise = self.noise(part.condition.size, generators).repeat(2, 1, 1)
        sigma = sigma.to(picture.device).repeat(2)
        twice = torch.arange(len(part.units)).repeat(2)
        x, condition = noised(picture, noise, sigma), part.condition.select(twice)
        with torch.no_grad(), self.editor.base():
            base = self.editor.velocity(x, sigma, condition, self.settings.guidance)
        return _NoisedPairs(picture, noise, sigma, x, condition, base)

    def _errors(self, pairs: "_NoisedPairs", velocity: Tensor) -> "_PairErrors":
        """Return the errors of velocities at B pairs, and the base's."""
        preferred, rejected = flow_matching_loss(velocity, pairs.picture, pairs.noise).chunk(2)
        return _PairErrors(preferred, rejected, *flow_matching_loss(pairs.base, pairs.picture, pairs.noise).chunk(2))

    def _velocities(self, pairs: "_NoisedPairs") -> Tensor:
        return self.editor.velocity(pairs.x, pairs.sigma, pairs.condition, self.settings.guidance)

    def _losses(self, pairs: "_NoisedPairs") -> Tensor:
        """Return the losses of B pairs, (B,), with gradient."""
        errors = self._errors(pairs, self._velocities(pairs))
        return dpo_loss(errors.margin(self.settings.beta)) + self.settings.sft_weight * errors.preferred

    def _measured(self, pairs: "_NoisedPairs") -> dict[str, Tensor]:
        """Return what is measured of B pairs at one noise level, by name, each (B,)."""
        velocity = self._velocities(pairs)
        errors = self._errors(pairs, velocity)
        return {
            "margin": errors.margin(self.settings.beta),
            "distance": kl_to_base(velocity, pairs.base).unflatten(0, (2, -1)).mean(0),
            "preferred": errors.preferred,
            "preferred_change": errors.preferred - errors.preferred_base,
            "rejected_change": errors.rejected - errors.rejected_base,
        }

    def _encode(self, group: PreferenceGroup, edits: Sequence[str]) -> None:
        """Encode a task and some of its edits."""
        pictures = [group.edits[group.candidates.index(edit)] for edit in edits]
        source_size, *sizes = ((picture.shape[0], picture.shape[1]) for picture in (group.source, *pictures))
        size = working_size(self.editor, group.task_id, source_size, sizes, self.settings.area)
        references = working_references(self.editor, group.references, self.settings.area)
        source = resampled(group.source, size)
        condition = encode_tasks(self.editor, [group.instruction], [source], [references]).to("cpu", self.dtype)
        most = self.settings.training.micro_batch or self.settings.training.batch
        for start in range(0, len(edits), most):
            batch = np.stack([resampled(picture, size) for picture in pictures[start : start + most]])
            latents = self.editor.latents(batch).to("cpu", self.dtype)
            for index, edit in enumerate(edits[start : start + most]):
                self.store.add(self._key(group.task_id, edit), {LATENTS: latents[index : index + 1].clone()})
        self.store.add(self._key(group.task_id), condition.parts | {SIZE: torch.tensor([size, *condition.references])})

    def _is_stored(self, task: str, edits: Iterable[str]) -> bool:
        return all(self._key(task, edit) in self.store for edit in edits) and self._key(task) in self.store

    def _key(self, task: str, edit: str = "") -> str:
        """Return the key of a task's encoding, or of one of its edits. The ids are digests of what they name."""
        return sha256_json([task, edit, self.settings.area])


class _NoisedPairs(NamedTuple):
    """B pairs of one size: the preferred edits, then the rejected ones, so that each tensor has 2 B rows."""

    picture: Tensor
    noise: Tensor
    sigma: Tensor
    x: Tensor
    """The pictures at noise levels sigma."""
    condition: Conditioning
    base: Tensor
    """The frozen base's velocities at x."""


class _PairErrors(NamedTuple):
    """Errors at B pairs, each (B,)."""

    preferred: Tensor
    rejected: Tensor
    preferred_base: Tensor
    rejected_base: Tensor

    def margin(self, beta: float) -> Tensor:
        return implicit_margin(self.preferred, self.preferred_base, self.rejected, self.rejected_base, beta)

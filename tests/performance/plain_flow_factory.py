"""Flow-Factory's trainers the way their published code works, for the trainer to be held against: no more, no less.

What they do, after X-GenGroup/Flow-Factory (`trainers/grpo.py`, `trainers/nft.py`, `models/flux/flux1_kontext.py`, and
`examples/grpo/lora/flux1_kontext`, at a0b2bc5):

- Texts and sources of the data set are encoded once, before the training.
- Every pass, of sampling and of training, goes through PEFT's own LoRA layers beside the frozen ones, under autocast.
  With mixed precision all weights are bfloat16; nothing is converted at each pass.
- GRPO draws noise in the trained steps alone and keeps their log-probabilities. NFT samples by deterministic steps,
  with the averaged weights.
- Judges are asked after the sampling (`async_reward` is off unless it is set).
- All edits are trained on, those without an advantage too, shuffled, in batches as in sampling, each at all of its
  trained steps, and two optimiser steps an iteration.
- NFT first computes the old policy's velocities of a batch, and then trains on it.
- The frozen editor is asked, with the adapter disabled, where the KL term has a weight.

Edit-R1 (PKU-YuanGroup/Edit-R1, `train_nft_kontext.py`) makes the passes of NFT too: old policy, policy, base. What it
does differently is slower: it encodes in each batch, converts float32 weights at each pass, always asks the base, and
recomputes activations (gradient checkpointing). None of that is counted for us here.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from editloop.data.edits_file import EditRow
from editloop.models.editors.kontext import KontextEditor
from editloop.models.editors.protocol import Conditioning, Editor, join_conditions
from editloop.models.judge_protocol import EditGroup, Judge
from editloop.training.editor_rl.algorithm_settings import NftSettings
from editloop.training.editor_rl.nft import compute_optimality, kl_to_base, nft_loss
from editloop.training.editor_rl.rollout import TRAINING, noise_generators, standard_normal_like
from editloop.training.editor_rl.settings import RlSettings
from editloop.training.editor_rl.trained_weights import TrainedWeights
from tests.performance.plain_flow_grpo import PlainFlowGrpo, Trajectories


class PublishedKontext(KontextEditor):
    """FLUX Kontext as published trainers make its passes."""

    def add_adapter(self, rank: int, alpha: int, targets: Sequence[str] | None = None) -> list[nn.Parameter]:
        self.network.requires_grad_(False)
        config = LoraConfig(
            r=rank, lora_alpha=alpha, init_lora_weights="gaussian", target_modules=self.adapter_layers(targets)
        )
        self.wrapped = get_peft_model(self.network, config)
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        for parameter in trained:
            parameter.data = parameter.data.to(self.network.dtype)
        return trained

    @contextmanager
    def base(self) -> Iterator[None]:
        with self.wrapped.disable_adapter():
            yield


class PlainFlowFactory(PlainFlowGrpo):
    """Its GRPO trainer."""

    judges_in_a_thread: ClassVar[bool] = False
    trains_on_silent: ClassVar[bool] = True

    def __init__(self, editor: Editor, rows: Sequence[EditRow], judge: Judge, settings: RlSettings):
        super().__init__(editor, rows, judge, settings)
        self.encoded = {row.id: super(PlainFlowFactory, self).encode([row]) for row in rows}

    def encode(self, rows: Sequence[EditRow]) -> tuple[NDArray[np.uint8], Conditioning]:
        encoded = [self.encoded[row.id] for row in rows]
        return np.concatenate([source for source, _ in encoded]), join_conditions([one for _, one in encoded])


class PlainNft(PlainFlowFactory):
    """Its NFT trainer."""

    def __init__(self, editor: Editor, rows: Sequence[EditRow], judge: Judge, settings: RlSettings):
        super().__init__(editor, rows, judge, settings)
        assert isinstance(settings.algorithm, NftSettings)
        self.nft = settings.algorithm
        self.weights = TrainedWeights(self.trained)
        self.old = self.weights.copy()

    def trained_steps(self, number: int) -> range:
        return range(0)

    def sample(self, number: int, names: Sequence[tuple[int, int]]) -> tuple[Trajectories, list[EditGroup]]:
        with self.weights.swapped(self.old):
            return super().sample(number, names)

    def train(
        self,
        number: int,
        names: Sequence[tuple[int, int]],
        edits: Trajectories,
        values: Tensor,
        batches: Sequence[Tensor],
    ) -> None:
        accumulated = -(-len(batches) // self.updates)
        for start in range(0, len(batches), accumulated or 1):
            together = batches[start : start + accumulated]
            for batch in together:
                self.train_batch(number, [names[place] for place in batch], edits.select(batch), values[batch])
            for parameter in self.trained:
                assert parameter.grad is not None
                parameter.grad /= len(together) * self.nft.levels
            self.step()
        self.weights.ema_update(self.old, self.nft.old_policy_decay)

    def train_batch(self, number: int, names: Sequence[tuple[int, int]], part: Trajectories, values: Tensor) -> None:
        """Add the gradients of a batch at all of its noise levels."""
        nft, guidance, draws = (
            self.nft,
            self.settings.guidance,
            noise_generators(self.settings, number, names, TRAINING),
        )
        optimality = compute_optimality(values, nft.advantage_clip)
        levels: list[tuple[Tensor, Tensor, Tensor]] = []
        with torch.no_grad(), self.weights.swapped(self.old):
            for _ in range(nft.levels):
                sigma = torch.stack([torch.rand((), generator=draw) for draw in draws])
                noise = standard_normal_like(part.latents, draws)
                noised = (1 - sigma[:, None, None]) * part.latents + sigma[:, None, None] * noise
                levels.append((sigma, noised, self.editor.velocity(noised, sigma, part.condition, guidance)))
        for sigma, noised, old in levels:
            v = self.editor.velocity(noised, sigma, part.condition, guidance)
            loss = nft_loss(v, old, noised, part.latents, sigma, optimality, nft.beta, nft.advantage_clip).mean()
            if self.settings.kl:
                with torch.no_grad(), self.editor.base():
                    base = self.editor.velocity(noised, sigma, part.condition, guidance)
                loss = loss + self.settings.kl * kl_to_base(v, base).mean()
            loss.backward()

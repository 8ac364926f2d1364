"""DiffusionNFT and Flow-GRPO on the toy of tests.toy_editing, edit by edit, as the papers write them.

Shares no maths with components.editor_rl: what the shipped loop computes is compared with this.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from editloop.training.editor_rl.settings import RlSettings
from tests.toy_editing import CHANNELS, GOALS, TOKENS, closeness, start_weights

SAMPLING, TRAINING = 0, 1
Name = tuple[int, int]
"""Task and member."""
Steps = list[dict[Name, dict[str, Any]]]
"""What the losses of each optimiser step are of, by edit."""


@dataclass
class Reference:
    """A training of the toy."""

    settings: RlSettings
    lost: frozenset[Name] = frozenset()
    """Edits without a reward."""
    figures: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.algorithm: Any = self.settings.algorithm
        self.weights = [value.requires_grad_() for value in start_weights()]
        self.old, self.average = start_weights(), start_weights()

    def run(self) -> "Reference":
        settings = self.settings
        for iteration in range(settings.iterations):
            rng = np.random.default_rng([settings.seed, iteration])
            tasks = rng.choice(len(GOALS), settings.tasks, replace=False).tolist()
            names = [(task, member) for task in tasks for member in range(settings.members)]
            generators = {name: self._generator(iteration, name, SAMPLING) for name in names}
            if self.algorithm.name == "nft":
                edits = {name: self._sampled(name, generators[name], range(0), self.old)[0] for name in names}
                steps = self._noised(edits, iteration)
                loss = self._nft_loss
            else:
                window = self._window(iteration)
                sampled = {name: self._sampled(name, generators[name], window, self.weights) for name in names}
                edits = {name: edit for name, (edit, _) in sampled.items()}
                steps = [{name: kept[place] for name, (_, kept) in sampled.items()} for place in range(len(window))]
                loss = self._grpo_loss
            rewards = {name: float(np.float32(closeness(edit, GOALS[name[0]]))) for name, edit in edits.items()}
            rewards |= dict.fromkeys(self.lost & rewards.keys(), math.nan)
            trained = self._advantages(rewards)
            sums = dict.fromkeys(("loss", "kl", "ratio", "ratio_deviation", "clipped"), 0.0)
            for step in steps:
                losses = [loss(name, step[name], steps, advantage, sums) for name, advantage in trained.items()]
                self._descend(torch.stack(losses).sum() / len(trained))
                sums["loss"] += sum(float(one.detach()) for one in losses)
            means = {name: value / (len(trained) * len(steps)) for name, value in sums.items()}
            means["ratio_deviation"] = math.sqrt(means["ratio_deviation"])
            self.figures.append(means | {"reward": float(np.nanmean(list(rewards.values()))), "trained": len(trained)})
            if self.algorithm.name == "nft":
                self._average(self.old, self.algorithm.old_policy_decay)
            self._average(self.average, min(settings.ema_decay, (iteration + 1) / (iteration + 10)))
        return self

    def _generator(self, iteration: int, name: Name, purpose: int) -> torch.Generator:
        mixed = np.random.SeedSequence([self.settings.seed, iteration, *name, purpose])
        return torch.Generator().manual_seed(int(mixed.generate_state(1, np.uint64)[0] >> 1))

    def _velocity(self, weights: list[Tensor], x: Tensor, sigma: float, task: int) -> Tensor:
        guidance = self.settings.guidance
        goal = torch.tensor(GOALS[task], dtype=torch.float64)
        return x @ weights[0] + goal @ weights[1] + sigma * weights[2] + (0.0 if guidance is None else guidance - 1)

    def _window(self, iteration: int) -> range:
        size, reach = self.algorithm.window, self.algorithm.window_range
        start = np.random.default_rng([self.settings.seed, iteration]).integers(reach - size + 1)
        return range(int(start), int(start) + size)

    @torch.no_grad()
    def _sampled(
        self, name: Name, generator: torch.Generator, window: range, weights: list[Tensor]
    ) -> tuple[Tensor, list[dict[str, Any]]]:
        """An edit, and its stochastic steps."""
        settings, kept = self.settings, list[dict[str, Any]]()
        x = torch.randn(1, TOKENS, CHANNELS, generator=generator)[0].double()
        for index in range(settings.sampling_steps):
            sigma, following = 1 - index / settings.sampling_steps, 1 - (index + 1) / settings.sampling_steps
            if index in window:
                x = x.float().double()
                mean, deviation = self._mean(weights, x, sigma, following, name[0])
                eps = torch.randn(TOKENS, CHANNELS, generator=generator).double()
                after = (mean + deviation * eps).float().double()
                step = {"before": x, "after": after, "mean": mean, "deviation": deviation}
                kept.append(step | {"sigma": sigma, "following": following})
                x = after
            else:
                x = x + (following - sigma) * self._velocity(weights, x, sigma, name[0])
        return x, kept

    def _mean(
        self, weights: list[Tensor], x: Tensor, sigma: float, following: float, task: int
    ) -> tuple[Tensor, float]:
        """The next latents' mean and deviation: an Euler-Maruyama step of the papers' equations, or CPS's mixture."""
        v, noise, length = self._velocity(weights, x, sigma, task), self.algorithm.noise, sigma - following
        picture, pure = x - sigma * v, x + (1 - sigma) * v
        if self.algorithm.step == "cps":
            fresh = following * math.sin(noise * math.pi / 2)
            return (1 - following) * picture + math.sqrt(following**2 - fresh**2) * pure, fresh
        s = noise
        if self.algorithm.step == "flow-sde":
            s = noise * math.sqrt(sigma / (1 - (following if sigma == 1 else sigma)))
        return x - length * (v + s**2 * pure / (2 * sigma)), s * math.sqrt(length)

    def _noised(self, edits: dict[Name, Tensor], iteration: int) -> Steps:
        """Each level of NFT's update: every edit noised anew, with the old policy's velocity there."""
        common = self.algorithm.common_noise
        generators = {name: self._generator(iteration, (name[0], 0) if common else name, TRAINING) for name in edits}
        levels = []
        for _ in range(self.algorithm.levels):
            level = {}
            for name, edit in edits.items():
                sigma = float(torch.rand((), generator=generators[name]))
                noise = torch.randn(TOKENS, CHANNELS, generator=generators[name]).double()
                x = (1 - sigma) * edit + sigma * noise
                old = self._velocity(self.old, x, sigma, name[0])
                level[name] = {"x": x, "picture": edit, "sigma": sigma, "old": old}
            levels.append(level)
        return levels

    def _nft_loss(
        self, name: Name, step: dict[str, Any], steps: Steps, advantage: float, sums: dict[str, float]
    ) -> Tensor:
        beta, clip = self.algorithm.beta, self.algorithm.advantage_clip
        v = self._velocity(self.weights, step["x"], step["sigma"], name[0])
        good = 0.5 + min(max(advantage / clip, -1.0), 1.0) / 2
        loss = torch.zeros((), dtype=torch.float64)
        for share, policy in (
            (good, (1 - beta) * step["old"] + beta * v),
            (1 - good, (1 + beta) * step["old"] - beta * v),
        ):
            error = step["x"] - step["sigma"] * policy - step["picture"]
            loss = loss + share * error.square().mean() / error.detach().abs().mean()
        base = self._velocity(start_weights(), step["x"], step["sigma"], name[0])
        return loss * clip / beta + self.settings.kl * self._distance((v - base).square().mean(), sums)

    def _grpo_loss(
        self, name: Name, step: dict[str, Any], steps: Steps, advantage: float, sums: dict[str, float]
    ) -> Tensor:
        algorithm, deviation = self.algorithm, step["deviation"]
        levels = step["sigma"], step["following"]
        mean, _ = self._mean(self.weights, step["before"], *levels, name[0])
        eps, moved = (step["after"] - step["mean"]) / deviation, mean - step["mean"]
        if algorithm.guard:
            ratio = (eps * moved).mean().exp()
        else:
            ratio = ((eps.square() - (eps - moved / deviation).square()).mean() / 2).exp()
        low, high = algorithm.ratio_clip
        bound = 1 + high if advantage > 0 else 1 - low
        value = float(ratio.detach())
        is_clipped = value > bound if advantage > 0 else value < bound
        loss = -advantage * (torch.full_like(ratio, bound) if is_clipped else ratio)
        if algorithm.reweighting != "none":
            loss = loss * deviation / np.mean([one[name]["deviation"] for one in steps])
        base, _ = self._mean(start_weights(), step["before"], *levels, name[0])
        kl = (mean - base).square().mean() / (2 * deviation**2)
        if algorithm.kl_form == "published":
            kl = kl * (levels[0] - levels[1])
        sums["ratio"] += value
        sums["ratio_deviation"] += (value - 1) ** 2
        sums["clipped"] += is_clipped
        return loss + self.settings.kl * self._distance(kl, sums)

    @staticmethod
    def _distance(kl: Tensor, sums: dict[str, float]) -> Tensor:
        sums["kl"] += float(kl.detach())
        return kl

    def _advantages(self, rewards: dict[Name, float]) -> dict[Name, float]:
        """Advantages of the edits that are trained on, scale `pooled` or `group`."""
        groups: dict[int, dict[Name, float]] = {}
        for name, reward in rewards.items():
            if not math.isnan(reward):
                groups.setdefault(name[0], {})[name] = reward
        variances = {task: float(np.var(list(group.values()))) for task, group in groups.items()}
        pooled = float(np.mean(list(variances.values())))
        trained = {}
        for task, group in groups.items():
            spread = math.sqrt(pooled if self.settings.advantage_scale == "pooled" else variances[task])
            mean = float(np.mean(list(group.values())))
            values = {name: (reward - mean) / spread for name, reward in group.items()}
            strongest = sorted(values, key=lambda name: -abs(values[name]))
            trained |= {name: values[name] for name in strongest[: self.settings.best_members or None]}
        return trained

    def _descend(self, loss: Tensor) -> None:
        gradients = torch.autograd.grad(loss, self.weights)
        for weight, gradient in zip(self.weights, gradients, strict=True):
            weight.data -= self.settings.learning_rate * gradient

    def _average(self, averages: list[Tensor], decay: float) -> None:
        for average, weight in zip(averages, self.weights, strict=True):
            average.copy_(decay * average + (1 - decay) * weight.detach())

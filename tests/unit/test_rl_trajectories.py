"""Whole trainings on a toy, pinned: a change that should not alter numbers proves that it does not."""

from itertools import pairwise

import pytest
import torch

from components.editor_rl.advantages import advantages
from components.editor_rl.flow_matching import noised
from components.editor_rl.nft import nft_loss, optimality
from components.editor_rl.policy_loss import clipped_loss, guarded_ratio, mean_of, ratio
from components.editor_rl.reweighting import noise_aware
from components.editor_rl.sde import STEPS, divergence, draw, log_prob
from components.editor_rl.windows import window

TASKS, MEMBERS, TOKENS, CHANNELS, STEPS_TAKEN, ITERATIONS = 3, 6, 4, 3, 5, 30
SIGMAS = [1 - step / STEPS_TAKEN for step in range(STEPS_TAKEN + 1)]
ROWS = TASKS * MEMBERS
WANTED = torch.tensor([0.8, -0.4, 0.2], dtype=torch.float64)


class Normals:
    """Standard normal draws by the inverse of a low-discrepancy sequence: the same on every machine."""

    def __init__(self) -> None:
        self.place = 0

    def __call__(self) -> torch.Tensor:
        count = ROWS * TOKENS * CHANNELS
        index = torch.arange(self.place, self.place + count, dtype=torch.float64)
        self.place += count
        uniform = (0.5 + 0.6180339887498949 * index + 0.1 * torch.sin(index)) % 1
        return torch.special.ndtri(uniform.clamp(1e-3, 1 - 1e-3)).view(ROWS, TOKENS, CHANNELS)


def reward(picture):
    return torch.exp(-(picture.mean(1) - WANTED).square().mean(1)).view(TASKS, MEMBERS)


def start():
    weight = (torch.arange(9, dtype=torch.float64).view(3, 3) / 20).requires_grad_()
    bias = torch.zeros(3, dtype=torch.float64).requires_grad_()
    return [weight, bias], torch.optim.SGD([weight, bias], lr=0.5)


def velocity(parameters, x):
    return x @ parameters[0] + parameters[1]


def flow_grpo(step, guard, reweigh):
    parameters, optimiser = start()
    base = [parameter.detach().clone() for parameter in parameters]
    normal, told = Normals(), []
    for iteration in range(ITERATIONS):
        trained = window("random", iteration, 3, size=2, reach=4)
        x, kept = normal(), []
        with torch.no_grad():
            for index, (sigma, following) in enumerate(pairwise(SIGMAS)):
                v = velocity(parameters, x)
                if index in trained:
                    mean, deviation = STEPS[step](x, v, sigma, following, 0.7)
                    after = draw(mean, deviation, normal())
                    kept.append((x, after, mean, deviation, sigma, following))
                    x = after
                else:
                    x = x + (following - sigma) * v
            rewards = reward(x)
        found = advantages(rewards, "pooled")
        values, counts = found.values.flatten(), found.counts.flatten()
        weights = noise_aware([deviation for _, _, _, deviation, _, _ in kept]) if reweigh else [1.0, 1.0]
        for weight, (before, after, rolled, deviation, sigma, following) in zip(weights, kept, strict=True):
            mean, _ = STEPS[step](before, velocity(parameters, before), sigma, following, 0.7)
            reference, _ = STEPS[step](before, velocity(base, before), sigma, following, 0.7)
            densities = log_prob(after, mean, deviation), log_prob(after, rolled, deviation)
            moved = guarded_ratio(*densities, mean, rolled, deviation) if guard else ratio(*densities)
            losses = clipped_loss(moved, values, 0.05, 0.1) + 0.01 * divergence(mean, reference, deviation)
            optimiser.zero_grad()
            mean_of(weight * losses, counts).backward()
            optimiser.step()
        told.append(rewards.mean().item())
    return told


def nft():
    parameters, optimiser = start()
    old = [parameter.detach().clone() for parameter in parameters]
    normal, told = Normals(), []
    for _ in range(ITERATIONS):
        x = normal()
        with torch.no_grad():
            for sigma, following in pairwise(SIGMAS):
                x = x + (following - sigma) * velocity(old, x)
            rewards = reward(x)
        good = optimality(advantages(rewards).values.flatten(), 1.0)
        sigma = torch.linspace(0.05, 0.95, ROWS, dtype=torch.float64).roll(len(told))
        at = noised(x, normal(), sigma)
        losses = nft_loss(velocity(parameters, at), velocity(old, at), at, x, sigma, good, 1.0)
        optimiser.zero_grad()
        losses.mean().backward()
        optimiser.step()
        for past, parameter in zip(old, parameters, strict=True):
            past.lerp_(parameter.detach(), 0.5)
        told.append(rewards.mean().item())
    return told


PINNED = {
    "flow-sde": (0.6762375384, 0.7011340945, 0.7363937160, 0.7263888447, 0.8043882487, 0.8504592168),
    "cps": (0.7004861610, 0.7276874766, 0.7719896998, 0.8123998662, 0.8744918118, 0.9011305566),
    "dance-sde": (0.6618172658, 0.6897989091, 0.7152649160, 0.6644145960, 0.7336875362, 0.7998823189),
    "guard": (0.6762375384, 0.6879113210, 0.7134066970, 0.6774775073, 0.7226841664, 0.7735800391),
    "noise-aware": (0.6762375384, 0.6964612380, 0.7227108925, 0.7019501243, 0.7666490770, 0.8184560515),
    "nft": (0.6262759523, 0.6523016318, 0.6553928445, 0.6950599640, 0.8047830647, 0.8293208706),
}
"""Mean reward of the iterations 1, 2, 3, 11, 21 and 30."""
RUNS = {
    "flow-sde": lambda: flow_grpo("flow-sde", guard=False, reweigh=False),
    "cps": lambda: flow_grpo("cps", guard=False, reweigh=False),
    "dance-sde": lambda: flow_grpo("dance-sde", guard=False, reweigh=False),
    "guard": lambda: flow_grpo("flow-sde", guard=True, reweigh=False),
    "noise-aware": lambda: flow_grpo("flow-sde", guard=False, reweigh=True),
    "nft": nft,
}


@pytest.mark.parametrize("name", RUNS)
def test_a_training_goes_where_it_went(name):
    told = RUNS[name]()
    assert [told[place] for place in (0, 1, 2, 10, 20, 29)] == pytest.approx(PINNED[name], rel=1e-7)
    assert sum(told[-5:]) > sum(told[:5])

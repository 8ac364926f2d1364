"""The shipped training of a toy editor, iteration by iteration, against the papers' formulas written edit by edit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from editloop.training.editor_rl import loop
from editloop.training.editor_rl.settings import RlSettings
from tests.reference_rl import Reference
from tests.toy_editing import ClosenessJudge, PlainEngine, one_rank, toy_training

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
"""The toy is in float64; rewards, advantages, noise levels and stored latents are rounded to float32 (6e-8) and an
advantage divides that by a spread of 0.05. A wrong sign, factor or step is off by percents."""
SIZES = {"iterations": 3, "tasks": 3, "members": 4, "sampling_steps": 4, "micro_batch": 5, "learning_rate": 0.2}


def nft(**told: Any) -> dict[str, Any]:
    return {"algorithm": {"name": "nft", "levels": 2, "old_policy_decay": 0.7, **told}}


def grpo(**told: Any) -> dict[str, Any]:
    return {"algorithm": {"name": "flow-grpo", "window": 2, "window_range": 3, "ratio_clip": (0.02, 0.03), **told}}


CASES: dict[str, dict[str, Any]] = {
    "nft, beta 1": nft(beta=1.0),
    "nft, beta 0.3": nft(beta=0.3),
    "nft, beta 2.5, clip 2": {**nft(beta=2.5, advantage_clip=2.0), "advantage_scale": "group"},
    "nft, common noise, the strongest": {**nft(beta=0.5, common_noise=True), "best_members": 2, "chunks": 3},
    "flow-sde": grpo(step="flow-sde", noise=0.7),
    "cps": {**grpo(step="cps", noise=0.6), "guidance": 1.5},
    "dance-sde": {**grpo(step="dance-sde", noise=0.3, kl_form="published"), "kl": 2.0},
    "guard, noise-aware": {**grpo(guard=True, reweighting="mean-one"), "kl": 0.0, "best_members": 3},
}


@pytest.fixture(autouse=True)
def _rank(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(loop, "start_engine", PlainEngine)
    with one_rank():
        yield


@pytest.mark.parametrize("case", CASES)
def test_a_training_takes_the_papers_steps(case: str, tmp_path: Path) -> None:
    settings = RlSettings(**SIZES, **CASES[case], evaluate_every=1)
    lost = frozenset({(0, 1), (2, 3)})
    judge = ClosenessJudge(lost=frozenset((f"task {task}", member) for task, member in lost))
    training = toy_training(tmp_path, settings, {"closeness": judge})
    steps = training.run(None).history["steps"]
    reference = Reference(settings, lost).run()
    for step, expected in zip(steps, reference.figures, strict=True):
        names = expected.keys() - (
            {"ratio", "ratio_deviation", "clipped"} if settings.algorithm.name == "nft" else set()
        )
        assert {name: step[name] for name in names} == pytest.approx(
            {name: expected[name] for name in names}, rel=1e-4, abs=1e-6
        )
    # The end has the averages in the editor, and what was trained beside it.
    torch.testing.assert_close([one.data for one in training.weights.trained], reference.average, **TOLERANCE)
    torch.testing.assert_close(training.averages, [one.detach() for one in reference.weights], **TOLERANCE)
    if settings.algorithm.name == "nft":
        torch.testing.assert_close(list(training.algorithm.state().values()), reference.old, **TOLERANCE)

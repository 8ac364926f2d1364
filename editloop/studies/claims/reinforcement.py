"""Tunes editors by online RL with rewards of several qualities, and measures each on the same held-out tasks."""

from pathlib import Path

import numpy as np

from editloop.data.edits_file import read_edits
from editloop.evaluation.editors import ORACLE, HeldOut, judge_scores, oracle_view
from editloop.models.editors.opening import open_editor
from editloop.scoring.opening import open_judge
from editloop.studies.claims.rewards import MODEL
from editloop.studies.claims.store import Figures, PieceContext
from editloop.studies.claims.worlds import FEW, FULL
from editloop.training.editor_rl.settings import RlJob, read_rl_preset
from editloop.training.job import launch_job

BASE = "tiny-editor"
BATCH = 64


def measure_base(work: PieceContext) -> Figures:
    """Measure the base editor on the held-out tasks.

    Args:
        work: Inputs of the piece.

    Returns:
        The figures of `measure_editor`, with the mean rewards reward_full and reward_few.
    """
    rewards = {name: work.needs[f"reward-{name}"] / MODEL for name in (FULL, FEW)}
    return measure_editor(BASE, work, {f"reward_{name}": str(model) for name, model in rewards.items()})


def rl_with_reward(work: PieceContext, reward: str) -> Figures:
    """Tune the base editor by a reward.

    Args:
        work: Inputs of the piece.
        reward: The dataset of the reward model (`full`, `few`, `noisy`), or `oracle`.

    Returns:
        The figures of `measure_editor`; `reward` is the mean reward by the model that was optimised, and is left out
        for the oracle.
    """
    reward_source = ORACLE if reward == ORACLE else str(work.needs[f"reward-{reward}"] / MODEL)
    return _tune(work, BASE, reward_source, iterations=work.settings.rl_iterations)


def rl_of_round(work: PieceContext, reward: str, editor: str = "") -> Figures:
    """Tune an editor for one of the rounds of claim 7.

    Args:
        work: Inputs of the piece.
        reward: Name of the piece that trained the reward model.
        editor: Name of the piece that tuned the editor to start from; empty: the base editor.

    Returns:
        The figures of `measure_editor`, with the mean `reward`.
    """
    start = str(tuned_editor(work, editor)) if editor else BASE
    return _tune(work, start, str(work.needs[reward] / MODEL), iterations=work.settings.round_iterations)


def measure_untuned(work: PieceContext) -> Figures:
    """Measure the base editor on the held-out tasks, without any reward.

    Args:
        work: Inputs of the piece.

    Returns:
        The figures of `measure_editor`.
    """
    return measure_editor(BASE, work, {})


def tuned_editor(work: PieceContext, piece: str) -> Path:
    """Return the model folder of the editor that a piece tuned.

    Args:
        work: Inputs of the piece that uses the editor.
        piece: Name of the piece that tuned it.
    """
    return work.needs[piece] / "editor" / "editor"


def measure_editor(editor: str, work: PieceContext, judges: dict[str, str]) -> Figures:
    """Measure an editor on the seed's held-out tasks, with one edit of each task from fixed noise.

    Args:
        editor: A shipped editor's name, or a model folder.
        work: Inputs of the piece, which must need `world`.
        judges: Addresses of judges, by the name of their figure.

    Returns:
        right: share of right edits by the oracle. oracle: the oracle's mean score; following and quality: its mean on
        each axis. For each judge: its mean reward over the edits with a score. All are 0..1.
    """
    opened = open_editor(editor)
    rows = read_edits(work.needs["world"] / "held-out")
    tasks = HeldOut(rows, opened, steps=work.settings.steps, guidance=None, batch=BATCH)
    edits = tasks.edits(opened)
    oracle_scores = oracle_view(tasks.cases, edits)
    return {
        "right": float(oracle_scores.right.mean()),
        "oracle": float(oracle_scores.mean.mean()),
        "following": float(oracle_scores.instruction_following.mean()),
        "quality": float(oracle_scores.visual_quality.mean()),
        **{
            name: float(np.nanmean(judge_scores(open_judge(judge), tasks.cases, edits)))
            for name, judge in judges.items()
        },
    }


def _tune(work: PieceContext, editor: str, reward_source: str, *, iterations: int) -> Figures:
    overrides = {"iterations": iterations} if iterations else {}
    job = RlJob(
        edits=work.needs["world"] / "prompts",
        output=work.folder / "editor",
        editor=editor,
        rewards={reward_source: 1.0},
        settings=read_rl_preset(work.settings.rl_preset, seed=work.seed, **overrides),
        checkpoints=work.folder / "checkpoints",
        facts={"editor": editor},
    )
    launch_job("editloop.training.editor_rl.train", job, processes=1)
    judges = {} if reward_source == ORACLE else {"reward": reward_source}
    return measure_editor(str(work.folder / "editor" / "editor"), work, judges)

"""What a seed's measurements stand on: drawn tasks, an editor's edits of them, and experts of several qualities."""

import shutil
from pathlib import Path

from editloop.content import MANIFEST, read_manifest
from editloop.studies.claims.store import Figures, PieceContext
from editloop.studies.comparison.world import draw_candidates, rate_candidates
from editloop.studies.world.characters import Character
from editloop.studies.world.scenes import write_edits

SPAMMERS: dict[str, Character] = {"bo": "spammer", "chi": "spammer", "dia": "spammer"}
"""Who gives noisy labels: three of the four experts click at random, so half of the tasks have no honest rating."""
FULL, FEW, NOISY = "full", "few", "noisy"
"""Datasets of one world: all tasks rated by honest experts, its first tasks alone, all tasks rated mostly at random."""
TASKS, PROMPTS, HELD_OUT, SECOND, TRIPLES = range(5)
"""What is drawn for a seed, each from random numbers of its own."""
DRAWN = 5


def draw_seed(seed: int, what: int) -> int:
    """The seed of one of the things that are drawn: no two seeds' draws are the same."""
    return DRAWN * seed + what


def make_world(work: PieceContext) -> Figures:
    """Leave `full`, `few` and `noisy` (dataset folders), `prompts` and `held-out` (edits folders)."""
    drawn = work.folder / "candidates"
    if not (drawn / MANIFEST).is_file():
        drawn = draw_candidates(work.folder, tasks=work.settings.tasks, seed=draw_seed(work.seed, TASKS))
    rate_candidates(drawn, work.folder / FULL, seed=work.seed)
    rate_few(drawn, work.folder / FEW, seed=work.seed, first=work.settings.few_tasks)
    rate_candidates(drawn, work.folder / NOISY, seed=work.seed, characters=SPAMMERS)
    for name, count, what in (
        ("prompts", work.settings.prompts, PROMPTS),
        ("held-out", work.settings.held_out, HELD_OUT),
    ):
        write_edits(work.folder / name, count, draw_seed(work.seed, what))
    return {f"pairs_{name}": count_pairs(work.folder / name) for name in (FULL, FEW, NOISY)}


def rate_few(drawn: Path, output: Path, *, seed: int, first: int) -> None:
    """Write a dataset folder of the first tasks, as few from `first` on as give pairs to learn from and pairs to choose
    the best state by: tasks fall into splits by hash, so a dozen may leave one of them empty."""
    while True:
        shutil.rmtree(output, ignore_errors=True)
        rate_candidates(drawn, output, seed=seed, first=first)
        splits = read_manifest(output)["facts"]["splits"]
        if splits["train"]["pairs"] and splits["validation"]["pairs"]:
            return
        first += 1


def make_second_world(work: PieceContext) -> Figures:
    """Leave `full`: new tasks, edited by the tuned editor, and judged by the same experts."""
    tuned = work.needs["rl-learnt"] / "editor" / "editor"
    drawn = draw_candidates(
        work.folder, tasks=work.settings.tasks, seed=draw_seed(work.seed, SECOND), editor=str(tuned)
    )
    rate_candidates(drawn, work.folder / FULL, seed=work.seed)
    return {"pairs_full": count_pairs(work.folder / FULL)}


def count_pairs(dataset: Path) -> float:
    """Preference pairs that a dataset folder has, over its splits."""
    pairs = read_manifest(dataset)["facts"]["pairs"]
    return float(sum(pairs.values()) if isinstance(pairs, dict) else pairs)

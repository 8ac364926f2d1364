"""Makes the datasets of a seed: drawn tasks, an editor's edits of them, and ratings by experts of several qualities."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from editloop.content import MANIFEST, read_manifest
from editloop.data.candidates_folder import read_tasks
from editloop.errors import EditLoopError
from editloop.studies.claims.store import Figures, PieceContext
from editloop.studies.comparison.world import HONEST, draw_candidates, rate_candidates
from editloop.studies.world.characters import Character
from editloop.studies.world.scenes import write_edits

SPAMMERS: dict[str, Character] = {"bo": "spammer", "chi": "spammer", "dia": "spammer"}
"""Characters of the experts who give noisy labels. Three of four rate at random, so half of the tasks have no honest
rating."""
FULL, FEW, NOISY = "full", "few", "noisy"
"""Names of the datasets: all tasks rated by honest experts, the first tasks alone, all tasks rated mostly at random."""
TASKS, PROMPTS, HELD_OUT, SECOND, TRIPLES = range(5)
"""The things that are drawn for a seed, each from its own random numbers."""
DRAWN = 5
"""Number of these things."""


def draw_seed(seed: int, what: int) -> int:
    """Return the random seed of one of the things that are drawn. It is different for all seeds and things.

    Args:
        seed: Seed of the measurements.
        what: The thing: TASKS, PROMPTS, HELD_OUT, SECOND or TRIPLES.
    """
    return DRAWN * seed + what


def make_world(work: PieceContext) -> Figures:
    """Write the dataset folders `full`, `few` and `noisy`, and the edits folders `prompts` and `held-out`.

    Args:
        work: Inputs of the piece.

    Returns:
        pairs_full, pairs_few and pairs_noisy: number of preference pairs in each dataset.
    """
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


def rate_few(drawn: Path, output: Path, *, seed: int, first: int, characters: Mapping[str, Character] = HONEST) -> None:
    """Write a dataset of the first tasks: as few as possible so that the training and validation splits have pairs.

    Tasks are assigned to splits by hash, so a dozen of them may leave a split empty.

    Args:
        drawn: The candidates folder.
        output: The dataset folder to write.
        seed: Seed of the ratings.
        first: Least number of tasks.
        characters: Characters of the experts who are not honest.

    Raises:
        EditLoopError: All tasks together leave one of the splits without pairs.
    """
    for count in range(first, len(read_tasks(drawn)) + 1):
        shutil.rmtree(output, ignore_errors=True)
        rate_candidates(drawn, output, seed=seed, first=count, characters=characters)
        splits = read_manifest(output)["facts"]["splits"]
        if splits["train"]["pairs"] and splits["validation"]["pairs"]:
            return
    raise EditLoopError(f"{drawn}: no pairs in the training or the validation split, of all tasks; draw more tasks.")


def count_pairs(dataset: Path) -> float:
    """Return the number of preference pairs in all splits of a dataset.

    Args:
        dataset: The dataset folder.
    """
    pairs = read_manifest(dataset)["facts"]["pairs"]
    return float(sum(pairs.values()) if isinstance(pairs, dict) else pairs)

"""Sources of a dataset's tasks and images: a candidates folder, or an earlier version of the dataset."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from editloop.content import read_manifest, sha256_bytes
from editloop.data.candidates_folder import read_lines
from editloop.data.fingerprints import Fingerprints, compute_fingerprints, is_flat, join_fingerprints, look_alikes
from editloop.data.picture_file import load_image
from editloop.data.vocabulary import EditTask
from editloop.datasets.shards import REFERENCES, rows_of_tasks
from editloop.datasets.splits import SPLITS, Split, picture_digests, splits_of
from editloop.errors import EditLoopError
from editloop.progress import track

TASKS = "tasks.jsonl"
PICTURES_A_TIME = 64
"""Images that a thread compares at once."""


class CandidatesFolder:
    """The folder that stage `candidates` wrote. Tasks whose images are equal or look alike fall into one split."""

    def __init__(self, folder: Path):
        """Read the tasks.

        Args:
            folder: The candidates folder.
        """
        self._images = folder / "images"
        self._digests: dict[str, str] = read_manifest(folder)["files"]
        self.tasks = read_sorted_tasks(folder / TASKS)

    def splits(self, seed: int) -> dict[str, Split]:
        """Return the split of every task, by task id.

        Args:
            seed: Seed of the splits.
        """
        pictures = (picture for task in self.tasks for picture in (task.source, *task.references, task.target))
        shown = sorted({picture for picture in pictures if picture})
        parts = [shown[start : start + PICTURES_A_TIME] for start in range(0, len(shown), PICTURES_A_TIME)]
        with ThreadPoolExecutor(os.cpu_count(), "fingerprints") as pool:
            prints = list(track(pool.map(self._fingerprints, parts), "pictures compared", total=len(parts)))
        alike = [(shown[one], shown[other]) for one, other in look_alikes(join_fingerprints(prints))] if shown else []
        return splits_of(self.tasks, seed, lambda sha256: is_flat(load_image(self._images / f"{sha256}.png")), alike)

    def pictures(self, split: Split, tasks: Sequence[EditTask]) -> Iterator[dict[str, bytes]]:
        """Yield, for each task, its encoded images by sha256.

        Args:
            split: The split of all these tasks.
            tasks: Some tasks of the split, sorted by id.
        """
        for task in tasks:
            yield {digest: self._read(digest) for digest in set(picture_digests(task))}

    def _fingerprints(self, pictures: Sequence[str]) -> Fingerprints:
        return compute_fingerprints((f"{picture}.png", self._read(picture)) for picture in pictures)

    def _read(self, sha256: str) -> bytes:
        path = self._images / f"{sha256}.png"
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise EditLoopError(f"{path}: no such file, but a task names it; make the candidates again.") from None
        if sha256_bytes(data) != self._digests.get(f"images/{path.name}"):
            raise EditLoopError(f"{path}: changed since it was written; make the candidates again or restore it.")
        return data


class EarlierVersion:
    """A dataset folder. Its tasks stay in the splits that they are in."""

    def __init__(self, folder: Path):
        """Read the tasks.

        Args:
            folder: The dataset folder.
        """
        self._folder = folder
        self.tasks = read_sorted_tasks(folder / TASKS)

    def splits(self, seed: int) -> dict[str, Split]:
        """Return the split of every task, by task id.

        Args:
            seed: Not used: tasks stay where they are.
        """
        return {rows[0]["task_id"]: split for split in SPLITS for rows in rows_of_tasks(self._folder, split)}

    def pictures(self, split: Split, tasks: Sequence[EditTask]) -> Iterator[dict[str, bytes]]:
        """Yield, for each task, its encoded images by sha256.

        Args:
            split: The split of all these tasks.
            tasks: Some tasks of the split, sorted by id.
        """
        row_groups = rows_of_tasks(self._folder, split)
        for task in tasks:
            rows = next(rows for rows in row_groups if rows[0]["task_id"] == task.task_id)
            pictures = {task.source: rows[0]["source"]} | ({task.target: rows[0]["target"]} if task.target else {})
            pictures |= dict(zip(task.references, rows[0].get(REFERENCES, ()), strict=True))
            encoded = {row["candidate_id"]: row["image"] for row in rows}
            yield pictures | {candidate.image: encoded[candidate.candidate_id] for candidate in task.candidates}


TaskSource = CandidatesFolder | EarlierVersion


def read_sorted_tasks(path: Path) -> list[EditTask]:
    """Return the tasks of a file, sorted by id.

    Args:
        path: A `tasks.jsonl`.
    """
    return sorted(read_lines(path, EditTask), key=lambda task: task.task_id)

"""Sources of a dataset's tasks and images: a candidates folder, or an earlier version of the dataset."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from editloop.content import sha256_bytes
from editloop.data.candidates_folder import read_lines
from editloop.data.fingerprints import is_flat
from editloop.data.picture_file import load_image
from editloop.data.vocabulary import EditTask
from editloop.datasets.shards import rows_of_tasks
from editloop.datasets.splits import SPLITS, Split, picture_digests, splits_of
from editloop.errors import EditLoopError

TASKS = "tasks.jsonl"


class CandidatesFolder:
    """The folder that stage `candidates` wrote. Tasks that share an image fall into one split."""

    def __init__(self, folder: Path):
        """Read the tasks.

        Args:
            folder: The candidates folder.
        """
        self._images = folder / "images"
        self.tasks = read_sorted_tasks(folder / TASKS)

    def splits(self, seed: int) -> dict[str, Split]:
        """Return the split of every task, by task id.

        Args:
            seed: Seed of the splits.
        """
        return splits_of(self.tasks, seed, lambda sha256: is_flat(load_image(self._images / f"{sha256}.png")))

    def pictures(self, split: Split, tasks: Sequence[EditTask]) -> Iterator[dict[str, bytes]]:
        """Yield, for each task, its encoded images by sha256.

        Args:
            split: The split of all these tasks.
            tasks: Some tasks of the split, sorted by id.
        """
        for task in tasks:
            yield {digest: self._read(digest) for digest in set(picture_digests(task))}

    def _read(self, sha256: str) -> bytes:
        path = self._images / f"{sha256}.png"
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise EditLoopError(f"{path}: no such file, but a task names it; make the candidates again.") from None
        if sha256_bytes(data) != sha256:
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
            encoded = {row["candidate_id"]: row["image"] for row in rows}
            yield pictures | {candidate.image: encoded[candidate.candidate_id] for candidate in task.candidates}


TaskSource = CandidatesFolder | EarlierVersion


def read_sorted_tasks(path: Path) -> list[EditTask]:
    """Return the tasks of a file, sorted by id.

    Args:
        path: A `tasks.jsonl`.
    """
    return sorted(read_lines(path, EditTask), key=lambda task: task.task_id)

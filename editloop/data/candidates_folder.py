"""Reader of the candidates folder: tasks with their candidate edits, as stage `candidates` writes them."""

from pathlib import Path

from editloop.data.vocabulary import EditTask


def read_tasks(candidates: Path) -> list[EditTask]:
    """Return the tasks in the `tasks.jsonl` of a candidates folder, in its order.

    Args:
        candidates: The candidates folder.
    """
    lines = (candidates / "tasks.jsonl").read_text().splitlines()
    return [EditTask.model_validate_json(line) for line in lines if line.strip()]

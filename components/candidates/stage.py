"""The candidates stage: K edits of each (source image, instruction), beside edits that came from elsewhere."""

from pathlib import Path


def run_candidates(
    edits: Path, output: Path, *, editor: str = "tiny-editor", per_task: int = 4, steps: int = 8, seed: int = 0
) -> dict[str, float]:
    """Make `per_task` edits of each row of an edits folder; `write_candidates` says how."""
    from editloop.models.editors.candidates import write_candidates

    return write_candidates(edits, output, editor=editor, per_task=per_task, steps=steps, seed=seed)

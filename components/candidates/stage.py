"""The candidates stage: K edits of each (source image, instruction), beside the edits that the input brings along."""

from pathlib import Path


def run_candidates(
    edits: Path, output: Path, *, editor: str = "tiny-editor", per_task: int = 4, steps: int = 8, seed: int = 0
) -> dict[str, float]:
    """Make `per_task` edits of each row of an edits folder; `write_candidates` documents the details.

    Args:
        edits: An edits file, or a folder of them.
        output: Candidates folder to write.
        editor: A diffusers folder, the name of a shipped editor, or `models:/NAME@ALIAS`.
        per_task: Edits that the editor makes of each row.
        steps: Denoising steps.
        seed: Seed of the noise.

    Returns:
        The number of `tasks` and of `candidates`, those that the rows bring included.

    Raises:
        EditLoopError: The edits file is faulty, or there is no such editor.
    """
    from editloop.models.editors.candidates import write_candidates

    return write_candidates(edits, output, editor=editor, per_task=per_task, steps=steps, seed=seed)

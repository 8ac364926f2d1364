"""The candidates stage: K edits of each (source image, instruction), beside the edits that the input brings along."""

from pathlib import Path

from components.candidates.declaration import CandidatesParameters


def run_candidates(edits: Path, output: Path, parameters: CandidatesParameters) -> dict[str, float]:
    """Make `per_task` edits of each row of an edits folder; `write_candidates` documents the details.

    Args:
        edits: An edits file, or a folder of them.
        output: Candidates folder to write.
        parameters: The stage's parameters.

    Returns:
        The number of `tasks` and of `candidates`, those that the rows bring included.

    Raises:
        EditLoopError: The edits file is faulty, or there is no such editor.
    """
    from editloop.models.editors.candidates import write_candidates

    return write_candidates(edits, output, **parameters.model_dump())

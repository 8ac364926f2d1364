"""The candidates stage: K edits of each (source image, instruction), beside the edits that the input brings along."""

from pathlib import Path

from components.candidates.declaration import CandidatesParameters


def run_candidates(edits: Path, output: Path, parameters: CandidatesParameters) -> dict[str, float]:
    """Make `per_task` edits of each row of an edits folder; `write_candidates` documents the details.

    With `per_task` 0 no editor is opened, and the candidates are the edits that the rows bring.

    Args:
        edits: An edits file, or a folder of them.
        output: Candidates folder to write.
        parameters: The stage's parameters.

    Returns:
        The number of `tasks` and of `candidates`, those that the rows bring included.

    Raises:
        EditLoopError: The edits file is faulty, there is no such editor, or nothing makes a candidate.
    """
    from editloop.models.editors.candidates import write_candidates, write_given_candidates

    if not parameters.per_task:
        return write_given_candidates(edits, output)
    return write_candidates(edits, output, **parameters.model_dump())

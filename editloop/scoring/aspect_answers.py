"""Read a judge's answer that goes aspect by aspect, each with a heading and a score. No score is invented.

    1. Text Faithfulness:
    ## Justification: ...
    ## Score: 3.5

Form is free: numbering, marks of headings and emphasis, and closed thinking before the answer. Meaning is not: an
aspect has one score in the range, or the answer has none.
"""

import re
from collections.abc import Mapping

FAULTS = ("empty", "unparsable", "ambiguous", "not a number", "out of range")
"""Why an answer gives no scores."""
MAX_CHARACTERS = 50_000
"""Longer answers are not read."""
SCORE_LINE = re.compile(r"^[\s#*_>-]*score[\s*_]*:[\s*_]*(.*?)[\s*_]*$", re.IGNORECASE | re.MULTILINE)
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
NOT_RATED = "n/a"
"""What a judge writes where an aspect does not arise."""


def read_aspects(
    text: str, headings: Mapping[str, str], low: float, high: float, optional: frozenset[str] = frozenset()
) -> dict[str, float] | str:
    """Read the scores of an answer.

    Args:
        text: The answer.
        headings: The aspects' headings in the answer, by their names.
        low: The lowest score.
        high: The highest score.
        optional: Names of the aspects that may be `N/A`.

    Returns:
        The scores by name, without those that are `N/A`; or the fault, one of FAULTS.
    """
    if not text.strip():
        return "empty"
    answer = text.rpartition("</think>")[2]
    if len(text) > MAX_CHARACTERS or "<think>" in answer.lower():
        return "unparsable"
    starts: list[tuple[int, int, str]] = []
    for name, heading in headings.items():
        pattern = rf"^[\s#*_>-]*(?:\d+[.)]\s*)?[*_]*{re.escape(heading)}[\s*_]*:?[\s*_]*$"
        matches = list(re.finditer(pattern, answer, re.IGNORECASE | re.MULTILINE))
        if len(matches) != 1:
            return "ambiguous" if matches else "unparsable"
        starts.append((matches[0].start(), matches[0].end(), name))
    starts.sort()
    ends = [start for start, _, _ in starts[1:]] + [len(answer)]
    scores: dict[str, float] = {}
    for (_, start, name), end in zip(starts, ends, strict=True):
        values = [match[1].strip("[] ") for match in SCORE_LINE.finditer(answer, start, end)]
        if len(values) != 1:
            return "ambiguous" if values else "unparsable"
        if name in optional and values[0].lower() == NOT_RATED:
            continue
        if not NUMBER.fullmatch(values[0]):
            return "not a number"
        if not low <= float(values[0]) <= high:
            return "out of range"
        scores[name] = float(values[0])
    return scores if scores else "unparsable"

"""Read a judge's answer that goes aspect by aspect, each with a heading and a score. No score is invented.

    1. Text Faithfulness:
    ## Justification: ...
    ## Score: 3.5

Form is free: numbering, marks of headings and emphasis, and closed thinking before the answer. Meaning is not: an
aspect has one score in the range, or the answer has none.
"""

import re
from collections.abc import Mapping, Sequence

FAULTS = ("empty", "unparsable", "ambiguous", "not a number", "out of range")
"""Why an answer gives no scores."""
MAX_CHARACTERS = 50_000
"""Longer answers are not read."""
BEFORE = " #*_>-"
"""Marks of headings, lists, quotes and emphasis before the words of a line."""
AROUND = " *_"
"""Marks of emphasis around them."""
NUMBERING = re.compile(r"[0-9]+[.)] ?")
SCORE = "score"
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
    lines = answer_lines(answer)
    starts: list[tuple[int, str]] = []
    for name, heading in headings.items():
        places = [place for place, line in enumerate(lines) if _is_heading(line, heading)]
        if len(places) != 1:
            return "ambiguous" if places else "unparsable"
        starts.append((places[0], name))
    starts.sort()
    ends = [start for start, _ in starts[1:]] + [len(lines)]
    scores: dict[str, float] = {}
    for (start, name), end in zip(starts, ends, strict=True):
        values = _stated_scores(lines[start + 1 : end])
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


def answer_lines(answer: str) -> list[str]:
    """Return the lines of an answer that are not blank, with one space for each run of them.

    An answer is read a line at a time: a pattern that may stretch over lines takes minutes for a hostile one.

    Args:
        answer: The answer.
    """
    return [line for text in answer.split("\n") if (line := " ".join(text.split()))]


def _is_heading(line: str, heading: str) -> bool:
    words, wanted = line.lstrip(BEFORE), heading.lower()
    for stated in (words, NUMBERING.sub("", words, count=1) if NUMBERING.match(words) else words):
        lower = stated.lstrip("*_").lower()
        if lower.startswith(wanted) and lower[len(wanted) :].strip(AROUND) in ("", ":"):
            return True
    return False


def _stated_scores(lines: Sequence[str]) -> list[str]:
    """Return what stands behind each `Score:`, or in the next line where nothing does."""
    values: list[str] = []
    remaining = iter(lines)
    for line in remaining:
        words = line.lstrip(BEFORE)
        rest = words[len(SCORE) :].lstrip(AROUND)
        if words.lower().startswith(SCORE) and rest.startswith(":"):
            value = rest[1:].strip(AROUND) or next(remaining, "").strip(AROUND)
            values.append(value.strip("[] "))
    return values

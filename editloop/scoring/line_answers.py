"""Read a judge's answer that has a line `NAME: SCORE` for each of its scores. No score is invented.

    Brief reasoning: the lamp is red now.
    Prompt Compliance: 5
    Visual Naturalness: 4
    Physical & Detail Integrity: 4

Form is free: marks of emphasis and lists, `4/5` for 4, a full stop, and closed thinking before the answer. Meaning is
not: an answer has the wanted number of scores, each in the range and of a name of its own, or it has none.
"""

import re
from collections.abc import Iterator, Sequence

from editloop.scoring.aspect_answers import AROUND, BEFORE, MAX_CHARACTERS, answer_lines

SCORE = re.compile(r"(?P<score>[0-9]+(?:\.[0-9]+)?)(?:[ *_]*/[ *_]*(?P<top>[0-9]+))?")


def read_score_lines(text: str, count: int, low: float, high: float) -> dict[str, float] | str:
    """Read the scores of an answer.

    Args:
        text: The answer.
        count: Number of scores that it must have.
        low: The lowest score.
        high: The highest score.

    Returns:
        The scores by name; or the fault, one of `aspect_answers.FAULTS`.
    """
    if not text.strip():
        return "empty"
    answer = text.rpartition("</think>")[2]
    if len(text) > MAX_CHARACTERS or "<think>" in answer.lower():
        return "unparsable"
    matches = list(_stated_scores(answer_lines(answer)))
    scores = {name: float(match["score"]) for name, match in matches}
    if len(scores) < len(matches) or len(matches) > count:
        return "ambiguous"
    if len(matches) < count:
        return "unparsable"
    is_in_range = all(low <= score <= high for score in scores.values())
    tops = {float(match["top"]) for _, match in matches if match["top"]}
    return scores if is_in_range and tops <= {high} else "out of range"


def _stated_scores(lines: Sequence[str]) -> Iterator[tuple[str, re.Match[str]]]:
    """Yield each name with its score, which stands behind the colon, or in the next line where nothing does."""
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        words, colon, rest = line.partition(":")
        name = words.lstrip(BEFORE).rstrip(AROUND)
        value = rest.strip(AROUND) or following.strip(AROUND)
        if colon and name and (match := SCORE.fullmatch(value.rstrip(AROUND + "."))):
            yield name.lower(), match

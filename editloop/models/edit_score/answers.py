"""Parse a model's answer into its two scores, or into the reason why it has none. No score is invented.

The answer should be one JSON object, {"reasoning": text, "score": [a, b]}. `json-repair` reads answers that are not
quite JSON. Its scores count only if the answer has one closed list of scores, at its end, with exactly these numbers:
text that the answer merely quotes (an instruction may contain `"score": [25, 25]`) is no score.
"""

import json
import math
import re
from typing import Any, Literal, NamedTuple

from json_repair import repair_json

AnswerFault = Literal["empty", "unparsable", "ambiguous", "wrong keys", "wrong count", "not a number", "out of range"]
"""Why an answer gives no scores."""
MAX_CHARACTERS = 20_000
"""Longer answers are not parsed. 512 tokens are far shorter."""
SCORE_LIST = re.compile(r"""["']?\bscores?\b["']?\s*[:=]\s*\[([^\[\]]*)\]""", re.IGNORECASE)
"""A closed list of scores with its key."""
ENDING = re.compile(r"[\s,}`]*")
"""What may follow the list at the end of an answer."""
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
"""A score in a list that is not JSON."""


class ParsedAnswer(NamedTuple):
    """The content of one answer."""

    reasoning: str
    points: tuple[float, float]
    """Two points, each 0..top, in the order of the question."""


class _DoubledKeyError(ValueError):
    pass


def parse_answer(text: str, top: float) -> ParsedAnswer | AnswerFault:
    """Parse an answer. Any text is accepted, and nothing is raised.

    Args:
        text: The answer.
        top: The highest score.

    Returns:
        The reasoning and the two scores, each 0..top, or the fault.
    """
    if not text.strip():
        return "empty"
    if len(text) > MAX_CHARACTERS:
        return "unparsable"
    try:
        value = json.loads(text, object_pairs_hook=_without_doubles)
    except _DoubledKeyError:
        return "ambiguous"
    except (ValueError, RecursionError):
        return _repaired(text, top)
    return _checked(value, top)


def _checked(value: Any, top: float) -> ParsedAnswer | AnswerFault:
    if not isinstance(value, dict):
        return "unparsable"
    if value.keys() != {"reasoning", "score"} or not isinstance(value["reasoning"], str):
        return "wrong keys"
    scores = value["score"]
    if not isinstance(scores, list) or len(scores) != 2:
        return "wrong count"
    if not all(type(score) in (int, float) and math.isfinite(score) for score in scores):
        return "not a number"
    if not all(0 <= score <= top for score in scores):
        return "out of range"
    return ParsedAnswer(value["reasoning"], (float(scores[0]), float(scores[1])))


def _repaired(text: str, top: float) -> ParsedAnswer | AnswerFault:
    """Parse the answer with json-repair, and check that its scores are in the text.

    A list cut off after `[1` may have been `[17`.
    """
    score_lists = list(SCORE_LIST.finditer(text))
    if not score_lists or ENDING.fullmatch(text, score_lists[-1].end()) is None:
        return "unparsable"
    if len(score_lists) > 1:
        return "ambiguous"
    try:
        value = repair_json(text, return_objects=True, skip_json_loads=True)
    except Exception:  # json-repair may raise anything on hostile text, which then has no scores
        return "unparsable"
    answer = _checked(value, top)
    if not isinstance(answer, ParsedAnswer):
        return answer
    numbers = [part.strip() for part in score_lists[0][1].split(",")]
    if not all(NUMBER.fullmatch(number) for number in numbers):
        return "not a number"
    return answer if [float(number) for number in numbers] == list(answer.points) else "ambiguous"


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise _DoubledKeyError
    return dict(pairs)

"""From a model's answer to its two scores, or to the reason why there are none. Never a score that nobody wrote.

The answer asked for is one JSON object, {"reasoning": text, "score": [a, b]}. Where it is not quite JSON, `json-repair`
has the last word, but only if it finds the very numbers that stand in the answer as a closed list, at its end: words
that the answer merely quotes (an instruction may say `"score": [25, 25]`) are no scores.
"""

import json
import math
import re
from typing import Any, Literal, NamedTuple

from json_repair import repair_json

AnswerFault = Literal["empty", "unparsable", "ambiguous", "wrong keys", "wrong count", "not a number", "out of range"]
"""Why an answer gives no scores."""
MAX_CHARACTERS = 20_000
"""Characters. 512 tokens are far less; what is longer is not worth repairing."""
SCORE_LIST = re.compile(r"""["']?\bscores?\b["']?\s*[:=]\s*\[([^\[\]]*)\]""", re.IGNORECASE)
ENDING = re.compile(r"[\s,}`]*")
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


class ParsedAnswer(NamedTuple):
    """What one answer says."""

    reasoning: str
    points: tuple[float, float]
    """0..top, in the question's order."""


class _DoubledKeyError(ValueError):
    pass


def parse_answer(text: str, top: float) -> ParsedAnswer | AnswerFault:
    """The answer's two scores, each 0..top, or its fault. Any text is taken; nothing raises."""
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
    """What json-repair makes of the text, if its scores stand there: a list cut off after `[1` may have been `[17`."""
    score_lists = list(SCORE_LIST.finditer(text))
    if not score_lists or ENDING.fullmatch(text, score_lists[-1].end()) is None:
        return "unparsable"
    if len(score_lists) > 1:
        return "ambiguous"
    try:
        value = repair_json(text, return_objects=True, skip_json_loads=True)
    except Exception:  # a third party's reading of hostile text: whatever it stumbles over, the text has no scores
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

"""Parse a model's answer into its two scores, or into the reason why it has none. No score is invented.

The answer should be one JSON object, {"reasoning": text, "score": [a, b]}, or the list alone. Form is free: text,
fences, closed thinking and special tokens may stand around the object, and faults of JSON that cannot touch the numbers
are mended. Meaning is not: the answer has two finite numbers in the range and no others, or it has no scores. Text that
the answer merely quotes (an instruction may contain `"score": [25, 25]`) is no score.
"""

import json
import math
import re
from typing import Literal, NamedTuple

from json_repair import repair_json

AnswerFault = Literal["empty", "unparsable", "ambiguous", "wrong keys", "wrong count", "not a number", "out of range"]
"""Why an answer gives no scores."""
MAX_CHARACTERS = 20_000
"""Longer answers are not parsed. 512 tokens are far shorter."""
WRAPPING = re.compile(r"<\|\w{1,40}\|>|\|\|V\^=\^V\|\||\ufeff")
"""Special tokens, the delimiter of older wordings, and the byte order mark."""
SCORE_LIST = re.compile(
    r"""["']?\bscores?\b["']?\s*[:=]\s*(?:\[([^\[\]{}]*)(?:\]|(?=\}))|\(([^()\[\]{}]*)\))""", re.IGNORECASE
)
"""A list of scores with its key, closed by its own bracket or by the brace of the object."""
ENDING = re.compile(r"[\s,}`~]*")
"""What may follow the list in an answer that is not JSON."""
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
"""A comment between the numbers."""
NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
"""A score that is written as a string, or in a list that is not JSON."""
QUOTED = re.compile(rf"(?P<score>{NUMBER.pattern})(?:\s*/\s*(?P<of>[0-9]+))?")
"""A score that is written as a string, which may name the highest one: `24/25`. Without quotes it is a division."""
TYPOGRAPHY = str.maketrans("“”„‘’：，［］｛｝", '"""\'\':,[]{}')
"""Quotes and punctuation of another shape, as JSON writes them."""


class ParsedAnswer(NamedTuple):
    """The content of one answer."""

    reasoning: str
    """Empty where the answer gives no reasons."""
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
        value: object = json.loads(text, object_pairs_hook=_without_doubles)
    except _DoubledKeyError:
        return "ambiguous"
    except (ValueError, RecursionError):
        return _parse_wrapped(text, top)
    return _parse_object({"score": value} if isinstance(value, list) else value, top)


def _parse_wrapped(text: str, top: float) -> ParsedAnswer | AnswerFault:
    """Parse an answer that is not JSON as a whole: without its wrapping, it may have whole objects and text around."""
    answer = WRAPPING.sub("", text).rpartition("</think>")[2]
    if "<think>" in answer.lower():
        return "unparsable"  # the model never came to its answer
    try:
        objects, around = _whole_objects(answer)
    except _DoubledKeyError:
        return "ambiguous"
    except (ValueError, RecursionError):
        return _mend(answer.translate(TYPOGRAPHY), top)
    answers = [_parse_object(value, top) for value in objects]
    if not answers:
        return "unparsable"
    faults = [parsed for parsed in answers if not isinstance(parsed, ParsedAnswer)]
    parsed_answers = [parsed for parsed in answers if isinstance(parsed, ParsedAnswer)]
    if faults:
        return "ambiguous" if parsed_answers else faults[0]
    points = {parsed.points for parsed in parsed_answers}
    quoted = {_numbers(match, top) for match in SCORE_LIST.finditer(around.translate(TYPOGRAPHY))}
    return "ambiguous" if len(points) > 1 or quoted - points else parsed_answers[0]


def _whole_objects(text: str) -> tuple[list[object], str]:
    """Return the JSON objects of a text, and the text around them.

    Raises:
        ValueError: An object is not JSON. Objects inside it may be quotes and are no answer.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_without_doubles, strict=False)
    objects: list[object] = []
    around: list[str] = []
    position = 0
    while (start := text.find("{", position)) >= 0:
        value, end = decoder.raw_decode(text, start)
        objects.append(value)
        around.append(text[position:start])
        position = end
    return objects, " ".join([*around, text[position:]])


def _parse_object(value: object, top: float) -> ParsedAnswer | AnswerFault:
    if not isinstance(value, dict):
        return "unparsable"
    parts: dict[str, object] = {str(key).lower(): part for key, part in value.items()}
    keys = parts.keys() & {"score", "scores"}
    if len(keys) != 1:
        return "ambiguous" if keys else "wrong keys"
    scores = parts[keys.pop()]
    if not isinstance(scores, list) or len(scores) != 2:
        return "wrong count"
    points = (_number(scores[0], top), _number(scores[1], top))
    if not all(math.isfinite(point) for point in points):
        return "not a number"
    if not all(0 <= point <= top for point in points):
        return "out of range"
    reasoning = parts.get("reasoning", "")
    return ParsedAnswer(reasoning if isinstance(reasoning, str) else json.dumps(reasoning), points)


def _number(value: object, top: float) -> float:
    """Return a number or a number in quotes as a float, and NaN for anything else."""
    if isinstance(value, str) and (match := QUOTED.fullmatch(value.strip())):
        return float(match["score"]) if match["of"] is None or float(match["of"]) == top else math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf


def _mend(text: str, top: float) -> ParsedAnswer | AnswerFault:
    """Parse an object that is not JSON. Its scores count where nothing follows them.

    A list cut off after `[1` may have been `[17`. The list is read here, so that json-repair, which reads the rest, has
    no part in the numbers.
    """
    score_lists = list(SCORE_LIST.finditer(text))
    if not score_lists or ENDING.fullmatch(text, score_lists[-1].end()) is None:
        return "unparsable"
    if len({_numbers(match, top) for match in score_lists}) > 1:
        return "ambiguous"
    try:
        value: object = repair_json(text[: score_lists[-1].start()], return_objects=True)
    except Exception:  # json-repair may raise anything on hostile text, which then has no scores
        return "unparsable"
    if not isinstance(value, dict):
        return "unparsable"
    return _parse_object({"reasoning": value.get("reasoning", ""), "score": list(_numbers(score_lists[-1], top))}, top)


def _numbers(score_list: re.Match[str], top: float) -> tuple[float, ...]:
    """Return the numbers of a list of scores, with NaN for what is none."""
    body = COMMENT.sub(" ", score_list[1] or score_list[2] or "").strip().removesuffix(",")
    numbers = []
    for part in map(str.strip, body.split(",")):
        text = part.strip("\"'")
        numbers.append(_number(text, top) if text != part or NUMBER.fullmatch(text) else math.nan)
    return tuple(numbers)


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    keys = [key.lower() for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise _DoubledKeyError
    return dict(pairs)

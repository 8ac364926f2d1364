"""What a Label Studio annotation says: the controls' values as numbers and comparisons, the data's paths as files."""

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from annotation.formats.label_studio_answers import ExportedAnswer
from annotation.formats.label_studio_mapping import TIE, LabelStudioMapping
from annotation.formats.preference_order import Groups
from editloop.data.data_origin import published_path_fault
from editloop.data.edits_file import ADDRESS, printable_json
from editloop.data.table_file import parse_number
from editloop.errors import there_are

UNPLACED = "_"
"""The Ranker's bucket of items that nobody moved."""
SIDES = ("left", "right")
UPLOADED = re.compile(r".*?/data/(upload/(?:[^/]+/)*([^/]+))")
LOCAL_FILES = "/data/local-files/"


def control_value(answer: ExportedAnswer, control: str) -> Any:
    """Return what a control says in an answer; None where the annotator left it alone.

    Args:
        answer: The answer.
        control: The control's from_name.

    Raises:
        ValueError: It says several things.
    """
    values = answer.values.get(control, [])
    if len(values) > 1:
        raise ValueError(f"{control}: {len(values)} answers of one control; one is expected")
    return values[0] if values else None


def rated_number(control: str, value: Any, mapping: LabelStudioMapping) -> float:
    """Return the number that a Rating, Number or Choices control gives.

    Args:
        control: Its from_name.
        value: Its value.
        mapping: The mapping, which has the numbers of choices.

    Raises:
        ValueError: It gives none.
    """
    if isinstance(value, dict):
        value = next((value[key] for key in ("rating", "number", "choices") if key in value), value)
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    if isinstance(value, str) and value in mapping.words:
        return mapping.words[value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{control} = {printable_json(value)}: a number with hundreds of digits") from None
    if isinstance(value, str) and not mapping.words:
        try:
            return parse_number(value)
        except ValueError:
            pass
    if isinstance(value, str):
        rule = (
            f"words has no number for it; {there_are(value, mapping.words)}"
            if mapping.words
            else ("a word, not a number; state the number of each in words")
        )
        raise ValueError(f"{control} = {printable_json(value)}: {rule}")
    raise ValueError(f"{control} = {printable_json(value)}: no answer of a Rating, a Number or one of Choices")


def stated_comparisons(control: str, value: Any, mapping: LabelStudioMapping, edits: Sequence[str]) -> list[Groups]:
    """Return the comparisons that a Pairwise, Choices or Ranker control makes.

    Args:
        control: Its from_name.
        value: Its value.
        mapping: The mapping.
        edits: Names of the edits on the page, in its order.

    Raises:
        ValueError: It makes none that can be understood.
    """
    if isinstance(value, dict) and "selected" in value:
        if len(edits) != 2 or value["selected"] not in SIDES:
            raise ValueError(
                f"{control} = {printable_json(value['selected'])}: Pairwise prefers left or right of two edits, and "
                f"the mapping has {len(edits)}"
            )
        side = value["selected"]
        chosen = side if side in edits else edits[SIDES.index(side)]
        return [[[chosen], [name for name in edits if name != chosen]]]
    if isinstance(value, dict) and "ranker" in value:
        return [_ranked(control, value["ranker"], mapping, edits)]
    if isinstance(value, dict) and "choices" in value:
        value = value["choices"]
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    if not isinstance(value, str):
        raise ValueError(f"{control} = {printable_json(value)}: no answer of a Pairwise, a Ranker or one of Choices")
    meaning = mapping.choices.get(value, value if not mapping.choices else "")
    if meaning == TIE:
        return [[list(edits)]]
    if meaning not in edits:
        stated = f"{control} = {printable_json(value)}"
        if mapping.choices:
            raise ValueError(
                f"{stated}: choices does not say which edit it prefers; {there_are(value, mapping.choices)}"
            )
        raise ValueError(f"{stated}: no name of an edit; say in choices which edit each choice prefers, or {TIE}")
    others = [name for name in edits if name != meaning]
    if mapping.others == "equal":
        return [[[meaning], others]]
    return [[[meaning], [name]] for name in others]


def _ranked(control: str, ranker: Any, mapping: LabelStudioMapping, edits: Sequence[str]) -> Groups:
    buckets = ranker if isinstance(ranker, dict) else {"": ranker}
    placed = {str(bucket): list(map(str, items)) for bucket, items in buckets.items() if isinstance(items, list)}
    if unknown := [item for items in placed.values() for item in items if item not in edits]:
        raise ValueError(f"{control}: ranks {printable_json(unknown[0])}; {there_are(unknown[0], edits)}")
    if not mapping.buckets:
        if len(placed) != 1:
            raise ValueError(f"{control}: has the buckets {', '.join(placed)}; state their order in buckets")
        (order,) = placed.values()
        return [[item] for item in order]
    if unnamed := [bucket for bucket in placed if bucket not in mapping.buckets and bucket != UNPLACED]:
        raise ValueError(f"{control}: buckets does not name {unnamed[0]!r}; it has {', '.join(mapping.buckets)}")
    return [placed[bucket] for bucket in mapping.buckets if placed.get(bucket)]


def picture_file(folder: Path, stated: str) -> str:
    """Return the path below a folder of a picture that a task's data states.

    Args:
        folder: Folder of the pictures.
        stated: A path below the folder; `/data/upload/PROJECT/FILE`, which is looked for with and without these
            folders; `/data/local-files/?d=PATH`; or HTML with one <img> of these.

    Raises:
        ValueError: There is no such file, or it is an address. The message is a rule for users.
    """
    if "<" in stated:
        stated = _picture_of_html(stated)
    names = [stated]
    if not ADDRESS.match(stated):
        parts = urlsplit(stated)
        if parts.path.endswith(LOCAL_FILES):
            names = [name.lstrip("/") for name in parse_qs(parts.query).get("d", [stated])]
        elif match := UPLOADED.fullmatch(unquote(parts.path)):
            names = [match[1], match[1].removeprefix("upload/"), match[2]]
    faults = [published_path_fault(folder, name) for name in names]
    usable = next((name for name, fault in zip(names, faults, strict=True) if fault is None), None)
    if usable is None:
        looked_for = f" ({' or '.join(names)})" if names != [stated] else ""
        raise ValueError(f"{printable_json(stated)}: {faults[0]}{looked_for}")
    return usable


class _Pictures(HTMLParser):
    """Collects the addresses of images."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.sources += [value or "" for name, value in attrs if name == "src"]


def _picture_of_html(text: str) -> str:
    parser = _Pictures()
    parser.feed(text)
    if len(parser.sources) != 1:
        raise ValueError(f"{printable_json(text)}: HTML with {len(parser.sources)} pictures; an edit has one")
    return parser.sources[0]

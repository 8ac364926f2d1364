"""Import of another team's Label Studio project, from its export and a mapping file that says what its names mean.

Nothing is downloaded: pictures are files below one folder. Ratings stay ratings. Preferences become ratings by the
ranks that the mapping states, which the dataset's origin repeats.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from annotation.formats.import_folders import NAMES, ImportReport, names_table, write_import
from annotation.formats.judgements_folder import ImportedData
from annotation.formats.label_studio_answers import TABLES, ExportedAnswer, LeftOut, read_answers
from annotation.formats.label_studio_controls import control_value, picture_file, rated_number, stated_comparisons
from annotation.formats.label_studio_mapping import LabelStudioMapping, read_mapping
from annotation.formats.preference_ratings import PreferenceAnswer, ratings_of_answers
from annotation.formats.rated_edits import (
    CandidateKey,
    GivenRating,
    NamedEdit,
    RatedEdits,
    annotator_name,
    in_utc,
)
from annotation.formats.team_table import PATHS_REMEMBERED
from editloop.content import sha256_file
from editloop.data.edits_file import LONGEST_INSTRUCTION, printable_json, stated_path
from editloop.data.row_import import PictureStore, RowImport
from editloop.data.vocabulary import AXES
from editloop.errors import EditLoopError, there_are

FORMAT = "label-studio"
SOURCE = "source"
PictureFinder = Callable[[str], str]
"""`picture_file` of one folder."""
TIME: TypeAdapter[datetime] = TypeAdapter(datetime)
SECONDS: TypeAdapter[float | None] = TypeAdapter(float | None)


class _Page(NamedTuple):
    """What an annotator saw: names, and the paths of the pictures below their folder."""

    task: str
    task_type: str
    instruction: str
    source: str
    references: list[str]
    images: dict[str, str]
    """Path of each edit, by its name, in the order of the page."""
    editors: dict[str, str]


class _AnswerRow(NamedTuple):
    """An answer that is understood. Its pictures have not been opened."""

    page: _Page
    annotator: str
    ratings: dict[str, list[int]]
    """Ratings of each edit that was rated, by name."""
    comparisons: dict[str, list[list[list[str]]]]
    """Comparisons by axis, of names."""
    seconds: float | None
    created_at: str | None


def import_label_studio(
    path: Path, mapping: Path, candidates: Path, judgements: Path, *, images: Path | None = None, strict: bool = False
) -> ImportReport:
    """Import a Label Studio project as a candidates and a judgements folder.

    Args:
        path: The export: JSON, JSON_MIN or CSV.
        mapping: The mapping file (`LabelStudioMapping`).
        candidates: Candidates folder to write.
        judgements: Judgements folder to write. Answers that were left out are listed in its `skipped.txt`.
        images: Folder of the pictures; None for that of the export.
        strict: Refuse answers with faults instead of leaving them out.

    Raises:
        EditLoopError: Nothing can be read, the mapping names what the export does not have, no answer is left, or
            `strict` and some answers have faults. Nothing is written.
    """
    settings, folder = read_mapping(mapping), images or path.resolve().parent
    _check_names(path, mapping, settings)
    left_out = LeftOut()

    def read(file: Path, skip: int) -> Iterator[tuple[str, _AnswerRow | str]]:
        left_out.clear()
        find_picture = lru_cache(PATHS_REMEMBERED)(partial(picture_file, folder))
        yield from islice(_understood(file, settings, find_picture, left_out), skip, None)

    rows = RowImport(path, [path], candidates, [FORMAT, settings.model_dump(mode="json"), str(folder)])
    edits, pictures, count = RatedEdits(), dict[str, str](), 0
    preferences: dict[tuple[str, str], list[PreferenceAnswer]] = defaultdict(list)
    named: dict[str, str] = {}
    """Path of each edit that was compared, by candidate id, for messages."""
    for location, value in rows.store_rows(read, _storer(folder), "answers imported"):
        try:
            keys = _add_page(edits, location, value)
        except ValueError as rule:
            rows.skip(location, str(rule))
            continue
        for fault in _add_ratings(edits, location, keys, value):
            rows.skip(location, fault)
        if value["comparisons"]:
            task = next(iter(keys.values()))[0]
            preferences[task, value["annotator"]].append(_preference(location, keys, value))
            named |= {candidate: value["pictures"][f"edit {name}"][0] for name, (_, candidate) in keys.items()}
        pictures |= {name: file_sha256 for name, _, file_sha256 in value["pictures"].values()}
        count += 1
    for (task, annotator), answers in preferences.items():
        ranked, unused = ratings_of_answers(annotator, answers, settings.ranks, named)
        for location, reason in unused:
            rows.skip(location, reason)
        count -= len({location for location, _ in unused})
        for edit in ranked:
            edits.add_rating(edit.location, (task, edit.candidate), edit.rating)
    judged = edits.judgements()
    rows.check(len(judged), strict=strict)
    files = rows.digests | {mapping.name: sha256_file(mapping)}
    origin = ImportedData(path.resolve().name, f"{FORMAT} {_kind(path)}, {settings.rule}", files, pictures)
    more = {NAMES: names_table(edits.names()), "mapping.yaml": mapping.read_text(encoding="utf-8-sig")}
    write_import(rows, candidates, judgements, edits.tasks(), judged, origin, more)
    return ImportReport(count, len(edits.tasks()), len(judged), tuple(rows.skipped), tuple(left_out.notes()))


def _kind(path: Path) -> str:
    return "table" if path.suffix.lower() in TABLES else "JSON"


def _check_names(path: Path, mapping: Path, settings: LabelStudioMapping) -> None:
    """Refuse a mapping with a name that no answer of the export has."""
    keys, controls = dict[str, None](), dict[str, None]()
    unknown_keys, unknown_controls = dict(settings.data_keys), dict(settings.controls)
    for _, answer in read_answers(path, LeftOut()):
        if isinstance(answer, ExportedAnswer):
            keys |= dict.fromkeys(answer.data)
            controls |= dict.fromkeys(answer.values)
            unknown_keys = {setting: key for setting, key in unknown_keys.items() if key not in answer.data}
            unknown_controls = {
                setting: name for setting, name in unknown_controls.items() if name not in answer.values
            }
            if not unknown_keys and not unknown_controls:
                return
    faults = [
        f"{mapping}: {setting} = {key}: no task of {path.name} has this key; {there_are(key, keys)}"
        for setting, key in unknown_keys.items()
    ] + [
        f"{mapping}: {setting} = {control}: no answer of {path.name} has this control; {there_are(control, controls)}"
        for setting, control in unknown_controls.items()
    ]
    if keys:
        raise EditLoopError("\n".join(faults))


def _understood(
    file: Path, mapping: LabelStudioMapping, find_picture: PictureFinder, left_out: LeftOut
) -> Iterator[tuple[str, _AnswerRow | str]]:
    for place, answer in read_answers(file, left_out):
        if isinstance(answer, str):
            yield place, answer
            continue
        try:
            yield place, _answer_row(answer, mapping, find_picture)
        except ValueError as rule:
            yield place, str(rule)


def _answer_row(answer: ExportedAnswer, mapping: LabelStudioMapping, find_picture: PictureFinder) -> _AnswerRow:
    page = _page(answer.data, mapping, find_picture)
    ratings = _ratings(answer, mapping)
    comparisons: dict[str, list[list[list[str]]]] = {}
    for axis, control in mapping.preferences.items():
        value = control_value(answer, control)
        if value is not None:
            comparisons[axis] = stated_comparisons(control, value, mapping, list(page.images))
    if (mapping.preferences and len(comparisons) < len(AXES)) or (mapping.ratings and not ratings):
        controls = dict.fromkeys(mapping.controls.values())
        lacking = [control for control in controls if control not in answer.values]
        raise ValueError(f"no answer of {', '.join(lacking)}; answered are {', '.join(answer.values) or 'none'}")
    return _AnswerRow(
        page, _annotator(answer.annotator, mapping), ratings, comparisons, _seconds(answer), _created_at(answer)
    )


def _page(data: dict[str, Any], mapping: LabelStudioMapping, find_picture: PictureFinder) -> _Page:
    images, editors = dict[str, str](), dict[str, str]()
    if mapping.items:
        entries = data.get(mapping.items.key)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError(f"{mapping.items.key}: no list of mappings in the task's data")
        for entry in entries:
            name = _text(entry, mapping.items.id)
            if name in images:
                raise ValueError(f"{mapping.items.key}: two entries with {mapping.items.id} {printable_json(name)}")
            images[name] = _picture(entry, mapping.items.image, find_picture)
            if mapping.items.editor:
                editors[name] = _text(entry, mapping.items.editor)
    for name, key in mapping.images.items():
        images[name] = _picture(data, key, find_picture)
    editors |= {name: _text(data, key) for name, key in mapping.editors.items()}
    instruction = _text(data, mapping.instruction)
    if len(instruction) > LONGEST_INSTRUCTION:
        raise ValueError(f"{mapping.instruction}: {len(instruction):,} characters; at most {LONGEST_INSTRUCTION:,}")
    return _Page(
        _text(data, mapping.task) if mapping.task else "",
        _text(data, mapping.type) if mapping.type else "edit",
        instruction,
        _picture(data, mapping.source, find_picture),
        [_picture(data, key, find_picture) for key in mapping.references],
        images,
        editors,
    )


def _text(data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    if value is None:
        raise ValueError(f"{key}: not in the task's data; {there_are(key, data)}")
    if isinstance(value, dict | list | bool) or not str(value).strip():
        raise ValueError(f"{key} = {printable_json(value)}: a text is wanted")
    return str(value).strip()


def _picture(data: dict[str, Any], key: str, find_picture: PictureFinder) -> str:
    try:
        return find_picture(_text(data, key))
    except ValueError as rule:
        raise ValueError(str(rule) if str(rule).startswith(key) else f"{key} = {rule}") from None


def _ratings(answer: ExportedAnswer, mapping: LabelStudioMapping) -> dict[str, list[int]]:
    """Return the ratings of each edit that was rated, 1..4."""
    ratings: dict[str, list[int]] = {}
    for name, controls in mapping.ratings.items():
        values = {axis: control_value(answer, controls[axis]) for axis in AXES}
        lacking = [controls[axis] for axis in AXES if values[axis] is None]
        if len(lacking) == len(AXES):
            continue
        if lacking:
            raise ValueError(f"{lacking[0]}: no answer; a rating of {name} has both axes, or none at all")
        ratings[name] = []
        for axis in AXES:
            number = rated_number(controls[axis], values[axis], mapping)
            try:
                ratings[name].append(mapping.rating_scale.rating(number))
            except ValueError as rule:
                raise ValueError(f"{controls[axis]} = {number:g}: {rule}") from None
    return ratings


def _annotator(exported: Any, mapping: LabelStudioMapping) -> str:
    """Return the account name of an annotator, who is exported as an id, an address, or a mapping with both."""
    stated = exported
    if isinstance(exported, dict):
        stated = exported.get("email") or exported.get("id")
    if stated in (None, ""):
        raise ValueError("completed_by: nobody; the account was deleted")
    by_text = {str(key): name for key, name in mapping.annotators.items()}
    try:
        return annotator_name(by_text.get(str(stated), str(stated)))
    except ValueError as rule:
        raise ValueError(f"completed_by: {rule}; say in annotators who that is") from None


def _seconds(answer: ExportedAnswer) -> float | None:
    try:
        return SECONDS.validate_python(answer.seconds)
    except ValidationError:
        return None


def _created_at(answer: ExportedAnswer) -> str | None:
    try:
        return in_utc(TIME.validate_python(answer.created_at)).isoformat()
    except ValidationError:
        return None


def _storer(folder: Path) -> Callable[[_AnswerRow, PictureStore], dict[str, Any]]:
    def store(row: _AnswerRow, pictures: PictureStore) -> dict[str, Any]:
        stored = {}
        paths = {SOURCE: row.page.source}
        paths |= {f"reference {number}": path for number, path in enumerate(row.page.references, start=1)}
        paths |= {f"edit {name}": path for name, path in row.page.images.items()}
        for name, stated in paths.items():
            picture = pictures.put(stated_path(folder, stated), f"{name} = {printable_json(stated)}")
            stored[name] = [stated, picture.sha256, picture.file_sha256]
        return {**row._asdict(), "page": row.page._asdict(), "pictures": stored}

    return store


def _add_page(edits: RatedEdits, location: str, value: dict[str, Any]) -> dict[str, CandidateKey]:
    """Add the edits of a page, and return their keys by name, in the page's order."""
    page, pictures = value["page"], value["pictures"]
    first: dict[str, str] = {}
    for name in page["images"]:
        image = pictures[f"edit {name}"][1]
        if image in first:
            raise ValueError(f"edits {first[image]} and {name} are the same picture")
        first[image] = name
    references = tuple(pictures[f"reference {number}"][1] for number in range(1, len(page["references"]) + 1))
    return {
        name: edits.add_edit(
            location,
            NamedEdit(
                task=page["task"],
                task_type=page["task_type"],
                instruction=page["instruction"],
                source=pictures[SOURCE][1],
                references=references,
                candidate="",
                image=pictures[f"edit {name}"][1],
                editor=page["editors"].get(name, "unknown"),
            ),
        )
        for name in page["images"]
    }


def _add_ratings(
    edits: RatedEdits, location: str, keys: dict[str, CandidateKey], value: dict[str, Any]
) -> Iterator[str]:
    """Add the ratings of an answer; yield what is wrong with those that cannot be."""
    positions = {name: number for number, name in enumerate(keys)}
    for name, (following, quality) in value["ratings"].items():
        rating = GivenRating(
            value["annotator"], (following, quality), positions[name], value["seconds"], _time_of(value)
        )
        try:
            edits.add_rating(location, keys[name], rating)
        except ValueError as rule:
            yield f"edit {name}: {rule}"


def _preference(location: str, keys: dict[str, CandidateKey], value: dict[str, Any]) -> PreferenceAnswer:
    comparisons = {
        axis: [
            [[keys[name][1] for name in group] for group in groups if group] for groups in value["comparisons"][axis]
        ]
        for axis in AXES
    }
    positions = {candidate: number for number, (_, candidate) in enumerate(keys.values())}
    return PreferenceAnswer(location, comparisons, positions, value["seconds"], _time_of(value))


def _time_of(value: dict[str, Any]) -> datetime | None:
    return None if value["created_at"] is None else datetime.fromisoformat(value["created_at"])

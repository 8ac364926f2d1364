"""Import of EditScore-Reward-Data, the conversations with which EditScore was trained (arXiv 2509.23909), as published.

`reward.json` is a list of conversations of one turn, and beside it lie the pictures:

    {"conversations": [{"from": "human", "value": "<image><image>... Editing instruction: Make it red."},
                       {"from": "gpt", "value": "{\\"reasoning\\": ..., \\"score\\": [20, 18]}"}],
     "images": ["images/0.png", "images/1.png"]}

Two pictures, source and edit, are the question SC; one picture, the edit, is PQ. The prompt's wording is not kept: a
model is trained with its own, and the instruction is cut out of SC's prompts by the text before it. A conversation
becomes a row of its own. Rows of one source are a group, in which the PQ of an edit is with its SC.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from editloop.content import complete_folder, write_file
from editloop.data.data_origin import published_path_fault, write_origin
from editloop.data.edits_file import printable_json, stated_path
from editloop.data.json_rows import count_lines, read_json_rows, row_faults, rows_file
from editloop.data.row_import import SKIPPED, PictureStore, Reader, RowImport
from editloop.errors import EditLoopError
from editloop.models.edit_score.answers import ParsedAnswer, parse_answer
from editloop.training.edit_score.distillation import (
    LONGEST_TAUGHT,
    DistillationReasons,
    DistillationRow,
    split_writer,
)

FORMAT = "editscore"
BEFORE_INSTRUCTION = "Editing instruction:"
"""Text before the instruction in the published prompts of SC."""
MARK = "<image>"
"""Stands in a prompt for a picture."""
HUMAN, JUDGE = ("human", "user"), ("gpt", "assistant")
"""Names of the speakers."""
PROMPTS_TRIED = 100
"""Prompts of SC of which one must have the text before the instruction, or the import ends before it has begun."""
PROMPT_SHOWN = 80
"""Characters of a prompt's end in a message."""


class Wording(NamedTuple):
    """What stands around the instruction in SC's prompts."""

    before: str = BEFORE_INSTRUCTION
    after: str = ""
    """Empty where the instruction ends the prompt."""

    def instruction(self, prompt: str) -> str | None:
        """Return the instruction of a prompt; None where what stands around it is not there, or there twice.

        Args:
            prompt: The prompt.
        """
        if prompt.count(self.before) != 1:
            return None
        text = prompt.partition(self.before)[2]
        if self.after:
            text, end, _ = text.rpartition(self.after)
            if not end:
                return None
        return text.replace(MARK, "").strip()


class ImportedConversations(NamedTuple):
    """What an import made."""

    sc: int
    """Answers to SC."""
    pq: int
    """Answers to PQ."""
    pictures: int
    skipped: tuple[str, ...]
    """A message for each row that was left out."""


class _Turn(BaseModel):
    model_config = ConfigDict(extra="ignore")

    speaker: str = Field(alias="from")
    value: str


class _Conversation(BaseModel):
    model_config = ConfigDict(extra="ignore")

    conversations: list[_Turn]
    images: list[str]


class _JudgedPictures(NamedTuple):
    """What a conversation says."""

    instruction: str
    """Empty for PQ."""
    images: tuple[str, ...]
    """Paths as stated: source and edit, or the edit alone."""
    points: tuple[float, float]
    reasoning: str


def import_conversations(
    path: Path, output: Path, *, top: int = 25, wording: Wording | None = None, strict: bool = False
) -> ImportedConversations:
    """Import conversations as a folder that EditScore is trained on. A call that was stopped goes on where it was.

    Args:
        path: The file with the conversations, or a folder with one such file.
        output: Folder to write. Rows that were left out are listed in its `skipped.txt`.
        top: Highest point of the answers' scale; the lowest is 0.
        wording: What stands around the instruction in SC's prompts; None for the published wording.
        strict: Refuse rows with faults instead of leaving them out.

    Raises:
        EditLoopError: Nothing can be read, no row is left, SC's prompts have another wording, or `strict` and some rows
            have faults. Nothing is written.
    """
    file, wording = rows_file(path), wording or Wording()
    _check_wording(file, wording)
    rows = RowImport(path, [file], output, [FORMAT, top, wording])
    pictures: dict[str, str] = {}
    sources: dict[str, str] = {}
    images: set[str] = set()
    counts = {"sc": 0, "pq": 0}
    total = count_lines(file)
    for _, value in rows.store_rows(_reader(top, wording), _store_conversation, "conversations imported", total):
        names, identities, digests = value["images"], value["pictures"], value["files"]
        pictures |= dict(zip(names, digests, strict=True))
        images |= set(identities)
        counts["sc" if len(identities) == 2 else "pq"] += 1
        if len(identities) == 2:
            sources.setdefault(identities[1], identities[0])
    rows.check(sum(counts.values()), strict=strict)
    facts: dict[str, Any] = {"taught": sum(counts.values()), "top": top, "counts": counts}
    with complete_folder(output, facts) as folder:
        rows.link_images(folder / "images", images)
        with split_writer(folder) as write:
            for value in rows.stored_rows():
                write(_taught_row(value, sources))
        write_file(folder / SKIPPED, rows.skipped_text())
        facts |= write_origin(folder, path.resolve().name, FORMAT, rows.digests, pictures)
    rows.remove()
    return ImportedConversations(counts["sc"], counts["pq"], len(images), tuple(rows.skipped))


def _check_wording(file: Path, wording: Wording) -> None:
    """Raise an error where none of the first prompts of SC has the text before the instruction."""
    parsed = (_parse(row) for _, row in read_json_rows(file) if not isinstance(row, str))
    asked = (row.prompt for row in parsed if isinstance(row, _Parsed) and len(row.images) == 2)
    prompts = list(islice(asked, PROMPTS_TRIED))
    if prompts and all(wording.instruction(prompt) is None for prompt in prompts):
        raise EditLoopError(
            f"{file}: none of {len(prompts)} prompts about two pictures has {wording.before!r} once; the first ends "
            f"{prompts[0][-PROMPT_SHOWN:]!r}. Say by --instruction-after what stands before the instruction."
        )


class _Parsed(NamedTuple):
    """A conversation of one turn."""

    prompt: str
    answer: str
    images: tuple[str, ...]


def _parse(value: dict[str, Any]) -> _Parsed | str:
    """Return the prompt, the answer and the images of a row, or what is wrong with it."""
    try:
        row = _Conversation.model_validate(value)
    except ValidationError as error:
        return row_faults(error)
    turns = row.conversations
    if [turn.speaker in names for turn, names in zip(turns, (HUMAN, JUDGE), strict=False)] != [True, True] or len(
        turns
    ) > 2:
        return (
            f"conversations: {' and '.join(turn.speaker for turn in turns) or 'nobody'} speak; human asks, gpt answers"
        )
    prompt, answer = (turn.value for turn in turns)
    if len(row.images) not in (1, 2):
        return f"images: {len(row.images)} pictures; SC shows source and edit, PQ the edit alone"
    if prompt.count(MARK) != len(row.images):
        return f"conversations: {prompt.count(MARK)} marks {MARK} for {len(row.images)} pictures"
    return _Parsed(prompt, answer, tuple(row.images))


def _judged_pictures(value: dict[str, Any], top: int, wording: Wording) -> _JudgedPictures | str:
    """Return what a conversation says, or what is wrong with it."""
    parsed, instruction = _parse(value), ""
    if isinstance(parsed, str):
        return parsed
    if len(parsed.images) == 2:
        cut = wording.instruction(parsed.prompt)
        if cut is None:
            times = parsed.prompt.count(wording.before)
            return f"prompt: {wording.before!r} {times} times; it stands once, before the instruction"
        if not 0 < len(cut) <= LONGEST_TAUGHT:
            return f"instruction: {len(cut):,} characters; 1 to {LONGEST_TAUGHT:,}"
        instruction = cut
    answer = parse_answer(parsed.answer, top)
    if not isinstance(answer, ParsedAnswer):
        return f"answer: {answer}; two points of 0 to {top} with reasoning are one"
    return _JudgedPictures(instruction, parsed.images, answer.points, answer.reasoning)


def _reader(top: int, wording: Wording) -> Reader[tuple[Path, _JudgedPictures]]:
    def rows(file: Path) -> Iterator[tuple[str, tuple[Path, _JudgedPictures] | str]]:
        for place, row in read_json_rows(file):
            judged = row if isinstance(row, str) else _judged_pictures(row, top, wording)
            yield place, judged if isinstance(judged, str) else (file.parent, judged)

    return lambda file, skip: islice(rows(file), skip, None)


def _store_conversation(row: tuple[Path, _JudgedPictures], pictures: PictureStore) -> dict[str, Any] | str:
    """Store a conversation's images; its values, or what is wrong with it."""
    folder, judged = row
    for name in judged.images:
        if fault := published_path_fault(folder, name):
            return f"images = {printable_json(name)}: {fault}"
    stored = [pictures.put(stated_path(folder, name), f"images = {printable_json(name)}") for name in judged.images]
    return {
        "instruction": judged.instruction,
        "images": list(judged.images),
        "pictures": [picture.sha256 for picture in stored],
        "files": [picture.file_sha256 for picture in stored],
        "points": list(judged.points),
        "reasoning": judged.reasoning,
    }


def _taught_row(value: dict[str, Any], sources: dict[str, str]) -> DistillationRow:
    """Return the row of a stored conversation.

    Args:
        value: What the journal has of it.
        sources: Source of each edit of which there is an answer to SC.
    """
    *source, edit = value["pictures"]
    question: Literal["sc", "pq"] = "sc" if source else "pq"
    group = source[0] if source else sources.get(edit)
    return DistillationRow.model_validate(
        {
            "key": group or edit,
            "instruction": value["instruction"],
            "source": group,
            "edit": edit,
            question: value["points"],
            "reasoning": DistillationReasons(**{question: value["reasoning"]}),
        }
    )

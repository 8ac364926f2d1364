"""Build the prompts: questions about edits as rows of tokens and images, in Qwen's chat format.

    <|im_start|>system ... <|im_end|>
    <|im_start|>user [mark] <picture> [[mark] <picture>]... question <|im_end|>
    <|im_start|>assistant answer <|im_end|>

Only this module adds control tokens. The text of an instruction, an answer or a prompt is data, whatever it contains.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from editloop.errors import EditLoopError
from editloop.models.backbones.picture_inputs import (
    Patches,
    check_picture,
    paired_patches,
    patches_of,
    patching_of,
    scaled_picture,
    scaled_size,
)
from editloop.models.backbones.prefix_tree import Markers, Node, markers, pack
from editloop.models.backbones.text import control_id, text_ids, truncate_text
from editloop.models.edit_score.settings import DIGITS, INSTRUCTION, EditScoreSettings
from editloop.models.judge_protocol import EditGroup, note_on_references

START, END = "<|im_start|>", "<|im_end|>"
"""Control tokens around a turn."""
PromptPart = tuple[int, ...] | Patches
"""Token ids, or an image."""


@dataclass(frozen=True)
class PromptRow:
    """A prompt and, in training, the answer to learn."""

    prompt: tuple[PromptPart, ...]
    """Token ids and images. Each image is placed between its vision start and end tokens."""
    answer: tuple[int, ...] = ()
    """Token ids; empty where the model is to answer."""

    def tokens(self, marks: Markers) -> int:
        """Return the length of the prompt in tokens.

        Args:
            marks: Markers of the backbone.
        """
        return sum(part.tokens(marks.merge) + 2 if isinstance(part, Patches) else len(part) for part in self.prompt)


class QuestionRows(NamedTuple):
    """The prompts of both questions about one edit."""

    sc: PromptRow
    pq: PromptRow


class RowMaker:
    """Builds the rows for one backbone from its config, tokenizer and settings, on the CPU and without weights."""

    def __init__(self, config: Any, tokenizer: PreTrainedTokenizerBase, settings: EditScoreSettings):
        """Look up the control tokens and the image sizes.

        Args:
            config: Configuration of a Qwen2.5-VL or Qwen3-VL model.
            tokenizer: The model's tokenizer.
            settings: The questions, and how they are answered.

        Raises:
            EditLoopError: The tokenizer lacks a control token.
        """
        self.tokenizer, self.settings, self.marks = tokenizer, settings, markers(config)
        self.patching = patching_of(config, settings)
        self.start, self.end = (control_id(tokenizer, token) for token in (START, END))

    def ask(self, group: EditGroup) -> list[QuestionRows]:
        """Build the prompts of SC and PQ for each edit of a group.

        SC shows the source, the references and the edit, in this order. PQ shows the edit alone, without the
        instruction.

        Args:
            group: The group.

        Raises:
            EditLoopError: A source, a reference or an edit is not an image that the model can read, or the model shows
                `paired` images and the group has references.
        """
        sc, pq = self.settings.questions
        instruction = truncate_text(self.tokenizer, group.instruction, self.settings.instruction_tokens)
        sc_text = note_on_references(self.settings.reference_note, len(group.references)) + sc.text.replace(
            INSTRUCTION, instruction
        )
        return [
            QuestionRows(self._prompt(sc_pictures, sc_text), self._prompt((pq_picture,), pq.text))
            for sc_pictures, pq_picture in self._pictures(group)
        ]

    def points(self, questions: QuestionRows) -> tuple[PromptRow, ...]:
        """Begin an answer for each of the four points, so that the next token is a digit.

        Scoring without reasoning uses these prompts.

        Args:
            questions: The prompts of both questions about an edit.

        Returns:
            Four prompts, in the order of AXES.
        """
        return tuple(
            replace(row, prompt=(*row.prompt, self._text(f"{axis}: ")))
            for row, question in zip(questions, self.settings.questions, strict=True)
            for axis in question.axes
        )

    def answered(self, row: PromptRow, answer: str) -> PromptRow:
        """Return the row with an answer to learn. With reasoning the answer also ends its turn.

        Args:
            row: The prompt.
            answer: Text of the answer.
        """
        return replace(row, answer=(*self._text(answer), *((self.end,) if self.settings.reasoning else ())))

    def text(self, answer: Sequence[int]) -> str:
        """Decode an answer up to the end of its turn. Other control tokens in it stay visible.

        Args:
            answer: Token ids.
        """
        token_ids = answer[: answer.index(self.end)] if self.end in answer else answer
        return str(
            self.tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        )

    def digits(self) -> list[int]:
        """Return the token ids of the digits 0..5.

        Raises:
            EditLoopError: The tokenizer has no single token for a digit.
        """
        tokens = [self._text(digit) for digit in DIGITS]
        if any(len(ids) != 1 for ids in tokens):
            raise EditLoopError(
                f"tokenizer: the digits {DIGITS} are not a token each ({tokens}); judging without reasoning needs that."
            )
        return [ids[0] for ids in tokens]

    def _pictures(self, group: EditGroup) -> list[tuple[tuple[Patches, ...], Patches]]:
        """Return the images that SC and PQ show, for each edit."""
        if self.settings.pictures == "separate":
            sources = [patches_of(picture, self.patching) for picture in (group.source, *group.references)]
            edits = [patches_of(edit, self.patching) for edit in group.edits]
            return [((*sources, edit), edit) for edit in edits]
        if group.references:
            raise EditLoopError(
                f"{group.key or 'a group'}: {len(group.references)} reference image(s); a model that shows `paired` "
                "pictures reads source and edit as the two frames of one image, and has no place for others. Use one "
                "with `pictures: separate`."
            )
        check_picture(group.source, "source")
        height, width, _ = group.source.shape
        size = scaled_size(height, width, self.patching)
        first, scaled = scaled_picture(group.source, size), [scaled_picture(edit, size) for edit in group.edits]
        return [
            ((paired_patches(first, edit, self.patching),), paired_patches(edit, edit, self.patching))
            for edit in scaled
        ]

    def _prompt(self, pictures: tuple[Patches, ...], text: str) -> PromptRow:
        newline, system = self._text("\n"), self.settings.system
        opening = (self.start, *self._text("system\n" + system), self.end, *newline) if system else ()
        marks = [self.settings.mark(number + 1) for number in range(len(pictures))]
        parts: list[PromptPart] = [(*opening, self.start, *self._text("user\n" + marks[0])), pictures[0]]
        for mark, picture in zip(marks[1:], pictures[1:], strict=True):
            parts += [self._text(mark), picture] if mark else [picture]
        closing = (*self._text(text), self.end, *newline, self.start, *self._text("assistant\n"))
        return PromptRow((*parts, closing))

    def _text(self, text: str) -> tuple[int, ...]:
        return tuple(text_ids(self.tokenizer, text))


class PackedRows(NamedTuple):
    """Rows packed into one sequence, in which shared beginnings come once."""

    tensors: dict[str, Tensor]
    """The tensors of `prefix_tree.pack`. With answers of M tokens in all, row after row, also `targets` (M,), their
    ids, and `before` (M,), the position of the token before each."""
    paths: list[Tensor]
    """For each row the positions of its tokens in the packed sequence."""


def pack_rows(rows: Sequence[PromptRow], marks: Markers) -> PackedRows:
    """Pack rows into one sequence, on the CPU.

    Beginnings that are equal in whole parts are packed once; equal images are encoded once. An answer is one part.
    Where rows have answers, no row may be the beginning of another.

    Args:
        rows: Prompts, with or without answers.
        marks: Markers of the backbone.
    """
    sequences = [(*row.prompt, row.answer) if row.answer else row.prompt for row in rows]
    forest, ends = shared_forest(sequences)
    tensors = pack(forest, marks)
    spans = [torch.arange(start, start + length) for start, length, _ in tensors["nodes"].tolist()]
    parents = tensors["nodes"][:, 2].tolist()

    def path(node: int) -> Tensor:
        return torch.cat([path(parents[node]), spans[node]]) if parents[node] >= 0 else spans[node]

    paths = [path(end) for end in ends]
    answers = [(row_path, row.answer) for row_path, row in zip(paths, rows, strict=True) if row.answer]
    if answers:
        tensors["targets"] = torch.cat([torch.tensor(answer) for _, answer in answers])
        tensors["before"] = torch.cat([row_path[-len(answer) - 1 : -1] for row_path, answer in answers])
    return PackedRows(tensors, paths)


def shared_forest(sequences: Sequence[Sequence[PromptPart]]) -> tuple[list[Node], list[int]]:
    """Build the forest of the sequences' common beginnings.

    Args:
        sequences: Sequences of parts. Each has at least one part.

    Returns:
        The root nodes, and for each sequence the depth-first index of the node with which it ends.
    """
    ends, count = [-1] * len(sequences), 0

    def grow(members: list[int], depth: int) -> tuple[Node, ...]:
        """Return the nodes of sequences that are equal before part `depth` and have such a part."""
        nonlocal count
        branches: dict[object, list[int]] = {}
        for member in members:
            branches.setdefault(_key(sequences[member][depth]), []).append(member)
        nodes = []
        for branch in branches.values():
            end = depth + 1
            while all(len(sequences[member]) > end for member in branch) and _share_next_part(sequences, branch, end):
                end += 1
            for member in branch:
                if len(sequences[member]) == end:
                    ends[member] = count
            count += 1
            longer = [member for member in branch if len(sequences[member]) > end]
            nodes.append(Node(tuple(sequences[branch[0]][depth:end]), grow(longer, end)))
        return tuple(nodes)

    return list(grow(list(range(len(sequences))), 0)), ends


def _share_next_part(sequences: Sequence[Sequence[PromptPart]], branch: list[int], depth: int) -> bool:
    return len({_key(sequences[member][depth]) for member in branch}) == 1


def _key(part: PromptPart) -> object:
    return part.digest if isinstance(part, Patches) else part

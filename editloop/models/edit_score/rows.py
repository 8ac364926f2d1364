"""Questions as rows of tokens and pictures, in Qwen's chat format.

    <|im_start|>system ... <|im_end|>
    <|im_start|>user <picture> [<picture>] question <|im_end|>
    <|im_start|>assistant answer <|im_end|>

Control tokens come from here alone: the text of an instruction, an answer or a prompt is data, whatever it spells.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from editloop.errors import EditLoopError
from editloop.models.backbones.picture_inputs import (
    Patches,
    Patching,
    check_picture,
    paired_patches,
    patches_of,
    scaled_size,
)
from editloop.models.backbones.prefix_tree import Markers, Node, markers, pack
from editloop.models.backbones.text import control_id, text_ids, truncate_text
from editloop.models.edit_score.settings import DIGITS, INSTRUCTION, EditScoreSettings
from editloop.models.judge_protocol import EditGroup, Picture

START, END = "<|im_start|>", "<|im_end|>"
PromptPart = tuple[int, ...] | Patches


@dataclass(frozen=True)
class PromptRow:
    """A prompt, and the answer that is to be learnt."""

    prompt: tuple[PromptPart, ...]
    """Token ids, and pictures, each of which stands between its vision start and end tokens."""
    answer: tuple[int, ...] = ()
    """Token ids; empty where an answer is asked for."""

    def tokens(self, marks: Markers) -> int:
        """Length of the prompt."""
        return sum(part.tokens(marks.merge) + 2 if isinstance(part, Patches) else len(part) for part in self.prompt)


class QuestionRows(NamedTuple):
    """Both questions about one edit."""

    sc: PromptRow
    pq: PromptRow


class RowMaker:
    """Makes rows for one backbone's config, tokenizer and settings. On the CPU, without weights."""

    def __init__(self, config: Any, tokenizer: PreTrainedTokenizerBase, settings: EditScoreSettings):
        """config: of a Qwen2.5-VL or Qwen3-VL."""
        vision = config.vision_config
        self.tokenizer, self.settings, self.marks = tokenizer, settings, markers(config)
        self.patching = Patching(
            vision.patch_size,
            vision.spatial_merge_size,
            settings.min_pixels,
            settings.max_pixels,
            settings.image_mean,
            settings.image_std,
            vision.temporal_patch_size,
        )
        self.start, self.end = (control_id(tokenizer, token) for token in (START, END))

    def ask(self, group: EditGroup) -> list[QuestionRows]:
        """SC and PQ about each edit of a group. PQ's row has nothing of the source, and nothing of the instruction."""
        sc, pq = self.settings.questions
        instruction = truncate_text(self.tokenizer, group.instruction, self.settings.instruction_tokens)
        sc_text = sc.text.replace(INSTRUCTION, instruction)
        return [
            QuestionRows(self._prompt(sc_pictures, sc_text), self._prompt((pq_picture,), pq.text))
            for sc_pictures, pq_picture in self._pictures(group)
        ]

    def points(self, questions: QuestionRows) -> tuple[PromptRow, ...]:
        """An answer begun for each of the four points, whose next token is a digit: for scoring without reasoning."""
        return tuple(
            replace(row, prompt=(*row.prompt, self._text(f"{axis}: ")))
            for row, question in zip(questions, self.settings.questions, strict=True)
            for axis in question.axes
        )

    def answered(self, row: PromptRow, answer: str) -> PromptRow:
        """The row with the answer that is to be learnt; one with reasoning also ends its turn."""
        return replace(row, answer=(*self._text(answer), *((self.end,) if self.settings.reasoning else ())))

    def text(self, answer: Sequence[int]) -> str:
        """What an answer's token ids say, up to the end of its turn; other control tokens in it stay visible."""
        token_ids = answer[: answer.index(self.end)] if self.end in answer else answer
        return str(
            self.tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        )

    def digits(self) -> list[int]:
        """Token ids of the digits 0..5; EditLoopError for a tokenizer that has no token for each."""
        tokens = [self._text(digit) for digit in DIGITS]
        if any(len(ids) != 1 for ids in tokens):
            raise EditLoopError(
                f"tokenizer: the digits {DIGITS} are not a token each ({tokens}); judging without reasoning needs that."
            )
        return [ids[0] for ids in tokens]

    def _pictures(self, group: EditGroup) -> list[tuple[tuple[Patches, ...], Patches]]:
        """What SC and PQ show of each edit."""
        if self.settings.pictures == "separate":
            source = patches_of(group.source, self.patching)
            edits = [patches_of(edit, self.patching) for edit in group.edits]
            return [((source, edit), edit) for edit in edits]
        check_picture(group.source, "source")
        height, width, _ = group.source.shape
        size = scaled_size(height, width, self.patching)
        first, scaled = _scaled(group.source, size), [_scaled(edit, size) for edit in group.edits]
        return [
            ((paired_patches(first, edit, self.patching),), paired_patches(edit, edit, self.patching))
            for edit in scaled
        ]

    def _prompt(self, pictures: tuple[Patches, ...], text: str) -> PromptRow:
        newline, system = self._text("\n"), self.settings.system
        opening = (self.start, *self._text("system\n" + system), self.end, *newline) if system else ()
        user = (*opening, self.start, *self._text("user\n"))
        closing = (*self._text(text), self.end, *newline, self.start, *self._text("assistant\n"))
        return PromptRow((user, *pictures, closing))

    def _text(self, text: str) -> tuple[int, ...]:
        return tuple(text_ids(self.tokenizer, text))


class PackedRows(NamedTuple):
    """Rows as one sequence in which what they share stands once."""

    tensors: dict[str, Tensor]
    """As `prefix_tree.pack` makes them, and for the M tokens of the answers, row after row: `targets` (M,) their ids,
    `before` (M,) the place of the token that each follows."""
    paths: list[Tensor]
    """For each row, the places of its tokens in the packed sequence, in the row's order."""


def pack_rows(rows: Sequence[PromptRow], marks: Markers) -> PackedRows:
    """Tensors of the rows on the CPU. Equal beginnings, of whole parts, are packed once; equal pictures are seen once.

    With answers, no row may go on where another ends: each answer stands alone or beside others.
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
    """The tree of the sequences' common beginnings, and the depth-first number of the node with which each ends."""
    ends, count = [-1] * len(sequences), 0

    def grow(members: list[int], depth: int) -> tuple[Node, ...]:
        """Nodes of the sequences that are alike before part `depth` and go on there."""
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


def _scaled(picture: Picture, size: tuple[int, int]) -> Picture:
    check_picture(picture)
    if picture.shape[:2] == size:
        return picture
    return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.BICUBIC))

"""Build the inputs of a reward model: groups of edits as prefix trees, in which shared parts come once."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from editloop.data.picture_size import resized
from editloop.datasets.preference_groups import PreferenceGroup
from editloop.errors import EditLoopError
from editloop.models.backbones.picture_inputs import (
    Patches,
    check_picture,
    paired_patches,
    patches_of,
    patching_of,
    scaled_size,
)
from editloop.models.backbones.prefix_tree import Node, markers, node_ends, pack
from editloop.models.backbones.text import control_id, control_text_ids, text_ids, truncate_text
from editloop.models.edit_reward.settings import INSTRUCTION, REWARD_TOKEN, RewardSettings
from editloop.models.judge_protocol import EditGroup, Picture, note_on_references

TEXT_CACHE_SIZE = 256
"""Instructions whose token ids are cached. A group is measured before it is packed, and comes again each epoch."""
PICTURE_MARKER_TOKENS = 2
"""Tokens around an image: its start and its end."""
EditGroupLike = EditGroup | PreferenceGroup
"""A group that a reward model reads."""


class ReadPosition(NamedTuple):
    """Where an axis of an edit is read: a node of the packed forest, and the number of tokens before its last one."""

    node: int
    before_last: int


class InputMaker:
    """Builds the inputs of one backbone from its config, tokenizer and settings, on the CPU and without weights."""

    def __init__(self, config: Any, tokenizer: PreTrainedTokenizerBase, settings: RewardSettings):
        """Tokenize the parts that are the same for every group.

        Args:
            config: Configuration of a Qwen2.5-VL or Qwen3-VL model.
            tokenizer: The model's tokenizer, with `<|Reward|>` as a special token.
            settings: Order, rubrics and image sizes.

        Raises:
            EditLoopError: The tokenizer has no special token `<|Reward|>`, or reads a control token in the rubrics.
        """
        self.tokenizer, self.settings, self.marks = tokenizer, settings, markers(config)
        self._texts = lru_cache(TEXT_CACHE_SIZE)(self._read_texts)
        self.reward = control_id(tokenizer, REWARD_TOKEN)
        self.opening = [] if settings.order == "paired" else control_text_ids(tokenizer, settings.opening)
        self.rubric_text = "\n\n".join(settings.rubrics)
        if settings.order == "rubric-first":
            common, _, remainder = self.rubric_text.partition(INSTRUCTION)
            self.rubric_text = INSTRUCTION + remainder
            self.opening = [*self.opening, *text_ids(tokenizer, common)]
        self.common = len(self.opening) if settings.order == "rubric-first" else 0
        """Tokens that come once per batch, whatever it contains."""
        self.patching = patching_of(config, settings)

    def collate(self, groups: Sequence[EditGroupLike]) -> dict[str, Tensor]:
        """Pack all edits of some groups into one sequence.

        Args:
            groups: Groups of edits, N in all.

        Returns:
            The tensors of `pack`, on the CPU, and `reads` (N, axes), the positions of the reward tokens in the packed
            sequence, edits in order.
        """
        forest, reads = self.forest(groups)
        batch = pack(forest, self.marks, flat_positions=self.settings.positions == "flat")
        table = torch.tensor(reads).reshape(len(reads), len(self.settings.axes), 2)
        return batch | {"reads": node_ends(batch)[table[..., 0]] - table[..., 1]}

    def forest(self, groups: Sequence[EditGroupLike]) -> tuple[list[Node], list[list[ReadPosition]]]:
        """Build the prefix trees of some groups.

        A group's references come directly after its source, in the part that its edits share.

        Args:
            groups: Groups of edits.

        Returns:
            The root nodes, and for each edit the position at which each axis is read. Nodes are counted depth first.

        Raises:
            EditLoopError: The order is `paired` and a group has references, or an array is not an image that the model
                can read.
        """
        axes, order = len(self.settings.axes), self.settings.order
        trees: list[Node] = []
        reads: list[list[ReadPosition]] = []
        has_root = order == "rubric-first" and bool(self.opening)
        next_node = 1 if has_root else 0
        for group in groups:
            self._check_references(group)
            texts = self._texts(group.instruction, len(group.references))
            if order == "paired":
                for pair in self._pairs(group):
                    trees.append(Node((pair, (*texts[0], *[self.reward] * axes))))
                    reads.append(_last_tokens(next_node, axes))
                    next_node += 1
                continue
            sources = [patches_of(picture, self.patching) for picture in (group.source, *group.references)]
            edits = [patches_of(edit, self.patching) for edit in group.edits]
            if order == "rubric-first":
                children = tuple(Node((edit, [self.reward] * axes)) for edit in edits)
                trees.append(Node((texts[0], *sources), children))
                reads += [_last_tokens(next_node + 1 + k, axes) for k in range(len(edits))]
                next_node += 1 + len(edits)
            else:
                leaves = tuple(Node(([*text, self.reward],)) for text in texts)
                trees.append(Node((self.opening, *sources), tuple(Node((edit,), leaves) for edit in edits)))
                firsts = [next_node + 1 + k * (1 + axes) + 1 for k in range(len(edits))]
                reads += [[ReadPosition(first + axis, 0) for axis in range(axes)] for first in firsts]
                next_node += 1 + len(edits) * (1 + axes)
        return ([Node((self.opening,), tuple(trees))] if has_root else trees), reads

    def tokens(self, group: EditGroupLike) -> tuple[int, list[int]]:
        """Count the language-model tokens of a group.

        Args:
            group: The group.

        Returns:
            The tokens that its edits share, without `common`, and the tokens that each edit adds.

        Raises:
            EditLoopError: As in `forest`.
        """
        self._check_references(group)
        axes = len(self.settings.axes)
        texts = sum(map(len, self._texts(group.instruction, len(group.references))))
        if self.settings.order == "paired":
            side = self.settings.side or 0
            return 0, [self._picture_tokens((side, side)) + texts + axes for _ in group.edits]
        source_tokens = [
            self._picture_tokens(scaled_size(*_size(picture), self.patching))
            for picture in (group.source, *group.references)
        ]
        shared = len(self.opening) - self.common + sum(source_tokens)
        edit_counts = [self._picture_tokens(scaled_size(*_size(edit), self.patching)) + axes for edit in group.edits]
        if self.settings.order == "rubric-first":
            return shared + texts, edit_counts
        return shared, [count + texts for count in edit_counts]

    def _check_references(self, group: EditGroupLike) -> None:
        if self.settings.order == "paired" and group.references:
            raise EditLoopError(
                f"{group.key or 'a group'}: {len(group.references)} reference image(s); a reward model of order "
                "`paired` reads source and edit as the two frames of one image, and has no place for others. Use one "
                "of order `official` or `rubric-first`."
            )

    def _read_texts(self, instruction: str, references: int) -> list[list[int]]:
        """Return token ids of a task's text: one text per axis (`official`), or a single one.

        Where there are references, a sentence tells them and the edit apart: the rubrics count two pictures.
        """
        truncated = truncate_text(self.tokenizer, instruction, self.settings.instruction_tokens)
        if self.settings.order == "paired":
            return [text_ids(self.tokenizer, truncated)]
        note = note_on_references(self.settings.reference_note, references)
        if self.settings.order == "rubric-first":
            return [text_ids(self.tokenizer, self.rubric_text.replace(INSTRUCTION, truncated) + note)]
        return [
            text_ids(self.tokenizer, note + rubric.replace(INSTRUCTION, truncated)) for rubric in self.settings.rubrics
        ]

    def _pairs(self, group: EditGroupLike) -> list[Patches]:
        side = self.settings.side or 0
        source = _square(group.source, side)
        return [paired_patches(source, _square(edit, side), self.patching) for edit in group.edits]

    def _picture_tokens(self, size: tuple[int, int]) -> int:
        unit = self.patching.patch * self.patching.merge
        return size[0] // unit * (size[1] // unit) + PICTURE_MARKER_TOKENS


def _last_tokens(node: int, axes: int) -> list[ReadPosition]:
    return [ReadPosition(node, axes - 1 - axis) for axis in range(axes)]


def _size(picture: Picture) -> tuple[int, int]:
    check_picture(picture)
    return picture.shape[0], picture.shape[1]


def _square(picture: Picture, side: int) -> Picture:
    check_picture(picture)
    return resized(picture, (side, side))

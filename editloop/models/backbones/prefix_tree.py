"""Compute shared prefixes of inputs once: a forest of nodes, packed into one sequence.

A path from a root to a node is one input. What several inputs share is one node above all of them. It goes through the
model once; each branch attends to its ancestors only, at the positions that it would have alone. An image goes through
the vision tower once per batch, even where it occurs several times.

    enable_tree_attention(backbone)
    tree = Node((opening, source), children=tuple(Node((edit, rubric)) for edit in edits))
    batch = pack([tree], markers(backbone.config))
    hidden = last_hidden(backbone, batch)             # (L, width)
    hidden[node_ends(batch)]                          # the last token of each node, depth first
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from editloop.errors import EditLoopError
from editloop.models.backbones.picture_inputs import ImageFeatures, Patches, distinct_pictures, encode_pictures
from editloop.models.backbones.tree_attention import ATTENTION_NAME, Tree

NodePart = Sequence[int] | Patches
"""Token ids, or an image, which is placed between its vision start and end tokens."""


@dataclass(frozen=True)
class Node:
    """A segment of input and its possible continuations."""

    parts: tuple[NodePart, ...]
    children: tuple["Node", ...] = ()


class Markers(NamedTuple):
    """Ids of a backbone's image tokens: the placeholder, the vision start and the vision end."""

    image: int
    start: int
    end: int
    merge: int
    """Patches a side of an image token."""


def markers(config: Any) -> Markers:
    """Return the markers of a backbone.

    Args:
        config: Configuration of a Qwen2.5-VL or Qwen3-VL model.
    """
    return Markers(
        config.image_token_id,
        config.vision_start_token_id,
        config.vision_end_token_id,
        config.vision_config.spatial_merge_size,
    )


def pack(forest: Sequence[Node], marks: Markers, *, flat_positions: bool = False) -> dict[str, Tensor]:
    """Pack all nodes, depth first, into one sequence of L tokens.

    Args:
        forest: The root nodes.
        marks: Markers of the backbone.
        flat_positions: Number the tokens of an image one after the other, like text, in place of numbering them by
            frame, row and column on three axes.

    Returns:
        Tensors on the CPU. `input_ids` is (1, L). `position_ids` is (3, 1, L); each branch continues from the end of
        its parent. `nodes` is (N, 3): start, length and parent (-1: none) of each node. With images there are also
        `pixel_values`, `pixel_scale`, `image_grid_thw` and `image_of`, as in ImageFeatures.

    Raises:
        EditLoopError: A node is empty.
    """
    ids: list[int] = []
    positions: list[Tensor] = []
    nodes: list[list[int]] = []
    pictures: list[Patches] = []

    def add(node: Node, parent: int, position: int) -> None:
        index, start = len(nodes), len(ids)
        nodes.append([start, 0, parent])
        for part in node.parts:
            position = add_picture(part, position) if isinstance(part, Patches) else add_text(part, position)
        nodes[index][1] = len(ids) - start
        if not nodes[index][1]:
            raise EditLoopError(f"node {index} of the prefix tree is empty; a node holds a token at least.")
        for child in node.children:
            add(child, index, position)

    def add_text(tokens: Sequence[int], position: int) -> int:
        ids.extend(tokens)
        positions.append((torch.arange(len(tokens)) + position).expand(3, -1))
        return position + len(tokens)

    def add_picture(picture: Patches, position: int) -> int:
        pictures.append(picture)
        if flat_positions:
            return add_text([marks.start, *[marks.image] * picture.tokens(marks.merge), marks.end], position)
        position = add_text([marks.start], position)
        ids.extend([marks.image] * picture.tokens(marks.merge))
        frames, rows, columns = picture.grid[0], picture.grid[1] // marks.merge, picture.grid[2] // marks.merge
        positions.append(torch.cartesian_prod(*map(torch.arange, (frames, rows, columns))).T + position)
        return add_text([marks.end], position + max(rows, columns))

    for root in forest:
        add(root, -1, 0)
    batch = {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.cat(positions, dim=1)[:, None],
        "nodes": torch.tensor(nodes),
    }
    return batch | (distinct_pictures(pictures)._asdict() if pictures else {})


def node_ends(batch: dict[str, Tensor]) -> Tensor:
    """Return the position of each node's last token in the packed sequence, (N,), depth first.

    Args:
        batch: Made by `pack`.
    """
    return batch["nodes"][:, 0] + batch["nodes"][:, 1] - 1


def last_hidden(backbone: Any, batch: dict[str, Tensor], cache: Any = None) -> Tensor:
    """Return the language model's last hidden states, (L, width).

    Args:
        backbone: Qwen2_5_VLModel or Qwen3VLModel, after `enable_tree_attention`.
        batch: Made by `pack`, on the backbone's device. Other keys are ignored.
        cache: An empty DynamicCache of transformers, which is filled with the keys and values of the packed sequence.
            None keeps none.

    Raises:
        EditLoopError: The backbone's attention does not use the tree.
    """
    if backbone.language_model.config._attn_implementation != ATTENTION_NAME:
        raise EditLoopError(
            "backbone: its attention does not follow trees, branches would see each other; follow_trees."
        )
    pictures = {}
    if "pixel_values" in batch:
        pictures = encode_pictures(backbone, ImageFeatures(*(batch[name] for name in ImageFeatures._fields)))
    tree = Tree(batch["nodes"].tolist())
    out = backbone(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        mm_encoder_outputs=pictures,
        tree=tree,
        use_cache=cache is not None,
        past_key_values=cache,
    )
    if not tree.attention_calls:
        raise EditLoopError("backbone: no layer heard of the tree; this version of transformers drops keywords.")
    hidden: Tensor = out.last_hidden_state[0]
    return hidden

"""Attention in which a token sees its own node up to itself and all of the node's ancestors, and nothing else.

Nodes that are alike in length go through one call; keys of shared ancestors are gathered for each, so that the work
is that of the tree and not of a dense L x L mask. Without a tree it is plain scaled-dot-product attention, with its
masks: the same model then generates text as ever.
"""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "prefix_tree"


class Tree:
    """The nodes of one packed sequence and who sees whom."""

    def __init__(self, nodes: list[list[int]]):
        """nodes: [start, length, parent] in packed order, parents before their children, -1 for a root."""
        self.lengths = [length for _, length, _ in nodes]
        self.paths: list[list[int]] = []
        for place, (_, _, parent) in enumerate(nodes):
            self.paths.append([*(self.paths[parent] if parent >= 0 else []), place])
        alike: dict[tuple[int, int], list[int]] = defaultdict(list)
        for place, path in enumerate(self.paths):
            alike[self.lengths[place], sum(self.lengths[one] for one in path)].append(place)
        self.groups = list(alike.items())
        """((queries a node, keys a node), nodes)."""
        self.followed = 0
        """Calls of the attention so far: a tree that no layer followed was not heeded."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """query (1, heads, L, D), key and value (1, key heads, L, D) -> (1, L, heads, D)."""
        queries, keys, values = (one.split(self.lengths, dim=2) for one in (query, key, value))
        grouped = query.shape[1] != key.shape[1]
        found: list[Tensor] = [query] * len(self.lengths)
        for (length, seen), nodes in self.groups:
            count = len(nodes)
            q = torch.cat([queries[node] for node in nodes], dim=2)
            k, v = (
                torch.cat([one[step] for node in nodes for step in self.paths[node]], dim=2) for one in (keys, values)
            )
            q, k, v = (
                one.view(one.shape[1], count, size, one.shape[3]).transpose(0, 1)
                for one, size in ((q, length), (k, seen), (v, seen))
            )
            mask = causal_lower_right(length, seen)
            out = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling, enable_gqa=grouped)
            for node, one in zip(nodes, out.transpose(1, 2).unbind(0), strict=True):
                found[node] = one
        return torch.cat(found)[None]


def tree_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, tree: Tree | None = None, **rest: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """As transformers calls an attention; `tree` reaches it as a keyword of the backbone's forward."""
    if tree is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **rest)
    tree.followed += 1
    return tree.attend(query, key, value, scaling), None


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def follow_trees(backbone: Any) -> None:
    """Let the language model of a Qwen2_5_VLModel or Qwen3VLModel follow trees; its vision tower stays as it is."""
    backbone.language_model.set_attn_implementation(NAME)

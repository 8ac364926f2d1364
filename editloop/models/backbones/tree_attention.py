"""Attention over a prefix tree: a token attends to all ancestors of its node, and to its own node up to itself.

Nodes of equal length whose paths are also of equal length go through one call, with the keys of their ancestors
gathered. The work is therefore that of the tree, not of a dense L x L mask. Without a tree this is plain
scaled-dot-product attention with its masks, so that the same model can generate text as usual.
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

ATTENTION_NAME = "prefix_tree"
"""Name of this attention in transformers' registry."""


class Tree:
    """The nodes of one packed sequence and their ancestors."""

    def __init__(self, nodes: list[list[int]]):
        """Group the nodes by the shapes of their attention.

        Args:
            nodes: [start, length, parent] of each node in packed order, parents before their children; -1 is the parent
                of a root.
        """
        self.lengths = [length for _, length, _ in nodes]
        self.paths: list[list[int]] = []
        for node, (_, _, parent) in enumerate(nodes):
            self.paths.append([*(self.paths[parent] if parent >= 0 else []), node])
        by_lengths: dict[tuple[int, int], list[int]] = defaultdict(list)
        for node, path in enumerate(self.paths):
            by_lengths[self.lengths[node], sum(self.lengths[step] for step in path)].append(node)
        self.groups = list(by_lengths.items())
        """((queries per node, keys per node), indices of the nodes)."""
        self.attention_calls = 0
        """Attention calls so far. 0 after a forward pass means that no layer used the tree."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """Attend within the tree, for one layer.

        Args:
            query: (1, heads, L, D).
            key: (1, key heads, L, D).
            value: (1, key heads, L, D).
            scaling: Factor on the logits; None takes D^-0.5.

        Returns:
            The output, (1, L, heads, D).
        """
        queries, keys, values = (tensor.split(self.lengths, dim=2) for tensor in (query, key, value))
        grouped = query.shape[1] != key.shape[1]
        outputs: list[Tensor] = [query] * len(self.lengths)
        for (length, key_length), nodes in self.groups:
            count = len(nodes)
            q = torch.cat([queries[node] for node in nodes], dim=2)
            k, v = (
                torch.cat([chunks[step] for node in nodes for step in self.paths[node]], dim=2)
                for chunks in (keys, values)
            )
            q, k, v = (
                tensor.view(tensor.shape[1], count, size, tensor.shape[3]).transpose(0, 1)
                for tensor, size in ((q, length), (k, key_length), (v, key_length))
            )
            mask = causal_lower_right(length, key_length)
            out = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling, enable_gqa=grouped)
            for node, node_output in zip(nodes, out.transpose(1, 2).unbind(0), strict=True):
                outputs[node] = node_output
        return torch.cat(outputs)[None]


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    tree: Tree | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Compute attention, with the signature that transformers calls.

    The backbone's forward passes the keyword `tree` on to here.

    Args:
        module: The attention layer.
        query: (B, heads, L, D).
        key: (B, key heads, L', D).
        value: (B, key heads, L', D).
        attention_mask: Used without a tree only.
        scaling: Factor on the logits; None takes D^-0.5.
        tree: The tree of the packed sequence, or an object with the same `attend`; None computes plain attention.
        **options: Options of transformers' attention, used without a tree only.

    Returns:
        The output, (B, L, heads, D), and no attention weights.
    """
    if tree is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    tree.attention_calls += 1
    return tree.attend(query, key, value, scaling), None


AttentionInterface.register(ATTENTION_NAME, tree_attention)
AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)


def enable_tree_attention(backbone: Any) -> None:
    """Switch the language model to tree attention, in place. The vision tower is not changed.

    Args:
        backbone: Qwen2_5_VLModel or Qwen3VLModel.
    """
    backbone.language_model.set_attn_implementation(ATTENTION_NAME)

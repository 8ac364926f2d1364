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

ATTENTION_NAME = "prefix_tree"


class Tree:
    """The nodes of one packed sequence and who sees whom."""

    def __init__(self, nodes: list[list[int]]):
        """nodes: [start, length, parent] in packed order, parents before their children, -1 for a root."""
        self.lengths = [length for _, length, _ in nodes]
        self.paths: list[list[int]] = []
        for node, (_, _, parent) in enumerate(nodes):
            self.paths.append([*(self.paths[parent] if parent >= 0 else []), node])
        by_lengths: dict[tuple[int, int], list[int]] = defaultdict(list)
        for node, path in enumerate(self.paths):
            by_lengths[self.lengths[node], sum(self.lengths[step] for step in path)].append(node)
        self.groups = list(by_lengths.items())
        """((queries a node, keys a node), nodes)."""
        self.attention_calls = 0
        """Calls of the attention so far: a tree that no layer followed was not heeded."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """query (1, heads, L, D), key and value (1, key heads, L, D) -> (1, L, heads, D)."""
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
    """As transformers calls an attention; `tree` reaches it as a keyword of the backbone's forward."""
    if tree is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    tree.attention_calls += 1
    return tree.attend(query, key, value, scaling), None


AttentionInterface.register(ATTENTION_NAME, tree_attention)
AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)


def enable_tree_attention(backbone: Any) -> None:
    """Let the language model of a Qwen2_5_VLModel or Qwen3VLModel follow trees; its vision tower stays as it is."""
    backbone.language_model.set_attn_implementation(ATTENTION_NAME)

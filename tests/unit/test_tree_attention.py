"""Attention along a tree against attention with the dense mask that it stands for."""

import copy

import pytest
import torch
from transformers import Qwen2_5_VLModel

from editloop.models.backbones.tree_attention import Tree, enable_tree_attention
from editloop.studies.tiny_models.backbone import byte_tokenizer, tiny_config

pytestmark = pytest.mark.floats

NODES = [[0, 7, -1], [7, 5, 0], [12, 3, 1], [15, 4, 1], [19, 5, 0], [24, 3, 4], [27, 1, 4], [28, 6, -1], [34, 5, 7]]
LENGTH = 39


def dense(query, key, value, tree):
    owner = torch.cat([torch.full((length,), place) for place, (_, length, _) in enumerate(NODES)])
    sees = torch.tensor([[other in tree.paths[one] for other in range(len(NODES))] for one in range(len(NODES))])
    mask = sees[owner][:, owner].tril()
    repeat = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
    scores = (query.double() @ key.double().transpose(2, 3)) * 0.2
    return (scores.masked_fill(~mask, -torch.inf).softmax(-1) @ value.double()).transpose(1, 2)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_it_is_the_attention_of_the_dense_mask_with_its_gradients(dtype, tolerance, key_heads):
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, 4, LENGTH, 16), (1, key_heads, LENGTH, 16), (1, key_heads, LENGTH, 16)]
    ours = [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]
    theirs = [one.detach().clone().requires_grad_() for one in ours]
    tree = Tree(NODES)
    found, expected = tree.attend(*ours, 0.2), dense(*theirs, tree)
    weights = torch.randn(expected.shape, generator=generator)
    torch.testing.assert_close(found.double(), expected, atol=tolerance, rtol=tolerance)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad.double(), atol=3 * tolerance, rtol=3 * tolerance)


def test_a_token_feels_its_ancestors_and_nobody_else():
    """Gradients of one node's output reach exactly the keys of its path."""
    query, key, value = (torch.randn(1, 2, LENGTH, 8) for _ in range(3))
    value.requires_grad_()
    tree = Tree(NODES)
    for place, (start, length, _) in enumerate(NODES):
        value.grad = None
        tree.attend(query, key, value, None)[:, start + length - 1].sum().backward()
        felt = value.grad[0, 0, :, 0] != 0
        seen = torch.zeros(LENGTH, dtype=torch.bool)
        for node in tree.paths[place]:
            seen[NODES[node][0] : sum(NODES[node][:2])] = True
        assert torch.equal(felt, seen)


def test_alike_nodes_go_through_one_call():
    assert [nodes for _, nodes in Tree(NODES).groups] == [[0], [1, 4], [2, 5], [3], [6], [7], [8]]


def test_without_a_tree_padding_and_generation_are_as_ever():
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    plain = Qwen2_5_VLModel(tiny_config("qwen2.5-vl", tokenizer)).eval()
    ours = copy.deepcopy(plain)
    enable_tree_attention(ours)
    ids = torch.randint(8, 200, (2, 12))
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    with torch.no_grad():
        expected, found = (model(input_ids=ids, attention_mask=mask, use_cache=True) for model in (plain, ours))
        assert torch.equal(found.last_hidden_state, expected.last_hidden_state)
        more = torch.cat([mask, mask[:, -1:]], dim=1)
        after = [
            model(input_ids=ids[:, :1], attention_mask=more, past_key_values=out.past_key_values).last_hidden_state
            for model, out in ((plain, expected), (ours, found))
        ]
    assert torch.equal(*after)
    assert ours.visual.config._attn_implementation == plain.visual.config._attn_implementation

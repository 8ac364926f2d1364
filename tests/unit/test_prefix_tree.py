"""What branches share is computed once, and every branch is as if it had been computed alone."""

import copy
from unittest.mock import patch

import numpy as np
import pytest
import torch
from transformers import Qwen2_5_VLModel, Qwen3VLModel

from editloop.errors import EditLoopError
from editloop.models.backbones import prefix_tree
from editloop.models.backbones.picture_inputs import ImageFeatures, Patching, normalised_patches, patches_of
from editloop.models.backbones.prefix_tree import Node, last_hidden, markers, node_ends, pack
from editloop.models.backbones.text import text_ids
from editloop.models.backbones.tree_attention import Tree, enable_tree_attention
from editloop.studies.tiny_models.backbone import byte_tokenizer, tiny_config

HIDDEN_TOLERANCE, GRADIENT_TOLERANCE = 2e-5, 5e-5
FAR = 1e-3
"""A mistake moves hidden states by more than this: fifty times what noise is allowed."""
CLASSES = {"qwen2.5-vl": Qwen2_5_VLModel, "qwen3-vl": Qwen3VLModel}
PATCHING = Patching(4, 2, 1024, 1024)
TOKENIZER = byte_tokenizer()


class World:
    """A forest of two tasks, three and two candidates, two rubrics each; pictures of several sizes, one shared."""

    def __init__(self, family):
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.tree = CLASSES[family](tiny_config(family, TOKENIZER)).eval()
        self.plain = copy.deepcopy(self.tree)
        enable_tree_attention(self.tree)
        self.marks = markers(self.tree.config)
        rng = np.random.default_rng(0)
        sizes = [(32, 32), (32, 32), (64, 20), (32, 32), (20, 64), (40, 40)]
        first, *rest = [patches_of(rng.integers(0, 256, (*size, 3), dtype=np.uint8), PATCHING) for size in sizes]
        self.paths, self.forest = [], []
        for source, edits, told in ((first, rest[:3], "make it red"), (rest[3], [rest[4], first], "add a tall tree")):
            opening = text_ids(TOKENIZER, "judge:")
            rubrics = [text_ids(TOKENIZER, f"done? {told}"), text_ids(TOKENIZER, f"{told}; and is it clean?")]
            leaves = tuple(Node((rubric,)) for rubric in rubrics)
            self.forest.append(Node((opening, source), tuple(Node((edit,), leaves) for edit in edits)))
            self.paths += [(opening, source, edit, rubric) for edit in edits for rubric in rubrics]
        self.distinct = len(sizes)

    def leaves(self, batch):
        parents = set(batch["nodes"][:, 2].tolist())
        return [place for place in range(len(batch["nodes"])) if place not in parents]

    def shared(self, batch=None):
        """Hidden states at the ends of all branches."""
        batch = batch or pack(self.forest, self.marks)
        return last_hidden(self.tree, batch)[node_ends(batch)[self.leaves(batch)]]

    def alone(self, **changes):
        """The same, a pass a branch, by transformers' own positions and attention."""
        found = []
        for path in self.paths:
            ids, pictures = [], []
            for part in path:
                if isinstance(part, list):
                    ids += part
                else:
                    pictures.append(part)
                    ids += [self.marks.start, *[self.marks.image] * part.tokens(2), self.marks.end]
            row = torch.tensor([ids])
            inputs = {
                "input_ids": row,
                "attention_mask": torch.ones_like(row),
                "mm_token_type_ids": (row == self.marks.image).int(),
                "pixel_values": torch.cat([normalised_patches(one.values, one.scale, 2) for one in pictures]),
                "image_grid_thw": torch.tensor([one.grid for one in pictures]),
            }
            found.append(self.plain(**(inputs | changes), use_cache=False).last_hidden_state[0, -1])
        return torch.stack(found)


@pytest.fixture(scope="module", params=list(CLASSES))
def world(request):
    return World(request.param)


def furthest(one, other):
    return float((one - other).abs().max())


def test_every_branch_is_as_if_alone(world):
    with torch.no_grad():
        assert furthest(world.shared(), world.alone()) <= HIDDEN_TOLERANCE


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_of_every_weight_are_those_of_separate_passes(world, checkpointing):
    weights = torch.randn(len(world.paths), 64, generator=torch.Generator().manual_seed(1))
    for model in (world.tree, world.plain):
        model.zero_grad()
    if checkpointing:
        world.tree.train()
        world.tree.gradient_checkpointing_enable({"use_reentrant": False})
    try:
        (world.shared() * weights).sum().backward()
    finally:
        world.tree.gradient_checkpointing_disable()
        world.tree.eval()
    (world.alone() * weights).sum().backward()
    theirs = dict(world.plain.named_parameters())
    for name, parameter in world.tree.named_parameters():
        expected = theirs[name].grad
        if expected is None:
            assert parameter.grad is None
            continue
        assert (parameter.grad - expected).norm() <= GRADIENT_TOLERANCE * expected.norm() + 1e-9, name


def test_positions_are_those_that_the_backbone_gives_each_path(world):
    batch = pack(world.forest, world.marks)
    spans, tree = batch["nodes"].tolist(), Tree(batch["nodes"].tolist())
    for leaf in world.leaves(batch):
        places = [place for node in tree.paths[leaf] for place in range(spans[node][0], sum(spans[node][:2]))]
        ids = batch["input_ids"][:, places]
        shown = (batch["input_ids"][0] == world.marks.start).nonzero()[:, 0].tolist()
        images = batch["image_of"][[shown.index(place) for place in places if place in shown]]
        expected, _ = world.plain.get_rope_index(
            ids, mm_token_type_ids=(ids == world.marks.image).int(), image_grid_thw=batch["image_grid_thw"][images]
        )
        assert torch.equal(batch["position_ids"][:, :, places], expected)


def test_each_distinct_picture_is_seen_once_and_each_node_read_once(world):
    batch = pack(world.forest, world.marks)
    rows, tokens = [], []
    hooks = [
        world.tree.visual.register_forward_hook(
            lambda _, args, kwargs, out: rows.append(args[0].shape[0]), with_kwargs=True
        ),
        world.tree.language_model.layers[0].register_forward_pre_hook(lambda _, args: tokens.append(args[0].shape[1])),
    ]
    world.shared(batch)
    for hook in hooks:
        hook.remove()
    assert len(batch["image_grid_thw"]) == world.distinct
    assert rows == [int(batch["image_grid_thw"].prod(-1).sum())]
    assert tokens == [int(batch["nodes"][:, 1].sum())] == [batch["input_ids"].shape[1]]


class TestMistakes:
    """What would go wrong without a word, and is noticed here."""

    def test_siblings_that_see_each_other(self, world):
        class Leaking(Tree):
            def __init__(self, nodes):
                super().__init__([[start, length, place - 1] for place, (start, length, _) in enumerate(nodes)])

        with torch.no_grad(), patch.object(prefix_tree, "Tree", Leaking):
            assert furthest(world.shared(), world.alone()) > FAR

    def test_a_backbone_that_follows_no_tree(self, world):
        with pytest.raises(EditLoopError, match="follow_trees"):
            last_hidden(world.plain, pack(world.forest, world.marks))

    def test_a_tree_that_is_lost_on_the_way(self, world):
        forward = world.tree.language_model.forward

        def deaf(*args, tree=None, **kwargs):
            return forward(*args, **kwargs)

        with patch.object(world.tree.language_model, "forward", deaf), pytest.raises(EditLoopError, match="heard"):
            world.shared()

    def test_positions_that_run_on(self, world):
        batch = pack(world.forest, world.marks)
        batch["position_ids"] = torch.arange(batch["input_ids"].shape[1]).expand(3, 1, -1)
        with torch.no_grad():
            assert furthest(world.shared(batch), world.alone()) > FAR

    @pytest.mark.parametrize("rows", [3, 4])
    def test_a_packed_sequence_without_a_tree(self, world, rows):
        batch = pack(world.forest, world.marks)
        images = prefix_tree.encode_pictures(
            world.plain, ImageFeatures(*(batch[name] for name in ImageFeatures._fields))
        )
        positions = batch["position_ids"]
        positions = torch.cat([positions[:1], positions]) if rows == 4 else positions
        with torch.no_grad():
            out = world.plain(
                input_ids=batch["input_ids"], position_ids=positions, mm_encoder_outputs=images, use_cache=False
            ).last_hidden_state[0]
            assert furthest(out[node_ends(batch)[world.leaves(batch)]], world.alone()) > FAR

    def test_a_boolean_mask_under_eager_attention(self, world):
        """A dense mask gives the same answer as the tree, if it is one of floats: as booleans it is added up."""
        batch = pack(world.forest, world.marks)
        spans, tree = batch["nodes"].tolist(), Tree(batch["nodes"].tolist())
        owner = torch.cat([torch.full((length,), place) for place, (_, length, _) in enumerate(spans)])
        above = torch.tensor([[other in tree.paths[one] for other in range(len(spans))] for one in range(len(spans))])
        seen = above[owner][:, owner].tril()[None, None]
        eager = copy.deepcopy(world.plain)
        eager.language_model.set_attn_implementation("eager")
        images = ImageFeatures(*(batch[name] for name in ImageFeatures._fields))
        with torch.no_grad():
            found = {}
            for kind, mask in (("floats", torch.zeros(seen.shape).masked_fill(~seen, -1e30)), ("booleans", seen)):
                out = eager(
                    input_ids=batch["input_ids"],
                    position_ids=batch["position_ids"],
                    attention_mask=mask,
                    mm_encoder_outputs=prefix_tree.encode_pictures(eager, images),
                    use_cache=False,
                ).last_hidden_state[0]
                found[kind] = furthest(out[node_ends(batch)[world.leaves(batch)]], world.shared())
        assert found["floats"] <= HIDDEN_TOLERANCE
        assert found["booleans"] > FAR

    def test_separate_passes_that_do_not_say_which_tokens_are_pictures(self, world):
        with torch.no_grad():
            if isinstance(world.plain, Qwen3VLModel):
                with pytest.raises(ValueError, match="mm_token_type_ids"):
                    world.alone(mm_token_type_ids=None)
            else:
                assert furthest(world.shared(), world.alone(mm_token_type_ids=None)) > FAR

    def test_pictures_in_another_order(self, world):
        batch = pack(world.forest, world.marks)
        same_size = [place for place, grid in enumerate(batch["image_grid_thw"].tolist()) if grid == [1, 8, 8]]
        swapped = batch["image_of"].clone()
        swapped[batch["image_of"] == same_size[0]], swapped[batch["image_of"] == same_size[1]] = (
            same_size[1],
            same_size[0],
        )
        with torch.no_grad():
            assert furthest(world.shared(batch | {"image_of": swapped}), world.alone()) > FAR


def test_an_empty_node_is_refused(world):
    with pytest.raises(EditLoopError, match="empty"):
        pack([Node(([1, 2],), (Node(([],)),))], world.marks)


def test_text_alone_needs_no_picture(world):
    ids = text_ids(TOKENIZER, "no picture here")
    batch = pack([Node((ids[:5],), (Node((ids[5:],)), Node((ids[3:],))))], world.marks)
    with torch.no_grad():
        plain = world.plain(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0, -1]
        assert furthest(last_hidden(world.tree, batch)[len(ids) - 1], plain) <= HIDDEN_TOLERANCE

"""Answers to many prompts, several to each: the prompts go through the model once, and all answers to one read the same
keys and values of it.

Prompts are a tree (what they share is computed once, a picture is seen once); an answer's draws come from its own
stream of numbers, so that they do not depend on what else is answered at the same time.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from components.backbones.prefix_tree import last_hidden
from components.edit_score.model import EditScoreModel
from components.edit_score.rows import Row
from components.edit_score.settings import EditScoreSettings

WORTH_LEAVING = 0.25
"""Share of prompts that must be answered before the rest goes on without them: moving keys and values costs a step."""


def draws(seed: int, passes: int, questions: int, tokens: int) -> Tensor:
    """Uniform numbers (questions, passes, tokens) in [0, 1): pass k of every edit draws from seed + k.

    Edits that are compared share their draws, which takes noise out of the comparison.
    """
    streams = [np.random.default_rng(seed + k).random((questions, tokens), dtype=np.float32) for k in range(passes)]
    return torch.from_numpy(np.stack(streams, axis=1))


@torch.no_grad()
def sample(model: EditScoreModel, rows: Sequence[Row], numbers: Tensor) -> list[list[list[int]]]:
    """Answers to R prompts as token ids, `numbers` (R, K, T) in [0, 1): K each of at most T tokens.

    The closing token is the last of an answer that was not cut.
    """
    settings, end = model.settings, model.rows.end
    count, passes, longest = numbers.shape
    numbers = numbers.to(model.device)
    logits, prompts = _prefill(model, rows, passes)
    answers: list[list[list[int]]] = [[[] for _ in range(passes)] for _ in range(count)]
    alive = torch.arange(count, device=model.device)
    for place in range(longest):
        tokens = choose(logits, numbers[alive, :, place].flatten(), settings)
        told = tokens.view(-1, passes).tolist()
        for row, ids in zip(alive.tolist(), told, strict=True):
            for answer, token in zip(answers[row], ids, strict=True):
                if not answer or answer[-1] != end:
                    answer.append(token)
        going = torch.tensor([any(one[-1] != end for one in answers[row]) for row in alive.tolist()])
        if place + 1 == longest or not going.any():
            break
        if going.float().mean() <= 1 - WORTH_LEAVING:
            going = going.to(model.device)
            alive, tokens, prompts = alive[going], tokens.view(-1, passes)[going].flatten(), prompts.only(going)
        logits, prompts = _step(model, tokens, prompts)
    return answers


def choose(logits: Tensor, numbers: Tensor, settings: EditScoreSettings) -> Tensor:
    """One token a row, (N,), of logits (N, vocabulary): by temperature, then among the `top_k` likeliest, then among
    the least of these that hold `top_p` of their probability. `numbers` (N,) in [0, 1) say which, by the inverse of the
    distribution function; at temperature 0 they play no part.
    """
    if settings.temperature == 0:
        return logits.argmax(-1)
    values, ids = (logits.float() / settings.temperature).topk(min(settings.top_k, logits.shape[-1]))
    chances = values.softmax(-1)
    chances = chances * (chances.cumsum(-1) - chances < settings.top_p)
    mounting = chances.cumsum(-1)
    place = (mounting <= numbers[:, None] * mounting[:, -1:]).sum(-1, keepdim=True)
    last = (chances > 0).sum(-1, keepdim=True) - 1
    return ids.gather(-1, place.minimum(last)).squeeze(-1)


@torch.no_grad()
def chances(model: EditScoreModel, rows: Sequence[Row], tokens: Sequence[int]) -> Tensor:
    """Probabilities (R, len(tokens)), float32, that each of `tokens` comes next after R prompts."""
    packed = model.collate(rows)
    hidden = last_hidden(model.backbone.model, _moved(packed.tensors, model))
    lasts = torch.stack([path[-1] for path in packed.paths]).to(model.device)
    return model.logits(hidden[lasts]).float().softmax(-1)[:, list(tokens)]


class _Prompts(NamedTuple):
    """What the next tokens of R prompts' answers, K to each, are computed from. H are key heads, D their width."""

    layers: list[tuple[Tensor, Tensor]]
    """Keys and values of the prompts, (R, H, L, D) a layer; rows are padded on the left."""
    mask: Tensor
    """(R, L), false where padding is."""
    position: Tensor
    """(R * K,): rotary position of the next token, the same on all three axes: prompts end in text."""
    cache: DynamicCache
    """Keys and values of the answers so far, (R * K, H, t, D) a layer."""

    @property
    def passes(self) -> int:
        return len(self.position) // len(self.mask)

    def only(self, kept: Tensor) -> "_Prompts":
        """Those prompts where `kept` (R,) is true, with their answers."""
        each = kept.repeat_interleave(self.passes)
        self.cache.batch_select_indices(each.nonzero().squeeze(1))
        layers = [(keys[kept], values[kept]) for keys, values in self.layers]
        return _Prompts(layers, self.mask[kept], self.position[each], self.cache)


class _Reading:
    """Attention of one new token of each answer: to its prompt, whose keys all of the prompt's answers share, and to
    the answer so far. Stands where a tree stands in `tree_attention`, for one step; layers come to it in their order.
    """

    def __init__(self, prompts: _Prompts):
        self.prompts, self.followed = prompts, 0

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """query (R * K, heads, 1, D), key and value (R * K, H, t, D) of the answers -> (R * K, 1, heads, D)."""
        keys, values = self.prompts.layers[self.followed - 1]
        rows, shared, length, width = keys.shape
        passes, heads = self.prompts.passes, query.shape[1]
        grouped = query.view(rows * passes, shared, heads // shared, width) * (scaling or width**-0.5)
        across = grouped.view(rows, passes, shared, -1, width).transpose(1, 2).flatten(2, 3)
        far = across @ keys.transpose(2, 3)
        far = far.masked_fill(~self.prompts.mask[:, None, None], -torch.inf).view(rows, shared, passes, -1, length)
        near = (grouped @ key.transpose(2, 3)).view(rows, passes, shared, -1, key.shape[2]).transpose(1, 2)
        weights = torch.cat([far, near], dim=-1).float().softmax(-1).to(query.dtype)
        from_prompt = weights[..., :length].flatten(2, 3) @ values
        from_answer = weights[..., length:].transpose(1, 2).flatten(0, 1) @ value
        found = from_prompt.view(rows, shared, passes, -1, width).transpose(1, 2).flatten(0, 1) + from_answer
        return found.reshape(rows * passes, 1, heads, width)


def _prefill(model: EditScoreModel, rows: Sequence[Row], passes: int) -> tuple[Tensor, _Prompts]:
    """Logits (R * passes, vocabulary) of the first tokens, and the prompts with `passes` answers begun to each."""
    packed, cache = model.collate(rows), DynamicCache()
    tensors = _moved(packed.tensors, model)
    hidden = last_hidden(model.backbone.model, tensors, cache)
    length = max(len(path) for path in packed.paths)
    places = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for row, path in enumerate(packed.paths):
        places[row, length - len(path) :] = path
        mask[row, length - len(path) :] = True
    places, mask = places.to(model.device), mask.to(model.device)
    layers = [
        (layer.keys[0][:, places].transpose(0, 1).contiguous(), layer.values[0][:, places].transpose(0, 1).contiguous())
        for layer in cache.layers
    ]
    position = tensors["position_ids"][0, 0, places[:, -1]] + 1
    logits = model.logits(hidden[places[:, -1]])
    begun = _Prompts(layers, mask, position.repeat_interleave(passes), DynamicCache())
    return logits.repeat_interleave(passes, dim=0), begun


def _step(model: EditScoreModel, tokens: Tensor, prompts: _Prompts) -> tuple[Tensor, _Prompts]:
    """Logits (R * K, vocabulary) of the tokens that follow `tokens` (R * K,), and what is known then."""
    reading = _Reading(prompts)
    hidden = model.backbone.model.language_model(
        input_ids=tokens[:, None], position_ids=prompts.position.expand(3, -1)[..., None],
        past_key_values=prompts.cache, use_cache=True, tree=reading,
    ).last_hidden_state  # fmt: skip
    assert reading.followed == len(prompts.layers)
    return model.logits(hidden[:, -1]), prompts._replace(position=prompts.position + 1)


def _moved(tensors: dict[str, Tensor], model: EditScoreModel) -> dict[str, Tensor]:
    return {name: value.to(model.device) for name, value in tensors.items()}

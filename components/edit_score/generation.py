"""Answers to many prompts, several to each: the prompts go through the model once, their keys and values are then given
to every answer.

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
"""Share of answers that must be done before the rest goes on without them: moving keys and values costs a step."""


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
    numbers = numbers.flatten(0, 1).to(model.device)
    logits, prompt = _prefill(model, rows, passes)
    answers: list[list[int]] = [[] for _ in range(count * passes)]
    alive = torch.arange(count * passes, device=model.device)
    for place in range(longest):
        tokens = choose(logits, numbers[alive, place], settings)
        for answer, token in zip(alive.tolist(), tokens.tolist(), strict=True):
            if not answers[answer] or answers[answer][-1] != end:
                answers[answer].append(token)
        going = torch.tensor([answers[one][-1] != end for one in alive.tolist()], device=model.device)
        if place + 1 == longest or not going.any():
            break
        if going.float().mean() <= 1 - WORTH_LEAVING:
            alive, tokens, prompt = alive[going], tokens[going], prompt.only(going)
        logits, prompt = _step(model, tokens, prompt)
    return [answers[row * passes : (row + 1) * passes] for row in range(count)]


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


class _Prompt(NamedTuple):
    """What N answers know when their next token is asked for."""

    cache: DynamicCache
    """Keys and values, (N, heads, L, D) a layer; rows are padded on the left."""
    mask: Tensor
    """(N, L), 0 where padding is."""
    position: Tensor
    """(N,): rotary position of the next token, the same on all three axes: prompts end in text."""

    def only(self, kept: Tensor) -> "_Prompt":
        """Those answers where `kept` (N,) is true."""
        self.cache.batch_select_indices(kept.nonzero().squeeze(1))
        return _Prompt(self.cache, self.mask[kept], self.position[kept])


def _prefill(model: EditScoreModel, rows: Sequence[Row], passes: int) -> tuple[Tensor, _Prompt]:
    """Logits (R * passes, vocabulary) of the first tokens, and the prompts, each `passes` times in a row."""
    packed, cache = model.collate(rows), DynamicCache()
    tensors = _moved(packed.tensors, model)
    hidden = last_hidden(model.backbone.model, tensors, cache)
    length = max(len(path) for path in packed.paths)
    places = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros_like(places)
    for row, path in enumerate(packed.paths):
        places[row, length - len(path) :] = path
        mask[row, length - len(path) :] = 1
    places, mask = places.to(model.device), mask.to(model.device)
    each = places.repeat_interleave(passes, dim=0)
    for layer in cache.layers:
        layer.keys, layer.values = (one[0][:, each].transpose(0, 1).contiguous() for one in (layer.keys, layer.values))
    position = tensors["position_ids"][:, 0, places[:, -1]].amax(0) + 1
    logits = model.logits(hidden[places[:, -1]])
    repeated = (one.repeat_interleave(passes, dim=0) for one in (mask, position))
    return logits.repeat_interleave(passes, dim=0), _Prompt(cache, *repeated)


def _step(model: EditScoreModel, tokens: Tensor, prompt: _Prompt) -> tuple[Tensor, _Prompt]:
    """Logits (N, vocabulary) of the tokens that follow `tokens` (N,), and what is known then."""
    mask = torch.cat([prompt.mask, prompt.mask.new_ones(len(tokens), 1)], dim=1)
    hidden = model.backbone.model.language_model(
        input_ids=tokens[:, None], attention_mask=mask, position_ids=prompt.position.expand(3, -1)[..., None],
        past_key_values=prompt.cache, use_cache=True,
    ).last_hidden_state  # fmt: skip
    return model.logits(hidden[:, -1]), _Prompt(prompt.cache, mask, prompt.position + 1)


def _moved(tensors: dict[str, Tensor], model: EditScoreModel) -> dict[str, Tensor]:
    return {name: value.to(model.device) for name, value in tensors.items()}

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

from editloop.models.backbones.prefix_tree import last_hidden
from editloop.models.edit_score.model import EditScoreModel
from editloop.models.edit_score.rows import PromptRow
from editloop.models.edit_score.settings import EditScoreSettings

COMPACTION_SHARE = 0.25
"""Share of prompts that must be answered before the rest goes on without them: moving keys and values costs a step."""


def uniform_draws(seed: int, passes: int, questions: int, tokens: int) -> Tensor:
    """Uniform numbers (questions, passes, tokens) in [0, 1): pass k of every edit draws from seed + k.

    Edits that are compared share their draws, which takes noise out of the comparison.
    """
    streams = [np.random.default_rng(seed + k).random((questions, tokens), dtype=np.float32) for k in range(passes)]
    return torch.from_numpy(np.stack(streams, axis=1))


@torch.no_grad()
def generate_answers(model: EditScoreModel, rows: Sequence[PromptRow], numbers: Tensor) -> list[list[list[int]]]:
    """Answers to R prompts as token ids, `numbers` (R, K, T) in [0, 1): K each of at most T tokens.

    The closing token is the last of an answer that was not cut.
    """
    settings, end = model.settings, model.rows.end
    count, passes, max_tokens = numbers.shape
    numbers = numbers.to(model.device)
    logits, prompts = _prefill(model, rows, passes)
    answers: list[list[list[int]]] = [[[] for _ in range(passes)] for _ in range(count)]
    alive = torch.arange(count, device=model.device)
    for step in range(max_tokens):
        tokens = sample_tokens(logits, numbers[alive, :, step].flatten(), settings)
        token_rows = tokens.view(-1, passes).tolist()
        for row, ids in zip(alive.tolist(), token_rows, strict=True):
            for answer, token in zip(answers[row], ids, strict=True):
                if not answer or answer[-1] != end:
                    answer.append(token)
        continuing = torch.tensor([any(answer[-1] != end for answer in answers[row]) for row in alive.tolist()])
        if step + 1 == max_tokens or not continuing.any():
            break
        if continuing.float().mean() <= 1 - COMPACTION_SHARE:
            continuing = continuing.to(model.device)
            alive, tokens, prompts = (
                alive[continuing],
                tokens.view(-1, passes)[continuing].flatten(),
                prompts.only(continuing),
            )
        logits, prompts = _step(model, tokens, prompts)
    return answers


def sample_tokens(logits: Tensor, numbers: Tensor, settings: EditScoreSettings) -> Tensor:
    """One token a row, (N,), of logits (N, vocabulary): by temperature, then among the `top_k` likeliest, then among
    the least of these that hold `top_p` of their probability. `numbers` (N,) in [0, 1) say which, by the inverse of the
    distribution function; at temperature 0 they play no part.
    """
    if settings.temperature == 0:
        return logits.argmax(-1)
    top_logits, ids = (logits.float() / settings.temperature).topk(min(settings.top_k, logits.shape[-1]))
    probabilities = top_logits.softmax(-1)
    probabilities = probabilities * (probabilities.cumsum(-1) - probabilities < settings.top_p)
    cumulative = probabilities.cumsum(-1)
    rank = (cumulative <= numbers[:, None] * cumulative[:, -1:]).sum(-1, keepdim=True)
    last = (probabilities > 0).sum(-1, keepdim=True) - 1
    return ids.gather(-1, rank.minimum(last)).squeeze(-1)


@torch.no_grad()
def next_token_probabilities(model: EditScoreModel, rows: Sequence[PromptRow], tokens: Sequence[int]) -> Tensor:
    """Probabilities (R, len(tokens)), float32, that each of `tokens` comes next after R prompts."""
    batch = model.collate(rows)
    hidden = last_hidden(model.backbone.model, _to_device(batch.tensors, model))
    lasts = torch.stack([path[-1] for path in batch.paths]).to(model.device)
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

    def only(self, selected: Tensor) -> "_Prompts":
        """Those prompts where `kept` (R,) is true, with their answers."""
        selected_answers = selected.repeat_interleave(self.passes)
        self.cache.batch_select_indices(selected_answers.nonzero().squeeze(1))
        layers = [(keys[selected], values[selected]) for keys, values in self.layers]
        return _Prompts(layers, self.mask[selected], self.position[selected_answers], self.cache)


class _AnswerAttention:
    """Attention of one new token of each answer: to its prompt, whose keys all of the prompt's answers share, and to
    the answer so far. Stands where a tree stands in `tree_attention`, for one step; layers come to it in their order.
    """

    def __init__(self, prompts: _Prompts):
        self.prompts, self.attention_calls = prompts, 0

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """query (R * K, heads, 1, D), key and value (R * K, H, t, D) of the answers -> (R * K, 1, heads, D)."""
        keys, values = self.prompts.layers[self.attention_calls - 1]
        rows, key_heads, length, width = keys.shape
        passes, heads = self.prompts.passes, query.shape[1]
        grouped = query.view(rows * passes, key_heads, heads // key_heads, width) * (scaling or width**-0.5)
        prompt_queries = grouped.view(rows, passes, key_heads, -1, width).transpose(1, 2).flatten(2, 3)
        prompt_scores = prompt_queries @ keys.transpose(2, 3)
        prompt_scores = prompt_scores.masked_fill(~self.prompts.mask[:, None, None], -torch.inf).view(
            rows, key_heads, passes, -1, length
        )
        answer_scores = (grouped @ key.transpose(2, 3)).view(rows, passes, key_heads, -1, key.shape[2]).transpose(1, 2)
        weights = torch.cat([prompt_scores, answer_scores], dim=-1).float().softmax(-1).to(query.dtype)
        from_prompt = weights[..., :length].flatten(2, 3) @ values
        from_answer = weights[..., length:].transpose(1, 2).flatten(0, 1) @ value
        output = from_prompt.view(rows, key_heads, passes, -1, width).transpose(1, 2).flatten(0, 1) + from_answer
        return output.reshape(rows * passes, 1, heads, width)


def _prefill(model: EditScoreModel, rows: Sequence[PromptRow], passes: int) -> tuple[Tensor, _Prompts]:
    """Logits (R * passes, vocabulary) of the first tokens, and the prompts with `passes` answers begun to each."""
    batch, cache = model.collate(rows), DynamicCache()
    tensors = _to_device(batch.tensors, model)
    hidden = last_hidden(model.backbone.model, tensors, cache)
    length = max(len(path) for path in batch.paths)
    token_positions = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for row, path in enumerate(batch.paths):
        token_positions[row, length - len(path) :] = path
        mask[row, length - len(path) :] = True
    token_positions, mask = token_positions.to(model.device), mask.to(model.device)
    layers = [
        (
            layer.keys[0][:, token_positions].transpose(0, 1).contiguous(),
            layer.values[0][:, token_positions].transpose(0, 1).contiguous(),
        )
        for layer in cache.layers
    ]
    position = tensors["position_ids"][0, 0, token_positions[:, -1]] + 1
    logits = model.logits(hidden[token_positions[:, -1]])
    prompts = _Prompts(layers, mask, position.repeat_interleave(passes), DynamicCache())
    return logits.repeat_interleave(passes, dim=0), prompts


def _step(model: EditScoreModel, tokens: Tensor, prompts: _Prompts) -> tuple[Tensor, _Prompts]:
    """Logits (R * K, vocabulary) of the tokens that follow `tokens` (R * K,), and what is known then."""
    attention = _AnswerAttention(prompts)
    hidden = model.backbone.model.language_model(
        input_ids=tokens[:, None],
        position_ids=prompts.position.expand(3, -1)[..., None],
        past_key_values=prompts.cache,
        use_cache=True,
        tree=attention,
    ).last_hidden_state
    assert attention.attention_calls == len(prompts.layers)
    return model.logits(hidden[:, -1]), prompts._replace(position=prompts.position + 1)


def _to_device(tensors: dict[str, Tensor], model: EditScoreModel) -> dict[str, Tensor]:
    return {name: value.to(model.device) for name, value in tensors.items()}

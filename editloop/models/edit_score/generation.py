"""Sample several answers to each of many prompts.

The prompts go through the model once, as a prefix tree: what they share is computed once, and each image is encoded
once. All answers to a prompt read the same keys and values. The draws of an answer come from its own random stream, so
they do not depend on the other answers of the batch.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from editloop.models.backbones.picture_inputs import Patches
from editloop.models.backbones.prefix_tree import last_hidden
from editloop.models.edit_score.model import EditScoreModel
from editloop.models.edit_score.rows import PromptRow
from editloop.models.edit_score.settings import EditScoreSettings

COMPACTION_SHARE = 0.25
"""When this share of the prompts in the batch is answered, they are removed from it. This is not done more often,
because moving keys and values costs as much as a step."""


def uniform_draws(seed: int, passes: int, questions: int, tokens: int) -> Tensor:
    """Return uniform numbers in [0, 1), (questions, passes, tokens). Pass k of every edit draws from seed + k.

    Edits that are compared share their draws, which removes noise from the comparison.

    Args:
        seed: Seed of the first pass.
        passes: Answers per question.
        questions: Questions per edit.
        tokens: Longest answer, in tokens.
    """
    streams = [np.random.default_rng(seed + k).random((questions, tokens), dtype=np.float32) for k in range(passes)]
    return torch.from_numpy(np.stack(streams, axis=1))


@torch.no_grad()
def generate_answers(model: EditScoreModel, rows: Sequence[PromptRow], numbers: Tensor) -> list[list[list[int]]]:
    """Sample K answers to each of R prompts.

    Args:
        model: The model.
        rows: The R prompts.
        numbers: Uniform numbers (R, K, T) in [0, 1): K answers per prompt, of at most T tokens each.

    Returns:
        For each prompt its K answers as token ids. An answer that was not cut ends with the closing token.
    """
    settings, end = model.settings, model.rows.end
    count, passes, max_tokens = numbers.shape
    numbers = numbers.to(model.device)
    logits, prompts = _prefill(model, rows, passes)
    answers: list[list[list[int]]] = [[[] for _ in range(passes)] for _ in range(count)]
    alive = torch.arange(count, device=model.device)
    penalised = settings.repetition_penalty != 1
    present = _present_tokens(model, rows, logits).repeat_interleave(passes, dim=0) if penalised else None
    for step in range(max_tokens):
        if present is not None:
            logits = penalise_repetition(logits, present, settings.repetition_penalty)
        tokens = sample_tokens(logits, numbers[alive, :, step].flatten(), settings)
        if present is not None:
            present.scatter_(1, tokens[:, None], True)
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
            alive, prompts = alive[continuing], prompts.only(continuing)
            tokens = tokens.view(-1, passes)[continuing].flatten()
            present = None if present is None else present[continuing.repeat_interleave(passes)]
        logits, prompts = _step(model, tokens, prompts)
    return answers


def penalise_repetition(logits: Tensor, present: Tensor, penalty: float) -> Tensor:
    """Return the logits with those of tokens that are already there made less likely (arXiv 1909.05858).

    Args:
        logits: (N, vocabulary).
        present: (N, vocabulary), whether a token is in the row's prompt or answer so far.
        penalty: Positive logits are divided by it, negative ones multiplied.
    """
    return torch.where(present, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def _present_tokens(model: EditScoreModel, rows: Sequence[PromptRow], logits: Tensor) -> Tensor:
    """Return which tokens each prompt has, (R, vocabulary)."""
    marks = model.rows.marks
    present = torch.zeros(len(rows), logits.shape[-1], dtype=torch.bool)
    for index, row in enumerate(rows):
        present[index, [marks.start, marks.image, marks.end]] = True
        present[index, [token for part in row.prompt if not isinstance(part, Patches) for token in part]] = True
    return present.to(logits.device)


def sample_tokens(logits: Tensor, numbers: Tensor, settings: EditScoreSettings) -> Tensor:
    """Sample one token per row, (N,).

    The logits are divided by the temperature, then restricted to the `top_k` likeliest tokens and to the fewest of
    these that hold `top_p` of their probability. The token is the inverse of the distribution function at the row's
    number.

    Args:
        logits: (N, vocabulary).
        numbers: Uniform numbers (N,) in [0, 1). At temperature 0 they are not used.
        settings: `temperature`, `top_k` and `top_p`. Temperature 0 takes the likeliest token.
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
    """Return the probabilities, float32 (R, len(tokens)), of some tokens as the next one after R prompts.

    Args:
        model: The model.
        rows: The R prompts.
        tokens: Ids of the tokens.
    """
    batch = model.collate(rows)
    hidden = last_hidden(model.backbone.model, _to_device(batch.tensors, model))
    lasts = torch.stack([path[-1] for path in batch.paths]).to(model.device)
    return model.logits(hidden[lasts]).float().softmax(-1)[:, list(tokens)]


class _Prompts(NamedTuple):
    """State of R prompts with K answers each, from which the next tokens are computed.

    H is the number of key heads, D their width.
    """

    layers: list[tuple[Tensor, Tensor]]
    """Keys and values of the prompts, each (R, H, L, D), per layer. Rows are padded on the left."""
    mask: Tensor
    """(R, L), False at padding."""
    position: Tensor
    """(R * K,): rotary position of the next token. It is the same on all three axes, because prompts end in text."""
    cache: DynamicCache
    """Keys and values of the answers so far, each (R * K, H, t, D), per layer."""

    @property
    def passes(self) -> int:
        return len(self.position) // len(self.mask)

    def only(self, selected: Tensor) -> "_Prompts":
        """Return the prompts where `selected` (R,) is True, with their answers."""
        selected_answers = selected.repeat_interleave(self.passes)
        self.cache.batch_select_indices(selected_answers.nonzero().squeeze(1))
        layers = [(keys[selected], values[selected]) for keys, values in self.layers]
        return _Prompts(layers, self.mask[selected], self.position[selected_answers], self.cache)


class _AnswerAttention:
    """Attention of one new token per answer, to its prompt and to the answer so far.

    All answers to a prompt share the prompt's keys and values. An instance takes the place of the tree in
    `tree_attention` for one step, and expects the layers in their order.
    """

    def __init__(self, prompts: _Prompts):
        self.prompts, self.attention_calls = prompts, 0

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """Attend from the new tokens, for one layer.

        Args:
            query: (R * K, heads, 1, D).
            key: Keys of the answers, (R * K, H, t, D).
            value: Values of the answers, (R * K, H, t, D).
            scaling: Factor on the logits; None takes D^-0.5.

        Returns:
            The output, (R * K, 1, heads, D).
        """
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
    """Return the logits (R * passes, vocabulary) of the first tokens, and the state with empty answers."""
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
    prompt_layers: list[Any] = cache.layers
    layers = [
        (
            layer.keys[0][:, token_positions].transpose(0, 1).contiguous(),
            layer.values[0][:, token_positions].transpose(0, 1).contiguous(),
        )
        for layer in prompt_layers
    ]
    position = tensors["position_ids"][0, 0, token_positions[:, -1]] + 1
    logits = model.logits(hidden[token_positions[:, -1]])
    prompts = _Prompts(layers, mask, position.repeat_interleave(passes), DynamicCache())
    return logits.repeat_interleave(passes, dim=0), prompts


def _step(model: EditScoreModel, tokens: Tensor, prompts: _Prompts) -> tuple[Tensor, _Prompts]:
    """Return the logits (R * K, vocabulary) of the tokens after `tokens` (R * K,), and the new state."""
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

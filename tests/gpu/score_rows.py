"""EditScore at the size of Qwen2.5-VL-7B: Avg@4 from one prefill, against a call of `generate` an answer."""

from collections.abc import Sequence

import numpy as np
import torch

from editloop.models.edit_score.generation import generate_answers, next_token_probabilities, uniform_draws
from editloop.models.edit_score.model import EditScoreModel
from editloop.models.edit_score.rows import PromptRow
from editloop.models.judge_protocol import EditGroup
from editloop.training.presets import load_preset
from tests.edit_score_models import plain_inputs
from tests.gpu.conditions import Conditions, Figures, checked
from tests.gpu.machine import forget_peak, peak_gib, relative_difference, seconds_of
from tests.gpu.vision_language import TINY, random_score

PASSES = 4
TOKENS = 96
"""Of an answer. None ends early: every way writes as much."""
APART = {"logits_apart": 0.1}
"""Largest relative difference of first tokens' logits between the two ways, in bfloat16."""


def average_of_four(conditions: Conditions) -> Figures:
    """Both questions about one edit, four sampled answers to each."""
    preset = load_preset("editscore-qwen2.5-vl-7b")
    shape = TINY if conditions.tiny else preset.architecture
    pixels, tokens = (32 * 32, 4) if conditions.tiny else (preset.load.pixels, TOKENS)
    model = random_score(shape, pixels, conditions.device, conditions.dtype)
    side = round(pixels**0.5)
    source, edit = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    questions = model.rows.ask(EditGroup("Make the kettle red and leave the cup.", source, [edit]))[0]
    apart = _first_tokens_apart(model, questions)
    model.rows.end = len(model.tokenizer)  # no token is the last
    numbers = uniform_draws(42, PASSES, 2, tokens)

    def separately() -> None:
        for row in questions:
            for _ in range(PASSES):
                _generate(model, row, tokens, 1)

    forget_peak()
    ours = seconds_of(lambda: generate_answers(model, questions, numbers), 1)
    peak = peak_gib()
    returned = seconds_of(lambda: [_generate(model, row, tokens, PASSES) for row in questions], 1)
    separate = seconds_of(separately, 1, warm_up=False)
    written = 2 * PASSES * tokens
    return checked(
        {
            "ratio": separate / ours,
            "returned_ratio": returned / ours,
            "edits_per_second": 1 / ours,
            "plain_edits_per_second": 1 / separate,
            "tokens_per_second": written / ours,
            "answer_tokens": float(tokens),
            "prompt_tokens": float(sum(row.tokens(model.rows.marks) for row in questions)),
            "peak_gib": peak,
            "logits_apart": apart,
        },
        APART,
    )


def _generate(model: EditScoreModel, row: PromptRow, tokens: int, answers: int) -> None:
    """The reference's way: Hugging Face's generate on one prompt."""
    settings = model.settings
    model.backbone.generate(
        **_moved(model, row),
        do_sample=True,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        num_return_sequences=answers,
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        pad_token_id=0,
    )


@torch.no_grad()
def _first_tokens_apart(model: EditScoreModel, questions: Sequence[PromptRow]) -> float:
    """How far the logits of first tokens after the shared prefill lie from those of plain passes."""
    ours = next_token_probabilities(model, questions, range(model.backbone.config.text_config.vocab_size)).log()
    theirs = [model.backbone(**_moved(model, row)).logits[0, -1].float().log_softmax(-1) for row in questions]
    centred, plain = (logits - logits.mean(-1, keepdim=True) for logits in (ours, torch.stack(theirs)))
    return relative_difference(centred, plain)


def _moved(model: EditScoreModel, row: PromptRow) -> dict[str, torch.Tensor]:
    return {name: value.to(model.device) for name, value in plain_inputs(model, row).items()}

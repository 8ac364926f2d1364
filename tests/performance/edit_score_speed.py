"""EditScore's Avg@4 of one edit, 64 new tokens an answer, against the plain ways to it with the same weights.

A Qwen2.5-VL of 6 million parameters, pictures of 64 tokens and the published questions, so that reading a prompt and
writing an answer stand to one another about as they do at full size. No answer ends early: every way writes as much.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from editloop.models.edit_score.generation import generate_answers, uniform_draws
from editloop.models.edit_score.model import EditScoreModel
from editloop.models.edit_score.rows import PromptRow
from editloop.models.edit_score.settings import EditScoreSettings
from editloop.models.judge_protocol import EditGroup
from editloop.studies.tiny_models.backbone import byte_tokenizer, tiny_config
from tests.edit_score_models import plain_inputs
from tests.performance.bench import Benchmark

PASSES, TOKENS = 4, 64


@cache
def judged_edit(temperature: float) -> tuple[EditScoreModel, tuple[PromptRow, PromptRow]]:
    """The model, and both questions about one edit."""
    torch.manual_seed(0)
    settings = EditScoreSettings(temperature=temperature, min_pixels=64 * 64, max_pixels=64 * 64)
    tokenizer = byte_tokenizer([settings.system, *(question.text for question in settings.questions), "user assistant"])
    config = tiny_config("qwen2.5-vl", tokenizer, width=256, layers=4, heads=8)
    model = EditScoreModel(Qwen2_5_VLForConditionalGeneration(config), tokenizer, settings).eval()
    rng = np.random.default_rng(0)
    source, edit = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    asked = model.rows.ask(EditGroup("Make the kettle red and leave the cup.", source, [edit]))[0]
    model.rows.end = len(tokenizer)  # no token is the last
    return model, asked


def generated(model: EditScoreModel, row: PromptRow, answers: int) -> list[list[int]]:
    """The reference's way: Hugging Face's generate on one prompt, `answers` returned."""
    inputs, settings = plain_inputs(model, row), model.settings
    drawn = (
        {"do_sample": False}
        if settings.temperature == 0
        else {
            "do_sample": True,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "top_k": settings.top_k,
            "num_return_sequences": answers,
        }
    )
    found = model.backbone.generate(**inputs, **drawn, max_new_tokens=TOKENS, min_new_tokens=TOKENS, pad_token_id=0)
    return found[:, inputs["input_ids"].shape[1] :].tolist()


def ours(temperature: float, passes: int) -> Callable[[], list[list[list[int]]]]:
    model, asked = judged_edit(temperature)
    numbers = uniform_draws(42, passes, 2, TOKENS)
    return lambda: generate_answers(model, asked, numbers)


def separate_calls() -> Benchmark:
    """Two questions, four passes: eight calls."""
    model, asked = judged_edit(0.7)

    def plain() -> None:
        for row in asked:
            for _ in range(PASSES):
                generated(model, row, 1)

    return Benchmark("edit_score: Avg@4 against separate calls", plain, ours(0.7, PASSES), target=2.9)


def returned_sequences() -> Benchmark:
    """Two calls, which return four answers each."""
    model, asked = judged_edit(0.7)
    return Benchmark(
        "edit_score: Avg@4 against num_return_sequences",
        lambda: [generated(model, row, PASSES) for row in asked],
        ours(0.7, PASSES),
        target=1.8,
    )


def one_pass() -> Benchmark:
    """How much longer four passes take than one: at most 1.6 times, so a ratio of 1 / 1.6 at least."""
    return Benchmark("edit_score: one pass against Avg@4", ours(0.7, 1), ours(0.7, PASSES), target=1 / 1.6)


def greedy_answers() -> Benchmark:
    """Greedy answers, token for token the same."""
    model, asked = judged_edit(0.0)
    return Benchmark(
        "edit_score: greedy answers of an edit, the same tokens",
        lambda: [generated(model, row, 1) for row in asked],
        ours(0.0, 1),
        target=1.0,
        same=lambda plain, found: plain == found,
    )


def pictures_and_tokens() -> Benchmark:
    """Tokens of prompts that the language model reads for Avg@4 of four edits of one source: each call its own, against
    what is distinct."""
    model, _ = judged_edit(0.7)
    rng = np.random.default_rng(1)
    source, *edits = rng.integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    asked = model.rows.ask(EditGroup("Make the kettle red.", source, edits))

    def plain() -> int:
        return PASSES * sum(row.tokens(model.rows.marks) for one in asked for row in one)

    def distinct() -> int:
        packed = model.collate([row for one in asked for row in one]).tensors
        assert len(packed["image_grid_thw"]) == 5
        return packed["input_ids"].shape[1]

    return Benchmark("edit_score: prompt tokens of Avg@4, four edits", plain, distinct, target=4.0, counted=True)


BENCHMARKS: tuple[Callable[[], Benchmark], ...] = (
    separate_calls,
    returned_sequences,
    one_pass,
    greedy_answers,
    pictures_and_tokens,
)

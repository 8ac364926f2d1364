"""EditScore as a `Judge` of edits: it asks the questions, parses the answers and combines the scores."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from editloop.content import read_manifest, sha256_json
from editloop.models.backbones.spreading import Spread, enable_spread_passes
from editloop.models.edit_score.checkpoints import base_folder
from editloop.models.edit_score.generation import generate_answers, next_token_probabilities, uniform_draws
from editloop.models.edit_score.model import EditScoreModel
from editloop.models.edit_score.rows import QuestionRows
from editloop.models.edit_score.scores import expected_score, score_of_answers
from editloop.models.edit_score.settings import AXES
from editloop.models.judge_protocol import EditGroup, Score, judge_wording

TOKENS_AT_ONCE = 32_768
"""Tokens of prompts and of the answers of all passes with keys and values in memory at once. They take 5 GB for an 8B
Qwen3-VL in bfloat16 (147 KB a token)."""


class EditScoreJudge:
    """A `Judge` that scores by Avg@K or, without reasoning, by the digits' probabilities. The settings say which."""

    name = "edit-score"
    axes = AXES

    def __init__(self, model: EditScoreModel, version: str, tokens_at_once: int = TOKENS_AT_ONCE):
        """Wrap a model.

        Args:
            model: The model, which is set to evaluation mode.
            version: Content address of the weights and questions.
            tokens_at_once: Limit of a batch, in tokens of prompts and answers. A batch has at least one edit.
        """
        self.model, self.version, self.tokens_at_once = model.eval(), version, tokens_at_once
        self.wording = judge_wording(model.settings)
        self.takes_references = model.settings.pictures != "paired"

    @classmethod
    def load(
        cls,
        model: str | Path,
        device: str | None = None,
        passes: int | None = None,
        *,
        spread: Spread | None = None,
    ) -> "EditScoreJudge":
        """Open a judge.

        The version is the folder's content address; a different number of passes gives a different version.

        Args:
            model: Folder or shipped name of a model.
            device: None takes the first GPU, or the CPU where there is none.
            passes: K of Avg@K; None takes the model's own.
            spread: Where each rank of a job keeps its part of the weights; None: this process has them whole.

        Raises:
            EditLoopError: The model cannot be loaded.
        """
        loaded = EditScoreModel.load(model, device, spread=spread)
        if spread:
            enable_spread_passes(loaded, spread)
        version = str(read_manifest(base_folder(model))["sha256"])
        if passes is not None and passes != loaded.settings.passes:
            loaded.set_settings(loaded.settings.model_copy(update={"passes": passes}))
            version = sha256_json([version, passes])
        return cls(loaded, version)

    def judge(self, groups: Sequence[EditGroup]) -> list[list[Score]]:
        """Score every edit of some groups: axes and overall O on 0..10, reward O / 10.

        The score of an edit is missing, with the reasons, where too few passes gave scores or the digits hold too
        little of the probability.

        Args:
            groups: The edits to score.

        Returns:
            One list per group, in order, with one score per edit.

        Raises:
            EditLoopError: A source or an edit is not an image that the model can read.
        """
        following = iter([score for batch in self._batches(groups) for score in self._score(batch)])
        return [[next(following) for _ in group.edits] for group in groups]

    def _batches(self, groups: Sequence[EditGroup]) -> Iterator[list[QuestionRows]]:
        """Yield the edits in order, as many at once as `tokens_at_once` allows and at least one."""
        settings, batch, batch_tokens = self.model.settings, list[QuestionRows](), 0
        for group in groups:
            for questions in self.model.rows.ask(group):
                prompts = sum(row.tokens(self.model.rows.marks) for row in questions)
                size = prompts + (2 * settings.max_new_tokens * settings.passes if settings.reasoning else 0)
                if batch and batch_tokens + size > self.tokens_at_once:
                    yield batch
                    batch, batch_tokens = [], 0
                batch.append(questions)
                batch_tokens += size
        if batch:
            yield batch

    def _score(self, batch: list[QuestionRows]) -> list[Score]:
        model, settings = self.model, self.model.settings
        if not settings.reasoning:
            rows = [row for questions in batch for row in model.rows.points(questions)]
            probabilities = next_token_probabilities(model, rows, model.rows.digits()).cpu().numpy()
            return [
                expected_score(edit_probabilities, settings.least_mass)
                for edit_probabilities in probabilities.reshape(len(batch), len(AXES), -1)
            ]
        numbers = uniform_draws(settings.seed, settings.passes, 2, settings.max_new_tokens).repeat(len(batch), 1, 1)
        texts = self._answers_to(batch, numbers)
        return [score_of_answers(sc, pq, settings) for sc, pq in zip(texts[::2], texts[1::2], strict=True)]

    def _answers_to(self, batch: list[QuestionRows], numbers: torch.Tensor) -> list[list[str]]:
        """Return the K answers to SC, then to PQ, of each edit."""
        rows = self.model.rows
        generated = generate_answers(self.model, [row for questions in batch for row in questions], numbers)
        return [[rows.text(answer) for answer in answers] for answers in generated]

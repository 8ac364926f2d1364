"""EditScore as a judge: questions, answers and their scores together."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from editloop.content import read_manifest, sha256_json
from editloop.models.edit_score.answers import ParsedAnswer, parse_answer
from editloop.models.edit_score.checkpoints import base_folder
from editloop.models.edit_score.generation import generate_answers, next_token_probabilities, uniform_draws
from editloop.models.edit_score.model import EditScoreModel
from editloop.models.edit_score.rows import QuestionRows
from editloop.models.edit_score.scores import average_passes, expected_score
from editloop.models.edit_score.settings import AXES
from editloop.models.judge_protocol import EditGroup, Score

TOKENS_AT_ONCE = 32_768
"""Tokens of prompts and of all passes' answers whose keys and values are in memory together: 5 GB for an 8B Qwen3-VL
in bfloat16 (147 KB a token)."""


class JudgeCounts(NamedTuple):
    """What a judge has been asked so far, and how much of it came to nothing."""

    edits: int
    missing: int
    answers: int
    faults: dict[str, int]
    """Answers without a score, by the parser's reason."""


class EditScoreJudge:
    """Scores edits by Avg@K, or without reasoning by the digits' probabilities, as the model's settings say."""

    name = "edit-score"
    axes = AXES

    def __init__(self, model: EditScoreModel, version: str, tokens_at_once: int = TOKENS_AT_ONCE):
        """version: content address of the weights and questions."""
        self.model, self.version, self.tokens_at_once = model.eval(), version, tokens_at_once
        self._edits = self._missing = self._answers = 0
        self._faults: Counter[str] = Counter()

    @classmethod
    def load(cls, model: str | Path, device: str | None = None, passes: int | None = None) -> "EditScoreJudge":
        """Open a model's folder or shipped name. passes: K of Avg@K, None takes the model's own.

        The version is the folder's content address, and with other passes than its own a different one.
        """
        loaded = EditScoreModel.load(model, device)
        version = str(read_manifest(base_folder(model))["sha256"])
        if passes is not None and passes != loaded.settings.passes:
            loaded.set_settings(loaded.settings.model_copy(update={"passes": passes}))
            version = sha256_json([version, passes])
        return cls(loaded, version)

    @property
    def counts(self) -> JudgeCounts:
        """Since the judge was opened."""
        return JudgeCounts(self._edits, self._missing, self._answers, dict(self._faults))

    def judge(self, groups: Sequence[EditGroup]) -> list[list[Score]]:
        """One score an edit, in the groups' order: axes and overall O on 0..10, reward O / 10.

        An edit of which too few passes can be read is missing, with the reasons.
        """
        scores = [score for batch in self._batches(groups) for score in self._score(batch)]
        self._edits += len(scores)
        self._missing += sum(bool(score.missing) for score in scores)
        following = iter(scores)
        return [[next(following) for _ in group.edits] for group in groups]

    def _batches(self, groups: Sequence[EditGroup]) -> Iterator[list[QuestionRows]]:
        """Edits in their order, as many at once as `tokens_at_once` allows, at least one."""
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
        return [self._averaged(sc, pq) for sc, pq in zip(texts[::2], texts[1::2], strict=True)]

    def _averaged(self, sc: list[str], pq: list[str]) -> Score:
        """The score of an edit's K answers to SC and to PQ."""
        settings = self.model.settings
        passes = [self._points(sc_answer, pq_answer) for sc_answer, pq_answer in zip(sc, pq, strict=True)]
        return replace(average_passes(passes, settings.top, settings.least_share), answers=(*sc, *pq))

    def _answers_to(self, batch: list[QuestionRows], numbers: torch.Tensor) -> list[list[str]]:
        """The K answers to SC, then to PQ, of each edit."""
        rows = self.model.rows
        generated = generate_answers(self.model, [row for questions in batch for row in questions], numbers)
        return [[rows.text(answer) for answer in answers] for answers in generated]

    def _points(self, sc: str, pq: str) -> tuple[float, ...] | str:
        """The four points of one pass, or the first fault of its two answers."""
        parsed = [parse_answer(text, self.model.settings.top) for text in (sc, pq)]
        faults = [answer for answer in parsed if not isinstance(answer, ParsedAnswer)]
        self._answers += 2
        self._faults.update(faults)
        return (
            faults[0]
            if faults
            else tuple(point for answer in parsed if isinstance(answer, ParsedAnswer) for point in answer.points)
        )

"""A judge behind an endpoint that answers with one token, such as yes or no, or a digit."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from editloop.errors import EditLoopError
from editloop.models.edit_score.scores import SCALE
from editloop.models.judge_protocol import AxisScore, Score
from editloop.scoring.endpoint_questions import ChatQuestion, ChatReply
from editloop.scoring.first_token import FIRST_TOKEN_FIELDS, token_chances, token_name
from editloop.scoring.single_question import SingleQuestion


class TokenJudge(SingleQuestion):
    """A judge whose answer is one token: its score is the expected value under the tokens' probabilities, 0 to 10."""

    kind: Literal["tokens"]
    values: dict[str, float] = Field(min_length=2)
    """Value of each token, such as {yes: 1, no: 0} or {"0": 0, ..., "5": 5}. Case and spaces around do not matter."""
    least_mass: float = Field(default=0.5, ge=0, le=1)
    """The tokens must hold at least this much of the probability. Otherwise the edit is missing."""

    @field_validator("values", mode="before")
    @classmethod
    def _as_text(cls, values: object) -> object:
        """Take a YAML file's numbers and booleans, which `0`, `yes` and `no` are without quotes, as tokens."""
        if not isinstance(values, dict):
            return values
        words = {True: "yes", False: "no"}
        return {words[key] if isinstance(key, bool) else str(key): value for key, value in values.items()}

    @field_validator("values")
    @classmethod
    def _differ(cls, values: dict[str, float]) -> dict[str, float]:
        if len(set(values.values())) < 2 or not all(map(math.isfinite, values.values())):
            raise ValueError("the tokens have no two different finite values")
        names = [token_name(token) for token in values]
        if "" in names or len(set(names)) != len(names):
            raise ValueError("two tokens differ in case or spaces only, or one is empty")
        return values

    @property
    def axes(self) -> tuple[str, ...]:
        """Name of the one score."""
        return ("answer",)

    def with_passes(self, passes: int) -> "TokenJudge":
        """Refuse another number of passes than one: probabilities are not sampled.

        Args:
            passes: The number.
        """
        if passes != 1:
            raise EditLoopError(f"{passes} passes: a judge of kind `tokens` reads probabilities, without chance.")
        return self

    def ask(self, instruction: str, references: int = 0) -> list[ChatQuestion]:
        """Return the one request.

        Args:
            instruction: The instruction.
            references: Number of reference images.
        """
        return [ChatQuestion(self.system, self.parts(instruction, references), FIRST_TOKEN_FIELDS)]

    def score(self, replies: Sequence[ChatReply]) -> Score:
        """Return the expected value, scaled to 0..10.

        Args:
            replies: The reply to `ask`.
        """
        chances = np.array(token_chances(replies[0], list(self.values)))
        mass = float(chances.sum())
        if mass < max(self.least_mass, 1e-12):
            names = ", ".join(self.values)
            return Score(missing=f"{names} hold {mass:.2f} of the probability, below {self.least_mass:g}")
        values = np.array(list(self.values.values()))
        levels = (values - values.min()) / (values.max() - values.min()) * SCALE
        mean = float(chances @ levels / mass)
        answer = AxisScore(mean, math.sqrt(float(chances @ (levels - mean) ** 2 / mass)))
        return Score({"answer": answer}, answer, answer.mean, answer.mean / SCALE)

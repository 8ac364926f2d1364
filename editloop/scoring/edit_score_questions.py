"""A judge behind an endpoint that is asked as EditScore is: two questions, SC and PQ."""

from collections.abc import Sequence

import numpy as np

from editloop.content import sha256_json
from editloop.models.edit_score.scores import expected_score, score_of_answers
from editloop.models.edit_score.settings import AXES, DIGITS, INSTRUCTION, EditScoreSettings
from editloop.models.judge_protocol import REFERENCE_NOTE, Score, judge_wording, note_on_references
from editloop.scoring.endpoint_questions import ChatQuestion, ChatReply, Part, plain_text, sampling_fields
from editloop.scoring.first_token import FIRST_TOKEN_FIELDS, token_chances


class EditScoreQuestions:
    """EditScore's two questions, K passes of each with a seed of its own, or the digits' probabilities."""

    axes = AXES

    def __init__(self, settings: EditScoreSettings):
        """Take the questions of an EditScore model, or of a file of kind `edit-score`.

        Args:
            settings: Texts, passes, sampling and seed. Images are sent with at most `max_pixels`.
        """
        self.settings = settings
        self.max_pixels: int | None = settings.max_pixels
        self.wording = judge_wording(settings)

    def digest(self) -> str:
        """Return the digest of texts and settings. A `reference_note` counts where it is not the default."""
        default = self.settings.reference_note == REFERENCE_NOTE
        return sha256_json(self.settings.model_dump(exclude={"reference_note"} if default else None))

    def with_passes(self, passes: int) -> "EditScoreQuestions":
        """Return the questions with another number of passes.

        Args:
            passes: K of Avg@K.
        """
        return EditScoreQuestions(self.settings.model_copy(update={"passes": passes}))

    def ask(self, instruction: str, references: int = 0) -> list[ChatQuestion]:
        """Return SC's K requests, then PQ's; without reasoning one for each of the four points.

        SC shows the source, the references and the edit, in this order; PQ the edit alone.

        Args:
            instruction: The instruction.
            references: Number of reference images.
        """
        settings = self.settings
        requests = []
        sources = [Part("source"), *(Part("reference", number=number) for number in range(references))]
        note = note_on_references(settings.reference_note, references)
        pictures_of_question = (([*sources, Part("edit")], note), ([Part("edit")], ""))
        for question, (pictures, before) in zip(settings.questions, pictures_of_question, strict=True):
            parts: list[Part] = []
            for number, picture in enumerate(pictures, start=1):
                parts += [Part("text", settings.mark(number))] if settings.picture_mark else []
                parts.append(picture)
            parts.append(Part("text", before + question.text.replace(INSTRUCTION, plain_text(instruction))))
            if settings.reasoning:
                for seed in range(settings.seed, settings.seed + settings.passes):
                    fields = sampling_fields(settings) | {"seed": seed}
                    requests.append(ChatQuestion(settings.system, tuple(parts), fields))
            else:
                for axis in question.axes:
                    requests.append(ChatQuestion(settings.system, tuple(parts), FIRST_TOKEN_FIELDS, f"{axis}: "))
        return requests

    def score(self, replies: Sequence[ChatReply]) -> Score:
        """Return Avg@K, or the expected score.

        Args:
            replies: The replies to `ask`, in order.
        """
        settings = self.settings
        if settings.reasoning:
            texts = [reply.text for reply in replies]
            return score_of_answers(texts[: settings.passes], texts[settings.passes :], settings)
        chances = [token_chances(reply, DIGITS) for reply in replies]
        return expected_score(np.array(chances), settings.least_mass)

"""The file of a judge behind an endpoint: what it is asked, and what its answers are worth.

Four kinds of judge, each with its texts and settings in a file (`EDITLOOP_OPENAI_JUDGE`), in YAML or JSON:

    edit-score  two questions, SC and PQ, with two numbers each in JSON: EditScore, VIEScore (top: 10) and
                UnifiedReward-Edit. Without reasoning, the expected value over the digits 0 to 5 of each point.
    aspects     one question; the answer goes aspect by aspect, each with a score: RationalRewards.
    lines       one question, or one for each type of task; the answer has a line `NAME: SCORE` for each of its scores:
                ImgEdit-Bench.
    tokens      one question; the expected value over the probabilities of the first token, such as the digits 0 to 5
                (Edit-R1) or yes and no.
"""

from pathlib import Path
from typing import Any

from editloop.errors import EditLoopError
from editloop.models.edit_score.settings import EditScoreSettings
from editloop.models.judge_protocol import warn_of_substitute
from editloop.scoring.edit_score_questions import EditScoreQuestions
from editloop.scoring.endpoint_questions import EndpointQuestions
from editloop.scoring.rating_judges import AspectJudge, LineJudge
from editloop.scoring.token_judge import TokenJudge
from editloop.settings_file import read_yaml, validate_settings


def read_judge_file(path: Path) -> EndpointQuestions:
    """Read the file of a judge's texts and settings. An `editscore.json` of a model's folder is such a file.

    Args:
        path: The file, in YAML or JSON. Its `kind` is `edit-score` where it does not say.

    Raises:
        EditLoopError: The file cannot be read, or a value in it is not valid.
    """
    values: Any = read_yaml(path)
    source, advice = f"judge {path}", "Correct the file."
    kind = values.get("kind", "edit-score") if isinstance(values, dict) else "edit-score"
    if kind == "aspects":
        return validate_settings(AspectJudge, values, source, advice)
    if kind == "lines":
        return validate_settings(LineJudge, values, source, advice)
    if kind == "tokens":
        return validate_settings(TokenJudge, values, source, advice)
    if kind != "edit-score":
        raise EditLoopError(f"{source}: kind {kind!r}; there are edit-score, aspects, lines and tokens. {advice}")
    own = {key: value for key, value in values.items() if key != "kind"} if isinstance(values, dict) else values
    settings = validate_settings(EditScoreSettings, own, source, advice)
    warn_of_substitute(settings, path)
    return EditScoreQuestions(settings)

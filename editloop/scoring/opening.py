"""Open a judge by its address: a local model, a registered one, a served one, or an OpenAI-compatible endpoint.

This module imports little on purpose: a model's own modules are imported when such a model is opened.
"""

from importlib.resources import files
from pathlib import Path
from typing import Literal, NamedTuple

from editloop.errors import EditLoopError
from editloop.models.judge_protocol import Judge
from editloop.plugins import load_plugin

Kind = Literal["edit-reward", "edit-score"]
"""The kinds of model that a local folder may hold."""

MODEL_FORMS = (
    "a model's folder, the name of a shipped model, models:/NAME@ALIAS, http://HOST:PORT of `editloop serve`, or "
    "openai:http://HOST/v1#MODEL"
)
"""The forms of a model's address, for error messages."""


class LocalModel(NamedTuple):
    """A model in a folder on this machine."""

    kind: Kind
    folder: Path


SERVED_PREFIXES = ("http://", "https://", "openai:")
"""Prefixes of the addresses of judges that run outside this process."""


def is_served(model: str) -> bool:
    """Return whether a judge is reached over HTTP, so that the caller has time to work while it judges.

    Args:
        model: The model's address, as for `open_judge`.
    """
    return model.startswith(SERVED_PREFIXES)


def open_judge(model: str, *, device: str | None = None, passes: int | None = None) -> Judge:
    """Open the judge behind a model's address.

    Args:
        model: One of: a model's folder (EditReward or EditScore); the name of a shipped model (`tiny-reward`);
            `models:/NAME@ALIAS` or `models:/NAME/VERSION` of the registry; `http(s)://HOST:PORT` of `editloop
            serve` (token: EDITLOOP_JUDGE_TOKEN); `openai:http://HOST/v1#MODEL` of any OpenAI-compatible endpoint
            (key: EDITLOOP_OPENAI_KEY); `NAME` or `NAME:REST` of a judge that another package declares as an
            `editloop.judges` entry point, which is called with REST.
        device: Device of a local model (`cpu`, `cuda:1`); None takes the first GPU, or the CPU where there is none.
        passes: K of EditScore's Avg@K; None takes the model's own.

    Returns:
        The judge, ready to score.

    Raises:
        EditLoopError: The address names no judge that can be opened, or `passes` is given for a model that has no
            choice of passes.

    Examples:
        >>> import editloop, numpy as np
        >>> judge = editloop.open_judge("tiny-reward", device="cpu")
        >>> source = np.full((32, 32, 3), 128, np.uint8)
        >>> group = editloop.EditGroup("make it darker", source, [source, source // 2])
        >>> [len(scores) for scores in judge.judge([group])]
        [2]
    """
    if model.startswith("openai:"):
        from editloop.scoring.openai_judge import OpenAIJudge

        return OpenAIJudge.open(model.removeprefix("openai:"), passes)
    if model.startswith(("http://", "https://")):
        from editloop.scoring.server_client import ServedJudge

        if passes is not None:
            raise EditLoopError(f"{model}: {passes} passes were asked for; a server's are chosen where it is started.")
        return ServedJudge.open(model)
    if opener := load_plugin("editloop.judges", model.partition(":")[0]):
        judge: Judge = opener(model.partition(":")[2], device=device, passes=passes)
        return judge
    local_model = find_local(model)
    if local_model.kind == "edit-reward":
        from editloop.models.edit_reward.judge import RewardJudge

        if passes is not None:
            raise EditLoopError(f"{model}: {passes} passes were asked for; EditReward has one, and no chance in it.")
        return RewardJudge.load(local_model.folder, device=device)
    from editloop.models.edit_score.judge import EditScoreJudge

    return EditScoreJudge.load(local_model.folder, device=device, passes=passes)


def find_local(model: str) -> LocalModel:
    """Find the folder of a model that is not served; a registered model is fetched and checked first.

    Args:
        model: A folder, the name of a shipped model, or an address in the registry.

    Returns:
        The model's kind and folder.

    Raises:
        EditLoopError: There is no such model, or the folder holds no model of a known kind.
    """
    if model.startswith("models:/"):
        from editloop.lineage.registry import require_model

        folder = require_model(model)
    else:
        packages = () if "/" in model else ("edit_reward", "edit_score")
        shipped = [Path(str(files(f"editloop.models.{package}"))) / "weights" / model for package in packages]
        folder = next(filter(Path.is_dir, shipped), Path(model))
    if not folder.is_dir():
        raise EditLoopError(f"{model}: no such model; give {MODEL_FORMS}.")
    return LocalModel(_kind(folder, model), folder)


def _kind(folder: Path, model: str) -> Kind:
    """Return the kind of model in a folder.

    EditScore's folders have an `editscore.json`, EditReward's a `reward.json`. A checkpoint in Hugging Face's layout is
    taken for EditReward's, whose loader says what to do with it.
    """
    if (folder / "editscore.json").is_file():
        return "edit-score"
    if (folder / "reward.json").is_file() or (folder / "config.json").is_file():
        return "edit-reward"
    raise EditLoopError(
        f"{model}: neither reward.json, editscore.json nor a checkpoint's config.json in {folder}; give {MODEL_FORMS}."
    )

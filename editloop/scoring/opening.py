"""From what a person writes to a judge: one word for a local model, a registered one, a served one, an endpoint.

Light on purpose: a model's own modules are imported when such a model is opened.
"""

from importlib.resources import files
from pathlib import Path
from typing import Literal, NamedTuple

from editloop.errors import EditLoopError
from editloop.models.judge_protocol import Judge
from editloop.plugins import load_plugin

Kind = Literal["edit-reward", "edit-score"]

MODEL_FORMS = (
    "a model's folder, the name of a shipped model, models:/NAME@ALIAS, http://HOST:PORT of `editloop serve`, or "
    "openai:http://HOST/v1#MODEL"
)


class LocalModel(NamedTuple):
    """A model that lies in a folder of this machine."""

    kind: Kind
    folder: Path


SERVED_PREFIXES = ("http://", "https://", "openai:")
"""What the addresses of judges that are elsewhere begin with."""


def is_served(model: str) -> bool:
    """Whether a judge is elsewhere, so that an asker has time to work while it judges."""
    return model.startswith(SERVED_PREFIXES)


def open_judge(model: str, *, device: str | None = None, passes: int | None = None) -> Judge:
    """The judge behind a model's address.

    model: a folder (EditReward or EditScore, ours or as released), a shipped name (`tiny-reward`), `models:/NAME@ALIAS`
    or `models:/NAME/VERSION` of the registry, `http(s)://HOST:PORT` of `editloop serve` (token: EDITLOOP_JUDGE_TOKEN),
    `openai:http://HOST/v1#MODEL` of any OpenAI-compatible endpoint (key: EDITLOOP_OPENAI_KEY), or `NAME` or `NAME:REST`
    of a judge that another package declares as an `editloop.judges` entry point: it is called with REST.
    device: where a local model computes (`cpu`, `cuda:1`); None takes the first GPU, or else the CPU.
    passes: K of EditScore's Avg@K; None takes the model's own.

    Raises EditLoopError where nothing can be opened there, or where passes are asked of what has none to choose.
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
    """Where a model that is not served lies; a registered one is fetched and checked first.

    Raises EditLoopError where there is none, or where the folder holds no model of a known kind.
    """
    if model.startswith("models:/"):
        from editloop.lineage.registry import resolve_model

        registered = resolve_model(model)
        if registered is None:
            raise EditLoopError(f"{model}: the registry has no such version; `editloop stage promote` sets an alias.")
        return LocalModel(_kind(registered, model), registered)
    for package in ("edit_reward", "edit_score"):
        shipped = Path(str(files(f"editloop.models.{package}"))) / "weights" / model
        if "/" not in model and shipped.is_dir():
            return LocalModel(_kind(shipped, model), shipped)
    folder = Path(model)
    if not folder.is_dir():
        raise EditLoopError(f"{model}: no such model; give {MODEL_FORMS}.")
    return LocalModel(_kind(folder, model), folder)


def _kind(folder: Path, model: str) -> Kind:
    """EditScore's folders say so; what else looks like a checkpoint is EditReward's, which checks the keys itself."""
    if (folder / "editscore.json").is_file():
        return "edit-score"
    if (folder / "reward.json").is_file() or (folder / "config.json").is_file():
        return "edit-reward"
    raise EditLoopError(
        f"{model}: neither reward.json, editscore.json nor a checkpoint's config.json in {folder}; give {MODEL_FORMS}."
    )

"""What a campaign lead writes down before a campaign opens, and the YAML file it is written in.

docs/campaign.md explains every key to the lead; docs/campaign.example.yaml has them all.
"""

import json
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from annotation.campaigns.labelling import FEWEST, MOST, AxisWords
from editloop.data.vocabulary import AXES, Axis
from editloop.errors import EditLoopError
from editloop.yaml_file import read_yaml

LARGEST_SHARE = 0.5
"""More than half of control pages is a test of the annotators, not a campaign."""


class _SettingsModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Gold(_SettingsModel):
    """Pages whose answer is known; annotators cannot tell them from the others."""

    share: float = Field(0.0, ge=0, le=LARGEST_SHARE)
    """Gold pages for each task; some are made where tasks have a target. 0 = none."""
    answers: str = ""
    """The lead's own known answers as CSV text (in the file: a path to it): task,candidate,if,vq. A rating is a level
    (4) or a range (3-4), empty where it is not known. Those tasks' pages become gold and teach no model."""


class Repeats(_SettingsModel):
    """Pages that are asked a second time, in another order."""

    share: float = Field(0.0, ge=0, le=LARGEST_SHARE)
    """Repeated pages for each task. 0 = none."""


class Gates(_SettingsModel):
    """What a campaign must reach before it closes by itself."""

    alpha: dict[Axis, Annotated[float, Field(ge=-1, le=1)]] = {}
    """Lowest Krippendorff alpha by axis, -1..1; an axis that is not named has no gate."""


class CampaignSettings(_SettingsModel):
    """Everything that is decided before the first question is asked."""

    name: str = Field(min_length=1)
    """The campaign's name in Label Studio and on the command line."""
    annotators: tuple[str, ...] = Field(min_length=1)
    """Account names of the experts: an address, or the part before the @ of an account that EditLoop keeps."""
    overlap: int = Field(2, ge=1)
    """How many of them judge each page; agreement needs two or more."""
    lead: str | None = None
    """Account name of who decides tasks in conflict. Without one there is no adjudication."""
    candidates_per_task: int | None = Field(None, ge=FEWEST, le=MOST)
    """Candidates on a page; of a task that has more, so many are drawn. Without it all are shown."""
    axes: dict[Axis, AxisWords] = {}
    """Other words for an axis: its name and its four levels, worst first. What is not named keeps the usual words."""
    gold: Gold = Gold()
    repeats: Repeats = Repeats()
    guidelines: str = ""
    """What annotators read before they begin, as Markdown text (in the file: a path to it). Empty: the usual ones."""
    gates: Gates = Gates()
    seed: int = 0
    """Draws the candidates' order on each page, which pages are gold or repeated, and the order of the pages."""

    @field_validator("annotators")
    @classmethod
    def _sorted(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if doubled := sorted({name for name in value if value.count(name) > 1}):
            raise ValueError(f"{', '.join(doubled)} named twice")
        return tuple(sorted(value))

    @model_validator(mode="after")
    def _enough_people(self) -> "CampaignSettings":
        if self.overlap > len(self.annotators):
            raise ValueError(
                f"overlap {self.overlap} of {len(self.annotators)} annotators: name that many, or ask fewer"
            )
        return self


class CampaignFile(NamedTuple):
    """A campaign's YAML file, read: the settings with the texts of the files it names, and the candidates' folder."""

    settings: CampaignSettings
    candidates: Path


def read_campaign_settings(path: Path) -> CampaignFile:
    """Read a campaign's YAML file. Paths in it are relative to it. EditLoopError names all faults at once."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise EditLoopError(f"{path}: a campaign's file holds keys and values, such as `name: kitchen`.")
    faults: list[str] = []
    candidates = content.pop("candidates", None)
    folder = path.parent / str(candidates)
    if not isinstance(candidates, str):
        faults.append("candidates: name the folder that stage candidates wrote")
    elif not (folder / "tasks.jsonl").is_file():
        faults.append(f"candidates = {candidates}: no folder of stage candidates is there ({folder})")
    _read_text(content, "guidelines", path.parent, faults)
    if isinstance(content.get("gold"), dict):
        _read_text(content["gold"], "answers", path.parent, faults)
    settings = None
    try:
        settings = CampaignSettings.model_validate(content)
    except ValidationError as error:
        faults += [_fault(details) for details in error.errors()]
    if settings is None or faults:
        raise EditLoopError("\n".join([f"{path}: {len(faults)} faults in the campaign's settings:", *faults]))
    return CampaignFile(settings, folder)


def settings_of(
    campaign: str,
    *,
    annotators: list[str],
    overlap: int,
    lead: str,
    candidates_per_task: int,
    axes: str,
    gold_share: float,
    gold_answers: str,
    repeat_share: float,
    guidelines: str,
    alpha_if: float,
    alpha_vq: float,
    seed: int,
) -> CampaignSettings:
    """The settings from a stage's flat parameters, where "" and 0 stand for "not given". EditLoopError for faults."""
    try:
        words = json.loads(axes)
    except ValueError as error:
        raise EditLoopError(f"axes = {axes}: not JSON ({error}).") from error
    gates = {axis: gate for axis, gate in zip(AXES, (alpha_if, alpha_vq), strict=True) if gate}
    try:
        return CampaignSettings.model_validate(
            {
                "name": campaign,
                "annotators": annotators,
                "overlap": overlap,
                "lead": lead or None,
                "candidates_per_task": candidates_per_task or None,
                "axes": words,
                "gold": {"share": gold_share, "answers": gold_answers},
                "repeats": {"share": repeat_share},
                "guidelines": guidelines,
                "gates": {"alpha": gates},
                "seed": seed,
            }
        )
    except ValidationError as error:
        faults = [_fault(details) for details in error.errors()]
        text = "\n".join([f"Campaign {campaign}: {len(faults)} faults in its settings:", *faults])
        raise EditLoopError(text) from error


def stage_parameters(settings: CampaignSettings) -> dict[str, Any]:
    """The settings as stage `annotate` takes them; `settings_of` is its inverse."""
    axes = {axis: words.model_dump(mode="json") for axis, words in settings.axes.items()}
    return {
        "campaign": settings.name,
        "annotators": list(settings.annotators),
        "overlap": settings.overlap,
        "lead": settings.lead or "",
        "candidates_per_task": settings.candidates_per_task or 0,
        "axes": json.dumps(axes, sort_keys=True, ensure_ascii=False),
        "gold_share": settings.gold.share,
        "gold_answers": settings.gold.answers,
        "repeat_share": settings.repeats.share,
        "guidelines": settings.guidelines,
        "alpha_if": settings.gates.alpha.get("if", 0.0),
        "alpha_vq": settings.gates.alpha.get("vq", 0.0),
        "seed": settings.seed,
    }


def _read_text(content: dict[str, Any], key: str, folder: Path, faults: list[str]) -> None:
    """Put the named file's text in the place of its path."""
    if key not in content:
        return
    try:
        content[key] = (folder / str(content[key])).read_text()
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{key} = {content[key]}: cannot be read ({type(error).__name__}); name a text file")
        content[key] = ""


def _fault(details: Any) -> str:
    """One of pydantic's findings as `key = value: rule`."""
    key = ".".join(str(part) for part in details["loc"])
    message = str(details["msg"]).removeprefix("Value error, ")
    if details["type"] == "missing":
        return f"{key}: missing; it is required"
    if details["type"] == "extra_forbidden":
        return f"{key} = {details['input']}: unknown key; docs/campaign.md has all of them"
    if not key:
        return message
    return f"{key} = {details['input']}: {message[:1].lower()}{message[1:]}"

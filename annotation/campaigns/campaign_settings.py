"""Settings of an annotation campaign, and the YAML file that holds them.

docs/campaign.md explains every key to the lead; docs/campaign.example.yaml contains all of them.
"""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from annotation.campaigns.labelling import FEWEST, MOST, AxisWords
from editloop.data.account_name import account_name
from editloop.data.table_file import table_text
from editloop.data.vocabulary import AXES, Axis
from editloop.errors import EditLoopError
from editloop.settings_file import FrozenModel, parse_json, read_yaml, setting_faults, shorten
from editloop.text_file import read_text_file

SHORTEST_NAME, LONGEST_NAME = 3, 150
"""Characters of a campaign's name. Label Studio refuses a project's title below three, and more than a line is no name.
"""
JOINERS = "\u00a0\u200c\u200d"
"""Characters that join others, in scripts and emoji, and are no letters themselves."""
LARGEST_SHARE = 0.5
"""Largest share of gold or of repeats: with more, the campaign would test annotators rather than collect ratings."""
NO_GATE = -1.0
"""Value of the stage's parameters where an axis has no gate. No alpha is lower."""


def campaign_name(text: str) -> str:
    """Return the one spelling of a campaign's name, without spaces around it and in Unicode's composed form.

    Args:
        text: The name as a person wrote it.

    Raises:
        ValueError: It has characters that a terminal or a page obeys instead of showing, or another length than
            SHORTEST_NAME to LONGEST_NAME.
    """
    name = unicodedata.normalize("NFC", text).strip()
    hidden = [character for character in name if not character.isprintable() and character not in JOINERS]
    if hidden:
        raise ValueError(f"has the character U+{ord(hidden[0]):04X}, which cannot be seen; use letters, digits, signs")
    if not SHORTEST_NAME <= len(name) <= LONGEST_NAME:
        raise ValueError(f"has {len(name)} characters; a campaign's name has {SHORTEST_NAME} to {LONGEST_NAME}")
    if "'" in name and '"' in name:
        raise ValueError("has both kinds of quotes; MLflow could not find it")
    return name


class Gold(FrozenModel):
    """Gold pages: pages with a known answer, which annotators cannot tell from the others."""

    share: float = Field(0.0, ge=0, le=LARGEST_SHARE)
    """Gold pages per task, 0..0.5; 0 = none. Pages beyond those of `answers` are made from tasks with a target."""
    pages: int = Field(0, ge=0)
    """Gold pages in all, instead of `share`. Everybody rates them, so with many annotators a share of the tasks takes
    most of everybody's time."""
    answers: str = ""
    """The lead's own known answers as CSV text with columns task,candidate,if,vq (in the YAML file: a path to it). A
    rating is a level (4) or a range (3-4), empty if unknown. The pages of those tasks become gold, so no model is
    trained on them."""


class Repeats(FrozenModel):
    """Repeats: pages that annotators see a second time, in another order."""

    share: float = Field(0.0, ge=0, le=LARGEST_SHARE)
    """Repeated pages per task, 0..0.5; 0 = none."""
    pages: int = Field(0, ge=0)
    """Repeated pages in all, instead of `share`."""


class Training(FrozenModel):
    """Training round: gold pages in a project of its own, which show the known answer after an annotator's."""

    pages: int = Field(0, ge=0, le=100)
    """Training pages; 0 = no training round."""
    passing: float = Field(0.8, gt=0, le=1)
    """Share of the known ratings that an annotator must get right to pass, above 0 to 1."""
    required: bool = True
    """Whether answers in the campaign count only from annotators who passed, also those that they gave before."""


class Norming(FrozenModel):
    """Norming: tasks that everybody rates first, to be discussed together on the quality page."""

    pages: int = Field(0, ge=0, le=100)
    """Norming pages; 0 = none. They teach no model."""


class Gates(FrozenModel):
    """Gates: agreement that a campaign must reach to close without an acceptance by a person."""

    alpha: dict[Axis, Annotated[float, Field(gt=NO_GATE, le=1)]] = Field(default_factory=dict)
    """Lowest Krippendorff alpha by axis, above -1 and up to 1. An axis without an entry has no gate."""


class CampaignSettings(FrozenModel):
    """Settings of an annotation campaign."""

    name: Annotated[str, AfterValidator(campaign_name)]
    """The campaign's name in Label Studio and on the command line."""
    annotators: tuple[str, ...] = Field(min_length=1)
    """Account names of the annotators: an address, or the part before the @ of an account that EditLoop made."""
    overlap: int = Field(2, ge=1)
    """Number of annotators who judge each page; agreement needs two or more."""
    lead: Annotated[str, AfterValidator(account_name)] | None = None
    """Account name of the lead, who decides tasks in conflict. Without a lead there is no adjudication. The lead may be
    an annotator too."""
    candidates_per_task: int | None = Field(None, ge=FEWEST, le=MOST)
    """Candidates on a page; of a task with more, this many are drawn. None: all are shown."""
    axes: dict[Axis, AxisWords] = Field(default_factory=dict)
    """Other words for an axis: its name and its four levels, worst first. Axes without an entry keep the default."""
    gold: Gold = Gold()
    repeats: Repeats = Repeats()
    training: Training = Training()
    norming: Norming = Norming()
    guidelines: str = ""
    """Guidelines for annotators as Markdown text (in the YAML file: a path to it). Empty: the default guidelines."""
    gates: Gates = Gates()
    seed: int = 0
    """Seed of the order of candidates on a page, of the draw of candidates, gold and repeats, and of the page order."""

    @field_validator("annotators")
    @classmethod
    def _one_name_each(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        spellings: dict[str, list[str]] = {}
        for text in value:
            spellings.setdefault(account_name(text), []).append(text)
        doubled = [
            f"{name} named twice"
            + (f" ({' and '.join(map(shorten, texts))} are one account)" if set(texts) != {name} else "")
            for name, texts in sorted(spellings.items())
            if len(texts) > 1
        ]
        if doubled:
            raise ValueError("; ".join(doubled))
        return tuple(sorted(spellings))

    @model_validator(mode="after")
    def _share_or_pages(self) -> "CampaignSettings":
        for name, checks in (("gold", self.gold), ("repeats", self.repeats)):
            if checks.share and checks.pages:
                raise ValueError(f"{name}: share {checks.share} and pages {checks.pages} say the same thing: give one")
        return self

    @model_validator(mode="after")
    def _enough_people(self) -> "CampaignSettings":
        if self.overlap > len(self.annotators):
            raise ValueError(
                f"overlap {self.overlap} of {len(self.annotators)} annotators: name that many, or ask fewer"
            )
        return self


class CampaignFile(NamedTuple):
    """Content of a campaign's YAML file: the settings, with the texts of files it names, and the candidates folder."""

    settings: CampaignSettings
    candidates: Path


def read_campaign_settings(path: Path) -> CampaignFile:
    """Read a campaign's YAML file.

    Args:
        path: The file. Paths in it are relative to its folder.

    Returns:
        The settings and the candidates folder.

    Raises:
        EditLoopError: The file has faults; the message lists all of them.
    """
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
    _read_text(content, "guidelines", path.parent, faults, read_text_file)
    if isinstance(content.get("gold"), dict):
        _read_text(content["gold"], "answers", path.parent, faults, table_text)
    settings = None
    try:
        settings = CampaignSettings.model_validate(content)
    except ValidationError as error:
        faults += setting_faults(error, CampaignSettings)
    if settings is None or faults:
        raise _refusal(str(path), faults)
    return CampaignFile(settings, folder)


def settings_of(
    name: str,
    *,
    annotators: list[str],
    overlap: int,
    lead: str,
    candidates_per_task: int,
    axes: str,
    gold_share: float,
    gold_pages: int,
    gold_answers: str,
    repeat_share: float,
    repeat_pages: int,
    training_pages: int,
    training_passing: float,
    training_required: bool,
    norming_pages: int,
    guidelines: str,
    alpha_if: float,
    alpha_vq: float,
    seed: int,
) -> CampaignSettings:
    """Build campaign settings from the flat parameters of stage `annotate`.

    Args:
        name: Name of the campaign.
        annotators: Account names of the annotators.
        overlap: Annotators per page.
        lead: Account name of the lead; "" for none.
        candidates_per_task: Candidates on a page; 0 for all.
        axes: JSON object of words by axis.
        gold_share: Gold pages per task.
        gold_pages: Gold pages in all, instead of a share; 0 for none.
        gold_answers: The lead's known answers as CSV text; "" for none.
        repeat_share: Repeated pages per task.
        repeat_pages: Repeated pages in all, instead of a share; 0 for none.
        training_pages: Training pages; 0 for no training round.
        training_passing: Share of known ratings to get right in the training round.
        training_required: Whether answers count only from annotators who passed.
        norming_pages: Norming pages; 0 for none.
        guidelines: Guidelines in Markdown; "" for the default ones.
        alpha_if: Lowest alpha of instruction following to close at; NO_GATE for no gate.
        alpha_vq: Lowest alpha of visual quality to close at; NO_GATE for no gate.
        seed: Seed of all draws and orders.

    Returns:
        The settings.

    Raises:
        EditLoopError: The parameters have faults; the message lists all of them.
    """
    words = parse_json(axes, f"axes = {shorten(axes)}")
    gates = {axis: gate for axis, gate in zip(AXES, (alpha_if, alpha_vq), strict=True) if gate != NO_GATE}
    try:
        return CampaignSettings.model_validate(
            {
                "name": name,
                "annotators": annotators,
                "overlap": overlap,
                "lead": lead or None,
                "candidates_per_task": candidates_per_task or None,
                "axes": words,
                "gold": {"share": gold_share, "pages": gold_pages, "answers": gold_answers},
                "repeats": {"share": repeat_share, "pages": repeat_pages},
                "training": {"pages": training_pages, "passing": training_passing, "required": training_required},
                "norming": {"pages": norming_pages},
                "guidelines": guidelines,
                "gates": {"alpha": gates},
                "seed": seed,
            }
        )
    except ValidationError as error:
        raise _refusal(f"Campaign {shorten(name)}", setting_faults(error, CampaignSettings)) from error


def stage_parameters(settings: CampaignSettings) -> dict[str, Any]:
    """Return the settings as flat parameters of stage `annotate`; `settings_of` reads them back.

    Args:
        settings: The settings.

    Returns:
        Values by parameter name.
    """
    axes = {axis: words.model_dump(mode="json") for axis, words in settings.axes.items()}
    return {
        "name": settings.name,
        "annotators": list(settings.annotators),
        "overlap": settings.overlap,
        "lead": settings.lead or "",
        "candidates_per_task": settings.candidates_per_task or 0,
        "axes": json.dumps(axes, sort_keys=True, ensure_ascii=False),
        "gold_share": settings.gold.share,
        "gold_pages": settings.gold.pages,
        "gold_answers": settings.gold.answers,
        "repeat_share": settings.repeats.share,
        "repeat_pages": settings.repeats.pages,
        "training_pages": settings.training.pages,
        "training_passing": settings.training.passing,
        "training_required": settings.training.required,
        "norming_pages": settings.norming.pages,
        "guidelines": settings.guidelines,
        "alpha_if": settings.gates.alpha.get("if", NO_GATE),
        "alpha_vq": settings.gates.alpha.get("vq", NO_GATE),
        "seed": settings.seed,
    }


def _refusal(source: str, faults: list[str]) -> EditLoopError:
    """Return the error of faulty settings: one line for one fault, else a heading and a line for each."""
    advice = "docs/campaign.md explains every key"
    if len(faults) == 1:
        return EditLoopError(f"{source}: {faults[0]} ({advice})")
    return EditLoopError("\n".join([f"{source}: {len(faults)} faults in the campaign's settings ({advice}):", *faults]))


def _read_text(content: dict[str, Any], key: str, folder: Path, faults: list[str], read: Callable[[Path], str]) -> None:
    """Replace the path at `key` by the text of that file; add to `faults` if it cannot be read."""
    if key not in content:
        return
    path = folder / str(content[key])
    try:
        content[key] = read(path)
    except EditLoopError as error:
        faults.append(f"{key} = {shorten(content[key])}: {str(error).removeprefix(f'{path}: ')}")
        content[key] = ""

"""The training round of a campaign: gold pages in a Label Studio project of its own, and who passed it.

Every page of the project has its known answer as a prediction. The label stream ("Label All Tasks") of the community
edition does not show predictions of such a project; a page that is opened from the project's list of tasks shows it
beside the answers. Nothing keeps an annotator from opening the list first. Whoever changes an answer may have copied
it, so changed answers count as wrong.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import Field
from rich.progress import track

from annotation.campaigns.accounts import names_by_id
from annotation.campaigns.answers import AnswerExport, CampaignAnswers, PageAnswer, export_answers, read_answers
from annotation.campaigns.campaign import Campaign
from annotation.campaigns.guidelines import guidelines_html
from annotation.campaigns.label_studio import LabelStudioApi
from annotation.campaigns.labelling import result_of, task_data
from annotation.campaigns.opening import TITLE, TaskRow, import_tasks
from annotation.campaigns.pictures import picture_store
from editloop.content import canonical_json
from editloop.data.candidates_folder import read_lines
from editloop.data.vocabulary import AXES, HIGHEST_RATING, Axis, Page, Range, Record
from infra.settings import ServiceSettings

FACTS = "editloop-training: "
"""Prefix of the line in a project's description that names the training's campaign as JSON."""
KNOWN = "known-answer"
"""What Label Studio calls the prediction. Its tab abbreviates several words to their initials."""
OPEN_TO = 1000
"""Overlap of a training page: whoever joins later still gets it."""
CHANGED_SECONDS = 5
"""An answer that was updated so long after it was submitted was changed. Label Studio itself takes milliseconds."""
GUIDELINES = """# Training

Rate these pages with **Label All Tasks** before the campaign. Then click the project's name, and open a page that you
have submitted: the tab **known-answer** stands beside yours. There 4 means 3 or 4, and 1 means 1 or 2, unless the lead
gave one level. Where it says nothing, any rating is right.

Do not change an answer afterwards: a changed answer counts as wrong.
"""


class TrainingResult(Record):
    """How one annotator does in the training round."""

    answered: int
    pages: int
    right: float | None
    """Share of the known ratings that are right, 0..1; None before the first answer."""
    changed: int
    """Answers that were changed after they were submitted; all their ratings count as wrong."""
    passed: bool
    """Whether all pages are answered and enough is right."""


class TrainingState(Record):
    """State of a campaign's training round."""

    url: str
    passing: float
    """Share of the known ratings to get right."""
    required: bool
    """Whether answers in the campaign count only from annotators who passed."""
    annotators: dict[str, TrainingResult] = Field(default_factory=dict)

    @property
    def untrained(self) -> frozenset[str]:
        """Annotators whose answers in the campaign do not count."""
        return frozenset(name for name, result in self.annotators.items() if self.required and not result.passed)


def open_training(client: Any, settings: ServiceSettings, campaign: Campaign, folder: Path) -> None:
    """Open the training project of a campaign, or bring it up to date. Without a training round nothing is done.

    Args:
        client: A LabelStudio client of the account that owns the campaigns.
        settings: Address and token of Label Studio.
        campaign: The campaign, which is open.
        folder: The campaign's folder.
    """
    if campaign.training is None:
        return
    pages = [page for page in read_lines(folder / "pages.jsonl", Page) if page.kind == "training"]
    guidelines = (folder / "guidelines.md").read_text()
    api, store = LabelStudioApi(settings), picture_store(settings)
    training = find_training(client, settings, campaign)
    if training is None:
        ending = ": training"
        facts = canonical_json({"campaign_key": campaign.key}).decode()
        project = client.projects.create(
            title=campaign.name[: TITLE - len(ending)] + ending,
            description=f"Before the campaign {campaign.name}.\n{FACTS}{facts}",
            label_config=client.projects.get(campaign.project_id).label_config,
            show_instruction=True,
            show_skip_button=False,
            enable_empty_annotation=False,
            # Otherwise a page would start with the known answer filled in.
            show_collab_predictions=False,
        )
        training = _training_of(campaign, project.id, settings)
    path = f"/api/projects/{training.project_id}"
    api.call("PATCH", path, json={"expert_instruction": guidelines_html(f"{GUIDELINES}\n{guidelines}")})
    if api.call("GET", path)["maximum_annotations"] != OPEN_TO:
        api.call("PATCH", path, json={"maximum_annotations": OPEN_TO})
    store.attach(client, training.project_id, campaign.key)
    rows = import_tasks(
        api, training, [task_data(page, lambda sha256: store.address(campaign.key, sha256)) for page in pages]
    )
    _show_known_answers(api, training, pages, rows)


def find_training(client: Any, settings: ServiceSettings, campaign: Campaign) -> Campaign | None:
    """Find the training project of a campaign.

    Args:
        client: A LabelStudio client of the account that owns the campaigns.
        settings: Address of Label Studio.
        campaign: The campaign.

    Returns:
        The project, as a campaign with the same annotators; None if there is none.
    """
    line = FACTS + canonical_json({"campaign_key": campaign.key}).decode()
    for project in client.projects.list():
        if line in (project.description or "").splitlines():
            return _training_of(campaign, project.id, settings)
    return None


def training_state(
    client: Any, settings: ServiceSettings, campaign: Campaign, pages: Mapping[str, Page]
) -> TrainingState | None:
    """Return how the annotators do in the training round, from Label Studio's present answers.

    Args:
        client: A LabelStudio client of the account that owns the campaigns.
        settings: Address and token of Label Studio.
        campaign: The campaign.
        pages: The campaign's pages by key, with those of the training.

    Returns:
        The state; None where the campaign has no training round.
    """
    if campaign.training is None:
        return None
    known = {key: page for key, page in pages.items() if page.kind == "training"}
    project = find_training(client, settings, campaign)
    export = export_answers(settings, project) if project else AnswerExport(b"[]", ())
    names = names_by_id(client, campaign.annotators)
    return TrainingState(
        url=project.url if project else "",
        passing=campaign.training.passing,
        required=campaign.training.required,
        annotators=training_results(known, export, names, campaign),
    )


def training_results(
    pages: Mapping[str, Page], export: AnswerExport, names: Mapping[int, str], campaign: Campaign
) -> dict[str, TrainingResult]:
    """Compare the answers on training pages with the known ones.

    Args:
        pages: The training pages by key.
        export: Label Studio's export of the training project.
        names: The campaign's annotators by Label Studio's user id.
        campaign: The campaign.

    Returns:
        Results by annotator, for all annotators of the campaign.
    """
    changed = {
        int(annotation["id"])
        for task in export.tasks
        for annotation in task.annotations
        if _seconds_between(annotation["created_at"], annotation["updated_at"]) > CHANGED_SECONDS
    }
    by_annotator: dict[str, dict[str, PageAnswer]] = {name: {} for name in campaign.annotators}
    for (key, annotator), answer in read_answers(export, pages, names).counting().items():
        if key in pages:
            by_annotator[annotator][key] = answer
    passing = campaign.training.passing if campaign.training else 0.0
    results = {}
    for name, answers in by_annotator.items():
        ratings = [
            answer.annotation_id not in changed and right
            for key, answer in answers.items()
            for right in _known_ratings_right(pages[key], answer)
        ]
        share = sum(ratings) / len(ratings) if ratings else None
        results[name] = TrainingResult(
            answered=len(answers),
            pages=len(pages),
            right=share,
            changed=sum(answer.annotation_id in changed for answer in answers.values()),
            passed=len(answers) == len(pages) and share is not None and share >= passing,
        )
    return results


def campaign_answers(
    client: Any, settings: ServiceSettings, campaign: Campaign, pages: Mapping[str, Page], export: AnswerExport
) -> CampaignAnswers:
    """Decode the answers of a campaign; where a training is required, those who have not passed it are marked.

    Args:
        client: A LabelStudio client of the account that owns the campaigns.
        settings: Address and token of Label Studio.
        campaign: The campaign.
        pages: The campaign's pages by key.
        export: Label Studio's export of the campaign.
    """
    answers = read_answers(export, pages, names_by_id(client, campaign.annotators))
    if campaign.training is None or not campaign.training.required:
        return answers
    state = training_state(client, settings, campaign, pages)
    return replace(answers, untrained=state.untrained) if state else answers


def _training_of(campaign: Campaign, project_id: int, settings: ServiceSettings) -> Campaign:
    return campaign.model_copy(update={"project_id": project_id, "url": settings.project_link(project_id)})


def _show_known_answers(
    api: LabelStudioApi, training: Campaign, pages: list[Page], rows: Mapping[str, TaskRow]
) -> None:
    shown = {
        int(prediction["task"])
        for prediction in api.call("GET", "/api/predictions/", params={"project": training.project_id})
    }
    for page in track([page for page in pages if rows[page.key].id not in shown], "known answers", transient=True):
        ratings = [_clear_ratings(page.expected.get(candidate, {})) for candidate in page.candidates]
        body = {"task": rows[page.key].id, "result": result_of(ratings), "model_version": KNOWN}
        api.call("POST", "/api/predictions/", json=body)


def _clear_ratings(expected: Mapping[Axis, Range]) -> dict[Axis, int]:
    """Return one level for each known range: its upper end where that is the best level, else its lower end."""
    return {axis: high if high == HIGHEST_RATING else low for axis, (low, high) in expected.items()}


def _known_ratings_right(page: Page, answer: PageAnswer) -> list[bool]:
    """Return, for each rating of the page that is known, whether the answer has it right."""
    right = []
    for position, candidate in enumerate(page.candidates):
        if page.candidates.index(candidate) == position:
            rating = answer.ratings[position]
            known = page.expected.get(candidate, {})
            right += [
                axis in rating and known[axis][0] <= rating[axis] <= known[axis][1] for axis in AXES if axis in known
            ]
    return right


def _seconds_between(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()

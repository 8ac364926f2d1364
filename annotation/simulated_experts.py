"""Simulated experts: they answer a campaign through Label Studio's API, each with an account of their own.

An expert sees an edit as the oracle does, with a character of their own. Who answers which task depends only on
(seed, task), and repeats and gold are answered by everybody.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from rich.progress import track

from annotation.campaigns.accounts import author_id, names_by_id, read_accounts
from annotation.campaigns.campaign import Campaign, connect, load_pages, read_campaign
from annotation.campaigns.label_studio import LabelStudioApi
from annotation.campaigns.labelling import result_of
from annotation.campaigns.opening import live_tasks, task_rows
from editloop.data.candidates_folder import read_tasks
from editloop.data.vocabulary import Axis, EditTask, Page
from editloop.errors import EditLoopError
from editloop.evaluation.oracle import oracle_of_task
from editloop.studies.world.characters import Character, PageView, answer_page, assigned_annotators, expert
from infra.settings import ServiceSettings

Scores = dict[tuple[str, str], dict[Axis, float]]
"""The oracle's scores (0..1) by task and image."""


class Submission(NamedTuple):
    """One answer on its way to Label Studio."""

    annotator: str
    task: int
    body: dict[str, Any]


def answer_campaign(
    campaign: Path,
    candidates: Path,
    *,
    settings: ServiceSettings,
    seed: int = 0,
    characters: Mapping[str, Character] | None = None,
) -> int:
    """Give every missing answer of the campaign in the folder `campaign`; returns how many were given.

    `characters` names the annotators who are not honest. Tasks need a target that the oracle can compare with. Answers
    that are there already stay as they are. EditLoopError for annotators whose account is not kept.
    """
    opened, pages = read_campaign(campaign), load_pages(campaign)
    accounts = read_accounts(settings)
    unknown = [name for name in opened.annotators if name not in accounts]
    if unknown:
        raise EditLoopError(
            f"No account is kept for {', '.join(unknown)}, so they cannot be simulated: EDITLOOP_ANNOTATORS_FILE names "
            "the file of those that `editloop up` makes. Real people answer in Label Studio."
        )
    scores = oracle_scores([campaign / "images", candidates / "images"], read_tasks(candidates), pages.values())
    experts = {name: expert(name, seed, (characters or {}).get(name, "honest")) for name in opened.annotators}
    submitted = _submitted_answers(settings, opened)
    rows = task_rows(settings, opened)
    pending = []
    for number, page in enumerate(pages.values()):
        question = PageView(page.kind, page.task_id, page.candidates, number / max(1, len(pages) - 1))
        task = rows[page.key][0].id
        for name in assigned_annotators(page.task_id, opened.annotators, page.overlap, seed):
            if (task, name) not in submitted:
                page_scores = [scores[page.task_id, image] for image in page.images]
                simulated = answer_page(experts[name], question, page_scores, seed)
                body = {"result": result_of(simulated.ratings), "lead_time": simulated.seconds, "was_cancelled": False}
                pending.append(Submission(name, task, body))
    apis = {name: LabelStudioApi(settings, accounts[name].token) for name in opened.annotators}

    def submit(submission: Submission) -> None:
        _submit(apis[submission.annotator], submission)

    owner = LabelStudioApi(settings)
    for _ in track(owner.each(submit, pending), "answers", total=len(pending), transient=True):
        pass
    return len(pending)


def oracle_scores(folders: Sequence[Path], tasks: Sequence[EditTask], pages: Iterable[Page]) -> Scores:
    """The oracle's scores of every picture that the pages show as an edit, from the first of `folders` that has it.

    EditLoopError for tasks without a target.
    """
    targets = {task.task_id: task for task in tasks}
    images_by_task: dict[str, set[str]] = {}
    for page in pages:
        images_by_task.setdefault(page.task_id, set()).update(page.images)
    blind = [targets[task].name for task in images_by_task if targets[task].target is None]
    if blind:
        raise EditLoopError(
            f"{len(blind)} tasks have no target ({', '.join(blind[:5])}), and simulated experts know the right result "
            "from nowhere else: give targets, or use --experts human."
        )
    scores: Scores = {}
    for task_id, images in track(images_by_task.items(), "oracle", transient=True):
        task, edits = targets[task_id], sorted(images)
        source, target = (_picture(folders, digest) for digest in (task.source, str(task.target)))
        score = oracle_of_task(source, target, (_picture(folders, digest) for digest in edits))
        for index, digest in enumerate(edits):
            scores[task_id, digest] = {
                "if": float(score.instruction_following[index]),
                "vq": float(score.visual_quality[index]),
            }
    return scores


def _picture(folders: Sequence[Path], digest: str) -> Image.Image:
    """The picture of the first folder that has it; decoded when its pixels are asked for."""
    return Image.open(next(path for folder in folders if (path := folder / f"{digest}.png").is_file()))


def _submitted_answers(settings: ServiceSettings, campaign: Campaign) -> set[tuple[int, str]]:
    """(task's id, annotator) of the answers that are there."""
    names = names_by_id(connect(settings), campaign.annotators)
    return {
        (task["id"], name)
        for task in live_tasks(LabelStudioApi(settings), campaign, "all")
        for annotation in task["annotations"]
        if (name := names.get(author_id(annotation)))
    }


def _submit(api: LabelStudioApi, submission: Submission) -> None:
    api.call("POST", f"/api/tasks/{submission.task}/annotations/", json=submission.body)

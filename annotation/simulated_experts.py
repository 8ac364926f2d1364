"""Simulated experts who answer a campaign through Label Studio's API, each with their own account.

An honest expert's ratings are the oracle's scores with the expert's own bias and noise; other characters deviate from
that. Which experts answer a task depends only on the seed and the task. All of them answer repeats and gold.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from annotation.campaigns.accounts import read_accounts
from annotation.campaigns.answer_export import export_answers
from annotation.campaigns.answers import read_answers
from annotation.campaigns.campaign import load_pages, read_campaign
from annotation.campaigns.label_studio import LabelStudioApi
from annotation.campaigns.labelling import result_of
from annotation.campaigns.project import task_rows
from annotation.campaigns.record import read_record
from editloop.data.candidates_folder import read_tasks
from editloop.data.vocabulary import Axis, EditTask, Page
from editloop.errors import EditLoopError
from editloop.evaluation.oracle import oracle_of_task
from editloop.progress import track
from editloop.studies.world.characters import PageView, answer_page, assigned_annotators, expert
from infra.settings import ServiceSettings

Scores = dict[tuple[str, str], dict[Axis, float]]
"""The oracle's scores (0..1) by (task id, sha256 of the image) and axis."""


class Submission(NamedTuple):
    """One answer to be sent to Label Studio."""

    annotator: str
    task: int
    """Label Studio's task id."""
    body: dict[str, Any]


def answer_campaign(campaign: Path, candidates: Path, *, settings: ServiceSettings, seed: int = 0) -> int:
    """Submit every missing answer of a campaign as simulated experts.

    Existing answers stay as they are.

    Args:
        campaign: Folder of the campaign.
        candidates: Candidates folder of the campaign. Each of its tasks in the campaign needs a target image, which
            the oracle compares edits with.
        settings: Address and token of Label Studio, and the accounts file.
        seed: Seed of the experts, their ratings, and who answers which task.

    Returns:
        The number of answers submitted.

    Raises:
        EditLoopError: An annotator has no account in the accounts file, or a task has no target.
    """
    pages, record = load_pages(campaign), read_record(settings, read_campaign(campaign).key)
    opened = record.campaign
    accounts = read_accounts(settings)
    unknown = [name for name in opened.annotators if name not in accounts]
    if unknown:
        raise EditLoopError(
            f"No account is kept for {', '.join(unknown)}, so they cannot be simulated: EDITLOOP_ANNOTATORS_FILE names "
            "the file of those that `editloop up` makes. Real people answer in Label Studio."
        )
    scores = oracle_scores([campaign / "images", candidates / "images"], read_tasks(candidates), pages.values())
    experts = {name: expert(name, seed) for name in opened.annotators}
    given = read_answers(export_answers(settings, opened), pages, record).given
    submitted = {(answer.page, answer.annotator) for answer in given}
    rows = task_rows(settings, opened)
    pending = []
    for number, page in enumerate(pages.values()):
        question = PageView(page.kind, page.task_id, page.candidates, number / max(1, len(pages) - 1))
        task = rows[page.key][0].id
        for name in assigned_annotators(page.task_id, opened.annotators, page.overlap, seed):
            if (page.key, name) not in submitted:
                page_scores = [scores[page.task_id, image] for image in page.images]
                simulated = answer_page(experts[name], question, page_scores, seed)
                body = {"result": result_of(simulated.ratings), "lead_time": simulated.seconds, "was_cancelled": False}
                pending.append(Submission(name, task, body))
    apis = {name: LabelStudioApi(settings, accounts[name].token) for name in opened.annotators}

    def submit(submission: Submission) -> None:
        path = f"/api/tasks/{submission.task}/annotations/"
        apis[submission.annotator].call("POST", path, json=submission.body)

    owner = LabelStudioApi(settings)
    for _ in track(owner.each(submit, pending), "answers", total=len(pending)):
        pass
    return len(pending)


def oracle_scores(folders: Sequence[Path], tasks: Sequence[EditTask], pages: Iterable[Page]) -> Scores:
    """Score every image that the pages show as an edit with the oracle.

    Args:
        folders: Folders of images, `<sha256>.png`; an image is read from the first folder that has it.
        tasks: All tasks of the pages.
        pages: Pages of the campaign.

    Returns:
        The scores, by task and image.

    Raises:
        EditLoopError: A task is missing, or has no target.
    """
    targets = {task.task_id: task for task in tasks}
    images_by_task: dict[str, set[str]] = {}
    for page in pages:
        images_by_task.setdefault(page.task_id, set()).update(page.images)
    if missing := sorted(images_by_task.keys() - targets.keys()):
        raise EditLoopError(
            f"{len(missing)} tasks of the campaign are not among the candidates ({', '.join(missing[:5])}): the folder "
            "is another campaign's, or was damaged. Give the one that the campaign was opened with, or make it again."
        )
    blind = [targets[task].name for task in images_by_task if targets[task].target is None]
    if blind:
        raise EditLoopError(
            f"{len(blind)} tasks have no target ({', '.join(blind[:5])}), and simulated experts know the right result "
            "from nowhere else: give targets, or use --experts human."
        )
    scores: Scores = {}
    for task_id, images in track(images_by_task.items(), "oracle"):
        task, edits = targets[task_id], sorted(images)
        source, target = (_picture(folders, digest) for digest in (task.source, str(task.target)))
        score = oracle_of_task(source, target, (_picture(folders, digest) for digest in edits))
        for digest, following, quality in zip(edits, score.instruction_following, score.visual_quality, strict=True):
            scores[task_id, digest] = {"if": float(following), "vq": float(quality)}
    return scores


def _picture(folders: Sequence[Path], digest: str) -> Image.Image:
    """Open the image from the first folder that has it; its pixels are decoded on first use."""
    return Image.open(next(path for folder in folders if (path := folder / f"{digest}.png").is_file()))

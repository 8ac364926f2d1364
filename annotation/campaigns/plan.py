"""Which pages a campaign asks, of how many people, and in what order: decided before anything is opened."""

from collections.abc import Collection, Sequence
from pathlib import Path

from rich.progress import track

from annotation.campaigns.campaign_settings import CampaignSettings
from annotation.campaigns.gold import GoldTask, KnownRatings, can_be_gold, make_gold_task, read_gold_answers
from annotation.campaigns.labelling import FEWEST, MOST
from editloop.content import sha256_json
from editloop.data.vocabulary import EditTask, Kind, Page
from editloop.errors import EditLoopError


def places_of(tasks: Sequence[EditTask], settings: CampaignSettings) -> int:
    """Candidates on a page of the campaign: those of the largest task, or `candidates_per_task` where that is less.

    EditLoopError where nothing can be compared, or a task has more candidates than a page shows and no number is set.
    """
    largest = max((len(task.candidates) for task in tasks), default=0)
    if largest < FEWEST:
        raise EditLoopError(f"No task has {FEWEST} different candidates, so there is nothing to compare.")
    if settings.candidates_per_task is not None:
        return min(largest, settings.candidates_per_task)
    crowded = [f"{task.name} ({len(task.candidates)})" for task in tasks if len(task.candidates) > MOST]
    if crowded:
        raise EditLoopError(
            f"A page shows {MOST} candidates; these tasks have more: {', '.join(crowded[:10])}. Set "
            f"candidates_per_task, and so many of each are drawn."
        )
    return largest


def plan_pages(
    tasks: Sequence[EditTask], settings: CampaignSettings, *, config_sha256: str, images: Path, gold_images: Path
) -> list[Page]:
    """The campaign's pages in the order of its queue: one a task, with gold pages and repeats among them.

    `tasks` have two candidates or more; `images` holds their pictures; pictures that gold pages need beside them are
    written into `made`. Each page has an order of its own, drawn from (seed, task, kind). Gold and repeats are shares
    of the number of tasks, rounded, at least one page where the share is above 0. A repeat is its task in another
    order, half a queue away; it, its original and gold are asked of everybody. EditLoopError where gold is wanted
    and no task has a target.
    """
    places, seed = places_of(tasks, settings), settings.seed
    answers = read_gold_answers(settings.gold.answers, tasks) if settings.gold.answers else {}
    unanswered = [task for task in tasks if task.task_id not in answers]
    gold = _draw_tasks(
        [task for task in unanswered if can_be_gold(task)],
        _count(settings.gold.share, tasks) - len(answers),
        seed,
        "gold",
    )
    if settings.gold.share and not (gold or answers):
        raise EditLoopError(
            "Gold pages are made of tasks with a target, and none has one: give gold answers or share 0."
        )
    repeats = {
        task.task_id
        for task in _draw_tasks(unanswered, _count(settings.repeats.share, tasks), seed, "repeat", last=gold)
    }
    everybody = len(settings.annotators)

    def page(
        task: EditTask, kind: Kind, candidates: list[tuple[str, str]], overlap: int, expected: KnownRatings
    ) -> Page:
        ids, pictures = zip(*(candidates[position % len(candidates)] for position in range(places)), strict=True)
        return Page(
            key=sha256_json([task.instruction, task.source, pictures, config_sha256])[:32],
            kind=kind,
            task_id=task.task_id,
            instruction=task.instruction,
            source=task.source,
            candidates=ids,
            images=pictures,
            overlap=overlap,
            expected=expected,
        )

    pages = []
    for task in tasks:
        expected = answers.get(task.task_id, {})
        candidates = _shuffle_candidates(_draw_candidates(task, places, seed, expected), seed, task.task_id, "task")
        if expected:
            pages.append(page(task, "gold", candidates, everybody, expected))
            continue
        is_repeated = task.task_id in repeats
        pages.append(page(task, "task", candidates, everybody if is_repeated else settings.overlap, {}))
        if is_repeated:
            reordered = _shuffle_candidates(candidates, seed, task.task_id, "repeat")
            pages.append(
                page(
                    task,
                    "repeat",
                    reordered if reordered != candidates else [*candidates[1:], candidates[0]],
                    everybody,
                    {},
                )
            )
    for task in track(gold, "gold pages", transient=True):
        gold_task: GoldTask = make_gold_task(task, tasks, places, seed, images, gold_images)
        candidates = _shuffle_candidates(gold_task.shown, seed, task.task_id, "gold")
        pages.append(page(task, "gold", candidates, everybody, gold_task.expected))
    return _queue_order(pages)


def _count(share: float, tasks: Sequence[EditTask]) -> int:
    return max(1, round(share * len(tasks))) if share else 0


def _draw_tasks(
    tasks: Sequence[EditTask], count: int, seed: int, why: str, last: Collection[EditTask] = ()
) -> list[EditTask]:
    """`count` of the tasks, drawn; those of `last` only where the others do not suffice."""
    late = {task.task_id for task in last}
    order = sorted(tasks, key=lambda task: (task.task_id in late, sha256_json([seed, why, task.task_id])))
    return order[: max(0, count)]


def _draw_candidates(task: EditTask, places: int, seed: int, expected: KnownRatings) -> list[tuple[str, str]]:
    """(id, image) of `places` of the task's candidates, those with a known answer first."""
    order = sorted(
        task.candidates,
        key=lambda candidate: (
            candidate.candidate_id not in expected,
            sha256_json([seed, "drawn", candidate.candidate_id]),
        ),
    )
    return [(candidate.candidate_id, candidate.image) for candidate in order[:places]]


def _shuffle_candidates(candidates: list[tuple[str, str]], seed: int, task: str, kind: Kind) -> list[tuple[str, str]]:
    return sorted(candidates, key=lambda candidate: sha256_json([seed, task, kind, candidate[0]]))


def _queue_order(pages: Sequence[Page]) -> list[Page]:
    """Pages in an order that their keys draw, gold spread evenly, each repeat half a queue from its original."""
    tasks = sorted((page for page in pages if page.kind == "task"), key=lambda page: page.key)
    gold = sorted((page for page in pages if page.kind == "gold"), key=lambda page: page.key)
    places = {page.task_id: (number + 0.5) / len(tasks) for number, page in enumerate(tasks)}
    order: list[tuple[float, int, Page]] = [(places[page.task_id], 0, page) for page in tasks]
    order += [((number + 0.5) / len(gold), 2, page) for number, page in enumerate(gold)]
    for page in pages:
        if page.kind == "repeat":
            position = places[page.task_id] + 0.5
            # On a tie the repeat stands on the far side of whatever it ties with.
            order.append((position, 1, page) if position < 1 else (position - 1, -1, page))
    return [page for _, _, page in sorted(order, key=lambda slot: (*slot[:2], slot[2].key))]

"""Which pages a campaign asks, of how many people, and in what order: decided before anything is opened."""

from collections.abc import Collection, Sequence
from pathlib import Path

from rich.progress import track

from annotation.campaigns.campaign_settings import CampaignSettings
from annotation.campaigns.gold import GoldTask, Known, can_be_gold, gold_of, read_answers
from annotation.campaigns.labelling import FEWEST, MOST
from annotation.vocabulary import EditTask, Kind, Page
from infra.content import sha256_json
from infra.errors import EditLoopError


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
    tasks: Sequence[EditTask], settings: CampaignSettings, *, config_sha256: str, images: Path, made: Path
) -> list[Page]:
    """The campaign's pages in the order of its queue: one a task, with gold pages and repeats among them.

    `tasks` have two candidates or more; `images` holds their pictures; pictures that gold pages need beside them are
    written into `made`. Each page has an order of its own, drawn from (seed, task, kind). Gold and repeats are shares
    of the number of tasks, rounded, at least one page where the share is above 0. A repeat is its task in another
    order, half a queue away; it, its original and gold are asked of everybody. EditLoopError where gold is wanted
    and no task has a target.
    """
    places, seed = places_of(tasks, settings), settings.seed
    answers = read_answers(settings.gold.answers, tasks) if settings.gold.answers else {}
    asked = [task for task in tasks if task.task_id not in answers]
    gold = _chosen(
        [task for task in asked if can_be_gold(task)], _count(settings.gold.share, tasks) - len(answers), seed, "gold"
    )
    if settings.gold.share and not (gold or answers):
        raise EditLoopError(
            "Gold pages are made of tasks with a target, and none has one: give gold answers or share 0."
        )
    repeats = {
        task.task_id for task in _chosen(asked, _count(settings.repeats.share, tasks), seed, "repeat", last=gold)
    }
    everybody = len(settings.annotators)

    def page(task: EditTask, kind: Kind, shown: list[tuple[str, str]], overlap: int, known: Known) -> Page:
        ids, pictures = zip(*(shown[place % len(shown)] for place in range(places)), strict=True)
        return Page(
            key=sha256_json([task.instruction, task.source, pictures, config_sha256])[:32],
            kind=kind,
            task_id=task.task_id,
            instruction=task.instruction,
            source=task.source,
            candidates=ids,
            images=pictures,
            overlap=overlap,
            expected=known,
        )

    pages = []
    for task in tasks:
        known = answers.get(task.task_id, {})
        shown = _order(_drawn(task, places, seed, known), seed, task.task_id, "task")
        if known:
            pages.append(page(task, "gold", shown, everybody, known))
            continue
        again = task.task_id in repeats
        pages.append(page(task, "task", shown, everybody if again else settings.overlap, {}))
        if again:
            other = _order(shown, seed, task.task_id, "repeat")
            pages.append(page(task, "repeat", other if other != shown else [*shown[1:], shown[0]], everybody, {}))
    for task in track(gold, "gold pages", transient=True):
        one: GoldTask = gold_of(task, tasks, places, seed, images, made)
        shown = _order(one.shown, seed, task.task_id, "gold")
        pages.append(page(task, "gold", shown, everybody, one.expected))
    return _queue(pages)


def _count(share: float, tasks: Sequence[EditTask]) -> int:
    return max(1, round(share * len(tasks))) if share else 0


def _chosen(
    tasks: Sequence[EditTask], count: int, seed: int, why: str, last: Collection[EditTask] = ()
) -> list[EditTask]:
    """`count` of the tasks, drawn; those of `last` only where the others do not suffice."""
    late = {task.task_id for task in last}
    order = sorted(tasks, key=lambda task: (task.task_id in late, sha256_json([seed, why, task.task_id])))
    return order[: max(0, count)]


def _drawn(task: EditTask, places: int, seed: int, known: Known) -> list[tuple[str, str]]:
    """(id, image) of `places` of the task's candidates, those with a known answer first."""
    order = sorted(
        task.candidates, key=lambda one: (one.candidate_id not in known, sha256_json([seed, "drawn", one.candidate_id]))
    )
    return [(one.candidate_id, one.image) for one in order[:places]]


def _order(shown: list[tuple[str, str]], seed: int, task: str, kind: Kind) -> list[tuple[str, str]]:
    return sorted(shown, key=lambda one: sha256_json([seed, task, kind, one[0]]))


def _queue(pages: Sequence[Page]) -> list[Page]:
    """Pages in an order that their keys draw, gold spread evenly, each repeat half a queue from its original."""
    tasks = sorted((page for page in pages if page.kind == "task"), key=lambda page: page.key)
    gold = sorted((page for page in pages if page.kind == "gold"), key=lambda page: page.key)
    places = {page.task_id: (number + 0.5) / len(tasks) for number, page in enumerate(tasks)}
    order: list[tuple[float, int, Page]] = [(places[page.task_id], 0, page) for page in tasks]
    order += [((number + 0.5) / len(gold), 2, page) for number, page in enumerate(gold)]
    for page in pages:
        if page.kind == "repeat":
            away = places[page.task_id] + 0.5
            # On a tie the repeat stands on the far side of whatever it ties with.
            order.append((away, 1, page) if away < 1 else (away - 1, -1, page))
    return [page for _, _, page in sorted(order, key=lambda one: (*one[:2], one[2].key))]

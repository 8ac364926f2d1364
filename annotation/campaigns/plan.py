"""Plan a campaign: its pages, how many annotators rate each, and their order, before anything is opened."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from annotation.campaigns.campaign_settings import CampaignSettings
from annotation.campaigns.gold import GoldTask, KnownRatings, can_be_gold, make_gold_task, read_gold_answers
from annotation.campaigns.labelling import FEWEST, MOST
from editloop.content import sha256_json
from editloop.data.vocabulary import EditTask, Kind, Page
from editloop.errors import EditLoopError
from editloop.progress import track


def places_of(tasks: Sequence[EditTask], settings: CampaignSettings) -> int:
    """Return the number of candidates on a page: those of the largest task, or `candidates_per_task` if that is less.

    Args:
        tasks: Tasks of the campaign.
        settings: Settings of the campaign.

    Raises:
        EditLoopError: No task has FEWEST candidates, or one has more than MOST and `candidates_per_task` is not set.
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


def references_of(tasks: Sequence[EditTask]) -> int:
    """Return the number of reference images for which a campaign's pages have a place: those of the task with most.

    Args:
        tasks: Tasks of the campaign.
    """
    return max((len(task.references) for task in tasks), default=0)


def plan_pages(
    tasks: Sequence[EditTask], settings: CampaignSettings, *, config_sha256: str, images: Path, gold_images: Path
) -> list[Page]:
    """Return a campaign's pages in the order in which annotators get them.

    There is one page per task, and gold pages and repeats among them. The page of a task with known answers of the lead
    is itself gold. The order of candidates on a page is drawn from (seed, task, kind). The numbers of gold pages and
    repeats are shares of the number of tasks, rounded, and at least one if the share is above 0, or are given. A repeat
    shows a task's candidates in another order, half the queue away from the original. Norming pages stand first;
    training pages, which are in a project of their own, last. A task of theirs has no other page but gold. All
    annotators rate gold, norming and training pages, repeats and the originals of repeats.

    Args:
        tasks: Tasks with two or more candidates.
        settings: Settings of the campaign.
        config_sha256: Content address of the labelling config; it is part of the pages' keys.
        images: Folder of the tasks' images.
        gold_images: Folder that gets the additional images of gold pages.

    Raises:
        EditLoopError: Gold or training is wanted but there are too few known answers and tasks with a target, or the
            settings do not fit the tasks.
    """
    places, seed = places_of(tasks, settings), settings.seed
    answers = read_gold_answers(settings.gold.answers, tasks) if settings.gold.answers else {}
    unanswered = [task for task in tasks if task.task_id not in answers]
    eligible = [task for task in unanswered if can_be_gold(task)]
    wanted_gold = settings.gold.pages or _count(settings.gold.share, tasks)
    gold = _draw_tasks(eligible, wanted_gold - len(answers), seed, "gold")
    if wanted_gold and not (gold or answers):
        raise EditLoopError(
            "Gold pages are made of tasks with a target, and none has one: give gold answers or share 0."
        )
    hidden = {task.task_id for task in gold}
    targets = [task for task in eligible if task.task_id not in hidden]
    training = _draw_training(tasks, targets, answers, settings)
    trained = {task.task_id for task in training}
    untrained = [task for task in unanswered if task.task_id not in trained]
    norming = {task.task_id for task in _draw_tasks(untrained, settings.norming.pages, seed, "norming", last=gold)}
    asked = [task for task in untrained if task.task_id not in norming]
    if not asked:
        raise EditLoopError(
            f"Of {len(tasks)} tasks {len(trained)} are for training, {len(norming)} for norming and {len(answers)} are "
            "gold by your answers: none is left to ask. Ask for fewer pages, or give more tasks."
        )
    wanted_repeats = settings.repeats.pages or _count(settings.repeats.share, tasks)
    repeats = {task.task_id for task in _draw_tasks(asked, wanted_repeats, seed, "repeat", last=gold)}
    everybody = len(settings.annotators)

    def page(
        task: EditTask, kind: Kind, candidates: list[tuple[str, str]], overlap: int, expected: KnownRatings
    ) -> Page:
        ids, pictures = zip(*(candidates[position % len(candidates)] for position in range(places)), strict=True)
        return Page(
            key=sha256_json([task.instruction, task.source, pictures, config_sha256, *task.references])[:32],
            kind=kind,
            task_id=task.task_id,
            instruction=task.instruction,
            source=task.source,
            references=task.references,
            candidates=ids,
            images=pictures,
            overlap=overlap,
            expected=expected,
        )

    def known_page(task: EditTask, kind: Kind) -> Page:
        known: GoldTask = make_gold_task(task, tasks, places, seed, images, gold_images)
        return page(task, kind, _shuffle_candidates(known.shown, seed, task.task_id, kind), everybody, known.expected)

    pages = []
    for task in tasks:
        expected = answers.get(task.task_id, {})
        if task.task_id in trained and not expected:
            continue
        candidates = _shuffle_candidates(_draw_candidates(task, places, seed, expected), seed, task.task_id, "task")
        if expected:
            kind: Kind = "training" if task.task_id in trained else "gold"
            pages.append(page(task, kind, candidates, everybody, expected))
            continue
        if task.task_id in norming:
            pages.append(page(task, "norming", candidates, everybody, {}))
            continue
        is_repeated = task.task_id in repeats
        pages.append(page(task, "task", candidates, everybody if is_repeated else settings.overlap, {}))
        if is_repeated:
            reordered = _shuffle_candidates(candidates, seed, task.task_id, "repeat")
            if reordered == candidates:
                reordered = [*candidates[1:], candidates[0]]
            pages.append(page(task, "repeat", reordered, everybody, {}))
    pages += [known_page(task, "gold") for task in track(gold, "gold pages")]
    pages += [known_page(task, "training") for task in training if task.task_id not in answers]
    return _queue_order(pages)


def _draw_training(
    tasks: Sequence[EditTask],
    targets: Sequence[EditTask],
    answers: Mapping[str, KnownRatings],
    settings: CampaignSettings,
) -> list[EditTask]:
    """Draw the tasks of the training round, from tasks with a target before those with known answers of the lead."""
    count, seed = settings.training.pages, settings.seed
    training = _draw_tasks(targets, count, seed, "training")
    answered = [task for task in tasks if task.task_id in answers]
    training += _draw_tasks(answered, count - len(training), seed, "training")
    if len(training) < count:
        raise EditLoopError(
            f"training.pages = {count}: only {len(training)} tasks have a target or known answers of yours and are not "
            "gold. Ask for fewer, or add lines to gold answers."
        )
    return training


def _count(share: float, tasks: Sequence[EditTask]) -> int:
    return max(1, round(share * len(tasks))) if share else 0


def _draw_tasks(
    tasks: Sequence[EditTask], count: int, seed: int, why: str, last: Collection[EditTask] = ()
) -> list[EditTask]:
    """Draw `count` of the tasks; those in `last` are drawn only if the others are too few."""
    late = {task.task_id for task in last}
    order = sorted(tasks, key=lambda task: (task.task_id in late, sha256_json([seed, why, task.task_id])))
    return order[: max(0, count)]


def _draw_candidates(task: EditTask, places: int, seed: int, expected: KnownRatings) -> list[tuple[str, str]]:
    """Draw up to `places` of the task's candidates as (id, image); those with a known answer come first."""
    edits = [(candidate.candidate_id, candidate.image) for candidate in task.candidates]
    return sorted(edits, key=lambda edit: (edit[0] not in expected, sha256_json([seed, "drawn", edit[0]])))[:places]


def _shuffle_candidates(candidates: list[tuple[str, str]], seed: int, task: str, kind: Kind) -> list[tuple[str, str]]:
    return sorted(candidates, key=lambda candidate: sha256_json([seed, task, kind, candidate[0]]))


def _queue_order(pages: Sequence[Page]) -> list[Page]:
    """Sort pages by key: norming first, gold spread evenly, each repeat half a queue away from its original."""
    tasks = sorted((page for page in pages if page.kind == "task"), key=lambda page: page.key)
    gold = sorted((page for page in pages if page.kind == "gold"), key=lambda page: page.key)
    places = {page.task_id: (number + 0.5) / len(tasks) for number, page in enumerate(tasks)}
    order: list[tuple[float, int, Page]] = [(places[page.task_id], 0, page) for page in tasks]
    order += [((number + 0.5) / len(gold), 2, page) for number, page in enumerate(gold)]
    for page in pages:
        if page.kind == "repeat":
            position = places[page.task_id] + 0.5
            # On a tie with a task's page the repeat goes to the side that is farther from its original.
            order.append((position, 1, page) if position < 1 else (position - 1, -1, page))
    queue = [page for _, _, page in sorted(order, key=lambda slot: (*slot[:2], slot[2].key))]
    first, last = ([page for page in pages if page.kind == kind] for kind in ("norming", "training"))
    return [*first, *queue, *last]

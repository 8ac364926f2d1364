"""Single pages of a campaign for its quality page: pictures, everybody's ratings and the lead's decision."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from annotation.quality.conflicts import FAR_APART, Ratings, conflicts, ratings_by_task
from editloop.data.picture_file import load_image
from editloop.data.vocabulary import AXES, Axis, CannotJudge, Decision, EditTask, Judgement, Kind, Page
from editloop.errors import EditLoopError
from editloop.pages.thumbnails import Thumbnail, thumbnail

SIDE = 168
"""Longest side of a thumbnail, in pixels."""
CARDS = 40
"""Most cards of one section."""
PICTURE_BYTES = 3_000_000
"""Most bytes of embedded pictures; with more, browsers and the KFP UI are slow to open the page."""


class Rating(NamedTuple):
    """One person's ratings of one candidate."""

    levels: Mapping[Axis, int]
    far: bool
    """Whether somebody else's rating is two levels or more away on an axis."""


class CardRow(NamedTuple):
    """One person's ratings of the candidates of a page; None where there is none."""

    person: str
    ratings: list[Rating | None]


class PageCard(NamedTuple):
    """One page: what was shown, and who rated it how."""

    task_id: str
    name: str
    instruction: str
    link: str | None
    """Address of the page in Label Studio."""
    source: Thumbnail | None
    references: list[Thumbnail | None]
    """The reference images, image 2 and those after it."""
    candidates: list[Thumbnail | None]
    """Empty on a card without ratings."""
    rows: list[CardRow]
    decision: CardRow | None
    """The lead's ratings."""
    why: str
    """The lead's reason for the decision."""
    reasons: list[str]
    """Why the task is in conflict; candidates are called by their number on the card."""


class CardSection(NamedTuple):
    """Cards of one section of the page."""

    cards: list[PageCard]
    left_out: int
    """Pages beyond CARDS or PICTURE_BYTES."""


class ReviewPages(NamedTuple):
    """The pages that the lead looks at one by one."""

    conflicts: CardSection
    """Tasks in conflict: undecided ones first, and the widest spread first among them."""
    norming: CardSection
    """Norming pages, which everybody rates."""
    tasks: Mapping[str, PageCard]
    """The hardest tasks by id, without ratings and candidates."""


NOTHING_TO_REVIEW = ReviewPages(CardSection([], 0), CardSection([], 0), {})


class Answered(NamedTuple):
    """The answers of a campaign, and what was asked."""

    judgements: Sequence[Judgement]
    """On pages of kind `task`."""
    checks: Sequence[Judgement]
    """On pages of the other kinds."""
    cannot: Sequence[CannotJudge]
    """Answers that a page cannot be judged."""
    decisions: Sequence[Decision]
    """The lead's decisions."""
    pages: Sequence[Page]
    """The campaign's pages; empty where judgements were imported."""
    links: Mapping[str, str]
    """Addresses in Label Studio by page key; may be empty."""


def review_pages(
    answered: Answered, tasks: Sequence[EditTask], folders: Sequence[Path], hardest: Iterable[str]
) -> ReviewPages:
    """Make the cards of the pages that a lead looks at.

    Args:
        answered: The answers.
        tasks: Tasks of the candidates folder; may be empty.
        folders: Folders of pictures, `<sha256>.png`.
        hardest: Ids of the hardest tasks.
    """
    book = _Book(answered, tasks, folders)
    decided = {decision.task_id for decision in answered.decisions}
    ratings = ratings_by_task(answered.judgements)
    reasons = conflicts(answered.judgements)
    order = sorted(reasons, key=lambda task: (task in decided, -_spread(ratings[task]), task))
    norming = ratings_by_task(judgement for judgement in answered.checks if judgement.kind == "norming")
    return ReviewPages(
        norming=book.section("norming", {task: [] for task in norming}, norming),
        conflicts=book.section("task", {task: reasons[task] for task in order}, ratings),
        tasks={task: book.card("task", task, {}, []) for task in hardest},
    )


class _Book:
    """Makes cards, and keeps count of the bytes of their pictures."""

    def __init__(self, answered: Answered, tasks: Sequence[EditTask], folders: Sequence[Path]):
        self.pages = {(page.kind, page.task_id): page for page in answered.pages}
        self.tasks = {task.task_id: task for task in tasks}
        self.decisions: dict[str, dict[str, Decision]] = defaultdict(dict)
        for decision in answered.decisions:
            self.decisions[decision.task_id][decision.candidate_id] = decision
        self.folders = folders
        self.links = answered.links
        self.bytes = 0
        self.thumbnails: dict[str, Thumbnail | None] = {}

    def section(self, kind: Kind, reasons: Mapping[str, list[str]], ratings: Mapping[str, Ratings]) -> CardSection:
        cards: list[PageCard] = []
        for task, why in reasons.items():
            if len(cards) == CARDS or self.bytes > PICTURE_BYTES:
                break
            cards.append(self.card(kind, task, ratings[task], why))
        return CardSection(cards, len(reasons) - len(cards))

    def card(self, kind: Kind, task: str, ratings: Ratings, reasons: Sequence[str]) -> PageCard:
        page = self.pages.get((kind, task))
        row = self.tasks.get(task)
        pictures = {candidate.candidate_id: candidate.image for candidate in row.candidates} if row else {}
        if page:
            pictures = dict(zip(page.candidates, page.images, strict=True))
        candidates = list(dict.fromkeys([*(page.candidates if page else ()), *sorted(ratings)])) or list(pictures)
        people = sorted({person for votes in ratings.values() for person in votes})
        decision, why = self._decision(task, candidates)
        return PageCard(
            task_id=task,
            name=row.name if row else task,
            instruction=page.instruction if page else row.instruction if row else "",
            link=self.links.get(page.key) if page else None,
            source=self._thumbnail(page.source if page else row.source if row else None),
            references=[
                self._thumbnail(reference) for reference in (page.references if page else row.references if row else ())
            ],
            candidates=[self._thumbnail(pictures.get(candidate)) for candidate in candidates] if ratings else [],
            rows=[
                CardRow(person, [_rating(ratings.get(name, {}), person) for name in candidates]) for person in people
            ],
            decision=decision,
            why=why,
            reasons=[_numbered(reason, candidates) for reason in reasons],
        )

    def _decision(self, task: str, candidates: Sequence[str]) -> tuple[CardRow | None, str]:
        decisions = self.decisions.get(task, {})
        if not decisions:
            return None, ""
        lead = next(iter(decisions.values()))
        ratings = [
            Rating({"if": made.instruction_following, "vq": made.visual_quality}, far=False)
            if (made := decisions.get(candidate))
            else None
            for candidate in candidates
        ]
        return CardRow(lead.lead, ratings), lead.reason

    def _thumbnail(self, digest: str | None) -> Thumbnail | None:
        """Return the thumbnail of a picture; None where no folder has it or the file is damaged."""
        if digest is None:
            return None
        if digest not in self.thumbnails:
            path = next((path for folder in self.folders if (path := folder / f"{digest}.png").is_file()), None)
            self.thumbnails[digest] = _read_thumbnail(path) if path else None
        picture = self.thumbnails[digest]
        self.bytes += len(picture.address) if picture else 0
        return picture


def _read_thumbnail(path: Path) -> Thumbnail | None:
    try:
        return thumbnail(load_image(path), SIDE)
    except EditLoopError:
        return None


def _spread(ratings: Ratings) -> int:
    """Return the largest difference between two ratings of one candidate, in levels."""
    columns = [[vote[axis] for vote in votes.values()] for votes in ratings.values() for axis in AXES]
    return max(max(levels) - min(levels) for levels in columns)


def _rating(votes: Mapping[str, Mapping[Axis, int]], person: str) -> Rating | None:
    levels = votes.get(person)
    if levels is None:
        return None
    far = any(abs(levels[axis] - vote[axis]) >= FAR_APART for vote in votes.values() for axis in AXES)
    return Rating(levels, far)


def _numbered(reason: str, candidates: Sequence[str]) -> str:
    """Return a reason with candidates' ids replaced by their numbers on the card."""
    for number, candidate in enumerate(candidates, 1):
        reason = reason.replace(candidate, f"edit {number}")
    return reason

"""Simulated experts: they answer a campaign through Label Studio's API, each with an account of their own.

An expert sees an edit as the oracle does, with a bias and a noise of their own. What one says of a candidate depends
only on (seed, expert, task, candidate), and who answers which task only on (seed, task): never on order or time.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import requests
from PIL import Image

from annotation.accounts import Account, author_id, names_by_id, read_accounts
from annotation.campaign import Campaign, connect, read_tasks, task_rows
from annotation.labelling import result_of
from annotation.oracle import oracle, shrink
from annotation.vocabulary import AXES, HIGHEST_RATING, LOWEST_RATING, Axis, EditTask
from infra.content import sha256_json
from infra.errors import EditLoopError
from infra.settings import ServiceSettings

LARGEST_BIAS = 0.35
"""Levels; an expert's bias on an axis is drawn evenly from -LARGEST_BIAS to LARGEST_BIAS."""
LEAST_NOISE, MOST_NOISE = 0.3, 0.55
"""Levels; the standard deviation of an expert's noise is drawn evenly from here."""
THREADS = 4
REQUEST_SECONDS = 120


class Expert(NamedTuple):
    """One simulated expert's character, in levels of the rating scale."""

    name: str
    bias: dict[Axis, float]
    noise: float


def expert(name: str, seed: int) -> Expert:
    """The expert of that name: the same for the same seed."""
    rng = _rng(seed, "expert", name)
    bias: dict[Axis, float] = {axis: float(rng.uniform(-LARGEST_BIAS, LARGEST_BIAS)) for axis in AXES}
    return Expert(name, bias, float(rng.uniform(LEAST_NOISE, MOST_NOISE)))


def rating(who: Expert, scores: dict[Axis, float], seed: int, task: str, candidate: str) -> dict[Axis, int]:
    """{axis: 1..4} that the expert gives to a candidate whose oracle scores (0..1) are `scores`."""
    rng = _rng(seed, who.name, task, candidate)
    given: dict[Axis, int] = {}
    for axis in AXES:
        level = LOWEST_RATING + (HIGHEST_RATING - LOWEST_RATING) * scores[axis] + who.bias[axis]
        given[axis] = int(np.clip(round(level + rng.normal(0, who.noise)), LOWEST_RATING, HIGHEST_RATING))
    return given


def assigned(task: str, annotators: Sequence[str], overlap: int, seed: int) -> list[str]:
    """Which annotators answer a task: `overlap` of them, the same for the same seed."""
    return sorted(annotators, key=lambda name: sha256_json([seed, task, name]))[:overlap]


def answer(campaign_file: Path, candidates: Path, *, settings: ServiceSettings, seed: int = 0) -> int:
    """Give every missing answer of the campaign in `campaign_file` (campaign.json); returns how many were given.

    Tasks need a target that the oracle can compare with. Answers that are there already stay as they are.
    """
    campaign = Campaign.model_validate_json(campaign_file.read_text())
    client = connect(settings)
    accounts = read_accounts(settings)
    unknown = [name for name in campaign.annotators if name not in accounts]
    if unknown:
        raise EditLoopError(
            f"No account is kept for {', '.join(unknown)}, so they cannot be simulated: EDITLOOP_ANNOTATORS_FILE names "
            "the file of those that `editloop up` makes. Real people answer in Label Studio."
        )
    scores = oracle_scores(candidates, [task for task in read_tasks(candidates) if len(task.candidates) > 1])
    experts = {name: expert(name, seed) for name in campaign.annotators}
    given = _given(client, campaign)
    pending = []
    for rows in task_rows(client, campaign).values():
        number, data = rows[0]
        for name in assigned(data["task"], campaign.annotators, campaign.overlap, seed):
            if (number, name) in given:
                continue
            said = {
                one: rating(experts[name], scores[data["task"], one], seed, data["task"], one)
                for one in data["candidates"]
            }
            result = result_of([said[one] for one in data["candidates"]])
            pending.append((accounts[name], number, result, _seconds(seed, name, data["task"])))
    with requests.Session() as session, ThreadPoolExecutor(THREADS) as pool:
        url = settings.require("label_studio_url")
        session.mount(url, requests.adapters.HTTPAdapter(pool_maxsize=THREADS))
        list(pool.map(lambda one: _submit(session, url, *one), pending))
    return len(pending)


def oracle_scores(candidates: Path, tasks: Sequence[EditTask]) -> dict[tuple[str, str], dict[Axis, float]]:
    """The oracle's scores (0..1) of every candidate, by (task, candidate). EditLoopError for tasks without a target."""
    blind = [task.name for task in tasks if task.target is None]
    if blind:
        raise EditLoopError(
            f"{len(blind)} tasks have no target ({', '.join(blind[:5])}), and simulated experts know the right result "
            "from nowhere else: give targets, or use --experts human."
        )
    found: dict[tuple[str, str], dict[Axis, float]] = {}
    for task in tasks:
        digests = [task.source, str(task.target), *(one.image for one in task.candidates)]
        pictures = [Image.open(candidates / "images" / f"{digest}.png") for digest in digests]
        seen = [shrink(picture) for picture in pictures]
        if len({picture.shape for picture in seen}) > 1:  # small squares of several sizes
            side = min(picture.shape[0] for picture in seen)
            seen = [np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BOX)) for picture in seen]
        edits = np.stack(seen[2:])
        score = oracle(np.broadcast_to(seen[0], edits.shape), np.broadcast_to(seen[1], edits.shape), edits)
        for place, one in enumerate(task.candidates):
            found[task.task_id, one.candidate_id] = {
                "if": float(score.instruction_following[place]),
                "vq": float(score.visual_quality[place]),
            }
    return found


def _given(client: Any, campaign: Campaign) -> set[tuple[int, str]]:
    """(task's id, annotator) of the answers that are there."""
    names = names_by_id(client, campaign.annotators)
    found = set()
    for task in client.tasks.list(project=campaign.project_id, page_size=500, fields="all"):
        for annotation in task.annotations or ():
            if name := names.get(author_id(annotation)):
                found.add((task.id, name))
    return found


def _submit(
    session: requests.Session, url: str, account: Account, task: int, result: list[dict[str, Any]], seconds: float
) -> None:
    reply = session.post(
        f"{url}/api/tasks/{task}/annotations/",
        json={"result": result, "lead_time": seconds, "was_cancelled": False},
        headers={"Authorization": f"Token {account.token}"},
        timeout=REQUEST_SECONDS,
    )
    if reply.status_code != 201:
        raise EditLoopError(f"Label Studio refused {account.name}'s answer to task {task}: {reply.status_code}.")


def _seconds(seed: int, name: str, task: str) -> float:
    """How long the expert takes over a page: 10 to 30 s."""
    return round(float(_rng(seed, "seconds", name, task).uniform(10, 30)), 1)


def _rng(*parts: Any) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big"))

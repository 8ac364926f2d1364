"""Scenes of a small campaign: answers that come while it closes, two reconcilers, webhooks, a clock that was wrong."""

import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import httpx

from annotation.campaigns.labelling import result_of
from annotation.campaigns.project import task_rows
from annotation.campaigns.record import Cancelled, append_event, now
from components.candidates.declaration import CandidatesParameters
from components.candidates.stage import run_candidates
from components.collect.declaration import CollectParameters
from components.collect.stage import run_collect
from editloop.certificates import shared_certificates
from editloop.content import complete_folder
from editloop.lineage import registry, tracking
from editloop.lineage.promotion import promote_version
from editloop.lineage.promotion_lock import promotion_lock
from editloop.studies.world.scenes import write_edits
from editloop.studies.world.stand_ins import add_candidates
from pipelines import backend
from pipelines.catalogue import read_run_settings
from pipelines.hints import HintQueue, listen_for_hints
from pipelines.reconcile import ReconcileResult, reconcile
from pipelines.reconcile_settings import ReconcilePolicy
from tests.answered_campaigns import PEOPLE, Opened, agree, open_one
from tests.chaos.differences import expect_equal
from tests.prepared_loop import environment

TASKS = 4
DAY = timedelta(days=1)
SECRET = "a long secret"
NUMBERS = itertools.count()


@contextmanager
def _campaign(folder: Path, *, answered: bool = True) -> Iterator[Opened]:
    """A campaign with an answer of everybody to every page; it is cancelled after the block."""
    name = f"chaos {next(NUMBERS)} {folder.name}"
    write_edits(folder / "drawn", TASKS, seed=sum(map(ord, name)))
    add_candidates(folder / "drawn", folder / "edits", seed=0)
    run_candidates(folder / "edits", folder / "candidates", CandidatesParameters(per_task=0))
    with environment({"EDITLOOP_DATASET_REPO": ""}):
        opened = open_one(folder / "candidates", folder / "campaign", name, recorded=True)
        try:
            if answered:
                opened.answer(agree)
            yield opened
        finally:
            append_event(Cancelled(key=opened.campaign.key, at=now(), by="test", reason="over"), name)


class Runs:
    """Stands in for the steps of pipelines: which runs were carried out, each under its key."""

    def __init__(self, opened: Opened, folder: Path):
        self.opened, self.keys = opened, list[str]()
        self._start = backend.make_starter(folder)

    def start(self, pipeline: str, arguments: dict[str, Any]) -> Any:
        """Start a run as `editloop reconcile` does on this machine."""
        with patch.object(backend, "run_local", self._run):
            return self._start(pipeline, arguments)

    def _run(self, name: str, arguments: dict[str, Any], *_: Any) -> None:
        if arguments.get("campaign") == self.opened.campaign.key:
            self.keys.append(str(read_run_settings(arguments["settings"])["run_key"]))
            time.sleep(0.5)

    def passes(self) -> ReconcileResult:
        """One reconcile pass."""
        return reconcile(self.start, None, ReconcilePolicy())


def _ratings(opened: Opened, folder: Path) -> list[Any]:
    """What the campaign's last closing has of ratings, without what only tells when they were given."""
    closing = opened.record().closings[-1]
    run_collect(opened.folder, opened.candidates, folder, CollectParameters(answers_sha256=closing.answers_sha256))
    rows = map(json.loads, (folder / "judgements.jsonl").read_text().splitlines())
    return sorted([row[key] for key in ("task_id", "candidate_id", "annotator", "if", "vq")] for row in rows)


def _tasks(opened: Opened) -> int:
    return sum(map(len, task_rows(opened.settings, opened.campaign).values()))


def annotator_submits_during_the_closing(folder: Path, chance: Random) -> None:
    """An answer is changed while a pass closes the campaign: it is in the closing, or it is noticed afterwards.

    Args:
        folder: An empty folder.
        chance: Chooses the moment.
    """
    with _campaign(folder, answered=False) as opened:
        answers, runs = opened.answer(agree), Runs(opened, folder / "runs")
        (name, page), annotation = chance.choice(list(answers.items()))
        other = [{"if": 1, "vq": 1}] * opened.campaign.places
        moment = chance.uniform(0.0, 1.5)

        def submit() -> None:
            time.sleep(moment)
            opened.edit(name, annotation, result_of(other))

        annotator = threading.Thread(target=submit)
        annotator.start()
        first = runs.passes()
        annotator.join()
        expect_equal("failures", [line for line in first.failures if opened.campaign.key in line], [])
        if opened.record().closings[-1].answers_sha256 != opened.live().sha256:
            expect_equal("noticed", opened.campaign in runs.passes().edited, True)
            opened.close()
        rated = _ratings(opened, folder / "judgements")
        task, candidates = opened.pages[page].task_id, opened.pages[page].candidates
        theirs = [row[3:] for row in rated if row[0] == task and row[1] in candidates and row[2] == name]
        expect_equal("the late ratings", theirs, [[1, 1]] * len(set(candidates)))
        expect_equal("ratings", len(rated), len(opened.pages) * opened.campaign.places * len(PEOPLE))


def two_reconcilers(folder: Path, chance: Random) -> None:
    """Two passes at once, as of a CronJob and a person, close the campaign once and start one training.

    Args:
        folder: An empty folder.
        chance: Chooses how far the second is behind.
    """
    with _campaign(folder) as opened:
        both = [Runs(opened, folder / f"runs-{number}") for number in range(2)]
        results = list[ReconcileResult]()
        behind = chance.uniform(0.0, 0.3)

        def look(number: int) -> None:
            time.sleep(number * behind)
            results.append(both[number].passes())

        threads = [threading.Thread(target=look, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expect_equal("passes", len(results), 2)
        _expect_one_training(opened, [key for runs in both for key in runs.keys])


def duplicated_webhook(folder: Path, chance: Random) -> None:
    """A hint that is delivered several times at once, and again during the pass, leads to one training.

    Args:
        folder: An empty folder.
        chance: Chooses how often and when.
    """
    with _campaign(folder) as opened:
        runs, hints = Runs(opened, folder / "runs"), HintQueue(2.0, settle_seconds=0.2)
        with listen_for_hints("127.0.0.1:0", hints, SECRET) as address:
            for _ in range(chance.randint(2, 5)):
                _deliver(address)
            hints.wait()
            again = threading.Timer(chance.uniform(0.0, 1.0), _deliver, [address])
            again.start()
            runs.passes()
            again.join()
            hints.wait()
            runs.passes()
        _expect_one_training(opened, runs.keys[:1] if len(set(runs.keys)) == 1 else runs.keys)


def late_webhook(folder: Path, chance: Random) -> None:
    """A hint that comes when the campaign closed long ago, or was cancelled, changes nothing.

    Args:
        folder: An empty folder.
        chance: Not used: the moment is after the end.
    """
    with _campaign(folder) as opened:
        runs, hints = Runs(opened, folder / "runs"), HintQueue(2.0, settle_seconds=0.0)
        runs.passes()
        _expect_one_training(opened, runs.keys)
        with listen_for_hints("127.0.0.1:0", hints, SECRET) as address:
            _deliver(address)
            hints.wait()
            runs.passes()
        expect_equal("closings", len(opened.record().closings), 1)
        expect_equal("keys of trainings", len(set(runs.keys)), 1)


def _deliver(address: str) -> None:
    """Label Studio's request."""
    body = {"action": "ANNOTATION_CREATED"}
    headers = {"Authorization": f"Bearer {SECRET}"}
    reply = httpx.post(address, json=body, headers=headers, verify=shared_certificates())
    expect_equal("the hint's answer", reply.status_code, 202)


def _expect_one_training(opened: Opened, keys: list[str]) -> None:
    expect_equal("closings", len(opened.record().closings), 1)
    expect_equal("trainings", len(keys), 1)
    expect_equal("tasks", _tasks(opened), len(opened.pages))


@contextmanager
def _clock_ahead(jump: timedelta) -> Iterator[None]:
    """This process's clock is ahead for the while; afterwards it is set right."""

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + jump

    seconds, real = jump.total_seconds(), time.time
    with (
        patch("annotation.campaigns.record.datetime", Ahead),
        patch("pipelines.reconcile_failures.datetime", Ahead),
        patch("time.time", lambda: real() + seconds),
    ):
        yield


def clock_ahead_at_a_closing(folder: Path, chance: Random) -> None:
    """A campaign that closed on a machine whose clock was ahead is closed anew on one whose clock is right.

    Args:
        folder: An empty folder.
        chance: Chooses how far it was ahead.
    """
    with _campaign(folder, answered=False) as opened:
        answers, runs = opened.answer(agree), Runs(opened, folder / "runs")
        with _clock_ahead(chance.uniform(0.1, 400.0) * DAY):
            first = opened.close()
        (name, _), annotation = next(iter(answers.items()))
        opened.edit(name, annotation, result_of([{"if": 1, "vq": 1}] * opened.campaign.places))
        second = opened.close()
        expect_equal("closings", opened.record().closings, (first, second))
        runs.passes()
        expect_equal("trainings", len(runs.keys), 1)
        expect_equal("ratings", len(_ratings(opened, folder / "judgements")), len(answers) * opened.campaign.places)


def clock_ahead_at_a_failure(folder: Path, chance: Random) -> None:
    """A campaign that failed in a pass whose clock was ahead does not wait until that time.

    Args:
        folder: An empty folder.
        chance: Chooses how far it was ahead.
    """
    with _campaign(folder) as opened:
        failing, runs = Runs(opened, folder / "runs"), Runs(opened, folder / "runs")

        def fail(*_: Any) -> None:
            raise RuntimeError("a defect")

        with _clock_ahead(chance.uniform(0.1, 400.0) * DAY), patch.object(failing, "start", fail):
            failures = failing.passes().failures
        expect_equal("failed", any("a defect" in line for line in failures if opened.campaign.key in line), True)
        failures = [line for line in runs.passes().failures if opened.campaign.key in line]
        expect_equal("failures", failures, [])
        _expect_one_training(opened, runs.keys)


def clock_ahead_at_a_promotion(folder: Path, chance: Random) -> None:
    """A promotion that was broken off on a machine whose clock was ahead is overtaken at once.

    Args:
        folder: An empty folder.
        chance: Chooses how far it was ahead.
    """
    name, api = f"chaos-{folder.name}", tracking.client()
    with environment({"EDITLOOP_CACHE": str(folder / "cache")}):
        with complete_folder(folder / "model") as made:
            (made / "weights.safetensors").write_text("weights")
        with tracking.stage_run("reward", "train-reward", name, {}, {}) as run:
            evidence = {"editloop.verdict": "promote", "editloop.benchmark_sha256": "6" * 64}
            version = registry.register_model(name, folder / "model", run.run_id, {}, evidence)
            run.finish({}, {"output": folder / "model"})
        request = registry.PromotionRequest(
            action="promote",
            model=name,
            version=version,
            actor="another machine",
            reason="because",
            previous="",
            verdict="promote",
            evidence={"benchmark_sha256": "6"},
        )
        with patch("editloop.lineage.promotion_lock.process_identity", lambda: "another machine/1/1"):
            held = promotion_lock(api, request, 1)
            held.__enter__()
        # The server's clock made the lock's time: this machine's was set back since.
        with _clock_ahead(-chance.uniform(0.1, 400.0) * DAY):
            record = promote_version(f"models:/{name}/{version}", actor="Ada", reason="better")
        expect_equal("record", (record.actor, record.version), ("Ada", version))
        expect_equal("champion", registry.promotions(name)[-1].version, version)
        left = [one.name for one in api.search_experiments() if one.name.startswith(f"{registry.RECORDS}/{name}/")]
        expect_equal("locks", left, [])
        held.__exit__(None, None, None)

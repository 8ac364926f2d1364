"""Runs on a Kubeflow Pipelines server: submit one per piece of work, watch, read the logs, stop."""

import io
import json
import logging
import math
import re
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from editloop.environment import login_name
from editloop.errors import EditLoopError
from editloop.lineage import tracking
from editloop.lineage.run_claim import RunClaim, claim_run, latest_claim, record_run
from infra.profile import Profile
from pipelines.catalogue import PIPELINES, STAGES, find_pipeline, read_run_settings
from pipelines.compilation import compile_pipeline
from pipelines.kfp_settings import KfpSettings
from pipelines.preflight import FIRST_STEP_TITLE
from pipelines.run_status import RunStatus

log = logging.getLogger("editloop.pipelines")

MOST_TRIES = 3
"""Runs of one piece of work that `reconcile` starts by itself. Each of them has the retries of its steps."""
FIRST_PAUSE_SECONDS = 600.0
"""Pause between a failed run and the next one; each pause is three times as long as the one before."""
POLL_SECONDS = 10.0
ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")


class KfpStep(NamedTuple):
    """A step of a run."""

    title: str
    state: str
    """`waiting`, `running`, `succeeded`, `failed` and the like."""
    error: str


@dataclass(frozen=True)
class KfpRun:
    """A run as the server tells it."""

    run_id: str
    name: str
    state: str
    error: str
    """Why it failed; empty where it did not."""
    finished_at: datetime | None
    was_terminated: bool
    """Whether a person ended it. KFP writes FAILED then, but the run was CANCELING before."""
    steps: list[KfpStep]
    """In the order of their start."""

    @property
    def is_done(self) -> bool:
        """Whether it has ended well."""
        return self.state in ("SUCCEEDED", "SKIPPED")


class KfpServer:
    """A Kubeflow Pipelines server and the deployment profile of its runs."""

    def __init__(self, settings: KfpSettings, profile: Profile):
        """Connect.

        Args:
            settings: Address of the server, and the experiment.
            profile: The deployment profile.

        Raises:
            EditLoopError: Nothing answers there.
        """
        from kfp.client import Client

        self.settings, self.profile = settings, profile
        with self._answering(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about servers before 2.0
            self.client = Client(host=settings.kfp_endpoint, namespace=profile.namespace)
            self.client.get_kfp_healthz(sleep_duration=1)

    def submit(self, name: str, arguments: Mapping[str, Any], *, again: bool = False) -> RunStatus:
        """Start a run, or say where the run of the same key stands.

        Of a key (`run_key` in the form's settings), one run exists at a time, whoever submits it where and when. A
        failed one is started again after a pause, MOST_TRIES times in all; one that a person terminated is not.

        Args:
            name: The pipeline.
            arguments: The form's values.
            again: Start also what was terminated, or failed too often or just now.
        """
        key = str(read_run_settings(arguments.get("settings", "")).get("run_key", ""))
        if not key:
            return self._started(name, self._create(name, arguments, name))
        api = tracking.client()
        latest = latest_claim(api, key)
        if latest is not None and latest.is_abandoned and (run_id := self._find(_run_name(key, latest.attempt))):
            record_run(api, latest, run_id)  # its caller died between the submission and this
            latest = replace(latest, run_id=run_id)
        if latest is not None:
            status = self._status(latest)
            if status is not None and not (again and status.state in ("failed", "stopped")):
                return status
        attempt = latest.attempt + 1 if latest else 1
        claim = claim_run(api, key, attempt, login_name())
        if claim is None:
            return RunStatus(key, "running", "", "another caller is submitting it")
        run_id = self._create(name, arguments, _run_name(key, attempt))
        record_run(api, claim, run_id)
        return self._started(key, run_id)

    def wait(self, run_id: str) -> RunStatus:
        """Wait for a run to end, and log each step that begins or ends.

        Args:
            run_id: KFP's id of the run.
        """
        seen: set[KfpStep] = set()
        while True:
            run = self._run(run_id)
            if run is None:
                return RunStatus(run_id, "stopped", detail="the run was deleted")
            for step in run.steps:
                if step not in seen and step.state != "waiting":
                    seen.add(step)
                    log.info("%s: %s", step.title, step.state)
            if run.state in ENDED:
                return RunStatus(run.name, "done" if run.is_done else "failed", self.address(run_id), run.error)
            time.sleep(POLL_SECONDS)

    def stop(self, run_id: str) -> None:
        """Terminate a run. `reconcile` does not start it again.

        Args:
            run_id: KFP's id of the run.
        """
        with self._answering():
            self.client.terminate_run(run_id)

    def find(self, name: str) -> str:
        """Return the id of the newest run with a name, a key or an id.

        Args:
            name: The name, key or id.

        Raises:
            EditLoopError: There is none.
        """
        claim = latest_claim(tracking.client(), name)
        run_id = (claim.run_id if claim else "") or self._find(name)
        run_id = run_id or (name if self._run(name) else "")
        if not run_id:
            raise EditLoopError(f"{name}: no run of this name, key or id on {self.settings.kfp_endpoint}.")
        return run_id

    def version(self) -> str:
        """Return the server's version; empty where it does not tell."""
        try:
            reply = httpx.get(
                f"{str(self.settings.kfp_endpoint).rstrip('/')}/apis/v2beta1/healthz", timeout=POLL_SECONDS
            )
        except httpx.HTTPError:
            return ""
        tag = re.search(r'"(?:tag_name|tagName)":\s*"([^"]*)"', reply.text)
        return tag[1] if tag else ""

    def upload(self, name: str, version: str) -> str:
        """Upload a pipeline, or a further version of it, for runs from the UI, and return its page's address.

        Args:
            name: The pipeline.
            version: Name of the version.

        Raises:
            EditLoopError: The server has this version already, or refuses.
        """
        with tempfile.TemporaryDirectory() as folder, self._answering(), redirect_stdout(io.StringIO()):
            package = str(compile_pipeline(name, Path(folder) / f"{name}.yaml", self.profile))
            pipeline_id = self.client.get_pipeline_id(name)
            if pipeline_id is None:
                description = find_pipeline(name).description
                pipeline_id = self.client.upload_pipeline(
                    package, pipeline_name=name, description=description
                ).pipeline_id
            self.client.upload_pipeline_version(package, pipeline_version_name=version, pipeline_id=pipeline_id)
        return f"{self.profile.kfp_url.rstrip('/')}/#/pipelines/details/{pipeline_id}"

    def steps(self, run_id: str) -> list[KfpStep]:
        """Return the steps of a run, in the order of their start.

        Args:
            run_id: KFP's id of the run.
        """
        run = self._run(run_id)
        return run.steps if run else []

    def address(self, run_id: str) -> str:
        """Return the page of a run in KFP's UI.

        Args:
            run_id: KFP's id of the run.
        """
        return f"{self.profile.kfp_url.rstrip('/')}/#/runs/details/{run_id}"

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Turn what KFP's client raises within the block into an EditLoopError of one line."""
        from kfp_server_api.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ApiException as error:
            reason = _refusal(str(error.body or error.reason))
            raise EditLoopError(f"{self.settings.kfp_endpoint} refuses ({error.status}): {reason}") from error
        except HTTPError as error:
            raise EditLoopError(
                f"EDITLOOP_KFP_ENDPOINT={self.settings.kfp_endpoint}: no Kubeflow Pipelines server answers there "
                f"({type(error).__name__}). Start it, or correct the variable."
            ) from error

    def _started(self, key: str, run_id: str) -> RunStatus:
        return RunStatus(key, "started", self.address(run_id), run_id=run_id)

    def _status(self, claim: RunClaim) -> RunStatus | None:
        """Return where the run of a claim stands; None where the next try is due."""
        if not claim.run_id:
            submitting = RunStatus(claim.key, "running", detail=f"{claim.actor} is submitting it")
            return None if claim.is_abandoned else submitting
        address = self.address(claim.run_id)
        run = self._run(claim.run_id)
        if run is None:
            return RunStatus(claim.key, "stopped", "", "its run was deleted; `editloop run --again` starts it anew")
        if run.is_done:
            return RunStatus(claim.key, "done", address)
        if run.state not in ENDED:
            return RunStatus(claim.key, "running", address, run_id=claim.run_id)
        if run.was_terminated:
            detail = "a person stopped it; `editloop run --again` starts it anew"
            return RunStatus(claim.key, "stopped", address, detail)
        if claim.attempt >= MOST_TRIES:
            detail = f"{run.error}; {claim.attempt} runs failed, mend it and call `editloop run --again`"
            return RunStatus(claim.key, "failed", address, detail)
        pause = FIRST_PAUSE_SECONDS * 3 ** (claim.attempt - 1) - _seconds_since(run.finished_at)
        if pause > 0:
            detail = f"{run.error}; started again in {math.ceil(pause / 60)} min"
            return RunStatus(claim.key, "failed", address, detail)
        return None

    def _create(self, name: str, arguments: Mapping[str, Any], run_name: str) -> str:
        with tempfile.TemporaryDirectory() as folder, self._answering():
            package = compile_pipeline(name, Path(folder) / f"{name}.yaml", self.profile)
            with redirect_stdout(
                io.StringIO()
            ):  # kfp prints links to the API's host, where people may not reach a page
                run = self.client.create_run_from_pipeline_package(
                    str(package),
                    arguments=dict(arguments),
                    run_name=run_name,
                    experiment_name=self.settings.kfp_experiment,
                    service_account=self.profile.service_account,
                )
        return str(run.run_id)

    def _run(self, run_id: str) -> KfpRun | None:
        """Return a run of the server; None where there is none."""
        from kfp_server_api.exceptions import ApiException

        with self._answering():
            try:
                return _kfp_run(self.client.get_run(run_id))
            except ApiException as error:
                if error.status in (400, 404):  # 400: this is no id
                    return None
                raise

    def _find(self, run_name: str) -> str:
        """Return the id of the newest run with a name; empty where there is none."""
        predicate = {"key": "name", "operation": "EQUALS", "stringValue": run_name}
        name_filter = json.dumps({"predicates": [predicate]})
        with self._answering():
            found = self.client.list_runs(filter=name_filter, sort_by="created_at desc", page_size=1)
        return str(found.runs[0].run_id) if found.runs else ""


def _refusal(body: str) -> str:
    """Return the message in the server's answer, which is JSON, as one line."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = body
    message = str(answer.get("message", body)) if isinstance(answer, dict) else body
    return " ".join(message.split())[:400]


def step_titles() -> dict[str, str]:
    """Return the titles of all steps, by the names that KFP's backend gives their tasks."""
    titles = {stage.name.replace("_", "-"): stage.title for stage in STAGES.values()}
    return titles | {f"{name}-preflight": FIRST_STEP_TITLE for name in PIPELINES}


def _kfp_run(run: Any) -> KfpRun:
    """Return a run as KFP's client describes it."""
    state: str = run.state
    history: list[str] = [past.state for past in run.state_history or []]
    error = "" if state in ("SUCCEEDED", "SKIPPED") else f"the run is {state}"
    if run.error and run.error.message:
        error = str(run.error.message)
    titles = step_titles()
    details = run.run_details.task_details or [] if run.run_details else []
    steps = [
        KfpStep(titles[task.display_name], (task.state or "waiting").lower(), task.error.message if task.error else "")
        for task in sorted(details, key=lambda task: (task.start_time is None, task.start_time))
        if task.display_name in titles
    ]
    terminated = state == "CANCELED" or "CANCELING" in history
    return KfpRun(str(run.run_id), str(run.display_name), state, error, run.finished_at, terminated, steps)


def _run_name(key: str, attempt: int) -> str:
    return key if attempt == 1 else f"{key} (try {attempt})"


def _seconds_since(moment: datetime | None) -> float:
    return (datetime.now(UTC) - moment).total_seconds() if moment else 0.0

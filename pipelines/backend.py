"""Run pipelines on this machine with kfp.local, or on the Kubeflow Pipelines server in EDITLOOP_KFP_ENDPOINT."""

import logging
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from editloop.environment import login_name
from editloop.errors import EditLoopError, there_are
from editloop.lineage import tracking
from editloop.lineage.run_claim import claim_run, kept_alive, latest_claim
from editloop.settings_file import parse_json, shorten
from pipelines.catalogue import find_pipeline, read_run_settings, stage_parameters
from pipelines.compilation import read_deployment
from pipelines.kfp_server import KfpServer
from pipelines.kfp_settings import KfpSettings
from pipelines.local import run_local
from pipelines.run_status import RunStatus

log = logging.getLogger("editloop.pipelines")

Start = Callable[[str, dict[str, Any]], RunStatus]
"""Runs a pipeline, given its name and form: to its end on this machine, or by submitting it to a server."""


def make_starter(root: Path, profile: str | None = None) -> Start:
    """Return a function that runs a pipeline, given its name and form, on this machine or on the server.

    Of a key (`run_key` in the form's settings), one run exists at a time, whoever starts it where.

    Args:
        root: Folder of steps, cache and logs on this machine.
        profile: Deployment profile of runs on the server; None for the one in EDITLOOP_PROFILE.

    Raises:
        EditLoopError: A profile is given, but pipelines run on this machine; or the server has none, or does not
            answer.
    """
    if KfpSettings().kfp_endpoint:
        return open_server(profile).submit
    if profile:
        raise EditLoopError(
            f"--profile {profile}: pipelines run on this machine, without containers. Set EDITLOOP_KFP_ENDPOINT to run "
            "them on a Kubeflow Pipelines server, or leave --profile out."
        )

    def run_here(name: str, arguments: dict[str, Any]) -> RunStatus:
        tell = partial(log.info, "%s: %s", name)
        key = str(read_run_settings(arguments.get("settings", "")).get("run_key", ""))
        if not key:
            run_local(name, arguments, root.absolute(), tell)
            return RunStatus(name, "started")
        api = tracking.client()
        latest = latest_claim(api, key)
        if latest and not latest.run_id and not latest.is_abandoned:
            return RunStatus(key, "running", detail=f"{latest.actor} does it")
        actor = f"{login_name()} on {socket.gethostname()}"
        claim = claim_run(api, key, latest.attempt + 1 if latest else 1, actor)
        if claim is None:
            return RunStatus(key, "running", detail="another caller began it at this moment")
        with kept_alive(api, claim):
            run_local(name, arguments, root.absolute(), tell)
        return RunStatus(key, "started")

    return run_here


def open_server(profile: str | None = None) -> KfpServer:
    """Return the server in EDITLOOP_KFP_ENDPOINT.

    Args:
        profile: Deployment profile of its runs; None for the one in EDITLOOP_PROFILE.

    Raises:
        EditLoopError: A variable is not set, the profile is not valid, or nothing answers.
    """
    settings = KfpSettings()
    settings.require("kfp_endpoint")
    return KfpServer(settings, read_deployment(profile or settings.require("profile")))


def parse_arguments(name: str, texts: list[str]) -> dict[str, Any]:
    """Parse `name=value` texts into a pipeline's form, with the types that it and its stages declare.

    Args:
        name: The pipeline.
        texts: Texts `name=value` of form fields and stages' parameters. The value of one that is no string is JSON.

    Returns:
        The arguments by name.

    Raises:
        EditLoopError: There is no such pipeline or parameter, a value has the wrong form, or a required argument is
            missing.
    """
    pipeline = find_pipeline(name)
    kinds = {"run_key": str, "seed": int}
    for step in pipeline.steps:
        kinds |= {step.pipeline_name(entry.name): entry.type for entry in stage_parameters(step.stage)}
    kinds |= {entry.name: entry.type for entry in pipeline.form}
    values: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key not in kinds:
            raise EditLoopError(f"--set {shorten(text)}: {name} takes name=value; {there_are(key, kinds)}")
        kind = kinds[key]
        values[key] = value if kind is str else parse_json(value, f"--set {shorten(text)}: {key} takes {kind.__name__}")
    missing = [entry.name for entry in pipeline.form if entry.is_required and entry.name not in values]
    if missing:
        raise EditLoopError(f"{name} also needs {', '.join(f'--set {key}=...' for key in missing)}.")
    return pipeline.arguments(values)

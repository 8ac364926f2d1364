"""Run pipelines on this machine with kfp.local, or on the Kubeflow Pipelines server in EDITLOOP_KFP_ENDPOINT."""

import json
import logging
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from editloop.environment import EnvironmentSettings
from editloop.errors import EditLoopError, there_are
from infra.profile import Profile, read_profile
from pipelines.catalogue import find_pipeline, read_run_settings, stage_parameters
from pipelines.compilation import compile_pipeline
from pipelines.local import run_local

log = logging.getLogger("editloop.pipelines")


class BackendSettings(EnvironmentSettings):
    """Where pipelines run."""

    kfp_endpoint: str | None = None
    """Address of a Kubeflow Pipelines server; without it pipelines run on this machine."""
    kfp_experiment: str = "editloop"
    """Experiment of the server that runs are listed under."""
    profile: str | None = None
    """Deployment profile of the server's runs: a shipped one, or the path of a YAML file."""


def make_starter(root: Path, profile: str | None = None) -> Callable[[str, dict[str, Any]], None]:
    """Return a function that runs a pipeline, given its name and arguments, on this machine or on the server.

    Args:
        root: Folder of steps, cache and logs on this machine.
        profile: Deployment profile of runs on the server; None for the one in EDITLOOP_PROFILE.

    Raises:
        EditLoopError: A profile is given, but pipelines run on this machine; or the server has none.
    """
    settings = BackendSettings()
    if settings.kfp_endpoint:
        name = profile or settings.require("profile")
        deployment = read_profile(name)
        return lambda pipeline, arguments: submit(pipeline, arguments, settings, deployment)
    if profile:
        raise EditLoopError(
            f"--profile {profile}: pipelines run on this machine, without containers. Set EDITLOOP_KFP_ENDPOINT to run "
            "them on a Kubeflow Pipelines server, or leave --profile out."
        )
    return lambda name, arguments: run_local(name, arguments, root.absolute(), partial(log.info, "%s: %s", name))


def submit(name: str, arguments: dict[str, Any], settings: BackendSettings, profile: Profile) -> None:
    """Submit a pipeline to the server, and print where it can be watched.

    Where the arguments have a `run_key`, nothing is submitted if the server has a run of that key that is neither
    failed nor cancelled.

    Args:
        name: The pipeline.
        arguments: The pipeline's arguments, as `Pipeline.arguments` returns them.
        settings: Address of the server, and the experiment.
        profile: The deployment profile.
    """
    from kfp.client import Client

    client = Client(host=settings.kfp_endpoint, namespace=profile.namespace)
    key = str(read_run_settings(arguments.get("settings", "")).get("run_key", ""))
    if key:
        name_filter = json.dumps({"predicates": [{"key": "name", "operation": "EQUALS", "stringValue": key}]})
        for earlier in client.list_runs(filter=name_filter).runs or []:
            if earlier.state not in ("FAILED", "CANCELED"):
                log.info("%s: %s already, %s", key, earlier.state.lower(), run_address(profile, earlier.run_id))
                return
    with tempfile.TemporaryDirectory() as folder:
        package = compile_pipeline(name, Path(folder) / f"{name}.yaml", profile)
        run = client.create_run_from_pipeline_package(
            str(package),
            arguments=arguments,
            run_name=key or name,
            experiment_name=settings.kfp_experiment,
            service_account=profile.service_account,
        )
    log.info("%s: submitted, %s", key or name, run_address(profile, run.run_id))


def run_address(profile: Profile, run_id: str) -> str:
    """Return the page of a run in KFP's UI.

    Args:
        profile: The deployment profile.
        run_id: KFP's id of the run.
    """
    return f"{profile.kfp_url.rstrip('/')}/#/runs/details/{run_id}"


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
            raise EditLoopError(f"--set {text}: {name} takes name=value; {there_are(key, kinds)}")
        kind = kinds[key]
        try:
            values[key] = value if kind is str else json.loads(value)
        except ValueError as error:
            raise EditLoopError(f"--set {text}: {key} takes {kind.__name__} as JSON.") from error
    missing = [entry.name for entry in pipeline.form if entry.is_required and entry.name not in values]
    if missing:
        raise EditLoopError(f"{name} also needs {', '.join(f'--set {key}=...' for key in missing)}.")
    return pipeline.arguments(values)

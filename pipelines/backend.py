"""Run pipelines on this machine with kfp.local, or on the Kubeflow Pipelines server in EDITLOOP_KFP_ENDPOINT."""

import json
import logging
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from editloop.environment import EnvironmentSettings
from editloop.errors import EditLoopError
from pipelines.catalogue import find_pipeline
from pipelines.compilation import COMPILED, compile_pipeline
from pipelines.local import run_local

log = logging.getLogger("editloop.pipelines")


class BackendSettings(EnvironmentSettings):
    """Where pipelines run."""

    kfp_endpoint: str | None = None
    """Address of a Kubeflow Pipelines server; without it pipelines run on this machine."""
    kfp_experiment: str = "editloop"
    """Experiment of the server that runs are listed under."""


def make_starter(root: Path, image: str | None = None) -> Callable[[str, dict[str, Any]], None]:
    """Return a function that runs a pipeline, given its name and arguments, on this machine or on the server.

    Args:
        root: Folder of steps, cache and logs on this machine.
        image: Container image of the steps on the server; None for `DEFAULT_IMAGE`.

    Raises:
        EditLoopError: An image is given, but pipelines run on this machine.
    """
    settings = BackendSettings()
    if settings.kfp_endpoint:
        return lambda name, arguments: submit(name, arguments, settings, image)
    if image:
        raise EditLoopError(
            f"--image {image}: pipelines run on this machine, without containers. Set EDITLOOP_KFP_ENDPOINT to run "
            "them on a Kubeflow Pipelines server, or leave --image out."
        )
    return lambda name, arguments: run_local(name, arguments, root.absolute(), partial(log.info, "%s: %s", name))


def submit(name: str, arguments: dict[str, Any], settings: BackendSettings, image: str | None = None) -> None:
    """Submit a pipeline to the server.

    Where the arguments have a `run_key`, nothing is submitted if the server has a run of that key that is neither
    failed nor cancelled.

    Args:
        name: The pipeline.
        arguments: The pipeline's arguments.
        settings: Address of the server, and the experiment.
        image: Container image of the steps; None submits the committed YAML file as it is.
    """
    from kfp.client import Client

    client = Client(host=settings.kfp_endpoint)
    key = arguments.get("run_key") or name
    name_filter = json.dumps({"predicates": [{"key": "name", "operation": "EQUALS", "stringValue": key}]})
    earlier_runs = client.list_runs(filter=name_filter).runs or []
    if arguments.get("run_key") and any(run.state not in ("FAILED", "CANCELED") for run in earlier_runs):
        return
    with tempfile.TemporaryDirectory() as folder:
        path = COMPILED / f"{name}.yaml"
        package = compile_pipeline(name, Path(folder) / path.name, image) if image else path
        client.create_run_from_pipeline_package(
            str(package), arguments=arguments, run_name=key, experiment_name=settings.kfp_experiment
        )


def parse_arguments(name: str, texts: list[str]) -> dict[str, Any]:
    """Parse `name=value` texts into arguments of a pipeline, with the types that it declares.

    Args:
        name: The pipeline.
        texts: Texts `name=value`. The value of a parameter that is no string is JSON.

    Returns:
        The arguments by name.

    Raises:
        EditLoopError: There is no such pipeline or parameter, a value has the wrong form, or a required argument is
            missing.
    """
    entries = {entry.name: entry for entry in find_pipeline(name).parameters}
    arguments: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key not in entries:
            raise EditLoopError(f"--set {text}: {name} takes name=value of {', '.join(entries)}.")
        kind = entries[key].type
        try:
            arguments[key] = value if kind is str else json.loads(value)
        except ValueError as error:
            raise EditLoopError(f"--set {text}: {key} takes {kind.__name__} as JSON.") from error
    missing = [key for key, entry in entries.items() if entry.is_required and key not in arguments]
    if missing:
        raise EditLoopError(f"{name} also needs {', '.join(f'--set {key}=...' for key in missing)}.")
    return arguments

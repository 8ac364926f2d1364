"""First step of every pipeline: check all settings, and find what the run reads.

A fault is told here, all faults at once, and not by the stage that would meet it hours later. What the form names (a
campaign, a folder of edits) is looked up, and its address and digest go to the steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from editloop.content import MANIFEST, read_manifest, sha256_bytes
from editloop.errors import EditLoopError, there_are
from editloop.lineage import tracking
from editloop.object_storage import ObjectFolder, StorageError, folder_digest, is_address
from editloop.settings_file import setting_faults, shorten
from pipelines.catalogue import Pipeline, Step, find_pipeline, read_run_settings

FIRST_STEP = "preflight"
"""Name of a pipeline's first step in a profile's `stages`."""
FIRST_STEP_TITLE = "Check the settings, find the inputs"
"""Name of a pipeline's first step in KFP's graph."""
EDITS_FILE = "edits.jsonl"


@dataclass(frozen=True)
class Source:
    """Where an input of a run is."""

    address: str
    sha256: str
    """Content address; empty where it is not known."""


@dataclass(frozen=True)
class RunPlan:
    """What the steps of a run get."""

    run_key: str
    """Name of the run in MLflow; empty for the run's own id."""
    sources: dict[str, Source]
    """Inputs by import."""
    parameters: dict[str, dict[str, Any]]
    """Every parameter of each stage."""


def preflight_outputs(name: str, arguments: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the outputs of a pipeline's first step, in the order of `preflight_fields`.

    Args:
        name: The pipeline.
        arguments: The form's values.

    Raises:
        EditLoopError: A value or an input is faulty; a line for each.
    """
    plan = plan_run(name, arguments)
    found = [value for source in plan.sources.values() for value in (source.address, source.sha256)]
    return (plan.run_key, *found, *plan.parameters.values())


def preflight_fields(pipeline: Pipeline) -> dict[str, type]:
    """Return the types of the first step's outputs, by name.

    Args:
        pipeline: The pipeline.
    """
    found = {f"{part.name}_{kind}": str for part in pipeline.imports for kind in ("uri", "sha256")}
    return {"run_key": str, **found, **{step.stage.name: dict for step in pipeline.steps}}


def plan_run(name: str, arguments: Mapping[str, Any]) -> RunPlan:
    """Check a run's form, and find its inputs.

    Args:
        name: The pipeline.
        arguments: The form's values.

    Raises:
        EditLoopError: A value or an input is faulty; a line for each.
    """
    pipeline = find_pipeline(name)
    settings = read_run_settings(arguments.get("settings", ""))
    faults = _unknown_settings(pipeline, settings)
    parameters: dict[str, dict[str, Any]] = {}
    for step in pipeline.steps:
        stage = step.stage
        fields = stage.parameters.model_fields
        values = {field: arguments[step.pipeline_name(field)] for field in fields if _is_given(step, field, arguments)}
        if "seed" in fields and "seed" in settings:
            values["seed"] = settings["seed"]
        own = settings.get(stage.name)
        values |= own if isinstance(own, dict) else {}
        try:
            checked = stage.parameters.model_validate(values)
            checked.check()
            parameters[stage.name] = checked.model_dump(mode="json")
        except ValidationError as error:
            faults += [f"{stage.name}: {fault}" for fault in setting_faults(error, stage.parameters)]
        except EditLoopError as error:
            faults.append(f"{stage.name}: {error}")
    sources: dict[str, Source] = {}
    for part in pipeline.imports:
        try:
            sources[part.name] = _find_source(part.name, part.field, str(arguments[part.field]))
        except EditLoopError as error:
            if str(error) not in faults:
                faults.append(str(error))
    if faults:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise EditLoopError("\n".join([f"{name}: {count}, nothing was started.", *faults]))
    return RunPlan(str(settings.get("run_key", "")), sources, parameters)


def _is_given(step: Step, field: str, arguments: Mapping[str, Any]) -> bool:
    return arguments.get(step.pipeline_name(field)) is not None


def _unknown_settings(pipeline: Pipeline, settings: Mapping[str, Any]) -> list[str]:
    """Return a fault for each key of `settings` that is none, and each stage's section that is no mapping."""
    stages = [step.stage.name for step in pipeline.steps]
    known = ["seed", "run_key", *stages]
    faults = [f"settings: no stage or setting {key!r}; {there_are(str(key), known)}" for key in settings.keys() - known]
    return faults + [
        f"settings.{stage}: {shorten(settings[stage])} is no mapping of parameters"
        for stage in stages
        if not isinstance(settings.get(stage, {}), dict)
    ]


def _find_source(name: str, field: str, value: str) -> Source:
    if field == "campaign":
        return _campaign_source(name, value)
    return find_edits(field, value)


def find_edits(field: str, address: str) -> Source:
    """Find a folder of edits.

    Args:
        field: The form's field, for messages.
        address: A path, or s3://BUCKET/PREFIX.

    Raises:
        EditLoopError: Nothing is there, or the storage does not answer.
    """
    if is_address(address):
        return Source(address, _bucket_digest(field, address))
    folder = Path(address)
    if not folder.exists():
        raise EditLoopError(f"{field}: {address} does not exist. Give a folder with {EDITS_FILE}.")
    return Source(address, str(read_manifest(folder)["sha256"]) if (folder / MANIFEST).is_file() else "")


def _bucket_digest(field: str, address: str) -> str:
    """Return the content address of a folder in a bucket: its manifest's, or else that of its edits.jsonl."""
    try:
        if digest := folder_digest(address):
            return digest
        edits = ObjectFolder(address).read(EDITS_FILE)
    except StorageError as error:
        raise EditLoopError(f"{field}: {error}") from error
    if edits is None:
        raise EditLoopError(f"{field}: {address} has no {EDITS_FILE}. Give a folder with edits.")
    return sha256_bytes(edits)


def _campaign_source(name: str, campaign: str) -> Source:
    """Find a campaign's files by its name or key, as the run that opened it recorded them."""
    opened = [
        run
        for run in tracking.find_runs(stage="annotate")
        if campaign in (run.data.params.get("name"), run.data.tags.get("editloop.campaign_key"))
        and "editloop.uri.candidates" in run.data.tags
    ]
    if not opened:
        raise EditLoopError(
            f"campaign: MLflow knows no run that opened {campaign!r} by a pipeline. Its name is the title "
            "of its project in Label Studio; one that was opened in another way is trained stage by stage."
        )
    keys = sorted({str(run.data.tags.get("editloop.campaign_key")) for run in opened})
    if len(keys) > 1:
        raise EditLoopError(
            f"campaign: {campaign!r} is the name of {len(keys)} campaigns; give a key: {', '.join(keys)}"
        )
    tags = opened[0].data.tags
    if name == "candidates":
        return Source(tags["editloop.uri.candidates"], tags["editloop.input.candidates"])
    return Source(tags["editloop.uri.output"], tags["editloop.output.output"])

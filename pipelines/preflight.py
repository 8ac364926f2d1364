"""First step of every pipeline: check all settings, and find what the run reads.

A fault is told here, all faults at once, and not by the stage that would meet it hours later. What the form names (a
campaign, a folder of edits, a model) is looked up. Its address and digest, or its version, go to the steps.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.annotate.declaration import ANNOTATE, AnnotateParameters
from components.benchmark.declaration import BENCHMARK
from components.collect.declaration import COLLECT
from components.reward.declaration import REWARD
from editloop.errors import EditLoopError
from editloop.lineage.run_key import record_run_key
from editloop.lineage.step import PipelineRunSettings
from editloop.training.presets import load_preset
from pipelines.catalogue import Pipeline, find_pipeline, read_run_settings
from pipelines.follow_up import read_follow_up
from pipelines.form_check import check_form
from pipelines.run_inputs import Source, find_campaign_files, find_edits, pin_models, present_answers, present_champion
from pipelines.service_checks import check_services

FIRST_STEP = "preflight"
"""Name of a pipeline's first step in a profile's `stages`."""
FIRST_STEP_TITLE = "Check the settings, find the inputs"
"""Name of a pipeline's first step in KFP's graph."""


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
    """Return the outputs of a pipeline's first step, in the order of `preflight_fields`, and record the run's key.

    Args:
        name: The pipeline.
        arguments: The form's values.

    Raises:
        EditLoopError: A service refuses or is away, or a value or an input is faulty; a line for each.
    """
    checks = check_services(os.environ, own_folders=True)
    faults = [f"{check.name}: {check.state}; {check.advice}" for check in checks if not check.ok]
    if faults:  # the form cannot be checked without them
        raise _refusal(name, faults)
    plan, run_id = plan_run(name, arguments), PipelineRunSettings().pipeline_run
    if plan.run_key and run_id not in ("", plan.run_key):
        record_run_key(name, plan.run_key, run_id)
    found = [value for source in plan.sources.values() for value in (source.address, source.sha256)]
    return (*found, *plan.parameters.values())


def preflight_fields(pipeline: Pipeline) -> dict[str, type]:
    """Return the types of the first step's outputs, by name.

    Args:
        pipeline: The pipeline.
    """
    found = {f"{part.name}_{kind}": str for part in pipeline.imports for kind in ("uri", "sha256")}
    return {**found, **{step.stage.name: dict for step in pipeline.steps}}


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
    checked, faults = check_form(pipeline, arguments)
    parameters: dict[str, dict[str, Any]] = {}
    for stage, values in checked.items():
        try:
            parameters[stage] = pin_models(stage, values.model_dump(mode="json"))
        except EditLoopError as error:
            faults.append(f"{stage}: {error}")
    if isinstance(opening := checked.get(ANNOTATE.name), AnnotateParameters):
        try:
            read_follow_up(opening)
        except EditLoopError as error:
            faults.append(f"{ANNOTATE.name}: {error}")
    sources: dict[str, Source] = {}
    for part in pipeline.imports:
        try:
            sources[part.name] = _find_source(part.name, part.field, str(arguments[part.field]))
        except EditLoopError as error:
            if str(error) not in faults:
                faults.append(str(error))
    collected = parameters.get(COLLECT.name, {})
    if not faults and collected.get("answers_sha256") == "":  # as they are now: content, which a cache may compare
        collected["answers_sha256"] = present_answers(str(arguments["campaign"]))
    measured = parameters.get(BENCHMARK.name, {})
    if not faults and measured.get("champion") == "":
        measured["champion"] = present_champion(load_preset(parameters[REWARD.name]["preset"]).model)
    if faults:
        raise _refusal(name, faults)
    return RunPlan(str(settings.get("run_key", "")), sources, parameters)


def _refusal(name: str, faults: Sequence[str]) -> EditLoopError:
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return EditLoopError("\n".join([f"{name}: {count}, nothing was started.", *faults]))


def _find_source(name: str, field: str, value: str) -> Source:
    if field == "campaign":
        return find_campaign_files(name, value)
    return find_edits(field, value)

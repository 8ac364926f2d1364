"""Check a run's form against the parameters of the pipeline's stages."""

from collections.abc import Mapping
from typing import NamedTuple

from pydantic import ValidationError

from editloop.errors import EditLoopError, there_are
from editloop.lineage.stage import StageParameters
from editloop.settings_file import setting_faults, shorten
from pipelines.catalogue import Pipeline, read_run_settings


class CheckedForm(NamedTuple):
    """The stages' parameters in a form, and what is wrong with it."""

    parameters: dict[str, StageParameters]
    """By stage, for those without a fault."""
    faults: list[str]
    """A sentence for each."""


def check_form(pipeline: Pipeline, arguments: Mapping[str, object]) -> CheckedForm:
    """Check the values of a form.

    Args:
        pipeline: The pipeline.
        arguments: The form's values.

    Raises:
        EditLoopError: `settings` is no mapping.
    """
    settings = read_run_settings(arguments.get("settings", ""))
    faults = _unknown_settings(pipeline, settings)
    checked: dict[str, StageParameters] = {}
    for step in pipeline.steps:
        stage = step.stage
        names = {field: step.pipeline_name(field) for field in stage.parameters.model_fields}
        values = {field: arguments[name] for field, name in names.items() if arguments.get(name) is not None}
        if "seed" in names and "seed" in settings:
            values["seed"] = settings["seed"]
        own = settings.get(stage.name)
        values |= own if isinstance(own, dict) else {}
        try:
            parameters = stage.parameters.model_validate(values)
            parameters.check()
            checked[stage.name] = parameters
        except ValidationError as error:
            faults += [f"{stage.name}: {fault}" for fault in setting_faults(error, stage.parameters)]
        except EditLoopError as error:
            faults.append(f"{stage.name}: {error}")
    return CheckedForm(checked, faults)


def _unknown_settings(pipeline: Pipeline, settings: Mapping[str, object]) -> list[str]:
    """Return a fault for each key of `settings` that is none, and each stage's section that is no mapping."""
    stages = [step.stage.name for step in pipeline.steps]
    known = ["seed", "run_key", *stages]
    faults = [f"settings: no stage or setting {key!r}; {there_are(str(key), known)}" for key in settings.keys() - known]
    return faults + [
        f"settings.{stage}: {shorten(settings[stage])} is no mapping of parameters"
        for stage in stages
        if not isinstance(settings.get(stage, {}), dict)
    ]

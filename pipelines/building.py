"""Make KFP's pipelines of the catalogue's.

A pipeline is its first step and a nested pipeline with all others, which gets what the first step found. Importers are
in the nested one because Kubeflow's backend resolves their addresses from the inputs of the pipeline around them alone,
and starts them without waiting for a step that they depend on.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from kfp import dsl

from infra.profile import Profile
from pipelines.catalogue import Parameter, Pipeline, find_pipeline
from pipelines.deployment import deploy
from pipelines.preflight import FIRST_STEP, FIRST_STEP_TITLE, preflight_fields

NESTED_TITLE = "Steps"


def build_pipeline(name: str, profile: Profile | None = None) -> Any:
    """Return a pipeline as KFP's decorator makes it, with the form that the catalogue lists.

    Args:
        name: The pipeline's name.
        profile: What each step gets of the cluster; None for a run on this machine.

    Raises:
        EditLoopError: There is no such pipeline.
    """
    pipeline = find_pipeline(name)
    outputs = _outputs(pipeline)
    fields = preflight_fields(pipeline)
    inputs = [Parameter(field, kind, "From the first step.", is_required=True) for field, kind in fields.items()]
    nested = _kfp_pipeline(
        f"{name}-steps",
        pipeline.description,
        inputs,
        outputs,
        lambda values: outputs(**_add_steps(pipeline, values, profile)),
    )

    def add_tasks(values: Mapping[str, Any]) -> Any:
        component = getattr(import_module("pipelines.preflight_components"), f"{name.replace('-', '_')}_preflight")
        first = component(**values)
        first.set_display_name(FIRST_STEP_TITLE)
        first.set_caching_options(False)  # a campaign of the same name may have other answers by now
        if profile:
            deploy(first, FIRST_STEP, profile)
        steps = nested(**{field: first.outputs[field] for field in fields})
        steps.set_display_name(NESTED_TITLE)
        return outputs(**{output: steps.outputs[output] for output in pipeline.outputs})

    return _kfp_pipeline(name, pipeline.description, pipeline.form, outputs, add_tasks)


def _kfp_pipeline(
    name: str,
    description: str,
    parameters: Sequence[Parameter],
    outputs: Any,
    add_tasks: Callable[[Mapping[str, Any]], Any],
) -> Any:
    """Return a KFP pipeline with these parameters, whose tasks `add_tasks` adds, given the parameters by name."""

    def run(*values: Any) -> Any:
        return add_tasks(dict(zip((entry.name for entry in parameters), values, strict=True)))

    keyword, none = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.empty
    defaults = [none if entry.is_required else entry.default for entry in parameters]
    described = [
        inspect.Parameter(entry.name, keyword, annotation=entry.type, default=default)
        for entry, default in zip(parameters, defaults, strict=True)
    ]
    run.__name__ = name.replace("-", "_")
    # what inspect.signature returns
    run.__signature__ = inspect.Signature(described, return_annotation=outputs)  # type: ignore[attr-defined]
    run.__annotations__ = {entry.name: entry.type for entry in parameters} | {"return": outputs}
    arguments = "\n".join(f"    {entry.name}: {entry.help}" for entry in parameters)
    run.__doc__ = f"{description}\n\nArgs:\n{arguments}\n"
    return dsl.pipeline(name=name, description=description)(run)


def _outputs(pipeline: Pipeline) -> Any:
    """Return the NamedTuple class of a pipeline's outputs."""
    files = {
        f"{step.stage.name}.{file.artifact_name}": file.type for step in pipeline.steps for file in step.stage.outputs
    }
    fields = [(name, getattr(dsl, files[source])) for name, source in pipeline.outputs.items()]
    return NamedTuple("Outputs", fields)


def _add_steps(pipeline: Pipeline, found: Mapping[str, Any], profile: Profile | None) -> dict[str, Any]:
    """Add importers and stages, given what the first step found, and return the pipeline's outputs by name."""
    sources: dict[str, Any] = {}
    for part in pipeline.imports:
        # An importer keeps KFP's own name: consumers of a renamed one do not find its output (KFP's issue 11173).
        sources[part.name] = dsl.importer(
            artifact_uri=found[f"{part.name}_uri"],
            artifact_class=getattr(dsl, part.type),
            metadata={"sha256": found[f"{part.name}_sha256"]},
        ).output
    for step in pipeline.steps:
        stage = step.stage
        artifacts = {artifact: sources[source] for artifact, source in step.reads.items()}
        run = getattr(import_module(f"components.{stage.name}.component"), stage.name)
        task = run(**artifacts, pipeline=pipeline.name, parameters=found[stage.name])
        task.set_display_name(stage.title)
        for file in stage.outputs:
            sources[f"{stage.name}.{file.artifact_name}"] = task.outputs[file.artifact_name]
        if profile:
            deploy(task, stage.name, profile)
    return {name: sources[source] for name, source in pipeline.outputs.items()}

"""Make KFP's pipelines of the catalogue's."""

import inspect
from importlib import import_module
from typing import Any, NamedTuple

from kfp import dsl

from infra.profile import Profile
from pipelines.catalogue import Pipeline, find_pipeline
from pipelines.deployment import FIRST_STEP, deploy

FIRST_STEP_TITLE = "Check the settings, find the inputs"


def build_pipeline(name: str, profile: Profile | None = None) -> Any:
    """Return a pipeline as KFP's decorator makes it, with the form that the catalogue lists.

    Args:
        name: The pipeline's name.
        profile: What each step gets of the cluster; None for a run on this machine.

    Raises:
        EditLoopError: There is no such pipeline.
    """
    pipeline = find_pipeline(name)
    parameters = pipeline.form
    outputs = _outputs(pipeline)

    def run(*values: Any) -> Any:
        return _add_tasks(
            pipeline, dict(zip((entry.name for entry in parameters), values, strict=True)), outputs, profile
        )

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
    run.__doc__ = f"{pipeline.description}\n\nArgs:\n{arguments}\n"
    return dsl.pipeline(name=name, description=pipeline.description)(run)


def _outputs(pipeline: Pipeline) -> Any:
    """Return the NamedTuple class of a pipeline's outputs."""
    files = {
        f"{step.stage.name}.{file.artifact_name}": file.type for step in pipeline.steps for file in step.stage.outputs
    }
    fields = [(name, getattr(dsl, files[source])) for name, source in pipeline.outputs.items()]
    return NamedTuple("Outputs", fields)


def _add_tasks(pipeline: Pipeline, values: dict[str, Any], outputs: Any, profile: Profile | None) -> Any:
    """Add the tasks of a pipeline to the graph that KFP is building, and return the pipeline's outputs."""
    component = getattr(import_module("pipelines.preflight_components"), f"{pipeline.name.replace('-', '_')}_preflight")
    first = component(**values)
    first.set_display_name(FIRST_STEP_TITLE)
    first.set_caching_options(False)  # a campaign of the same name may have other answers by now
    tasks = {FIRST_STEP: first}
    sources: dict[str, Any] = {}
    for part in pipeline.imports:
        # An importer keeps KFP's own name: consumers of a renamed one do not find its output (KFP's issue 11173).
        sources[part.name] = dsl.importer(
            artifact_uri=first.outputs[f"{part.name}_uri"],
            artifact_class=getattr(dsl, part.type),
            metadata={"sha256": first.outputs[f"{part.name}_sha256"]},
        ).output
    for step in pipeline.steps:
        stage = step.stage
        artifacts = {artifact: sources[source] for artifact, source in step.reads.items()}
        run = getattr(import_module(f"components.{stage.name}.component"), stage.name)
        task = run(
            **artifacts,
            run_key=first.outputs["run_key"],
            pipeline=pipeline.name,
            parameters=first.outputs[stage.name],
        )
        task.set_display_name(stage.title)
        for file in stage.outputs:
            sources[f"{stage.name}.{file.artifact_name}"] = task.outputs[file.artifact_name]
        tasks[stage.name] = task
    if profile:
        for name, task in tasks.items():
            deploy(task, name, profile)
    return outputs(**{name: sources[source] for name, source in pipeline.outputs.items()})

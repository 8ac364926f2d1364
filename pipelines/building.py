"""Make KFP's pipelines of the catalogue's."""

import inspect
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

from kfp import dsl

from pipelines.catalogue import Pipeline, Step, find_pipeline, stage_parameters


@cache
def build_pipeline(name: str) -> Any:
    """Return a pipeline as KFP's decorator makes it, with the parameters that the catalogue lists.

    Args:
        name: The pipeline's name.

    Raises:
        EditLoopError: There is no such pipeline.
    """
    pipeline = find_pipeline(name)
    parameters = pipeline.parameters
    outputs = _outputs(pipeline)

    def run(*values: Any) -> Any:
        return _add_tasks(pipeline, dict(zip((entry.name for entry in parameters), values, strict=True)), outputs)

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


def _add_tasks(pipeline: Pipeline, values: dict[str, Any], outputs: Any) -> Any:
    """Add the tasks of a pipeline to the graph that KFP is building, and return the pipeline's outputs."""
    sources: dict[str, Any] = {}
    for part in pipeline.imports:
        task = dsl.importer(
            artifact_uri=values[f"{part.name}_uri"],
            artifact_class=getattr(dsl, part.type),
            metadata={"sha256": values[f"{part.name}_sha256"]},
        )
        task.set_display_name(part.title or part.name)
        sources[part.name] = task.output
    for step in pipeline.steps:
        task = _component(step)(**_arguments(pipeline, step, values, sources))
        for file in step.stage.outputs:
            sources[f"{step.stage.name}.{file.artifact_name}"] = task.outputs[file.artifact_name]
    return outputs(**{name: sources[source] for name, source in pipeline.outputs.items()})


def _component(step: Step) -> Any:
    module = import_module(f"components.{step.stage.name}.component")
    return getattr(module, step.stage.name)


def _arguments(pipeline: Pipeline, step: Step, values: dict[str, Any], sources: dict[str, Any]) -> dict[str, Any]:
    arguments = {artifact: sources[source] for artifact, source in step.reads.items()}
    arguments |= {
        parameter.name: values[step.pipeline_name(parameter.name)] for parameter in stage_parameters(step.stage)
    }
    if len(step.stage.pipelines) > 1:
        arguments["pipeline"] = pipeline.name
    return arguments | {"run_key": values["run_key"], "job_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER}

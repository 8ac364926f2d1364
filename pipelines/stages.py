"""Stages from the command line: `editloop stage NAME`, which `dvc repro` calls too."""

import argparse
import inspect
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from editloop.errors import EditLoopError
from editloop.lineage.step import PIPELINES, SHARED, pipelines_of, run_step

STAGES = tuple(PIPELINES)
VERSIONING = ("dataset", "curate")
"""Stages that write a `version` file; others that take one read it."""


def run_stage(name: str, texts: list[str]) -> None:
    """Run a stage with command-line options, recorded in MLflow like a pipeline's step. Prints its metrics."""
    if name == "list":
        for stage in STAGES:
            print(f"{stage:<12} {' '.join(_usage(stage))}")
        return
    if name not in STAGES:
        raise EditLoopError(f"{name}: no such stage; there are {', '.join(STAGES)}.")
    options = vars(stage_parser(name).parse_args(texts))
    outputs = outputs_of(name)
    paths = {key: value for key, value in options.items() if isinstance(value, Path)}
    run, pipeline, promotion = options.pop("run"), options.pop("pipeline", ""), paths.pop("promotion", None)
    parameters = {key: value for key, value in options.items() if not isinstance(value, Path)}
    if name == "promote":
        parameters["pipeline_run"] = run
    then: Callable[[str], dict[str, float]] | None = None
    if name == "editor_eval" and promotion is not None:
        from editloop.lineage.editor_registration import register_editor

        then = partial(register_editor, paths["output"], paths["editor"], promotion)
    metrics = run_step(
        name,
        pipeline_run=run,
        inputs={key: value for key, value in paths.items() if key not in outputs},
        outputs={key: value for key, value in paths.items() if key in outputs},
        parameters=parameters,
        pipeline=pipeline,
        then=then,
    )
    for key, value in metrics.items():
        print(f"{key:<28} {value:g}")


def outputs_of(name: str) -> tuple[str, ...]:
    """Names of a stage's parameters for the places of what it writes; every other path is read."""
    return ("output", "version") if name in VERSIONING else ("output",)


def stage_parser(name: str) -> argparse.ArgumentParser:
    """The options of a stage, from its function's signature and docstring."""
    function = _function(name)
    argument_parser = argparse.ArgumentParser(prog=f"editloop stage {name}", description=inspect.getdoc(function))
    argument_parser.add_argument("--run", default="by-hand", help="name of the run that MLflow records the step under")
    if name in SHARED:
        default_pipeline, pipelines = PIPELINES[name], pipelines_of(name)
        argument_parser.add_argument(
            "--pipeline", default=default_pipeline, choices=pipelines, help="pipeline that the step is a part of"
        )
    if name == "editor_eval":
        argument_parser.add_argument("--promotion", type=Path, help="file to write what the registry did")
    for key, parameter in inspect.signature(function).parameters.items():
        if key == "pipeline_run":
            continue
        kind: Any = parameter.annotation
        required = parameter.default is inspect.Parameter.empty
        settings: dict[str, Any] = {"required": required, "default": None if required else parameter.default}
        if kind == list[str]:
            settings |= {"nargs": "+"}
        else:
            settings |= {"type": _absolute if kind is Path else kind}
        argument_parser.add_argument(
            f"--{key.replace('_', '-')}", *([f"--{key}"] if "_" in key else []), dest=key, **settings
        )
    return argument_parser


def _function(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(import_module(f"components.{name}.stage"), f"run_{name}")
    return function


def _absolute(text: str) -> Path:
    return Path(text).absolute()


def _usage(name: str) -> list[str]:
    return [
        f"--{key.replace('_', '-')}" + ("" if parameter.default is inspect.Parameter.empty else f"={parameter.default}")
        for key, parameter in inspect.signature(_function(name)).parameters.items()
        if key != "pipeline_run"
    ]

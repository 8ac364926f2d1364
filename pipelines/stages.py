"""Run stages from the command line: `editloop stage NAME`, which `dvc repro` calls too."""

import argparse
import inspect
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from editloop.errors import EditLoopError, there_are
from editloop.lineage.step import PIPELINES, SHARED, pipelines_of, run_step
from pipelines.declarations import declared_parameters

STAGES = tuple(PIPELINES)
VERSIONING = ("dataset", "curate")
"""Stages that write a `version` file; others that take one read it."""
EXAMPLES = {"edits": "runs/demo/edits/judged", "campaign": "runs/mine/campaign", "annotators": "ada bo"}
"""Values of required parameters in examples. Paths without an entry are below runs/mine."""
WRITTEN = {
    "output": "Folder to write.",
    "version": "JSON file to write: which version the dataset repository made of it.",
}
"""Help of outputs, by parameter."""
READ = {
    "benchmark": "Folder that stage benchmark wrote.",
    "campaign": "Folder that stage annotate wrote.",
    "candidates": "Folder that stage candidates wrote.",
    "dataset": "Folder that stage dataset wrote.",
    "editor": "Folder that stage editor_sft or editor_rl wrote.",
    "edits": "An edits.jsonl, or a folder of them.",
    "judgements": "Folder that stage collect wrote, or `editloop ratings import`.",
    "model": "Folder that stage reward wrote.",
    "version": "JSON file that stage dataset or curate wrote.",
}
"""Help of inputs, by parameter. A name means the same in every stage."""


def run_stage(name: str, texts: list[str]) -> None:
    """Run a stage with command-line options, record it in MLflow as a pipeline's step, and print its metrics.

    Args:
        name: The stage; `list` prints every stage with its options instead.
        texts: The options, as on the command line.

    Raises:
        EditLoopError: There is no such stage, or the stage fails.
    """
    if name == "list":
        for stage in STAGES:
            print(f"{stage:<12} {' '.join(_usage(stage))}")
        return
    if name not in STAGES:
        raise EditLoopError(f"{name}: no such stage; {there_are(name, STAGES)}")
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
    """Return the names of a stage's parameters that are paths to write. Every other path is read.

    Args:
        name: The stage.
    """
    return ("output", "version") if name in VERSIONING else ("output",)


def stage_parser(name: str) -> argparse.ArgumentParser:
    """Return the parser of a stage's options, from its function's signature and its component's help.

    Args:
        name: The stage.
    """
    function = _function(name)
    summary = (inspect.getdoc(function) or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(
        prog=f"editloop stage {name}",
        description=" ".join(summary.split()),
        epilog=f"For example: {stage_example(name)}",
        allow_abbrev=False,
    )
    parser.add_argument("--run", default="by-hand", help="name of the run that MLflow records the step under")
    if name in SHARED:
        own, every = PIPELINES[name], pipelines_of(name)
        parser.add_argument("--pipeline", default=own, choices=every, help="pipeline that the step is a part of")
    if name == "editor_eval":
        parser.add_argument("--promotion", type=Path, help="file to write what the registry did")
    helps = _parameter_help(name)
    for key, parameter in inspect.signature(function).parameters.items():
        if key == "pipeline_run":
            continue
        kind: Any = parameter.annotation
        required = parameter.default is inspect.Parameter.empty
        text = helps.get(key, "")
        settings: dict[str, Any] = {
            "required": required,
            "default": None if required else parameter.default,
            "help": text if required else f"{text} [default: {parameter.default!r}]".replace("%", "%%"),
            "metavar": getattr(kind, "__name__", "text").upper(),
        }
        if kind == list[str]:
            settings |= {"nargs": "+", "metavar": "NAME"}
        else:
            settings |= {"type": _absolute if kind is Path else kind}
        parser.add_argument(f"--{key.replace('_', '-')}", *([f"--{key}"] if "_" in key else []), dest=key, **settings)
    return parser


def stage_example(name: str) -> str:
    """Return a command line that runs a stage, as `dvc.yaml` has it.

    Args:
        name: The stage.
    """
    required = [
        key
        for key, parameter in inspect.signature(_function(name)).parameters.items()
        if parameter.default is inspect.Parameter.empty and key != "pipeline_run"
    ]
    options = " ".join(f"--{key.replace('_', '-')} {EXAMPLES.get(key, f'runs/mine/{key}')}" for key in required)
    return f"editloop stage {name} --run mine {options}"


def _parameter_help(name: str) -> dict[str, str]:
    """Return help by parameter: for values from the component's docstring, for paths from WRITTEN and READ."""
    import components

    source = Path(str(components.__file__)).parent / name / "component.py"
    declared = {key: parameter.help for key, parameter in declared_parameters(source, name).items()}
    if name == "annotate":
        declared["campaign"] = declared["name"]
    outputs = outputs_of(name)
    for key, parameter in inspect.signature(_function(name)).parameters.items():
        if parameter.annotation is Path:
            written = WRITTEN.get(key) if key in outputs else None
            declared[key] = written or declared.get(key) or READ.get(key, "")
    return declared


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

"""Run stages from the command line: `editloop stage NAME`, which `dvc repro` calls too."""

import argparse
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from components.annotate.declaration import AnnotateParameters
from editloop.errors import EditLoopError, there_are
from editloop.lineage.stage import Stage
from editloop.lineage.step import run_step, validate_parameters
from pipelines.catalogue import STAGES, stage_parameters
from pipelines.follow_up import read_follow_up

EXAMPLES = {
    "annotators": "ada bo",
    "campaign": "runs/mine/annotate",
    "curated": "runs/mine/curate",
    "edits": "runs/demo/edits/judged",
    "heldout": "runs/demo/edits/heldout",
    "judgements": "runs/mine/collect",
    "model": "runs/mine/reward",
    "name": "mine",
    "noisy": "runs/demo/edits/judged",
    "prompts": "runs/demo/edits/prompts",
    "tuned": "runs/mine/editor_rl",
    "version": "runs/mine/version.json",
}
"""Values of required parameters and paths of artifacts in examples. Other paths are below runs/mine, under the name of
the artifact, or of the stage that writes it."""


def run_stage(name: str, texts: list[str]) -> None:
    """Run a stage with command-line options, record it in MLflow as a pipeline's step, and print its metrics.

    Args:
        name: The stage; `list` prints every stage with its options instead.
        texts: The options, as on the command line.

    Raises:
        EditLoopError: There is no such stage, or the stage fails.
    """
    if name == "list":
        for stage in STAGES.values():
            print(f"{stage.name:<12} {' '.join(_usage(stage))}")
        return
    if name not in STAGES:
        raise EditLoopError(f"{name}: no such stage; {there_are(name, STAGES)}")
    stage = STAGES[name]
    options = vars(stage_parser(stage).parse_args(texts))
    run, pipeline = options.pop("run"), options.pop("pipeline", "")
    parameters = {key: options[key] for key in stage.parameters.model_fields}
    if isinstance(opening := validate_parameters(stage, parameters), AnnotateParameters):
        read_follow_up(opening)
    metrics = run_step(
        stage,
        pipeline_run=run,
        inputs={file.argument: options[file.argument] for file in stage.inputs},
        outputs={file.argument: options[file.argument] for file in stage.outputs if options[file.argument]},
        parameters=parameters,
        pipeline=pipeline,
    )
    for key, value in metrics.items():
        print(f"{key:<28} {value:g}")


def stage_parser(stage: Stage) -> argparse.ArgumentParser:
    """Return the parser of a stage's options.

    Args:
        stage: The stage.
    """
    parser = argparse.ArgumentParser(
        prog=f"editloop stage {stage.name}",
        description=stage.summary,
        epilog=f"For example: {stage_example(stage)}",
        allow_abbrev=False,
    )
    parser.add_argument("--run", default="by-hand", help="name of the run that MLflow records the step under")
    if len(stage.pipelines) > 1:
        parser.add_argument(
            "--pipeline",
            default=stage.pipelines[0],
            choices=stage.pipelines,
            help="pipeline that the step is a part of",
        )
    for file in (*stage.inputs, *stage.outputs):
        parser.add_argument(
            f"--{file.argument}", required=not file.is_optional, type=_absolute, metavar="PATH", help=_plain(file.help)
        )
    for entry in stage_parameters(stage):
        settings: dict[str, Any] = {"required": entry.is_required, "default": entry.default, "help": _plain(entry.help)}
        if not entry.is_required:
            settings["help"] += f" [default: {_plain(repr(entry.default))}]"
        if entry.type is list:
            settings |= {"nargs": "+", "metavar": "NAME"}
        elif choices := _choices(stage, entry.name):
            settings["choices"] = choices
        else:
            settings |= {"type": entry.type, "metavar": entry.type.__name__.upper()}
        option = entry.name.replace("_", "-")
        parser.add_argument(f"--{option}", *([f"--{entry.name}"] if "_" in entry.name else []), **settings)
    return parser


def stage_example(stage: Stage) -> str:
    """Return a command line that runs a stage, as `dvc.yaml` has it.

    Args:
        stage: The stage.
    """
    values = {
        file.argument: EXAMPLES.get(file.artifact_name, f"runs/mine/{file.artifact_name}") for file in stage.inputs
    }
    for file in stage.outputs:
        if not file.is_optional:
            values[file.argument] = EXAMPLES["version"] if file.argument == "version" else f"runs/mine/{stage.name}"
    values |= {entry.name: EXAMPLES[entry.name] for entry in stage_parameters(stage) if entry.is_required}
    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in values.items())
    return f"editloop stage {stage.name} --run mine {options}"


def _usage(stage: Stage) -> list[str]:
    return [f"--{file.argument}" for file in (*stage.inputs, *stage.outputs)] + [
        f"--{entry.name.replace('_', '-')}" + ("" if entry.is_required else f"={entry.default}")
        for entry in stage_parameters(stage)
    ]


def _choices(stage: Stage, parameter: str) -> tuple[str, ...]:
    """Return the values that a parameter may have; empty where it is free."""
    annotation = stage.parameters.model_fields[parameter].annotation
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _plain(text: str) -> str:
    """Return help in which argparse sees no format."""
    return text.replace("%", "%%")


def _absolute(text: str) -> Path:
    return Path(text).absolute()

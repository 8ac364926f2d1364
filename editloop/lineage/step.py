"""One step of a pipeline run: call a stage, and record its inputs and results in MLflow.

KFP components, `editloop stage` and `dvc repro` all call `run_step`, so each of them leaves the same record.
"""

import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from editloop.content import MANIFEST, write_json
from editloop.environment import EnvironmentSettings
from editloop.errors import EditLoopError
from editloop.lineage import tracking
from editloop.lineage.gate_decision import read_decision
from editloop.lineage.mlflow_errors import mlflow_errors_in_one_line
from editloop.lineage.run_inputs import describe_verdict, log_dataset
from editloop.lineage.run_key import find_run_key
from editloop.lineage.stage import Stage, StageParameters
from editloop.lineage.stage_inputs import check_stage_input
from editloop.lineage.step_page import step_page
from editloop.lineage.stored_folders import Artifact, opened_inputs, replace_by_pointer, store_outputs, stored_addresses
from editloop.logs import log_to_stderr
from editloop.processes import end_with_supervisor
from editloop.settings_file import validate_settings

FAILURE_PREFIX = "editloop: "
"""How the last line of a failed step's log begins."""
TRACEBACK_CALLS = 6
"""Innermost calls that the log shows of an unexpected error."""
LOGGED_SUFFIXES = (".json", ".jsonl", ".html", ".md", ".png")


class PipelineRunSettings(EnvironmentSettings):
    """The pipeline run that a step belongs to."""

    pipeline_run: str = ""
    """Id of the run, by which its key is found; it names the run in MLflow where it has none. Neither is a parameter of
    the step, because KFP's cache would never hit then."""


def run_step(
    stage: Stage,
    *,
    pipeline_run: str,
    inputs: Mapping[str, Path | Artifact],
    outputs: Mapping[str, Path | Artifact],
    parameters: Mapping[str, Any],
    pipeline: str = "",
    tags: Mapping[str, str] | None = None,
    metrics: Any = None,
    page: Artifact | None = None,
) -> dict[str, float]:
    """Call a stage's function with the inputs, outputs and parameters.

    Args:
        stage: The stage.
        pipeline_run: Name of the pipeline run, which groups its steps in MLflow.
        inputs: Paths or KFP artifacts, by the stage's argument.
        outputs: Where the stage writes, likewise. A KFP artifact gets the sha256 of its content as metadata, so that
            KFP's cache compares content.
        parameters: Values of the stage's parameters; those that are missing have their defaults.
        pipeline: Name of the pipeline, for a stage that is part of several; empty means its first one.
        tags: Further tags of the MLflow run, without the prefix "editloop.".
        metrics: KFP's metrics artifact to fill; None for none.
        page: KFP's HTML artifact, which gets the step's page; None for none.

    Returns:
        The stage's metrics by name.

    Raises:
        EditLoopError: The stage is not part of `pipeline`, a parameter is not valid, or an input is missing, of
            another kind, or changed since it was written. Nothing is recorded then.
    """
    pipeline = pipeline or stage.pipelines[0]
    if pipeline not in stage.pipelines:
        raise EditLoopError(f"{stage.name} is no part of pipeline {pipeline}, but of {', '.join(stage.pipelines)}.")
    values = validate_parameters(stage, parameters)
    log_to_stderr()
    end_with_supervisor()
    targets = {name: value if isinstance(value, Path) else Path(value.path) for name, value in outputs.items()}
    recorded = values.model_dump(mode="json", exclude=set(stage.tags))
    with ExitStack() as stack:
        sources = stack.enter_context(opened_inputs(stage, inputs))
        for file in stage.inputs:
            check_stage_input(stage.name, file, sources[file.argument])
        run = stack.enter_context(tracking.stage_run(stage.name, pipeline, pipeline_run, sources, recorded))
        if stage.dataset_use and "dataset" in sources:
            log_dataset(run.run_id, sources["dataset"], stage.dataset_use)
        run_name = {"pipeline_run": pipeline_run} if stage.takes_run else {}
        results = stage.function(**sources, **targets, parameters=values, **run_name)
        if (gate := targets["output"] / "gate.json").is_file():
            describe_verdict(run.run_id, read_decision(gate))
        produced = targets | {part: targets["output"] / part for part in stage.parts}
        artifacts, stored = {**inputs, **outputs}, store_outputs(outputs)
        addresses = {f"uri.{name}": value.uri for name, value in artifacts.items() if not isinstance(value, Path)}
        addresses |= {f"object.{name}": address for name, address in (stored_addresses(inputs) | stored).items()}
        stage_tags = {name: str(getattr(values, name)) for name in stage.tags}
        run.finish(results, produced, tags=addresses | stage_tags | dict(tags or {}), files=_logged_files(targets))
    for name, value in outputs.items():
        if not isinstance(value, Path):
            value.metadata["sha256"] = tracking.digest(targets[name])
    if metrics is not None:
        for name, number in results.items():
            metrics.log_metric(name, number)
        write_json(Path(metrics.path), results)  # kfp.local counts a step without this file as unfinished
    if page is not None:
        Path(page.path).write_text(step_page(stage, targets["output"], results, run.run_id))
    for name, address in stored.items():
        replace_by_pointer(targets[name], address)
    return results


def validate_parameters(stage: Stage, values: Mapping[str, Any]) -> StageParameters:
    """Return a stage's parameters.

    Args:
        stage: The stage.
        values: Values by parameter; those that are missing have their defaults.

    Raises:
        EditLoopError: A parameter is not valid; one line that names every fault.
    """
    advice = f"`editloop stage {stage.name} --help` explains."
    return validate_settings(stage.parameters, dict(values), f"stage {stage.name}", advice)


def run_component(stage: Stage, arguments: Mapping[str, Any]) -> None:
    """Run a stage as a step of a KFP pipeline.

    Args:
        stage: The stage.
        arguments: Everything that KFP passes to the stage's component, by name.
    """
    with end_in_one_line():
        run_id = PipelineRunSettings().pipeline_run
        run_step(
            stage,
            pipeline_run=find_run_key(run_id) if run_id else "by-hand",
            inputs={file.argument: arguments[file.artifact_name] for file in stage.inputs},
            outputs={file.argument: arguments[file.artifact_name] for file in stage.outputs},
            parameters=arguments["parameters"],
            pipeline=arguments["pipeline"],
            metrics=arguments["metrics"],
            page=arguments["page"],
        )


@contextmanager
def end_in_one_line() -> Iterator[None]:
    """End the process with status 1 where the block fails, with the reason as the last line of its log.

    People look for the reason at the end of a log. A mistake of theirs needs no traceback, and of one that is not
    theirs the last calls are enough.
    """
    try:
        with mlflow_errors_in_one_line():
            yield
    except EditLoopError as error:
        raise SystemExit(f"{FAILURE_PREFIX}{error}") from None
    except KeyboardInterrupt:
        raise SystemExit(f"{FAILURE_PREFIX}stopped; a retry goes on at the last checkpoint") from None
    except Exception as error:
        traceback.print_exception(error, limit=-TRACEBACK_CALLS, chain=False)
        raise SystemExit(f"{FAILURE_PREFIX}{type(error).__name__}: {error}") from None


def _logged_files(targets: dict[str, Path]) -> list[Path]:
    """The small, readable files at the top of the outputs, for the people who open the run in MLflow."""
    files = [
        path for target in targets.values() for path in (sorted(target.iterdir()) if target.is_dir() else [target])
    ]
    return [path for path in files if path.suffix in LOGGED_SUFFIXES and path.name != MANIFEST]

"""One step of a pipeline run: call a stage, and record its inputs and results in MLflow.

KFP components, `editloop stage` and `dvc repro` all call `run_step`, so each of them leaves the same record.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from editloop.content import MANIFEST, write_json
from editloop.errors import EditLoopError
from editloop.lineage import tracking
from editloop.lineage.run_inputs import describe_verdict, log_dataset
from editloop.lineage.stage_inputs import check_stage_input
from editloop.logs import log_to_stderr
from editloop.processes import end_with_supervisor

PIPELINES = {
    "candidates": "collect-preferences",
    "annotate": "collect-preferences",
    "collect": "train-reward",
    "dataset": "train-reward",
    "reward": "train-reward",
    "benchmark": "train-reward",
    "promote": "train-reward",
    "curate": "curate-editor",
    "editor_sft": "curate-editor",
    "editor_rl": "improve-editor",
    "editor_eval": "improve-editor",
}
"""The pipeline of each stage, in the loop's order."""
SHARED = {"editor_eval": ("curate-editor",)}
"""Further pipelines that contain a stage."""
PARTS = {"editor_rl": ("editor",), "editor_sft": ("editor",)}
"""Folders inside a stage's output that are registered on their own, so their sha256 is recorded too."""
USES = {"reward": "training", "benchmark": "evaluation", "promote": "evaluation"}
"""What a stage uses its dataset for, by stage, as MLflow's pages show it."""
LOGGED_SUFFIXES = (".json", ".jsonl", ".html", ".md", ".png")


class Artifact(Protocol):
    """The part of a KFP artifact that this module uses."""

    path: str
    uri: str
    metadata: dict[str, Any]


def run_step(
    stage: str,
    *,
    pipeline_run: str,
    inputs: Mapping[str, Path | Artifact],
    outputs: Mapping[str, Path | Artifact],
    parameters: dict[str, Any],
    pipeline: str = "",
    tags: Mapping[str, str] | None = None,
    metrics: Any = None,
    page: Artifact | None = None,
    then: Callable[[str], dict[str, float]] | None = None,
) -> dict[str, float]:
    """Call `run_STAGE` of `components.STAGE.stage` with the inputs, outputs and parameters as keyword arguments.

    Args:
        stage: Name of the stage.
        pipeline_run: Name of the pipeline run, which groups its steps in MLflow.
        inputs: Paths or KFP artifacts, by the stage's parameter names.
        outputs: Where the stage writes, likewise; "output" must be among them. A KFP artifact gets the sha256 of its
            content as metadata, so that KFP's cache compares content.
        parameters: The stage's other arguments.
        pipeline: Name of the pipeline, for a stage that is part of several; empty means its first one.
        tags: Further tags of the MLflow run, without the prefix "editloop.".
        metrics: KFP's metrics artifact to fill; None for none.
        page: KFP's HTML artifact, which gets a copy of the output's page.html; None for none.
        then: Called after the stage, within the step, with the pipeline run's name. The figures it returns join the
            stage's. None for none.

    Returns:
        The stage's metrics by name.

    Raises:
        EditLoopError: The stage is not part of `pipeline`, or an input is missing or of another kind. Nothing is
            recorded then.
    """
    if pipeline and pipeline not in pipelines_of(stage):
        raise EditLoopError(f"{stage} is no part of pipeline {pipeline}, but of {', '.join(pipelines_of(stage))}.")
    log_to_stderr()
    end_with_supervisor()
    sources = {name: _path(value) for name, value in inputs.items()}
    for name, path in sources.items():
        check_stage_input(stage, name, path)
    targets = {name: _path(value) for name, value in outputs.items()}
    function = getattr(import_module(f"components.{stage}.stage"), f"run_{stage}")
    with tracking.stage_run(stage, pipeline or PIPELINES[stage], pipeline_run, sources, parameters) as run:
        if (use := USES.get(stage)) and "dataset" in sources:
            log_dataset(run.run_id, sources["dataset"], use)
        results: dict[str, float] = function(**sources, **targets, **parameters)
        if (targets["output"] / "gate.json").is_file():
            describe_verdict(run.run_id, json.loads((targets["output"] / "gate.json").read_text()))
        if then:
            results |= then(pipeline_run)
        produced = targets | {part: targets["output"] / part for part in PARTS.get(stage, ())}
        artifacts = {**inputs, **outputs}
        addresses = {f"uri.{name}": value.uri for name, value in artifacts.items() if not isinstance(value, Path)}
        run.finish(results, produced, tags=addresses | dict(tags or {}), files=_logged_files(targets))
    for name, value in outputs.items():
        if not isinstance(value, Path):
            value.metadata["sha256"] = tracking.digest(targets[name])
    if metrics is not None:
        for name, number in results.items():
            metrics.log_metric(name, number)
        write_json(Path(metrics.path), results)  # kfp.local counts a step without this file as unfinished
    if page is not None:
        shutil.copyfile(targets["output"] / "page.html", page.path)
    return results


def pipelines_of(stage: str) -> tuple[str, ...]:
    """Return the pipelines that contain a stage, its main one first.

    Args:
        stage: Name of the stage.
    """
    return PIPELINES[stage], *SHARED.get(stage, ())


def _path(value: Path | Artifact) -> Path:
    return value if isinstance(value, Path) else Path(value.path)


def _logged_files(targets: dict[str, Path]) -> list[Path]:
    """The small, readable files at the top of the outputs, for the people who open the run in MLflow."""
    files = [
        path for target in targets.values() for path in (sorted(target.iterdir()) if target.is_dir() else [target])
    ]
    return [path for path in files if path.suffix in LOGGED_SUFFIXES and path.name != MANIFEST]

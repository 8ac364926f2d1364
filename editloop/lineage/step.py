"""One step of a pipeline run: a stage called between what MLflow records before and after it.

KFP components, `editloop stage` and `dvc repro` all come through here, so a stage leaves the same trace from each.
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
"""Every stage, in the loop's order, and the pipeline that it is a part of."""
SHARED = {"editor_eval": ("curate-editor",)}
"""Stages that are a part of further pipelines too."""
PARTS = {"editor_rl": ("editor",), "editor_sft": ("editor",)}
"""Folders inside a stage's output that are registered on their own, so that their content has an address too."""
USES = {"reward": "training", "benchmark": "evaluation", "promote": "evaluation"}
"""Stages that read a dataset, and what for, as MLflow's pages say it."""
LOGGED_SUFFIXES = (".json", ".jsonl", ".html", ".md", ".png")


class Artifact(Protocol):
    """What this module uses of a KFP artifact."""

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
    """Call `components.STAGE.stage.STAGE` with the paths and parameters as keyword arguments; returns its metrics.

    `pipeline`, where the stage is a part of several, is another one than its first. `tags` are kept with the MLflow
    run. Output artifacts get their sha256 as metadata, which makes KFP's cache see content; `metrics` and `page` are
    KFP's UI artifacts, filled when given. `then` runs after the stage as a part of the step, with the pipeline run's
    name. EditLoopError for a pipeline that the stage is no part of, and for an input that is not there or not of its
    kind, before anything is recorded.
    """
    if pipeline and pipeline not in pipelines_of(stage):
        raise EditLoopError(f"{stage} is no part of pipeline {pipeline}, but of {', '.join(pipelines_of(stage))}.")
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
        write_json(Path(metrics.path), results)  # kfp.local takes a step without its output files for unfinished
    if page is not None:
        shutil.copyfile(targets["output"] / "page.html", page.path)
    return results


def pipelines_of(stage: str) -> tuple[str, ...]:
    """The pipelines that a stage is a part of, its own first."""
    return PIPELINES[stage], *SHARED.get(stage, ())


def _path(value: Path | Artifact) -> Path:
    return value if isinstance(value, Path) else Path(value.path)


def _logged_files(targets: dict[str, Path]) -> list[Path]:
    """The small readable files at the top of the outputs: what a person opens a run for."""
    files = [
        path for target in targets.values() for path in (sorted(target.iterdir()) if target.is_dir() else [target])
    ]
    return [path for path in files if path.suffix in LOGGED_SUFFIXES and path.name != MANIFEST]

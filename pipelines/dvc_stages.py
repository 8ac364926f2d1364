"""Make dvc.yaml of the catalogue: the pipelines as one graph of commands, from edits to the gates."""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from editloop.settings_file import read_yaml
from pipelines.catalogue import PIPELINES, Pipeline, Step
from pipelines.settings import PARAMS

FOLDER = "runs/dvc"
"""Folder of everything that `dvc repro` writes. Its name is that of the run in MLflow, too."""
EDITS = "runs/demo/edits"
"""Folder with the edits folders that `make demo` draws or splits."""
SOURCES = {
    "collect-preferences": {"edits": f"{EDITS}/judged"},
    "train-reward": {"candidates": f"{FOLDER}/candidates", "campaign": f"{FOLDER}/annotate"},
    "curate-editor": {"edits": f"{EDITS}/judged", "heldout": f"{EDITS}/heldout"},
    "learn-from-pairs": {
        "candidates": f"{FOLDER}/candidates",
        "campaign": f"{FOLDER}/annotate",
        "heldout": f"{EDITS}/heldout",
    },
    "improve-editor": {"prompts": f"{EDITS}/prompts", "heldout": f"{EDITS}/heldout"},
}
"""Where each pipeline's imports are, by pipeline and import."""
NEEDS_CHAMPION = ("curate", "editor_rl")
"""Stages that take the reward model from the registry, by its alias: they wait for the promotion."""


@dataclass(frozen=True)
class DvcStage:
    """A stage of dvc.yaml."""

    name: str
    command: str
    deps: list[str]
    params: list[str]
    outs: list[str]
    needs_champion: bool


def dvc_stages() -> Iterator[DvcStage]:
    """Yield the stages of dvc.yaml, in the loop's order."""
    names: set[str] = set()
    for pipeline in PIPELINES.values():
        paths = dict(SOURCES[pipeline.name])
        for step in pipeline.steps:
            name = step.stage.name
            if len(step.stage.pipelines) > 1 and pipeline.name != step.stage.pipelines[0]:
                name = f"{name}_of_{pipeline.name.replace('-', '_')}"
            assert name not in names, f"two stages of dvc.yaml are called {name}"
            names.add(name)
            outputs = {
                file.argument: f"{FOLDER}/{name}" + ("" if file.argument == "output" else f"-{file.argument}.json")
                for file in step.stage.outputs
            }
            yield _dvc_stage(pipeline, step, name, paths, outputs)
            for file in step.stage.outputs:
                paths[f"{step.stage.name}.{file.artifact_name}"] = outputs[file.argument]


def _dvc_stage(pipeline: Pipeline, step: Step, name: str, paths: dict[str, str], outputs: dict[str, str]) -> DvcStage:
    """Return a step as a stage of dvc.yaml, with its values from params.yaml."""
    stage, sections = step.stage, read_yaml(PARAMS)
    inputs = {file.argument: paths[step.reads[file.artifact_name]] for file in stage.inputs}
    words = [f"editloop stage {stage.name}"]
    if pipeline.name != stage.pipelines[0]:
        words.append(f"--pipeline {pipeline.name}")
    words.append(f"--run {Path(FOLDER).name}")
    words += [f"--{argument.replace('_', '-')} {path}" for argument, path in (inputs | outputs).items()]
    params = []
    if stage.name in sections:
        words.append(f"${{{stage.name}}}")
        params.append(stage.name)
    for parameter, shared in step.named.items():
        owner, owned = pipeline.owners(shared)[0]
        if owner != stage.name and owner in sections:
            words.append(f"--{parameter} ${{{owner}.{owned}}}")
            params.append(f"{owner}.{owned}")
    if "seed" in stage.parameters.model_fields:
        words.append("--seed ${seed}")
        params.append("seed")
    champion = [f"{FOLDER}/promote"] if stage.name in NEEDS_CHAMPION else []
    return DvcStage(
        name, " ".join(words), [*inputs.values(), *champion], params, list(outputs.values()), bool(champion)
    )


def wrapped(command: str) -> str:
    """Break a command into lines of a YAML scalar; options stay with their values.

    Args:
        command: The command.
    """
    joined = command.replace(" --", "\n--").split("\n")
    glued = " ".join(part.replace(" ", "\0") for part in joined)
    lines = textwrap.wrap(glued, 112, break_long_words=False, break_on_hyphens=False)
    return "\n      ".join(lines).replace("\0", " ")

"""Compile pipelines to KFP's YAML for a deployment profile. Those in `pipelines/compiled/` are the example's."""

from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from editloop.errors import EditLoopError, there_are
from infra.profile import Profile, read_profile
from pipelines.catalogue import PIPELINES, STAGES, find_pipeline
from pipelines.preflight import FIRST_STEP, FIRST_STEP_TITLE

COMPILED = Path(__file__).parent / "compiled"
EXAMPLE_PROFILE = "example"
"""Name of the shipped profile that the committed files are for."""


def read_deployment(name: str) -> Profile:
    """Read a deployment profile, and check that the stages that it names are stages.

    Args:
        name: The name of a shipped profile, or the path of a YAML file.

    Raises:
        EditLoopError: There is no such profile, or it is not valid.
    """
    profile = read_profile(name)
    stages = (FIRST_STEP, *STAGES)
    for stage in profile.stages:
        if stage not in stages:
            raise EditLoopError(f"profile {name}: stages.{stage}: no such stage; {there_are(stage, stages)}")
    return profile


def show_parameters(name: str) -> None:
    """Print a table of a pipeline's parameters: type, default and help.

    Args:
        name: The pipeline.

    Raises:
        EditLoopError: There is no such pipeline.
    """
    from rich.table import Table

    from editloop.terminal import text_console

    parameters = find_pipeline(name).form
    table = Table("--set", "type", "default", "what it is", title=f"Parameters of {name}", title_justify="left")
    for entry in parameters:
        default = "required" if entry.is_required else repr(entry.default)
        table.add_row(entry.name, ", ".join(entry.choices) or entry.type.__name__, default, entry.help)
    text_console().print(table)


def compile_pipelines(out: Path, profile: Profile) -> list[Path]:
    """Write `<pipeline>.yaml` of every pipeline, and return the paths.

    Args:
        out: Folder to write; it is created where it is missing.
        profile: The deployment profile.
    """
    out.mkdir(parents=True, exist_ok=True)
    return [compile_pipeline(name, out / f"{name}.yaml", profile) for name in PIPELINES]


def compile_pipeline(name: str, path: Path, profile: Profile) -> Path:
    """Write a pipeline as KFP's YAML, and return the path.

    The bytes depend on the sources and the profile alone, not on the environment.

    Args:
        name: The pipeline.
        path: File to write.
        profile: The deployment profile.

    Raises:
        EditLoopError: There is no such pipeline.
    """
    from kfp import compiler

    from pipelines.building import build_pipeline

    compiler.Compiler().compile(build_pipeline(name, profile), str(path))
    compiled = path.read_text()
    header = takewhile(lambda line: line.startswith("#"), compiled.splitlines(keepends=True))
    spec, *platforms = yaml.safe_load_all(compiled)
    # What kfp itself writes for caching depends on the variable KFP_DISABLE_EXECUTION_CACHING_BY_DEFAULT.
    for part in (spec["root"], *spec["components"].values()):
        for task in part.get("dag", {}).get("tasks", {}).values():
            is_first = task["taskInfo"]["name"] == FIRST_STEP_TITLE
            task["cachingOptions"] = {} if is_first else {"enableCache": True}
    spec["defaultPipelineRoot"] = profile.storage.pipeline_root
    _add_choices(spec["root"]["inputDefinitions"]["parameters"], name)
    path.write_text("".join(header) + yaml.safe_dump_all([spec, *platforms]))
    return path


def _add_choices(parameters: dict[str, Any], name: str) -> None:
    """Make drop-downs of the form's fields with choices. KFP's UI shows them; its SDK cannot write them."""
    for entry in find_pipeline(name).form:
        if entry.choices:
            parameters[entry.name]["literals"] = list(entry.choices)

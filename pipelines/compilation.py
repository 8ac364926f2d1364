"""Compile pipelines to KFP's YAML. A cluster gets the committed files in `pipelines/compiled/`."""

from itertools import takewhile
from pathlib import Path

import yaml

from infra.launch import LaunchSettings
from pipelines.catalogue import PIPELINES, find_pipeline

COMPILED = Path(__file__).parent / "compiled"


def show_parameters(name: str) -> None:
    """Print a table of a pipeline's parameters: type, default and help.

    Args:
        name: The pipeline.

    Raises:
        EditLoopError: There is no such pipeline.
    """
    from rich.console import Console
    from rich.table import Table

    parameters = find_pipeline(name).parameters
    table = Table("--set", "type", "default", "what it is", title=f"Parameters of {name}", title_justify="left")
    for entry in parameters:
        default = "required" if entry.is_required else repr(entry.default)
        table.add_row(entry.name, entry.type.__name__, default, entry.help)
    Console().print(table)


def compile_pipelines(out: Path, image: str | None = None) -> list[Path]:
    """Write `<pipeline>.yaml` of every pipeline, and return the paths.

    Args:
        out: Folder to write; it is created where it is missing.
        image: Container image of the steps, and of the TrainJobs that they start; None for `DEFAULT_IMAGE`.
    """
    out.mkdir(parents=True, exist_ok=True)
    return [compile_pipeline(name, out / f"{name}.yaml", image) for name in PIPELINES]


def compile_pipeline(name: str, path: Path, image: str | None = None) -> Path:
    """Write a pipeline as KFP's YAML, and return the path.

    The bytes depend on the sources and `image` alone, not on the environment.

    Args:
        name: The pipeline.
        path: File to write.
        image: Container image of the steps, and of the TrainJobs that they start; None for `DEFAULT_IMAGE`.

    Raises:
        EditLoopError: There is no such pipeline.
    """
    from kfp import compiler

    from pipelines.building import build_pipeline

    compiler.Compiler().compile(build_pipeline(name), str(path))
    path.write_text(_without_environment(path.read_text(), image))
    return path


def _without_environment(compiled: str, image: str | None) -> str:
    """Return KFP's YAML with caching on in every task, and with another image where one is given.

    What kfp itself writes for caching depends on the variable KFP_DISABLE_EXECUTION_CACHING_BY_DEFAULT.
    """
    header = takewhile(lambda line: line.startswith("#"), compiled.splitlines(keepends=True))
    spec, *platforms = yaml.safe_load_all(compiled)
    dags = [part["dag"] for part in (spec["root"], *spec["components"].values()) if "dag" in part]
    for dag in dags:
        for task in dag["tasks"].values():
            task["cachingOptions"] = {"enableCache": True}
    if image:
        for executor in spec["deploymentSpec"]["executors"].values():
            if container := executor.get("container"):  # an importer has none
                container["image"] = image
                container["env"] = [{"name": LaunchSettings.variable("image"), "value": image}]
    return "".join(header) + yaml.safe_dump_all([spec, *platforms])

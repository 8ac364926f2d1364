"""Pipelines to KFP's own YAML. The committed files in `pipelines/compiled/` are what a cluster gets."""

from pathlib import Path
from types import ModuleType
from typing import Any

from infra.errors import EditLoopError

NAMES = ("collect-preferences", "train-reward", "curate-editor", "improve-editor")
COMPILED = Path(__file__).parent / "compiled"


def pipeline(name: str) -> Any:
    """The pipeline function of this name."""
    from importlib import import_module

    if name not in NAMES:
        raise EditLoopError(f"{name}: no such pipeline; there are {', '.join(NAMES)}.")
    module: ModuleType = import_module(f"pipelines.{name.replace('-', '_')}")
    return getattr(module, name.replace("-", "_"))


def compile_pipelines(out: Path) -> list[Path]:
    """Write `<pipeline>.yaml` of every pipeline into `out`; the same sources give the same bytes."""
    from kfp import compiler

    out.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        compiler.Compiler().compile(pipeline(name), str(out / f"{name}.yaml"))
    return [out / f"{name}.yaml" for name in NAMES]

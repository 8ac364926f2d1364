"""The import linter holds what its contracts are called: every planted violation is found, and so is each layer's."""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

TOP = Path(__file__).parents[2]
ROOMS = ("infra", "annotation", "components", "pipelines")
ONE_WAY = "Rooms import one way"
KFP = "kfp stays in the component files and the pipelines"
COMPONENT_FILES = "Component files are for pipelines alone"
TORCH = "What experts see, what starts a training and every settings module need no torch"
HEADING = "Broken contracts"


class Plant(NamedTuple):
    """An import that a contract forbids."""

    contract: str
    module: str
    imported: str

    def __str__(self) -> str:
        return f"{self.module} -> {self.imported}"


def modules(pattern: str) -> list[str]:
    return [".".join(path.relative_to(TOP).with_suffix("").parts) for path in sorted(TOP.glob(pattern))]


PLANTS = [
    *(Plant(KFP, module, "kfp") for module in modules("components/*/stage.py")),
    *(Plant(KFP, module, "kfp") for module in ("infra.launch", "annotation.selection", "components.step")),
    *(Plant(COMPONENT_FILES, f"components.{name}", "components.reward.component") for name in ("step", "curate.page")),
    *(Plant(TORCH, module, "torch") for module in modules("components/*/settings.py")),
    *(Plant(TORCH, module, "torch") for module in ("infra.settings", "pipelines.settings", "annotation.vocabulary")),
    *(
        Plant(TORCH, module, "torch")
        for module in ("components.training.job", "annotation.campaigns.campaign_settings")
    ),
    *(Plant(TORCH, "infra.content", package) for package in ("deepspeed", "diffusers", "transformers")),
    Plant(ONE_WAY, "infra.errors", "annotation.vocabulary"),
    Plant(ONE_WAY, "infra.patience", "components.unfinished"),
    Plant(ONE_WAY, "infra.signing", "pipelines.settings"),
    Plant(ONE_WAY, "annotation.quality.quality", "components.unfinished"),
    Plant(ONE_WAY, "annotation.quality.agreement", "pipelines.settings"),
    Plant(ONE_WAY, "components.unfinished", "pipelines.settings"),
]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """What the linter says of each contract over a copy of the sources with every plant in it, inside a function each,
    where imports hide most easily."""
    folder = tmp_path_factory.mktemp("planted")
    for room in ROOMS:
        shutil.copytree(TOP / room, folder / room, ignore=lambda _, names: [n for n in names if _is_data(n)])
    shutil.copy(TOP / "pyproject.toml", folder)
    for number, plant in enumerate(PLANTS):
        path = folder.joinpath(*plant.module.split(".")).with_suffix(".py")
        with path.open("a") as source:
            source.write(f"\n\ndef planted_{number}():\n    import {plant.imported}\n")
    call = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", call, "--no-cache"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    _, _, report = done.stdout.partition(f"{HEADING}\n")
    starts = {name: report.find(f"{name}\n---") for name in contracts()}
    ends = sorted([*starts.values(), len(report)])
    return {name: report[start : ends[ends.index(start) + 1]] for name, start in starts.items() if start >= 0}


def _is_data(name: str) -> bool:
    return name in ("weights", "__pycache__") or ("." in name and not name.endswith(".py"))


def contracts() -> list[str]:
    config = tomllib.loads((TOP / "pyproject.toml").read_text())
    return [contract["name"] for contract in config["tool"]["importlinter"]["contracts"]]


def test_every_contract_has_a_plant_of_its_own() -> None:
    assert set(contracts()) == {plant.contract for plant in PLANTS}
    own = {name for plant in PLANTS for name in plant[1:] if name.partition(".")[0] in ROOMS}
    assert [name for name in sorted(own) if not TOP.joinpath(*name.split(".")).with_suffix(".py").is_file()] == []


@pytest.mark.parametrize("plant", PLANTS, ids=str)
def test_a_planted_import_breaks_its_contract(plant: Plant, broken: Mapping[str, str]) -> None:
    lines = [line.strip("- ") for line in broken[plant.contract].splitlines()]
    assert [line for line in lines if line.startswith((f"{plant} (", f"{plant}."))], broken[plant.contract]

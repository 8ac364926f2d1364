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
ROOMS = ("editloop", "infra", "annotation", "components", "pipelines")
ONE_WAY = "The five packages import one way"
LAYERS = "The layers of the library import one way"
CYCLES = "No import cycles between folders"
STUDIES = "Product code does not import the studies"
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
    *(Plant(KFP, module, "kfp") for module in ("infra.launch", "editloop.selection.ranking", "editloop.lineage.step")),
    *(
        Plant(COMPONENT_FILES, module, "components.reward.component")
        for module in ("components.curate.stage", "components.dataset.stage")
    ),
    *(Plant(TORCH, module, "torch") for module in modules("editloop/models/*/settings.py")),
    *(Plant(TORCH, module, "torch") for module in modules("editloop/training/**/settings.py")),
    *(Plant(TORCH, module, "torch") for module in ("infra.settings", "pipelines.settings", "editloop.data.vocabulary")),
    Plant(TORCH, "components.dataset.declaration", "torch"),
    *(
        Plant(TORCH, module, "torch")
        for module in ("editloop.training.reward_job", "annotation.campaigns.campaign_settings")
    ),
    *(Plant(TORCH, "editloop.lineage.registry", package) for package in ("deepspeed", "diffusers", "transformers")),
    Plant(ONE_WAY, "editloop.errors", "infra.settings"),
    Plant(ONE_WAY, "editloop.training.job", "infra.launch"),
    Plant(ONE_WAY, "editloop.lineage.signing", "pipelines.settings"),
    Plant(ONE_WAY, "infra.launch", "annotation.quality.conflicts"),
    Plant(ONE_WAY, "annotation.quality.quality", "components.reward.stage"),
    Plant(ONE_WAY, "components.reward.stage", "pipelines.settings"),
    Plant(LAYERS, "editloop.content", "editloop.environment"),
    Plant(LAYERS, "editloop.pages.plots", "editloop.data.vocabulary"),
    Plant(LAYERS, "editloop.data.vocabulary", "editloop.statistics.holm"),
    Plant(LAYERS, "editloop.statistics.holm", "editloop.datasets.votes"),
    Plant(LAYERS, "editloop.datasets.votes", "editloop.lineage.registry"),
    Plant(LAYERS, "editloop.lineage.registry", "editloop.models.judge_protocol"),
    Plant(LAYERS, "editloop.models.judge_protocol", "editloop.scoring.best_of"),
    Plant(LAYERS, "editloop.scoring.best_of", "editloop.evaluation.outcomes"),
    Plant(LAYERS, "editloop.evaluation.outcomes", "editloop.training.schedule"),
    Plant(LAYERS, "editloop.training.schedule", "editloop.selection.ranking"),
    Plant(LAYERS, "editloop.selection.ranking", "editloop.studies.world.scenes"),
    Plant(STUDIES, "components.candidates.stage", "editloop.studies.world.scenes"),
    Plant(STUDIES, "annotation.campaigns.opening", "editloop.studies.world.characters"),
    Plant(STUDIES, "pipelines.reconcile", "editloop.studies.world.stand_ins"),
]
CYCLE = ("editloop.models.backbones.text", "editloop.models.edit_reward.settings")
"""The first importing the second closes a ring of folders."""


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
    with folder.joinpath(*CYCLE[0].split(".")).with_suffix(".py").open("a") as source:
        source.write(f"\n\ndef planted_cycle():\n    import {CYCLE[1]}\n")
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
    assert set(contracts()) == {plant.contract for plant in PLANTS} | {CYCLES}
    own = {name for plant in PLANTS for name in plant[1:] if name.partition(".")[0] in ROOMS}
    assert [name for name in sorted(own) if not TOP.joinpath(*name.split(".")).with_suffix(".py").is_file()] == []


@pytest.mark.parametrize("plant", PLANTS, ids=str)
def test_a_planted_import_breaks_its_contract(plant: Plant, broken: Mapping[str, str]) -> None:
    lines = [line.strip("- ") for line in broken[plant.contract].splitlines()]
    assert [line for line in lines if line.startswith((f"{plant} (", f"{plant}."))], broken[plant.contract]


def test_a_planted_ring_of_folders_breaks_its_contract(broken: Mapping[str, str]) -> None:
    assert ".backbones -> .edit_reward" in broken[CYCLES]

"""Twelve of the faults of `make chaos`, each in its scene of real services."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.services import Services
from tests.chaos.scenarios import SCENARIOS, Scenario, Scenes, run_scenario

CHOSEN = {
    "scoring": (
        "a worker of the reward server is killed",
        "the reward server is killed",
        "the reward server is paused",
        "the reward server answers 500",
        "the reward server cuts its answers",
    ),
    "storing": ("S3 is killed", "S3 answers 500", "S3 cuts its answers"),
    "closing": (
        "an annotator submits during the closing",
        "two reconcilers",
        "a duplicated webhook",
        "the clock was ahead at a closing",
    ),
}
SCENES = [one for one in SCENARIOS if one.fault in CHOSEN.get(one.stage, ())]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenes]:
    with Scenes(tmp_path_factory.mktemp("scenes")) as scenes:
        yield scenes


@pytest.mark.parametrize("scenario", SCENES, ids=lambda scenario: scenario.fault.replace(" ", "-"))
def test_the_outcome_is_that_of_a_quiet_run(
    scenario: Scenario, scenes: Scenes, service_environment: Services, tmp_path: Path
) -> None:
    row = run_scenario(scenario, scenes, 1, tmp_path)
    assert row["survived"], row["trouble"]


def test_these_are_twelve() -> None:
    assert len(SCENES) == 12

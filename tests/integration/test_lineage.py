"""The chain from a model to its annotators, each link broken in turn; traces; a withdrawal from end to end."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from annotation.campaigns.campaign import connect
from annotation.campaigns.label_studio import LabelStudioApi
from annotation.campaigns.labelling import result_of
from infra import registry, tracking
from infra.content import read_manifest
from infra.services import Services
from infra.settings import service_settings
from pipelines.cli import app
from pipelines.lineage.chain import Chain, Gap
from pipelines.lineage.data_links import judgement_links
from pipelines.verify import verify
from tests.prepared_loop import EDITOR, REWARD, Loop, environment, prepare, surroundings, train, tune

pytestmark = pytest.mark.timeout(600)
MODEL, TUNED = f"models:/{REWARD}@champion", f"models:/{EDITOR}@champion"


@pytest.fixture(scope="module")
def loop(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    home = tmp_path_factory.mktemp("lineage")
    with environment(services.environment | surroundings(home)):
        made = prepare(home)
        train(made, made["dataset"], made["version.json"], made["model"])
        tune(made)
        yield made


def test_both_chains_are_whole(loop: Loop) -> None:
    chain = verify(TUNED)
    assert chain.gap is None
    names = [link["name"] for link in chain.links]
    assert len(names) - len(set(names)) == 8, "the reward model's chain hangs on the editor's"
    links = {link["name"]: link["value"] for link in chain.links}
    assert links["annotators"] == "ada, bo, chi"
    assert links["dataset"] == loop.dataset_sha256
    assert links["independent judge"] == "edit-score 7: promote"
    assert links["reward model"].startswith(f"models:/{REWARD}/1 ")

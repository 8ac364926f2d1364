"""A loop that the release before began, and left in the middle, goes on with this version; what cannot says so."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from editloop.content import read_manifest
from editloop.datasets.repository import CURATED, fetch_dataset, read_version
from editloop.datasets.repository_bundle import point_at_remote
from editloop.datasets.versions import versions
from editloop.errors import EditLoopError
from infra.services import start_services, stop_services
from pipelines.environment import local_environment
from pipelines.verify import verify
from tests.command_line import EditLoop
from tests.prepared_loop import environment, step
from tests.previous_release.begin_loop import score_noise, write_small_base

pytestmark = pytest.mark.timeout(600)
BEGUN = Path(__file__).parents[1] / "previous_release" / "loop.tar.xz"
CHAMPION = "models:/edit-reward@champion"


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which the loop was begun, at another place than then, with its services."""
    folder = tmp_path_factory.mktemp("begun")
    with tarfile.open(BEGUN) as archive:
        archive.extractall(folder, filter="data")
    point_at_remote(str(folder / "dataset"), str(folder / "dataset-remote"))
    try:
        services = start_services(folder / "services")
        with environment(services.environment | local_environment(folder)), pytest.MonkeyPatch.context() as patched:
            patched.chdir(folder)  # where the base lies that the model names
            write_small_base(folder / "base")
            yield folder
    finally:
        stop_services(folder / "services")


@pytest.fixture(scope="module")
def promoted(begun: Path) -> Path:
    """The same, after this version measured the reward model and made it champion."""
    inputs = {"dataset": begun / "preferences", "model": begun / "reward"}
    step("benchmark", "first", inputs, {"output": begun / "benchmark"}, gate="open")
    inputs |= {"benchmark": begun / "benchmark", "version": begun / "version.json"}
    step("promote", "first", inputs, {"output": begun / "promotion"}, name="edit-reward")
    return begun


def test_the_dataset_is_read_and_the_reward_model_scores_as_it_did(begun: Path, tmp_path: Path) -> None:
    version = read_version(begun / "version.json")
    fetch_dataset({**version, "repo": (begun / "dataset").as_uri()}, tmp_path / "fetched")
    assert read_manifest(tmp_path / "fetched", check=True)["sha256"] == version["sha256"]
    assert score_noise(begun / "reward") == pytest.approx(json.loads((begun / "scores.json").read_bytes()), abs=1e-3)


def test_what_follows_runs_on_what_was_there(promoted: Path) -> None:
    outputs = {"output": promoted / "curated", "version": promoted / "curated.json"}
    step("curate", "second", {"edits": promoted / "edits"}, outputs, best=4)
    assert [each.tag for each in versions(str(promoted / "dataset"), CURATED)] == [
        read_version(promoted / "curated.json")["tag"]
    ]
    inputs = {"judgements": promoted / "judgements", "candidates": promoted / "candidates"}
    step("dataset", "second", inputs, {"output": promoted / "anew", "version": promoted / "anew.json"})
    facts = [read_manifest(promoted / name)["facts"] for name in ("preferences", "anew")]
    assert facts[0]["pairs"] == facts[1]["pairs"]


def test_the_lineage_leads_to_the_answers_and_says_what_no_record_shows(promoted: Path, editloop: EditLoop) -> None:
    chain = verify(CHAMPION, accept_unsigned=True)
    assert chain.gap is None
    assert [link["name"] for link in chain.links][-6:] == [
        *("dataset run", "judgements", "label export", "agreement gate", "campaign", "annotators")
    ]
    assert [link["name"] for link in chain.links if "warning" in link] == ["campaign"]
    refused = editloop("verify", CHAMPION)
    assert refused.returncode == 1
    assert refused.stdout.splitlines()[-1].startswith("✗ campaign: MLflow has no record of ")
    assert "--unsigned-campaigns" in refused.stdout
    assert editloop("verify", CHAMPION, "--unsigned-campaigns").returncode == 0


def test_a_campaign_of_then_is_refused_with_what_to_do(begun: Path, editloop: EditLoop) -> None:
    for arguments in (("status", "open campaign"), ("close", str(begun / "open-campaign"), "--actor", "lea")):
        ended = editloop("campaign", *arguments)
        assert ended.returncode == 1
        assert "release 0.2.0 or earlier" in ended.stderr
        assert "finish and collect it with that release" in ended.stderr
    note = editloop("reconcile", "--once").stdout
    assert "no record of 2 campaigns in Label Studio (open campaign, closed campaign)" in note
    assert "finish and collect it with that release" in note


def test_candidates_of_then_are_refused_before_a_campaign_opens(
    begun: Path, tmp_path: Path, editloop: EditLoop
) -> None:
    people = {"annotators": ["ada", "bo"], "overlap": 2}
    with pytest.raises(EditLoopError, match=r"of release 0\.2\.0 or earlier.* Make the candidates anew"):
        step(
            "annotate", "third", {"candidates": begun / "candidates"}, {"output": tmp_path / "c"}, name="new", **people
        )
    assert "no campaign was opened yet" in editloop("campaign", "list").stdout

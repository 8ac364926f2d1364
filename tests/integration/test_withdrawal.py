"""An annotator withdraws after a training: what is named, what is made anew, and that nothing brings them back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from editloop.content import read_manifest
from editloop.datasets.preference_groups import read_groups
from editloop.datasets.repository import read_version
from editloop.datasets.votes import read_votes
from editloop.datasets.withdrawal import Withdrawn, read_withdrawals, read_withdrawn
from editloop.errors import EditLoopError
from editloop.lineage import registry, tracking
from editloop.lineage.family import TAINTED
from editloop.lineage.promotion import promote_version
from infra.services import Services
from pipelines.cli import app
from pipelines.verify import verify
from tests.prepared_loop import EDITOR, REWARD, Loop, environment, prepare, promoted, step, surroundings, tune

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("forked_ranks")]
PEOPLE = ("olga", "mira", "zoe")
"""No name among them could be a part of a digest."""


@pytest.fixture(scope="module")
def loop(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    home = tmp_path_factory.mktemp("withdrawal")
    with environment(services.environment | surroundings(home)):
        yield prepare(home, run="withdrawing", people=PEOPLE)


def learnt(loop: Loop, dataset: Path, version: Path, model: Path, run: str, processes: int) -> str:
    """A tiny training for real, measured and promoted; the version's address."""
    parameters = {"preset": "editreward-tiny", "epochs": 1, "processes": processes}
    step("reward", run, {"dataset": dataset}, {"output": model}, **parameters)
    return f"models:/{REWARD}/{promoted(loop, dataset, version, model, run=run)}"


def withdraw(*words: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["dataset", "withdraw", *words, "--json"])
    assert done.exit_code == 0, done.exception
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def splits(dataset: Path) -> dict[str, str]:
    return {task: split for split in ("train", "validation", "test") for task, _ in read_groups(dataset, split).sizes()}


def test_an_annotator_withdraws_and_the_next_model_knows_nothing_of_them(loop: Loop) -> None:
    before = learnt(loop, loop["dataset"], loop["version.json"], loop["first"], "withdrawing", processes=2)
    editor = f"models:/{EDITOR}/{tune(loop, run='withdrawing-tuning')}"
    assert len(tracking.find_runs(pipeline_run="withdrawing", stage="reward")) == 1, "two ranks leave one run"
    out = loop.home / "withdrawn"

    done = withdraw("--annotator", "olga", "--reason", "asked by mail", "--output", str(out))
    assert {one["name"] + "/" + one["version"] for one in done["tainted"]} == {
        before.removeprefix("models:/"),
        editor.removeprefix("models:/"),
    }
    for address in (before, editor):
        assert "annotator olga, withdrawn" in registry.find_version(address).tags[TAINTED]
        with pytest.raises(EditLoopError, match="learnt from what was withdrawn"):
            promote_version(address, actor="ada", reason="it is good", without_evidence=True)
    (made,) = done["versions"]
    folder, version = Path(made["folder"]), out / f"{made['tag']}.json"
    facts = read_manifest(folder, check=True)["facts"]
    assert facts["annotators"] == ["mira", "zoe"]
    assert facts["parent"] == loop.dataset_sha256
    assert read_votes(folder) == read_votes(loop["dataset"]).without(Withdrawn(annotators=frozenset({"olga"})))
    assert read_version(version)["sha256"] == made["sha256"] == read_manifest(folder)["sha256"]
    assert splits(folder).items() <= splits(loop["dataset"]).items(), "no task moves into another split"
    (listed,) = read_withdrawals(str(loop.repo))
    assert (listed.kind, listed.name, listed.reason) == ("annotator", "olga", "asked by mail")

    chain = verify(before)
    assert chain.gap is None
    told = {link["name"]: link["value"] for link in chain.links}
    assert told["withdrawals"].startswith("TAINTED: annotator olga on ")
    again = withdraw("--annotator", "olga", "--reason", "once more", "--output", str(out))
    assert again["versions"] == done["versions"]
    assert read_withdrawals(str(loop.repo)) == [listed]

    after = learnt(loop, folder, version, loop["second"], "after-withdrawal", processes=1)
    chain = verify(f"models:/{REWARD}@champion")
    assert chain.gap is None
    told = {link["name"]: link["value"] for link in chain.links}
    assert told["registered version"] == after.removeprefix("models:/").replace("/", " version ")
    assert told["annotators"] == "mira, zoe"
    assert told["parent dataset"].startswith(f"preferences-{loop.dataset_sha256[:12]}")
    assert "olga" not in json.dumps(chain.summary())
    assert TAINTED not in registry.find_version(after).tags

    inputs = {"judgements": loop["judgements"], "candidates": loop["candidates"]}
    step("dataset", "built-later", inputs, {"output": loop["later"], "version": loop["later.json"]})
    assert read_manifest(loop["later"])["sha256"] == made["sha256"], "a later build does not bring them back"


def test_a_task_is_withdrawn_from_the_latest_version_and_earlier_withdrawals_hold(loop: Loop) -> None:
    task = read_votes(loop["dataset"]).judged[0].task_id
    done = withdraw("--task", task, "--output", str(loop.home / "withdrawn"))
    (made,) = done["versions"]
    votes = read_votes(Path(made["folder"]))
    assert task not in {one.task_id for one in votes.judged}
    assert votes.people == ["mira", "zoe"]
    assert read_withdrawn(str(loop.repo)) == Withdrawn(frozenset({"olga"}), frozenset({task}))


def test_who_is_in_no_dataset_cannot_withdraw_and_nothing_is_listed(loop: Loop) -> None:
    before = read_withdrawals(str(loop.repo))
    for words, told in (
        (("--annotator", "nobody"), "Annotators of its versions: mira, olga, zoe"),
        (("--task", "0" * 16), "no version of the dataset has a task of this id"),
        ((), "Give one of"),
    ):
        done = CliRunner().invoke(app, ["dataset", "withdraw", *words])
        assert told in str(done.exception)
    assert read_withdrawals(str(loop.repo)) == before

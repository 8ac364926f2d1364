"""From experts' pairs to a registered editor, without a reward model: learnt with a kill in the middle, compared, and
led back to the people who gave the pairs."""

import json
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
import yaml

from editloop.content import read_manifest
from editloop.datasets.repository import read_version
from editloop.errors import EditLoopError
from editloop.lineage import registry, tracking
from editloop.lineage.family import TAINTED
from editloop.lineage.step import run_step
from editloop.lineage.trace import trace_annotator, trace_dataset, trace_model
from editloop.lineage.withdraw import withdraw
from editloop.studies.world.scenes import write_edits
from editloop.training.editor_dpo.pairs import read_ordered_pairs
from editloop.training.editor_dpo.settings import read_dpo_preset
from infra.services import Services
from pipelines.catalogue import STAGES
from pipelines.verify import verify
from tests.forked_ranks import killed_soon
from tests.prepared_loop import Loop, another_tag, environment, prepare, step, surroundings

pytestmark = pytest.mark.timeout(600)
RUN, STEPS = "pairing", 6
EDITOR = "paired-editor"
"""A name in the registry of this file's own."""
TUNED = f"models:/{EDITOR}@champion"


@pytest.fixture(scope="module")
def loop(forked_ranks: None, services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """A loop whose editor learnt the pairs: once in one go, and once with a kill."""
    home = tmp_path_factory.mktemp("paired")
    with environment(services.environment | surroundings(home)):
        loop = prepare(home, tasks=28, run=RUN)
        preset = read_dpo_preset("smallest").model_dump(mode="json")
        preset["training"] |= {"steps": STEPS, "checkpoint_every": 1, "evaluate_every": 2}
        (home / "preset.yaml").write_text(yaml.safe_dump(preset))
        inputs = {"dataset": loop["dataset"], "version": loop["version.json"]}
        chosen = {"preset": str(home / "preset.yaml"), "processes": 1, "seed": 1}
        step("editor_dpo", "in one go", inputs, {"output": home / "whole" / "tuned"}, **chosen)
        with (
            patch("components.editor_dpo.stage.launch", killed_soon(home / ".unfinished")),
            pytest.raises(EditLoopError, match="killed"),
        ):
            step("editor_dpo", RUN, inputs, {"output": loop["tuned"]}, **chosen)
        step("editor_dpo", RUN, inputs, {"output": loop["tuned"]}, **chosen)
        write_edits(loop["heldout"], 8, seed=4)
        run_step(
            STAGES["editor_eval"],
            pipeline_run=RUN,
            inputs={"edits": loop["heldout"], "editor": loop["tuned"]},
            outputs={"output": loop["evaluation"], "promotion": loop["promotion.json"]},
            parameters={"steps": 2, "gate": "open", "name": EDITOR},
            pipeline="learn-from-pairs",
        )
        yield loop


def test_a_training_that_was_killed_ends_as_one_in_one_go(loop: Loop) -> None:
    whole, resumed = (
        json.loads((folder / "training.json").read_text()) for folder in (loop.home / "whole" / "tuned", loop["tuned"])
    )
    for part, name in (("steps", "loss"), ("evaluations", "margin"), ("evaluations", "distance_train")):
        values, expected = ([record[name] for record in history[part]] for history in (resumed, whole))
        assert values == pytest.approx(expected, rel=1e-3), "equal but for rounding"
    assert [record["step"] for record in resumed["steps"]] == list(range(1, STEPS + 1))
    assert not list((loop.home / ".unfinished").iterdir())


def test_the_output_says_what_was_learnt_and_shows_it(loop: Loop) -> None:
    facts = read_manifest(loop["tuned"])["facts"]
    assert facts["dataset"] == read_version(loop["version.json"])
    assert facts["dataset_sha256"] == loop.dataset_sha256
    _, counts = read_ordered_pairs(loop["dataset"], "train")
    assert (facts["pairs"], facts["ties"], facts["uncertain"]) == counts
    assert "data:image/png" in (loop["tuned"] / "page.html").read_text()
    (run,) = tracking.find_runs(pipeline_run=RUN, stage="editor_dpo", finished=True)
    assert run.data.metrics["pairs"] == counts.ordered
    history = tracking.client().get_metric_history(run.info.run_id, "curve_validation_accuracy_train")
    assert sorted(metric.step for metric in history) == [0, 2, 4, 6]
    assert {f"curve_validation_{name}" for name in ("accuracy", "margin", "distance")} <= run.data.metrics.keys()


def test_the_editor_leads_back_to_the_people_who_gave_the_pairs(loop: Loop) -> None:
    chain = verify(TUNED)
    assert chain.gap is None
    links = {link["name"]: link["value"] for link in chain.links}
    assert links["dataset"] == loop.dataset_sha256
    assert links["annotators"] == "ada, bo, chi"
    assert "reward model" not in links
    with another_tag(EDITOR, "editloop.dataset_sha256"):
        gap = verify(TUNED).gap
    assert gap is not None
    assert gap.startswith("dataset: ")
    (run,) = tracking.find_runs(pipeline_run=RUN, stage="editor_eval")
    parent = tracking.client().get_run(run.data.tags["mlflow.parentRunId"])
    assert parent.data.tags["editloop.pipeline"] == "learn-from-pairs"


def test_traces_and_a_withdrawal_reach_the_editor(loop: Loop) -> None:
    editor = f"models:/{EDITOR}/{registry.find_version(TUNED).version}"
    because = f"trained on dataset {loop.dataset_sha256[:12]}"
    for trace in (trace_annotator("ada"), trace_dataset(loop.dataset_sha256[:12])):
        assert {descendant.model.address: descendant.because for descendant in trace.models} == {editor: because}
    came_from = trace_model(TUNED).came_from
    assert [dataset["sha256"] for dataset in came_from["datasets"]] == [loop.dataset_sha256]
    assert came_from["annotators"] == ["ada", "bo", "chi"]
    report = withdraw("annotator", "ada", "asked by mail", loop.home / "withdrawn")
    assert [descendant.model.address for descendant in report.tainted] == [editor]
    assert "annotator ada" in registry.find_version(TUNED).tags[TAINTED]


def test_the_output_is_a_folder_that_the_next_training_can_start_from(loop: Loop, tmp_path: Path) -> None:
    inputs = {"dataset": loop["dataset"], "version": loop["version.json"]}
    chosen = {"preset": "smallest", "processes": 1, "updates": 1, "editor": str(loop["tuned"] / "editor")}
    step("editor_dpo", "again", inputs, {"output": tmp_path / "again"}, **chosen)
    assert read_manifest(tmp_path / "again")["facts"]["base_sha256"] == tracking.digest(loop["tuned"] / "editor")

"""From noisy edits to a registered editor: chosen by a real judge, learnt with a kill in the middle, compared, and led
back to the people who taught the judge."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib.resources import files
from pathlib import Path
from unittest.mock import patch

import pytest
import yaml

from components.reward.declaration import RewardParameters
from editloop.content import complete_folder, read_manifest, sha256_file
from editloop.data.edits_file import read_edits
from editloop.datasets.repository import read_version
from editloop.errors import EditLoopError
from editloop.lineage import registry, tracking
from editloop.lineage.family import TAINTED
from editloop.lineage.step import run_step
from editloop.lineage.trace import trace_annotator, trace_dataset, trace_image, trace_model
from editloop.lineage.withdraw import withdraw
from editloop.studies.world.scenes import write_edits
from editloop.studies.world.stand_ins import add_candidates
from editloop.training.editor_sft.settings import read_sft_preset
from infra.services import Services
from pipelines.catalogue import STAGES
from pipelines.verify import verify
from tests import prepared_loop
from tests.forked_ranks import killed_soon
from tests.prepared_loop import (
    Loop,
    another_tag,
    environment,
    prepare,
    promoted,
    standing_in,
    step,
    surroundings,
)

pytestmark = pytest.mark.timeout(600)
RUN, KEPT, STEPS = "curating", 10, 6
REWARD, EDITOR = "curating-reward", "curated-editor"
"""Names in the registry of this file's own: its versions are counted from 1, whoever ran before."""
JUDGE, TUNED = f"models:/{REWARD}@champion", f"models:/{EDITOR}@champion"


def shipped_reward(dataset: Path, output: Path, parameters: RewardParameters) -> dict[str, float]:
    """The shipped model, as if it had learnt from the dataset."""
    sha256 = str(read_manifest(dataset)["sha256"])
    with complete_folder(output, {"dataset_sha256": sha256}) as folder:
        shipped = Path(str(files("editloop.models.edit_reward"))) / "weights" / "tiny-reward"
        shutil.copytree(shipped, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
    return {"loss": 0.5}


@pytest.fixture(scope="module")
def loop(forked_ranks: None, services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """A loop whose champion chose edits, and whose editor learnt them."""
    home = tmp_path_factory.mktemp("curated")
    names = {"REWARD": REWARD, "EDITOR": EDITOR}
    with environment(services.environment | surroundings(home)), patch.multiple(prepared_loop, **names):
        loop = prepare(home, tasks=20, run=RUN)  # a dataset of its own: others trace theirs in the same MLflow
        with standing_in("reward", shipped_reward):
            step("reward", RUN, {"dataset": loop["dataset"]}, {"output": loop["model"]})
        promoted(loop, loop["dataset"], loop["version.json"], loop["model"], run=RUN)
        write_edits(home / "right", 24, seed=3)
        add_candidates(home / "right", home / "noisy", seed=0, per_task=2)
        outputs = {"output": loop["kept"], "version": loop["kept.json"]}
        step("curate", RUN, {"edits": loop["noisy"]}, outputs, judge=JUDGE, best=KEPT)
        learn(loop)
        evaluate(loop)
        yield loop


def learn(loop: Loop) -> None:
    """Twice: in one go, and with a kill."""
    preset = read_sft_preset("smallest").model_dump(mode="json")
    preset["training"] |= {"steps": STEPS, "checkpoint_every": 1, "evaluate_every": 2}
    (loop.home / "preset.yaml").write_text(yaml.safe_dump(preset))
    inputs = {"edits": loop["kept"], "version": loop["kept.json"]}
    told = {"preset": str(loop.home / "preset.yaml"), "processes": 1, "seed": 1}
    step("editor_sft", "in one go", inputs, {"output": loop.home / "whole" / "tuned"}, **told)
    with (
        patch("components.editor_sft.stage.launch", killed_soon(loop.home / ".unfinished")),
        pytest.raises(EditLoopError, match="killed"),
    ):
        step("editor_sft", RUN, inputs, {"output": loop["tuned"]}, **told)
    step("editor_sft", RUN, inputs, {"output": loop["tuned"]}, **told)


def evaluate(loop: Loop) -> None:
    evaluation, tuned, promotion = loop["evaluation"], loop["tuned"], loop["promotion.json"]
    write_edits(loop["heldout"], 8, seed=4)
    run_step(
        STAGES["editor_eval"],
        pipeline_run=RUN,
        inputs={"edits": loop["heldout"], "editor": tuned},
        outputs={"output": evaluation, "promotion": promotion},
        parameters={"steps": 2, "gate": "open", "name": EDITOR},
        pipeline="curate-editor",
    )


def test_what_is_kept_is_a_version_and_the_best_of_each_task(loop: Loop) -> None:
    report = json.loads((loop["kept"] / "curation.json").read_text())
    assert (report["kept"], report["edits"], report["tasks"]) == (KEPT, 48, 24)
    assert report["mean_kept"] > report["mean_all"]
    assert report["dropped"] == {"another edit of its task": 24, "beyond the number asked for": 24 - KEPT}
    assert len(read_edits(loop["kept"])) == KEPT
    version = read_version(loop["kept.json"])
    assert version["tag"] == f"curated-{read_manifest(loop['kept'])['sha256'][:12]}"
    facts = read_manifest(loop["tuned"])["facts"]
    assert facts["curated"] == version
    assert facts["reward_sha256"] == read_manifest(loop["model"])["sha256"]


def test_a_training_that_was_killed_ends_as_one_in_one_go(loop: Loop) -> None:
    whole, resumed = (
        [step["loss"] for step in json.loads((folder / "training.json").read_text())["steps"]]
        for folder in (loop.home / "whole" / "tuned", loop["tuned"])
    )
    assert resumed == pytest.approx(whole, rel=1e-3), "equal but for rounding"
    history = json.loads((loop["tuned"] / "training.json").read_text())
    assert [one["step"] for one in history["steps"]] == list(range(1, STEPS + 1))
    assert (loop["tuned"] / "page.html").is_file()
    assert not list((loop.home / ".unfinished").iterdir())
    (run,) = tracking.find_runs(pipeline_run=RUN, stage="editor_sft")
    assert run.info.status == "FINISHED"


def test_the_editor_leads_back_to_the_people_who_taught_its_judge(loop: Loop) -> None:
    chain = verify(TUNED)
    assert chain.gap is None
    names = [link["name"] for link in chain.links]
    assert names.index("curated edits") < names.index("curate run") < names.index("reward model")
    assert (names.count("DVC revision"), names.count("model content")) == (2, 2)
    links = {link["name"]: link["value"] for link in chain.links}
    assert links["annotators"] == "ada, bo, chi"
    assert links["curated edits"] == read_manifest(loop["kept"])["sha256"]
    assert links["reward model"].startswith(f"models:/{REWARD}/1 ")
    (run,) = tracking.find_runs(pipeline_run=RUN, stage="editor_eval")
    parent = tracking.client().get_run(run.data.tags["mlflow.parentRunId"])
    assert parent.data.tags["editloop.pipeline"] == "curate-editor"


@contextmanager
def deleted(stage: str) -> Iterator[None]:
    (run,) = tracking.find_runs(pipeline_run=RUN, stage=stage)
    tracking.client().delete_run(run.info.run_id)
    try:
        yield
    finally:
        tracking.client().restore_run(run.info.run_id)


FAULTS: dict[str, tuple[str, Callable[[], AbstractContextManager[None]]]] = {
    "other edits": ("curated edits", partial(another_tag, EDITOR, "editloop.dataset_sha256")),
    "another commit": ("DVC revision", partial(another_tag, EDITOR, "editloop.dvc_rev")),
    "no curation": ("curate run", partial(deleted, "curate")),
    "another judge": ("reward model", partial(another_tag, EDITOR, "editloop.reward")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_link_is_named(loop: Loop, fault: str) -> None:
    link, broken = FAULTS[fault]
    with broken():
        gap = verify(TUNED).gap
    assert gap is not None
    assert gap.startswith(f"{link}: ")


def test_traces_and_a_withdrawal_pass_through_the_curated_edits(loop: Loop) -> None:
    number = registry.find_version(TUNED).version
    editor, sha256 = f"models:/{EDITOR}/{number}", str(read_manifest(loop["kept"])["sha256"])
    assert editor in {one.model.address for one in trace_annotator("ada").models}
    kept = next(iter((loop["kept"] / "images").iterdir()))
    assert {one.model.address for one in trace_image(sha256_file(kept)).models} == {editor}
    of_edits = trace_dataset(sha256[:12])
    assert {one.model.address: one.because for one in of_edits.models} == {editor: f"trained on dataset {sha256[:12]}"}
    assert of_edits.came_from["reward"] == f"models:/{REWARD}/1"
    assert of_edits.came_from["annotators"] == ["ada", "bo", "chi"]
    came_from = trace_model(TUNED).came_from
    assert [one["sha256"] for one in came_from["datasets"]] == [sha256, loop.dataset_sha256]
    assert came_from["annotators"] == ["ada", "bo", "chi"]
    by_judge = trace_annotator("bo").summary()["came_of"]["curated"]
    assert [one["sha256"] for one in by_judge] == [sha256]

    taken = withdraw("annotator", "ada", "asked by mail", loop.home / "withdrawn")
    assert editor in {one.model.address for one in taken.tainted}
    assert "annotator ada" in registry.find_version(TUNED).tags[TAINTED]
    assert [one.sha256 for one in taken.curated] == [sha256]
    assert [one.sha256 for one in taken.held] == [loop.dataset_sha256]

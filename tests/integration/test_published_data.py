"""From data as published to registered models: a judge and an editor lead back to the sha256 of every file they came
from."""

import json
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from editloop.content import read_manifest, sha256_file, write_manifest
from editloop.datasets.repository import read_version
from editloop.errors import EditLoopError
from editloop.lineage import tracking
from editloop.lineage.step import run_step
from editloop.lineage.trace import trace_dataset, trace_image, trace_model
from editloop.lineage.verify import verify_lineage
from editloop.training.presets import load_preset
from infra.services import Services
from pipelines.catalogue import STAGES
from pipelines.cli import app
from tests import prepared_loop
from tests.prepared_loop import (
    another_tag,
    environment,
    stand_in_benchmark,
    stand_in_editor_eval,
    stand_in_editor_rl,
    standing_in,
    step,
    surroundings,
)

pytestmark = pytest.mark.timeout(400)
RUN = "published"
REWARD, EDITOR = "published-judge", "published-editor"
"""Names in the registry of this file's own."""
JUDGE, TUNED = f"models:/{REWARD}@champion", f"models:/{EDITOR}@champion"
RL_DATA = Path(__file__).parents[1] / "parity" / "suites" / "editscore-rl-data"


def reward_data(folder: Path, sources: int = 24) -> Path:
    """Conversations in the published layout: both questions of an edit of each source."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for number in range(sources):
        names = [f"images/{kind}-{number}.png" for kind in ("source", "edit")]
        for name in names:
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / name)
        for prompt, images in (
            (f"<image><image>Editing instruction: make it {number}", names),
            ("<image>How natural?", names[1:]),
        ):
            answer = json.dumps({"reasoning": "seen", "score": [number, 25 - number]})
            turns = [{"from": "human", "value": prompt}, {"from": "gpt", "value": answer}]
            rows.append({"conversations": turns, "images": images})
    (folder / "reward.json").write_text(json.dumps(rows))
    return folder


def command(*arguments: str | Path) -> str:
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False).output


@pytest.fixture(scope="module")
def home(mlflow_alone: Services, forked_ranks: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A judge that learnt published conversations, and an editor that practised on published prompts."""
    home = tmp_path_factory.mktemp("published")
    names = {"REWARD": REWARD, "EDITOR": EDITOR}
    with environment(mlflow_alone.environment | surroundings(home)), patch.multiple(prepared_loop, **names):
        train_judge(home)
        tune_editor(home)
        yield home


def train_judge(home: Path) -> None:
    data, version = reward_data(home / "reward-data"), home / "version.json"
    command("teacher", "import", data / "reward.json", "--format", "editscore", "--out", home / "taught")
    assert "version taught-" in command("teacher", "publish", home / "taught", "--version", version)
    preset = load_preset("editscore-tiny").model_dump(mode="json", exclude_unset=True)
    preset["training"] |= {"epochs": None, "steps": 1, "batch": 4}
    (home / "preset.yaml").write_text(yaml.safe_dump(preset))
    settings = {"preset": str(home / "preset.yaml"), "processes": 1}
    step("reward", RUN, {"dataset": home / "taught"}, {"output": home / "model"}, **settings)
    with standing_in("benchmark", stand_in_benchmark):
        inputs = {"dataset": home / "taught", "model": home / "model"}
        step("benchmark", RUN, inputs, {"output": home / "benchmark"})
    inputs = {"model": home / "model", "benchmark": home / "benchmark", "dataset": home / "taught", "version": version}
    step("promote", RUN, inputs, {"output": home / "promotion"}, name=REWARD)


def tune_editor(home: Path) -> None:
    command(
        "edits", "import", RL_DATA, "--format", "editscore-rl", "--leave-out", "text_change", "--out", home / "edits"
    )
    with standing_in("editor_rl", stand_in_editor_rl):
        step("editor_rl", RUN, {"edits": home / "edits"}, {"output": home / "tuned"})
    with standing_in("editor_eval", stand_in_editor_eval):
        run_step(
            STAGES["editor_eval"],
            pipeline_run=RUN,
            inputs={"edits": home / "edits", "editor": home / "tuned"},
            outputs={"output": home / "evaluation", "promotion": home / "editor-promotion.json"},
            parameters={"name": EDITOR},
        )


def test_a_judge_leads_back_to_every_published_file(home: Path) -> None:
    chain = verify_lineage(JUDGE)
    assert chain.gap is None
    links = {link["name"]: link["value"] for link in chain.links}
    assert list(links)[-3:] == ["teacher's rows", "DVC revision", "source files"]
    assert links["teacher's rows"] == read_manifest(home / "taught")["sha256"]
    assert f"reward.json {sha256_file(home / 'reward-data' / 'reward.json')}" in links["source files"]
    sums = dict(reversed(line.split("  ")) for line in (home / "taught" / "SHA256SUMS").read_text().splitlines())
    files = [path for path in (home / "reward-data").rglob("*") if path.is_file()]
    assert sums == {str(path.relative_to(home / "reward-data")): sha256_file(path) for path in files}
    assert sha256_file(home / "taught" / "SHA256SUMS")[:12] in links["source files"]
    (run,) = tracking.find_runs(pipeline_run=RUN, stage="reward")
    (read,) = tracking.client().get_run(run.info.run_id).inputs.dataset_inputs
    assert (read.dataset.name, json.loads(read.dataset.profile)["taught"]) == ("taught", 48)


def test_an_editor_leads_back_to_its_prompts_and_to_those_of_its_judge(home: Path) -> None:
    chain = verify_lineage(TUNED)
    assert chain.gap is None
    names = [link["name"] for link in chain.links]
    assert names.index("edits") < names.index("reward model") < names.index("teacher's rows")
    of_edits, of_judge = (link["value"] for link in chain.links if link["name"] == "source files")
    assert f"rl.jsonl {sha256_file(RL_DATA / 'rl.jsonl')}" in of_edits
    assert "reward.json" in of_judge
    assert {link["name"]: link["value"] for link in chain.links}["edits"] == read_manifest(home / "edits")["sha256"]


def test_another_version_of_the_rows_is_a_gap(home: Path) -> None:
    with another_tag(REWARD, "editloop.dataset_sha256"):
        gap = verify_lineage(JUDGE).gap
    assert gap is not None
    assert gap.startswith("teacher's rows: trained on ")
    with another_tag(REWARD, "editloop.dvc_rev"):
        gap = verify_lineage(JUDGE).gap
    assert gap is not None
    assert gap.startswith("DVC revision: ")


def test_edits_whose_manifest_was_exchanged_are_a_gap(home: Path, tmp_path: Path) -> None:
    (run,) = tracking.find_runs(pipeline_run=RUN, stage="editor_rl")
    api, folder = tracking.client(), f"{tracking.MANIFESTS}/{tracking.EXTERNAL_INPUT}"
    forged = json.loads((home / "edits" / "manifest.json").read_text())
    try:
        forged["facts"]["origin"]["files"]["rl.jsonl"] = "0" * 64
        (tmp_path / "manifest.json").write_text(json.dumps(forged))
        api.log_artifact(run.info.run_id, str(tmp_path / "manifest.json"), folder)
        assert "source files: origin.json: the manifest states another origin" in str(verify_lineage(TUNED).gap)
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "edits.jsonl").write_text("")
        write_manifest(tmp_path / "other", {})
        api.log_artifact(run.info.run_id, str(tmp_path / "other" / "manifest.json"), folder)
        assert "keeps the manifest of other edits" in str(verify_lineage(TUNED).gap)
    finally:
        api.log_artifact(run.info.run_id, str(home / "edits" / "manifest.json"), folder)
    assert verify_lineage(TUNED).gap is None


def test_traces_lead_to_the_rows_and_from_a_picture_to_what_learnt_it(home: Path) -> None:
    version = read_version(home / "version.json")
    of_rows = trace_dataset(version["tag"])
    assert of_rows.came_from == {"files": {"reward.json": sha256_file(home / "reward-data" / "reward.json")}}
    judge, editor = (verify_lineage(model).links[0]["value"] for model in (JUDGE, TUNED))
    assert [one.model.address for one in of_rows.models] == [
        f"models:/{name}/{text.rpartition(' ')[2]}" for name, text in ((REWARD, judge), (EDITOR, editor))
    ]
    came_from = trace_model(TUNED).came_from
    assert [dataset["sha256"] for dataset in came_from["datasets"]] == [version["sha256"]]
    of_picture = trace_image(str(home / "reward-data" / "images" / "edit-3.png"))
    assert [one.model.name for one in of_picture.models] == [REWARD, EDITOR]


def test_rows_of_an_unknown_origin_are_not_registered(home: Path, tmp_path: Path) -> None:
    (tmp_path / "taught").mkdir()
    write_manifest(tmp_path / "taught", {"taught": 3})
    inputs = {"model": home / "model", "benchmark": home / "benchmark", "dataset": tmp_path / "taught"}
    with pytest.raises(EditLoopError, match="does not name the files that its rows came from"):
        step(
            "promote", RUN, inputs | {"version": home / "version.json"}, {"output": tmp_path / "promotion"}, name=REWARD
        )

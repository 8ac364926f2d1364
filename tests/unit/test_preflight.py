"""A pipeline's first step: all faults of a form at once, and what it finds for the steps."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from editloop.content import complete_folder, read_manifest
from editloop.errors import EditLoopError
from editloop.object_storage import ObjectFolder
from pipelines import preflight, run_inputs
from pipelines.catalogue import PIPELINES
from pipelines.preflight import plan_run, preflight_fields, preflight_outputs
from pipelines.run_inputs import Source, find_edits

EARLIER = SimpleNamespace(name="edit-reward", version="1")


@pytest.fixture
def edits(tmp_path: Path) -> Path:
    with complete_folder(tmp_path / "edits", {}) as folder:
        (folder / "edits.jsonl").write_text("{}")
    return tmp_path / "edits"


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has one model, edit-reward; tests/integration/test_run_inputs.py asks a real one."""
    version = SimpleNamespace(name="edit-reward", version="3")
    versions = {"models:/edit-reward@champion": version, "models:/edit-reward/1": EARLIER}
    monkeypatch.setattr(run_inputs.registry, "find_version", versions.get)
    for name in ("MLFLOW_TRACKING_URI", "EDITLOOP_LABEL_STUDIO_URL", "EDITLOOP_DATASET_REPO"):
        monkeypatch.delenv(name, raising=False)


def form(edits: Path, **more: Any) -> dict[str, Any]:
    return {"edits_to_practise": str(edits), "edits_held_out": str(edits), **more}


def test_the_form_and_its_settings_reach_each_stage(edits: Path) -> None:
    settings = "{seed: 7, run_key: k, editor_rl: {iterations: 3, learning_rate: 0.5}, editor_eval: {samples: 2}}"
    plan = plan_run("improve-editor", form(edits, image_editor="./mine", preset="smallest", settings=settings))
    rl, evaluation = plan.parameters["editor_rl"], plan.parameters["editor_eval"]
    assert (rl["editor"], rl["preset"], rl["iterations"], rl["learning_rate"], rl["seed"]) == (
        "./mine",
        "smallest",
        3,
        0.5,
        7,
    )
    assert (evaluation["base"], evaluation["samples"], evaluation["seed"]) == ("./mine", 2, 7)
    assert plan.run_key == "k"
    assert rl["reward"] == "models:/edit-reward/3", "the champion of this moment"
    assert {source.sha256 for source in plan.sources.values()} == {read_manifest(edits)["sha256"]}


@pytest.mark.parametrize(
    ("settings", "champion"),
    [
        ("{reward: {preset: editreward-tiny}}", "models:/edit-reward/3"),
        ("{reward: {preset: editscore-tiny}}", ""),
        ("{benchmark: {champion: 'models:/edit-reward/1'}}", "models:/edit-reward/1"),
    ],
    ids=["of its kind", "none of its kind yet", "named"],
)
def test_what_a_new_reward_model_must_beat_is_a_version(
    settings: str, champion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that only knew "the champion" would give a later run the comparison with an earlier one."""
    monkeypatch.setattr(preflight, "find_campaign_files", lambda name, campaign: Source(f"/{name}", "0" * 64))
    monkeypatch.setattr(preflight, "present_answers", lambda campaign: "1" * 64)
    plan = plan_run("train-reward", {"campaign": "kitchens", "settings": settings})
    assert plan.parameters["benchmark"]["champion"] == champion


def test_edits_are_found_by_name(edits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITLOOP_EDITS", str(edits.parent))
    assert find_edits("edits", "edits") == find_edits("edits", str(edits))
    with pytest.raises(EditLoopError, match=r"edits: 'edit' is no folder .* there are edits\. Did you mean edits\?"):
        find_edits("edits", "edit")
    monkeypatch.delenv("EDITLOOP_EDITS")
    with pytest.raises(EditLoopError, match=r"edits: edits does not exist.*EDITLOOP_EDITS"):
        find_edits("edits", "edits")


def test_outputs_come_in_the_order_of_their_names(edits: Path) -> None:
    fields = preflight_fields(PIPELINES["improve-editor"])
    outputs = preflight_outputs("improve-editor", form(edits))
    assert [type(value) for value in outputs] == list(fields.values())
    named = dict(zip(fields, outputs, strict=True))
    assert named["prompts_uri"] == named["heldout_uri"] == str(edits)
    assert named["editor_eval"]["gate"] == "editor"


def test_services_that_are_away_are_told_together(edits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "EDITLOOP_LABEL_STUDIO_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(EditLoopError) as refused:
        preflight_outputs("improve-editor", form(edits))
    first, mlflow, label_studio = str(refused.value).splitlines()
    assert first == "improve-editor: 2 faults, nothing was started."
    assert mlflow.startswith("MLflow: http://127.0.0.1:9 does not answer (ConnectError); start it, or correct MLFLOW_")
    assert label_studio.startswith("Label Studio: http://127.0.0.1:9 does not answer")


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    """Also those of the last stage, which would come up after hours of training."""
    settings = "{editor_rl: {iteration: 3}, editor_eval: {samples: 0}, rewad: {}, seed: 1}"
    values = form(tmp_path / "gone", gate="rewrd", settings=settings)
    with pytest.raises(EditLoopError) as refused:
        plan_run("improve-editor", values | {"edits_held_out": "/nowhere"})
    first, *faults = str(refused.value).splitlines()
    assert first == "improve-editor: 5 faults, nothing was started."
    for fault in ("'rewad'", "did you mean iterations", "samples=0", f"{tmp_path / 'gone'} does not exist", "/nowhere"):
        assert [line for line in faults if fault in line], fault


@pytest.mark.parametrize(("stage", "values"), [("editor_eval", {"gate": "rewrd"}), ("editor_rl", {"preset": "tny"})])
def test_a_gate_or_preset_that_is_none_is_told_before_anything_runs(
    edits: Path, stage: str, values: dict[str, str]
) -> None:
    with pytest.raises(EditLoopError, match=f"{stage}: (gate 'rewrd'|preset 'tny'): no such file or name"):
        plan_run("improve-editor", form(edits, **values))


@pytest.mark.parametrize("settings", ["[1]", "seed", "{a: ", "{editor_rl: 3}"])
def test_settings_that_are_no_mapping_are_refused(edits: Path, settings: str) -> None:
    with pytest.raises(EditLoopError, match=r"settings"):
        plan_run("improve-editor", form(edits, settings=settings))


@pytest.mark.slow("starts an S3 server")
def test_a_folder_in_a_bucket_has_the_digest_of_its_content(
    edits: Path, s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = ObjectFolder("s3://editloop/edits")
    remote.upload({f"whole/{name}": edits / name for name in ("manifest.json", "edits.jsonl")})
    remote.write("plain/edits.jsonl", b"{}")
    assert find_edits("edits", "s3://editloop/edits/whole/").sha256 == find_edits("edits", str(edits)).sha256
    before = find_edits("edits", "s3://editloop/edits/plain").sha256
    remote.write("plain/edits.jsonl", b"{ }")
    assert find_edits("edits", "s3://editloop/edits/plain").sha256 != before
    monkeypatch.setenv("EDITLOOP_EDITS", "s3://editloop/edits")
    assert find_edits("edits", "plain") == find_edits("edits", "s3://editloop/edits/plain")
    with pytest.raises(EditLoopError, match=r"there are plain, whole\. Did you mean plain\?"):
        find_edits("edits", "plian")
    with pytest.raises(EditLoopError, match=r"edits: s3://editloop/edits/none has no edits\.jsonl"):
        find_edits("edits", "s3://editloop/edits/none")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(EditLoopError, match="edits: s3://editloop/edits/plain: cannot be read"):
        find_edits("edits", "s3://editloop/edits/plain")
